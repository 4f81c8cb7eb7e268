/** SSE4.2's comparisons of strings, CRC32, and what else of SSE4.1 is rare. */
import type { Cpu } from '../cpu.ts';
import { META_WIDE, R_IMMEDIATE } from '../record.ts';
import { RAX, RCX, RDX, XMM } from '../state.ts';
import { FAULT, field, type HelperFunction, isMemory, loadOperand, meta, NEXT, sizeOf } from '../system/outcome.ts';
import {
  first,
  firstBytes,
  readOperands,
  result,
  resultBytes,
  second,
  secondBytes,
  vectorFunction,
} from './operands.ts';

const CF = 1;
const ZF = 1 << 6;
const SF = 1 << 7;
const OF = 1 << 11;

/** Element `i` of an operand, by the format in bits 0 and 1 of the immediate: words or bytes, signed or not. */
function element(view: DataView, i: number, format: number): number {
  switch (format) {
    case 0:
      return view.getUint8(i);
    case 1:
      return view.getUint16(i * 2, true);
    case 2:
      return view.getInt8(i);
    default:
      return view.getInt16(i * 2, true);
  }
}

/** Elements before the first that is 0. */
function implicitLength(view: DataView, format: number, count: number): number {
  for (let i = 0; i < count; i++) if (element(view, i, format) === 0) return i;
  return count;
}

/** Elements by a register, which may say more, or a negative number. */
function explicitLength(cpu: Cpu, register: number, wide: boolean, count: number): number {
  const value = wide ? BigInt.asIntN(64, cpu.state.big(register)) : BigInt(cpu.state.get(register));
  const size = value < 0n ? -value : value;
  return size > BigInt(count) ? count : Number(size);
}

/** A bit for each element of the second operand, before it is turned over. */
function aggregate(format: number, count: number, mode: number, lengthA: number, lengthB: number): number {
  const a = (i: number) => element(first, i, format);
  const b = (i: number) => element(second, i, format);
  let bits = 0;
  for (let j = 0; j < count; j++) {
    let holds = false;
    if (mode === 0) {
      if (j < lengthB) for (let i = 0; i < lengthA; i++) holds ||= a(i) === b(j);
    } else if (mode === 1) {
      if (j < lengthB) for (let i = 0; i + 1 < lengthA; i += 2) holds ||= a(i) <= b(j) && b(j) <= a(i + 1);
    } else if (mode === 2) {
      holds = j < lengthA && j < lengthB ? a(j) === b(j) : j >= lengthA && j >= lengthB;
    } else {
      holds = true;
      for (let i = 0; i < lengthA && j + i < count; i++) holds &&= j + i < lengthB && a(i) === b(j + i);
    }
    if (holds) bits |= 1 << j;
  }
  return bits;
}

const compareStrings = (explicit: boolean, toMask: boolean): HelperFunction => {
  return (cpu, record) => {
    if (!readOperands(cpu, record, 16, false)) return FAULT;
    const { state } = cpu;
    const immediate = state.bytes[record + R_IMMEDIATE];
    const format = immediate & 3;
    const count = format & 1 ? 8 : 16;
    const wide = (meta(cpu, record) & META_WIDE) !== 0;
    const lengthA = explicit ? explicitLength(cpu, RAX, wide, count) : implicitLength(first, format, count);
    const lengthB = explicit ? explicitLength(cpu, RDX, wide, count) : implicitLength(second, format, count);
    let bits = aggregate(format, count, (immediate >> 2) & 3, lengthA, lengthB);
    const all = (1 << count) - 1;
    if (immediate & 16) bits ^= immediate & 32 ? (1 << lengthB) - 1 : all;
    if (toMask) writeMask(cpu, bits, count, (immediate & 64) !== 0);
    else {
      const index = bits === 0 ? count : immediate & 64 ? 31 - Math.clz32(bits) : 31 - Math.clz32(bits & -bits);
      state.setPair(RCX, index, 0);
    }
    const flags = (bits !== 0 ? CF : 0) | (lengthB < count ? ZF : 0) | (lengthA < count ? SF : 0) | (bits & 1 ? OF : 0);
    state.rflags = (state.rflags & ~0x8d5) | flags;
    return NEXT;
  };
};

/** Into XMM0: the bits, or an element of ones for each. */
function writeMask(cpu: Cpu, bits: number, count: number, wide: boolean): void {
  resultBytes.fill(0);
  if (wide) for (let i = 0; i < 16; i++) resultBytes[i] = (bits >> Math.floor((i * count) / 16)) & 1 ? 255 : 0;
  else result.setUint16(0, bits, true);
  cpu.state.bytes.set(resultBytes, cpu.layout.state + XMM);
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** The sum of Castagnoli, from a register or memory of 1 byte, or of the operand's size. */
const crc32 = (wide: boolean): HelperFunction => {
  return (cpu, record) => {
    const { state, memory } = cpu;
    const bytes = wide ? sizeOf(cpu, record) : 1;
    let lo: number;
    let hi = 0;
    if (isMemory(cpu, record)) {
      if (!loadOperand(cpu, record, 0, bytes)) return FAULT;
      lo = memory.lo;
      hi = memory.hi;
    } else {
      const from = cpu.layout.state + field(cpu, record, 1);
      lo = bytes === 1 ? state.view.getUint8(from) : state.view.getInt32(from, true);
      if (bytes === 8) hi = state.view.getInt32(from + 4, true);
    }
    const to = field(cpu, record, 0);
    let crc = state.get(to);
    for (let i = 0; i < bytes; i++) {
      const byte = ((i < 4 ? lo : hi) >>> ((i & 3) * 8)) & 255;
      crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
    }
    state.setPair(to, crc, 0);
    return NEXT;
  };
};

/** The smallest word and its place. */
const phminposuw: HelperFunction = vectorFunction(() => {
  let at = 0;
  for (let i = 1; i < 8; i++) if (second.getUint16(i * 2, true) < second.getUint16(at * 2, true)) at = i;
  resultBytes.fill(0);
  result.setUint16(0, second.getUint16(at * 2, true), true);
  result.setUint16(2, at, true);
});

/** Sums of absolute differences of four bytes, at eight places. */
const mpsadbw: HelperFunction = vectorFunction((immediate) => {
  const from = immediate & 4 ? 4 : 0;
  const block = (immediate & 3) * 4;
  for (let i = 0; i < 8; i++) {
    let sum = 0;
    for (let k = 0; k < 4; k++) sum += Math.abs(firstBytes[from + i + k] - secondBytes[block + k]);
    result.setUint16(i * 2, sum, true);
  }
}, R_IMMEDIATE);

export const VECTOR_STRINGS: Record<string, HelperFunction> = {
  pcmpestrm: compareStrings(true, true),
  pcmpestri: compareStrings(true, false),
  pcmpistrm: compareStrings(false, true),
  pcmpistri: compareStrings(false, false),
  crc32Byte: crc32(false),
  crc32Wide: crc32(true),
  phminposuw,
  mpsadbw,
};
