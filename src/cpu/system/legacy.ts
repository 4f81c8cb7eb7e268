/** What 64-bit mode has no more: decimal adjustments, BOUND, ARPL. */
import type { Cpu } from '../cpu.ts';
import { R_IMMEDIATE } from '../record.ts';
import { RAX } from '../state.ts';
import {
  FAULT,
  fault,
  field,
  type HelperFunction,
  invalidOpcode,
  isMemory,
  loadPart,
  NEXT,
  readWord,
  sizeOf,
  storeOperand,
  writeRegister,
} from './outcome.ts';

const CF = 1;
const AF = 1 << 4;
const ZF = 1 << 6;
const SF = 1 << 7;
const OF = 1 << 11;
const PF = 1 << 2;

function resultFlags(value: number): number {
  let parity = value & 255;
  parity ^= parity >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return ((value & 255) === 0 ? ZF : 0) | (value & SF) | (parity & 1 ? 0 : PF);
}

function setArithmetic(cpu: Cpu, flags: number): void {
  cpu.state.rflags = (cpu.state.rflags & ~(CF | PF | AF | ZF | SF | OF)) | flags;
}

const al = (cpu: Cpu): number => cpu.state.get(RAX) & 255;
const ax = (cpu: Cpu): number => cpu.state.get(RAX) & 0xffff;

/** DAA and DAS: both nibbles of AL become decimal digits. */
const adjustDecimal = (sign: 1 | -1): HelperFunction => {
  return (cpu) => {
    const old = al(cpu);
    const flags = cpu.state.rflags;
    const low = (old & 15) > 9 || (flags & AF) !== 0;
    const high = old > 0x99 || (flags & CF) !== 0;
    const value = (old + sign * ((low ? 6 : 0) + (high ? 0x60 : 0))) & 255;
    const borrow = sign < 0 && low && old < 6;
    writeRegister(cpu, RAX, 1, value);
    setArithmetic(cpu, resultFlags(value) | (low ? AF : 0) | (high || borrow ? CF : 0));
    return NEXT;
  };
};

/** AAA and AAS: the digit in AL carries into AH. */
const adjustAscii = (sign: 1 | -1): HelperFunction => {
  return (cpu) => {
    const carry = (al(cpu) & 15) > 9 || (cpu.state.rflags & AF) !== 0;
    const value = (ax(cpu) + (carry ? sign * 0x106 : 0)) & 0xff0f;
    writeRegister(cpu, RAX, 2, value);
    setArithmetic(cpu, resultFlags(value) | (carry ? AF | CF : 0));
    return NEXT;
  };
};

const aam: HelperFunction = (cpu, record) => {
  const base = cpu.state.bytes[record + R_IMMEDIATE];
  if (base === 0) return fault(cpu, 0);
  const low = al(cpu) % base;
  writeRegister(cpu, RAX, 2, (Math.floor(al(cpu) / base) << 8) | low);
  setArithmetic(cpu, resultFlags(low));
  return NEXT;
};

const aad: HelperFunction = (cpu, record) => {
  const base = cpu.state.bytes[record + R_IMMEDIATE];
  const value = ((ax(cpu) & 255) + (ax(cpu) >>> 8) * base) & 255;
  writeRegister(cpu, RAX, 2, value);
  setArithmetic(cpu, resultFlags(value));
  return NEXT;
};

/** SALC: AL becomes CF in each bit. */
const salc: HelperFunction = (cpu) => {
  writeRegister(cpu, RAX, 1, cpu.state.rflags & CF ? 255 : 0);
  return NEXT;
};

const bound: HelperFunction = (cpu, record) => {
  const { state, memory } = cpu;
  const bytes = sizeOf(cpu, record);
  const shift = 32 - bytes * 8;
  const signed = (value: number) => (value << shift) >> shift;
  if (!loadPart(cpu, record, 0, bytes)) return FAULT;
  const lower = signed(memory.lo);
  if (!loadPart(cpu, record, bytes, bytes)) return FAULT;
  const index = signed(state.get(field(cpu, record, 0)));
  return index < lower || index > signed(memory.lo) ? fault(cpu, 5) : NEXT;
};

/** Raises the RPL of a selector to that of another. */
const arpl: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  if (state.realSegments) return invalidOpcode(cpu);
  const selector = readWord(cpu, record, 0);
  if (selector < 0) return FAULT;
  const rpl = state.get(field(cpu, record, 1)) & 3;
  const raise = (selector & 3) < rpl;
  if (raise) {
    const value = (selector & ~3) | rpl;
    if (!isMemory(cpu, record)) writeRegister(cpu, field(cpu, record, 0), 2, value);
    else if (!storeOperand(cpu, record, 0, 2, value)) return FAULT;
  }
  state.rflags = (state.rflags & ~ZF) | (raise ? ZF : 0);
  return NEXT;
};

export const LEGACY: Record<string, HelperFunction> = {
  daa: adjustDecimal(1),
  das: adjustDecimal(-1),
  aaa: adjustAscii(1),
  aas: adjustAscii(-1),
  aam,
  aad,
  salc,
  bound,
  arpl,
};
