/** D9's functions of ST(0) and ST(1). The transcendental ones are rounded once, from `transcendental.ts`. */
import type { Cpu } from '../cpu.ts';
import {
  BEFORE,
  bitLength,
  DEFAULT_NAN,
  DENORMAL,
  DIVIDE_BY_ZERO,
  Environment,
  FINITE,
  finite,
  fromWhole,
  INFINITE,
  INEXACT,
  infinity,
  INVALID,
  isNaNParts,
  type Parts,
  round,
  TO_ZERO,
  UNDERFLOW,
  toWhole,
  ZERO,
  zero,
} from '../float/number.ts';
import { add, convert, multiply, squareRoot } from '../float/operations.ts';
import { FCW, FSW } from '../state.ts';
import { chooseNaN } from './arithmetic.ts';
import { EXTENDED, formatOfControl } from './extended.ts';
import {
  C0,
  C1,
  C2,
  C3,
  environment,
  isEmpty,
  peekAt,
  pop,
  push,
  pushSettled,
  put,
  rawAt,
  setConditions,
  settle,
  stackFault,
} from './registers.ts';
import * as exact from './transcendental.ts';
import { angleOf, logarithm as logarithmOf, logarithmPlusOne, powerMinusOne } from './transcendental.ts';

/** ST(0) = f(ST(0)). */
function unary(cpu: Cpu, f: (a: Parts) => Parts): void {
  let result = DEFAULT_NAN;
  if (isEmpty(cpu, 0)) stackFault(false);
  else result = f(peekAt(cpu, 0));
  if (settle(cpu)) put(cpu, 0, result);
}

/** ST(to) = f(ST(0), ST(1)), then perhaps a pop. */
function binary(cpu: Cpu, f: (a: Parts, b: Parts) => Parts, to: number): void {
  let result = DEFAULT_NAN;
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) stackFault(false);
  else result = f(peekAt(cpu, 0), peekAt(cpu, 1));
  if (!settle(cpu)) return;
  put(cpu, to, result);
  if (to === 1) pop(cpu);
}

export const squareRootTop = (cpu: Cpu): void =>
  unary(cpu, (a) => squareRoot(formatOfControl(cpu.state.get(FCW)), a, environment));

export const roundTop = (cpu: Cpu): void =>
  unary(cpu, (a) => {
    if (isNaNParts(a)) return convert(EXTENDED, a, environment);
    if (a.denormal) environment.flags |= DENORMAL;
    if (a.kind !== FINITE || a.exponent >= 0) return a;
    const whole = toWhole(a, environment.rounding, environment) ?? 0n;
    return whole === 0n ? zero(a.negative) : fromWhole(whole);
  });

/** What is done of numbers; a NaN comes back as one, and what has no value is invalid. */
function transcendental(a: Parts, b: Parts, f: () => Parts | null): Parts {
  if (isNaNParts(a) || isNaNParts(b)) return add(EXTENDED, a, b, environment, chooseNaN);
  const result = f();
  if (result === null) {
    environment.flags |= INVALID;
    return DEFAULT_NAN;
  }
  if ((a.denormal || b.denormal) && !(environment.flags & DIVIDE_BY_ZERO)) environment.flags |= DENORMAL;
  const rounded = round(EXTENDED, result, environment);
  // Processors don't know that a result is exact, where it is.
  const isTiny = rounded.kind === FINITE && rounded.exponent + bitLength(rounded.significand) <= EXTENDED.minExponent;
  if (isTiny && environment.flags & INEXACT) environment.flags |= UNDERFLOW;
  return rounded;
}

const ONE = fromWhole(1n);

/** Beyond 1 in size the result is undefined; the argument comes back. */
export const exponential = (cpu: Cpu): void =>
  unary(cpu, (a) =>
    transcendental(a, a, () => {
      if (a.kind === INFINITE) return a.negative ? fromWhole(-1n) : a;
      const exponent = a.exponent + bitLength(a.significand) - 1;
      const beyond = exponent > 0 || (exponent === 0 && (a.significand & (a.significand - 1n)) !== 0n);
      if (a.kind === ZERO) return a;
      environment.flags |= INEXACT;
      return beyond ? a : powerMinusOne(a);
    }),
  );

/** An infinite logarithm, or an infinite factor: `grows` says that the logarithm is positive, null that it is 0. */
function infiniteProduct(b: Parts, grows: boolean | null): Parts | null {
  if (b.kind === ZERO || grows === null) return null;
  return infinity(b.negative === grows);
}

