/** The exact operations. Invalid ones, denormal operands and divisions by zero are noted in the environment. */
import {
  bitLength,
  DEFAULT_NAN,
  DENORMAL,
  DIVIDE_BY_ZERO,
  DOWN,
  type Environment,
  FINITE,
  finite,
  type Format,
  INFINITE,
  infinity,
  INVALID,
  isNaNParts,
  type Parts,
  QUIET,
  round,
  SIGNALING,
  UNSUPPORTED,
  ZERO,
  zero,
} from './number.ts';

/** More bits than any format has, so that one more stands for the rest. */
const EXTRA = 70;

const quiet = (a: Parts): Parts => ({ ...a, kind: QUIET, significand: a.significand | (1n << 62n) });

function invalid(environment: Environment): Parts {
  environment.flags |= INVALID;
  return DEFAULT_NAN;
}

/** Which NaN comes out of an operation on two: SSE takes the first; x87 has a rule of its own. */
export type Choice = (a: Parts, b: Parts) => Parts;
const firstNaN: Choice = (a, b) => (isNaNParts(a) ? a : b);

/** The result when an operand is NaN, or null. Otherwise notes denormal operands. */
function special(a: Parts, b: Parts, environment: Environment, choose: Choice): Parts | null {
  if (isNaNParts(a) || isNaNParts(b)) {
    if (a.kind === UNSUPPORTED || b.kind === UNSUPPORTED) return invalid(environment);
    if (a.kind === SIGNALING || b.kind === SIGNALING) environment.flags |= INVALID;
    return quiet(choose(a, b));
  }
  return null;
}

function noteDenormals(a: Parts, b: Parts, environment: Environment): void {
  if (a.denormal || b.denormal) environment.flags |= DENORMAL;
}

export function add(format: Format, a: Parts, b: Parts, environment: Environment, choose = firstNaN): Parts {
  const nan = special(a, b, environment, choose);
  if (nan) return nan;
  if (a.kind === INFINITE && b.kind === INFINITE && a.negative !== b.negative) return invalid(environment);
  noteDenormals(a, b, environment);
  if (a.kind === INFINITE) return a;
  if (b.kind === INFINITE) return b;
  const zeroSign = a.negative === b.negative ? a.negative : environment.rounding === DOWN;
  if (a.kind === ZERO && b.kind === ZERO) return zero(zeroSign);
  if (a.kind === ZERO) return round(format, b, environment);
  if (b.kind === ZERO) return round(format, a, environment);
  const exponent = Math.min(a.exponent, b.exponent);
  const distance = Math.abs(a.exponent - b.exponent);
  const sum =
    distance > 4 * EXTRA
      ? aligned(a, b)
      : finite(
          false,
          signed(a) * 2n ** BigInt(a.exponent - exponent) + signed(b) * 2n ** BigInt(b.exponent - exponent),
          exponent,
        );
  if (sum.significand === 0n) return zero(zeroSign);
  const negative = sum.significand < 0n;
  return round(format, finite(negative, negative ? -sum.significand : sum.significand, sum.exponent), environment);
}

const signed = (a: Parts): bigint => (a.negative ? -a.significand : a.significand);

/** A sum of numbers far apart: of the smaller one only its sign matters. */
function aligned(a: Parts, b: Parts): Parts {
  const [large, small] = a.exponent > b.exponent ? [a, b] : [b, a];
  const by = 2 * EXTRA;
  return {
    ...large,
    significand: signed(large) * 2n ** BigInt(by) + (small.negative ? -1n : 1n),
    exponent: large.exponent - by,
  };
}

export function multiply(format: Format, a: Parts, b: Parts, environment: Environment, choose = firstNaN): Parts {
  const nan = special(a, b, environment, choose);
  if (nan) return nan;
  const negative = a.negative !== b.negative;
  if (a.kind === INFINITE || b.kind === INFINITE) {
    if (a.kind === ZERO || b.kind === ZERO) return invalid(environment);
    noteDenormals(a, b, environment);
    return infinity(negative);
  }
  noteDenormals(a, b, environment);
  if (a.kind === ZERO || b.kind === ZERO) return zero(negative);
  return round(format, finite(negative, a.significand * b.significand, a.exponent + b.exponent), environment);
}

export function divide(format: Format, a: Parts, b: Parts, environment: Environment, choose = firstNaN): Parts {
  const nan = special(a, b, environment, choose);
  if (nan) return nan;
  const negative = a.negative !== b.negative;
  if (a.kind === INFINITE) {
    if (b.kind === INFINITE) return invalid(environment);
    noteDenormals(a, b, environment);
    return infinity(negative);
  }
  if (b.kind === ZERO) {
    if (a.kind === ZERO) return invalid(environment);
    environment.flags |= DIVIDE_BY_ZERO;
    return infinity(negative);
  }
  noteDenormals(a, b, environment);
  if (b.kind === INFINITE || a.kind === ZERO) return zero(negative);
  const shift = Math.max(0, EXTRA + bitLength(b.significand) - bitLength(a.significand));
  const dividend = a.significand << BigInt(shift);
  const quotient = dividend / b.significand;
  const sticky = quotient * b.significand === dividend ? 0n : 1n;
  return round(format, finite(negative, quotient * 2n + sticky, a.exponent - b.exponent - shift - 1), environment);
}

export function squareRoot(format: Format, a: Parts, environment: Environment): Parts {
  if (isNaNParts(a)) {
    if (a.kind === UNSUPPORTED) return invalid(environment);
    if (a.kind === SIGNALING) environment.flags |= INVALID;
    return quiet(a);
  }
  if (a.kind === ZERO) return a;
  if (a.negative) return invalid(environment);
  noteDenormals(a, a, environment);
  if (a.kind === INFINITE) return a;
  let shift = 2 * EXTRA;
  if ((a.exponent - shift) & 1) shift++;
  const value = a.significand << BigInt(shift);
  const root = integerRoot(value);
  const sticky = root * root === value ? 0n : 1n;
  return round(format, finite(false, root * 2n + sticky, (a.exponent - shift) / 2 - 1), environment);
}

function integerRoot(value: bigint): bigint {
  let x = 1n << BigInt((bitLength(value) + 1) >> 1);
  for (;;) {
    const next = (x + value / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
}

/** To another format. */
export function convert(format: Format, a: Parts, environment: Environment): Parts {
  if (isNaNParts(a)) {
    if (a.kind === UNSUPPORTED) return invalid(environment);
    if (a.kind === SIGNALING) environment.flags |= INVALID;
    return quiet(a);
  }
  noteDenormals(a, a, environment);
  return a.kind === FINITE ? round(format, a, environment) : a;
}

export const negated = (a: Parts): Parts => ({ ...a, negative: !a.negative });
