/**
 * SSE and SSE2 on whole registers. Legacy encodings demand that 16-byte operands in memory are aligned; those of the
 * unaligned moves don't.
 *
 * Where the number of a lane or byte is an immediate, it is a value here and not a constant of the generated code: indexes
 * for a swizzle are computed from it.
 */
import { and, k128, k32, k64, leU, ne, select, simd, type Value, widen, wrap, zeroExtend } from '../expression.ts';
import type { Semantics, Stage } from '../stage.ts';
import { FTAGS, FTOP } from '../state.ts';
import { I32, I64, V128 } from '../wasm-encoder.ts';

const GENERAL_PROTECTION = 13;

export const bytes16 = (f: (i: number) => number): Value => k128(Array.from({ length: 16 }, (_, i) => f(i) & 255));
export const ZEROS = bytes16(() => 0);
export const ONES = bytes16(() => 255);
const IOTA = bytes16((i) => i);

export const v2 = (opcode: number, a: Value, b: Value): Value => simd(V128, opcode, [a, b]);
export const v1 = (opcode: number, a: Value): Value => simd(V128, opcode, [a]);
export const vnot = (a: Value): Value => v1(0x4d, a);
export const vand = (a: Value, b: Value): Value => v2(0x4e, a, b);
export const vandnot = (a: Value, b: Value): Value => v2(0x4f, a, b);
export const vor = (a: Value, b: Value): Value => v2(0x50, a, b);
export const vxor = (a: Value, b: Value): Value => v2(0x51, a, b);
/** Bits of `a` where `mask` has ones, of `b` elsewhere. */
export const bitSelect = (a: Value, b: Value, mask: Value): Value => simd(V128, 0x52, [a, b, mask]);
export const shuffle = (a: Value, b: Value, lanes: readonly number[]): Value => simd(V128, 0x0d, [a, b], lanes);
export const swizzle = (a: Value, indexes: Value): Value => v2(0x0e, a, indexes);
export const splat8 = (a: Value): Value => simd(V128, 0x0f, [wrap(a)]);
export const splat16 = (a: Value): Value => simd(V128, 0x10, [wrap(a)]);
export const splat32 = (a: Value): Value => simd(V128, 0x11, [wrap(a)]);
export const splat64 = (a: Value): Value => simd(V128, 0x12, [a]);
export const lane64 = (a: Value, lane: number): Value => simd(I64, 0x1d, [a], [lane]);
export const lane32 = (a: Value, lane: number): Value => widen(simd(I32, 0x1b, [a], [lane]));
/** A register whose low half is an i64 and whose high half is zero. */
export const low64 = (a: Value): Value => simd(V128, 0x1e, [ZEROS, a], [0]);

/** A 16-byte operand that must be aligned when it is in memory. */
export function readAligned(s: Stage, i: number): Value {
  if (!s.isMemory(i)) return s.read(i);
  const address = s.keep(s.linearAddress());
  s.when(ne(and(address, k64(15)), k64(0)), () => s.raise(GENERAL_PROTECTION));
  return s.load(address, 16);
}

export const MOVE: Semantics = (s) => s.write(0, s.read(1));

export const MOVE_ALIGNED: Semantics = (s) => {
  if (!s.isMemory(0)) {
    s.write(0, readAligned(s, 1));
    return;
  }
  const address = s.keep(s.linearAddress());
  s.when(ne(and(address, k64(15)), k64(0)), () => s.raise(GENERAL_PROTECTION));
  s.store(address, 16, s.read(1));
};

/** Operand `i`, an MMX register or memory, as the low half of a register of 16 bytes. */
export const readHalf = (s: Stage, i: number): Value => s.keep(low64(s.read(i)));

/** Every MMX instruction but EMMS leaves x87's registers all in use, the first on top. */
export function useMmx(s: Stage): void {
  s.setState(FTOP, 4, k64(0));
  s.setState(FTAGS, 4, k64(255));
}

/** Is this the MMX form of an instruction that SSE2 has too? */
const isMmx = (s: Stage): boolean => s.bytes(0) === 8;

function writeHalf(s: Stage, value: Value, lane = 0): void {
  useMmx(s);
  s.write(0, lane64(value, lane));
}

