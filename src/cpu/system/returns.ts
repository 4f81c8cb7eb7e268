/** Far returns and IRET. */
import type { Cpu } from '../cpu.ts';
import { carryInto } from '../memory-port.ts';
import { R_IMMEDIATE } from '../record.ts';
import {
  D_CODE,
  D_CONFORMING,
  D_LONG,
  D_MEMORY,
  D_PRESENT,
  D_WRITABLE,
  type Descriptor,
  dplOf,
  FLAT_DATA,
  loadNull,
  markAccessed,
  readDescriptor,
  setCode,
  setFlat,
  setSegment,
  VECTOR_GP,
  VECTOR_NP,
  VECTOR_SS,
  mayContinueAt,
  loadRealSegment,
} from '../segments.ts';
import {
  CPL,
  CS,
  DS,
  ES,
  FLAGS,
  FS,
  GS,
  NMI_BLOCKED,
  RSP,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENTS,
  SS,
} from '../state.ts';
import { FAULT, fault, generalProtection, type HelperFunction, JUMP, LEAVE, sizeOf } from './outcome.ts';
import { mergeFlags, movePointer, peek } from './stack-access.ts';

const RFLAGS_TF = 1 << 8;
const RFLAGS_NT = 1 << 14;
const RFLAGS_RF = 1 << 16;
const RFLAGS_VM = 1 << 17;

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
  if (!mayContinueAt(cpu, code, frame.lo, frame.hi)) return generalProtection(cpu);
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

function goBackReal(cpu: Cpu, words: readonly number[], drop: number): number {
  movePointer(cpu, drop);
  loadRealSegment(cpu, CS, words[2] & 0xffff);
  cpu.setRip(words[0], 0);
  return JUMP;
}

const farReturn: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  const bytes = sizeOf(cpu, record);
  const drop = state.view.getUint16(record + R_IMMEDIATE, true);
  const words = readFrame(cpu, bytes, [0, 1]);
  if (!words) return FAULT;
  if (!state.protectedMode) return goBackReal(cpu, words, 2 * bytes + drop);
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
  // An IRET that faults lets NMIs in as well.
  if (!cpu.memory.exitRequested) state.set(NMI_BLOCKED, 0);
  if (!words) return FAULT;
  if (!state.protectedMode) {
    state.rflags = mergeFlags(cpu, words[4], bytes) & ~RFLAGS_RF;
    goBackReal(cpu, words, 3 * bytes);
    return LEAVE;
  }
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
  return outcome === JUMP && state.get(FLAGS) & RFLAGS_TF ? LEAVE : outcome;
};

export const RETURNS: Record<string, HelperFunction> = { farReturn, iret };
