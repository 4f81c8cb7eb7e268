import { describe, expect, it } from 'vitest';
import { fuzz, fuzzInPieces, fuzzInstructions } from './testing/fuzz.ts';

describe('much random guest code', () => {
  it.each(Array.from({ length: 10 }, (_, i) => i))('never leaves the CPU (part %i)', (part) => {
    const ends = fuzz(1_000_000 * (part + 1), 10_000);
    expect(ends.size).toBeGreaterThan(5);
  });

  it('finds an answer for all operands', () => {
    expect(fuzzInstructions(1_000_000, 2_000_000).size).toBeGreaterThan(3);
  });

  it.each(Array.from({ length: 5 }, (_, i) => i))('does the same in pieces (part %i)', (part) => {
    expect(fuzzInPieces(1_000_000 * (part + 1), 1000)).toBe(1000);
  });
});
