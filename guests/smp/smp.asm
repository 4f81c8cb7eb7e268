; A guest in which several CPUs work on the same memory. Multiboot 1; nasm alone makes the file, ELF header included:
;
;   nasm -f bin -o smp.elf smp.asm
;
; The boot processor starts the others by INIT and a start-up message; all share one address space. Then
;
;   1  each takes a spin lock TURNS times and adds to a counter that only the lock protects, and to another by LOCK XADD,
;   2  the boot processor moves one page ROUNDS times to another frame, rewrites a function, and shoots the old translation down:
;      an interrupt to all others, who flush the page and answer. Meanwhile they read the page, call the function and write to
;      the page; nobody may see an older state than the last that was answered by all, nor write to a frame that was taken away,
;   3  the others halt with interrupts off, and an NMI to all of them wakes each.
;
; It prints what it found on the serial port and powers off, the number of CPUs being that of CPUID's leaf 1:
;
;   cpus 2 locked 00001000 rounds 0100 nmis 1 ok
;
; With "turns=N" (hexadecimal, 8 digits) on the command line N is how often each takes the lock. When something was wrong it says so, and
; which CPU, and ends with 9 through the debug-exit port.
;
; Memory: 32 KiB the others' first page, 1 MiB code and data, 2 MiB tables, 3 MiB the frames, 4 MiB stacks.

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
        dd 1, 0, ORIGIN, ORIGIN, end - ORIGIN, 0x2000, 7, 0x1000

; --- multiboot header -----------------------------------------------------------------------------------------------------
        align 4
        dd 0x1badb002, 0x2, -(0x1badb002 + 0x2)

TRAMPOLINE equ 0x8000
STACKS  equ 0x400000                    ; 4 KiB each
PML4    equ 0x200000
PDPT    equ 0x201000
PD0     equ 0x202000                    ; identity: 0 to 32 MiB by 2 MiB pages
PD1     equ 0x203000                    ; 1 GiB and up: PT0
PD3     equ 0x204000                    ; the local APIC
PT0     equ 0x205000
FRAMES  equ 0x300000                    ; 16 of them
SHARED  equ 0x40000000
APIC    equ 0xfee00000
TURNS   equ 0x800
ROUNDS  equ 0x100
FLUSH   equ 0x40
; In a page of its own, as a write to a page of code costs: 64 bytes each
DATA    equ ORIGIN + 0x1000
lock_word equ DATA + 0x0
locked    equ DATA + 0x40
added     equ DATA + 0x80
online    equ DATA + 0xc0
worked    equ DATA + 0x100
current   equ DATA + 0x140
next      equ DATA + 0x180
answers   equ DATA + 0x1c0
halting   equ DATA + 0x200
nmis      equ DATA + 0x240
phase     equ DATA + 0x280
failed    equ DATA + 0x2c0
cpus      equ DATA + 0x300
turns     equ DATA + 0x340
P       equ 1
W       equ 2
PS      equ 0x80

start:
        cli
        mov esp, STACKS + 0x1000
        cmp eax, 0x2badb002
        jne stop32
        mov [info], ebx
        mov edi, PML4
        xor eax, eax
        mov ecx, 6 * 1024
        rep stosd
        mov dword [PML4], PDPT | P | W
        mov dword [PDPT], PD0 | P | W
        mov dword [PDPT + 8], PD1 | P | W
        mov dword [PDPT + 24], PD3 | P | W
        mov eax, PS | P | W
        mov edi, PD0
        mov ecx, 16
.pd0:   mov [edi], eax
        add eax, 0x200000
        add edi, 8
        loop .pd0
        mov dword [PD1], PT0 | P | W
        mov dword [PD3 + 0x1f7 * 8], APIC | PS | P | W
        mov dword [PT0], FRAMES | P | W
        mov esi, trampoline
        mov edi, TRAMPOLINE
        mov ecx, trampoline_end - trampoline
        rep movsb
        call enter_long
        jmp 0x08:boot_processor
stop32: hlt
        jmp stop32

; paging and long mode; the caller jumps to a code segment of 64 bits
enter_long:
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
        ret

; --- where the others begin: copied to TRAMPOLINE, in real mode ------------------------------------------------------------
bits 16
trampoline:
        cli
        xor ax, ax
        mov ds, ax
        o32 lgdt [TRAMPOLINE + (.gdtr - trampoline)]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 0x18:start_other
