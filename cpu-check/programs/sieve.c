/* Primes below 2^20. */
static unsigned char composite[1 << 20];
unsigned long bench(void) {
  unsigned long count = 0;
  for (int round = 0; round < 4; round++) {
    count = 0;
    for (unsigned i = 0; i < sizeof composite; i++) composite[i] = 0;
    for (unsigned i = 2; i < sizeof composite; i++) {
      if (composite[i]) continue;
      count++;
      for (unsigned long j = (unsigned long)i * i; j < sizeof composite; j += i) composite[j] = 1;
    }
  }
  return count;
}
