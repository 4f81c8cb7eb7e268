/** Reading and writing the state from TypeScript: 32-bit words, and pairs of them. */
import {
  CPL,
  CR0,
  CS,
  EFER,
  FLAG_CARRY,
  FLAG_RESULT,
  FLAGS,
  type Layout,
  NO_EXCEPTION,
  PENDING_ERROR,
  PENDING_VECTOR,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENTS,
} from './state.ts';

const CODE_ATTRIBUTES = SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES;
/** Flags that are lazy: OF SF ZF AF PF CF. */
export const ARITHMETIC = 0x8d5;

export class CpuState {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly layout: Layout;
  readonly #base: number;

  constructor(buffer: ArrayBuffer, layout: Layout) {
    this.words = new Int32Array(buffer);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.layout = layout;
    this.#base = layout.state >>> 2;
  }

  get(offset: number): number {
    return this.words[this.#base + (offset >>> 2)];
  }

  set(offset: number, value: number): void {
    this.words[this.#base + (offset >>> 2)] = value;
  }

  /** High word of the 64 bits at `offset`. */
  high(offset: number): number {
    return this.words[this.#base + (offset >>> 2) + 1];
  }

  setPair(offset: number, lo: number, hi: number): void {
    const at = this.#base + (offset >>> 2);
    this.words[at] = lo;
    this.words[at + 1] = hi;
  }

  copyPair(to: number, from: number): void {
    this.setPair(to, this.get(from), this.high(from));
  }

  big(offset: number): bigint {
    return this.view.getBigUint64(this.layout.state + offset, true);
  }

  setBig(offset: number, value: bigint): void {
    this.view.setBigUint64(this.layout.state + offset, BigInt.asUintN(64, value), true);
  }

  get cpl(): number {
    return this.get(CPL);
  }

  get longMode(): boolean {
    return (this.get(EFER) & 0x400) !== 0;
  }

  get protectedMode(): boolean {
    return (this.get(CR0) & 1) !== 0;
  }

  /** 64-bit mode: no segments to speak of. */
  get code64(): boolean {
    return this.longMode && (this.get(CODE_ATTRIBUTES) & (1 << 21)) !== 0;
  }

  get virtual8086(): boolean {
    return (this.get(FLAGS) & 0x20000) !== 0;
  }

  /** Are segments addresses, not descriptors? */
  get realSegments(): boolean {
    return !this.protectedMode || this.virtual8086;
  }

  /** Marks an exception for the current instruction. `error` is used by the vectors that have an error code. */
  raise(vector: number, error = 0): void {
    this.set(PENDING_VECTOR, vector);
    this.set(PENDING_ERROR, error);
  }

  get raised(): boolean {
    return this.get(PENDING_VECTOR) !== NO_EXCEPTION;
  }

  /** RFLAGS, low word. */
  get rflags(): number {
    const resultLo = this.get(FLAG_RESULT);
    const resultHi = this.high(FLAG_RESULT);
    const carryLo = this.get(FLAG_CARRY);
    const carryHi = this.high(FLAG_CARRY);
    const cf = carryHi >>> 31;
    const of = (carryHi >>> 31) ^ ((carryHi >>> 30) & 1);
    const zf = (resultLo | resultHi) === 0 ? 1 : 0;
    const sf = (resultHi >>> 31) ^ ((carryLo >>> 1) & 1);
    let parity = resultLo & 255;
    parity ^= parity >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    const pf = (parity & 1) ^ 1 ^ (carryLo & 1);
    const af = (carryLo >>> 3) & 1;
    return this.get(FLAGS) | 2 | cf | (pf << 2) | (af << 4) | (zf << 6) | (sf << 7) | (of << 11);
  }

  set rflags(value: number) {
    const bit = (n: number) => (value >>> n) & 1;
    const zf = bit(6);
    this.setPair(FLAG_RESULT, zf ^ 1, 0);
    const low = (bit(2) ^ zf) | (bit(7) << 1) | (bit(4) << 3);
    this.setPair(FLAG_CARRY, low, (bit(0) << 31) | ((bit(0) ^ bit(11)) << 30));
    this.set(FLAGS, value & ~ARITHMETIC & ~2);
  }
}
