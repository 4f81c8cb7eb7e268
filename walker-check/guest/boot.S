/*
 * Start of the walker-check guest, and its way into and out of one access. Assembled twice: for 64 bits (long mode,
 * four or five levels) and for 32 bits (PAE and 32-bit paging). Loaded by multiboot as a flat image, so that the
 * loader doesn't mind the class of the ELF file.
 */
#define MB_MAGIC 0x1badb002
#define MB_FLAGS 0x00010000
#define CASES    0x2000000

        .section .multiboot, "ax"
        .align 4
header: .long MB_MAGIC, MB_FLAGS, -(MB_MAGIC + MB_FLAGS)
        .long header, load_start, load_end, bss_end, entry

        .code32
        .globl entry
entry:  cli
        mov     $stack_top, %esp
#ifdef __x86_64__
        /* The guest's own tables: 0..1 GiB by 2 MiB pages, 1..8 GiB by 1 GiB pages, all for the supervisor. */
        movl    $kernel_pdpt + 7, kernel_pml4
        movl    $kernel_pd + 7, kernel_pdpt
        mov     $1, %ecx
1:      mov     %ecx, %eax
        shl     $30, %eax
        or      $0x83, %eax
        mov     %eax, kernel_pdpt(, %ecx, 8)
        mov     %ecx, %eax
        shr     $2, %eax
        mov     %eax, kernel_pdpt + 4(, %ecx, 8)
        inc     %ecx
        cmp     $8, %ecx
        jne     1b
        xor     %ecx, %ecx
2:      mov     %ecx, %eax
        shl     $21, %eax
        or      $0x83, %eax
        mov     %eax, kernel_pd(, %ecx, 8)
        inc     %ecx
        cmp     $512, %ecx
        jne     2b
        mov     $kernel_pml4, %ebx
        mov     $0x20, %eax                     /* CR4.PAE */
        cmpl    $5, CASES + 8
        jne     3f
        movl    $kernel_pml4 + 7, kernel_pml5
        mov     $kernel_pml5, %ebx
        or      $0x1000, %eax                   /* CR4.LA57 */
3:      mov     %eax, %cr4
        mov     %ebx, %cr3
        mov     $0xc0000080, %ecx
        rdmsr
        or      $0x100, %eax                    /* EFER.LME */
        wrmsr
        mov     %cr0, %eax
        and     $~0x60000000, %eax              /* caches on */
        or      $0x80000001, %eax
        mov     %eax, %cr0
        lgdt    boot_gdt_pointer
        ljmp    $8, $entry64
        .code64
entry64:
#else
        lgdt    boot_gdt_pointer
        ljmp    $8, $entry32
entry32:
#endif
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        call    main
        hlt

        .align 8
boot_gdt:
        .quad   0
#ifdef __x86_64__
        .quad   0x00af9a000000ffff
#else
        .quad   0x00cf9a000000ffff
#endif
        .quad   0x00cf92000000ffff
boot_gdt_pointer:
        .word   23
        .long   boot_gdt, 0

#ifdef __x86_64__
#define BX   %rbx
#define AX   %rax
#define DX   %rdx
#define SP   %rsp
#define SAVE push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
#define LOAD pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
#define IRET iretq
#define POPF popfq
#define WORD .quad
#else
#define BX   %ebx
#define AX   %eax
#define DX   %edx
#define SP   %esp
#define SAVE push %ebx; push %ebp; push %esi; push %edi
#define LOAD pop %edi; pop %esi; pop %ebp; pop %ebx
#define IRET iret
#define POPF popf
#define WORD .long
#endif

        .text
/*
 * One access, as the a_ variables say; returns when it has ended, well or by a page fault, with the r_ variables set.
 * It ends by an interrupt in either case: #PF, or INT 0x80 after the access (for a fetch: in the fetched page).
 */
        .globl  access
access: SAVE
        mov     SP, saved_sp
        movl    $1, armed
        mov     a_va, BX
        mov     a_value, %eax
        mov     $7, %ecx                        /* LDT, entry 0, RPL 3 */
        mov     a_code, DX
        cmpl    $0, a_cpl3
        jne     1f
        push    a_flags
        POPF
        jmp     *DX
1:      mov     $0x23, %ebp
        mov     %ebp, %ds
        mov     %ebp, %es
        push    $0x23
        push    $0
        push    a_flags
        push    $0x1b
        push    DX
        IRET

/* What happens at CPL 0 here and at CPL 3 in a copy: 16 bytes for each kind of access. */
        .globl  access_code, access_code_end
        .align  16
access_code:
        mov     (BX), %eax
        int     $0x80
        .align  16
        mov     %eax, (BX)
        int     $0x80
        .align  16
        jmp     *BX
        .align  16
        lsl     %ecx, %eax
        int     $0x80
        .align  16
access_code_end:

        .globl  on_page_fault, on_done
on_page_fault:
        cmpl    $0, armed
        je      unexpected_page_fault
        pop     AX
        mov     AX, r_error
        mov     %cr2, AX
        mov     AX, r_cr2
        movl    $1, r_fault
        jmp     back
on_done:
        mov     %eax, r_value
        movl    $0, r_fault
back:   movl    $0, armed
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     saved_sp, SP
        push    $2
        POPF
        LOAD
        ret

unexpected_page_fault:
        push    $14
        jmp     die_here

/* Any other exception ends the run. */
        .globl  vectors
        .align  16
vectors:
        .set    i, 0
        .rept   32
        .align  16
        push    $i
        jmp     die_here
        .set    i, i + 1
        .endr
die_here:
        pop     AX
#ifdef __x86_64__
        mov     %eax, %edi
#else
        push    %eax
#endif
        call    die

#ifdef __x86_64__
/* Runs the guest of nested.c until its next exit. */
        .globl  nested_run
nested_run:
        SAVE
        mov     n_va, %rbx
        mov     $7, %ecx                        /* as in access */
        mov     n_vmcb, %rax
        vmrun   %rax
        LOAD
        ret
#else
/* switch_paging(cr0, cr3, cr4, efer): by way of no paging at all. Code, stack and tables are where they are. */
        .globl  switch_paging
switch_paging:
        mov     %cr0, %eax
        and     $0x7fffffff, %eax
        mov     %eax, %cr0
        mov     8(%esp), %eax
        mov     %eax, %cr3
        mov     12(%esp), %eax
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx
        xor     %edx, %edx
        mov     16(%esp), %eax
        wrmsr
        mov     4(%esp), %eax
        mov     %eax, %cr0
        ret
#endif

        .data
        .align  8
        .globl  a_va, a_value, a_code, a_cpl3, a_flags, r_fault, r_error, r_cr2, r_value
a_va:    WORD 0
a_code:  WORD 0
a_flags: WORD 0
r_error: WORD 0
r_cr2:   WORD 0
saved_sp: WORD 0
a_value: .long 0
a_cpl3:  .long 0
r_fault: .long 0
r_value: .long 0
armed:   .long 0

        .bss
        .align  4096
        .globl  kernel_pml4, kernel_pdpt, kernel_pd, kernel_pml5, interrupt_stack_top
kernel_pml5: .skip 4096
kernel_pml4: .skip 4096
kernel_pdpt: .skip 4096
kernel_pd:   .skip 16384
        .skip   16384
stack_top:
        .skip   4096
interrupt_stack_top:

        .section .note.GNU-stack, "", @progbits
