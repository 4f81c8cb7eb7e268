/**
 * Binary floating-point numbers taken apart, so that sums, products, quotients and roots can be exact before they are
 * rounded once. For everything that the host's arithmetic doesn't do at once: rounding modes, flags, denormals, NaN.
 */

export interface Format {
  /** Bits of the significand with its leading one. */
  readonly precision: number;
  readonly maxExponent: number;
  /** Of the smallest normal number. */
  readonly minExponent: number;
}

export const SINGLE: Format = { precision: 24, maxExponent: 127, minExponent: -126 };
export const DOUBLE: Format = { precision: 53, maxExponent: 1023, minExponent: -1022 };

export const ZERO = 0;
export const FINITE = 1;
export const INFINITE = 2;
export const QUIET = 3;
export const SIGNALING = 4;
/** x87 only: bits that are no number. */
export const UNSUPPORTED = 5;

/** FINITE: `significand * 2 ** exponent`, exactly. NaN: the significand has the payload, its top bit as bit 63. */
export interface Parts {
  readonly kind: number;
  readonly negative: boolean;
  readonly significand: bigint;
  readonly exponent: number;
  readonly denormal: boolean;
}

/** Exception flags at their places in MXCSR and in x87's status word. */
export const INVALID = 1;
export const DENORMAL = 2;
export const DIVIDE_BY_ZERO = 4;
export const OVERFLOW = 8;
export const UNDERFLOW = 16;
export const INEXACT = 32;
/** Those that are found before the operation is done. */
export const BEFORE = INVALID | DENORMAL | DIVIDE_BY_ZERO;

export const TO_NEAREST = 0;
export const DOWN = 1;
export const UP = 2;
export const TO_ZERO = 3;

/** How results are made, and what happened meanwhile. */
export class Environment {
  rounding = TO_NEAREST;
  /** Denormal operands are zeros (DAZ). */
  denormalsAreZero = false;
  /** Tiny results are zeros (FTZ). */
  flushToZero = false;
  /** A bit for each exception that is masked. */
  masked = 0x3f;
  flags = 0;
  /** By how much x87 moves an exponent that is out of range, when the exception isn't masked. */
  moves = 0;
  /** The result's magnitude was rounded up. */
  roundedUp = false;
}

export const NOTHING: Parts = { kind: ZERO, negative: false, significand: 0n, exponent: 0, denormal: false };
export const DEFAULT_NAN: Parts = { ...NOTHING, kind: QUIET, negative: true, significand: 3n << 62n };

export const infinity = (negative: boolean): Parts => ({ ...NOTHING, kind: INFINITE, negative });
export const zero = (negative: boolean): Parts => ({ ...NOTHING, negative });
export const finite = (negative: boolean, significand: bigint, exponent: number): Parts => ({
  kind: significand === 0n ? ZERO : FINITE,
  negative,
  significand,
  exponent,
  denormal: false,
});
export const isNaNParts = (a: Parts): boolean => a.kind >= QUIET;

export function bitLength(value: bigint): number {
  return value === 0n ? 0 : value.toString(16).length * 4 - Math.clz32(Number.parseInt(value.toString(16)[0], 16)) + 28;
}

/** The number that these bits of SINGLE or DOUBLE are. */
export function unpack(format: Format, bits: bigint, environment: Environment): Parts {
  const fractionBits = format.precision - 1;
  const width = format === SINGLE ? 32 : 64;
  const negative = ((bits >> BigInt(width - 1)) & 1n) === 1n;
  const fraction = bits & ((1n << BigInt(fractionBits)) - 1n);
  const field = Number((bits >> BigInt(fractionBits)) & ((1n << BigInt(width - 1 - fractionBits)) - 1n));
  if (field === format.maxExponent * 2 + 1) {
    if (fraction === 0n) return infinity(negative);
    const quiet = (fraction >> BigInt(fractionBits - 1)) & 1n;
    const significand = (1n << 63n) | (fraction << BigInt(63 - fractionBits));
    return { ...NOTHING, kind: quiet ? QUIET : SIGNALING, negative, significand };
  }
  if (field === 0) {
    if (fraction === 0n || environment.denormalsAreZero) return zero(negative);
    return { ...finite(negative, fraction, format.minExponent - fractionBits), denormal: true };
  }
  return finite(negative, fraction | (1n << BigInt(fractionBits)), field - format.maxExponent - fractionBits);
}

/** The bits of a number that has been rounded to SINGLE or DOUBLE. */
export function pack(format: Format, a: Parts): bigint {
  const fractionBits = format.precision - 1;
  const width = format === SINGLE ? 32 : 64;
  const sign = a.negative ? 1n << BigInt(width - 1) : 0n;
  const top = BigInt(format.maxExponent * 2 + 1) << BigInt(fractionBits);
  if (a.kind === ZERO) return sign;
  if (a.kind === INFINITE) return sign | top;
  const mask = (1n << BigInt(fractionBits)) - 1n;
  if (isNaNParts(a)) return sign | top | ((a.significand >> BigInt(63 - fractionBits)) & mask);
  const missing = format.precision - bitLength(a.significand);
  const exponent = a.exponent - missing + fractionBits;
  if (exponent < format.minExponent) {
    return sign | (a.significand << BigInt(a.exponent - format.minExponent + fractionBits));
  }
  const field = BigInt(exponent + format.maxExponent);
  return sign | (field << BigInt(fractionBits)) | ((a.significand << BigInt(missing)) & mask);
}

