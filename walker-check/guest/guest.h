/* What main.c and nested.c share. */
#include <stdint.h>

#define CASES 0x2000000u
#define USER_VA 0x400000u
#define PG_P 1u
#define PG_W 2u
#define PG_U 4u
#define PG_PS 0x80u
#define FLAG_AC (1u << 18)
#define CR4_PAE (1u << 5)
#define CR4_PKE (1u << 22)

struct header {
  uint32_t magic, count, levels, entry_bytes;
};

enum { READ, WRITE, FETCH, IMPLICIT };

extern char access_code[], access_code_end[];
/* The test table of each level. */
extern uint8_t *const tables[6];

static inline void outb(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline void write_pkru(uint32_t value) { __asm__ volatile("wrpkru" ::"a"(value), "c"(0), "d"(0)); }

void set_ldt(uintptr_t base);
void run_nested(const struct header *head);
