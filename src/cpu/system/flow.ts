/** Far transfers, interrupts by instruction, returns from them, system calls. */
import type { Cpu } from '../cpu.ts';
import { deliver, ripOf } from '../exceptions.ts';
import { carryInto } from '../memory-port.ts';
import { META_WIDE, R_IMMEDIATE } from '../record.ts';
import {
  D_CODE,
  D_CONFORMING,
  D_LONG,
  D_MEMORY,
  D_PRESENT,
  D_WRITABLE,
  type Descriptor,
  dplOf,
  FLAT_CODE_32,
  FLAT_CODE_64,
  FLAT_DATA,
  loadNull,
  markAccessed,
  readDescriptor,
  segmentsChanged,
  selectorOf,
  setCode,
  setFlat,
  setSegment,
  VECTOR_GP,
  VECTOR_NP,
  VECTOR_SS,
} from '../segments.ts';
import {
  CPL,
  CS,
  CSTAR,
  DS,
  EFER,
  ES,
  FS,
  FLAGS,
  GS,
  LSTAR,
  NMI_BLOCKED,
  R11,
  RCX,
  RDX,
  RSP,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENTS,
  SFMASK,
  SS,
  SS_BASE,
  STACK_MASK,
  STAR,
  SYSENTER_CS,
  SYSENTER_EIP,
  SYSENTER_ESP,
} from '../state.ts';
import {
  FAULT,
  fault,
  generalProtection,
  type HelperFunction,
  invalidOpcode,
  isMemory,
  JUMP,
  LEAVE,
  loadOperand,
  meta,
  programAccess,
  sizeOf,
} from './outcome.ts';

const EFER_SCE = 1;
const RFLAGS_IF = 1 << 9;
const RFLAGS_IOPL = 3 << 12;
const RFLAGS_NT = 1 << 14;
const RFLAGS_RF = 1 << 16;
const RFLAGS_VM = 1 << 17;
/** What IRET and POPF may change at all: all but VM, VIF, VIP and the reserved ones. */
const RFLAGS_CHANGEABLE = 0x257fd5;

/** New RFLAGS after POPF or IRET at a privilege level: IOPL needs ring 0, IF needs IOPL. */
export function mergeFlags(cpu: Cpu, value: number, bytes: number): number {
  const { state } = cpu;
  const old = state.rflags;
  const cpl = state.get(CPL);
  let mask = RFLAGS_CHANGEABLE;
  if (cpl > 0) mask &= ~RFLAGS_IOPL;
  if (cpl > ((old >>> 12) & 3)) mask &= ~RFLAGS_IF;
  if (bytes === 2) mask &= 0xffff;
  return (old & ~mask) | (value & mask);
}

/** Loads from the stack at a distance from its pointer. */
function peek(cpu: Cpu, distance: number, bytes: number): boolean {
  const { state, memory } = cpu;
  const lo = (state.get(RSP) + distance) | 0;
  const hi = carryInto(state.get(RSP), state.high(RSP), distance);
  if (cpu.mode === 2) return memory.load(lo, hi, bytes, programAccess(cpu), true);
  return memory.load(((lo & state.get(STACK_MASK)) + state.get(SS_BASE)) | 0, 0, bytes, programAccess(cpu), true);
}

function movePointer(cpu: Cpu, distance: number): void {
  const { state } = cpu;
  const hi = carryInto(state.get(RSP), state.high(RSP), distance);
  state.setPair(RSP, (state.get(RSP) + distance) | 0, cpu.mode === 2 ? hi : 0);
}

/** Pushes at a distance below the pointer without moving it. */
function poke(cpu: Cpu, distance: number, bytes: number, lo: number, hi: number): boolean {
  const { state, memory } = cpu;
  const at = (state.get(RSP) + distance) | 0;
  const atHi = carryInto(state.get(RSP), state.high(RSP), distance);
  if (cpu.mode === 2) return memory.store(at, atHi, bytes, programAccess(cpu), lo, hi, true);
  return memory.store((at + state.get(SS_BASE)) | 0, 0, bytes, programAccess(cpu), lo, hi, true);
}

/** A code segment that JMP or CALL may go to; null after an exception. */
function directCode(cpu: Cpu, selector: number): Descriptor | null {
  const cpl = cpu.state.get(CPL);
  if ((selector & 0xfffc) === 0) {
    fault(cpu, VECTOR_GP);
    return null;
  }
  const d = readDescriptor(cpu, selector);
  if (!d) return null;
  const code = (d.hi & (D_MEMORY | D_CODE)) === (D_MEMORY | D_CODE);
  const allowed = d.hi & D_CONFORMING ? dplOf(d.hi) <= cpl : dplOf(d.hi) === cpl && (selector & 3) <= cpl;
  // Gates and task state segments aren't built.
  if (!code || !allowed) {
    fault(cpu, VECTOR_GP, selector & 0xfffc);
    return null;
  }
  if (!(d.hi & D_PRESENT)) {
    fault(cpu, VECTOR_NP, selector & 0xfffc);
    return null;
  }
  return markAccessed(cpu, selector, d) ? d : null;
}

