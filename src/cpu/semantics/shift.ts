/**
 * Shifts and rotations. Counts are taken modulo 32, or 64 for 8-byte operands; a count of 0 leaves the flags alone. Where
 * the manuals leave OF undefined (counts other than 1) it is what the formula for 1 gives.
 */
import {
  and,
  bitOf,
  eq,
  isZero32,
  k64,
  ne,
  or,
  remU,
  select,
  shl,
  shrS,
  shrU,
  signExtend,
  sub,
  type Value,
  xor,
  zeroExtend,
} from '../expression.ts';
import { carryFlag, carryFrom } from '../flags.ts';
import type { Semantics, Stage } from '../stage.ts';

/** AF and the flips: what a rotation keeps of the carry vector. */
const KEPT = 8 + 3;

function countOf(s: Stage, operand: number): Value {
  return s.keep(and(s.read(operand), k64(s.bytes(0) === 8 ? 63 : 31)));
}

const bitsOf = (s: Stage) => s.bytes(0) * 8;

/** What the description of one shift has to say: result and carry vector for a count that isn't 0. */
interface Shifted {
  readonly result: Value;
  readonly carry: () => Value;
}

const shift =
  (make: (s: Stage, a: Value, count: Value, bits: number) => Shifted): Semantics =>
  (s) => {
    const bytes = s.bytes(0);
    const a = s.readForWrite(0);
    const count = countOf(s, 1);
    const { result, carry } = make(s, a, count, bitsOf(s));
    s.write(0, zeroExtend(result, bytes));
    s.when(ne(count, k64(0)), () => s.setFlags(signExtend(result, bytes), carry()));
  };

export const SHL = shift((s, a, count, bits) => {
  const result = s.keep(shl(a, count));
  if (bits < 64) return { result, carry: () => and(shl(result, k64(63 - bits)), k64(3n << 62n)) };
  const out = and(shrU(a, sub(k64(64), count)), k64(1));
  return { result, carry: () => or(shl(out, k64(63)), and(shrU(result, k64(1)), k64(1n << 62n))) };
});

/** OF is the operand's old sign; for CF ^ OF in bit 62 see `carryFrom`. */
export const SHR = shift((s, a, count, bits) => {
  const result = s.keep(shrU(a, count));
  const out = () => s.keep(and(shrU(a, sub(count, k64(1))), k64(1)));
  return { result, carry: () => carryFrom(out(), bitOf(a, bits - 1)) };
});

export const SAR = shift((s, a, count, bits) => {
  const wide = s.keep(signExtend(a, bits / 8));
  const result = s.keep(shrS(wide, count));
  const out = () => s.keep(and(shrS(wide, sub(count, k64(1))), k64(1)));
  return { result, carry: () => carryFrom(out(), k64(0)) };
});

/** SHLD: operand 1's top bits come in from the right. */
export const SHLD: Semantics = (s) => {
  const bytes = s.bytes(0);
  const bits = bitsOf(s);
  const a = s.readForWrite(0);
  const b = s.read(1);
  const count = countOf(s, 2);
  const zero = isZero32(ne(count, k64(0)));
  const shifted =
    bits === 64
      ? or(shl(a, count), shrU(shrU(b, k64(1)), sub(k64(63), count)))
      : shrU(shl(or(shl(a, k64(bits)), b), count), k64(bits));
  const result = s.keep(zeroExtend(select(zero, a, shifted), bytes));
  s.write(0, result);
  s.when(ne(count, k64(0)), () => {
    const out = s.keep(and(shrU(a, sub(k64(bits), count)), k64(1)));
    s.setFlags(signExtend(result, bytes), carryFrom(out, bitOf(xor(a, result), bits - 1)));
  });
};

export const SHRD: Semantics = (s) => {
  const bytes = s.bytes(0);
  const bits = bitsOf(s);
  const a = s.readForWrite(0);
  const b = s.read(1);
  const count = countOf(s, 2);
  const zero = isZero32(ne(count, k64(0)));
  const shifted =
    bits === 64 ? or(shrU(a, count), shl(shl(b, k64(1)), sub(k64(63), count))) : shrU(or(shl(b, k64(bits)), a), count);
  const result = s.keep(zeroExtend(select(zero, a, shifted), bytes));
  s.write(0, result);
  s.when(ne(count, k64(0)), () => {
    const out = s.keep(and(shrU(a, sub(count, k64(1))), k64(1)));
    s.setFlags(signExtend(result, bytes), carryFrom(out, bitOf(xor(a, result), bits - 1)));
  });
};

/** Rotations change CF and OF only. */
function setRotated(s: Stage, count: Value, cf: () => Value, of: (cf: Value) => Value): void {
  s.when(ne(count, k64(0)), () => {
    const out = s.keep(cf());
    s.setFlags(s.flagResult(), or(and(s.flagCarry(), k64(KEPT)), carryFrom(out, of(out))));
  });
}

export const ROL: Semantics = (s) => {
  const bits = bitsOf(s);
  const a = s.readForWrite(0);
  const count = countOf(s, 1);
  const by = s.keep(and(count, k64(bits - 1)));
  const rotated = or(shl(a, by), shrU(shrU(a, k64(1)), sub(k64(bits - 1), by)));
  const result = s.keep(zeroExtend(rotated, s.bytes(0)));
  s.write(0, result);
  setRotated(
    s,
    count,
    () => and(result, k64(1)),
    (cf) => xor(cf, bitOf(result, bits - 1)),
  );
};

export const ROR: Semantics = (s) => {
  const bits = bitsOf(s);
  const a = s.readForWrite(0);
  const count = countOf(s, 1);
  const by = s.keep(and(count, k64(bits - 1)));
  const rotated = or(shrU(a, by), shl(shl(a, k64(1)), sub(k64(bits - 1), by)));
  const result = s.keep(zeroExtend(rotated, s.bytes(0)));
  s.write(0, result);
  setRotated(
    s,
    count,
    () => bitOf(result, bits - 1),
    (cf) => xor(cf, bitOf(result, bits - 2)),
  );
};

/** Rotations through CF have one bit more: a count modulo 9, 17, 33 or 65. */
function carryCount(s: Stage, bits: number): Value {
  const count = countOf(s, 1);
  return bits < 32 ? s.keep(remU(count, k64(bits + 1))) : count;
}

export const RCL: Semantics = (s) => {
  const bits = bitsOf(s);
  const a = s.readForWrite(0);
  const by = carryCount(s, bits);
  const carry = s.keep(carryFlag(s));
  const shifted = or(or(shl(a, by), shl(carry, sub(by, k64(1)))), shrU(shrU(a, k64(1)), sub(k64(bits), by)));
  const result = s.keep(zeroExtend(select(eq(by, k64(0)), a, shifted), s.bytes(0)));
  s.write(0, result);
  const out = () => and(shrU(a, sub(k64(bits), by)), k64(1));
  setRotated(s, by, out, (cf) => xor(cf, bitOf(result, bits - 1)));
};

export const RCR: Semantics = (s) => {
  const bits = bitsOf(s);
  const a = s.readForWrite(0);
  const by = carryCount(s, bits);
  const carry = s.keep(carryFlag(s));
  const shifted = or(or(shrU(a, by), shl(carry, sub(k64(bits), by))), shl(shl(a, k64(1)), sub(k64(bits), by)));
  const result = s.keep(zeroExtend(select(eq(by, k64(0)), a, shifted), s.bytes(0)));
  s.write(0, result);
  const out = () => and(shrU(a, sub(by, k64(1))), k64(1));
  setRotated(s, by, out, () => xor(bitOf(result, bits - 1), bitOf(result, bits - 2)));
};
