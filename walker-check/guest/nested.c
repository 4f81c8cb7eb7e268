/*
 * The nested cases: each is one run of a guest under AMD's nested paging, which shares this guest's code, kernel tables
 * and descriptor tables. It begins at the access and ends at the intercepted INT 0x80 after it, at an intercepted #PF,
 * or at a nested page fault. The answers' layout is in nested-cases.mjs, decodeNestedResult.
 */
#ifdef __x86_64__
#include "guest.h"

struct nested_case {
  uint64_t entries[4], nested[4], table_entries[3];
  uint64_t va, gpa, target;
  uint32_t cr0, cr4, efer, pkru;
  uint32_t kind, cpl3, ac, id;
  uint32_t nxe, pad[3];
};
_Static_assert(sizeof(struct nested_case) == 160, "as encodeNestedCases writes it");

#define EFER_SVME (1u << 12)
#define EXIT_PF 0x4e
#define EXIT_SWINT 0x75
#define EXIT_NPF 0x400

uintptr_t n_va, n_vmcb;
void nested_run(void);

static uint64_t vmcb[512] __attribute__((aligned(4096)));
static uint64_t host_save[512] __attribute__((aligned(4096)));
static uint8_t permissions[4096 * 4] __attribute__((aligned(4096)));
static uint64_t nested_root[512] __attribute__((aligned(4096)));
static uint64_t nested_pdpt[512] __attribute__((aligned(4096)));
static uint64_t nested_pd[512] __attribute__((aligned(4096)));
/* Levels 1 to 4 on the way to the final address; of level 4 only one entry, copied into nested_root. */
static uint64_t *const nested_tables[5] = {0, (void *)0x310000, (void *)0x311000, (void *)0x312000, (void *)0x313000};
static uint64_t *const low_table = (void *)0x314000;

static void set8(uint32_t at, uint8_t value) { ((volatile uint8_t *)vmcb)[at] = value; }
static void set32(uint32_t at, uint32_t value) { *(volatile uint32_t *)((uint8_t *)vmcb + at) = value; }
static void set64(uint32_t at, uint64_t value) { *(volatile uint64_t *)((uint8_t *)vmcb + at) = value; }
static uint64_t get64(uint32_t at) { return *(volatile uint64_t *)((uint8_t *)vmcb + at); }

static void segment(uint32_t at, uint16_t selector, uint16_t attributes) {
  set32(0x400 + at, selector | ((uint32_t)attributes << 16));
  set32(0x400 + at + 4, 0xffffffffu);
  set64(0x400 + at + 8, 0);
}

