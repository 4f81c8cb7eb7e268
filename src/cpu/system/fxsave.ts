/** The saving and restoring of the FPU's state, and MXCSR. */
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
import { refreshSummary, setStatusWord, slot, statusWord } from '../x87/registers.ts';

const MXCSR_KNOWN = 0xffff;

/** FXSAVE's 512 bytes; XMM8 to XMM15 in 64-bit mode only. */
const fxsave: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  if (state.get(CR0) & 0xc) return fault(cpu, 7);
  const at = linear(cpu, record);
  if (at & 15n) return generalProtection(cpu);
  const base = cpu.layout.state;
  // Both ends first: the area can span two pages.
  if (!storeOperand(cpu, record, 408, 8, 0) || !storeOperand(cpu, record, 0, 8, 0)) return FAULT;
  const word = (distance: number, lo: number, hi = 0) => storeOperand(cpu, record, distance, 8, lo, hi);
  word(0, (state.get(FCW) & 0xffff) | (statusWord(cpu) << 16), state.get(FTAGS) & 255);
  word(8, 0);
  word(16, 0);
  word(24, state.get(MXCSR), MXCSR_KNOWN);
  for (let i = 0; i < 8; i++) {
    const from = base + FPR + slot(cpu, i) * 16;
    word(32 + i * 16, state.view.getInt32(from, true), state.view.getInt32(from + 4, true));
    word(40 + i * 16, state.view.getUint16(from + 8, true));
  }
  const registers = cpu.mode === 2 ? 16 : 8;
  for (let i = 0; i < registers * 2; i++) word(160 + i * 8, state.get(XMM + i * 8), state.high(XMM + i * 8));
  return NEXT;
};

const fxrstor: HelperFunction = (cpu, record) => {
  const { state, memory } = cpu;
  if (state.get(CR0) & 0xc) return fault(cpu, 7);
  if (linear(cpu, record) & 15n) return generalProtection(cpu);
  const words = new Int32Array(104);
  for (let i = 0; i < 52; i++) {
    if (!loadOperand(cpu, record, i * 8, 8)) return FAULT;
    words[i * 2] = memory.lo;
    words[i * 2 + 1] = memory.hi;
  }
  if (words[6] & ~MXCSR_KNOWN) return generalProtection(cpu);
  state.set(FCW, (words[0] & 0xffff) | 0x40);
  setStatusWord(cpu, words[0] >>> 16);
  refreshSummary(cpu);
  state.set(FTAGS, words[1] & 255);
  state.set(MXCSR, words[6]);
  for (let i = 0; i < 8; i++) {
    const to = FPR + slot(cpu, i) * 16;
    state.setPair(to, words[8 + i * 4], words[9 + i * 4]);
    state.set(to + 8, words[10 + i * 4] & 0xffff);
  }
  const registers = cpu.mode === 2 ? 16 : 8;
  for (let i = 0; i < registers * 2; i++) state.setPair(XMM + i * 8, words[40 + i * 2], words[41 + i * 2]);
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
