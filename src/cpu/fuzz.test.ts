import { describe, expect, it } from 'vitest';
import { fuzz } from './testing/fuzz.ts';

describe('random guest code', () => {
  it('never leaves the CPU: runs end in time, for reasons of the guest', () => {
    const ends = fuzz(1, 300);
    expect(ends.size).toBeGreaterThan(5);
  });
});