/** Offset and selector of a far operand: an immediate, or memory. */
function farTarget(cpu: Cpu, record: number): { selector: number; lo: number; hi: number } | null {
  const { state, memory } = cpu;
  const bytes = sizeOf(cpu, record);
  if (!isMemory(cpu, record)) {
    const lo = state.view.getInt32(record + R_IMMEDIATE, true);
    const selector = state.view.getUint16(record + R_IMMEDIATE + 4, true);
    return { selector, lo: bytes === 2 ? lo & 0xffff : lo, hi: 0 };
  }
  if (!loadOperand(cpu, record, bytes, 2)) return null;
  const selector = memory.lo;
  return loadOperand(cpu, record, 0, bytes) ? { selector, lo: memory.lo, hi: memory.hi } : null;
}

const farJump: HelperFunction = (cpu, record) => {
  const target = farTarget(cpu, record);
  const code = target && directCode(cpu, target.selector);
  if (!code) return FAULT;
  setCode(cpu, target.selector, code, cpu.state.get(CPL));
  cpu.setRip(target.lo, target.hi);
  return JUMP;
};

const farCall: HelperFunction = (cpu, record) => {
  const target = farTarget(cpu, record);
  const code = target && directCode(cpu, target.selector);
  if (!code) return FAULT;
  const bytes = sizeOf(cpu, record);
  const [lo, hi] = ripOf(cpu);
  if (!poke(cpu, -bytes, bytes, selectorOf(cpu, CS), 0) || !poke(cpu, -2 * bytes, bytes, lo, hi)) return FAULT;
  movePointer(cpu, -2 * bytes);
  setCode(cpu, target.selector, code, cpu.state.get(CPL));
  cpu.setRip(target.lo, target.hi);
  return JUMP;
};

/** A code segment to return to; null after an exception. */
function returnCode(cpu: Cpu, selector: number): Descriptor | null {
  const cpl = cpu.state.get(CPL);
  const rpl = selector & 3;
  if ((selector & 0xfffc) === 0) {
    fault(cpu, VECTOR_GP);
    return null;
  }
  const d = readDescriptor(cpu, selector);
  if (!d) return null;
  const code = (d.hi & (D_MEMORY | D_CODE)) === (D_MEMORY | D_CODE);
  const level = d.hi & D_CONFORMING ? dplOf(d.hi) <= rpl : dplOf(d.hi) === rpl;
  if (!code || rpl < cpl || !level) {
    fault(cpu, VECTOR_GP, selector & 0xfffc);
    return null;
  }
  if (!(d.hi & D_PRESENT)) {
    fault(cpu, VECTOR_NP, selector & 0xfffc);
    return null;
  }
  return markAccessed(cpu, selector, d) ? d : null;
}

/** The stack segment that comes with a return: null descriptor when the selector is null; false after an exception. */
function returnStack(cpu: Cpu, selector: number, rpl: number, longTarget: boolean): Descriptor | null | false {
  if ((selector & 0xfffc) === 0) {
    if (longTarget && rpl !== 3 && (selector & 3) === rpl) return null;
    fault(cpu, VECTOR_GP);
    return false;
  }
  const d = readDescriptor(cpu, selector);
  if (!d) return false;
  const right = (d.hi & (D_MEMORY | D_CODE | D_WRITABLE)) === (D_MEMORY | D_WRITABLE);
  if (!right || dplOf(d.hi) !== rpl || (selector & 3) !== rpl) {
    fault(cpu, VECTOR_GP, selector & 0xfffc);
    return false;
  }
  if (!(d.hi & D_PRESENT)) {
    fault(cpu, VECTOR_SS, selector & 0xfffc);
    return false;
  }
  return markAccessed(cpu, selector, d) ? d : false;
}

/** On a return outwards, data segments that the outer level may not have become null. */
function dropSegments(cpu: Cpu): void {
  const cpl = cpu.state.get(CPL);
  for (const index of [ES, DS, FS, GS]) {
    const attributes = cpu.state.get(SEGMENTS + index * SEGMENT_BYTES + SEGMENT_ATTRIBUTES);
    const conforming = (attributes & (D_CODE | D_CONFORMING)) === (D_CODE | D_CONFORMING);
    if (attributes !== 0 && !conforming && dplOf(attributes) < cpl) loadNull(cpu, index, 0);
  }
}