/** Is a finite number above 1 (true), below (false), or 1 (null)? */
function besideOne(a: Parts): boolean | null {
  const difference = add(EXTENDED, a, fromWhole(-1n), new Environment());
  return difference.kind === ZERO ? null : !difference.negative;
}

export const logarithm = (cpu: Cpu): void =>
  binary(
    cpu,
    (a, b) =>
      transcendental(a, b, () => {
        if (a.kind === ZERO) {
          if (b.kind === FINITE) environment.flags |= DIVIDE_BY_ZERO;
          return infiniteProduct(b, false);
        }
        if (a.negative) return null;
        if (a.kind === INFINITE) return infiniteProduct(b, true);
        const grows = besideOne(a);
        if (b.kind === INFINITE) return infiniteProduct(b, grows);
        if (b.kind === ZERO || grows === null) return zero(b.negative !== (grows === false));
        // Even of a power of two.
        environment.flags |= INEXACT;
        return logarithmOf(a, b);
      }),
    1,
  );

export const logarithmPlus1 = (cpu: Cpu): void =>
  binary(
    cpu,
    (a, b) =>
      transcendental(a, b, () => {
        if (a.kind === INFINITE) return a.negative ? null : infiniteProduct(b, true);
        if (b.kind === INFINITE) return infiniteProduct(b, a.kind === ZERO ? null : !a.negative);
        if (a.kind === ZERO || b.kind === ZERO) return zero(a.negative !== b.negative);
        const rest = add(EXTENDED, a, ONE, new Environment());
        return rest.negative || rest.kind === ZERO ? null : logarithmPlusOne(a, b);
      }),
    1,
  );

export const arctangents = (cpu: Cpu): void =>
  binary(
    cpu,
    (a, b) =>
      transcendental(a, b, () => {
        const [far, high] = [a.kind === INFINITE, b.kind === INFINITE];
        if (!a.negative && (b.kind === ZERO || (far && !high))) return zero(b.negative);
        // Infinities count as 1 beside each other, and make the other one 0. Of two zeros the first is negative here.
        const x =
          far || (a.kind === ZERO && b.kind === ZERO) ? { ...ONE, negative: a.negative } : high ? zero(a.negative) : a;
        const y = high ? { ...ONE, negative: b.negative } : far ? zero(b.negative) : b;
        return angleOf(x, y);
      }),
    1,
  );

/** Sine, cosine, tangent: beyond 2^63 the operand stays and C2 says so. C0 and C3 stay as they are. */
function angle(cpu: Cpu, f: (a: Parts) => Parts, second: ((a: Parts) => Parts) | null): void {
  const { state } = cpu;
  const a = peekAt(cpu, 0);
  const of = (g: (x: Parts) => Parts): Parts => transcendental(a, a, () => (a.kind === INFINITE ? null : g(a)));
  let first = DEFAULT_NAN;
  let other = DEFAULT_NAN;
  let isBeyond = false;
  if (isEmpty(cpu, 0)) {
    stackFault(false);
  } else if (second && !isEmpty(cpu, 7)) {
    stackFault(true);
  } else if (a.kind === FINITE && a.exponent + bitLength(a.significand) > 63) {
    isBeyond = true;
  } else {
    if (second) other = of(second);
    first = of(f); // C1 is about this one
  }
  const good = settle(cpu);
  state.set(FSW, (state.get(FSW) & ~C2) | (isBeyond ? C2 : 0));
  if (!good || isBeyond) return;
  put(cpu, 0, first);
  if (second) pushSettled(cpu, other);
}

const sineOf = (a: Parts): Parts => (a.kind === ZERO ? a : exact.sine(a));
const cosineOf = (a: Parts): Parts => (a.kind === ZERO ? ONE : exact.cosine(a));
const tangentOf = (a: Parts): Parts => (a.kind === ZERO ? a : exact.tangent(a));

export const sine = (cpu: Cpu): void => angle(cpu, sineOf, null);
export const cosine = (cpu: Cpu): void => angle(cpu, cosineOf, null);
export const sineAndCosine = (cpu: Cpu): void => angle(cpu, sineOf, cosineOf);
export const tangent = (cpu: Cpu): void => angle(cpu, tangentOf, () => ONE);

/** Beyond all exponents. */
const FAR = 70000n;

