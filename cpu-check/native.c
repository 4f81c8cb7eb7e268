/*
 * Executes single instructions natively: cases on stdin, results on stdout, both arrays of fixed structures. Code runs at
 * CODE, its memory operands lie in DATA. A case that faults reports vector and error code, another one which of two exits
 * it took: that right behind the instruction, or that JUMP bytes further on.
 *
 * Cases of 32-bit code run in compatibility mode, through the code segment that Linux has for it; those of 16-bit code, too, in
 * segments of 64 KiB that modify_ldt makes. `./native 16` says whether this kernel does that, by its status and an error's text.
 *
 *   gcc -O1 -o native native.c && ./native < cases > results
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define STATE 0x600000
#define CODE 0x700000
#define DATA 0x800000
#define STUBS 0x601000
#define WINDOW 256
/* At either end of the stack segment of 16-bit code: where pushes wrap around. */
#define EDGE 64
/* Of what FXSAVE writes: control, status, tags, eight registers. */
#define FPU_BYTES 160
#define JUMP 16
#define CS_32 0x23

#define END_CODE 0x710000
#define END_BYTES 0x11000

enum mode { LONG, NARROW, SEGMENTED };

enum contents { READ_ONLY = 1, DOWN = 2, CODE_SEGMENT = 4, BIG = 8 };

/*
 * Of 16-bit code, as segmented.ts has them. The second code segment is for instructions at its end: jumps wrap around there. Then ES, SS,
 * DS, GS, and others for CS, SS and DS: 32-bit code, a 32-bit stack, what is read-only, what grows downwards.
 */
static const struct {
  uint32_t base;
  int contents;
} segments[] = {{DATA - 0x0c00, CODE_SEGMENT}, {END_CODE + 0x400, CODE_SEGMENT},
                {DATA - 0x9004, 0}, {DATA - 0x6ff8, 0}, {DATA - 0x8020, 0}, {DATA - 0x5003, 0},
                {DATA - 0x0c00, CODE_SEGMENT | BIG}, {DATA - 0x6ff8, BIG}, {DATA - 0x8020, READ_ONLY}, {DATA - 0x8020, DOWN}};
/* The last offset below what is in the one that grows downwards. */
#define DOWN_LIMIT 0x8092

/* By the case: its code segment, stack segment, data segment. */
static const uint8_t code_segments[] = {0, 1, 6, 0}, stack_segments[] = {3, 7}, data_segments[] = {4, 8, 9, 4};

#define STACK 3
#define SELECTOR(n) ((n) << 3 | 7)
#define SEGMENT_CODE (DATA + 0xf000)

struct registers {
  uint64_t gpr[16];
  uint64_t flags;
  uint32_t mxcsr;
  /* After a fault. */
  uint32_t ip;
  uint8_t xmm[16][16];
};

struct test {
  uint8_t code[16];
  uint32_t length;
  uint8_t mode;
  /* Of 16-bit code: which code segment (2 bits), stack segment (1) and data segment (2), and where in the first. */
  uint8_t segments;
  uint16_t ip;
  struct registers r;
  uint8_t data[WINDOW];
  uint8_t fpu[FPU_BYTES];
};

struct result {
  struct registers r;
  uint8_t data[WINDOW];
  uint8_t edges[2 * EDGE];
  uint8_t fpu[FPU_BYTES];
  int64_t vector, error;
};

/* At STATE: registers to load, registers found, our stack pointer. */
struct shared {
  struct registers in, out;
  uint64_t stack;
  uint64_t start;
  uint32_t exit, pad;
  struct {
    uint32_t offset;
    uint16_t selector;
  } __attribute__((packed)) far;
  uint16_t es, ss, ds, gs;
  struct {
    uint32_t offset;
    uint16_t selector;
  } __attribute__((packed)) segmented;
  uint8_t unused[0x400 - 0x34c];
  uint8_t fpu_in[512], fpu_out[512];
};
_Static_assert(offsetof(struct shared, far) == 0x338 && offsetof(struct shared, segmented) == 0x346 && offsetof(struct shared, fpu_out) == 0x600, "as the code has it");

static struct shared *const shared = (struct shared *)STATE;
static struct result result;
static sigjmp_buf back;

