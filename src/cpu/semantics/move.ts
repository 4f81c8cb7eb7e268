/** Moves, the stack, conditional moves, widening of the accumulator. */
import {
  add,
  and,
  and32,
  k64,
  ne,
  or,
  select,
  shl,
  shrS,
  shrU,
  signExtend,
  sub,
  type Value,
  widen,
  xor,
  zeroExtend,
} from '../expression.ts';
import { carryFlag, condition, flagsWord, setFlagsFromWord, withCarry } from '../flags.ts';
import type { Semantics, Stage } from '../stage.ts';
import { FLAGS, LINEAR_MASK, RAX, RBP, RBX, RSP } from '../state.ts';

export const MOV: Semantics = (s) => s.write(0, s.read(1));

export const MOVSX: Semantics = (s) => {
  const value = signExtend(s.read(1), s.bytes(1));
  s.write(0, zeroExtend(value, s.bytes(0)));
};

export const LEA: Semantics = (s) => s.write(0, zeroExtend(s.effectiveAddress(), s.bytes(0)));

export const XCHG: Semantics = (s) => {
  const a = s.readForWrite(0);
  const b = s.read(1);
  s.write(0, b);
  s.write(1, a);
};

export const PUSH: Semantics = (s) => s.push(s.read(0), s.bytes(0));

/** The stack pointer has already moved when the destination's address is made, and goes back should the store fault. */
export const POP: Semantics = (s) => {
  const bytes = s.bytes(0);
  const value = s.top(bytes);
  if (!s.isMemory(0)) {
    s.popped(bytes);
    s.write(0, value);
    return;
  }
  const old = s.register(RSP, 8);
  s.popped(bytes);
  const moved = s.register(RSP, 8);
  const linear = s.linearAddress();
  s.setState(RSP, 8, old);
  s.store(linear, bytes, value);
  s.setState(RSP, 8, moved);
};

/** LEAVE; the operand, which is not read, says how wide the stack is. */
export const LEAVE: Semantics = (s) => {
  const bytes = s.bytes(0);
  const value = s.stackLoad(s.register(RBP, 8), bytes);
  s.popped(bytes, sub(s.register(RBP, 8), s.register(RSP, 8)));
  s.setRegister(RBP, bytes, value);
};

export const CMOV = (code: number): Semantics => {
  return (s) => {
    const old = s.read(0);
    const source = s.read(1);
    s.write(0, select(condition(s, code), source, old));
  };
};

export const SETCC = (code: number): Semantics => {
  return (s) => s.write(0, widen(condition(s, code)));
};

/** CBW, CWDE, CDQE: operand 0 is the accumulator. */
export const WIDEN_ACCUMULATOR: Semantics = (s) => {
  const bytes = s.bytes(0);
  s.write(0, zeroExtend(signExtend(s.register(RAX, bytes / 2), bytes / 2), bytes));
};

/** CWD, CDQ, CQO: operand 0 is DX. */
export const SIGN_TO_D: Semantics = (s) => {
  const bytes = s.bytes(0);
  s.write(0, zeroExtend(shrS(signExtend(s.register(RAX, bytes), bytes), k64(63)), bytes));
};

export const BSWAP: Semantics = (s) => {
  const bytes = s.bytes(0);
  // Undefined at 16 bits; the hardware clears the register's word.
  s.write(0, bytes === 2 ? k64(0) : swapBytes(s, s.read(0), bytes));
};

function swapBytes(s: Stage, value: Value, bytes: number): Value {
  const swap = (v: Value, by: number, mask: bigint) =>
    s.keep(or(and(shrU(v, k64(by)), k64(mask)), shl(and(v, k64(mask)), k64(by))));
  const pairs = swap(value, 8, 0x00ff00ff00ff00ffn);
  const words = swap(pairs, 16, 0x0000ffff0000ffffn);
  return bytes === 4 ? words : or(shrU(words, k64(32)), shl(words, k64(32)));
}

export const MOVBE: Semantics = (s) => {
  const bytes = s.bytes(0);
  const value = s.read(1);
  s.write(0, bytes === 2 ? or(shrU(value, k64(8)), shl(value, k64(8))) : swapBytes(s, value, bytes));
};

export const LAHF: Semantics = (s) => s.setState(RAX + 1, 1, or(flagsWord(s), k64(2)));

/** All but OF. */
export const SAHF: Semantics = (s) => {
  const overflow = and(flagsWord(s), k64(0x800));
  setFlagsFromWord(s, s.keep(or(and(s.state(RAX + 1, 1), k64(0xd5)), overflow)));
};

export const CLC: Semantics = (s) => s.setFlags(s.flagResult(), withCarry(s, k64(0)));
export const STC: Semantics = (s) => s.setFlags(s.flagResult(), withCarry(s, k64(1)));
export const CMC: Semantics = (s) => s.setFlags(s.flagResult(), withCarry(s, s.keep(xor(carryFlag(s), k64(1)))));

export const NOP: Semantics = () => {};

const VM = 1 << 17;
const IOPL = 3 << 12;

/** RF and VM are pushed as 0. In virtual-8086 mode IOPL must be 3. */
export const PUSHF: Semantics = (s) => {
  const flags = s.state(FLAGS, 4);
  const virtual = ne(and(flags, k64(VM)), k64(0));
  s.when(and32(virtual, ne(and(flags, k64(IOPL)), k64(IOPL))), () => s.raise(13));
  const word = or(or(flagsWord(s), k64(2)), and(s.state(FLAGS, 4), k64(~0x30000)));
  s.push(s.keep(word), s.bytes(0));
};

const DIRECTION = 1 << 10;
export const CLD: Semantics = (s) => s.setState(FLAGS, 4, and(s.state(FLAGS, 4), k64(~DIRECTION)));
export const STD: Semantics = (s) => s.setState(FLAGS, 4, or(s.state(FLAGS, 4), k64(DIRECTION)));

/** XLAT: operand 0 is AL. */
export const XLAT: Semantics = (s) => {
  const table = s.addressMask(add(s.register(RBX, 8), s.register(RAX, 1)));
  s.write(0, s.load(and(add(table, s.sourceSegmentBase()), s.state(LINEAR_MASK, 8)), 1));
};
