import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hex64, hiOf, hiOfNumber, loOf, loOfNumber, toBigInt, toNumber } from './u64.ts';

const U64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const U53 = fc.maxSafeNat();

describe('a word pair', () => {
  it('holds what its BigInt holds', () => {
    fc.assert(
      fc.property(U64, (value) => {
        expect(toBigInt(loOf(value), hiOf(value))).toBe(value);
      }),
    );
  });

  it('takes a BigInt of any size modulo 2^64', () => {
    fc.assert(
      fc.property(fc.bigInt(), (value) => {
        expect(toBigInt(loOf(value), hiOf(value))).toBe(BigInt.asUintN(64, value));
      }),
    );
  });

  it('has signed words', () => {
    expect([loOf(0xffffffffn), hiOf(1n << 63n)]).toEqual([-1, -(2 ** 31)]);
  });

  it('holds what a number below 2^53 holds', () => {
    fc.assert(
      fc.property(U53, (value) => {
        const lo = loOfNumber(value);
        const hi = hiOfNumber(value);
        expect(toNumber(lo, hi)).toBe(value);
        expect(toBigInt(lo, hi)).toBe(BigInt(value));
      }),
    );
  });

  it('prints as its BigInt does', () => {
    fc.assert(
      fc.property(fc.oneof(U64, fc.bigInt({ min: 0n, max: 0xffffffffn })), (value) => {
        expect(hex64(loOf(value), hiOf(value))).toBe(`0x${value.toString(16)}`);
      }),
    );
  });
});
