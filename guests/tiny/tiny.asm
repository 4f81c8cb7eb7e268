; A guest that exercises paging in a few milliseconds. Multiboot 1; nasm alone makes the file, ELF header included:
;
;   nasm -f bin -o tiny.elf tiny.asm
;
; It goes from 32-bit protected mode to long mode on tables of its own, and then
;
;   1  writes all of 8 to 16 MiB through 2 MiB pages,
;   2  reads it again through 4 KiB pages that map the first 2 MiB of it in reverse order, and a 2 MiB page,
;   3  touches 64 pages that are not present: its page fault handler installs each,
;   4  takes the right to write from a 2 MiB page, a 4 KiB page and a page directory entry, and writes: the handler gives it back,
;   5  looks at the accessed and dirty bits that all this must have left,
;   6  writes one word in each of 512 pages, 16 rounds over, which is work for a dirty log,
;
; prints what it found on the serial port and powers off. With "exit=N" (one digit) on the command line it ends through the
; debug-exit port instead, with N; when something was wrong, always with 9. All it prints:
;
;   hello from long mode
;   faults 0043 checksum xxxxxxxx ok
;
; Memory: 1 MiB code and data, 2 MiB tables, 3 MiB pages for the handler, 8 to 16 MiB data.

bits 32
ORIGIN  equ 0x100000
        org ORIGIN

; --- ELF32 header, one program header -------------------------------------------------------------------------------------
elf:    db 0x7f, 'ELF', 1, 1, 1, 0
        times 8 db 0
        dw 2, 3                         ; executable, 386
        dd 1, start, program - ORIGIN, 0, 0
        dw 52, 32, 1, 40, 0, 0
program:
        dd 1, 0, ORIGIN, ORIGIN, end - ORIGIN, end - ORIGIN + 0x8000, 7, 0x1000

; --- multiboot header -----------------------------------------------------------------------------------------------------
        align 4
        dd 0x1badb002, 0x2, -(0x1badb002 + 0x2)

STACK   equ 0x10c000
PML4    equ 0x200000
PDPT    equ 0x201000
PD0     equ 0x202000                    ; identity: 0 to 32 MiB by 2 MiB pages
PD1     equ 0x203000                    ; 1 GiB and up: the views
PT0     equ 0x204000                    ; 4 KiB pages, data in reverse order
PT1     equ 0x205000                    ; filled by the fault handler
POOL    equ 0x300000                    ; 64 pages for it
DATA    equ 0x800000
DATA_END equ 0x1000000
VIEW4K  equ 0x40000000                  ; PD1[0] -> PT0
VIEW2M  equ 0x40200000                  ; PD1[1] =  DATA + 2 MiB
LAZY    equ 0x40400000                  ; PD1[2] -> PT1
P       equ 1
W       equ 2
A       equ 0x20
D       equ 0x40
PS      equ 0x80

start:
        cli
        mov esp, STACK
        mov [info], ebx
        cmp eax, 0x2badb002
        jne stop32
        ; 16 pages of zeros for the tables
        mov edi, PML4
        xor eax, eax
        mov ecx, 16 * 1024
        rep stosd
        mov dword [PML4], PDPT | P | W
        mov dword [PDPT], PD0 | P | W
        mov dword [PDPT + 8], PD1 | P | W
        mov eax, PS | P | W
        mov edi, PD0
        mov ecx, 16
.pd0:   mov [edi], eax
        add eax, 0x200000
        add edi, 8
        loop .pd0
        mov dword [PD1], PT0 | P | W
        mov dword [PD1 + 8], (DATA + 0x200000) | PS | P | W
        mov dword [PD1 + 16], PT1 | P | W
        mov eax, (DATA + 511 * 0x1000) | P | W
        mov edi, PT0
        mov ecx, 512
