/**
 * SSE and SSE2 on single numbers, and conversions. Rounding is to nearest whatever MXCSR says, and no exception flags are
 * set in it. Operations on NaN give what the host's processor gives.
 */
import {
  and32,
  bitsF32,
  bitsF64,
  f32Bits,
  f64Bits,
  isZero32,
  k32,
  k64,
  numeric,
  plain,
  raw,
  select,
  signExtend,
  simd,
  type Value,
  widen,
  wrap,
  zeroExtend,
} from '../expression.ts';
import { setCompareFlags } from '../flags.ts';
import type { Semantics } from '../stage.ts';
import { F32, F64, I32, I64, V128 } from '../wasm-encoder.ts';
import { bitSelect, bytes16, lane64, low64, packedUnary, predicate, shuffle, v1, v2 } from './vector.ts';

/** Operand or bits as a number: 4 bytes are a float, 8 a double. */
const number = (bits: Value, bytes: number): Value => (bytes === 4 ? bitsF32(wrap(bits)) : bitsF64(bits));
const bitsOf = (value: Value): Value => (value.type === F32 ? widen(f32Bits(value)) : f64Bits(value));

/** destination = destination op source, upper lanes kept. The opcodes for float and double. */
export const arithmetic = (single: number, double: number): Semantics => {
  return (s) => {
    const bytes = s.bytes(1);
    const b = number(s.read(1), bytes);
    const a = number(s.read(0), bytes);
    s.write(0, bitsOf(plain(bytes === 4 ? F32 : F64, bytes === 4 ? single : double, a, b)));
  };
};

/** MIN and MAX give the second operand unless the first is smaller (larger): so with NaN, so with zeros. */
export const extreme = (single: number, double: number): Semantics => {
  return (s) => {
    const bytes = s.bytes(1);
    const bBits = s.read(1);
    const aBits = s.read(0);
    const first = plain(I32, bytes === 4 ? single : double, number(aBits, bytes), number(bBits, bytes));
    s.write(0, select(first, aBits, bBits));
  };
};

export const SQRT: Semantics = (s) => {
  const bytes = s.bytes(1);
  s.write(0, bitsOf(plain(bytes === 4 ? F32 : F64, bytes === 4 ? 0x91 : 0x9f, number(s.read(1), bytes))));
};

/** RCPSS, RSQRTSS: the hardware's have 12 bits, these have all. */
export const RCPSS: Semantics = (s) => s.write(0, bitsOf(plain(F32, 0x95, ONE_F32, number(s.read(1), 4))));
export const RSQRTSS: Semantics = (s) => {
  s.write(0, bitsOf(plain(F32, 0x95, ONE_F32, plain(F32, 0x91, number(s.read(1), 4)))));
};
const ONE_F32 = bitsF32(k32(0x3f800000));
const ONES_F32 = bytes16((i) => [0, 0, 0x80, 0x3f][i % 4]);
export const RCPPS = packedUnary((b) => v2(0xe7, ONES_F32, b));
export const RSQRTPS = packedUnary((b) => v2(0xe7, ONES_F32, v1(0xe3, b)));

export const compareScalar: Semantics = (s) => {
  const bytes = s.bytes(1);
  const b = low64(s.read(1));
  const a = low64(s.read(0));
  const [equal, less, lessEqual] = bytes === 4 ? [0x41, 0x43, 0x45] : [0x47, 0x49, 0x4b];
  s.write(0, zeroExtend(lane64(predicate(s, s.keep(a), s.keep(b), s.read(2), equal, less, lessEqual), 0), bytes));
};

export const COMIS: Semantics = (s) => {
  const bytes = s.bytes(1);
  const b = s.keep(number(s.read(1), bytes));
  const a = s.keep(number(s.read(0), bytes));
  const [equal, less] = bytes === 4 ? [0x5b, 0x5d] : [0x61, 0x63];
  const ordered = and32(plain(I32, equal, a, a), plain(I32, equal, b, b));
  setCompareFlags(s, s.keep(plain(I32, less, a, b)), s.keep(plain(I32, equal, a, b)), s.keep(isZero32(ordered)));
};

export const FROM_INTEGER: Semantics = (s) => {
  const wide = signExtend(s.read(1), s.bytes(1));
  s.write(0, bitsOf(s.bytes(0) === 4 ? plain(F32, 0xb4, wide) : plain(F64, 0xb9, wide)));
};