static void wrmsr(uint32_t msr, uint64_t value) {
  __asm__ volatile("wrmsr" ::"a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr));
}

/* Everything of the VMCB that is the same for all cases, and the nested tables of the guest's own memory. */
static void set_up(void) {
  wrmsr(0xc0000080, 0x500 | EFER_SVME);
  wrmsr(0xc0010117, (uintptr_t)host_save);
  for (uint32_t i = 0; i < sizeof permissions; i++) permissions[i] = 0;
  set32(0x008, 1u << 14);                /* #PF */
  set32(0x00c, (1u << 21) | (1u << 31)); /* INTn, shutdown */
  set32(0x010, 1);                       /* VMRUN: must be set */
  set64(0x040, (uintptr_t)permissions);
  set64(0x048, (uintptr_t)permissions);
  set32(0x058, 1); /* ASID */
  set64(0x090, 1); /* nested paging */
  set64(0x0b0, (uintptr_t)nested_root);
  set64(0x400 + 0x168, 0xffff0ff0u);
  set64(0x400 + 0x160, 0x400);
  set64(0x400 + 0x268, 0x0007040600070406ull);

  nested_root[0] = (uintptr_t)nested_pdpt | PG_P | PG_W | PG_U;
  nested_pdpt[0] = (uintptr_t)nested_pd | PG_P | PG_W | PG_U;
  nested_pd[0] = PG_P | PG_W | PG_U | PG_PS;
  nested_pd[1] = (uintptr_t)low_table | PG_P | PG_W | PG_U;
  for (uint32_t i = 0; i < 512; i++) low_table[i] = (0x200000u + 4096u * i) | PG_P | PG_W | PG_U | 0x60;
}

/* Where the walk goes: guest entries, nested entries of the final address, nested entries of the guest's tables. */
static uint64_t *guest_entry(const struct nested_case *test, uint32_t level) {
  return (uint64_t *)tables[level] + ((test->va >> (3 + 9 * level)) & 511);
}
static uint64_t *nested_entry(const struct nested_case *test, uint32_t level) {
  return (level == 4 ? nested_root : nested_tables[level]) + ((test->gpa >> (3 + 9 * level)) & 511);
}
static uint64_t *table_entry(uint32_t level) { return low_table + (((uintptr_t)tables[level] >> 12) & 511); }

static void prepare(const struct nested_case *test) {
  for (uint32_t level = 1; level <= 4; level++) {
    *guest_entry(test, level) = test->entries[level - 1];
    *nested_entry(test, level) = test->nested[level - 1];
    if (level < 4) *table_entry(level) = test->table_entries[level - 1];
  }
  segment(0x00, test->cpl3 ? 0x23 : 0x10, test->cpl3 ? 0xcf3 : 0xc93);
  segment(0x10, test->cpl3 ? 0x1b : 0x08, test->cpl3 ? 0xafb : 0xa9b);
  segment(0x20, test->cpl3 ? 0x23 : 0x10, test->cpl3 ? 0xcf3 : 0xc93);
  segment(0x30, test->cpl3 ? 0x23 : 0x10, test->cpl3 ? 0xcf3 : 0xc93);
  set64(0x400 + 0x60 + 8, 0); /* GDTR, IDTR: not used */
  set64(0x400 + 0x80 + 8, 0);
  set8(0x400 + 0xcb, test->cpl3 ? 3 : 0);
  set64(0x400 + 0xd0, test->efer | EFER_SVME);
  set64(0x400 + 0x148, test->cr4);
  set64(0x400 + 0x150, (uintptr_t)tables[4]);
  set64(0x400 + 0x158, test->cr0);
  set64(0x400 + 0x170, 2 | (test->ac ? FLAG_AC : 0));
  set64(0x400 + 0x178, (test->cpl3 ? USER_VA : (uintptr_t)access_code) + 16 * test->kind);
  set64(0x400 + 0x1d8, 0);
  set64(0x400 + 0x1f8, test->kind == WRITE ? 0x5a5a0000u | test->id : 0xdead0000u);
  set32(0x05c, 1); /* flush all */
  set64(0x0a8, 0);
  set64(0x0c0, 0); /* nothing is clean */
}

static int reached(const struct nested_case *test, uint32_t content, uint32_t now) {
  uint32_t value = (uint32_t)get64(0x400 + 0x1f8);
  switch (test->kind) {
    case READ: return value == content;
    case WRITE: return now == (0x5a5a0000u | test->id);
    case FETCH: return (value & 0xff) == test->id;
    default: return value == ((test->id << 8) | 0xb0);
  }
}

static uint32_t place_of(const struct nested_case *test, uint64_t address, int nested) {
  if (!nested) return address == test->va ? 6 : 0;
  for (uint32_t level = 1; level <= 4; level++) {
    if (address == (uintptr_t)guest_entry(test, level)) return level;
  }
  return address == test->gpa ? 5 : 0;
}

static uint64_t answer(const struct nested_case *test, uint32_t content, uint32_t now) {
  uint64_t code = get64(0x070), info1 = get64(0x078), info2 = get64(0x080);
  uint64_t word = 1u << 15;
  if (code == EXIT_SWINT) {
    if (reached(test, content, now)) word |= 1u << 14;
  } else if (code == EXIT_PF || code == EXIT_NPF) {
    word |= (code == EXIT_PF ? 1 : 2) | ((info1 & 0x3f) << 2) | (((info1 >> 32) & 3) << 8);
    if (info1 & ~0x30000003full) word |= 1u << 10;
    word |= place_of(test, info2, code == EXIT_NPF) << 11;
    if (now != content) word &= ~(1ull << 15);
  } else {
    word |= 3;
  }
  return word;
}

static uint64_t collect(uint64_t *entry, uint64_t was, uint64_t *word) {
  uint64_t now = *(volatile uint64_t *)entry;
  *entry = 0;
  if ((now ^ was) & ~0x60ull) *word &= ~(1ull << 15);
  return (now >> 5) & 3;
}

static uint64_t run(const struct nested_case *test) {
  uint32_t content = 0x80cd00b0u | (test->id << 8);
  volatile uint32_t *target = (volatile uint32_t *)test->target;
  target[0] = content;
  target[1] = 0x0000f300u;
  prepare(test);
  set_ldt(test->va);
  n_va = test->va;
  n_vmcb = (uintptr_t)vmcb;
  __asm__ volatile("mov %0, %%cr4" ::"r"((uint64_t)(CR4_PAE | CR4_PKE)) : "memory");
  write_pkru(test->pkru);
  wrmsr(0xc0000080, 0x500 | EFER_SVME | (test->nxe ? 0x800 : 0));
  nested_run();

  uint64_t word = answer(test, content, target[0]);
  target[0] = target[1] = 0;
  for (uint32_t level = 1; level <= 4; level++) {
    uint64_t guest = collect(guest_entry(test, level), test->entries[level - 1], &word);
    uint64_t nested = collect(nested_entry(test, level), test->nested[level - 1], &word);
    word |= (guest << (14 + 2 * level)) | (nested << (22 + 2 * level));
    if (level < 4) word |= collect(table_entry(level), test->table_entries[level - 1], &word) << (30 + 2 * level);
  }
  return word;
}

void run_nested(const struct header *head) {
  const struct nested_case *tests = (const struct nested_case *)(head + 1);
  set_up();
  for (uint32_t i = 0; i < head->count; i++) {
    uint64_t word = run(&tests[i]);
    for (int byte = 0; byte < 6; byte++) outb(0xe9, (uint8_t)(word >> (8 * byte)));
  }
}
#endif
