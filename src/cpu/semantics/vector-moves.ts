/** Moves of SSE and SSE2 between parts of registers. */
import { simd } from '../expression.ts';
import type { Semantics } from '../stage.ts';
import { V128 } from '../wasm-encoder.ts';
import { lane64, low64, useMmx } from './vector.ts';

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

/** Moves to, from and between MMX registers. Shorter sources are zero-extended. */
export const MOVE_MMX: Semantics = (s) => {
  const value = s.read(1);
  if (s.isMemory(0)) {
    s.write(0, value);
    useMmx(s);
    return;
  }
  useMmx(s);
  s.write(0, value);
};

/** MOVQ2DQ. */
export const MMX_TO_XMM: Semantics = (s) => {
  const value = s.read(1);
  useMmx(s);
  s.write(0, low64(value));
};
