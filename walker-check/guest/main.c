/*
 * The walker-check guest: performs each case of the table at CASES and writes three bytes per case to the debug
 * console (the layout is in cases.mjs, decodeResult).
 *
 * Its own code, data and stack lie in the first 4 MiB, mapped to themselves, for the supervisor, in every set of
 * tables. At USER_VA there is one page of code for CPL 3. Nothing else is mapped while an access runs.
 */
#include "guest.h"

struct test_case {
  uint64_t entries[5];
  uint64_t va, target;
  uint32_t cr0, cr4, efer, pkru;
  uint32_t kind, cpl3, ac, id;
  uint32_t cr3, pad;
};
_Static_assert(sizeof(struct test_case) == 96, "as encodeCases writes it");

extern uintptr_t a_va, a_code, a_flags, r_error, r_cr2;
extern uint32_t a_value, a_cpl3, r_fault, r_value;
extern char vectors[], on_page_fault[], on_done[], interrupt_stack_top[];
extern uint64_t kernel_pml4[], kernel_pdpt[], kernel_pd[], kernel_pml5[];
void access(void);
void switch_paging(uint32_t cr0, uint32_t cr3, uint32_t cr4, uint32_t efer);

static uint64_t gdt[16], idt[512];
static struct { uint16_t limit; uintptr_t base; } __attribute__((packed)) pointer;
static uint32_t tss[32];
static uint8_t user_page[4096] __attribute__((aligned(4096)));
static uint64_t user_table[512] __attribute__((aligned(4096)));
uint8_t *const tables[6] = {0, (void *)0x300000, (void *)0x301000, (void *)0x302000, (void *)0x303000,
                                   (void *)0x304000};

static inline void outl(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }

static _Noreturn void stop(uint32_t code) {
  outl(0xf4, code);
  for (;;) __asm__ volatile("hlt");
}

/* An exception that no case should raise: ends the run with its number. */
_Noreturn void die(uint32_t vector) { stop(0x20 + vector); }

static void set_gate(int vector, void *code, uint32_t type) {
  uint64_t at = (uintptr_t)code;
  uint64_t low = (at & 0xffff) | (8u << 16) | ((uint64_t)type << 40) | ((at & 0xffff0000u) << 32);
  if (sizeof(void *) == 8) {
    idt[2 * vector] = low;
    idt[2 * vector + 1] = at >> 32;
  } else {
    idt[vector] = low;
  }
}

static void system_descriptor(int index, uintptr_t base, uint32_t limit, uint32_t type) {
  uint64_t at = base;
  gdt[index] = limit | ((at & 0xffffff) << 16) | ((uint64_t)type << 40) | (((at >> 24) & 0xff) << 56);
  if (sizeof(void *) == 8) gdt[index + 1] = at >> 32;
}

static void set_up_segments(void) {
  uint64_t code = sizeof(void *) == 8 ? 0x00af9a000000ffffull : 0x00cf9a000000ffffull;
  gdt[1] = code;
  gdt[2] = 0x00cf92000000ffffull;
  gdt[3] = code | (3ull << 45);
  gdt[4] = 0x00cff2000000ffffull;
  uintptr_t top = (uintptr_t)interrupt_stack_top;
  tss[1] = (uint32_t)top; /* RSP0, or ESP0 and SS0 */
  tss[2] = sizeof(void *) == 8 ? 0 : 0x10;
  system_descriptor(5, (uintptr_t)tss, 103, 0x89);

  for (int i = 0; i < 32; i++) set_gate(i, vectors + 16 * i, 0x8e);
  set_gate(14, on_page_fault, 0x8e);
  set_gate(0x80, on_done, 0xee);

  pointer.limit = sizeof gdt - 1;
  pointer.base = (uintptr_t)gdt;
  __asm__ volatile("lgdt %0" ::"m"(pointer));
  pointer.limit = sizeof idt - 1;
  pointer.base = (uintptr_t)idt;
  __asm__ volatile("lidt %0" ::"m"(pointer));
  __asm__ volatile("ltr %w0" ::"r"(0x28));
}

void set_ldt(uintptr_t base) {
  system_descriptor(7, base, 0xff, 0x82);
  __asm__ volatile("lldt %w0" ::"r"(0x38));
}

