import { describe, expect, it } from 'vitest';
import { reciprocal, reciprocalRoot } from './estimate.ts';

const numbers = new DataView(new ArrayBuffer(4));
const toNumber = (bits: number): number => {
  numbers.setInt32(0, bits);
  return numbers.getFloat32(0);
};
/** The largest error that the manuals allow, relative. */
const BOUND = 1.5 * 2 ** -12;

/** The largest relative error over all that the tables tell apart, at both ends of each step. */
function worst(estimate: (bits: number) => number, exact: (x: number) => number, exponents: readonly number[]): number {
  let most = 0;
  for (const exponent of exponents) {
    for (let step = 0; step < 4096; step++) {
      for (const bits of [(exponent << 23) | (step << 11), (exponent << 23) | (step << 11) | 0x7ff]) {
        most = Math.max(most, Math.abs(toNumber(estimate(bits)) / exact(toNumber(bits)) - 1));
      }
    }
  }
  return most;
}

describe('estimates of 1/x and 1/sqrt(x)', () => {
  it('are as near as the manuals promise, for every step of the tables', () => {
    expect(worst(reciprocal, (x) => 1 / x, [1, 126, 127, 252])).toBeLessThan(BOUND);
    expect(worst(reciprocalRoot, (x) => 1 / Math.sqrt(x), [1, 2, 126, 127, 128, 254])).toBeLessThan(BOUND);
  });

  it('take denormals for zeros and make none', () => {
    const [largest, denormal, infinite] = [0x7e800000, 0x7fffff, 0x7f800000];
    expect([0, denormal].map(reciprocal)).toEqual([infinite, infinite]);
    expect(reciprocal(denormal | (1 << 31))).toBe(0xff800000 | 0);
    expect([largest, infinite].map(reciprocal)).toEqual([0, 0]);
    expect(reciprocal(0xff800000 | 0)).toBe(1 << 31);
    expect([0, denormal, infinite].map(reciprocalRoot)).toEqual([infinite, infinite, 0]);
    expect(reciprocalRoot(1 << 31)).toBe(0xff800000 | 0);
  });

  it('have no root of what is negative, and quiet a NaN', () => {
    expect([0xbf800000 | 0, 0xff800000 | 0].map(reciprocalRoot)).toEqual([0xffc00000 | 0, 0xffc00000 | 0]);
    expect([reciprocal, reciprocalRoot].map((f) => f(0x7f800001))).toEqual([0x7fc00001, 0x7fc00001]);
    expect([reciprocal, reciprocalRoot].map((f) => f(0xffc12345 | 0))).toEqual([0xffc12345 | 0, 0xffc12345 | 0]);
  });
});
