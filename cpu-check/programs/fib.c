/* Calls and returns. */
__attribute__((noinline)) static unsigned long fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
unsigned long bench(void) { return fib(30); }