#ifdef __x86_64__

static void set_up_paging(uint32_t levels, uint32_t entry_bytes) {
  (void)entry_bytes;
  user_table[0] = (uintptr_t)user_page | PG_P | PG_U;
  kernel_pd[USER_VA >> 21] = (uintptr_t)user_table | PG_P | PG_W | PG_U;
  uint64_t *root = (uint64_t *)tables[levels];
  root[0] = (levels == 5 ? (uintptr_t)kernel_pml4 : (uintptr_t)kernel_pdpt) | PG_P | PG_W | PG_U;
}

static volatile uint32_t *physical(uint64_t pa) { return (volatile uint32_t *)pa; }

static inline void write_cr0(uint64_t v) { __asm__ volatile("mov %0, %%cr0" ::"r"(v) : "memory"); }
static inline void write_cr3(uint64_t v) { __asm__ volatile("mov %0, %%cr3" ::"r"(v) : "memory"); }
static inline void write_cr4(uint64_t v) { __asm__ volatile("mov %0, %%cr4" ::"r"(v) : "memory"); }

static void enter(const struct test_case *test) {
  write_cr4((test->cr4 & 0x1020) | CR4_PKE);
  write_pkru(test->pkru);
  __asm__ volatile("wrmsr" ::"a"(test->efer), "d"(0), "c"(0xc0000080));
  write_cr4(test->cr4);
  write_cr0(test->cr0);
  write_cr3(test->cr3);
}

static void leave(const struct test_case *test) { write_cr4(test->cr4 & 0x1020); }

#else

static uint32_t small_kernel_table[1024] __attribute__((aligned(4096)));
static uint32_t small_user_table[1024] __attribute__((aligned(4096)));
static uint64_t test_pd[512] __attribute__((aligned(4096)));

/* At home the guest runs with PAE: all of 4 GiB mapped to itself, but for a movable window in the last 2 MiB. */
#define WINDOW 0xffe00000u

static void set_up_paging(uint32_t levels, uint32_t entry_bytes) {
  for (uint32_t i = 0; i < 4; i++) kernel_pdpt[i] = ((uintptr_t)kernel_pd + 4096 * i) | PG_P;
  for (uint32_t i = 0; i < 2048; i++) kernel_pd[i] = ((uint64_t)i << 21) | PG_P | PG_W | PG_PS;
  if (entry_bytes == 8) {
    user_table[0] = (uintptr_t)user_page | PG_P | PG_U;
    test_pd[0] = kernel_pd[0];
    test_pd[1] = kernel_pd[1];
    test_pd[USER_VA >> 21] = (uintptr_t)user_table | PG_P | PG_W | PG_U;
    /* PAE's root may start at any 32nd byte of its page. */
    for (uint32_t i = 0; i < 512; i += 4) ((uint64_t *)tables[levels])[i] = (uintptr_t)test_pd | PG_P;
  } else {
    for (uint32_t i = 0; i < 1024; i++) small_kernel_table[i] = (i << 12) | PG_P | PG_W;
    small_user_table[0] = (uintptr_t)user_page | PG_P | PG_U;
    uint32_t *root = (uint32_t *)tables[levels];
    root[0] = (uintptr_t)small_kernel_table | PG_P | PG_W;
    root[USER_VA >> 22] = (uintptr_t)small_user_table | PG_P | PG_W | PG_U;
  }
  switch_paging(0x80000011u, (uintptr_t)kernel_pdpt, CR4_PAE, 0);
}

static volatile uint32_t *physical(uint64_t pa) {
  if (pa < WINDOW) return (volatile uint32_t *)(uintptr_t)pa;
  kernel_pd[2047] = (pa & ~0x1fffffull) | PG_P | PG_W | PG_PS;
  __asm__ volatile("invlpg (%0)" ::"r"(WINDOW) : "memory");
  return (volatile uint32_t *)(WINDOW | (uint32_t)(pa & 0x1fffff));
}

static void enter(const struct test_case *test) {
  __asm__ volatile("mov %0, %%cr4" ::"r"(CR4_PAE | CR4_PKE) : "memory");
  write_pkru(test->pkru);
  switch_paging(test->cr0, test->cr3, test->cr4, test->efer);
}

