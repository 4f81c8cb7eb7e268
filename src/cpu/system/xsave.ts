/**
 * XSAVE, XRSTOR and XCR0. Components: x87 (0), SSE (1), and PKRU (9) where there are protection keys. The area is that of FXSAVE, a
 * header of 64 bytes, and PKRU.
 */
import type { Cpu } from '../cpu.ts';
import { CPL, CR0, CR4, MXCSR, PKRU, RAX, RCX, RDX, XCR0, XMM } from '../state.ts';
import { loadSse, loadX87, MXCSR_KNOWN, saveSse, saveX87 } from './fxsave.ts';
import { setEdxEax } from './model-specific.ts';
import {
  FAULT,
  fault,
  generalProtection,
  type HelperFunction,
  invalidOpcode,
  LEAVE,
  linear,
  loadOperand,
  NEXT,
  storeOperand,
} from './outcome.ts';

const X87 = 1;
const SSE = 2;
const KEYS = 1 << 9;
const CR0_TS = 1 << 3;
const CR4_OSXSAVE = 1 << 18;
const HEADER = 512;
const HEADER_BYTES = 64;
/** Where CPUID says that PKRU lies. */
export const PKRU_AT = HEADER + HEADER_BYTES;
const VECTOR_NM = 7;

const isOn = (cpu: Cpu): boolean => (cpu.state.get(CR4) & CR4_OSXSAVE) !== 0;

/** Undefined without CR4.OSXSAVE, unavailable with CR0.TS, and only for areas that begin at a multiple of 64 bytes. */
const withArea = (f: HelperFunction): HelperFunction => {
  return (cpu, record) => {
    if (!isOn(cpu)) return invalidOpcode(cpu);
    if (cpu.state.get(CR0) & CR0_TS) return fault(cpu, VECTOR_NM);
    return linear(cpu, record) & 63n ? generalProtection(cpu) : f(cpu, record);
  };
};

/** Components that the program asks for, as far as they are on. */
const asked = (cpu: Cpu): number => cpu.state.get(XCR0) & cpu.state.get(RAX);

/** What is saved is always said to be in use. */
const xsave: HelperFunction = withArea((cpu, record) => {
  const { state, memory } = cpu;
  const components = asked(cpu);
  if (!loadOperand(cpu, record, HEADER, 8)) return FAULT;
  const { lo, hi } = memory;
  // Found writable from the last part to the first, so that a fault comes before anything is written that matters.
  if (components & KEYS && !storeOperand(cpu, record, PKRU_AT, 8, state.get(PKRU))) return FAULT;
  if (!storeOperand(cpu, record, HEADER, 8, lo, hi)) return FAULT;
  if (components & SSE && !saveSse(cpu, record)) return FAULT;
  if (components & X87 && !saveX87(cpu, record)) return FAULT;
  if (components & SSE && !storeOperand(cpu, record, 24, 8, state.get(MXCSR), MXCSR_KNOWN)) return FAULT;
  return storeOperand(cpu, record, HEADER, 8, lo | components, hi) ? NEXT : FAULT;
});

/** Reads the header: components that are in the area, or -1 after a fault. */
function readHeader(cpu: Cpu, record: number): number {
  const { state, memory } = cpu;
  if (!loadOperand(cpu, record, HEADER, 8)) return -1;
  const { lo, hi } = memory;
  let wrong = hi !== 0 || (lo & ~state.get(XCR0)) !== 0;
  // The compacted form isn't built, and the rest is reserved.
  for (let at = 8; at < 24; at += 8) {
    if (!loadOperand(cpu, record, HEADER + at, 8)) return -1;
    wrong ||= (memory.lo | memory.hi) !== 0;
  }
  if (!wrong) return lo;
  generalProtection(cpu);
  return -1;
}

/** Components that are asked for and not in the area get their initial values. */
const xrstor: HelperFunction = withArea((cpu, record) => {
  const { state, memory } = cpu;
  const components = asked(cpu);
  const present = readHeader(cpu, record);
  if (present < 0) return FAULT;
  let mxcsr = state.get(MXCSR);
  if (components & SSE) {
    if (!loadOperand(cpu, record, 24, 4)) return FAULT;
    mxcsr = memory.lo;
    if (mxcsr & ~MXCSR_KNOWN) return generalProtection(cpu);
  }
  let pkru = state.get(PKRU);
  if (components & KEYS) {
    if (present & KEYS && !loadOperand(cpu, record, PKRU_AT, 4)) return FAULT;
    pkru = present & KEYS ? memory.lo : 0;
  }
  if (components & X87 && !loadX87(cpu, record, (present & X87) === 0)) return FAULT;
  if (components & SSE && present & SSE && !loadSse(cpu, record)) return FAULT;
  if (components & SSE && !(present & SSE)) clearSse(cpu);
  state.set(MXCSR, mxcsr);
  if (pkru !== state.get(PKRU)) {
    state.set(PKRU, pkru);
    cpu.tlb.flush();
  }
  return NEXT;
});

function clearSse(cpu: Cpu): void {
  const registers = cpu.mode === 2 ? 16 : 8;
  for (let i = 0; i < registers * 2; i++) cpu.state.setPair(XMM + i * 8, 0, 0);
}

const xgetbv: HelperFunction = (cpu) => {
  if (!isOn(cpu)) return invalidOpcode(cpu);
  if (cpu.state.get(RCX) !== 0) return generalProtection(cpu);
  setEdxEax(cpu, BigInt(cpu.state.get(XCR0) >>> 0));
  return NEXT;
};

/** x87 is always on. */
const xsetbv: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (!isOn(cpu)) return invalidOpcode(cpu);
  const value = state.get(RAX);
  const wrong = state.get(RDX) !== 0 || (value & ~cpu.xcr0Allowed) !== 0 || !(value & X87);
  if (state.get(CPL) !== 0 || state.get(RCX) !== 0 || wrong) return generalProtection(cpu);
  state.set(XCR0, value);
  return LEAVE;
};

export const XSAVE: Record<string, HelperFunction> = { xsave, xrstor, xgetbv, xsetbv };
