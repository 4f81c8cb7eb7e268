/**
 * What DR0 to DR3 and DR7 ask for, and beside it what a debugger outside of the guest does, which the guest can't see. Instructions of
 * a page with a breakpoint are done one by one; a page with watched data is never in the software TLB.
 */
import type { CpuState } from './cpu-state.ts';
import { CR4, DR0, DR7 } from './state.ts';

const CR4_DE = 1 << 3;
const KIND_CODE = 0;
const KIND_WRITE = 1;
const KIND_PORT = 2;
const KIND_DATA = 3;
/** A debugger's only: reads and no writes. */
const KIND_READ = 4;
/** Beside the bits of DR6: one of the debugger's. */
export const HOST_HIT = 1 << 16;
/** By the two bits of LEN. */
const LENGTHS = [1, 2, 8, 4];

interface Breakpoint {
  readonly bit: number;
  readonly kind: number;
  readonly bytes: number;
  readonly lo: number;
  readonly hi: number;
}

/** What a debugger asks for: a place in linear memory. Data lies in one page. */
export interface HostBreakpoint {
  readonly on: 'code' | 'write' | 'read' | 'access';
  readonly lo: number;
  readonly hi: number;
  readonly bytes: number;
}

const HOST_KINDS = { code: KIND_CODE, write: KIND_WRITE, read: KIND_READ, access: KIND_DATA } as const;

export class Breakpoints {
  #list: readonly Breakpoint[] = [];
  #host: readonly Breakpoint[] = [];
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
    this.#list = [...list, ...this.#host];
    this.any = this.#list.length > 0;
    this.hasCode = this.#list.some(({ kind }) => kind === KIND_CODE);
    this.hasData = this.#list.some(({ kind }) => kind !== KIND_CODE && kind !== KIND_PORT);
    this.hasPort = list.some(({ kind }) => kind === KIND_PORT);
  }

  /** All that a debugger asks for; `Cpu.debugChanged` makes it so. */
  setHost(wanted: readonly HostBreakpoint[]): void {
    this.#host = wanted.map(({ on, lo, hi, bytes }) => ({ bit: HOST_HIT, kind: HOST_KINDS[on], bytes, lo, hi }));
  }

  /** Is data watched in the page of an address? */
  watchesPage(lo: number, hi: number): boolean {
    return this.#list.some(
      (b) => b.kind !== KIND_CODE && b.kind !== KIND_PORT && b.lo >>> 12 === lo >>> 12 && b.hi === hi,
    );
  }

  /** Offsets of the breakpoints on code in the page of an address. */
  codeOffsets(lo: number, hi: number): number[] {
    const offsets: number[] = [];
    for (const b of this.#list)
      if (b.kind === KIND_CODE && b.lo >>> 12 === lo >>> 12 && b.hi === hi) offsets.push(b.lo & 4095);
    return offsets;
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
      if (b.kind !== KIND_DATA && b.kind !== (write ? KIND_WRITE : KIND_READ)) continue;
      // Both lie near each other if they touch at all: a difference of 32 bits tells.
      const distance = (b.lo - lo) | 0;
      if (distance >= bytes || -distance >= b.bytes || b.hi !== carried(lo, hi, distance)) continue;
      bits |= b.bit;
      if (b.bit !== HOST_HIT) continue;
      this.hostLo = b.lo;
      this.hostHi = b.hi;
    }
    return bits;
  }

  /** Where the debugger's data lies that was hit last. */
  hostLo = 0;
  hostHi = 0;

  atPort(port: number, bytes: number): number {
    let bits = 0;
    for (const b of this.#list) {
      if (b.kind === KIND_PORT && b.lo < port + bytes && port < b.lo + b.bytes) bits |= b.bit;
    }
    return bits;
  }
}

/** High word of `(lo, hi) + distance`. */
function carried(lo: number, hi: number, distance: number): number {
  const sum = (lo >>> 0) + distance;
  return sum < 0 ? (hi - 1) | 0 : sum >= 4294967296 ? (hi + 1) | 0 : hi;
}
