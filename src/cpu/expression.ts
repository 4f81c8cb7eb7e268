/**
 * Expressions of generated code: WebAssembly instructions that leave one value. Constructors fold constants, so that a
 * stage that knows an operand gets the shorter code without a word in the instruction's description.
 *
 * An expression has no side effects and is evaluated where it is used, each time it is used. What reads the CPU's state is
 * put into a local at once (`Stage.keep`), so that the order of descriptions is the order of reads.
 */
import { append, type Code, F32, F64, I32, I64, sleb, uleb, V128 } from './wasm-encoder.ts';

export interface Value {
  readonly type: number;
  readonly code: Code;
  /** Known value of an i32 or i64, as a signed number of that width. */
  readonly known?: bigint;
}

export function k64(value: number | bigint): Value {
  const known = BigInt.asIntN(64, BigInt(value));
  return { type: I64, code: [0x42, ...sleb(known)], known };
}

export function k32(value: number): Value {
  const known = BigInt(value | 0);
  return { type: I32, code: [0x41, ...sleb(known)], known };
}

export function concat(...parts: readonly Code[]): number[] {
  const out: number[] = [];
  for (const part of parts) append(out, part);
  return out;
}

export function raw(type: number, ...parts: readonly Code[]): Value {
  return { type, code: concat(...parts) };
}

type Binary = (a: Value, b: Value) => Value;
type Unary = (a: Value) => Value;
type Fold = (a: bigint, b: bigint) => bigint;

function binary(argument: number, result: number, opcode: number, fold?: Fold, rightIdentity?: bigint): Binary {
  return (a, b) => {
    if (a.type !== argument || b.type !== argument) throw new Error(`types of opcode ${opcode.toString(16)}`);
    if (fold && a.known !== undefined && b.known !== undefined) {
      const value = fold(a.known, b.known);
      return result === I64 ? k64(value) : k32(Number(BigInt.asIntN(32, value)));
    }
    if (rightIdentity !== undefined && b.known === rightIdentity) return a;
    return raw(result, a.code, b.code, [opcode]);
  };
}

function unary(argument: number, result: number, opcode: readonly number[], fold?: (a: bigint) => bigint): Unary {
  return (a) => {
    if (a.type !== argument) throw new Error(`type of opcode ${opcode.join()}`);
    if (fold && a.known !== undefined) {
      return result === I64 ? k64(fold(a.known)) : k32(Number(BigInt.asIntN(32, fold(a.known))));
    }
    return raw(result, a.code, opcode);
  };
}

const u64 = (a: bigint) => BigInt.asUintN(64, a);
const bool = (a: boolean) => (a ? 1n : 0n);

// i64
export const add = binary(I64, I64, 0x7c, (a, b) => a + b, 0n);
export const sub = binary(I64, I64, 0x7d, (a, b) => a - b, 0n);
export const mul = binary(I64, I64, 0x7e, (a, b) => a * b, 1n);
export const divS = binary(I64, I64, 0x7f);
export const divU = binary(I64, I64, 0x80);
export const remS = binary(I64, I64, 0x81);
export const remU = binary(I64, I64, 0x82);
export const and = binary(I64, I64, 0x83, (a, b) => a & b, -1n);
export const or = binary(I64, I64, 0x84, (a, b) => a | b, 0n);
export const xor = binary(I64, I64, 0x85, (a, b) => a ^ b, 0n);
export const shl = binary(I64, I64, 0x86, (a, b) => a << (b & 63n), 0n);
export const shrS = binary(I64, I64, 0x87, (a, b) => a >> (b & 63n), 0n);
export const shrU = binary(I64, I64, 0x88, (a, b) => u64(a) >> (b & 63n), 0n);
export const rotl = binary(I64, I64, 0x89);
export const rotr = binary(I64, I64, 0x8a);
export const clz = unary(I64, I64, [0x79]);
export const ctz = unary(I64, I64, [0x7a]);
export const popcnt = unary(I64, I64, [0x7b]);
export const isZero = unary(I64, I32, [0x50], (a) => bool(a === 0n));
export const eq = binary(I64, I32, 0x51, (a, b) => bool(a === b));
export const ne = binary(I64, I32, 0x52, (a, b) => bool(a !== b));
export const ltS = binary(I64, I32, 0x53, (a, b) => bool(a < b));
export const ltU = binary(I64, I32, 0x54, (a, b) => bool(u64(a) < u64(b)));
export const gtS = binary(I64, I32, 0x55, (a, b) => bool(a > b));
export const gtU = binary(I64, I32, 0x56, (a, b) => bool(u64(a) > u64(b)));
export const leU = binary(I64, I32, 0x58, (a, b) => bool(u64(a) <= u64(b)));
export const geU = binary(I64, I32, 0x5a, (a, b) => bool(u64(a) >= u64(b)));
const extend8 = unary(I64, I64, [0xc2], (a) => BigInt.asIntN(8, a));
const extend16 = unary(I64, I64, [0xc3], (a) => BigInt.asIntN(16, a));
const extend32 = unary(I64, I64, [0xc4], (a) => BigInt.asIntN(32, a));