.gdtr:  dw gdt_end - gdt - 1
        dd gdt
trampoline_end:

bits 32
start_other:
        mov ax, 0x10
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov eax, 1
        lock xadd [numbers], eax        ; its number
        mov esp, eax
        shl esp, 12
        add esp, STACKS + 0x1000
        push eax
        call enter_long
        jmp 0x08:other_processor

        align 8
gdt:    dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
gdt_end:
gdtr:   dw gdt_end - gdt - 1
        dd gdt
info:   dd 0
numbers: dd 1

bits 64
; --- the boot processor ----------------------------------------------------------------------------------------------------
boot_processor:
        mov rsp, STACKS + 0x1000
        call load_registers
        mov dword [turns], TURNS
        call read_turns
        lea rax, [on_flush]
        lea rdi, [idt + FLUSH * 16]
        call set_gate
        lea rax, [on_nmi]
        lea rdi, [idt + 2 * 16]
        call set_gate
        mov eax, 1
        cpuid
        shr ebx, 16
        movzx ebx, bl
        cmp ebx, 1
        adc ebx, 0                      ; a single one may say 0
        mov [cpus], ebx
        mov eax, 0xc4500                ; INIT to all others
        call send
        mov eax, 0xc4600 | (TRAMPOLINE >> 12)
        call send
.wait:  pause
        mov eax, [online]
        inc eax
        cmp eax, [cpus]
        jne .wait
        call work
.worked:
        pause
        mov eax, [worked]
        cmp eax, [cpus]
        jne .worked
        mov eax, [turns]
        mul dword [cpus]
        lea rsi, [lost_lock]
        cmp eax, [locked]
        jne wrong
        lea rsi, [lost_add]
        cmp eax, [added]
        jne wrong
        call shoot
        mov dword [phase], 2
.halting:
        pause
        mov eax, [halting]
        inc eax
        cmp eax, [cpus]
        jne .halting
        mov eax, 0xc4400                ; NMI to all others
        call send
.nmis:  pause
        mov eax, [nmis]
        inc eax
        cmp eax, [cpus]
        jne .nmis
        lea rsi, [cpus_are]
        call print
        mov eax, [cpus]
        mov ecx, 1
        call print_hex
        lea rsi, [locked_is]
        call print
        mov eax, [locked]
        mov ecx, 8
        call print_hex
        lea rsi, [rounds_are]
        call print
        mov eax, [current]
        mov ecx, 4
        call print_hex
        lea rsi, [nmis_are]
        call print
        mov eax, [nmis]
        mov ecx, 1
        call print_hex
        lea rsi, [done]
        call print
        mov dx, 0x604                   ; PM1a control: SLP_EN with sleep type 5
        mov eax, (1 << 13) | (5 << 10)
        out dx, ax
        mov eax, 1 << 13                ; QEMU's type is 0
        out dx, ax
.stop:  hlt
        jmp .stop

; moves SHARED from frame to frame; the number of the round is in the frame, and in the function. It never looks at the page itself, so
; it has nothing to flush: under shadow paging its INVLPG would flush the others' TLBs too, whether they ask for it or not
shoot:  mov ebx, 1
.round: mov edi, ebx
        and edi, 15
        shl edi, 12
        add edi, FRAMES
        ; nobody wrote to this frame since it was taken away
        mov eax, [rdi + 0x800]
        lea rsi, [written]
        cmp eax, [rdi + 0x804]
        jne wrong
        mov [rdi], ebx
        mov [next], ebx
        lea eax, [rdi + (P | W)]
        mov [PT0], eax
        mov [function + 1], ebx
        mov dword [answers], 0
        mov eax, 0xc4000 | FLUSH        ; to all others
        call send
.wait:  pause
        mov eax, [answers]
        inc eax
        cmp eax, [cpus]
        jne .wait
        ; from here on only the new frame is written to: note what the old one has
        lea edi, [rbx - 1]
        and edi, 15
        shl edi, 12
        add edi, FRAMES
        mov eax, [rdi + 0x800]
        mov [rdi + 0x804], eax
        mov [current], ebx
        inc ebx
        cmp ebx, ROUNDS
        jbe .round
        ret

