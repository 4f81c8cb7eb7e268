/**
 * A choice that hardware makes: 0 to `ways` - 1. The checker takes every one of them; it changes this call as it does the marks
 * of `mmu/race.ts`.
 */
export function choose(_ways: number): number {
  return 0;
}