static void leave(const struct test_case *test) {
  (void)test;
  switch_paging(0x80000011u, (uintptr_t)kernel_pdpt, CR4_PAE, 0);
}

#endif

static uint8_t *entry_place(uint32_t level, const struct test_case *test, const struct header *head) {
  uint8_t *table = level == head->levels ? (uint8_t *)(uintptr_t)(test->cr3 & ~0x1fu) : tables[level];
  if (head->entry_bytes == 4) return table + 4 * ((uint32_t)(test->va >> (2 + 10 * level)) & 0x3ff);
  return table + 8 * ((uint32_t)(test->va >> (3 + 9 * level)) & 0x1ff);
}

static uint64_t read_entry(uint8_t *place, uint32_t entry_bytes) {
  return entry_bytes == 4 ? *(volatile uint32_t *)place : *(volatile uint64_t *)place;
}

static void write_entry(uint8_t *place, uint32_t entry_bytes, uint64_t value) {
  if (entry_bytes == 4) *(volatile uint32_t *)place = (uint32_t)value;
  else *(volatile uint64_t *)place = value;
}

static int reached(const struct test_case *test, uint32_t content, uint32_t now) {
  switch (test->kind) {
    case READ: return r_value == content;
    case WRITE: return now == a_value;
    case FETCH: return (r_value & 0xff) == test->id;
    default: return r_value == ((test->id << 8) | 0xb0);
  }
}

static uint32_t run(const struct test_case *source, const struct header *head) {
  struct test_case copy = *source; /* the table isn't mapped during the access */
  const struct test_case *test = &copy;
  uint32_t levels = head->levels, size = head->entry_bytes;

  for (uint32_t level = 1; level <= levels; level++) {
    write_entry(entry_place(level, test, head), size, test->entries[level - 1]);
  }
  uint32_t content = 0x80cd00b0u | (test->id << 8);
  volatile uint32_t *target = physical(test->target);
  target[0] = content;
  target[1] = 0x0000f300u;

  set_ldt((uintptr_t)test->va);
  a_va = (uintptr_t)test->va;
  a_value = test->kind == WRITE ? 0x5a5a0000u | test->id : 0xdead0000u;
  a_cpl3 = test->cpl3;
  a_flags = 2 | (test->ac ? FLAG_AC : 0);
  a_code = (test->cpl3 ? USER_VA : (uintptr_t)access_code) + 16 * test->kind;
  enter(test);
  access();
  leave(test);

  uint32_t word = 1u << 19;
  target = physical(test->target);
  if (r_fault) {
    word |= 1 | ((uint32_t)(r_error & 0x3f) << 1);
    if (r_error & ~(uintptr_t)0x3f) word |= 1u << 20;
    if (r_cr2 == a_va) word |= 1u << 7;
    if (target[0] != content) word &= ~(1u << 19);
  } else if (reached(test, content, target[0])) {
    word |= 1u << 18;
  }
  target[0] = target[1] = 0;
  for (uint32_t level = 1; level <= levels; level++) {
    uint8_t *place = entry_place(level, test, head);
    uint64_t now = read_entry(place, size);
    if ((now ^ test->entries[level - 1]) & ~0x60ull) word &= ~(1u << 19);
    word |= (uint32_t)((now >> 5) & 3) << (6 + 2 * level);
    write_entry(place, size, 0);
  }
  return word;
}

int main(void) {
  const struct header *head = (const struct header *)CASES;
  const struct test_case *tests = (const struct test_case *)(head + 1);
  int nested = head->magic == 0x5453454e;
  if (!nested && head->magic != 0x4b4c4157) stop(0x11);

  for (char *c = access_code; c < access_code_end; c++) user_page[c - access_code] = (uint8_t)*c;
  set_up_paging(head->levels, head->entry_bytes);
  set_up_segments();
#ifdef __x86_64__
  if (nested) {
    run_nested(head);
    stop(0x10);
  }
#endif
  for (uint32_t i = 0; i < head->count; i++) {
    uint32_t word = run(&tests[i], head);
    outb(0xe9, (uint8_t)word);
    outb(0xe9, (uint8_t)(word >> 8));
    outb(0xe9, (uint8_t)(word >> 16));
  }
  stop(0x10);
}
