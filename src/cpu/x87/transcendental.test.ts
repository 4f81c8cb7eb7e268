import { describe, expect, it } from 'vitest';
import { Environment, finite, FINITE, type Parts, round } from '../float/number.ts';
import { EXTENDED, packExtended, unpackExtended } from './extended.ts';
import { angleOf, cosine, logarithm, logarithmPlusOne, powerMinusOne, sine, tangent } from './transcendental.ts';

/** A double as a number, exactly. */
function partsOf(value: number): Parts {
  const bits = new BigUint64Array(new Float64Array([value]).buffer)[0];
  return finite(value < 0, (bits & ((1n << 52n) - 1n)) | (1n << 52n), Number((bits >> 52n) & 2047n) - 1075);
}

function toNumber(a: Parts): number {
  const rounded = round(EXTENDED, a, new Environment());
  if (rounded.kind !== FINITE) return 0;
  const extra = Math.max(0, rounded.significand.toString(2).length - 60);
  return (rounded.negative ? -1 : 1) * Number(rounded.significand >> BigInt(extra)) * 2 ** (rounded.exponent + extra);
}

const bits = (a: Parts) => packExtended(round(EXTENDED, a, new Environment()));
const one = finite(false, 1n, 0);

describe('transcendental functions', () => {
  const values = [1e-9, 0.001, 0.1, 0.3, 0.49, 0.75, 0.999, 1.0001, 1.5, 2.25, 3, 7, 100.5, 12345.678];

  // biome-ignore format: a table
  it.each<[string, (a: Parts, b: Parts) => Parts, (a: number) => number, (a: number) => boolean]>([
    ['2^x - 1',       (a) => powerMinusOne(a),             (a) => Math.expm1(a * Math.LN2),    (a) => Math.abs(a) < 1],
    ['log2 x',        (a) => logarithm(a, one),            (a) => Math.log2(a),                (a) => a > 0],
    ['log2 (1 + x)',  (a) => logarithmPlusOne(a, one),     (a) => Math.log1p(a) / Math.LN2,    (a) => a > -1],
    ['the angle',     (a) => angleOf(one, a),              (a) => Math.atan(a),                () => true],
    ['the other way', (a) => angleOf(a, one),              (a) => Math.atan2(1, a),            () => true],
    ['sin x',         (a) => sine(a),                      (a) => Math.sin(a),                 () => true],
    ['cos x',         (a) => cosine(a),                    (a) => Math.cos(a),                 () => true],
    ['tan x',         (a) => tangent(a),                   (a) => Math.tan(a),                 () => true],
  ])('%s is near what doubles give', (_, f, inDouble, defined) => {
    for (const value of values.flatMap((v) => [v, -v]).filter(defined)) {
      const expected = inDouble(value);
      const error = Math.abs(toNumber(f(partsOf(value), one)) - expected);
      expect(error, String(value)).toBeLessThan(Math.abs(expected) * 4e-15);
    }
  });

  it('have pi and log2 10 to 64 bits', () => {
    expect(bits(angleOf(finite(true, 1n, 0), finite(false, 0n, 0)))).toEqual([0xc90fdaa22168c235n, 0x4000]);
    expect(bits(logarithm(finite(false, 10n, 0), one))).toEqual([0xd49a784bcd1b8afen, 0x4000]);
  });

  it('are exact where they can be', () => {
    expect(bits(powerMinusOne(finite(false, 1n, 0)))).toEqual([1n << 63n, 0x3fff]);
    expect(bits(powerMinusOne(finite(true, 1n, 0)))).toEqual([1n << 63n, 0xbffe]);
    expect(bits(logarithm(finite(false, 1n, -77), finite(false, 3n, 0)))).toEqual([231n << 56n, 0xc006]);
  });

  it('tell on which side of a small argument the result lies', () => {
    const environment = new Environment();
    const small = finite(false, 0x8000000000000001n, -2063);
    environment.rounding = 3;
    const [sin, tan] = [sine(small), tangent(small)].map((a) => packExtended(round(EXTENDED, a, environment))[0]);
    expect([sin, tan]).toEqual([0x8000000000000000n, 0x8000000000000001n]);
  });

  it('reduce angles by the pi of hardware', () => {
    const [significand, head] = bits(sine(unpackExtended(0xc90fdaa22168c235n, 0x4000)));
    expect([significand, head]).toEqual([1n << 63n, 0xbfbf]);
  });
});