extern uint8_t stub_32[], stub_32_end[], stub_16[], stub_16_end[];

/* 32-bit code that loads everything and runs the code; it is copied to where such code can reach it. */
__asm__(
    ".code32\n"
    "stub_16: movl $0x2b, %eax; movl %eax, %ds; movl $0x600f00, %esp\n"
    "pushl 0x600080; popfl\n"
    "movl 0x600000, %eax; movl 0x600008, %ecx; movl 0x600010, %edx; movl 0x600018, %ebx\n"
    "movl 0x600028, %ebp; movl 0x600030, %esi; movl 0x600038, %edi\n"
    "movw 0x60033e, %es; movw 0x600344, %gs; movw 0x600340, %ss; movl 0x600020, %esp; movw 0x600342, %ds\n"
    "ljmp *%cs:0x600346\n"
    "stub_16_end:\n"
    "stub_32: movl $0x2b, %eax; movl %eax, %ds; movl %eax, %es; movl $0x600f00, %esp\n"
    "pushl 0x600080; popfl\n"
    "movl 0x600000, %eax; movl 0x600008, %ecx; movl 0x600010, %edx; movl 0x600018, %ebx\n"
    "movl 0x600020, %esp; movl 0x600028, %ebp; movl 0x600030, %esi; movl 0x600038, %edi\n"
    "jmp *0x600328\n"
    "stub_32_end:\n"
    ".code64\n");

/* Loads everything, runs the code; the code ends in a jump to leave. */
__attribute__((naked, noinline)) static void enter(void) {
  __asm__ volatile(
      "pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
      "movq %rsp, 0x600320\n"
      "fxrstor 0x600400; ldmxcsr 0x600088\n"
      "movdqu 0x600090, %xmm0; movdqu 0x6000a0, %xmm1; movdqu 0x6000b0, %xmm2; movdqu 0x6000c0, %xmm3\n"
      "movdqu 0x6000d0, %xmm4; movdqu 0x6000e0, %xmm5; movdqu 0x6000f0, %xmm6; movdqu 0x600100, %xmm7\n"
      "movdqu 0x600110, %xmm8; movdqu 0x600120, %xmm9; movdqu 0x600130, %xmm10; movdqu 0x600140, %xmm11\n"
      "movdqu 0x600150, %xmm12; movdqu 0x600160, %xmm13; movdqu 0x600170, %xmm14; movdqu 0x600180, %xmm15\n"
      "pushq 0x600080; popfq\n"
      "movq 0x600000, %rax; movq 0x600008, %rcx; movq 0x600010, %rdx; movq 0x600018, %rbx\n"
      "movq 0x600020, %rsp; movq 0x600028, %rbp; movq 0x600030, %rsi; movq 0x600038, %rdi\n"
      "movq 0x600040, %r8; movq 0x600048, %r9; movq 0x600050, %r10; movq 0x600058, %r11\n"
      "movq 0x600060, %r12; movq 0x600068, %r13; movq 0x600070, %r14; movq 0x600078, %r15\n"
      "jmpq *0x600328\n");
}

__attribute__((naked, noinline)) static void enter_32(void) {
  __asm__ volatile(
      "pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
      "movq %rsp, 0x600320\n"
      "fxrstor 0x600400; ldmxcsr 0x600088\n"
      "movdqu 0x600090, %xmm0; movdqu 0x6000a0, %xmm1; movdqu 0x6000b0, %xmm2; movdqu 0x6000c0, %xmm3\n"
      "movdqu 0x6000d0, %xmm4; movdqu 0x6000e0, %xmm5; movdqu 0x6000f0, %xmm6; movdqu 0x600100, %xmm7\n"
      "ljmp *0x600338\n");
}

