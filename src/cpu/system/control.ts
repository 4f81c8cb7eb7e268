/** Control and debug registers, model-specific registers, descriptor tables, segment registers. */
import { toBigInt } from '../../base/u64.ts';
import { ACCESS_IMPLICIT, ACCESS_WRITE, CR_EFER, NO_FAULT } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import { META_WIDE, R_OPERAND } from '../record.ts';
import {
  baseOf,
  D_CODE,
  D_CONFORMING,
  D_MEMORY,
  D_PRESENT,
  D_WRITABLE,
  type Descriptor,
  descriptorAddress,
  dplOf,
  limitOf,
  loadSegment,
  readDescriptor,
  segmentsChanged,
  selectorOf,
  setSegmentRaw,
  typeOf,
  VECTOR_NP,
} from '../segments.ts';
import {
  CPL,
  CR0,
  CR2,
  CR3,
  CR4,
  CR8,
  CS,
  CSTAR,
  DR0,
  DR6,
  DR7,
  EFER,
  FS,
  GDTR_BASE,
  GDTR_LIMIT,
  GS,
  HIDDEN_BASE,
  IDTR_BASE,
  IDTR_LIMIT,
  KERNEL_GS_BASE,
  LDTR,
  LSTAR,
  PAT,
  RAX,
  RCX,
  RDX,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENTS,
  SFMASK,
  SHADOW_BEGINS,
  SHADOW_ON,
  SS,
  STAR,
  SYSENTER_CS,
  SYSENTER_EIP,
  SYSENTER_ESP,
  TR,
  TSC_AUX,
  TSC_OFFSET,
} from '../state.ts';
import {
  FAULT,
  fault,
  field,
  generalProtection,
  type HelperFunction,
  high,
  invalidOpcode,
  LEAVE,
  loadOperand,
  low,
  meta,
  NEXT,
  readWord,
  sizeOf,
  storeOperand,
  writeOperand,
  writeRegister,
} from './outcome.ts';

const CR0_PE = 1;
const CR0_TS = 8;
const CR0_NW = 1 << 29;
const CR0_CD = 1 << 30;
const CR0_PG = (1 << 31) | 0;
const CR0_KNOWN = 0xe005003f | 0;
const CR4_PAE = 1 << 5;
const CR4_UMIP = 1 << 11;
const CR4_LA57 = 1 << 12;
const CR4_FSGSBASE = 1 << 16;
const CR4_PCIDE = 1 << 17;
const EFER_LME = 1 << 8;
const EFER_LMA = 1 << 10;

const supervisor = (f: HelperFunction): HelperFunction => {
  return (cpu, record) => (cpu.state.get(CPL) !== 0 ? generalProtection(cpu) : f(cpu, record));
};

/** SGDT and its like leak kernel addresses: UMIP keeps them from programs. */
const withUmip = (f: HelperFunction): HelperFunction => {
  return (cpu, record) => {
    const kept = cpu.state.get(CPL) !== 0 && (cpu.state.get(CR4) & CR4_UMIP) !== 0;
    return kept ? generalProtection(cpu) : f(cpu, record);
  };
};

const controlBytes = (cpu: Cpu): number => (cpu.mode === 2 ? 8 : 4);

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
    if ((value ^ old) & (CR0_PG | (1 << 16) | CR0_PE)) cpu.tlb.flush();
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

function writeCr3(cpu: Cpu, lo: number, hi: number): number {
  const { state } = cpu;
  const keep = (state.get(CR4) & CR4_PCIDE) !== 0 && hi < 0;
  const stored = keep ? hi & 0x7fffffff : hi;
  if (state.longMode && stored & 0xfff00000) return generalProtection(cpu);
  return change(cpu, 3, lo, hi, () => {
    state.setPair(CR3, lo, stored);
    cpu.tlb.flush();
  });
}

