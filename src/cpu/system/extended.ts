/** x87's 80-bit numbers as they lie in memory, and what of them a double can hold. */

const BIAS = 16383;

/** Significand (with its explicit leading one), and sign and exponent. */
export interface Extended {
  readonly significand: bigint;
  readonly head: number;
}

export const INDEFINITE: Extended = { significand: 0xc000000000000000n, head: 0xffff };

const scratch = new DataView(new ArrayBuffer(8));

/** Exact. */
export function fromDouble(value: number): Extended {
  scratch.setFloat64(0, value);
  const bits = scratch.getBigUint64(0);
  const sign = Number(bits >> 63n) << 15;
  const exponent = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & 0xfffffffffffffn;
  if (exponent === 0x7ff) return { significand: (1n << 63n) | (fraction << 11n), head: sign | 0x7fff };
  if (exponent !== 0) return { significand: (1n << 63n) | (fraction << 11n), head: sign | (exponent - 1023 + BIAS) };
  if (fraction === 0n) return { significand: 0n, head: sign };
  let significand = fraction << 11n;
  let e = 1 - 1023 + BIAS;
  while (!(significand >> 63n)) {
    significand <<= 1n;
    e--;
  }
  return { significand, head: sign | e };
}

/** Rounded to nearest; beyond the range infinite or zero. */
export function toDouble({ significand, head }: Extended): number {
  const sign = head & 0x8000 ? -1 : 1;
  const exponent = head & 0x7fff;
  if (exponent === 0x7fff) {
    if (significand << 1n === 1n << 64n || (significand & 0x7fffffffffffffffn) === 0n)
      return sign * Number.POSITIVE_INFINITY;
    return Number.NaN;
  }
  if (significand === 0n) return sign < 0 ? -0 : 0;
  // Two steps keep the intermediate power in range.
  const power = exponent - BIAS - 63;
  const half = Math.trunc(power / 2);
  return sign * Number(significand) * 2 ** half * 2 ** (power - half);
}

/** Exact. */
export function fromInteger(value: bigint): Extended {
  if (value === 0n) return { significand: 0n, head: 0 };
  let significand = value < 0n ? -value : value;
  let exponent = BIAS + 63;
  while (!(significand >> 63n)) {
    significand <<= 1n;
    exponent--;
  }
  return { significand, head: (value < 0n ? 0x8000 : 0) | exponent };
}

/** Rounding as the control word's bits 10 and 11 have it. */
export const ROUND_NEAREST = 0;
export const ROUND_DOWN = 1;
export const ROUND_UP = 2;
export const ROUND_ZERO = 3;

/** Null when it isn't finite. */
export function toInteger({ significand, head }: Extended, rounding: number): bigint | null {
  const exponent = head & 0x7fff;
  if (exponent === 0x7fff) return null;
  const negative = (head & 0x8000) !== 0;
  const shift = BIAS + 63 - exponent;
  if (shift < -64) return null;
  if (shift <= 0) return negative ? -(significand << BigInt(-shift)) : significand << BigInt(-shift);
  const by = BigInt(Math.min(shift, 70));
  let whole = significand >> by;
  const rest = significand & ((1n << by) - 1n);
  const half = 1n << (by - 1n);
  const awayFromZero =
    rounding === ROUND_NEAREST
      ? rest > half || (rest === half && (whole & 1n) === 1n)
      : rest !== 0n && rounding === (negative ? ROUND_DOWN : ROUND_UP);
  if (awayFromZero) whole++;
  return negative ? -whole : whole;
}
