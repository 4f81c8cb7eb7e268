/** Far returns and IRET. */
import { ACCESS_IMPLICIT } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import { carryInto } from '../memory-port.ts';
import { R_IMMEDIATE } from '../record.ts';
import {
  D_BIG,
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
  selectorOf,
  setCode,
  setFlat,
  setSegment,
  VECTOR_GP,
  VECTOR_NP,
  VECTOR_SS,
  VECTOR_TS,
  mayContinueAt,
  loadRealSegment,
  segmentsChanged,
  setRealSegment,
} from '../segments.ts';
import {
  CPL,
  CS,
  DS,
  ES,
  FLAGS,
  FS,
  GS,
  HIDDEN_BASE,
  NMI_BLOCKED,
  RSP,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENTS,
  SS,
  TR,
} from '../state.ts';
import { FAULT, fault, generalProtection, type HelperFunction, JUMP, LEAVE, sizeOf } from './outcome.ts';
import { iopl, mergeFlags, movePointer, peek } from './stack-access.ts';
import { taskDescriptor, toTask } from './task-switch.ts';

const RFLAGS_TF = 1 << 8;
const RFLAGS_IOPL = 3 << 12;
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

/** On a return outwards, data segments that the outer level may not have become null, and null selectors of 1 to 3 become 0. */
function dropSegments(cpu: Cpu): void {
  const cpl = cpu.state.get(CPL);
  for (const index of [ES, DS, FS, GS]) {
    const attributes = cpu.state.get(SEGMENTS + index * SEGMENT_BYTES + SEGMENT_ATTRIBUTES);
    if (attributes === 0 && selectorOf(cpu, index) === 0) continue;
    const conforming = (attributes & (D_CODE | D_CONFORMING)) === (D_CODE | D_CONFORMING);
    if (!conforming && dplOf(attributes) < cpl) loadNull(cpu, index, 0);
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
  // A narrow stack pointer leaves the rest of ESP alone.
  const narrow = !longTarget && stack !== null && !(stack.hi & D_BIG);
  const lo = narrow ? (state.get(RSP) & 0xffff0000) | (frame.spLo & 0xffff) : frame.spLo;
  state.setPair(RSP, lo, longTarget ? frame.spHi : 0);
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
  if (state.realSegments) return goBackReal(cpu, words, 2 * bytes + drop);
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
  if (state.virtual8086 && iopl(cpu) < 3) return generalProtection(cpu);
  if (state.rflags & RFLAGS_NT && !state.realSegments) {
    if (state.longMode) return generalProtection(cpu);
    state.set(NMI_BLOCKED, 0);
    return returnToTask(cpu);
  }
  const long = cpu.mode === 2;
  const words = readFrame(cpu, bytes, [0, 1, 2]);
  // An IRET that faults lets NMIs in as well.
  if (!cpu.memory.exitRequested) state.set(NMI_BLOCKED, 0);
  if (!words) return FAULT;
  if (state.realSegments) {
    const keptIopl = state.virtual8086 ? RFLAGS_IOPL : 0;
    const flags = (words[4] & ~keptIopl) | (state.rflags & keptIopl);
    state.rflags = keepResume(cpu, mergeFlags(cpu, flags, bytes));
    goBackReal(cpu, words, 3 * bytes);
    return LEAVE;
  }
  const selector = words[2] & 0xffff;
  if (!state.longMode && words[4] & RFLAGS_VM && bytes === 4 && state.get(CPL) === 0) return toVirtual8086(cpu, words);
  const code = returnCode(cpu, selector);
  if (!code) return FAULT;
  const withStack = long || (selector & 3) > state.get(CPL);
  const outer = withStack ? readFrame(cpu, bytes, [3, 4]) : [0, 0, 0, 0];
  if (!outer) return FAULT;
  const flags = words[4];
  const setFlags = () => {
    state.rflags = keepResume(cpu, mergeFlags(cpu, flags, bytes));
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
  return outcome === JUMP && state.get(FLAGS) & (RFLAGS_TF | RFLAGS_RF) ? LEAVE : outcome;
};

/** RF is kept as long as some breakpoint could ask for it. */
const keepResume = (cpu: Cpu, flags: number): number => (cpu.breakpoints.any ? flags : flags & ~RFLAGS_RF);

/** IRET with NT: to the task that the back link names. */
function returnToTask(cpu: Cpu): number {
  const { state, memory } = cpu;
  if (!memory.load(state.get(HIDDEN_BASE + TR * 8), 0, 2, ACCESS_IMPLICIT)) return FAULT;
  const selector = memory.lo;
  const task = taskDescriptor(cpu, selector, true, VECTOR_TS, 0);
  return task ? toTask(cpu, selector, task, 'return') : FAULT;
}

/** IRET of ring 0 whose flags have VM. `words`: EIP, CS and EFLAGS, a pair each. */
function toVirtual8086(cpu: Cpu, words: readonly number[]): number {
  const { state } = cpu;
  const rest = readFrame(cpu, 4, [3, 4, 5, 6, 7, 8]);
  if (!rest) return FAULT;
  const [esp, ss, es, ds, fs, gs] = rest.filter((_, i) => i % 2 === 0);
  state.rflags = keepResume(cpu, mergeFlags(cpu, words[4], 4)) | RFLAGS_VM;
  state.set(CPL, 3);
  for (const [index, selector] of [es, words[2], ss, ds, fs, gs].entries()) setRealSegment(cpu, index, selector);
  state.setPair(RSP, esp, 0);
  segmentsChanged(cpu);
  cpu.setRip(words[0] & 0xffff, 0);
  return LEAVE;
}

export const RETURNS: Record<string, HelperFunction> = { farReturn, iret };
