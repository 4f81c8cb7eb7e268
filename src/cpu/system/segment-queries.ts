/** Questions about descriptors: LAR, LSL, VERR, VERW. */
import { ACCESS_IMPLICIT } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import {
  D_CODE,
  D_CONFORMING,
  D_MEMORY,
  D_WRITABLE,
  type Descriptor,
  descriptorAddress,
  dplOf,
  limitOf,
  typeOf,
} from '../segments.ts';
import { CPL } from '../state.ts';
import { FAULT, field, type HelperFunction, invalidOpcode, NEXT, readWord, sizeOf, writeRegister } from './outcome.ts';

/** The descriptor that LAR, LSL, VERR, VERW ask about, or null when it can't be seen; faults are `undefined`. */
function visible(cpu: Cpu, selector: number, systemTypes: number): Descriptor | null | undefined {
  const { state, memory } = cpu;
  if ((selector & 0xfffc) === 0) return null;
  const at = descriptorAddress(cpu, selector);
  if (!at) return null;
  if (!memory.load(at[0], at[1], 8, ACCESS_IMPLICIT)) return undefined;
  const d = { lo: memory.lo, hi: memory.hi };
  if (!(d.hi & D_MEMORY)) {
    if (!((systemTypes >>> typeOf(d.hi)) & 1)) return null;
  } else if ((d.hi & (D_CODE | D_CONFORMING)) === (D_CODE | D_CONFORMING)) {
    return d;
  }
  const dpl = dplOf(d.hi);
  return dpl >= state.get(CPL) && dpl >= (selector & 3) ? d : null;
}

function setZero(cpu: Cpu, zero: boolean): void {
  cpu.state.rflags = (cpu.state.rflags & ~0x40) | (zero ? 0x40 : 0);
}

const query = (systemTypes: (long: boolean) => number, answer: (d: Descriptor) => number): HelperFunction => {
  return (cpu, record) => {
    if (cpu.state.realSegments) return invalidOpcode(cpu);
    const selector = readWord(cpu, record, 1);
    if (selector < 0) return FAULT;
    const d = visible(cpu, selector, systemTypes(cpu.state.longMode));
    if (d === undefined) return FAULT;
    if (d) writeRegister(cpu, field(cpu, record, 0), sizeOf(cpu, record), answer(d), 0);
    setZero(cpu, d !== null);
    return NEXT;
  };
};

/** System types that have a meaning for LAR: LDT, TSS, gates; for LSL those with a limit. */
const lar = query(
  (long) => (long ? 0x1a04 : 0x1a3e),
  (d) => d.hi & 0x00ffff00,
);
const lsl = query((long) => (long ? 0x0a04 : 0x0a0e), limitOf);

const verify = (writing: boolean): HelperFunction => {
  return (cpu, record) => {
    if (cpu.state.realSegments) return invalidOpcode(cpu);
    const selector = readWord(cpu, record, 0);
    if (selector < 0) return FAULT;
    const d = visible(cpu, selector, 0);
    if (d === undefined) return FAULT;
    const code = d !== null && (d.hi & D_CODE) !== 0;
    const bit = d !== null && (d.hi & D_WRITABLE) !== 0;
    setZero(cpu, d !== null && (writing ? !code && bit : !code || bit));
    return NEXT;
  };
};

export const SEGMENT_QUERIES: Record<string, HelperFunction> = {
  lar,
  lsl,
  verr: verify(false),
  verw: verify(true),
};
