/**
 * BMI1 and BMI2: fields and lowest bits, shifts without flags, bits spread out and gathered. Operand 1 is VEX.vvvv's, the last one
 * may be memory. Flags that the manuals leave undefined follow the result.
 */
import {
  and,
  eq,
  geU,
  ltU,
  k64,
  ne,
  negate,
  not,
  or,
  rotr,
  select,
  shl,
  shrS,
  shrU,
  signExtend,
  sub,
  type Value,
  widen,
  xor,
} from '../expression.ts';
import { carryFrom, logicFlags } from '../flags.ts';
import type { Semantics, Stage } from '../stage.ts';

const BYTE = k64(255);

const bitsOf = (s: Stage): number => s.bytes(0) * 8;

/** The lowest `count` bits, for a count below 64. */
const lowBits = (count: Value): Value => sub(shl(k64(1), count), k64(1));

export const ANDN: Semantics = (s) => {
  const value = s.read(2);
  const result = s.keep(and(not(s.read(1)), value));
  s.write(0, result);
  logicFlags(s, s.bytes(0), result);
};

/** From bit `control[7:0]` on, `control[15:8]` of them: there are zeros beyond the operand. */
export const BEXTR: Semantics = (s) => {
  const value = s.read(2);
  const control = s.read(1);
  const start = s.keep(and(control, BYTE));
  const length = s.keep(and(shrU(control, k64(8)), BYTE));
  const moved = select(ltU(start, k64(64)), shrU(value, start), k64(0));
  const mask = select(ltU(length, k64(64)), lowBits(length), k64(-1));
  const result = s.keep(and(moved, mask));
  s.write(0, result);
  logicFlags(s, s.bytes(0), result);
};

/** CF: the index is beyond the operand, and all of it stays. */
export const BZHI: Semantics = (s) => {
  const bits = k64(bitsOf(s));
  const value = s.read(2);
  const index = s.keep(and(s.read(1), BYTE));
  const result = s.keep(select(ltU(index, bits), and(value, lowBits(index)), value));
  s.write(0, result);
  s.setFlags(signExtend(result, s.bytes(0)), carryFrom(s.keep(widen(geU(index, bits))), k64(0)));
};

/** BLSR, BLSMSK, BLSI: CF tells whether the source was 0, or (BLSI) wasn't. */
const lowest =
  (change: (value: Value) => Value, carry: (a: Value, b: Value) => Value): Semantics =>
  (s) => {
    const bytes = s.bytes(0);
    const value = s.read(1);
    const result = s.keep(change(value));
    s.write(0, result);
    s.setFlags(signExtend(result, bytes), carryFrom(s.keep(widen(carry(value, k64(0)))), k64(0)));
  };

export const BLSR = lowest((value) => and(value, sub(value, k64(1))), eq);
export const BLSMSK = lowest((value) => xor(value, sub(value, k64(1))), eq);
export const BLSI = lowest((value) => and(value, negate(value)), ne);

const shiftBy =
  (shift: (value: Value, count: Value) => Value, signed = false): Semantics =>
  (s) => {
    const bytes = s.bytes(0);
    const value = s.read(2);
    const count = s.keep(and(s.read(1), k64(bytes * 8 - 1)));
    s.write(0, shift(signed ? signExtend(value, bytes) : value, count));
  };

export const SHLX = shiftBy(shl);
export const SHRX = shiftBy(shrU);
export const SARX = shiftBy(shrS, true);

export const RORX: Semantics = (s) => {
  const bits = bitsOf(s);
  const value = s.read(1);
  const count = s.keep(and(s.read(2), k64(bits - 1)));
  // Twice the operand, one above the other, is what rotates in more bits.
  s.write(0, bits === 64 ? rotr(value, count) : shrU(or(value, shl(value, k64(32))), count));
};

/**
 * How a mask's bits come down to the right without gaps, in steps of 1, 2, 4...: for each step the bits that go. A bit's way is the
 * number of zeros below it; whether that has 2^i in it is a parity, and the parities of all bits are one running XOR
 * (Warren, Hacker's Delight, 7-4). In generated code this is as fast for a full mask as for an empty one.
 */
function stepsOf(s: Stage, mask: Value, bits: number): Value[] {
  const steps: Value[] = [];
  let left = mask;
  let zeros = s.keep(shl(not(mask), k64(1)));
  for (let by = 1; by < bits; by *= 2) {
    let parity = zeros;
    for (let i = 1; i < bits; i *= 2) parity = s.keep(xor(parity, shl(parity, k64(i))));
    const going = s.keep(and(parity, left));
    steps.push(going);
    left = s.keep(or(xor(left, going), shrU(going, k64(by))));
    zeros = s.keep(and(zeros, not(parity)));
  }
  return steps;
}

/** The bits that the mask has, one beside the other. */
export const PEXT: Semantics = (s) => {
  const mask = s.read(2);
  let value = s.keep(and(s.read(1), mask));
  for (const [i, going] of stepsOf(s, mask, bitsOf(s)).entries()) {
    const moved = s.keep(and(value, going));
    value = s.keep(or(xor(value, moved), shrU(moved, k64(1 << i))));
  }
  s.write(0, value);
};

/** The other way round: the lowest bits go where the mask has ones. */
export const PDEP: Semantics = (s) => {
  const mask = s.read(2);
  let value = s.read(1);
  for (const [i, going] of [...stepsOf(s, mask, bitsOf(s)).entries()].reverse()) {
    const moved = and(shl(value, k64(1 << i)), going);
    value = s.keep(or(and(value, not(going)), moved));
  }
  s.write(0, and(value, mask));
};