interface Frame {
  readonly lo: number;
  readonly hi: number;
  readonly selector: number;
  readonly spLo: number;
  readonly spHi: number;
  readonly stackSelector: number;
}

/** Goes to where a frame says. `withStack`: it has a stack. `flags`: to set, once all checks are done. */
function goBack(
  cpu: Cpu,
  frame: Frame,
  withStack: boolean,
  code: Descriptor,
  setFlags: () => void,
  drop: number,
): number {
  const { state } = cpu;
  const rpl = frame.selector & 3;
  const outwards = rpl > state.get(CPL);
  if (!withStack) {
    movePointer(cpu, drop);
    setFlags();
    setCode(cpu, frame.selector, code, rpl);
    cpu.setRip(frame.lo, frame.hi);
    return JUMP;
  }
  const longTarget = state.longMode && (code.hi & D_LONG) !== 0;
  const stack = returnStack(cpu, frame.stackSelector, rpl, longTarget);
  if (stack === false) return FAULT;
  setFlags();
  if (stack) setSegment(cpu, SS, frame.stackSelector, stack);
  else setFlat(cpu, SS, frame.stackSelector, FLAT_DATA | (rpl << 13));
  setCode(cpu, frame.selector, code, rpl);
  state.setPair(RSP, frame.spLo, longTarget ? frame.spHi : 0);
  if (outwards) dropSegments(cpu);
  cpu.setRip(frame.lo, frame.hi);
  return JUMP;
}

function readFrame(cpu: Cpu, bytes: number, slots: readonly number[]): number[] | null {
  const words: number[] = [];
  for (const slot of slots) {
    if (!peek(cpu, slot * bytes, bytes)) return null;
    words.push(cpu.memory.lo, cpu.memory.hi);
  }
  return words;
}

const farReturn: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  const bytes = sizeOf(cpu, record);
  const drop = state.view.getUint16(record + R_IMMEDIATE, true);
  const words = readFrame(cpu, bytes, [0, 1]);
  if (!words) return FAULT;
  const selector = words[2] & 0xffff;
  const code = returnCode(cpu, selector);
  if (!code) return FAULT;
  const outwards = (selector & 3) > state.get(CPL);
  let outer = [0, 0, 0, 0];
  if (outwards) {
    if (!peek(cpu, 2 * bytes + drop, bytes)) return FAULT;
    outer = [cpu.memory.lo, cpu.memory.hi];
    if (!peek(cpu, 3 * bytes + drop, bytes)) return FAULT;
    outer.push(cpu.memory.lo);
  }
  const frame = {
    lo: words[0],
    hi: words[1],
    selector,
    spLo: (outer[0] + drop) | 0,
    spHi: carryInto(outer[0], outer[1], drop),
    stackSelector: outer[2] & 0xffff,
  };
  return goBack(cpu, frame, outwards, code, () => {}, 2 * bytes + drop);
};

const iret: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  const bytes = sizeOf(cpu, record);
  if (state.rflags & RFLAGS_NT) {
    if (state.longMode) return generalProtection(cpu);
    cpu.unsupported = 'a task return';
    return generalProtection(cpu);
  }
  const long = cpu.mode === 2;
  const words = readFrame(cpu, bytes, [0, 1, 2]);
  if (!words) return FAULT;
  const selector = words[2] & 0xffff;
  if (!state.longMode && words[4] & RFLAGS_VM && bytes === 4) return generalProtection(cpu);
  const code = returnCode(cpu, selector);
  if (!code) return FAULT;
  const withStack = long || (selector & 3) > state.get(CPL);
  const outer = withStack ? readFrame(cpu, bytes, [3, 4]) : [0, 0, 0, 0];
  if (!outer) return FAULT;
  const flags = words[4];
  const setFlags = () => {
    state.rflags = mergeFlags(cpu, flags, bytes) & ~(bytes === 2 ? 0 : RFLAGS_RF);
  };
  const frame = {
    lo: words[0],
    hi: words[1],
    selector,
    spLo: outer[0],
    spHi: outer[1],
    stackSelector: outer[2] & 0xffff,
  };
  const outcome = goBack(cpu, frame, withStack, code, setFlags, 3 * bytes);
  if (outcome === FAULT) return FAULT;
  state.set(NMI_BLOCKED, 0);
  return state.get(FLAGS) & 0x100 ? LEAVE : outcome;
};