/** destination = f(destination, source), 16 bytes each, or 8 in MMX's form. */
export const packed =
  (f: (a: Value, b: Value, s: Stage) => Value): Semantics =>
  (s) => {
    if (isMmx(s)) {
      const b = readHalf(s, 1);
      writeHalf(s, f(readHalf(s, 0), b, s));
      return;
    }
    const b = readAligned(s, 1);
    const a = s.read(0);
    s.write(0, f(a, b, s));
  };

/** destination = f(source). */
export const packedUnary =
  (f: (b: Value, s: Stage) => Value): Semantics =>
  (s) =>
    s.write(0, f(readAligned(s, 1), s));

export const direct = (opcode: number): Semantics => packed((a, b) => v2(opcode, a, b));
export const swapped = (opcode: number): Semantics => packed((a, b) => v2(opcode, b, a));

function unpackLanes(bytes: number): number[] {
  return Array.from({ length: 16 }, (_, i) => {
    const pair = Math.floor(i / (2 * bytes));
    const within = i % (2 * bytes);
    return pair * bytes + (within % bytes) + (within < bytes ? 0 : 16);
  });
}

/** PACK*: numbers of both operands made narrower. */
export const narrow = (opcode: number): Semantics =>
  packed((a, b, s) => {
    if (!isMmx(s)) return v2(opcode, a, b);
    const both = s.keep(simd(V128, 0x1e, [a, lane64(b, 0)], [1]));
    return v2(opcode, both, both);
  });

/** PUNPCK*: lanes of `bytes` bytes from the low or high halves, alternating. */
export const unpack = (bytes: number, high: boolean): Semantics => {
  const lanes = unpackLanes(bytes).map((lane) => lane + (high ? 8 : 0));
  const whole = packed((a, b) => shuffle(a, b, lanes));
  const low = high ? unpackLanes(bytes) : lanes;
  // MMX's high halves are the upper part of what the low halves of SSE2's registers give.
  return (s) => {
    if (!isMmx(s)) {
      whole(s);
      return;
    }
    const b = readHalf(s, 1);
    writeHalf(s, shuffle(readHalf(s, 0), b, low), high ? 1 : 0);
  };
};

/** Shifts of lanes; a count beyond the lane gives zeros, or copies of the sign. */
function shiftLanes(s: Stage, opcode: number, bits: number, a: Value, count: Value): Value {
  const arithmetic = opcode === 0x8c || opcode === 0xac;
  const fits = leU(count, k64(bits - 1));
  if (arithmetic) return simd(V128, opcode, [a, wrap(select(fits, count, k64(bits - 1)))]);
  return select(fits, s.keep(simd(V128, opcode, [a, wrap(count)])), s.keep(ZEROS));
}

export const shiftByVector = (opcode: number, bits: number): Semantics => {
  return (s) => {
    if (isMmx(s)) {
      const count = s.read(1);
      writeHalf(s, shiftLanes(s, opcode, bits, readHalf(s, 0), count));
      return;
    }
    const count = s.keep(lane64(readAligned(s, 1), 0));
    s.write(0, shiftLanes(s, opcode, bits, s.read(0), count));
  };
};

export const shiftByImmediate = (opcode: number, bits: number): Semantics => {
  return (s) => {
    const count = zeroExtend(s.read(1), 1);
    if (isMmx(s)) writeHalf(s, shiftLanes(s, opcode, bits, readHalf(s, 0), count));
    else s.write(0, shiftLanes(s, opcode, bits, s.read(0), count));
  };
};

/** PSLLDQ, PSRLDQ: whole bytes. Indexes outside 0 to 15 give 0. */
export const shiftBytes = (left: boolean): Semantics => {
  return (s) => {
    const count = s.read(1);
    const by = splat8(select(leU(count, k64(15)), count, k64(16)));
    s.write(0, swizzle(s.read(0), v2(left ? 0x71 : 0x6e, IOTA, by)));
  };
};

/** Four numbers of two bits each, one in each lane of 4 bytes: `imm * 64, 16, 4, 1 >> 6 & 3`. */
function laneNumbers32(immediate: Value): Value {
  const factors = bytes16((i) => (i % 4 ? 0 : [64, 16, 4, 1][i / 4]));
  const shifted = simd(V128, 0xad, [v2(0xb5, splat32(immediate), factors), k32(6)]);
  return vand(
    shifted,
    bytes16((i) => (i % 4 ? 0 : 3)),
  );
}

