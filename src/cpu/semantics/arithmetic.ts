/** Addition, subtraction, comparison, logic. */
import {
  add,
  and,
  eq,
  isZero,
  isZero32,
  k64,
  negate,
  not,
  or,
  select,
  shl,
  shrU,
  sub,
  type Value,
  widen,
  xor,
  zeroExtend,
} from '../expression.ts';
import {
  adcFlags,
  addFlags,
  carryFlag,
  flagsWord,
  incFlags,
  logicFlags,
  overflowFlag,
  sbbFlags,
  setFlagsFromWord,
  subFlags,
  withCarry,
} from '../flags.ts';
import type { Semantics } from '../stage.ts';
import { RAX, RBX, RCX, RDX } from '../state.ts';

export const ADD: Semantics = (s) => {
  const a = s.readForWrite(0);
  const b = s.read(1);
  const result = s.keep(add(a, b));
  s.write(0, result);
  addFlags(s, s.bytes(0), a, b, result);
};

export const ADC: Semantics = (s) => {
  const a = s.readForWrite(0);
  const b = s.read(1);
  const result = s.keep(add(add(a, b), carryFlag(s)));
  s.write(0, result);
  adcFlags(s, s.bytes(0), a, b, result);
};

export const SUB: Semantics = (s) => {
  const a = s.readForWrite(0);
  const b = s.read(1);
  const result = s.keep(sub(a, b));
  s.write(0, result);
  subFlags(s, s.bytes(0), a, b, result);
};

export const SBB: Semantics = (s) => {
  const a = s.readForWrite(0);
  const b = s.read(1);
  const result = s.keep(sub(sub(a, b), carryFlag(s)));
  s.write(0, result);
  sbbFlags(s, s.bytes(0), a, b, result);
};

export const CMP: Semantics = (s) => {
  const a = s.read(0);
  const b = s.read(1);
  subFlags(s, s.bytes(0), a, b, s.keep(sub(a, b)));
};

const logic =
  (operation: (a: Value, b: Value) => Value): Semantics =>
  (s) => {
    const a = s.readForWrite(0);
    const result = s.keep(operation(a, s.read(1)));
    s.write(0, result);
    logicFlags(s, s.bytes(0), result);
  };

export const AND = logic(and);
export const OR = logic(or);
export const XOR = logic(xor);

export const TEST: Semantics = (s) => {
  const a = s.read(0);
  logicFlags(s, s.bytes(0), and(a, s.read(1)));
};

export const INC: Semantics = (s) => {
  const a = s.readForWrite(0);
  const result = s.keep(add(a, k64(1)));
  s.write(0, result);
  incFlags(s, s.bytes(0), a, result, isZero(result));
};

export const DEC: Semantics = (s) => {
  const a = s.readForWrite(0);
  const result = s.keep(sub(a, k64(1)));
  s.write(0, result);
  incFlags(s, s.bytes(0), a, result, isZero(a));
};

export const NOT: Semantics = (s) => {
  const a = s.readForWrite(0);
  s.write(0, zeroExtend(not(a), s.bytes(0)));
};

export const NEG: Semantics = (s) => {
  const a = s.readForWrite(0);
  const result = s.keep(negate(a));
  s.write(0, result);
  subFlags(s, s.bytes(0), k64(0), a, result);
};

export const XADD: Semantics = (s) => {
  const a = s.readForWrite(0);
  const b = s.read(1);
  const result = s.keep(add(a, b));
  // With one register as both operands the sum stays.
  if (s.isMemory(0)) {
    s.write(0, result);
    s.write(1, a);
  } else {
    s.write(1, a);
    s.write(0, result);
  }
  addFlags(s, s.bytes(0), a, b, result);
};

/** Writes in any case, as the hardware does: a read-only page faults also when the comparison fails. */
export const CMPXCHG: Semantics = (s) => {
  const bytes = s.bytes(0);
  const old = s.readForWrite(0);
  const source = s.read(1);
  const expected = s.register(RAX, bytes);
  const equal = s.keep(eq(old, expected));
  s.when(
    equal,
    () => s.write(0, source),
    () => {
      if (s.isMemory(0)) s.write(0, old);
      s.setRegister(RAX, bytes, old);
    },
  );
  subFlags(s, bytes, expected, old, s.keep(sub(expected, old)));
};

/** CMPXCHG8B: only ZF changes. */
export const CMPXCHG8B: Semantics = (s) => {
  const place = s.loadForWrite(s.linearAddress(), 8);
  const expected = s.keep(or(s.register(RAX, 4), shl(s.register(RDX, 4), k64(32))));
  const fresh = or(s.register(RBX, 4), shl(s.register(RCX, 4), k64(32)));
  const equal = s.keep(eq(place.value, expected));
  place.put(select(equal, fresh, place.value));
  s.when(isZero32(equal), () => {
    s.setRegister(RAX, 4, place.value);
    s.setRegister(RDX, 4, shrU(place.value, k64(32)));
  });
  setFlagsFromWord(s, s.keep(or(and(flagsWord(s), k64(~0x40)), shl(widen(equal), k64(6)))));
};

/** ADCX, ADOX: sums that read and change one flag, CF or OF. */
export const addWithFlag = (overflow: boolean): Semantics => {
  return (s) => {
    const bytes = s.bytes(0);
    const b = s.read(1);
    const a = s.read(0);
    const sum = s.keep(add(add(a, b), s.keep(overflow ? overflowFlag(s) : carryFlag(s))));
    const out = bytes === 4 ? and(shrU(sum, k64(32)), k64(1)) : shrU(or(and(a, b), and(or(a, b), not(sum))), k64(63));
    const kept = s.keep(out);
    const others = and(s.flagCarry(), k64(~(1n << 62n)));
    const carry = overflow ? or(others, shl(xor(carryFlag(s), kept), k64(62))) : withCarry(s, kept);
    s.write(0, sum);
    s.setFlags(s.flagResult(), s.keep(carry));
  };
};
