/**
 * Arithmetic of SSE and SSE2. Generated code does it with the host's, and looks whether that can have been all: MXCSR has
 * its usual masks and rounding and says "inexact" already, no operand is denormal, no result strange. Otherwise
 * `float/assist.ts` does the instruction.
 */
import {
  and,
  and32,
  bitsF32,
  bitsF64,
  eq,
  f32Bits,
  f64Bits,
  isZero32,
  k64,
  ltU,
  or32,
  plain,
  select,
  shl,
  simd,
  sub,
  type Value,
  widen,
  wrap,
} from '../expression.ts';
import { type Element, type FloatOperation, floatForm } from '../float/forms.ts';
import type { Semantics, Stage } from '../stage.ts';
import { MXCSR } from '../state.ts';
import { F32, F64, I32 } from '../wasm-encoder.ts';
import { bytes16, readAligned, v1, v2, vand } from './vector.ts';

/** Bits as a number: 4 bytes are a float, 8 a double. */
export const number = (bits: Value, bytes: number): Value => (bytes === 4 ? bitsF32(wrap(bits)) : bitsF64(bits));
export const bitsOf = (value: Value): Value => (value.type === F32 ? widen(f32Bits(value)) : f64Bits(value));
export const elementOf = (bytes: number): Element => (bytes === 4 ? 's' : 'd');

/** Nothing that MXCSR says can change a result, and "inexact" need not be noted any more. */
export const usualMxcsr = (s: Stage): Value => eq(and(s.state(MXCSR, 4), k64(0xffe0)), k64(0x1fa0));

/** The bits without the sign, moved up to the top. */
const magnitude = (bits: Value, bytes: number): Value => shl(bits, k64(bytes === 4 ? 33 : 1));
const exponentStep = (bytes: number): bigint => 1n << (bytes === 4 ? 56n : 53n);
const exponents = (bytes: number): bigint => (bytes === 4 ? 255n : 2047n);

export function isDenormal(bits: Value, bytes: number): Value {
  return ltU(sub(magnitude(bits, bytes), k64(1)), k64(exponentStep(bytes) - 1n));
}

export function isFinite(bits: Value, bytes: number): Value {
  return ltU(magnitude(bits, bytes), k64(exponents(bytes) * exponentStep(bytes)));
}

/** Neither zero nor denormal, infinite or NaN. */
export function isNormal(bits: Value, bytes: number): Value {
  const step = exponentStep(bytes);
  return ltU(sub(magnitude(bits, bytes), k64(step)), k64((exponents(bytes) - 1n) * step));
}

const neither = (a: Value, b: Value): Value => isZero32(or32(a, b));

/** The same for whole registers: lanes without their signs. */
const ABSOLUTE_32 = bytes16((i) => (i % 4 === 3 ? 0x7f : 0xff));
const ABSOLUTE_64 = bytes16((i) => (i % 8 === 7 ? 0x7f : 0xff));
const SMALLEST_32 = bytes16((i) => [0, 0, 0x80, 0][i % 4]);
const SMALLEST_64 = bytes16((i) => [0, 0, 0, 0, 0, 0, 0x10, 0][i % 8]);
const INFINITE_32 = bytes16((i) => [0, 0, 0x80, 0x7f][i % 4]);
const INFINITE_64 = bytes16((i) => [0, 0, 0, 0, 0, 0, 0xf0, 0x7f][i % 8]);

/** Opcodes and constants of a packed type. */
interface Lanes {
  readonly count: number;
  readonly element: Element;
  readonly equal: number;
  readonly less: number;
  readonly lessEqual: number;
  readonly all: number;
  readonly absolute: Value;
  readonly smallest: Value;
  readonly infinite: Value;
}

export const SINGLES: Lanes = {
  count: 4,
  element: 's',
  equal: 0x41,
  less: 0x43,
  lessEqual: 0x45,
  all: 0xa3,
  absolute: ABSOLUTE_32,
  smallest: SMALLEST_32,
  infinite: INFINITE_32,
};
export const DOUBLES: Lanes = {
  count: 2,
  element: 'd',
  equal: 0x47,
  less: 0x49,
  lessEqual: 0x4b,
  all: 0xc3,
  absolute: ABSOLUTE_64,
  smallest: SMALLEST_64,
  infinite: INFINITE_64,
};

const ZEROS = bytes16(() => 0);
const any = (a: Value): Value => simd(I32, 0x53, [a]);
export const allLanes = (t: Lanes, a: Value): Value => simd(I32, t.all, [a]);

export function anyDenormal(s: Stage, t: Lanes, a: Value): Value {
  const size = s.keep(vand(a, t.absolute));
  return any(vand(v2(t.less, size, t.smallest), v2(t.less, ZEROS, size)));
}

function allFinite(s: Stage, t: Lanes, a: Value, normal: boolean): Value {
  const size = s.keep(vand(a, t.absolute));
  const below = v2(t.less, size, t.infinite);
  return allLanes(t, normal ? vand(below, v2(t.lessEqual, t.smallest, size)) : below);
}

