import { describe, expect, it } from 'vitest';
import { fuzz } from './testing/fuzz.ts';

describe('much random guest code', () => {
  it.each(Array.from({ length: 10 }, (_, i) => i))('never leaves the CPU (part %i)', (part) => {
    const ends = fuzz(1_000_000 * (part + 1), 10_000);
    expect(ends.size).toBeGreaterThan(5);
  });
});