.pt0:   mov [edi], eax
        sub eax, 0x1000
        add edi, 8
        loop .pt0
        ; long mode
        mov eax, cr4
        or eax, 1 << 5                  ; PAE
        mov cr4, eax
        mov eax, PML4
        mov cr3, eax
        mov ecx, 0xc0000080             ; EFER
        rdmsr
        or eax, 1 << 8                  ; LME
        wrmsr
        mov eax, cr0
        or eax, (1 << 31) | (1 << 16) | 1 ; PG, WP, PE
        mov cr0, eax
        lgdt [gdtr]
        jmp 0x08:long_mode
stop32: hlt
        jmp stop32

        align 8
gdt:    dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr:   dw $ - gdt - 1
        dd gdt
        dd 0
info:   dd 0

bits 64
long_mode:
        mov ax, 0x10
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov rsp, STACK
        ; vector 14 is the only gate
        lea rax, [page_fault]
        lea rdi, [idt + 14 * 16]
        mov [rdi], ax
        mov word [rdi + 2], 0x08
        mov word [rdi + 4], 0x8e00
        shr rax, 16
        mov [rdi + 6], ax
        shr rax, 16
        mov [rdi + 8], eax
        lidt [idtr]
        lea rsi, [hello]
        call print

; --- 1: write through 2 MiB pages ------------------------------------------------------------------------------------------
        mov rdi, DATA
        mov rax, 0x9e3779b97f4a7c15
        mov rbx, rax
.fill:  mov [rdi], rbx
        add rbx, rax
        add rdi, 8
        cmp rdi, DATA_END
        jb .fill

; --- 2: read through the views ---------------------------------------------------------------------------------------------
        xor ebp, ebp                    ; the checksum
        mov rsi, VIEW4K
        mov rcx, 512
.page:  mov edx, 64                     ; the first 64 words of each page
.word:  mov rax, [rsi]
        call mix
        add rsi, 8
        dec edx
        jnz .word
        add rsi, 0x1000 - 64 * 8
        loop .page
        mov rsi, VIEW2M
        mov rcx, 0x200000 / 64
.line:  mov rax, [rsi]
        call mix
        add rsi, 64
        loop .line

; --- 3: pages that come when they are touched ------------------------------------------------------------------------------
        mov rdi, LAZY
        mov ecx, 64
.lazy:  mov [rdi + rcx * 8], rcx        ; another word in each
        mov rax, [rdi + rcx * 8]
        call mix
        add rdi, 0x1000
        loop .lazy

; --- 4: rights taken away, and given back by the handler -------------------------------------------------------------------
        and dword [PD0 + 7 * 8], ~(W | D) ; 14 to 16 MiB
        mov rdi, 0xe00000
        invlpg [rdi]
        mov rax, [rdi]                  ; reading is all right
        inc rax
        mov [rdi], rax
        call mix
        and dword [PT0 + 8], ~(W | D)
        mov rdi, VIEW4K + 0x1000
        invlpg [rdi]
        add qword [rdi + 8], 1
        mov rax, [rdi + 8]
        call mix
        and dword [PD1], ~W             ; above a table of small pages
        mov rax, cr3
        mov cr3, rax
        mov rdi, VIEW4K + 0x5000
        mov [rdi], rdi
        mov rax, [DATA + 506 * 0x1000]  ; the same page by its other address
        call mix

; --- 5: accessed and dirty -------------------------------------------------------------------------------------------------
        mov ebx, [PD0 + 4 * 8]          ; written
        and ebx, A | D
        cmp ebx, A | D
        jne wrong
        mov ebx, [PD1 + 8]              ; only read
        and ebx, A | D
        cmp ebx, A
        jne wrong
        mov ebx, [PD0 + 12 * 8]         ; never touched
        test ebx, A | D
        jnz wrong
        mov ebx, [PT0 + 5 * 8]
        and ebx, A | D
        cmp ebx, A | D
        jne wrong
        mov ebx, [PT0 + 6 * 8]          ; only read
        and ebx, A | D
        cmp ebx, A
        jne wrong

