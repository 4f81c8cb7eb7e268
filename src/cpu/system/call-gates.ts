/** Call gates: of 16 and 32 bits in protected mode, of 64 bits in long mode. */
import { ACCESS_IMPLICIT } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import { ripOf } from '../exceptions.ts';
import { pushAll } from '../interrupt-gates.ts';
import { carryInto } from '../memory-port.ts';
import {
  D_BIG,
  D_CODE,
  D_CONFORMING,
  D_LONG,
  D_MEMORY,
  D_PRESENT,
  type Descriptor,
  descriptorAddress,
  dplOf,
  FLAT_DATA,
  markAccessed,
  mayContinueAt,
  readDescriptor,
  SEGMENT_LIMIT_OF_TR,
  segmentsChanged,
  selectorOf,
  setCode,
  setFlat,
  setSegment,
  VECTOR_GP,
  VECTOR_NP,
  VECTOR_SS,
  VECTOR_TS,
} from '../segments.ts';
import { CPL, CS, HIDDEN_BASE, RSP, SS, SS_BASE, STACK_MASK, TR } from '../state.ts';
import { FAULT, fault, generalProtection, JUMP, programAccess } from './outcome.ts';
import { movePointer, poke } from './stack-access.ts';
import { type InnerStack, innerStack } from './task-state.ts';

/** Goes through the gate that `selector` names, `gate` its descriptor, whose privilege has been checked. */
export function throughGate(cpu: Cpu, selector: number, gate: Descriptor, call: boolean): number {
  const { state } = cpu;
  const error = selector & 0xfffc;
  if (!(gate.hi & D_PRESENT)) return fault(cpu, VECTOR_NP, error);
  let offset = (gate.lo & 0xffff) | (gate.hi & 0x800 ? gate.hi & 0xffff0000 : 0);
  let offsetHi = 0;
  if (state.longMode) {
    const at = descriptorAddress(cpu, selector) as [number, number];
    if (!cpu.memory.loadAt(at[0], at[1], 8, 8, ACCESS_IMPLICIT)) return FAULT;
    // The second half has no type.
    if (cpu.memory.hi & 0x1f00) return generalProtection(cpu, error);
    offsetHi = cpu.memory.lo;
  }
  const target = gate.lo >>> 16;
  const code = gateCode(cpu, target, call);
  if (!code) return FAULT;
  const cpl = state.get(CPL);
  const inwards = call && !(code.hi & D_CONFORMING) && dplOf(code.hi) < cpl;
  const newCpl = inwards ? dplOf(code.hi) : cpl;
  if (!mayContinueAt(cpu, code, offset, offsetHi)) return generalProtection(cpu);
  const bytes = state.longMode ? 8 : gate.hi & 0x800 ? 4 : 2;
  const pushed = !call || (inwards ? pushInwards(cpu, newCpl, bytes, gate.hi & 31) : pushHere(cpu, bytes));
  if (!pushed || !markAccessed(cpu, target, code)) return FAULT;
  if (pushed !== true) pushed();
  setCode(cpu, target, code, newCpl);
  segmentsChanged(cpu);
  if (bytes === 2) offset &= 0xffff;
  cpu.setRip(offset, offsetHi);
  return JUMP;
}

function gateCode(cpu: Cpu, selector: number, call: boolean): Descriptor | null {
  const { state } = cpu;
  if ((selector & 0xfffc) === 0) {
    fault(cpu, VECTOR_GP);
    return null;
  }
  const d = readDescriptor(cpu, selector);
  if (!d) return null;
  const cpl = state.get(CPL);
  const isCode = (d.hi & (D_MEMORY | D_CODE)) === (D_MEMORY | D_CODE);
  const level = call || d.hi & D_CONFORMING ? dplOf(d.hi) <= cpl : dplOf(d.hi) === cpl;
  const long = !state.longMode || (d.hi & (D_LONG | D_BIG)) === D_LONG;
  if (!isCode || !level || !long) {
    fault(cpu, VECTOR_GP, selector & 0xfffc);
    return null;
  }
  if (!(d.hi & D_PRESENT)) {
    fault(cpu, VECTOR_NP, selector & 0xfffc);
    return null;
  }
  return d;
}

/** Pushes CS and the return address; what is left to be done then, or false after an exception. */
function pushHere(cpu: Cpu, bytes: number): false | (() => void) {
  const [lo, hi] = ripOf(cpu);
  if (!poke(cpu, -bytes, bytes, selectorOf(cpu, CS), 0) || !poke(cpu, -2 * bytes, bytes, lo, hi)) return false;
  return () => movePointer(cpu, -2 * bytes);
}

/** The same onto the stack of an inner ring, with the old stack and `count` parameters from it. */
function pushInwards(cpu: Cpu, cpl: number, bytes: number, count: number): false | (() => void) {
  if (bytes === 8) return pushLong(cpu, cpl);
  const { state, memory } = cpu;
  const stack = innerStack(cpu, cpl, 0);
  if (!stack) return false;
  const words = [selectorOf(cpu, SS), state.get(RSP)];
  for (let i = count - 1; i >= 0; i--) {
    const at = (((state.get(RSP) + i * bytes) & state.get(STACK_MASK)) + state.get(SS_BASE)) | 0;
    if (!memory.load(at, state.high(SS_BASE), bytes, programAccess(cpu), true)) return false;
    words.push(memory.lo);
  }
  words.push(selectorOf(cpu, CS), ripOf(cpu)[0]);
  const pointer = pushAll(cpu, stack, words, bytes, cpl, 0);
  if (pointer === null || !markAccessed(cpu, stack.selector, stack.descriptor)) return false;
  return () => takeStack(cpu, stack, pointer, cpl);
}

function takeStack(cpu: Cpu, stack: InnerStack, pointer: number, cpl: number): void {
  const { state } = cpu;
  const big = stack.descriptor.hi & D_BIG;
  state.setPair(RSP, big ? pointer : (state.get(RSP) & 0xffff0000) | (pointer & 0xffff), 0);
  setSegment(cpu, SS, (stack.selector & 0xfffc) | cpl, stack.descriptor);
}

function pushLong(cpu: Cpu, cpl: number): false | (() => void) {
  const { state, memory } = cpu;
  const at = 4 + cpl * 8;
  if (at + 7 > state.get(SEGMENT_LIMIT_OF_TR) >>> 0)
    return !!fault(cpu, VECTOR_TS, selectorOf(cpu, TR) & 0xfffc) && false;
  const tss = HIDDEN_BASE + TR * 8;
  if (!memory.loadAt(state.get(tss), state.high(tss), at, 8, ACCESS_IMPLICIT)) return false;
  const { lo, hi } = memory;
  if (!memory.isCanonical(hi)) {
    fault(cpu, VECTOR_SS);
    return false;
  }
  const words: [number, number][] = [
    [selectorOf(cpu, SS), 0],
    [state.get(RSP), state.high(RSP)],
    [selectorOf(cpu, CS), 0],
    ripOf(cpu),
  ];
  for (const [i, word] of words.entries()) {
    const distance = -8 * (i + 1);
    if (!memory.store((lo + distance) | 0, carryInto(lo, hi, distance), 8, 0, word[0], word[1], true)) return false;
  }
  return () => {
    state.setPair(RSP, (lo - 32) | 0, carryInto(lo, hi, -32));
    setFlat(cpu, SS, cpl, FLAT_DATA | (cpl << 13));
  };
}
