/* Recursive quicksort of 2^17 numbers. */
static unsigned a[1 << 17];
static void sort(unsigned *from, unsigned *to) {
  while (from < to) {
    unsigned pivot = from[(to - from) / 2], *i = from, *j = to;
    while (i <= j) {
      while (*i < pivot) i++;
      while (*j > pivot) j--;
      if (i <= j) {
        unsigned t = *i;
        *i++ = *j;
        *j-- = t;
      }
    }
    if (j - from < to - i) {
      sort(from, j);
      from = i;
    } else {
      sort(i, to);
      to = j;
    }
  }
}
unsigned long bench(void) {
  unsigned long sum = 0;
  unsigned x = 1;
  for (int round = 0; round < 3; round++) {
    for (unsigned i = 0; i < 1 << 17; i++) a[i] = x = x * 1664525u + 1013904223u;
    sort(a, a + (1 << 17) - 1);
    for (unsigned i = 0; i < 1 << 17; i++) sum = sum * 31 + a[i];
  }
  return sum;
}