; --- the others ------------------------------------------------------------------------------------------------------------
other_processor:
        pop rbp                         ; its number (4 bytes, and 4 more that were never written)
        mov ebp, ebp
        mov esp, ebp
        shl esp, 12
        add esp, STACKS + 0x1000
        call load_registers
        lock inc dword [online]
        call work
        sti
.look:  mov rdi, SHARED
        mov ebx, [current]
        mov eax, [rdi]
        lea rsi, [old_page]
        cmp eax, ebx
        jb wrong
        cmp eax, [next]
        ja wrong
        call function
        lea rsi, [old_code]
        cmp eax, ebx
        jb wrong
        lock inc dword [rdi + 0x800]
        cmp dword [phase], 2
        jne .look
        cli
        lock inc dword [halting]
.halt:  hlt
        jmp .halt

; --- both ------------------------------------------------------------------------------------------------------------------
load_registers:
        mov ax, 0x10
        mov ds, ax
        mov es, ax
        mov ss, ax
        lidt [idtr]
        mov edi, APIC
        mov dword [rdi + 0xf0], 0x1ff   ; enabled
        ret

; rax becomes the interrupt gate at rdi
set_gate:
        mov [rdi], ax
        mov word [rdi + 2], 0x08
        mov word [rdi + 4], 0x8e00
        shr rax, 16
        mov [rdi + 6], ax
        shr rax, 16
        mov [rdi + 8], eax
        ret

; writes eax to the ICR and waits until it is sent
send:   mov edi, APIC
        mov [rdi + 0x300], eax
.wait:  test dword [rdi + 0x300], 1 << 12
        jnz .wait
        ret

work:   mov ecx, [turns]
.turn:  mov eax, 1
        xchg eax, [lock_word]
        test eax, eax
        jz .mine
        pause
        jmp .turn
.mine:  mov ebx, [locked]
        mov edx, 8                      ; a while, so that others come in between if they can
.while: dec edx
        jnz .while
        inc ebx
        mov [locked], ebx
        mov dword [lock_word], 0
        mov eax, 1
        lock xadd [added], eax
        dec ecx
        jnz .turn
        lock inc dword [worked]
        ret

; "turns=XXXXXXXX" on the command line
read_turns:
        mov ebx, [info]
        test dword [rbx], 4
        jz .end
        mov esi, [rbx + 16]
.find:  mov rax, [rsi]
        test al, al
        jz .end
        inc rsi
        mov rdx, 0x00003d736e727574     ; turns=
        shl rax, 16
        shr rax, 16
        cmp rax, rdx
        jne .find
        add rsi, 5
        mov ecx, 8
        xor edx, edx
.digit: movzx eax, byte [rsi]
        inc rsi
        sub al, '0'
        cmp al, 9
        jbe .add
        sub al, 'a' - '0' - 10
.add:   shl edx, 4
        add edx, eax
        loop .digit
        mov [turns], edx
.end:   ret

on_flush:
        push rax
        push rdi
        mov rdi, SHARED
        invlpg [rdi]
        lock inc dword [answers]
        mov edi, APIC
        mov dword [rdi + 0xb0], 0       ; end of interrupt
        pop rdi
        pop rax
        iretq

on_nmi: lock inc dword [nmis]
        iretq

; rsi says what is wrong
wrong:  mov eax, 1
        xchg eax, [failed]
        test eax, eax
        jnz .stop
        call print
        mov eax, 9
        out 0xf4, eax
.stop:  cli
        hlt
        jmp .stop

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

        align 16
function:
        mov eax, 0                      ; rewritten in each round
        ret

idtr:   dw (FLUSH + 1) * 16 - 1
        dq idt
cpus_are: db 'cpus ', 0
locked_is: db ' locked ', 0
rounds_are: db ' rounds ', 0
nmis_are: db ' nmis ', 0
done:   db ' ok', 10, 0
lost_lock: db 'wrong: two CPUs had the lock', 10, 0
lost_add: db 'wrong: an addition was lost', 10, 0
written: db 'wrong: a frame was written after it was taken away', 10, 0
old_page: db 'wrong: an old page was read', 10, 0
old_code: db 'wrong: old code was executed', 10, 0
        align 16
idt:    times (FLUSH + 1) * 16 db 0
end:
