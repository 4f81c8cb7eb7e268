/** Segment registers: descriptors, loading, and what they mean for addresses. Errors are raised with the selector. */
import { ACCESS_IMPLICIT, ACCESS_WRITE } from './bus.ts';
import type { Cpu } from './cpu.ts';
import {
  CHECKED,
  CHECKED_SEGMENT_SHIFT,
  CPL,
  CS,
  CS_DATA_BASE,
  GDTR_BASE,
  GDTR_LIMIT,
  HIDDEN_BASE,
  LDTR,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BASE,
  SEGMENT_BYTES,
  SEGMENT_LIMIT,
  SEGMENT_SELECTOR,
  SEGMENTS,
  SS,
  TR,
} from './state.ts';
import { carryInto } from './memory-port.ts';

export const SEGMENT_LIMIT_OF_TR = SEGMENTS + TR * SEGMENT_BYTES + SEGMENT_LIMIT;

export const VECTOR_TS = 10;
export const VECTOR_NP = 11;
export const VECTOR_SS = 12;
export const VECTOR_GP = 13;

/** Bits of a descriptor's high word. */
export const D_ACCESSED = 1 << 8;
export const D_WRITABLE = 1 << 9;
export const D_CONFORMING = 1 << 10;
/** Of data. */
export const D_EXPAND_DOWN = 1 << 10;
export const D_CODE = 1 << 11;
/** Code or data, not a system descriptor. */
export const D_MEMORY = 1 << 12;
export const D_PRESENT = 1 << 15;
export const D_LONG = 1 << 21;
export const D_BIG = 1 << 22;
const D_GRANULAR = 1 << 23;
const D_ATTRIBUTES = 0x00f0ff00;

export interface Descriptor {
  lo: number;
  hi: number;
}

export const dplOf = (hi: number): number => (hi >>> 13) & 3;
export const typeOf = (hi: number): number => (hi >>> 8) & 15;

export function selectorOf(cpu: Cpu, index: number): number {
  return cpu.state.get(SEGMENTS + index * SEGMENT_BYTES + SEGMENT_SELECTOR);
}

export function attributesOf(cpu: Cpu, index: number): number {
  return cpu.state.get(SEGMENTS + index * SEGMENT_BYTES + SEGMENT_ATTRIBUTES);
}

export function limitOf(descriptor: Descriptor): number {
  const raw = (descriptor.lo & 0xffff) | (descriptor.hi & 0xf0000);
  return descriptor.hi & D_GRANULAR ? (raw << 12) | 0xfff : raw;
}

export function baseOf(descriptor: Descriptor): number {
  return (descriptor.lo >>> 16) | ((descriptor.hi & 0xff) << 16) | (descriptor.hi & 0xff000000);
}

/** Linear address of a selector's descriptor, low word in `[0]`; null when it is beyond its table's limit. */
export function descriptorAddress(cpu: Cpu, selector: number): [number, number] | null {
  const { state } = cpu;
  const offset = selector & 0xfff8;
  if (selector & 4) {
    const at = SEGMENTS + LDTR * SEGMENT_BYTES;
    if (state.get(at + SEGMENT_ATTRIBUTES) === 0 || offset + 7 > state.get(at + SEGMENT_LIMIT) >>> 0) return null;
    const lo = state.get(HIDDEN_BASE + LDTR * 8);
    return [(lo + offset) | 0, carryInto(lo, state.high(HIDDEN_BASE + LDTR * 8), offset)];
  }
  if (offset + 7 > (state.get(GDTR_LIMIT) & 0xffff)) return null;
  const lo = state.get(GDTR_BASE);
  return [(lo + offset) | 0, carryInto(lo, state.high(GDTR_BASE), offset)];
}

/** The descriptor of a selector; null after an exception: beyond the limit (`vector` with the selector), or #PF. */
export function readDescriptor(cpu: Cpu, selector: number, vector = VECTOR_GP, external = 0): Descriptor | null {
  const at = descriptorAddress(cpu, selector);
  if (!at) {
    cpu.state.raise(vector, (selector & 0xfffc) | external);
    return null;
  }
  if (!cpu.memory.load(at[0], at[1], 8, ACCESS_IMPLICIT)) return null;
  return { lo: cpu.memory.lo, hi: cpu.memory.hi };
}

/** Sets the accessed bit in memory, if it isn't; false after a fault. */
export function markAccessed(cpu: Cpu, selector: number, descriptor: Descriptor): boolean {
  if (descriptor.hi & D_ACCESSED) return true;
  const at = descriptorAddress(cpu, selector);
  if (!at) return true;
  descriptor.hi |= D_ACCESSED;
  const { memory } = cpu;
  return memory.store((at[0] + 4) | 0, carryInto(at[0], at[1], 4), 4, ACCESS_IMPLICIT | ACCESS_WRITE, descriptor.hi);
}

/** Fills a segment register. The caller calls `segmentsChanged` afterwards. */
export function setSegment(cpu: Cpu, index: number, selector: number, descriptor: Descriptor): void {
  setSegmentRaw(cpu, index, selector, descriptor.hi & D_ATTRIBUTES, limitOf(descriptor), baseOf(descriptor), 0);
}

export function setSegmentRaw(
  cpu: Cpu,
  index: number,
  selector: number,
  attributes: number,
  limit: number,
  baseLo: number,
  baseHi: number,
): void {
  const { state } = cpu;
  const at = SEGMENTS + index * SEGMENT_BYTES;
  state.set(at + SEGMENT_SELECTOR, selector & 0xffff);
  state.set(at + SEGMENT_ATTRIBUTES, attributes);
  state.set(at + SEGMENT_LIMIT, limit);
  state.setPair(HIDDEN_BASE + index * 8, baseLo, baseHi);
}

/** Bases as addresses use them, masks and TLB sets, after a change of a segment, CPL or mode. */
export function segmentsChanged(cpu: Cpu): void {
  const { state } = cpu;
  const long = cpu.mode === 2;
  for (let i = 0; i < 6; i++) {
    if (long && i < 4) state.setPair(SEGMENT_BASE + i * 8, 0, 0);
    else if (long || i === CS) state.copyPair(SEGMENT_BASE + i * 8, HIDDEN_BASE + i * 8);
    else state.setPair(SEGMENT_BASE + i * 8, state.get(HIDDEN_BASE + i * 8), checkedBits(cpu, i));
  }
  // CS has two: its code is found without a question to this one.
  state.setPair(CS_DATA_BASE, long ? 0 : state.get(HIDDEN_BASE + CS * 8), long ? 0 : checkedBits(cpu, CS));
  cpu.modeChanged();
}

/** High word of a base outside of 64-bit mode: 0 if nothing about an access can be wrong. */
function checkedBits(cpu: Cpu, index: number): number {
  const attributes = attributesOf(cpu, index);
  const plain = cpu.state.realSegments || (attributes & (D_CODE | D_EXPAND_DOWN | D_WRITABLE)) === D_WRITABLE;
  const whole = cpu.state.get(SEGMENTS + index * SEGMENT_BYTES + SEGMENT_LIMIT) === -1;
  return plain && whole ? 0 : CHECKED | (index << CHECKED_SEGMENT_SHIFT);
}

/** May `bytes` at `offset` of a segment of such attributes and limit be read, or written? `typed`: it has a type at all. */
export function segmentAllows(
  attributes: number,
  limit: number,
  typed: boolean,
  offset: number,
  bytes: number,
  write: boolean,
): boolean {
  const code = (attributes & D_CODE) !== 0;
  if (typed) {
    if (attributes === 0) return false;
    if (write ? code || !(attributes & D_WRITABLE) : code && !(attributes & D_WRITABLE)) return false;
  }
  const first = offset >>> 0;
  const last = first + bytes - 1;
  if (typed && !code && attributes & D_EXPAND_DOWN) {
    return first > limit >>> 0 && last <= (attributes & D_BIG ? 0xffffffff : 0xffff);
  }
  return last <= limit >>> 0;
}

/** A code segment of real mode. */
export const REAL_CODE = 0x9b00;
/** Any segment of virtual-8086 mode. */
const VIRTUAL_8086 = 0xf300;