function writeCr4(cpu: Cpu, lo: number, hi: number): number {
  const { state } = cpu;
  const old = state.get(CR4);
  const changed = lo ^ old;
  if (hi !== 0) return generalProtection(cpu);
  if (state.longMode && (!(lo & CR4_PAE) || changed & CR4_LA57)) return generalProtection(cpu);
  if (changed & lo & CR4_PCIDE && (!state.longMode || state.get(CR3) & 0xfff)) return generalProtection(cpu);
  return change(cpu, 4, lo, hi, () => {
    state.set(CR4, lo);
    cpu.tlb.flush();
    cpu.modeChanged();
  });
}

const clts = supervisor((cpu) => {
  const value = cpu.state.get(CR0) & ~CR0_TS;
  return change(cpu, 0, value, 0, () => cpu.state.set(CR0, value));
});

/** Changes PE, MP, EM and TS; can't clear PE. */
const lmsw = supervisor((cpu, record) => {
  const word = readWord(cpu, record, 0);
  if (word < 0) return FAULT;
  const old = cpu.state.get(CR0);
  return writeCr0(cpu, (old & ~14) | (word & 15), 0);
});

const smsw = withUmip((cpu, record) => writeOperand(cpu, record, cpu.state.get(CR0), 0, 2, sizeOf(cpu, record)));

const moveFromDebug = supervisor((cpu, record) => {
  const { state } = cpu;
  const to = field(cpu, record, 0);
  const number = field(cpu, record, 1);
  const bytes = controlBytes(cpu);
  if (number > 7 || ((number & 6) === 4 && state.get(CR4) & 8)) return invalidOpcode(cpu);
  if (state.get(DR7) & 0x2000) {
    state.set(DR6, state.get(DR6) | 0x2000);
    return fault(cpu, 1);
  }
  if (number < 4) writeRegister(cpu, to, bytes, state.get(DR0 + number * 8), state.high(DR0 + number * 8));
  else writeRegister(cpu, to, bytes, state.get(number & 1 ? DR7 : DR6));
  return NEXT;
});

const moveToDebug = supervisor((cpu, record) => {
  const { state } = cpu;
  const from = field(cpu, record, 1);
  const number = field(cpu, record, 0);
  if (number > 7 || ((number & 6) === 4 && state.get(CR4) & 8)) return invalidOpcode(cpu);
  if (state.get(DR7) & 0x2000) {
    state.set(DR6, state.get(DR6) | 0x2000);
    return fault(cpu, 1);
  }
  const hi = cpu.mode === 2 ? state.high(from) : 0;
  if (number < 4) {
    state.setPair(DR0 + number * 8, state.get(from), hi);
    return NEXT;
  }
  if (hi !== 0) return generalProtection(cpu);
  if (number & 1) state.set(DR7, (state.get(from) & 0xffff2fff) | 0x400);
  else state.set(DR6, (state.get(from) & 0xe00f) | (0xffff0ff0 | 0));
  return NEXT;
});

/** MSRs that are plain 64-bit words of the state; those marked must be canonical addresses. */
const PLAIN_MSRS = new Map<number, [offset: number, canonical: boolean]>([
  [0xc0000081, [STAR, false]],
  [0xc0000082, [LSTAR, true]],
  [0xc0000083, [CSTAR, true]],
  [0xc0000084, [SFMASK, false]],
  [0xc0000100, [HIDDEN_BASE + FS * 8, true]],
  [0xc0000101, [HIDDEN_BASE + GS * 8, true]],
  [0xc0000102, [KERNEL_GS_BASE, true]],
  [0xc0000103, [TSC_AUX, false]],
  [0x174, [SYSENTER_CS, false]],
  [0x175, [SYSENTER_ESP, true]],
  [0x176, [SYSENTER_EIP, true]],
  [0x277, [PAT, false]],
]);
const MSR_EFER = 0xc0000080;
const MSR_TSC = 0x10;

