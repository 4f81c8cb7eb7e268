/** The six operations and the comparisons, between registers or with a number from memory. */
import type { Cpu } from '../cpu.ts';
import {
  DEFAULT_NAN,
  DENORMAL,
  FINITE,
  INFINITE,
  INVALID,
  isNaNParts,
  type Parts,
  QUIET,
  SIGNALING,
  ZERO,
} from '../float/number.ts';
import { add, type Choice, divide, multiply, negated } from '../float/operations.ts';
import { FCW } from '../state.ts';
import { formatOfControl } from './extended.ts';
import {
  C0,
  C2,
  C3,
  environment,
  isEmpty,
  peekAt,
  pop,
  put,
  setConditions,
  settle,
  settleKeepingC1,
  stackFault,
} from './registers.ts';

/** A quiet NaN before a signaling one, then the larger significand. */
export const chooseNaN: Choice = (a, b) => {
  if (!isNaNParts(b)) return a;
  if (!isNaNParts(a)) return b;
  if (a.kind !== b.kind) return a.kind === QUIET ? a : b;
  if (a.significand === b.significand) return a.negative ? b : a;
  return a.significand > b.significand ? a : b;
};

const minus = (a: Parts): Parts => (isNaNParts(a) ? a : negated(a));

/** ModRM's digit names the operation: 0 add, 1 multiply, 4 and 5 subtract, 6 and 7 divide. */
function operate(cpu: Cpu, digit: number, a: Parts, b: Parts): Parts {
  const format = formatOfControl(cpu.state.get(FCW));
  switch (digit) {
    case 0:
      return add(format, a, b, environment, chooseNaN);
    case 1:
      return multiply(format, a, b, environment, chooseNaN);
    case 4:
      return add(format, a, minus(b), environment, chooseNaN);
    case 5:
      return add(format, minus(a), b, environment, chooseNaN);
    case 6:
      return divide(format, a, b, environment, chooseNaN);
    default:
      return divide(format, b, a, environment, chooseNaN);
  }
}

/** ST(to) = ST(0) op `b`; `b` null is an empty register. */
export function arithmetic(cpu: Cpu, digit: number, b: Parts | null, to: number, popping: boolean): void {
  let result = DEFAULT_NAN;
  if (b === null || isEmpty(cpu, 0)) stackFault(false);
  else result = operate(cpu, digit, peekAt(cpu, 0), b);
  if (!settle(cpu)) return;
  put(cpu, to, result);
  if (popping) pop(cpu);
}

/** Unordered, less, equal, greater. `quiet`: quiet NaN is nothing to complain about. */
function order(a: Parts | null, b: Parts | null, quiet: boolean): number {
  if (a === null || b === null) {
    stackFault(false);
    return C3 | C2 | C0;
  }
  if (isNaNParts(a) || isNaNParts(b)) {
    if (!quiet || a.kind >= SIGNALING || b.kind >= SIGNALING) environment.flags |= INVALID;
    return C3 | C2 | C0;
  }
  if (a.denormal || b.denormal) environment.flags |= DENORMAL;
  if (a.kind === ZERO && b.kind === ZERO) return C3;
  const difference = compareParts(a, b);
  return difference === 0 ? C3 : difference < 0 ? C0 : 0;
}

/** Infinities lie beyond all numbers. */
const rank = (a: Parts): number => (a.kind === ZERO ? 0 : a.kind === INFINITE ? 2 : 1) * (a.negative ? -1 : 1);

function compareParts(a: Parts, b: Parts): number {
  if (rank(a) !== rank(b) || a.kind !== FINITE) return rank(a) - rank(b);
  const low = Math.min(a.exponent, b.exponent);
  const scale = (p: Parts) => (p.negative ? -1n : 1n) * (p.significand << BigInt(p.exponent - low));
  const difference = scale(a) - scale(b);
  return difference > 0n ? 1 : difference < 0n ? -1 : 0;
}

export const operand = (cpu: Cpu, i: number): Parts | null => (isEmpty(cpu, i) ? null : peekAt(cpu, i));

/** ST(0) with `b` into the conditions; pops up to twice. */
export function compare(cpu: Cpu, b: Parts | null, quiet: boolean, pops: number): void {
  const conditions = order(operand(cpu, 0), b, quiet);
  const good = settle(cpu);
  setConditions(cpu, conditions);
  if (good) for (let i = 0; i < pops; i++) pop(cpu);
}

/** ST(0) with ST(i) into ZF, PF, CF. */
export function compareToFlags(cpu: Cpu, i: number, quiet: boolean, popping: boolean): void {
  const conditions = order(operand(cpu, 0), operand(cpu, i), quiet);
  const good = settleKeepingC1(cpu);
  const flags = (conditions & C3 ? 0x40 : 0) | (conditions & C2 ? 4 : 0) | (conditions & C0 ? 1 : 0);
  cpu.state.rflags = (cpu.state.rflags & ~0x8d5) | flags;
  if (good && popping) pop(cpu);
}
