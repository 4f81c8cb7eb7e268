import { describe, expect, it } from 'vitest';
import { fuzz, fuzzInPieces } from './testing/fuzz.ts';

describe('random guest code', () => {
  it('never leaves the CPU: runs end in time, for reasons of the guest', () => {
    const ends = fuzz(1, 300);
    expect(ends.size).toBeGreaterThan(5);
  });

  it('does the same in one run and in the smallest pieces', () => {
    expect(fuzzInPieces(1, 100)).toBe(100);
  });
});
