/** CR0 to CR8 and EFER, and what their bits demand of each other. */
import { CR_EFER, NO_FAULT } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import { segmentsChanged } from '../segments.ts';
import { CR0, CR2, CR3, CR4, CR8, CS, EFER, SEGMENT_ATTRIBUTES, SEGMENT_BYTES, SEGMENTS } from '../state.ts';
import {
  FAULT,
  fault,
  field,
  generalProtection,
  type HelperFunction,
  invalidOpcode,
  LEAVE,
  NEXT,
  readWord,
  sizeOf,
  writeOperand,
  writeRegister,
} from './outcome.ts';
import { controlBytes, supervisor, withUmip } from './privilege.ts';

const CR0_PE = 1;
const CR0_TS = 8;
const CR0_WP = 1 << 16;
const CR0_NW = 1 << 29;
const CR0_CD = 1 << 30;
const CR0_PG = (1 << 31) | 0;
const CR0_KNOWN = 0xe005003f | 0;
const CR4_PAE = 1 << 5;
const CR4_LA57 = 1 << 12;
const CR4_PCIDE = 1 << 17;
const EFER_LME = 1 << 8;
const EFER_LMA = 1 << 10;

const moveFromControl = supervisor((cpu, record) => {
  const { state } = cpu;
  const to = field(cpu, record, 0);
  const bytes = controlBytes(cpu);
  switch (field(cpu, record, 1)) {
    case 0:
      writeRegister(cpu, to, bytes, state.get(CR0));
      return NEXT;
    case 2:
      writeRegister(cpu, to, bytes, state.get(CR2), state.high(CR2));
      return NEXT;
    case 3:
      writeRegister(cpu, to, bytes, state.get(CR3), state.high(CR3));
      return NEXT;
    case 4:
      writeRegister(cpu, to, bytes, state.get(CR4));
      return NEXT;
    case 8:
      writeRegister(cpu, to, bytes, state.get(CR8));
      return NEXT;
    default:
      return invalidOpcode(cpu);
  }
});

const moveToControl = supervisor((cpu, record) => {
  const { state } = cpu;
  const from = field(cpu, record, 1);
  const lo = state.get(from);
  const hi = cpu.mode === 2 ? state.high(from) : 0;
  switch (field(cpu, record, 0)) {
    case 0:
      return writeCr0(cpu, lo, hi);
    case 2:
      state.setPair(CR2, lo, hi);
      return NEXT;
    case 3:
      return writeCr3(cpu, lo, hi);
    case 4:
      return writeCr4(cpu, lo, hi);
    case 8:
      if (hi !== 0 || (lo & ~15) !== 0) return generalProtection(cpu);
      return change(cpu, 8, lo, hi, () => state.set(CR8, lo));
    default:
      return invalidOpcode(cpu);
  }
});

/** Asks the bus, changes, tells the bus. */
function change(cpu: Cpu, number: number, lo: number, hi: number, make: () => void): number {
  const refused = cpu.bus.controlWrite(number, lo, hi);
  if (refused !== NO_FAULT) return fault(cpu, refused);
  make();
  cpu.bus.controlWritten(number);
  return LEAVE;
}

/** Sets CR0 by the rules of MOV; LMSW comes here too. */
export function writeCr0(cpu: Cpu, lo: number, hi: number): number {
  const { state } = cpu;
  if (hi !== 0) return generalProtection(cpu);
  if ((lo & CR0_PG && !(lo & CR0_PE)) || (lo & CR0_NW && !(lo & CR0_CD))) return generalProtection(cpu);
  const old = state.get(CR0);
  const value = (lo & CR0_KNOWN) | 0x10;
  const paging = (value ^ old) & CR0_PG;
  if (paging && !checkPaging(cpu, value)) return generalProtection(cpu);
  return change(cpu, 0, value, 0, () => {
    state.set(CR0, value);
    if (paging) {
      const lma = value & CR0_PG && state.get(EFER) & EFER_LME ? EFER_LMA : 0;
      state.set(EFER, (state.get(EFER) & ~EFER_LMA) | lma);
    }
    if ((value ^ old) & (CR0_PG | CR0_WP | CR0_PE)) cpu.tlb.flush();
    segmentsChanged(cpu);
  });
}