function indexes32(immediate: Value): Value {
  const fours = v2(
    0xb5,
    laneNumbers32(immediate),
    bytes16(() => 4),
  );
  return v2(
    0xae,
    fours,
    bytes16((i) => i % 4),
  );
}

export const PSHUFD: Semantics = (s) => {
  const source = readAligned(s, 1);
  s.write(0, swizzle(source, indexes32(s.read(2))));
};

/** PSHUFLW and PSHUFHW: the other half stays. */
export const shuffleWords = (high: boolean): Semantics => {
  return (s) => {
    const source = isMmx(s) ? readHalf(s, 1) : readAligned(s, 1);
    const factors = bytes16((i) => (i % 2 ? 0 : [64, 16, 4, 1][(i / 2) % 4]));
    const shifted = simd(V128, 0x8d, [v2(0x95, splat16(s.read(2)), factors), k32(6)]);
    const numbers = vand(
      shifted,
      bytes16((i) => (i % 2 ? 0 : 3)),
    );
    const start = high ? 8 : 0;
    const indexes = v2(
      0x6e,
      v2(
        0x95,
        numbers,
        bytes16(() => 2),
      ),
      bytes16((i) => (i % 2) + start),
    );
    const half = bytes16((i) => (i >= 8 === high ? 255 : 0));
    const result = swizzle(source, bitSelect(indexes, IOTA, half));
    if (isMmx(s)) writeHalf(s, result);
    else s.write(0, result);
  };
};

export const SHUFPS: Semantics = (s) => {
  const b = readAligned(s, 1);
  const a = s.read(0);
  const indexes = s.keep(indexes32(s.read(2)));
  s.write(
    0,
    shuffle(swizzle(a, indexes), swizzle(b, indexes), [0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31]),
  );
};

export const SHUFPD: Semantics = (s) => {
  const b = readAligned(s, 1);
  const a = s.read(0);
  const immediate = s.read(2);
  const pick = (v: Value, bit: number) => select(ne(and(immediate, k64(bit)), k64(0)), lane64(v, 1), lane64(v, 0));
  s.write(0, simd(V128, 0x1e, [splat64(pick(a, 1)), pick(b, 2)], [1]));
};

/** Number of a word in the operand, from the immediate. */
const wordNumber = (s: Stage, mmx: boolean): Value => and(s.read(2), k64(mmx ? 3 : 7));

export const PEXTRW: Semantics = (s) => {
  const mmx = s.bytes(1) === 8;
  const source = mmx ? readHalf(s, 1) : s.read(1);
  if (mmx) useMmx(s);
  const at = splat8(wordNumber(s, mmx));
  const index = v2(
    0x6e,
    v2(0x6e, at, at),
    bytes16((i) => i % 2),
  );
  s.write(0, widen(simd(I32, 0x19, [swizzle(source, index)], [0])));
};

export const PINSRW: Semantics = (s) => {
  const word = s.read(1);
  const chosen = v2(
    0x2d,
    splat16(wordNumber(s, isMmx(s))),
    bytes16((i) => (i % 2 ? 0 : i / 2)),
  );
  if (isMmx(s)) writeHalf(s, bitSelect(splat16(word), readHalf(s, 0), chosen));
  else s.write(0, bitSelect(splat16(word), s.read(0), chosen));
};

export const mask = (opcode: number): Semantics => {
  return (s) => {
    const mmx = s.bytes(1) === 8;
    const source = mmx ? readHalf(s, 1) : s.read(1);
    if (mmx) useMmx(s);
    s.write(0, widen(simd(I32, opcode, [source])));
  };
};

/** High halves of products of words. */
export const highProducts = (low: number, high: number): Semantics =>
  packed((a, b) =>
    shuffle(v2(low, a, b), v2(high, a, b), [2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31]),
  );

/** Products of the even lanes of 4 bytes. */
export const PMULUDQ = packed((a, b) => {
  const even = (v: Value) => shuffle(v, v, [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
  return v2(0xde, even(a), even(b));
});

export const PSADBW = packed((a, b, s) => {
  const difference = vor(v2(0x73, a, b), v2(0x73, b, a));
  const fours = s.keep(v1(0x7f, v1(0x7d, difference)));
  const low = vand(
    fours,
    bytes16((i) => (i % 8 < 4 ? 255 : 0)),
  );
  return v2(0xce, low, simd(V128, 0xcd, [fours, k32(32)]));
});