/** Loads a segment register in real mode: base and selector change, the limit stays what it was. In virtual-8086 mode it is 64 KiB. */
export function loadRealSegment(cpu: Cpu, index: number, selector: number): void {
  setRealSegment(cpu, index, selector);
  segmentsChanged(cpu);
}

/** The same; the caller calls `segmentsChanged`. */
export function setRealSegment(cpu: Cpu, index: number, selector: number): void {
  const { state } = cpu;
  const base = (selector & 0xffff) << 4;
  if (state.virtual8086) {
    setSegmentRaw(cpu, index, selector, VIRTUAL_8086, 0xffff, base, 0);
    return;
  }
  const limit = state.get(SEGMENTS + index * SEGMENT_BYTES + SEGMENT_LIMIT);
  setSegmentRaw(cpu, index, selector, index === CS ? REAL_CODE : attributesOf(cpu, index), limit, base, 0);
}

/** MOV to, POP of, LDS-like loads of any register but CS. False after an exception. */
export function loadSegment(cpu: Cpu, index: number, selector: number): boolean {
  const { state } = cpu;
  if (state.realSegments) {
    loadRealSegment(cpu, index, selector);
    return true;
  }
  const cpl = state.get(CPL);
  const rpl = selector & 3;
  if ((selector & 0xfffc) === 0) {
    if (index === SS && (cpu.mode !== 2 || cpl === 3 || rpl !== cpl)) {
      state.raise(VECTOR_GP, 0);
      return false;
    }
    loadNull(cpu, index, selector);
    return true;
  }
  const d = readDescriptor(cpu, selector);
  if (!d) return false;
  if (!mayLoad(index, d.hi, cpl, rpl)) {
    state.raise(VECTOR_GP, selector & 0xfffc);
    return false;
  }
  if (!(d.hi & D_PRESENT)) {
    state.raise(index === SS ? VECTOR_SS : VECTOR_NP, selector & 0xfffc);
    return false;
  }
  if (!markAccessed(cpu, selector, d)) return false;
  setSegment(cpu, index, selector, d);
  segmentsChanged(cpu);
  return true;
}

/** AMD keeps base and limit of a null FS or GS. */
export function loadNull(cpu: Cpu, index: number, selector: number): void {
  const { state } = cpu;
  const at = SEGMENTS + index * SEGMENT_BYTES;
  state.set(at + SEGMENT_SELECTOR, selector & 0xffff);
  state.set(at + SEGMENT_ATTRIBUTES, index === SS ? 0x00c09300 | ((selector & 3) << 13) : 0);
  if (!state.longMode || index < 4) state.setPair(HIDDEN_BASE + index * 8, 0, 0);
  segmentsChanged(cpu);
}

function mayLoad(index: number, hi: number, cpl: number, rpl: number): boolean {
  if (!(hi & D_MEMORY)) return false;
  const dpl = dplOf(hi);
  if (index === SS) return !(hi & D_CODE) && (hi & D_WRITABLE) !== 0 && rpl === cpl && dpl === cpl;
  if (hi & D_CODE) {
    if (!(hi & D_WRITABLE)) return false;
    if (hi & D_CONFORMING) return true;
  }
  return dpl >= cpl && dpl >= rpl;
}

/** Is this a place that code of such a segment may be at? */
export function mayContinueAt(cpu: Cpu, code: Descriptor, lo: number, hi: number): boolean {
  if (cpu.state.longMode && code.hi & D_LONG) return cpu.memory.isCanonical(hi);
  return lo >>> 0 <= limitOf(code) >>> 0;
}

/** Takes a code segment: descriptor checked by the caller, privilege as given. */
export function setCode(cpu: Cpu, selector: number, descriptor: Descriptor, cpl: number): void {
  setSegment(cpu, CS, (selector & 0xfffc) | cpl, descriptor);
  cpu.state.set(CPL, cpl);
  segmentsChanged(cpu);
}

/** A flat segment without a descriptor, as SYSCALL and its like make them. */
export function setFlat(cpu: Cpu, index: number, selector: number, attributes: number): void {
  setSegmentRaw(cpu, index, selector, attributes, -1, 0, 0);
}

export const FLAT_CODE_64 = 0x00a09b00;
export const FLAT_CODE_32 = 0x00c09b00;
export const FLAT_DATA = 0x00c09300;
