/**
 * Transcendental functions of finite numbers, to far more than the 64 bits of a register: sums of series in fixed point, `bits` of
 * them behind the point. A result's lowest bit stands for what is below it, so that it can be rounded once, as any other.
 *
 * A small argument has as many more bits as it is small, three times: then also the direction in which the result differs from the
 * argument is right.
 */
import { bitLength, finite, type Parts, zero } from '../float/number.ts';

/** More than what rounding needs, for the errors of a few dozen terms. */
const GUARDED = 112;
/** For angles below 2^63: their distance from a multiple of pi/2 is a multiple of 2^-67 or of their own last bit. */
const ANGLE_BITS = 192;

/** Exponent of the leading bit. */
const leading = (a: Parts): number => a.exponent + bitLength(a.significand) - 1;

/** `|a| * 2^bits`, exact if there are enough. */
function fixed(a: Parts, bits: number): bigint {
  const shift = a.exponent + bits;
  return shift >= 0 ? a.significand << BigInt(shift) : a.significand >> BigInt(-shift);
}

/** What is never exact: the lowest bit says so. */
const inexact = (negative: boolean, value: bigint, bits: number): Parts =>
  finite(negative, (value << 2n) | 1n, -bits - 2);

const bitsFor = (exponent: number): number => GUARDED + 3 * Math.max(0, -exponent);

const multiply = (a: bigint, b: bigint, bits: number): bigint => (a * b) >> BigInt(bits);

/** The sum of odd powers `x - s x^3/3 + x^5/5 - ...`, s 1 for the arctangent, -1 for the hyperbolic one. */
function oddPowers(x: bigint, bits: number, alternating: boolean): bigint {
  // A negative power would never get to 0.
  if (x < 0n) return -oddPowers(-x, bits, alternating);
  const square = multiply(x, x, bits);
  let power = x;
  let sum = x;
  for (let n = 3n; power !== 0n; n += 2n) {
    power = multiply(power, square, bits);
    const term = power / n;
    sum += alternating && n & 2n ? -term : term;
  }
  return sum;
}

const inverse = (n: bigint, bits: number): bigint => (1n << BigInt(bits)) / n;

/** A constant to any number of bits, kept for the most that were asked for. */
function constant(compute: (bits: number) => bigint): (bits: number) => bigint {
  let known = 0n;
  let knownBits = 0;
  return (bits) => {
    if (bits > knownBits) {
      knownBits = bits + 64;
      known = compute(knownBits);
    }
    return known >> BigInt(knownBits - bits);
  };
}

/** By Machin's formula. */
const pi = constant(
  (bits) => 16n * oddPowers(inverse(5n, bits), bits, true) - 4n * oddPowers(inverse(239n, bits), bits, true),
);
const ln2 = constant((bits) => 2n * oddPowers(inverse(3n, bits), bits, false));

/** `2^a - 1` for a between -1 and 1. */
export function powerMinusOne(a: Parts): Parts {
  const exponent = leading(a);
  if (exponent === 0) return a.negative ? finite(true, 1n, -1) : finite(false, 1n, 0);
  const bits = bitsFor(exponent);
  const x = multiply(fixed(a, bits), ln2(bits), bits);
  let term = x;
  let sum = x;
  for (let n = 2n; term !== 0n; n++) {
    term = multiply(term, x, bits) / n;
    sum += a.negative && !(n & 1n) ? -term : term;
  }
  return inexact(a.negative, sum, bits);
}

/** `ln((1 + z) / (1 - z)) / ln 2`, z as a quotient. */
function logarithmOf(numerator: bigint, denominator: bigint, bits: number): bigint {
  const z = (numerator << BigInt(bits)) / denominator;
  return ((2n * oddPowers(z, bits, false)) << BigInt(bits)) / ln2(bits);
}

/** `b * log2(a)`, a positive. */
export function logarithm(a: Parts, b: Parts): Parts {
  const length = bitLength(a.significand);
  let exponent = a.exponent + length - 1;
  let one = 1n << BigInt(length - 1);
  // Between 3/4 and 3/2, so that nothing is lost below 1.
  if (a.significand * 2n > one * 3n) {
    exponent++;
    one *= 2n;
  }
  const difference = a.significand - one;
  if (difference === 0n) return product(BigInt(exponent), 0, b);
  const size = difference < 0n ? -difference : difference;
  const bits = exponent === 0 ? bitsFor(bitLength(size) - bitLength(one)) : GUARDED;
  const fraction = logarithmOf(size, a.significand + one, bits);
  const sum = (BigInt(exponent) << BigInt(bits)) + (difference < 0n ? -fraction : fraction);
  return product(sum * 4n + 1n, bits + 2, b);
}

/** `b * log2(1 + a)`, a above -1. */
export function logarithmPlusOne(a: Parts, b: Parts): Parts {
  const exponent = leading(a);
  // Large ones have room for the 1.
  if (exponent >= 0) {
    const low = Math.min(a.exponent, 0);
    const value = (a.negative ? -1n : 1n) * (a.significand << BigInt(a.exponent - low)) + (1n << BigInt(-low));
    return logarithm(finite(false, value, low), b);
  }
  const bits = bitsFor(exponent);
  const x = fixed(a, bits);
  const two = 2n << BigInt(bits);
  const fraction = logarithmOf(x, a.negative ? two - x : two + x, bits);
  return product((a.negative ? -fraction : fraction) * 4n + 1n, bits + 2, b);
}