const rdmsr = supervisor((cpu, record) => {
  const { state } = cpu;
  const index = state.get(RCX) >>> 0;
  const plain = PLAIN_MSRS.get(index);
  let value: bigint | null;
  if (plain) value = state.big(plain[0]);
  else if (index === MSR_EFER) value = BigInt(state.get(EFER) >>> 0);
  else if (index === MSR_TSC) value = timeStamp(cpu, record);
  else value = cpu.bus.readMsr(index);
  if (value === null) return generalProtection(cpu);
  setEdxEax(cpu, value);
  return NEXT;
});

export function setEdxEax(cpu: Cpu, value: bigint): void {
  cpu.state.setPair(RAX, low(value), 0);
  cpu.state.setPair(RDX, high(value), 0);
}

export function timeStamp(cpu: Cpu, record: number): bigint {
  return BigInt.asUintN(64, BigInt(cpu.now(record)) + cpu.state.big(TSC_OFFSET));
}

const wrmsr = supervisor((cpu, record) => {
  const { state } = cpu;
  const index = state.get(RCX) >>> 0;
  const lo = state.get(RAX);
  const hi = state.get(RDX);
  const plain = PLAIN_MSRS.get(index);
  if (plain) {
    if (plain[1] && !cpu.memory.isCanonical(hi)) return generalProtection(cpu);
    if (index === 0x277 && !isPat(lo, hi)) return generalProtection(cpu);
    state.setPair(plain[0], lo, hi);
    if (index === 0xc0000100 || index === 0xc0000101) segmentsChanged(cpu);
    return NEXT;
  }
  if (index === MSR_EFER) return writeEfer(cpu, lo, hi);
  if (index === MSR_TSC) {
    state.setBig(TSC_OFFSET, toBigInt(lo, hi) - BigInt(cpu.now(record)));
    cpu.bus.writeMsr(index, toBigInt(lo, hi));
    return NEXT;
  }
  return cpu.bus.writeMsr(index, toBigInt(lo, hi)) ? LEAVE : generalProtection(cpu);
});

/** Each of the eight bytes names a memory type: 0, 1, 4, 5, 6 or 7. */
function isPat(lo: number, hi: number): boolean {
  for (const word of [lo, hi]) {
    for (let shift = 0; shift < 32; shift += 8) {
      const type = (word >>> shift) & 255;
      if (type > 7 || type === 2 || type === 3) return false;
    }
  }
  return true;
}

function writeEfer(cpu: Cpu, lo: number, hi: number): number {
  const { state } = cpu;
  const old = state.get(EFER);
  if (hi !== 0) return generalProtection(cpu);
  if ((lo ^ old) & EFER_LME && state.get(CR0) & CR0_PG) return generalProtection(cpu);
  const value = (lo & ~EFER_LMA) | (old & EFER_LMA);
  return change(cpu, CR_EFER, value, 0, () => {
    state.set(EFER, value);
    cpu.tlb.flush();
  });
}

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
    if (!memory.isCanonical(memory.hi)) return generalProtection(cpu);
    state.set(limit, newLimit);
    state.setPair(base, memory.lo, memory.hi);
    return NEXT;
  });

const segmentStore = (index: number) =>
  withUmip((cpu, record) => writeOperand(cpu, record, selectorOf(cpu, index), 0, 2, sizeOf(cpu, record)));

/** LLDT and LTR: a system descriptor, of 16 bytes in long mode. */
const systemLoad = (index: number, type: number) =>
  supervisor((cpu, record) => {
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
    if (d.hi & D_MEMORY || typeOf(d.hi) !== type) return generalProtection(cpu, error);
    if (!(d.hi & D_PRESENT)) return fault(cpu, VECTOR_NP, error);
    const at = descriptorAddress(cpu, selector) as [number, number];
    let baseHi = 0;
    if (state.longMode) {
      if (!memory.loadAt(at[0], at[1], 8, 8, ACCESS_IMPLICIT)) return FAULT;
      baseHi = memory.lo;
      if (!memory.isCanonical(baseHi)) return generalProtection(cpu, error);
    }
    if (index === TR) {
      d.hi |= 0x200;
      if (!memory.store((at[0] + 4) | 0, at[1], 4, ACCESS_IMPLICIT | ACCESS_WRITE, d.hi)) return FAULT;
    }
    setSegmentRaw(cpu, index, selector, d.hi & 0x00f0ff00, limitOf(d), baseOf(d), baseHi);
    return NEXT;
  });