/** What a conversion to an integer gives when the number doesn't fit. */
const indefinite = (bytes: number): Value => k64(bytes === 8 ? 1n << 63n : 0x80000000n);

export const toInteger = (truncate: boolean): Semantics => {
  return (s) => {
    const from = s.bytes(1);
    const to = s.bytes(0);
    const source = number(s.read(1), from);
    const wide = s.keep(from === 4 ? plain(F64, 0xbb, source) : source);
    const rounded = s.keep(truncate ? plain(F64, 0x9d, wide) : plain(F64, 0x9e, wide));
    const limit = to === 8 ? 2 ** 63 : 2 ** 31;
    const fits = and32(plain(I32, 0x63, rounded, constantF64(limit)), plain(I32, 0x66, rounded, constantF64(-limit)));
    s.write(0, zeroExtend(select(fits, numeric(I64, 6, rounded), indefinite(to)), to));
  };
};

export function constantF64(value: number): Value {
  const bytes = new Uint8Array(new Float64Array([value]).buffer);
  return raw(F64, [0x44, ...bytes]);
}

export const CVTSS2SD: Semantics = (s) => s.write(0, bitsOf(plain(F64, 0xbb, number(s.read(1), 4))));
export const CVTSD2SS: Semantics = (s) => s.write(0, bitsOf(plain(F32, 0xb6, number(s.read(1), 8))));

export const CVTPS2PD: Semantics = (s) => s.write(0, v1(0x5f, low64(s.read(1))));
export const CVTPD2PS = packedUnary((b) => v1(0x5e, b));
export const CVTDQ2PS = packedUnary((b) => v1(0xfa, b));
export const CVTDQ2PD: Semantics = (s) => s.write(0, v1(0xfe, low64(s.read(1))));

const MINIMUM = bytes16((i) => (i % 4 === 3 ? 0x80 : 0));
/** 2^31 in each lane. */
const LIMIT_F32 = bytes16((i) => [0, 0, 0, 0x4f][i % 4]);
const LIMIT_F64 = bytes16((i) => [0, 0, 0, 0, 0, 0, 0xe0, 0x41][i % 8]);

/** Lanes that are too large or NaN become the minimum; saturation does it for those too small. */
export const toIntegers = (truncate: boolean): Semantics =>
  packedUnary((b, s) => {
    const rounded = s.keep(truncate ? b : v1(0x6a, b));
    return bitSelect(v1(0xf8, rounded), MINIMUM, v2(0x43, rounded, LIMIT_F32));
  });

export const doublesToIntegers = (truncate: boolean): Semantics =>
  packedUnary((b, s) => {
    const rounded = s.keep(truncate ? b : v1(0x94, b));
    const fits = v2(0x49, rounded, LIMIT_F64);
    const narrow = shuffle(
      fits,
      bytes16(() => 255),
      [0, 1, 2, 3, 8, 9, 10, 11, 16, 16, 16, 16, 16, 16, 16, 16],
    );
    return bitSelect(v1(0xfc, rounded), MINIMUM, narrow);
  });

/** MOVSS and MOVSD: from memory the rest is cleared, from a register it stays. */
export const MOVE_SCALAR: Semantics = (s) => {
  if (s.isMemory(1)) s.write(0, low64(s.read(1)));
  else s.writeLow(0, s.read(1), s.bytes(1));
};

export const STORE_LOW: Semantics = (s) => s.write(0, s.read(1));

/** MOVD and MOVQ into a register: the rest is cleared. */
export const MOVE_CLEAR: Semantics = (s) => s.write(0, low64(s.read(1)));

/** MOVHPS and its like: the high half from an i64, or out of it. */
export const LOAD_HIGH: Semantics = (s) => {
  const high = s.read(1);
  s.write(0, simd(V128, 0x1e, [s.read(0), high], [1]));
};
export const STORE_HIGH: Semantics = (s) => s.write(0, lane64(s.read(1), 1));
export const MOVHLPS: Semantics = (s) => {
  const source = s.read(1);
  s.write(0, simd(V128, 0x1e, [s.read(0), lane64(source, 1)], [0]));
};
export const MOVLHPS: Semantics = (s) => {
  const source = s.read(1);
  s.write(0, simd(V128, 0x1e, [s.read(0), lane64(source, 0)], [1]));
};
