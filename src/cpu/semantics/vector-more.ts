/** SSE3, SSSE3, SSE4.1 and SSE4.2 on integers and whole lanes: what generated code can do by itself. */
import { and, eq, k32, k64, ne, or, select, shl, shrU, simd, type Value, widen } from '../expression.ts';
import type { Semantics, Stage } from '../stage.ts';
import { XMM } from '../state.ts';
import { I32, V128 } from '../wasm-encoder.ts';
import {
  bitSelect,
  bytes16,
  lane32,
  lane64,
  low64,
  packed,
  packedUnary,
  readAligned,
  shuffle,
  splat16,
  splat32,
  splat64,
  splat8,
  swizzle,
  v1,
  v2,
  vand,
  vandnot,
  vor,
  vxor,
  ZEROS,
} from './vector.ts';

const IOTA = bytes16((i) => i);
const isMmx = (s: Stage): boolean => s.bytes(0) === 8;

/** Two halves of MMX's size in one register. */
const joined = (s: Stage, low: Value, high: Value): Value => s.keep(simd(V128, 0x1e, [low, lane64(high, 0)], [1]));

export const PSHUFB = packed((a, b, s) => {
  const kept = isMmx(s) ? 0x87 : 0x8f;
  return swizzle(
    a,
    vand(
      b,
      bytes16(() => kept),
    ),
  );
});

export const absolute = (opcode: number): Semantics => packed((_, b) => v1(opcode, b));

/** PSIGN*: negated where the other is negative, 0 where it is 0. Opcodes of a lane's shift, subtraction, comparison. */
export const signed = (shift: number, subtract: number, equal: number, bits: number): Semantics =>
  packed((a, b, s) => {
    const negative = s.keep(simd(V128, shift, [b, k32(bits - 1)]));
    const changed = v2(subtract, vxor(a, negative), negative);
    return vandnot(changed, v2(equal, b, ZEROS));
  });

const everySecond = (bytes: number, from: number): number[] =>
  Array.from({ length: 16 }, (_, i) => Math.floor(i / bytes) * 2 * bytes + from * bytes + (i % bytes));

/** PHADD*, PHSUB*: neighbours of both operands. */
export const horizontal = (opcode: number, bytes: number): Semantics =>
  packed((a, b, s) => {
    const [first, second] = isMmx(s) ? [joined(s, a, b), ZEROS] : [a, b];
    return v2(opcode, shuffle(first, second, everySecond(bytes, 0)), shuffle(first, second, everySecond(bytes, 1)));
  });

/** Unsigned bytes of the first times signed ones of the second, in pairs. */
export const PMADDUBSW = packed((a, b) => {
  const low = vand(
    a,
    bytes16((i) => (i % 2 ? 0 : 255)),
  );
  const even = v2(0x95, low, simd(V128, 0x8c, [simd(V128, 0x8b, [b, k32(8)]), k32(8)]));
  const odd = v2(0x95, simd(V128, 0x8d, [a, k32(8)]), simd(V128, 0x8c, [b, k32(8)]));
  return v2(0x8f, even, odd);
});

/** WebAssembly's instruction saturates the one product that doesn't fit. */
export const PMULHRSW = packed((a, b) => {
  const lowest = bytes16((i) => (i % 2 ? 0x80 : 0));
  return vxor(v2(0x82, a, b), vand(v2(0x2d, a, lowest), v2(0x2d, b, lowest)));
});

/** Bytes from both operands as one, the second below. */
export const PALIGNR = packed((a, b, s) => {
  const index = s.keep(v2(0x70, IOTA, splat8(and(s.read(2), k64(255)))));
  if (isMmx(s)) return swizzle(joined(s, b, a), index);
  return vor(
    swizzle(b, index),
    swizzle(
      a,
      v2(
        0x71,
        index,
        bytes16(() => 16),
      ),
    ),
  );
});

/** PMOVSX*, PMOVZX*: widened once or several times. Operand 1 is as large as what is used. */
export const widened = (...opcodes: readonly number[]): Semantics => {
  return (s) =>
    s.write(
      0,
      opcodes.reduce((value, opcode) => v1(opcode, value), low64(s.read(1))),
    );
};

