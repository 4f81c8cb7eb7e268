/**
 * Delivery of exceptions and interrupts through the IDT. A fault on the way becomes the next thing to deliver, or a double
 * fault, or the end (shutdown), by the manuals' table.
 */
import { ACCESS_IMPLICIT, ACCESS_USER, EXIT_SHUTDOWN } from './bus.ts';
import type { Cpu } from './cpu.ts';
import { deliverProtected } from './interrupt-gates.ts';
import { carryInto } from './memory-port.ts';
import { deliverReal } from './real-mode.ts';
import {
  D_CODE,
  D_CONFORMING,
  D_LONG,
  D_MEMORY,
  D_PRESENT,
  dplOf,
  FLAT_DATA,
  markAccessed,
  readDescriptor,
  selectorOf,
  setCode,
  setFlat,
  VECTOR_GP,
  VECTOR_NP,
  VECTOR_SS,
  VECTOR_TS,
} from './segments.ts';
import {
  CPL,
  CS,
  CS_BASE,
  DR7,
  FLAGS,
  HIDDEN_BASE,
  IDTR_BASE,
  IDTR_LIMIT,
  LINEAR_RIP,
  NO_EXCEPTION,
  PENDING_ERROR,
  PENDING_VECTOR,
  RSP,
  SEGMENT_BYTES,
  SEGMENT_LIMIT,
  SEGMENTS,
  SHADOW_ON,
  SS,
  TR,
} from './state.ts';

const VECTOR_DB = 1;
const VECTOR_DF = 8;
const DR7_GD = 1 << 13;
const VECTOR_PF = 14;
const RFLAGS_TF = 1 << 8;
const RFLAGS_IF = 1 << 9;
const RFLAGS_NT = 1 << 14;
const RFLAGS_RF = 1 << 16;

/** `fault`: of an instruction. `trap`: #DB behind one. `software`: INT n. `external`: interrupts, NMI. */
export type EventKind = 'fault' | 'trap' | 'software' | 'external';

const HAS_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21]);
const CONTRIBUTORY = new Set([0, 10, 11, 12, 13]);

/** Delivers an event at LINEAR_RIP. False when the run has to end. */
export function deliver(cpu: Cpu, vector: number, error: number, kind: EventKind): boolean {
  const { memory } = cpu;
  const { notesHits } = memory;
  memory.notesHits = true;
  memory.delivering = true;
  const done = deliverAll(cpu, vector, error, kind);
  memory.delivering = false;
  memory.notesHits = notesHits;
  return done;
}

function deliverAll(cpu: Cpu, vector: number, error: number, kind: EventKind): boolean {
  const { state, memory } = cpu;
  cpu.taskSwitched = false;
  let nowVector = vector;
  let nowError = error;
  let nowKind = kind;
  for (;;) {
    const withError = nowKind === 'fault' && HAS_ERROR_CODE.has(nowVector);
    const done = state.longMode
      ? deliverLong(cpu, nowVector, withError, nowError, nowKind)
      : state.protectedMode
        ? deliverProtected(cpu, nowVector, withError, nowError, nowKind)
        : deliverReal(cpu, nowVector);
    if (done) return true;
    if (!state.raised) {
      // The bus wants to leave: the event waits in the state, INT n will be done again.
      if (memory.exitRequested && nowKind !== 'software') cpu.raise(nowVector, nowError, nowKind);
      return false;
    }
    const next = state.get(PENDING_VECTOR);
    // Stack faults of the delivery itself come without a selector.
    const outside = next === VECTOR_SS && nowKind !== 'software' ? 1 : 0;
    const nextError = state.get(PENDING_ERROR) | outside;
    state.set(PENDING_VECTOR, NO_EXCEPTION);
    if (nowKind === 'software') {
      // An ordinary fault of INT n.
      state.raise(next, nextError);
      return true;
    }
    if (nowVector === VECTOR_DF && nowKind === 'fault') {
      cpu.exitReason = EXIT_SHUTDOWN;
      return false;
    }
    const worse = nowKind === 'fault' && isDouble(nowVector, next);
    nowVector = worse ? VECTOR_DF : next;
    nowError = worse ? 0 : nextError;
    nowKind = 'fault';
  }
}

function isDouble(first: number, second: number): boolean {
  if (CONTRIBUTORY.has(first)) return CONTRIBUTORY.has(second);
  return first === VECTOR_PF && (CONTRIBUTORY.has(second) || second === VECTOR_PF);
}

/** Error code of a gate: table bit, vector, and EXT when the program isn't to blame. */
export function gateError(vector: number, kind: EventKind): number {
  return vector * 8 + 2 + (kind === 'software' ? 0 : 1);
}

export function refuse(cpu: Cpu, vector: number, error: number): false {
  cpu.state.raise(vector, error);
  return false;
}