__attribute__((naked, noinline)) static void leave(void) {
  __asm__ volatile(
      "movq %rax, 0x600190; movq %rcx, 0x600198; movq %rdx, 0x6001a0; movq %rbx, 0x6001a8\n"
      "movq %rsp, 0x6001b0; movq %rbp, 0x6001b8; movq %rsi, 0x6001c0; movq %rdi, 0x6001c8\n"
      "movq %r8, 0x6001d0; movq %r9, 0x6001d8; movq %r10, 0x6001e0; movq %r11, 0x6001e8\n"
      "movq %r12, 0x6001f0; movq %r13, 0x6001f8; movq %r14, 0x600200; movq %r15, 0x600208\n"
      "movq 0x600320, %rsp; pushfq; popq 0x600210; cld; movl $0x2b, %eax; movl %eax, %ss; stmxcsr 0x600218; fxsave 0x600600; fninit\n"
      "movdqu %xmm0, 0x600220; movdqu %xmm1, 0x600230; movdqu %xmm2, 0x600240; movdqu %xmm3, 0x600250\n"
      "movdqu %xmm4, 0x600260; movdqu %xmm5, 0x600270; movdqu %xmm6, 0x600280; movdqu %xmm7, 0x600290\n"
      "movdqu %xmm8, 0x6002a0; movdqu %xmm9, 0x6002b0; movdqu %xmm10, 0x6002c0; movdqu %xmm11, 0x6002d0\n"
      "movdqu %xmm12, 0x6002e0; movdqu %xmm13, 0x6002f0; movdqu %xmm14, 0x600300; movdqu %xmm15, 0x600310\n"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx; ret\n");
}

__attribute__((naked, noinline)) static void leave_second(void) {
  __asm__ volatile("movl $1, 0x600330; jmp *0x601088");
}

/* jmp *0(%rip), then the address: no register changes. */
static void jump_to(uint8_t *at, void (*target)(void)) {
  uint64_t address = (uint64_t)target;
  memcpy(at, "\xff\x25\0\0\0\0", 6);
  memcpy(at + 6, &address, 8);
}

/* jmp $0x33:target */
static void far_jump_to(uint8_t *at, uint32_t target) {
  at[0] = 0xea;
  memcpy(at + 1, &target, 4);
  memcpy(at + 5, "\x33\0", 2);
}

/* From 16-bit code. */
static void wide_jump_to(uint8_t *at, uint32_t target) {
  at[0] = 0x66;
  far_jump_to(at + 1, target);
}

/* Makes the segments of 16-bit code; 0, or an error's number. */
static int make_segments(void) {
  for (unsigned i = 0; i < sizeof segments / sizeof segments[0]; i++) {
    int contents = segments[i].contents;
    struct user_desc d = {
        .entry_number = i,
        .base_addr = segments[i].base,
        .limit = contents & DOWN ? DOWN_LIMIT : 0xffff,
        .seg_32bit = !!(contents & BIG),
        .contents = contents & CODE_SEGMENT ? MODIFY_LDT_CONTENTS_CODE : contents & DOWN ? MODIFY_LDT_CONTENTS_STACK : 0,
        .read_exec_only = contents & READ_ONLY};
    if (syscall(SYS_modify_ldt, 0x11, &d, sizeof d)) return errno;
  }
  shared->es = SELECTOR(2);
  shared->gs = SELECTOR(5);
  return 0;
}

/* Writes code and exits into their segment, around whose end they may go. */
static void place_segmented(const struct test *t) {
  uint8_t exit[JUMP] = {0};
  int segment = code_segments[t->segments & 3];
  uint8_t *base = (uint8_t *)(uintptr_t)segments[segment].base;
  for (unsigned i = 0; i < t->length; i++) base[(uint16_t)(t->ip + i)] = t->code[i];
  for (int which = 0; which < 2; which++) {
    if (segments[segment].contents & BIG) far_jump_to(exit, STUBS + which * 0x40);
    else wide_jump_to(exit, STUBS + which * 0x40);
    for (unsigned i = 0; i < 8; i++) base[(uint16_t)(t->ip + t->length + which * JUMP + i)] = exit[i];
  }
  shared->segmented.offset = t->ip;
  shared->segmented.selector = SELECTOR(segment);
  shared->ss = SELECTOR(stack_segments[t->segments >> 2 & 1]);
  shared->ds = SELECTOR(data_segments[t->segments >> 3 & 3]);
  shared->far.offset = STUBS + 0x200;
}

static void handler(int signal, siginfo_t *info, void *context) {
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  ucontext_t *u = context;
  (void)signal, (void)info;
  for (int i = 0; i < 16; i++) result.r.gpr[i] = u->uc_mcontext.gregs[order[i]];
  result.r.flags = u->uc_mcontext.gregs[REG_EFL];
  result.r.ip = u->uc_mcontext.gregs[REG_RIP];
  memcpy(result.r.xmm, u->uc_mcontext.fpregs->_xmm, 256);
  result.r.mxcsr = u->uc_mcontext.fpregs->mxcsr;
  memcpy(result.fpu, u->uc_mcontext.fpregs, FPU_BYTES);
  result.vector = u->uc_mcontext.gregs[REG_TRAPNO];
  result.error = u->uc_mcontext.gregs[REG_ERR];
  siglongjmp(back, 1);
}

int main(int arguments, char **argument) {
  int prot = PROT_READ | PROT_WRITE;
  // All there from the start: what faults and is begun again shows what it has done before.
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE;
  mmap((void *)STATE, 4096, prot, flags, -1, 0);
  mmap((void *)STUBS, 4096, prot | PROT_EXEC, flags, -1, 0);
  mmap((void *)CODE, 4096, prot | PROT_EXEC, flags, -1, 0);
  mmap((void *)(DATA - 65536), 131072, prot, flags, -1, 0);
  mmap((void *)SEGMENT_CODE, 4096, prot | PROT_EXEC, flags, -1, 0);
  mmap((void *)END_CODE, END_BYTES, prot | PROT_EXEC, flags, -1, 0);
  int refused = make_segments();
  if (arguments > 1 && !strcmp(argument[1], "16")) {
    if (refused) printf("modify_ldt: %s\n", strerror(refused));
    return refused != 0;
  }
  stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  sigaltstack(&stack, 0);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  int signals[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP};
  for (int i = 0; i < 5; i++) sigaction(signals[i], &action, 0);
  struct test t;
  uint8_t *edges[2] = {(uint8_t *)(uintptr_t)segments[STACK].base, (uint8_t *)(uintptr_t)segments[STACK].base + 65536 - EDGE};
  const uint32_t usual = 0x1f80;
  uint8_t *code = (uint8_t *)CODE;
  void (*first)(void) = leave;
  memcpy((void *)(STUBS + 0x88), &first, 8);
  jump_to((uint8_t *)STUBS, leave);
  jump_to((uint8_t *)(STUBS + 0x40), leave_second);
  memcpy((void *)(STUBS + 0x100), stub_32, stub_32_end - stub_32);
  memcpy((void *)(STUBS + 0x200), stub_16, stub_16_end - stub_16);
  shared->start = CODE;
  shared->far.selector = CS_32;
  while (fread(&t, sizeof t, 1, stdin) == 1) {
    memcpy(code, t.code, t.length);
    uint8_t *end = code + t.length;
    if (t.mode == SEGMENTED) {
      place_segmented(&t);
    } else if (t.mode == NARROW) {
      shared->far.offset = STUBS + 0x100;
      far_jump_to(end, STUBS);
      far_jump_to(end + JUMP, STUBS + 0x40);
    } else {
      jump_to(end, leave);
      jump_to(end + JUMP, leave_second);
    }
    shared->exit = 0;
    shared->in = t.r;
    memcpy(shared->fpu_in, t.fpu, FPU_BYTES);
    memcpy(shared->fpu_in + 24, &usual, 4);
    memcpy((void *)DATA, t.data, WINDOW);
    for (int i = 0; i < 2; i++) memset(edges[i], 0, EDGE);
    memset(&result, 0, sizeof result);
    result.vector = -1;
    if (!sigsetjmp(back, 0)) {
      if (t.mode == LONG) enter();
      else enter_32();
      result.r = shared->out;
      memcpy(result.fpu, shared->fpu_out, FPU_BYTES);
      result.error = shared->exit;
    } else {
      // Linux leaves a handler the SS of 16-bit code.
      __asm__ volatile("cld; fninit; ldmxcsr %0; movl $0x2b, %%eax; movl %%eax, %%ss" ::"m"(usual) : "eax");
    }
    memcpy(result.data, (void *)DATA, WINDOW);
    for (int i = 0; i < 2; i++) memcpy(result.edges + i * EDGE, edges[i], EDGE);
    fwrite(&result, sizeof result, 1, stdout);
  }
  return 0;
}
