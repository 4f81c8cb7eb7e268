import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hiOf, loOf, toBigInt } from '../base/u64.ts';
import { VirtualClock } from './clock.ts';
import { Tsc } from './tsc.ts';

const U64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const valueOf = (tsc: Tsc): bigint => {
  tsc.read();
  return toBigInt(tsc.lo, tsc.hi);
};

describe('the time stamp counter', () => {
  it('counts at its rate', () => {
    const clock = new VirtualClock();
    const tsc = new Tsc(clock, 2.5e6);
    clock.advanceTo(1e9);
    expect(valueOf(tsc)).toBe(2500000000n);
  });

  it('goes on from whatever is written to it, modulo 2^64', () => {
    fc.assert(
      fc.property(U64, fc.nat(2 ** 31), fc.maxSafeNat(), (value, later, now) => {
        const clock = new VirtualClock();
        clock.now = Math.floor(now / 4);
        const tsc = new Tsc(clock);
        tsc.write(loOf(value), hiOf(value));
        expect(valueOf(tsc)).toBe(value);
        clock.now += later;
        expect(valueOf(tsc)).toBe(BigInt.asUintN(64, value + BigInt(later)));
      }),
    );
  });

  it('moves with IA32_TSC_ADJUST, which all writes to it and to the counter add up in', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), U64), { maxLength: 6 }), (writes) => {
        const tsc = new Tsc(new VirtualClock());
        let [value, adjust] = [0n, 0n];
        for (const [isAdjust, to] of writes) {
          const by = isAdjust ? to - adjust : to - value;
          value = BigInt.asUintN(64, value + by);
          adjust = BigInt.asUintN(64, adjust + by);
          if (isAdjust) tsc.writeAdjust(loOf(to), hiOf(to));
          else tsc.write(loOf(to), hiOf(to));
          expect([valueOf(tsc), toBigInt(tsc.adjustLo, tsc.adjustHi)]).toEqual([value, adjust]);
        }
      }),
    );
  });

  it('knows when it will reach a value', () => {
    const clock = new VirtualClock();
    const tsc = new Tsc(clock, 3e6);
    clock.advanceTo(1000);
    tsc.write(0, 1);
    const at = tsc.whenReaches(300, 1);
    expect(at).toBe(1100);
    clock.advanceTo(at);
    expect(valueOf(tsc)).toBe((1n << 32n) + 300n);
  });

  it('has reached what is behind it already', () => {
    const clock = new VirtualClock();
    const tsc = new Tsc(clock);
    clock.advanceTo(1000);
    expect(tsc.whenReaches(1000, 0)).toBe(1000);
    expect(tsc.whenReaches(1, 0)).toBe(1000);
  });

  it('reaches the far end of its range at no time that matters', () => {
    expect(new Tsc(new VirtualClock()).whenReaches(-1, -1)).toBeGreaterThan(2 ** 53);
  });
});