function deliverLong(cpu: Cpu, vector: number, withError: boolean, error: number, kind: EventKind): boolean {
  const { state, memory } = cpu;
  const gate = vector * 16;
  const fault = gateError(vector, kind);
  if (gate + 15 > (state.get(IDTR_LIMIT) & 0xffff)) return refuse(cpu, VECTOR_GP, fault);
  const idtLo = state.get(IDTR_BASE);
  const idtHi = state.high(IDTR_BASE);
  if (!memory.loadAt(idtLo, idtHi, gate, 8, ACCESS_IMPLICIT)) return false;
  const lo = memory.lo;
  const hi = memory.hi;
  if (!memory.loadAt(idtLo, idtHi, gate + 8, 4, ACCESS_IMPLICIT)) return false;
  const offsetHi = memory.lo;
  const type = (hi >>> 8) & 31;
  if (type !== 14 && type !== 15) return refuse(cpu, VECTOR_GP, fault);
  if (kind === 'software' && dplOf(hi) < state.get(CPL)) return refuse(cpu, VECTOR_GP, fault);
  if (!(hi & D_PRESENT)) return refuse(cpu, VECTOR_NP, fault);
  const ext = kind === 'software' ? 0 : 1;
  const selector = lo >>> 16;
  const code = codeFor(cpu, selector, ext, true);
  if (!code) return false;
  const cpl = state.get(CPL);
  const newCpl = code.hi & D_CONFORMING ? cpl : dplOf(code.hi);
  let spLo = state.get(RSP);
  let spHi = state.high(RSP);
  const ist = hi & 7;
  if (ist !== 0 || newCpl < cpl) {
    const at = ist !== 0 ? 28 + ist * 8 : 4 + newCpl * 8;
    if (at + 7 > state.get(SEGMENTS + TR * SEGMENT_BYTES + SEGMENT_LIMIT) >>> 0) {
      return refuse(cpu, VECTOR_TS, (selectorOf(cpu, TR) & 0xfffc) | ext);
    }
    if (!memory.loadAt(state.get(HIDDEN_BASE + TR * 8), state.high(HIDDEN_BASE + TR * 8), at, 8, ACCESS_IMPLICIT)) {
      return false;
    }
    spLo = memory.lo;
    spHi = memory.hi;
    if (!memory.isCanonical(spHi)) return refuse(cpu, VECTOR_SS, ext);
  }
  spLo &= ~15;
  const words: [number, number][] = [
    [selectorOf(cpu, SS), 0],
    [state.get(RSP), state.high(RSP)],
    [pushedFlags(cpu, kind), 0],
    [selectorOf(cpu, CS), 0],
    ripOf(cpu),
  ];
  if (withError) words.push([error, 0]);
  const access = newCpl === 3 ? ACCESS_USER : 0;
  for (let i = 0; i < words.length; i++) {
    const distance = -8 * (i + 1);
    const at = (spLo + distance) | 0;
    if (!memory.store(at, carryInto(spLo, spHi, distance), 8, access, words[i][0], words[i][1], true)) return false;
  }
  const distance = -8 * words.length;
  if (!markAccessed(cpu, selector, code)) return false;
  state.setPair(RSP, (spLo + distance) | 0, carryInto(spLo, spHi, distance));
  setCode(cpu, selector, code, newCpl);
  if (newCpl !== cpl) setFlat(cpu, SS, newCpl, FLAT_DATA | (newCpl << 13));
  enterHandler(cpu, (lo & 0xffff) | (hi & 0xffff0000), offsetHi, (type & 1) === 0, vector);
  return true;
}

/** RF keeps an instruction breakpoint from stopping the instruction that is begun again. */
export function pushedFlags(cpu: Cpu, kind: EventKind): number {
  return cpu.state.rflags | (kind === 'fault' ? RFLAGS_RF : 0);
}

/** Offset of LINEAR_RIP in CS. */
export function ripOf(cpu: Cpu): [number, number] {
  const { state } = cpu;
  if (cpu.mode === 2) return [state.get(LINEAR_RIP), state.high(LINEAR_RIP)];
  return [(state.get(LINEAR_RIP) - state.get(CS_BASE)) | 0, 0];
}

export function codeFor(cpu: Cpu, selector: number, ext: number, long: boolean): { lo: number; hi: number } | null {
  if ((selector & 0xfffc) === 0) {
    refuse(cpu, VECTOR_GP, ext);
    return null;
  }
  const code = readDescriptor(cpu, selector, VECTOR_GP, ext);
  if (!code) return null;
  const memoryCode = D_MEMORY | D_CODE;
  const wrong = (code.hi & memoryCode) !== memoryCode || dplOf(code.hi) > cpu.state.get(CPL);
  if (wrong || (long && !(code.hi & D_LONG))) {
    refuse(cpu, VECTOR_GP, (selector & 0xfffc) | ext);
    return null;
  }
  if (!(code.hi & D_PRESENT)) {
    refuse(cpu, VECTOR_NP, (selector & 0xfffc) | ext);
    return null;
  }
  return code;
}

export function enterHandler(cpu: Cpu, lo: number, hi: number, clearInterruptFlag: boolean, vector: number): void {
  const { state } = cpu;
  if (vector === VECTOR_DB) state.set(DR7, state.get(DR7) & ~DR7_GD);
  state.set(SHADOW_ON, 0);
  const cleared = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | (clearInterruptFlag ? RFLAGS_IF : 0);
  state.set(FLAGS, state.get(FLAGS) & ~cleared);
  cpu.setRip(lo, hi);
}