/** destination = destination op source, upper lanes kept. Opcodes for float and double; `normal`: zeros are suspicious. */
export const arithmetic = (operation: FloatOperation, single: number, double: number, normal: boolean): Semantics => {
  const forms = { 4: floatForm(operation, 's', 's', 1), 8: floatForm(operation, 'd', 'd', 1) };
  return (s) => {
    const bytes = s.bytes(1);
    const b = s.read(1);
    const a = s.read(0);
    const opcode = bytes === 4 ? single : double;
    const result = s.keep(bitsOf(plain(bytes === 4 ? F32 : F64, opcode, number(a, bytes), number(b, bytes))));
    const good = normal ? isNormal(result, bytes) : isFinite(result, bytes);
    const clean = neither(isDenormal(a, bytes), isDenormal(b, bytes));
    s.when(
      and32(and32(usualMxcsr(s), clean), good),
      () => s.write(0, result),
      () => s.assist(forms[bytes as 4 | 8]),
    );
  };
};

export const packedArithmetic = (operation: FloatOperation, t: Lanes, opcode: number, normal: boolean): Semantics => {
  const form = floatForm(operation, t.element, t.element, t.count);
  return (s) => {
    const b = readAligned(s, 1);
    const a = s.read(0);
    const result = s.keep(v2(opcode, a, b));
    const clean = neither(anyDenormal(s, t, a), anyDenormal(s, t, b));
    s.when(
      and32(and32(usualMxcsr(s), clean), allFinite(s, t, result, normal)),
      () => s.write(0, result),
      () => s.assist(form),
    );
  };
};

const SQUARE_ROOTS = { 4: floatForm('sqrt', 's', 's', 1), 8: floatForm('sqrt', 'd', 'd', 1) };

export const SQRT: Semantics = (s) => {
  const bytes = s.bytes(1) as 4 | 8;
  const b = s.read(1);
  const result = s.keep(bitsOf(plain(bytes === 4 ? F32 : F64, bytes === 4 ? 0x91 : 0x9f, number(b, bytes))));
  const clean = isZero32(isDenormal(b, bytes));
  s.when(
    and32(and32(usualMxcsr(s), clean), isFinite(result, bytes)),
    () => s.write(0, result),
    () => s.assist(SQUARE_ROOTS[bytes]),
  );
};

export const packedSquareRoot = (t: Lanes, opcode: number): Semantics => {
  const form = floatForm('sqrt', t.element, t.element, t.count);
  return (s) => {
    const b = readAligned(s, 1);
    const result = s.keep(v1(opcode, b));
    const clean = isZero32(anyDenormal(s, t, b));
    s.when(
      and32(and32(usualMxcsr(s), clean), allFinite(s, t, result, false)),
      () => s.write(0, result),
      () => s.assist(form),
    );
  };
};

/** Ordinary operands of a comparison: neither NaN nor denormal. Then MXCSR doesn't matter. */
export function comparable(a: Value, b: Value, bytes: number): Value {
  const equal = bytes === 4 ? 0x5b : 0x61;
  const self = (bits: Value) => plain(I32, equal, number(bits, bytes), number(bits, bytes));
  return and32(and32(self(a), self(b)), neither(isDenormal(a, bytes), isDenormal(b, bytes)));
}

export function comparableLanes(s: Stage, t: Lanes, a: Value, b: Value): Value {
  const ordered = allLanes(t, vand(v2(t.equal, a, a), v2(t.equal, b, b)));
  return and32(ordered, isZero32(or32(anyDenormal(s, t, a), anyDenormal(s, t, b))));
}

/** MIN and MAX give the second operand unless the first is smaller (larger): so with NaN, so with zeros. */
export const extreme = (operation: 'min' | 'max', single: number, double: number): Semantics => {
  const forms = { 4: floatForm(operation, 's', 's', 1), 8: floatForm(operation, 'd', 'd', 1) };
  return (s) => {
    const bytes = s.bytes(1) as 4 | 8;
    const b = s.read(1);
    const a = s.read(0);
    const first = plain(I32, bytes === 4 ? single : double, number(a, bytes), number(b, bytes));
    s.when(
      comparable(a, b, bytes),
      () => s.write(0, select(first, a, b)),
      () => s.assist(forms[bytes]),
    );
  };
};

/** PMIN and PMAX of WebAssembly are those of SSE with the operands swapped. */
export const packedExtreme = (operation: 'min' | 'max', t: Lanes, opcode: number): Semantics => {
  const form = floatForm(operation, t.element, t.element, t.count);
  return (s) => {
    const b = readAligned(s, 1);
    const a = s.read(0);
    s.when(
      comparableLanes(s, t, a, b),
      () => s.write(0, v2(opcode, b, a)),
      () => s.assist(form),
    );
  };
};
