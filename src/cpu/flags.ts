/** Lazy flags (`state.ts` has the picture): what arithmetic leaves behind, and what conditions make of it. */
import {
  add,
  and,
  bitOf,
  isNegative,
  isZero,
  isZero32,
  k64,
  ltU,
  or,
  or32,
  popcnt,
  shl,
  shrS,
  shrU,
  signExtend,
  type Value,
  widen,
  wrap,
  xor,
} from './expression.ts';
import type { Stage } from './stage.ts';

const OVERFLOW_BITS = 3n << 62n;
const AF = 8;

/**
 * Carries of `result = a + b + carry` or `a - b - borrow`, with `result` not truncated. `a ^ b ^ result` has the carry
 * *into* each bit, and there is room above the operand for the last one, except at 64 bits.
 */
function carryVector(bytes: number, a: Value, b: Value, result: Value, carryOut: Value): Value {
  const into = xor(xor(a, b), result);
  if (bytes === 8) return or(and(shrU(into, k64(1)), k64((1n << 62n) | 8n)), shl(widen(carryOut), k64(63)));
  return or(shl(into, k64(63 - bytes * 8)), and(shrU(into, k64(1)), k64(AF)));
}

export function addFlags(s: Stage, bytes: number, a: Value, b: Value, result: Value): void {
  s.setFlags(signExtend(result, bytes), carryVector(bytes, a, b, result, ltU(result, a)));
}

export function subFlags(s: Stage, bytes: number, a: Value, b: Value, result: Value): void {
  s.setFlags(signExtend(result, bytes), carryVector(bytes, a, b, result, ltU(a, b)));
}

/** The same with a carry that went in: at 64 bits the carry out has to be made from the operands' top bits. */
export function adcFlags(s: Stage, bytes: number, a: Value, b: Value, result: Value): void {
  const out = isNegative(or(and(a, b), and(or(a, b), xor(result, k64(-1)))));
  s.setFlags(signExtend(result, bytes), carryVector(bytes, a, b, result, out));
}

export function sbbFlags(s: Stage, bytes: number, a: Value, b: Value, result: Value): void {
  const notA = xor(a, k64(-1));
  const out = isNegative(or(and(notA, b), and(or(notA, b), result)));
  s.setFlags(signExtend(result, bytes), carryVector(bytes, a, b, result, out));
}

/** INC and DEC: as addition or subtraction of 1 with this carry out of 64 bits, but CF stays. */
export function incFlags(s: Stage, bytes: number, a: Value, result: Value, carryOut: Value): void {
  const old = s.keep(s.flagCarry());
  const fresh = s.keep(carryVector(bytes, a, k64(1), result, carryOut));
  const differ = and(shrS(xor(fresh, old), k64(63)), k64(OVERFLOW_BITS));
  s.setFlags(signExtend(result, bytes), xor(fresh, differ));
}

/** AND, OR, XOR, TEST: no carries. */
export function logicFlags(s: Stage, bytes: number, result: Value): void {
  s.setFlags(signExtend(result, bytes), k64(0));
}

/** A carry vector from CF and OF (0 or 1 each), AF clear. */
export function carryFrom(cf: Value, of: Value): Value {
  return or(shl(cf, k64(63)), shl(xor(cf, of), k64(62)));
}

/** The carry vector with only CF changed, OF kept. */
export function withCarry(s: Stage, cf: Value): Value {
  const old = s.keep(s.flagCarry());
  const differ = and(shrS(xor(shl(cf, k64(63)), old), k64(63)), k64(OVERFLOW_BITS));
  return xor(old, differ);
}

/** CF as 0 or 1. */
export function carryFlag(s: Stage): Value {
  return shrU(s.flagCarry(), k64(63));
}

export function overflowFlag(s: Stage): Value {
  const carry = s.flagCarry();
  return bitOf(xor(carry, shl(carry, k64(1))), 63);
}

/** Sign of the result, with the flip. Bit 63 of this is SF. */
function signWord(s: Stage): Value {
  return xor(s.flagResult(), shl(s.flagCarry(), k64(62)));
}

export function signFlag(s: Stage): Value {
  return shrU(signWord(s), k64(63));
}

export function parityFlag(s: Stage): Value {
  const odd = and(add(popcnt(and(s.flagResult(), k64(255))), s.flagCarry()), k64(1));
  return xor(odd, k64(1));
}

export function adjustFlag(s: Stage): Value {
  return bitOf(s.flagCarry(), 3);
}

/** Bit 63 is SF ^ OF. */
function lessWord(s: Stage): Value {
  const carry = s.flagCarry();
  return xor(signWord(s), xor(carry, shl(carry, k64(1))));
}

/** Condition code 0 to 15 of Jcc, SETcc, CMOVcc. */
export function condition(s: Stage, code: number): Value {
  const holds = baseCondition(s, code >> 1);
  return code & 1 ? isZero32(holds) : holds;
}

function baseCondition(s: Stage, pair: number): Value {
  switch (pair) {
    case 0:
      return isNegative(xor(s.flagCarry(), shl(s.flagCarry(), k64(1))));
    case 1:
      return isNegative(s.flagCarry());
    case 2:
      return isZero(s.flagResult());
    case 3:
      return or32(isNegative(s.flagCarry()), isZero(s.flagResult()));
    case 4:
      return isNegative(signWord(s));
    case 5:
      return wrap(parityFlag(s));
    case 6:
      return isNegative(lessWord(s));
    default:
      return or32(isNegative(lessWord(s)), isZero(s.flagResult()));
  }
}

/** Sets the six arithmetic flags from a word that has them at their places in RFLAGS. */
export function setFlagsFromWord(s: Stage, word: Value): void {
  const zf = s.keep(bitOf(word, 6));
  const sf = s.keep(bitOf(word, 7));
  // ZF: result 0, sign and parity by flips. Otherwise 1, whose sign is 0 and whose parity is odd.
  const result = xor(zf, k64(1));
  const parityOfResult = zf;
  const cf = s.keep(bitOf(word, 0));
  const carry = or(
    or(carryFrom(cf, bitOf(word, 11)), shl(bitOf(word, 4), k64(3))),
    or(shl(sf, k64(1)), xor(bitOf(word, 2), parityOfResult)),
  );
  s.setFlags(result, carry);
}

/** The six arithmetic flags at their places in RFLAGS. */
export function flagsWord(s: Stage): Value {
  return or(
    or(or(carryFlag(s), shl(parityFlag(s), k64(2))), or(shl(adjustFlag(s), k64(4)), shl(zeroFlag(s), k64(6)))),
    or(shl(signFlag(s), k64(7)), shl(overflowFlag(s), k64(11))),
  );
}

export function zeroFlag(s: Stage): Value {
  return widen(isZero(s.flagResult()));
}

/** Result and carry of COMISD and its like: ZF, PF, CF from conditions, the others clear. */
export function setCompareFlags(s: Stage, less: Value, equal: Value, unordered: Value): void {
  const zf = s.keep(widen(or32(equal, unordered)));
  const cf = widen(or32(less, unordered));
  // As a result 0 has even parity, 1 odd: PF differs from it when ZF is set without PF.
  const flip = xor(zf, widen(unordered));
  s.setFlags(xor(zf, k64(1)), or(carryFrom(cf, k64(0)), flip));
}
