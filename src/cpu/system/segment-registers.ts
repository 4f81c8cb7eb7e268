/** Loads and stores of segment registers and of the bases of FS and GS. */
import type { Cpu } from '../cpu.ts';
import { META_WIDE, R_OPERAND } from '../record.ts';
import { loadSegment, segmentsChanged, selectorOf } from '../segments.ts';
import { CPL, CR4, CS, FS, GS, HIDDEN_BASE, KERNEL_GS_BASE, SHADOW_BEGINS, SHADOW_ON, SS } from '../state.ts';
import {
  FAULT,
  field,
  generalProtection,
  type HelperFunction,
  invalidOpcode,
  LEAVE,
  loadOperand,
  meta,
  NEXT,
  readWord,
  sizeOf,
  writeOperand,
  writeRegister,
} from './outcome.ts';

const CR4_FSGSBASE = 1 << 16;

const moveFromSegment: HelperFunction = (cpu, record) => {
  const index = field(cpu, record, 1);
  if (index > 5) return invalidOpcode(cpu);
  return writeOperand(cpu, record, selectorOf(cpu, index), 0, 2, sizeOf(cpu, record));
};

function loadAndShadow(cpu: Cpu, index: number, selector: number): number {
  if (!loadSegment(cpu, index, selector)) return FAULT;
  return index === SS ? shadowStack(cpu) : NEXT;
}

/** Neither interrupts nor traps come between a load of SS and the next instruction, which loads the pointer. */
export function shadowStack(cpu: Cpu): number {
  cpu.state.set(SHADOW_ON, SHADOW_BEGINS);
  cpu.trapHeld = true;
  cpu.shadowOfStack = true;
  return LEAVE;
}

const moveToSegment: HelperFunction = (cpu, record) => {
  const index = field(cpu, record, 0);
  if (index === CS || index > 5) return invalidOpcode(cpu);
  const selector = readWord(cpu, record, 1);
  return selector < 0 ? FAULT : loadAndShadow(cpu, index, selector);
};

/** LSS, LFS, LGS, LES, LDS: offset and selector from memory. The segment's number is in the name. */
const loadFar = (index: number): HelperFunction => {
  return (cpu, record) => {
    const { memory } = cpu;
    const bytes = sizeOf(cpu, record);
    if (!loadOperand(cpu, record, bytes, 2)) return FAULT;
    const selector = memory.lo;
    if (!loadOperand(cpu, record, 0, bytes)) return FAULT;
    const { lo, hi } = memory;
    if (!loadSegment(cpu, index, selector)) return FAULT;
    writeRegister(cpu, cpu.state.bytes[record + R_OPERAND], bytes, lo, hi);
    return NEXT;
  };
};

const swapgs: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (state.get(CPL) !== 0) return generalProtection(cpu);
  const lo = state.get(HIDDEN_BASE + GS * 8);
  const hi = state.high(HIDDEN_BASE + GS * 8);
  state.copyPair(HIDDEN_BASE + GS * 8, KERNEL_GS_BASE);
  state.setPair(KERNEL_GS_BASE, lo, hi);
  segmentsChanged(cpu);
  return NEXT;
};

const baseRead = (index: number): HelperFunction => {
  return (cpu, record) => {
    const { state } = cpu;
    if (!(state.get(CR4) & CR4_FSGSBASE)) return invalidOpcode(cpu);
    const at = HIDDEN_BASE + index * 8;
    writeRegister(cpu, field(cpu, record, 0), meta(cpu, record) & META_WIDE ? 8 : 4, state.get(at), state.high(at));
    return NEXT;
  };
};

const baseWrite = (index: number): HelperFunction => {
  return (cpu, record) => {
    const { state } = cpu;
    if (!(state.get(CR4) & CR4_FSGSBASE)) return invalidOpcode(cpu);
    const from = field(cpu, record, 0);
    const hi = meta(cpu, record) & META_WIDE ? state.high(from) : 0;
    if (!cpu.memory.mayBeCanonical(hi)) return generalProtection(cpu);
    state.setPair(HIDDEN_BASE + index * 8, state.get(from), hi);
    segmentsChanged(cpu);
    return NEXT;
  };
};

export const SEGMENT_REGISTERS: Record<string, HelperFunction> = {
  moveFromSegment,
  moveToSegment,
  les: loadFar(0),
  lds: loadFar(3),
  lss: loadFar(SS),
  lfs: loadFar(FS),
  lgs: loadFar(GS),
  swapgs,
  rdfsbase: baseRead(FS),
  rdgsbase: baseRead(GS),
  wrfsbase: baseWrite(FS),
  wrgsbase: baseWrite(GS),
};