const moveFromSegment: HelperFunction = (cpu, record) => {
  const index = field(cpu, record, 1);
  if (index > 5) return invalidOpcode(cpu);
  return writeOperand(cpu, record, selectorOf(cpu, index), 0, 2, sizeOf(cpu, record));
};

function loadAndShadow(cpu: Cpu, index: number, selector: number): number {
  if (!loadSegment(cpu, index, selector)) return FAULT;
  if (index !== SS) return NEXT;
  cpu.state.set(SHADOW_ON, SHADOW_BEGINS);
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
    if (!cpu.memory.isCanonical(hi)) return generalProtection(cpu);
    state.setPair(HIDDEN_BASE + index * 8, state.get(from), hi);
    segmentsChanged(cpu);
    return NEXT;
  };
};

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
    if (!cpu.state.protectedMode) return invalidOpcode(cpu);
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
    if (!cpu.state.protectedMode) return invalidOpcode(cpu);
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

const invlpg = supervisor((cpu, record) => {
  const at = operandAddress(cpu, record);
  if (cpu.bus.invalidatePage(low(at), high(at))) cpu.tlb.flush();
  else cpu.tlb.flushPage(low(at), high(at));
  return cpu.memory.exitRequested ? LEAVE : NEXT;
});

function operandAddress(cpu: Cpu, record: number): bigint {
  const { state } = cpu;
  const base = state.big(state.bytes[record + 4]);
  const index = state.big(state.bytes[record + 5]) << BigInt(state.bytes[record + 6]);
  const displacement = state.view.getBigInt64(record + 24, true);
  const segment = state.big(state.bytes[record + 7]);
  return BigInt.asUintN(cpu.mode === 2 ? 64 : 32, base + index + displacement + segment);
}

const invpcid = supervisor((cpu, record) => {
  const { state, memory } = cpu;
  const type = field(cpu, record, 0);
  const kind = state.get(type);
  if (state.high(type) !== 0 || kind >>> 0 > 3) return generalProtection(cpu);
  if (!loadOperand(cpu, record, 0, 8)) return FAULT;
  const pcid = memory.lo;
  if (memory.hi !== 0 || pcid & ~0xfff) return generalProtection(cpu);
  if (!loadOperand(cpu, record, 8, 8)) return FAULT;
  if (kind === 0 && !memory.isCanonical(memory.hi)) return generalProtection(cpu);
  if (kind < 2 && pcid !== 0 && !(state.get(CR4) & CR4_PCIDE)) return generalProtection(cpu);
  if (!cpu.bus.invalidatePcid(kind, pcid, memory.lo, memory.hi)) return generalProtection(cpu);
  cpu.tlb.flush();
  return NEXT;
});

const nothing = supervisor(() => NEXT);

export const CONTROL: Record<string, HelperFunction> = {
  moveFromControl,
  moveToControl,
  moveFromDebug,
  moveToDebug,
  clts,
  lmsw,
  smsw,
  rdmsr,
  wrmsr,
  sgdt: tableStore(GDTR_BASE, GDTR_LIMIT),
  sidt: tableStore(IDTR_BASE, IDTR_LIMIT),
  lgdt: tableLoad(GDTR_BASE, GDTR_LIMIT),
  lidt: tableLoad(IDTR_BASE, IDTR_LIMIT),
  sldt: segmentStore(LDTR),
  str: segmentStore(TR),
  lldt: systemLoad(LDTR, 2),
  ltr: (cpu, record) => systemLoad(TR, 9)(cpu, record),
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
  lar,
  lsl,
  verr: verify(false),
  verw: verify(true),
  invlpg,
  invpcid,
  wbinvd: nothing,
};
