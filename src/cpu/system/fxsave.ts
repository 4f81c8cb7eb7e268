/** The saving and restoring of the FPU's state, and MXCSR. */
import type { Cpu } from '../cpu.ts';
import { CR0, FCW, FPR, FTAGS, MXCSR, XMM } from '../state.ts';
import {
  FAULT,
  fault,
  generalProtection,
  type HelperFunction,
  linear,
  loadOperand,
  NEXT,
  storeOperand,
} from './outcome.ts';
import { refreshSummary, setControlWord, setStatusWord, slot, statusWord } from '../x87/registers.ts';

export const MXCSR_KNOWN = 0xffff;

/** x87's part of the area: 160 bytes but for MXCSR. False after a fault. */
export function saveX87(cpu: Cpu, record: number): boolean {
  const { state } = cpu;
  const base = cpu.layout.state;
  const word = (distance: number, lo: number, hi = 0) => storeOperand(cpu, record, distance, 8, lo, hi);
  const control = (state.get(FCW) & 0xffff) | (statusWord(cpu) << 16);
  if (!word(0, control, state.get(FTAGS) & 255) || !word(8, 0) || !word(16, 0)) return false;
  for (let i = 0; i < 8; i++) {
    const from = base + FPR + slot(cpu, i) * 16;
    if (!word(32 + i * 16, state.view.getInt32(from, true), state.view.getInt32(from + 4, true))) return false;
    if (!word(40 + i * 16, state.view.getUint16(from + 8, true))) return false;
  }
  return true;
}

const xmmCount = (cpu: Cpu): number => (cpu.mode === 2 ? 16 : 8);

/** XMM registers; XMM8 to XMM15 in 64-bit mode only. */
export function saveSse(cpu: Cpu, record: number): boolean {
  const { state } = cpu;
  for (let i = 0; i < xmmCount(cpu) * 2; i++) {
    if (!storeOperand(cpu, record, 160 + i * 8, 8, state.get(XMM + i * 8), state.high(XMM + i * 8))) return false;
  }
  return true;
}

/** Reads `count` quadwords of the area; null after a fault. */
function readArea(cpu: Cpu, record: number, from: number, count: number): Int32Array | null {
  const { memory } = cpu;
  const words = new Int32Array(count * 2);
  for (let i = 0; i < count; i++) {
    if (!loadOperand(cpu, record, from + i * 8, 8)) return null;
    words[i * 2] = memory.lo;
    words[i * 2 + 1] = memory.hi;
  }
  return words;
}

/** `initial`: as after FNINIT, whatever the area has. */
export function loadX87(cpu: Cpu, record: number, initial: boolean): boolean {
  const { state } = cpu;
  const words = initial ? new Int32Array(40) : readArea(cpu, record, 0, 20);
  if (!words) return false;
  setControlWord(cpu, initial ? 0x37f : words[0]);
  setStatusWord(cpu, words[0] >>> 16);
  refreshSummary(cpu);
  state.set(FTAGS, words[1] & 255);
  for (let i = 0; i < 8; i++) {
    const to = FPR + slot(cpu, i) * 16;
    state.setPair(to, words[8 + i * 4], words[9 + i * 4]);
    state.set(to + 8, words[10 + i * 4] & 0xffff);
  }
  return true;
}

export function loadSse(cpu: Cpu, record: number): boolean {
  const words = readArea(cpu, record, 160, xmmCount(cpu) * 2);
  if (!words) return false;
  for (let i = 0; i < words.length; i += 2) cpu.state.setPair(XMM + i * 4, words[i], words[i + 1]);
  return true;
}

/** FXSAVE's 512 bytes. */
const fxsave: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  if (state.get(CR0) & 0xc) return fault(cpu, 7);
  if (linear(cpu, record) & 15n) return generalProtection(cpu);
  // The end first: the area can span two pages.
  if (!saveSse(cpu, record) || !saveX87(cpu, record)) return FAULT;
  return storeOperand(cpu, record, 24, 8, state.get(MXCSR), MXCSR_KNOWN) ? NEXT : FAULT;
};

const fxrstor: HelperFunction = (cpu, record) => {
  const { state, memory } = cpu;
  if (state.get(CR0) & 0xc) return fault(cpu, 7);
  if (linear(cpu, record) & 15n) return generalProtection(cpu);
  if (!loadOperand(cpu, record, 24, 4)) return FAULT;
  const mxcsr = memory.lo;
  if (mxcsr & ~MXCSR_KNOWN) return generalProtection(cpu);
  // The end must be there before the first part is taken.
  if (!loadOperand(cpu, record, 408, 8)) return FAULT;
  if (!loadX87(cpu, record, false) || !loadSse(cpu, record)) return FAULT;
  state.set(MXCSR, mxcsr);
  return NEXT;
};

const ldmxcsr: HelperFunction = (cpu, record) => {
  if (!loadOperand(cpu, record, 0, 4)) return FAULT;
  if (cpu.memory.lo & ~MXCSR_KNOWN) return generalProtection(cpu);
  cpu.state.set(MXCSR, cpu.memory.lo);
  return NEXT;
};

const stmxcsr: HelperFunction = (cpu, record) => (storeOperand(cpu, record, 0, 4, cpu.state.get(MXCSR)) ? NEXT : FAULT);

export const FXSAVE: Record<string, HelperFunction> = { fxsave, fxrstor, ldmxcsr, stmxcsr };