/** `value * 2^-bits * b`. */
function product(value: bigint, bits: number, b: Parts): Parts {
  if (value === 0n) return zero(b.negative);
  const negative = value < 0n;
  return finite(negative !== b.negative, (negative ? -value : value) * b.significand, b.exponent - bits);
}

const EIGHTHS = Array.from({ length: 9 }, (_, i) =>
  constant((bits) => (i === 8 ? pi(bits) / 4n : oddPowers((BigInt(i) << BigInt(bits)) / 8n, bits, true))),
);

/** Of a quotient between 0 and 1. */
function arctangentOf(numerator: bigint, denominator: bigint, bits: number): bigint {
  // Near a multiple of 1/8, whose arctangent is known, the rest of the way is short.
  const eighth = Number((numerator * 16n + denominator) / (denominator * 2n));
  const c = BigInt(eighth);
  const rest = ((numerator * 8n - c * denominator) << BigInt(bits)) / (denominator * 8n + c * numerator);
  return EIGHTHS[eighth](bits) + oddPowers(rest, bits, true);
}

/** The angle of the point with these coordinates. `a` may be zero if `b` isn't, and the other way round. */
export function angleOf(a: Parts, b: Parts): Parts {
  const low = Math.min(a.exponent, b.exponent);
  // So far apart that only the direction of the difference counts.
  const far = Math.abs(leading(a) - leading(b)) > 400 && a.significand !== 0n && b.significand !== 0n;
  const steep = far
    ? leading(b) > leading(a)
    : b.significand << BigInt(b.exponent - low) > a.significand << BigInt(a.exponent - low);
  const [small, large] = steep ? [a, b] : [b, a];
  const exponent = small.significand === 0n ? 0 : leading(small) - leading(large);
  const shallow = !steep && !a.negative;
  const bits = shallow ? bitsFor(exponent) : ANGLE_BITS;
  const shift = small.exponent - large.exponent;
  const [numerator, denominator] =
    shift >= 0
      ? [small.significand << BigInt(shift), large.significand]
      : [small.significand, large.significand << BigInt(-shift)];
  let angle = arctangentOf(numerator, denominator, bits);
  if (steep) angle = a.negative ? pi(bits) / 2n + angle : pi(bits) / 2n - angle;
  else if (a.negative) angle = pi(bits) - angle;
  return inexact(b.negative, angle, bits);
}

/**
 * Angles are reduced by a pi of 66 bits, as Intel's manual has it (8.3.8) and AMD's processors do: so the sine of the 80-bit number
 * nearest to pi is what it has always been.
 */
const PI_OF_HARDWARE = 0xc90fdaa22168c234cn;
const PI_BITS = 66;

/** Sine and cosine of a number between 0 and pi/4. */
function seriesOf(x: bigint, bits: number): [sine: bigint, cosine: bigint] {
  const square = multiply(x, x, bits);
  let sine = x;
  let cosine = 1n << BigInt(bits);
  let odd = x;
  let even = cosine;
  for (let n = 2n; even !== 0n; n += 2n) {
    even = multiply(even, square, bits) / (n * (n - 1n));
    odd = multiply(odd, square, bits) / (n * (n + 1n));
    cosine += n & 2n ? -even : even;
    sine += n & 2n ? -odd : odd;
  }
  return [sine, cosine];
}

/** Sine and cosine of a number that isn't 0, as fixed-point numbers with signs. */
function sineAndCosine(a: Parts): { sine: bigint; cosine: bigint; bits: number } {
  const bits = ANGLE_BITS + 3 * Math.max(0, -leading(a));
  const quarter = PI_OF_HARDWARE << BigInt(bits - PI_BITS - 1);
  const x = fixed(a, bits);
  const turns = (x + quarter / 2n) / quarter;
  const rest = x - turns * quarter;
  const [s, cosine] = seriesOf(rest < 0n ? -rest : rest, bits);
  const sine = rest < 0n ? -s : s;
  const sign = a.negative ? -1n : 1n;
  switch (turns & 3n) {
    case 0n:
      return { sine: sign * sine, cosine, bits };
    case 1n:
      return { sine: sign * cosine, cosine: -sine, bits };
    case 2n:
      return { sine: -sign * sine, cosine: -cosine, bits };
    default:
      return { sine: -sign * cosine, cosine: sine, bits };
  }
}

const withSign = (value: bigint, bits: number): Parts => inexact(value < 0n, value < 0n ? -value : value, bits);

export function sine(a: Parts): Parts {
  const { sine: value, bits } = sineAndCosine(a);
  return withSign(value, bits);
}

export function cosine(a: Parts): Parts {
  const { cosine: value, bits } = sineAndCosine(a);
  return withSign(value, bits);
}

export function tangent(a: Parts): Parts {
  const { sine: above, cosine: below, bits } = sineAndCosine(a);
  return withSign((above << BigInt(bits)) / below, bits);
}