export const PMULDQ = packed((a, b) => {
  const even = (v: Value) => shuffle(v, v, [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
  return v2(0xdc, even(a), even(b));
});

/** ZF: no bit in common; CF: no bit of the second that the first hasn't. The other flags become 0. */
export const PTEST: Semantics = (s) => {
  const b = readAligned(s, 1);
  const a = s.read(0);
  const any = (value: Value) => s.keep(widen(simd(I32, 0x53, [value])));
  const common = any(vand(a, b));
  const carry = select(ne(any(vandnot(b, a)), k64(0)), k64(0), k64(3n << 62n));
  s.setFlags(common, s.keep(or(carry, widen(eq(common, k64(0))))));
};

/** By the signs of XMM0's lanes. */
export const blendBySign = (shift: number, bits: number): Semantics =>
  packed((a, b, s) => bitSelect(b, a, simd(V128, shift, [s.state(XMM, 16), k32(bits - 1)])));

/** Lanes whose bit is set in an immediate. */
const chosenLanes = (immediate: Value, bytes: number): Value => {
  const bits = bytes16((i) => (i % bytes === 0 ? 1 << (i / bytes) : 0));
  const splat = { 2: splat16, 4: splat32, 8: splat64 }[bytes] as (a: Value) => Value;
  return v2({ 2: 0x2d, 4: 0x37, 8: 0xd6 }[bytes] as number, vand(splat(immediate), bits), bits);
};

export const blendByImmediate = (bytes: number): Semantics =>
  packed((a, b, s) => bitSelect(b, a, chosenLanes(s.read(2), bytes)));

export const PEXTRB: Semantics = (s) => {
  const at = splat8(and(s.read(2), k64(15)));
  s.write(0, widen(simd(I32, 0x16, [swizzle(s.read(1), at)], [0])));
};

export const PEXTRW_MEMORY: Semantics = (s) => {
  const first = splat8(shl(and(s.read(2), k64(7)), k64(1)));
  const index = v2(
    0x6e,
    first,
    bytes16((i) => i % 2),
  );
  s.write(0, widen(simd(I32, 0x19, [swizzle(s.read(1), index)], [0])));
};

/** All lanes become that of a number (of 4 bytes each). */
function broadcast32(source: Value, lane: Value): Value {
  const index = v2(
    0x6e,
    splat8(shl(lane, k64(2))),
    bytes16((i) => i % 4),
  );
  return swizzle(source, index);
}

/** PEXTRD, PEXTRQ, EXTRACTPS, by the size of operand 0. */
export const PEXTRD: Semantics = (s) => {
  const source = s.read(1);
  const immediate = s.read(2);
  if (s.bytes(0) === 4) s.write(0, lane32(broadcast32(source, and(immediate, k64(3))), 0));
  else s.write(0, select(ne(and(immediate, k64(1)), k64(0)), lane64(source, 1), lane64(source, 0)));
};

const lane = (number: Value, bytes: number): Value => {
  const numbers = bytes16((i) => (i % bytes === 0 ? i / bytes : 0));
  if (bytes === 1) return v2(0x23, splat8(number), numbers);
  return bytes === 4 ? v2(0x37, splat32(number), numbers) : v2(0xd6, splat64(number), numbers);
};

export const PINSRB: Semantics = (s) => {
  const value = s.read(1);
  s.write(0, bitSelect(splat8(value), s.read(0), lane(and(s.read(2), k64(15)), 1)));
};

/** PINSRD, PINSRQ, by the size of operand 1. */
export const PINSRD: Semantics = (s) => {
  const bytes = s.bytes(1);
  const value = s.read(1);
  const splat = bytes === 4 ? splat32(value) : splat64(value);
  s.write(0, bitSelect(splat, s.read(0), lane(and(s.read(2), k64(bytes === 4 ? 3 : 1)), bytes)));
};

export const INSERTPS: Semantics = (s) => {
  const source = s.read(1);
  const immediate = s.read(2);
  const value = s.isMemory(1) ? splat32(source) : broadcast32(source, and(shrU(immediate, k64(6)), k64(3)));
  const inserted = bitSelect(value, s.read(0), lane(and(shrU(immediate, k64(4)), k64(3)), 4));
  s.write(0, vandnot(inserted, chosenLanes(immediate, 4)));
};

export const shuffled = (lanes: readonly number[]): Semantics => packedUnary((b) => shuffle(b, b, lanes));
export const MOVDDUP: Semantics = (s) => s.write(0, splat64(s.read(1)));
