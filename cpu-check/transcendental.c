/*
 * x87's transcendental functions on the machine's own processor: records of a function's number and two numbers of 80 bits on stdin,
 * results of 16 bytes on stdout.
 *
 *   gcc -O1 -o transcendental transcendental.c
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct record {
  uint64_t function;
  uint8_t a[16], b[16];
};

#define UNARY(code) __asm__ volatile("fninit; fldt %1; " code "; fstpt %0; fninit" : "=m"(out) : "m"(r.a))
#define BINARY(code) __asm__ volatile("fninit; fldt %2; fldt %1; " code "; fstpt %0; fninit" : "=m"(out) : "m"(r.a), "m"(r.b))

int main(void) {
  struct record r;
  uint8_t out[16];
  while (fread(&r, sizeof r, 1, stdin) == 1) {
    memset(out, 0, sizeof out);
    switch (r.function) {
    case 0: UNARY("f2xm1"); break;
    case 1: BINARY("fyl2x"); break;
    case 2: BINARY("fyl2xp1"); break;
    case 3: BINARY("fpatan"); break;
    case 4: UNARY("fsin"); break;
    case 5: UNARY("fcos"); break;
    default: UNARY("fptan; fstp %%st(0)");
    }
    fwrite(out, sizeof out, 1, stdout);
  }
  return 0;
}
