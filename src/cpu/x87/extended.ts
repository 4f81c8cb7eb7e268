/** x87's numbers of 80 bits: sign and exponent in the head, a significand with its leading one. */
import {
  bitLength,
  FINITE,
  finite,
  type Format,
  INFINITE,
  infinity,
  isNaNParts,
  NOTHING,
  type Parts,
  QUIET,
  SIGNALING,
  UNSUPPORTED,
  zero,
} from '../float/number.ts';

const BIAS = 16383;
const LOWEST = 1 - BIAS - 63;

export const EXTENDED: Format = { precision: 64, maxExponent: 16383, minExponent: -16382 };
/** Precision control makes results shorter, but leaves them the range. */
const SHORTER: Format = { precision: 53, maxExponent: 16383, minExponent: -16382 };
const SHORTEST: Format = { precision: 24, maxExponent: 16383, minExponent: -16382 };

/** By bits 8 and 9 of the control word. */
export const formatOfControl = (control: number): Format =>
  [SHORTEST, EXTENDED, SHORTER, EXTENDED][(control >>> 8) & 3];

export function unpackExtended(significand: bigint, head: number): Parts {
  const negative = (head & 0x8000) !== 0;
  const exponent = head & 0x7fff;
  const whole = significand >> 63n;
  if (exponent === 0) {
    if (significand === 0n) return zero(negative);
    return { ...finite(negative, significand, LOWEST), denormal: true };
  }
  if (whole === 0n) return { ...NOTHING, kind: UNSUPPORTED, negative, significand };
  if (exponent !== 0x7fff) return finite(negative, significand, exponent - BIAS - 63);
  if (significand === 1n << 63n) return infinity(negative);
  return { ...NOTHING, kind: (significand >> 62n) & 1n ? QUIET : SIGNALING, negative, significand };
}

/** Significand and head of a number that fits. */
export function packExtended(a: Parts): [significand: bigint, head: number] {
  const sign = a.negative ? 0x8000 : 0;
  if (a.kind === INFINITE) return [1n << 63n, sign | 0x7fff];
  if (isNaNParts(a)) return [a.significand, sign | 0x7fff];
  if (a.kind !== FINITE) return [0n, sign];
  const length = bitLength(a.significand);
  const exponent = a.exponent + length - 1 + BIAS;
  if (exponent < 1) return [a.significand << BigInt(a.exponent - LOWEST), sign];
  return [a.significand << BigInt(64 - length), sign | exponent];
}