/** Drops the low bits of a significand by the rounding mode. */
function drop(
  significand: bigint,
  bits: number,
  negative: boolean,
  rounding: number,
): [kept: bigint, inexact: boolean, up: boolean] {
  if (bits <= 0) return [significand << BigInt(-bits), false, false];
  const by = BigInt(bits);
  const kept = significand >> by;
  const rest = significand & ((1n << by) - 1n);
  if (rest === 0n) return [kept, false, false];
  const half = 1n << (by - 1n);
  const away =
    rounding === TO_NEAREST
      ? rest > half || (rest === half && (kept & 1n) === 1n)
      : rounding === (negative ? DOWN : UP);
  return [away ? kept + 1n : kept, true, away];
}

/** Rounds an exact number; the lowest bit may stand for anything below it. Raises overflow, underflow and inexact. */
export function round(format: Format, a: Parts, environment: Environment): Parts {
  if (a.kind !== FINITE) return a;
  const { precision, minExponent, maxExponent } = format;
  const leading = a.exponent + bitLength(a.significand) - 1;
  if (environment.moves !== 0) {
    const move = movedBy(format, a, leading, environment);
    if (move !== 0) return roundMoved(format, a, move, environment);
  }
  const lowest = Math.max(leading, minExponent) - (precision - 1);
  const [significand, dropped, up] = drop(a.significand, lowest - a.exponent, a.negative, environment.rounding);
  let inexact = dropped;
  environment.roundedUp = up;
  if (leading < minExponent && isTiny(format, a, leading, environment)) {
    if (environment.flushToZero && environment.masked & UNDERFLOW) {
      environment.flags |= UNDERFLOW | INEXACT;
      return zero(a.negative);
    }
    if (!(environment.masked & UNDERFLOW)) {
      // The handler is to get the number as it would be without bounds.
      inexact = drop(a.significand, leading - (precision - 1) - a.exponent, a.negative, environment.rounding)[1];
      environment.flags |= UNDERFLOW;
    }
    if (inexact) environment.flags |= UNDERFLOW;
  }
  if (inexact) environment.flags |= INEXACT;
  const result = finite(a.negative, significand, lowest);
  if (lowest + bitLength(significand) - 1 <= maxExponent) return result;
  environment.flags |= OVERFLOW | (environment.masked & OVERFLOW ? INEXACT : 0);
  const { rounding } = environment;
  environment.roundedUp = rounding === TO_NEAREST || rounding === (a.negative ? DOWN : UP);
  if (environment.roundedUp) return infinity(a.negative);
  return finite(a.negative, (1n << BigInt(precision)) - 1n, maxExponent - (precision - 1));
}

/** What x87 adds to the exponent of a number out of range that nothing masks. */
function movedBy(format: Format, a: Parts, leading: number, environment: Environment): number {
  const { masked, moves } = environment;
  if (!(masked & UNDERFLOW) && leading < format.minExponent && isTiny(format, a, leading, environment)) return moves;
  if (masked & OVERFLOW || leading < format.maxExponent) return 0;
  const bits = leading - (format.precision - 1) - a.exponent;
  const carries = bitLength(drop(a.significand, bits, a.negative, environment.rounding)[0]) > format.precision;
  return leading + (carries ? 1 : 0) > format.maxExponent ? -moves : 0;
}

function roundMoved(format: Format, a: Parts, move: number, environment: Environment): Parts {
  const { moves } = environment;
  environment.moves = 0;
  environment.flags |= move > 0 ? UNDERFLOW : OVERFLOW;
  const result = round(format, { ...a, exponent: a.exponent + move }, environment);
  environment.moves = moves;
  // It can be too far out even for that.
  const leading = a.exponent + bitLength(a.significand) - 1 + move;
  if (leading > format.maxExponent || leading < format.minExponent) {
    environment.flags |= INEXACT;
    environment.roundedUp = leading > format.maxExponent;
  }
  if (leading > format.maxExponent) return infinity(a.negative);
  return leading < format.minExponent ? zero(a.negative) : result;
}

/** Tininess is found after rounding: a number that would round up to the smallest normal one isn't tiny. */
function isTiny(format: Format, a: Parts, leading: number, environment: Environment): boolean {
  if (leading < format.minExponent - 1) return true;
  const bits = leading - (format.precision - 1) - a.exponent;
  const [rounded] = drop(a.significand, bits, a.negative, environment.rounding);
  return bitLength(rounded) <= format.precision;
}

/** To an integer by a rounding mode; null for what isn't finite. Raises inexact. */
export function toWhole(a: Parts, rounding: number, environment: Environment): bigint | null {
  if (a.kind === ZERO) return 0n;
  if (a.kind !== FINITE || a.exponent + bitLength(a.significand) > 80) return null;
  const [whole, inexact, up] = drop(a.significand, Math.min(-a.exponent, 2000), a.negative, rounding);
  if (inexact) environment.flags |= INEXACT;
  environment.roundedUp = up;
  return a.negative ? -whole : whole;
}

export function fromWhole(value: bigint): Parts {
  return finite(value < 0n, value < 0n ? -value : value, 0);
}
