import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Prng } from './prng.ts';

const take = (prng: Prng, count: number): number[] => Array.from({ length: count }, () => prng.next());

describe('a generator', () => {
  it('gives the same numbers for the same seed, today and always', () => {
    expect(take(new Prng(1), 4)).toEqual(take(new Prng(1), 4));
    expect(take(new Prng(1), 4)).toEqual([2693262067, 11749833, 2265367787, 4213581821]);
  });

  it('gives others for another seed', () => {
    expect(take(new Prng(1), 4)).not.toEqual(take(new Prng(2), 4));
  });

  it('goes on from a stored state', () => {
    const first = new Prng(7);
    take(first, 100);
    const second = new Prng(0);
    second.state = first.state;
    expect(take(second, 5)).toEqual(take(first, 5));
  });

  it('stays in its range', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 2 ** 32 }), (seed, n) => {
        const value = new Prng(seed).int(n);
        expect(Number.isInteger(value) && value >= 0 && value < n).toBe(true);
      }),
    );
  });

  it('is even enough for tests', () => {
    const prng = new Prng(3);
    const counts = new Array<number>(8).fill(0);
    for (let i = 0; i < 8000; i++) counts[prng.int(8)]++;
    expect(Math.min(...counts)).toBeGreaterThan(900);
    expect(Math.max(...counts)).toBeLessThan(1100);
  });

  it('says yes with the probability asked for, never and always included', () => {
    const prng = new Prng(4);
    const yes = (p: number): number => Array.from({ length: 2000 }, () => prng.chance(p)).filter(Boolean).length;
    expect([yes(0), yes(1)]).toEqual([0, 2000]);
    expect(Math.abs(yes(0.25) - 500)).toBeLessThan(60);
  });

  it('picks every member of a list', () => {
    const prng = new Prng(5);
    expect(new Set(Array.from({ length: 100 }, () => prng.pick(['a', 'b', 'c'])))).toEqual(new Set(['a', 'b', 'c']));
  });
});