/** May paging go on, or off? */
function checkPaging(cpu: Cpu, cr0: number): boolean {
  const { state } = cpu;
  const cr4 = state.get(CR4);
  if (!(cr0 & CR0_PG)) return !(cr4 & CR4_PCIDE) && cpu.mode !== 2;
  if (!(state.get(EFER) & EFER_LME)) return true;
  const longCode = state.get(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES) & (1 << 21);
  return (cr4 & CR4_PAE) !== 0 && !longCode;
}

export function writeCr3(cpu: Cpu, lo: number, hi: number): number {
  const { state } = cpu;
  const keep = (state.get(CR4) & CR4_PCIDE) !== 0 && hi < 0;
  const stored = keep ? hi & 0x7fffffff : hi;
  if (state.longMode && stored & 0xfff00000) return generalProtection(cpu);
  return change(cpu, 3, lo, hi, () => {
    state.setPair(CR3, lo, stored);
    cpu.tlb.flush();
  });
}

export function writeCr4(cpu: Cpu, lo: number, hi: number): number {
  const { state } = cpu;
  const old = state.get(CR4);
  const changed = lo ^ old;
  if (hi !== 0 || lo & ~cpu.cr4Allowed) return generalProtection(cpu);
  if (state.longMode && (!(lo & CR4_PAE) || changed & CR4_LA57)) return generalProtection(cpu);
  if (changed & lo & CR4_PCIDE && (!state.longMode || state.get(CR3) & 0xfff)) return generalProtection(cpu);
  return change(cpu, 4, lo, hi, () => {
    state.set(CR4, lo);
    cpu.tlb.flush();
    cpu.modeChanged();
    cpu.debugChanged();
  });
}

/** CR3 of a task; false after an exception. */
export const loadTaskCr3 = (cpu: Cpu, lo: number): boolean => writeCr3(cpu, lo, 0) !== FAULT;

/** A task switch sets TS. */
export function setTaskSwitched(cpu: Cpu): void {
  const value = cpu.state.get(CR0) | CR0_TS;
  change(cpu, 0, value, 0, () => {
    cpu.state.set(CR0, value);
    cpu.modeChanged();
  });
}

const clts = supervisor((cpu) => {
  const value = cpu.state.get(CR0) & ~CR0_TS;
  return change(cpu, 0, value, 0, () => {
    cpu.state.set(CR0, value);
    cpu.modeChanged();
  });
});

/** Changes PE, MP, EM and TS; can't clear PE. */
const lmsw = supervisor((cpu, record) => {
  const word = readWord(cpu, record, 0);
  if (word < 0) return FAULT;
  const old = cpu.state.get(CR0);
  return writeCr0(cpu, (old & ~14) | (word & 15), 0);
});

const smsw = withUmip((cpu, record) => writeOperand(cpu, record, cpu.state.get(CR0), 0, 2, sizeOf(cpu, record)));

export function writeEfer(cpu: Cpu, lo: number, hi: number): number {
  const { state } = cpu;
  const old = state.get(EFER);
  if (hi !== 0 || lo & ~cpu.eferAllowed) return generalProtection(cpu);
  if ((lo ^ old) & EFER_LME && state.get(CR0) & CR0_PG) return generalProtection(cpu);
  const value = (lo & ~EFER_LMA) | (old & EFER_LMA);
  return change(cpu, CR_EFER, value, 0, () => {
    state.set(EFER, value);
    cpu.tlb.flush();
  });
}

export const CONTROL_REGISTERS: Record<string, HelperFunction> = {
  moveFromControl,
  moveToControl,
  clts,
  lmsw,
  smsw,
};
