/** GDTR, IDTR, LDTR, TR. */
import { ACCESS_IMPLICIT, ACCESS_WRITE } from '../bus.ts';
import {
  baseOf,
  D_MEMORY,
  D_PRESENT,
  descriptorAddress,
  limitOf,
  readDescriptor,
  selectorOf,
  setSegmentRaw,
  typeOf,
  VECTOR_NP,
} from '../segments.ts';
import { GDTR_BASE, GDTR_LIMIT, IDTR_BASE, IDTR_LIMIT, LDTR, TR } from '../state.ts';
import {
  FAULT,
  fault,
  generalProtection,
  type HelperFunction,
  invalidOpcode,
  loadOperand,
  NEXT,
  readWord,
  sizeOf,
  storeOperand,
  writeOperand,
} from './outcome.ts';
import { controlBytes, supervisor, withUmip } from './privilege.ts';

const tableStore = (base: number, limit: number) =>
  withUmip((cpu, record) => {
    const { state } = cpu;
    const bytes = controlBytes(cpu);
    if (!storeOperand(cpu, record, 2, bytes, state.get(base), state.high(base))) return FAULT;
    return storeOperand(cpu, record, 0, 2, state.get(limit)) ? NEXT : FAULT;
  });

const tableLoad = (base: number, limit: number) =>
  supervisor((cpu, record) => {
    const { state, memory } = cpu;
    const bytes = controlBytes(cpu);
    if (!loadOperand(cpu, record, 0, 2)) return FAULT;
    const newLimit = memory.lo;
    if (!loadOperand(cpu, record, 2, bytes)) return FAULT;
    if (!memory.mayBeCanonical(memory.hi)) return generalProtection(cpu);
    state.set(limit, newLimit);
    // Operands of 16 bits have bases of 24.
    const narrow = sizeOf(cpu, record) === 2 && cpu.mode !== 2;
    state.setPair(base, narrow ? memory.lo & 0xffffff : memory.lo, memory.hi);
    return NEXT;
  });

const segmentStore = (index: number) =>
  withUmip((cpu, record) =>
    cpu.state.realSegments
      ? invalidOpcode(cpu)
      : writeOperand(cpu, record, selectorOf(cpu, index), 0, 2, sizeOf(cpu, record)),
  );

/** Undefined where selectors name no descriptors, and then only in ring 0. */
const notInRealSegments = (f: HelperFunction): HelperFunction => {
  const privileged = supervisor(f);
  return (cpu, record) => (cpu.state.realSegments ? invalidOpcode(cpu) : privileged(cpu, record));
};

/** LLDT and LTR: a system descriptor, of 16 bytes in long mode. */
const systemLoad = (index: number, type: number) =>
  notInRealSegments((cpu, record) => {
    const { state, memory } = cpu;
    const selector = readWord(cpu, record, 0);
    if (selector < 0) return FAULT;
    if ((selector & 0xfffc) === 0) {
      if (index === TR) return generalProtection(cpu);
      setSegmentRaw(cpu, LDTR, selector, 0, 0, 0, 0);
      return NEXT;
    }
    const error = selector & 0xfffc;
    if (selector & 4) return generalProtection(cpu, error);
    const d = readDescriptor(cpu, selector);
    if (!d) return FAULT;
    // Task state segments of 16 bits have another type, outside of long mode.
    const right = typeOf(d.hi) === type || (index === TR && typeOf(d.hi) === 1 && !state.longMode);
    if (d.hi & D_MEMORY || !right) return generalProtection(cpu, error);
    if (!(d.hi & D_PRESENT)) return fault(cpu, VECTOR_NP, error);
    const at = descriptorAddress(cpu, selector) as [number, number];
    let baseHi = 0;
    if (state.longMode) {
      if (!memory.loadAt(at[0], at[1], 8, 8, ACCESS_IMPLICIT)) return FAULT;
      baseHi = memory.lo;
      if (!memory.mayBeCanonical(baseHi)) return generalProtection(cpu, error);
    }
    if (index === TR) {
      d.hi |= 0x200;
      if (!memory.store((at[0] + 4) | 0, at[1], 4, ACCESS_IMPLICIT | ACCESS_WRITE, d.hi)) return FAULT;
    }
    setSegmentRaw(cpu, index, selector, d.hi & 0x00f0ff00, limitOf(d), baseOf(d), baseHi);
    return NEXT;
  });

export const DESCRIPTOR_TABLES: Record<string, HelperFunction> = {
  sgdt: tableStore(GDTR_BASE, GDTR_LIMIT),
  sidt: tableStore(IDTR_BASE, IDTR_LIMIT),
  lgdt: tableLoad(GDTR_BASE, GDTR_LIMIT),
  lidt: tableLoad(IDTR_BASE, IDTR_LIMIT),
  sldt: segmentStore(LDTR),
  str: segmentStore(TR),
  lldt: systemLoad(LDTR, 2),
  ltr: systemLoad(TR, 9),
};
