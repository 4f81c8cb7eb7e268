/* Sieve, recursion, floating point, a sort with a callback: what it prints is the same on every machine. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
	return x < y ? -1 : x > y;
}

static unsigned fib(unsigned n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

int main(void)
{
	static char composite[100000];
	unsigned primes = 0, state = 1, *numbers = malloc(20000 * sizeof *numbers), hash = 0;
	double sum = 0;
	for (unsigned i = 2; i < sizeof composite; i++) {
		if (composite[i])
			continue;
		primes++;
		for (unsigned j = i * 2; j < sizeof composite; j += i)
			composite[j] = 1;
	}
	for (int i = 0; i < 20000; i++)
		numbers[i] = state = state * 1664525 + 1013904223;
	qsort(numbers, 20000, sizeof *numbers, compare);
	for (int i = 0; i < 20000; i++)
		hash = hash * 31 + numbers[i];
	for (int i = 1; i < 5000; i++)
		sum += sqrt(i) / (i + 0.5);
	printf("primes %u fib %u hash %08x sum %.9f\n", primes, fib(20), hash, sum);
	return 0;
}