function interrupt(cpu: Cpu, vector: number): number {
  return deliver(cpu, vector, 0, 'software') && !cpu.state.raised ? JUMP : FAULT;
}

const intN: HelperFunction = (cpu, record) => interrupt(cpu, cpu.state.bytes[record + R_IMMEDIATE]);
const int3: HelperFunction = (cpu) => interrupt(cpu, 3);
const int1: HelperFunction = (cpu) => interrupt(cpu, 1);
const into: HelperFunction = (cpu) => (cpu.state.rflags & 0x800 ? interrupt(cpu, 4) : JUMP);

const syscall: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (!(state.get(EFER) & EFER_SCE)) return invalidOpcode(cpu);
  const long = cpu.mode === 2;
  const flags = state.rflags;
  const [lo, hi] = ripOf(cpu);
  const selector = state.high(STAR) & 0xfffc;
  state.setPair(RCX, lo, hi);
  if (state.longMode) state.setPair(R11, flags & ~RFLAGS_RF, 0);
  setFlat(cpu, CS, selector, state.longMode ? FLAT_CODE_64 : FLAT_CODE_32);
  setFlat(cpu, SS, selector + 8, FLAT_DATA);
  state.set(CPL, 0);
  state.rflags = state.longMode
    ? flags & ~state.get(SFMASK) & ~RFLAGS_RF
    : flags & ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
  segmentsChanged(cpu);
  if (state.longMode) cpu.setRip(state.get(long ? LSTAR : CSTAR), state.high(long ? LSTAR : CSTAR));
  else cpu.setRip(state.get(STAR), 0);
  return JUMP;
};

const sysret: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  if (!(state.get(EFER) & EFER_SCE)) return invalidOpcode(cpu);
  if (state.get(CPL) !== 0 || !state.protectedMode) return generalProtection(cpu);
  const selector = state.high(STAR) >>> 16;
  const wide = (meta(cpu, record) & META_WIDE) !== 0;
  const ring3 = 3 << 13;
  setFlat(cpu, CS, (wide ? selector + 16 : selector) | 3, (wide ? FLAT_CODE_64 : FLAT_CODE_32) | ring3);
  setFlat(cpu, SS, (selector + 8) | 3, FLAT_DATA | ring3);
  state.set(CPL, 3);
  if (state.longMode) state.rflags = (state.get(R11) & RFLAGS_CHANGEABLE & ~RFLAGS_RF) | 2;
  else state.rflags |= RFLAGS_IF;
  segmentsChanged(cpu);
  cpu.setRip(state.get(RCX), wide ? state.high(RCX) : 0);
  return state.get(FLAGS) & 0x100 ? LEAVE : JUMP;
};

const sysenter: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (state.longMode && !cpu.sysenterInLongMode) return invalidOpcode(cpu);
  const selector = state.get(SYSENTER_CS) & 0xfffc;
  if (!state.protectedMode || selector === 0) return generalProtection(cpu);
  const long = state.longMode;
  setFlat(cpu, CS, selector, long ? FLAT_CODE_64 : FLAT_CODE_32);
  setFlat(cpu, SS, selector + 8, FLAT_DATA);
  state.set(CPL, 0);
  state.rflags &= ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
  segmentsChanged(cpu);
  state.setPair(RSP, state.get(SYSENTER_ESP), long ? state.high(SYSENTER_ESP) : 0);
  cpu.setRip(state.get(SYSENTER_EIP), long ? state.high(SYSENTER_EIP) : 0);
  return JUMP;
};

const sysexit: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  if (state.longMode && !cpu.sysenterInLongMode) return invalidOpcode(cpu);
  const selector = state.get(SYSENTER_CS) & 0xfffc;
  if (!state.protectedMode || selector === 0 || state.get(CPL) !== 0) return generalProtection(cpu);
  const wide = (meta(cpu, record) & META_WIDE) !== 0;
  const ring3 = 3 << 13;
  const target = wide ? selector + 32 : selector + 16;
  setFlat(cpu, CS, target | 3, (wide ? FLAT_CODE_64 : FLAT_CODE_32) | ring3);
  setFlat(cpu, SS, (target + 8) | 3, FLAT_DATA | ring3);
  state.set(CPL, 3);
  segmentsChanged(cpu);
  state.setPair(RSP, state.get(RCX), wide ? state.high(RCX) : 0);
  cpu.setRip(state.get(RDX), wide ? state.high(RDX) : 0);
  return JUMP;
};

export const FLOW: Record<string, HelperFunction> = {
  farJump,
  farCall,
  farReturn,
  iret,
  intN,
  int3,
  int1,
  into,
  syscall,
  sysret,
  sysenter,
  sysexit,
};
