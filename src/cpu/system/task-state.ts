/** Task state segments: where their fields lie, and the stacks of the inner rings. */
import { ACCESS_IMPLICIT } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import {
  attributesOf,
  D_CODE,
  D_MEMORY,
  D_PRESENT,
  D_WRITABLE,
  type Descriptor,
  dplOf,
  readDescriptor,
  SEGMENT_LIMIT_OF_TR,
  selectorOf,
  VECTOR_SS,
  VECTOR_TS,
} from '../segments.ts';
import { HIDDEN_BASE, TR } from '../state.ts';

/** Offsets in a task state segment of 32 or 16 bits. Registers and segments lie one behind the other, in their order. */
export interface TaskLayout {
  readonly bytes: number;
  /** 0: it has none. */
  readonly cr3: number;
  readonly ip: number;
  readonly flags: number;
  readonly registers: number;
  readonly segments: number;
  readonly segmentStep: number;
  readonly segmentCount: number;
  readonly ldt: number;
  readonly trap: number;
  readonly lastByte: number;
}

export const TASK_32: TaskLayout = {
  bytes: 4,
  cr3: 0x1c,
  ip: 0x20,
  flags: 0x24,
  registers: 0x28,
  segments: 0x48,
  segmentStep: 4,
  segmentCount: 6,
  ldt: 0x60,
  trap: 0x64,
  lastByte: 0x67,
};

export const TASK_16: TaskLayout = {
  bytes: 2,
  cr3: 0,
  ip: 0x0e,
  flags: 0x10,
  registers: 0x12,
  segments: 0x22,
  segmentStep: 2,
  segmentCount: 4,
  ldt: 0x2a,
  trap: 0,
  lastByte: 0x2b,
};

/** By the type of a descriptor: 9 and 11 are of 32 bits, 1 and 3 of 16. */
export const taskLayout = (hi: number): TaskLayout => (hi & 0x800 ? TASK_32 : TASK_16);

export interface InnerStack {
  readonly selector: number;
  readonly pointer: number;
  readonly descriptor: Descriptor;
}

/** The stack of an inner ring, by the task state segment of now; null after an exception. Outside of long mode. */
export function innerStack(cpu: Cpu, cpl: number, external: number): InnerStack | null {
  const { state, memory } = cpu;
  const { bytes } = taskLayout(attributesOf(cpu, TR));
  const at = bytes + cpl * 2 * bytes;
  if (at + 2 * bytes - 1 > state.get(SEGMENT_LIMIT_OF_TR) >>> 0) {
    state.raise(VECTOR_TS, (selectorOf(cpu, TR) & 0xfffc) | external);
    return null;
  }
  const tss = state.get(HIDDEN_BASE + TR * 8);
  if (!memory.load((tss + at) | 0, 0, bytes, ACCESS_IMPLICIT)) return null;
  const pointer = memory.lo;
  if (!memory.load((tss + at + bytes) | 0, 0, 2, ACCESS_IMPLICIT)) return null;
  const selector = memory.lo;
  const descriptor = stackDescriptor(cpu, selector, cpl, external);
  return descriptor && { selector, pointer, descriptor };
}

/** What SS of a ring may be, when a task state segment names it; null after an exception. */
export function stackDescriptor(cpu: Cpu, selector: number, cpl: number, external: number): Descriptor | null {
  const { state } = cpu;
  const error = (selector & 0xfffc) | external;
  if ((selector & 0xfffc) === 0) {
    state.raise(VECTOR_TS, error);
    return null;
  }
  const d = readDescriptor(cpu, selector, VECTOR_TS, external);
  if (!d) return null;
  const right = (d.hi & (D_MEMORY | D_CODE | D_WRITABLE)) === (D_MEMORY | D_WRITABLE);
  if (!right || dplOf(d.hi) !== cpl || (selector & 3) !== cpl) {
    state.raise(VECTOR_TS, error);
    return null;
  }
  if (!(d.hi & D_PRESENT)) {
    state.raise(VECTOR_SS, error);
    return null;
  }
  return d;
}
