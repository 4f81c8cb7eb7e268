/** Single bits: BT and its kin, scans, counts. */
import {
  add,
  and,
  clz,
  ctz,
  eq,
  isZero32,
  k64,
  ne,
  not,
  or,
  popcnt,
  shl,
  shrS,
  shrU,
  signExtend,
  sub,
  type Value,
  widen,
  xor,
} from '../expression.ts';
import { carryFrom, withCarry } from '../flags.ts';
import type { Semantics, Stage } from '../stage.ts';

type Change = ((value: Value, bit: Value) => Value) | null;

/** With a register as bit number, a memory operand is a bit string: the number reaches beyond the operand. */
function bitAddress(s: Stage, bitNumber: Value): Value {
  const bytes = s.bytes(0);
  const shift = Math.log2(bytes * 8);
  const distance = shl(shrS(signExtend(bitNumber, bytes), k64(shift)), k64(Math.log2(bytes)));
  return s.linearAddress(s.keep(distance));
}

const bitTest =
  (change: Change): Semantics =>
  (s) => {
    const bytes = s.bytes(0);
    const number = s.read(1);
    const at = s.keep(and(number, k64(bytes * 8 - 1)));
    let put: (value: Value) => void = (value) => s.write(0, value);
    let value: Value;
    if (s.isMemory(0) && !s.isImmediate(1)) {
      const address = bitAddress(s, number);
      if (change) {
        const place = s.loadForWrite(address, bytes);
        value = place.value;
        put = (changed) => place.put(changed);
      } else {
        value = s.load(address, bytes);
      }
    } else {
      value = change ? s.readForWrite(0) : s.read(0);
    }
    const bit = s.keep(and(shrU(value, at), k64(1)));
    if (change) put(change(value, shl(k64(1), at)));
    s.setFlags(s.flagResult(), withCarry(s, bit));
  };

export const BT = bitTest(null);
export const BTS = bitTest(or);
export const BTR = bitTest((value, bit) => and(value, not(bit)));
export const BTC = bitTest(xor);

/** BSF, BSR: a source of 0 sets ZF and leaves the destination alone, all of it. */
const scan =
  (position: (value: Value) => Value): Semantics =>
  (s) => {
    const value = s.read(1);
    s.when(ne(value, k64(0)), () => s.write(0, position(value)));
    s.setFlags(signExtend(value, s.bytes(1)), k64(0));
  };

export const BSF = scan(ctz);
export const BSR = scan((value) => sub(k64(63), clz(value)));

/** POPCNT clears all flags but ZF. A result of 1 for "not zero" has neither sign nor even parity; 0's parity is flipped. */
export const POPCNT: Semantics = (s) => {
  const value = s.read(1);
  s.write(0, popcnt(value));
  const zero = s.keep(widen(eq(value, k64(0))));
  s.setFlags(widen(isZero32(eq(value, k64(0)))), zero);
};

/** TZCNT, LZCNT: the operand's size for 0; CF says so. */
const count =
  (position: (value: Value, bits: number) => Value): Semantics =>
  (s) => {
    const bits = s.bytes(1) * 8;
    const value = s.read(1);
    const result = s.keep(position(value, bits));
    s.write(0, result);
    s.setFlags(result, carryFrom(widen(eq(value, k64(0))), k64(0)));
  };

export const TZCNT = count((value, bits) => ctz(bits === 64 ? value : or(value, k64(1n << BigInt(bits)))));
export const LZCNT = count((value, bits) => add(clz(value), k64(bits - 64)));
