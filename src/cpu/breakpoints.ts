/**
 * What DR0 to DR3 and DR7 ask for. Instructions of a page with a breakpoint are done one by one; a page with watched data is never in
 * the software TLB.
 */
import type { CpuState } from './cpu-state.ts';
import { CR4, DR0, DR7 } from './state.ts';

const CR4_DE = 1 << 3;
const KIND_CODE = 0;
const KIND_WRITE = 1;
const KIND_PORT = 2;
const KIND_DATA = 3;
/** By the two bits of LEN. */
const LENGTHS = [1, 2, 8, 4];

interface Breakpoint {
  readonly bit: number;
  readonly kind: number;
  readonly bytes: number;
  readonly lo: number;
  readonly hi: number;
}

export class Breakpoints {
  #list: readonly Breakpoint[] = [];
  /** Some breakpoint is on, of whatever kind. */
  any = false;
  hasCode = false;
  hasData = false;
  hasPort = false;

  /** To be called when a debug register or CR4.DE changed. */
  update(state: CpuState): void {
    const control = state.get(DR7);
    const ports = (state.get(CR4) & CR4_DE) !== 0;
    const list: Breakpoint[] = [];
    for (let n = 0; n < 4; n++) {
      if (!((control >>> (n * 2)) & 3)) continue;
      const kind = (control >>> (16 + n * 4)) & 3;
      if (kind === KIND_PORT && !ports) continue;
      const bytes = kind === KIND_CODE ? 1 : LENGTHS[(control >>> (18 + n * 4)) & 3];
      const lo = state.get(DR0 + n * 8) & -bytes;
      list.push({ bit: 1 << n, kind, bytes, lo, hi: state.high(DR0 + n * 8) });
    }
    this.#list = list;
    this.any = list.length > 0;
    this.hasCode = list.some(({ kind }) => kind === KIND_CODE);
    this.hasData = list.some(({ kind }) => kind === KIND_WRITE || kind === KIND_DATA);
    this.hasPort = list.some(({ kind }) => kind === KIND_PORT);
  }

  /** Has the page of an address a breakpoint on code (or on data)? */
  inPage(lo: number, hi: number, code: boolean): boolean {
    return this.#list.some(
      (b) => (b.kind === KIND_CODE) === code && b.kind !== KIND_PORT && b.lo >>> 12 === lo >>> 12 && b.hi === hi,
    );
  }

  /** Bits of DR6 for the instruction at an address. */
  atCode(lo: number, hi: number): number {
    let bits = 0;
    for (const b of this.#list) if (b.kind === KIND_CODE && b.lo === lo && b.hi === hi) bits |= b.bit;
    return bits;
  }

  /** Bits of DR6 for an access to data. */
  atData(lo: number, hi: number, bytes: number, write: boolean): number {
    let bits = 0;
    for (const b of this.#list) {
      if (b.kind !== KIND_DATA && !(b.kind === KIND_WRITE && write)) continue;
      // Both lie near each other if they touch at all: a difference of 32 bits tells.
      const distance = (b.lo - lo) | 0;
      if (distance < bytes && -distance < b.bytes && b.hi === hi) bits |= b.bit;
    }
    return bits;
  }

  atPort(port: number, bytes: number): number {
    let bits = 0;
    for (const b of this.#list) {
      if (b.kind === KIND_PORT && b.lo < port + bytes && port < b.lo + b.bytes) bits |= b.bit;
    }
    return bits;
  }
}
