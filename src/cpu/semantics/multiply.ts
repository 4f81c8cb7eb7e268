/** Multiplication and division. SF, ZF, PF and AF are undefined after both; here they follow the low result or stay. */
import {
  add,
  and,
  divS,
  divU,
  eq,
  gtU,
  k64,
  mul,
  ne,
  or,
  or32,
  and32,
  isZero32,
  remS,
  remU,
  shl,
  shrS,
  shrU,
  signExtend,
  sub,
  type Value,
  widen,
  zeroExtend,
} from '../expression.ts';
import { carryFrom } from '../flags.ts';
import type { Semantics, Stage } from '../stage.ts';
import { RAX, RDX } from '../state.ts';

const LOW = k64(0xffffffffn);
const DIVIDE_ERROR = 0;

/** High half of an unsigned product of 64-bit values. */
function highUnsigned(s: Stage, a: Value, b: Value): Value {
  const a0 = s.keep(and(a, LOW));
  const a1 = s.keep(shrU(a, k64(32)));
  const b0 = s.keep(and(b, LOW));
  const b1 = s.keep(shrU(b, k64(32)));
  const middle = s.keep(add(mul(a1, b0), shrU(mul(a0, b0), k64(32))));
  const other = s.keep(add(mul(a0, b1), and(middle, LOW)));
  return s.keep(add(add(mul(a1, b1), shrU(middle, k64(32))), shrU(other, k64(32))));
}

function highSigned(s: Stage, a: Value, b: Value): Value {
  const high = highUnsigned(s, a, b);
  return s.keep(sub(sub(high, and(shrS(a, k64(63)), b)), and(shrS(b, k64(63)), a)));
}

function setProductFlags(s: Stage, low: Value, bytes: number, overflow: Value): void {
  const carry = s.keep(widen(overflow));
  s.setFlags(signExtend(low, bytes), carryFrom(carry, carry));
}

/** MUL and IMUL with one operand: AX, DX:AX, EDX:EAX or RDX:RAX. */
const wideProduct =
  (signed: boolean): Semantics =>
  (s) => {
    const bytes = s.bytes(0);
    const extend = (v: Value) => (signed ? s.keep(signExtend(v, bytes)) : v);
    const a = extend(s.read(0));
    const b = extend(s.register(RAX, bytes));
    const low = s.keep(mul(a, b));
    const high =
      bytes === 8 ? (signed ? highSigned(s, a, b) : highUnsigned(s, a, b)) : s.keep(shrU(low, k64(bytes * 8)));
    if (bytes === 1) {
      s.setRegister(RAX, 2, low);
    } else {
      s.setRegister(RAX, bytes, low);
      s.setRegister(RDX, bytes, high);
    }
    const expected = signed ? signedHigh(low, bytes) : k64(0);
    setProductFlags(s, low, bytes, ne(zeroExtend(high, bytes), zeroExtend(expected, bytes)));
  };

function signedHigh(low: Value, bytes: number): Value {
  return shrS(signExtend(low, bytes), k64(63));
}

export const MUL = wideProduct(false);
export const IMUL_WIDE = wideProduct(true);

/** MULX: RDX times the source, its halves anywhere; one register for both has the high one. */
export const MULX: Semantics = (s) => {
  const bytes = s.bytes(0);
  const a = s.read(2);
  const b = s.register(RDX, bytes);
  const low = s.keep(mul(a, b));
  const high = bytes === 8 ? highUnsigned(s, a, b) : shrU(low, k64(32));
  s.write(1, low);
  s.write(0, high);
};

/** IMUL with the product's low half as result: operand 0 = first * second. */
const shortProduct =
  (first: number, second: number): Semantics =>
  (s) => {
    const bytes = s.bytes(0);
    const a = s.keep(signExtend(s.read(first), bytes));
    const b = s.keep(signExtend(s.read(second), bytes));
    const low = s.keep(mul(a, b));
    s.write(0, zeroExtend(low, bytes));
    const overflow = bytes === 8 ? ne(shrS(low, k64(63)), highSigned(s, a, b)) : ne(signExtend(low, bytes), low);
    setProductFlags(s, low, bytes, overflow);
  };

export const IMUL2 = shortProduct(0, 1);
export const IMUL3 = shortProduct(1, 2);

/** The dividend of the narrow divisions as one i64, zero- or sign-extended. */
function dividend(s: Stage, bytes: number, signed: boolean): Value {
  if (bytes === 1) {
    const ax = s.register(RAX, 2);
    return signed ? s.keep(signExtend(ax, 2)) : ax;
  }
  const whole = s.keep(or(s.register(RAX, bytes), shl(s.register(RDX, bytes), k64(bytes * 8))));
  return signed && bytes === 2 ? s.keep(signExtend(whole, 4)) : whole;
}

function setQuotient(s: Stage, bytes: number, quotient: Value, remainder: Value): void {
  const keptQuotient = s.keep(quotient);
  const kept = s.keep(remainder);
  s.setRegister(RAX, bytes, keptQuotient);
  s.setRegister(bytes === 1 ? RAX + 1 : RDX, bytes, kept);
}

const divideNarrow = (s: Stage, signed: boolean): void => {
  const bytes = s.bytes(0);
  const divisor = signed ? s.keep(signExtend(s.read(0), bytes)) : s.read(0);
  const whole = dividend(s, bytes, signed);
  const most = k64(1n << 63n);
  const impossible = signed
    ? or32(eq(divisor, k64(0)), and32(eq(divisor, k64(-1)), eq(whole, most)))
    : eq(divisor, k64(0));
  s.when(impossible, () => s.raise(DIVIDE_ERROR));
  const quotient = s.keep(signed ? divS(whole, divisor) : divU(whole, divisor));
  const fits = signed ? eq(signExtend(quotient, bytes), quotient) : eq(zeroExtend(quotient, bytes), quotient);
  s.when(isZero32(fits), () => s.raise(DIVIDE_ERROR));
  setQuotient(s, bytes, zeroExtend(quotient, bytes), signed ? remS(whole, divisor) : remU(whole, divisor));
};

export const DIV: Semantics = (s) => {
  if (s.bytes(0) < 8) {
    divideNarrow(s, false);
    return;
  }
  const divisor = s.read(0);
  const high = s.register(RDX, 8);
  s.when(
    or32(ne(high, k64(0)), eq(divisor, k64(0))),
    () => s.divide(false, divisor),
    () => {
      const low = s.register(RAX, 8);
      setQuotient(s, 8, divU(low, divisor), remU(low, divisor));
    },
  );
};

/** Short cut for a dividend of 64 bits that isn't the one whose negation overflows. */
export const IDIV: Semantics = (s) => {
  if (s.bytes(0) < 8) {
    divideNarrow(s, true);
    return;
  }
  const divisor = s.read(0);
  const low = s.register(RAX, 8);
  const extended = ne(s.register(RDX, 8), shrS(low, k64(63)));
  const odd = gtU(k64(2), add(divisor, k64(1)));
  s.when(
    or32(extended, odd),
    () => s.divide(true, divisor),
    () => setQuotient(s, 8, divS(low, divisor), remS(low, divisor)),
  );
};
