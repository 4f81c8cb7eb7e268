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

  // Faults whose delivery faults: the same registers come again before memory does.
  it.each([2000113, 4000835, 5000493])('nor where events come one upon the other (seed %i)', (seed) => {
    expect(fuzzInPieces(seed, 1)).toBe(1);
  });
});