/** ST(0) * 2 ^ trunc(ST(1)). */
export const scale = (cpu: Cpu): void =>
  binary(
    cpu,
    (a, b) => {
      if (isNaNParts(a) || isNaNParts(b)) return add(EXTENDED, a, b, environment, chooseNaN);
      if (b.kind === INFINITE) return multiply(EXTENDED, a, b.negative ? zero(false) : infinity(false), environment);
      if (a.denormal || b.denormal) environment.flags |= DENORMAL;
      if (a.kind !== FINITE) return a;
      const whole = toWhole(b, TO_ZERO, new Environment()) ?? (b.negative ? -FAR : FAR);
      const power = Number(whole > FAR ? FAR : whole < -FAR ? -FAR : whole);
      return round(EXTENDED, { ...a, exponent: a.exponent + power }, environment);
    },
    0,
  );

/** Exponent into ST(0), then the significand on top. */
export function extract(cpu: Cpu): void {
  if (isEmpty(cpu, 0)) stackFault(false);
  else if (!isEmpty(cpu, 7)) stackFault(true);
  const empty = isEmpty(cpu, 0);
  let exponent = DEFAULT_NAN;
  let significand = DEFAULT_NAN;
  if (!(environment.flags & INVALID)) {
    const a = peekAt(cpu, 0);
    significand = a;
    if (isNaNParts(a)) {
      exponent = convert(EXTENDED, a, environment);
      significand = exponent;
    } else if (a.kind === INFINITE) {
      exponent = infinity(false);
    } else if (a.kind === ZERO) {
      environment.flags |= DIVIDE_BY_ZERO;
      exponent = infinity(true);
    } else {
      if (a.denormal) environment.flags |= DENORMAL;
      const top = bitLength(a.significand) - 1;
      exponent = fromWhole(BigInt(a.exponent + top));
      significand = finite(a.negative, a.significand, -top);
    }
  }
  if (!settle(cpu)) return;
  put(cpu, 0, exponent);
  push(cpu, significand);
  if (empty) cpu.state.set(FSW, cpu.state.get(FSW) & ~C1);
}

/** FPREM (`nearest` false) and FPREM1: exact; a large quotient takes several rounds, as C2 says. */
export function remainder(cpu: Cpu, nearest: boolean): void {
  let conditions = cpu.state.get(FSW) & (C0 | C3);
  binary(
    cpu,
    (a, b) => {
      if (isNaNParts(a) || isNaNParts(b)) return add(EXTENDED, a, b, environment, chooseNaN);
      if (a.kind === INFINITE || b.kind === ZERO) {
        environment.flags |= INVALID;
        return DEFAULT_NAN;
      }
      if (a.denormal || b.denormal) environment.flags |= DENORMAL;
      conditions = 0;
      if (a.kind === ZERO || b.kind === INFINITE) return a;
      const distance = a.exponent + bitLength(a.significand) - b.exponent - bitLength(b.significand);
      // Any number of bits from 32 to 63 may be done at a time; this is the choice of AMD.
      const skipped = distance >= 64 ? distance - (32 + (distance & 31)) : 0;
      const low = Math.min(a.exponent, b.exponent + skipped);
      const dividend = a.significand << BigInt(a.exponent - low);
      const divisor = b.significand << BigInt(b.exponent + skipped - low);
      let quotient = dividend / divisor;
      let rest = dividend - quotient * divisor;
      let negative = a.negative;
      if (skipped > 0) {
        conditions = C2;
      } else {
        if (nearest && (rest * 2n > divisor || (rest * 2n === divisor && quotient & 1n))) {
          quotient++;
          rest = divisor - rest;
          negative = !negative;
        }
        conditions = (quotient & 4n ? C0 : 0) | (quotient & 2n ? C3 : 0) | (quotient & 1n ? C1 : 0);
      }
      return rest === 0n ? zero(a.negative) : round(EXTENDED, finite(negative, rest, low), environment);
    },
    0,
  );
  const stopped = (environment.flags & BEFORE & ~environment.masked) !== 0;
  setConditions(cpu, stopped ? conditions & ~C2 : conditions);
}

/** FXAM: what is in ST(0). */
export function examine(cpu: Cpu): void {
  const sign = rawAt(cpu, 0)[1] & 0x8000 ? C1 : 0;
  const a = peekAt(cpu, 0);
  const kind = isEmpty(cpu, 0)
    ? C3 | C0
    : a.kind === ZERO
      ? C3
      : a.denormal
        ? C3 | C2
        : [C3, C2, C2 | C0, C0, C0, 0][a.kind];
  setConditions(cpu, sign | kind);
}
