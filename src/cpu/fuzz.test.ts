import { describe, expect, it } from 'vitest';
import { everyFpuPair, fuzz, fuzzInPieces, fuzzInstructions } from './testing/fuzz.ts';

describe('random guest code', () => {
  it('never leaves the CPU: runs end in time, for reasons of the guest', () => {
    const ends = fuzz(1, 300);
    expect(ends.size).toBeGreaterThan(5);
  });

  it('finds an answer for all operands, numbers that are none among them', () => {
    expect(fuzzInstructions(1, 10_000).size).toBeGreaterThan(3);
  });

  it('finds one for every two special numbers in x87, whatever is done with them', () => {
    expect(everyFpuPair()).toBe(512 * 15 * 15);
  });

  it('does the same in one run and in the smallest pieces', () => {
    expect(fuzzInPieces(1, 100)).toBe(100);
  });

  // Faults whose delivery faults: the same registers come again before memory does.
  it.each([2000113, 4000835, 5000493])('nor where events come one upon the other (seed %i)', (seed) => {
    expect(fuzzInPieces(seed, 1)).toBe(1);
  });
});