// i32: addresses, conditions
export const add32 = binary(I32, I32, 0x6a, (a, b) => a + b, 0n);
export const sub32 = binary(I32, I32, 0x6b, (a, b) => a - b, 0n);
export const and32 = binary(I32, I32, 0x71, (a, b) => a & b, -1n);
export const or32 = binary(I32, I32, 0x72, (a, b) => a | b, 0n);
export const xor32 = binary(I32, I32, 0x73, (a, b) => a ^ b, 0n);
export const shl32 = binary(I32, I32, 0x74, (a, b) => a << (b & 31n), 0n);
export const eq32 = binary(I32, I32, 0x46, (a, b) => bool(a === b));
export const geU32 = binary(I32, I32, 0x4f);
export const isZero32 = unary(I32, I32, [0x45], (a) => bool(a === 0n));
export const popcnt32 = unary(I32, I32, [0x69]);

export const wrap = unary(I64, I32, [0xa7], (a) => a);
/** An i32, seen as unsigned, as an i64. A condition becomes 0 or 1. */
export const widen = unary(I32, I64, [0xad], (a) => BigInt.asUintN(32, a));
export const widenS = unary(I32, I64, [0xac], (a) => a);

/** Sign-extends the low `bytes` bytes. */
export function signExtend(a: Value, bytes: number): Value {
  return bytes === 1 ? extend8(a) : bytes === 2 ? extend16(a) : bytes === 4 ? extend32(a) : a;
}

/** Clears all but the low `bytes` bytes. */
export function zeroExtend(a: Value, bytes: number): Value {
  return bytes === 8 ? a : and(a, k64((1n << BigInt(bytes * 8)) - 1n));
}

export const not = (a: Value): Value => xor(a, k64(-1));
export const negate = (a: Value): Value => sub(k64(0), a);
export const isNegative = (a: Value): Value => ltS(a, k64(0));
/** Bit `bit` as 0 or 1. */
export const bitOf = (a: Value, bit: number): Value => and(shrU(a, k64(bit)), k64(1));

/** `condition ? a : b`, both evaluated. */
export function select(condition: Value, a: Value, b: Value): Value {
  if (condition.known !== undefined) return condition.known ? a : b;
  return raw(a.type, a.code, b.code, condition.code, [0x1b]);
}

// Floating point
export const f64Bits = unary(F64, I64, [0xbd]);
export const f32Bits = unary(F32, I32, [0xbc]);
export const bitsF64 = unary(I64, F64, [0xbf]);
export const bitsF32 = unary(I32, F32, [0xbe]);

/** Any instruction with one-byte opcode over values of any type. */
export function plain(result: number, opcode: number, ...args: readonly Value[]): Value {
  return raw(result, ...args.map((a) => a.code), [opcode]);
}

/** An instruction of the 0xFC group (saturating conversions). */
export function numeric(result: number, opcode: number, ...args: readonly Value[]): Value {
  return raw(result, ...args.map((a) => a.code), [0xfc, ...uleb(opcode)]);
}

/** A vector instruction, with its immediate bytes (lane numbers). */
export function simd(result: number, opcode: number, args: readonly Value[], immediates: Code = []): Value {
  return raw(result, ...args.map((a) => a.code), [0xfd, ...uleb(opcode)], immediates);
}

/** A constant of 16 bytes, lowest first. */
export function k128(bytes: Code): Value {
  return raw(V128, [0xfd, 12], bytes);
}