; --- 6: rounds of writes ---------------------------------------------------------------------------------------------------
        mov edx, 16
.round: mov rdi, DATA + 0x400000
        mov ecx, 512
.touch: add [rdi + 0x10], rdx
        mov rax, [rdi + 0x10]
        call mix
        add rdi, 0x1000
        loop .touch
        dec edx
        jnz .round

        cmp dword [faults], 64 + 3
        jne wrong
        lea rsi, [done]
        jmp report

wrong:  lea rsi, [bad]
        mov byte [status], 9
report: push rsi
        lea rsi, [faults_are]
        call print
        mov eax, [faults]
        mov ecx, 4
        call print_hex
        lea rsi, [checksum_is]
        call print
        mov eax, ebp
        mov ecx, 8
        call print_hex
        pop rsi
        call print

; --- the end: debug-exit if asked for or in case of an error, else ACPI's S5 -----------------------------------------------
        mov al, [status]
        test al, al
        jnz .exit
        mov ebx, [info]
        test dword [rbx], 4             ; is there a command line?
        jz .off
        mov esi, [rbx + 16]
.find:  mov eax, [rsi]
        test al, al
        jz .off
        inc rsi
        cmp eax, 'exit'
        jne .find
        cmp byte [rsi + 3], '='
        jne .find
        movzx eax, byte [rsi + 4]
        sub eax, '0'
.exit:  movzx eax, al
        out 0xf4, eax
.off:   mov dx, 0x604                   ; PM1a control: SLP_EN with sleep type 5
        mov eax, (1 << 13) | (5 << 10)
        out dx, ax
        mov eax, 1 << 13                ; QEMU's type is 0
        out dx, ax
.stop:  hlt
        jmp .stop

; --- helpers ---------------------------------------------------------------------------------------------------------------
; ebp = rotate(ebp, 5) ^ both halves of rax; only ebp and rax change
mix:    rol ebp, 5
        xor ebp, eax
        shr rax, 32
        xor ebp, eax
        ret

; the zero-terminated text at rsi
print:  lodsb
        test al, al
        jz .end
        call put
        jmp print
.end:   ret

; the low ecx digits of eax
print_hex:
        mov ebx, eax
        mov edi, ecx
.digit: lea ecx, [rdi * 4 - 4]
        mov eax, ebx
        shr eax, cl
        and eax, 15
        add al, '0'
        cmp al, '9'
        jbe .put
        add al, 'a' - '9' - 1
.put:   call put
        dec edi
        jnz .digit
        ret

; the character al, when the transmitter is empty
put:    mov ah, al
        mov dx, 0x3fd
.wait:  in al, dx
        test al, 0x20
        jz .wait
        mov al, ah
        mov dx, 0x3f8
        out dx, al
        ret

; not present in LAZY: installs a page; not writable: gives the right back, wherever it was taken
page_fault:
        push rax
        push rbx
        push rcx
        inc dword [faults]
        mov rax, cr2
        test byte [rsp + 24], P
        jnz .protected
        mov ebx, eax
        sub ebx, LAZY
        shr ebx, 12                     ; which page
        cmp ebx, 64
        jae wrong
        mov ecx, ebx
        shl ecx, 12
        add ecx, POOL + (P | W)
        mov [PT1 + rbx * 8], rcx
        jmp .return
.protected:
        test byte [rsp + 24], W
        jz wrong
        or dword [PD0 + 7 * 8], W
        or dword [PT0 + 8], W
        or dword [PD1], W
        invlpg [rax]
.return:
        pop rcx
        pop rbx
        pop rax
        add rsp, 8
        iretq

idtr:   dw 15 * 16 - 1
        dq idt
faults: dd 0
status: db 0
hello:  db 'hello from long mode', 10, 0
faults_are: db 'faults ', 0
checksum_is: db ' checksum ', 0
done:   db ' ok', 10, 0
bad:    db ' wrong', 10, 0
        align 16
idt:    times 15 * 16 db 0
end:
