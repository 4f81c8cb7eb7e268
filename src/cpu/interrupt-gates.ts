/** Delivery through the IDT of protected mode: gates of 16 and 32 bits, task gates, and out of virtual-8086 mode. */
import { ACCESS_IMPLICIT, ACCESS_USER } from './bus.ts';
import type { Cpu } from './cpu.ts';
import { codeFor, enterHandler, type EventKind, gateError, pushedFlags, refuse, ripOf } from './exceptions.ts';
import {
  attributesOf,
  baseOf,
  D_BIG,
  D_CONFORMING,
  D_PRESENT,
  dplOf,
  limitOf,
  markAccessed,
  segmentAllows,
  segmentsChanged,
  selectorOf,
  setCode,
  setSegment,
  setSegmentRaw,
  VECTOR_GP,
  VECTOR_NP,
  VECTOR_SS,
} from './segments.ts';
import { CPL, CS, DS, ES, FLAGS, FS, GS, HIDDEN_BASE, IDTR_BASE, IDTR_LIMIT, RSP, SS } from './state.ts';
import { type InnerStack, innerStack } from './system/task-state.ts';
import { switchTask, taskDescriptor } from './system/task-switch.ts';

const TASK_GATE = 5;
const GATE_TYPES = [TASK_GATE, 6, 7, 14, 15];
const RFLAGS_VM = 1 << 17;

/** See `deliver`. */
export function deliverProtected(
  cpu: Cpu,
  vector: number,
  withError: boolean,
  error: number,
  kind: EventKind,
): boolean {
  const { state, memory } = cpu;
  const gate = vector * 8;
  const fault = gateError(vector, kind);
  if (gate + 7 > (state.get(IDTR_LIMIT) & 0xffff)) return refuse(cpu, VECTOR_GP, fault);
  if (!memory.load((state.get(IDTR_BASE) + gate) | 0, 0, 8, ACCESS_IMPLICIT)) return false;
  const { lo, hi } = memory;
  const type = (hi >>> 8) & 31;
  if (!GATE_TYPES.includes(type)) return refuse(cpu, VECTOR_GP, fault);
  if (kind === 'software' && dplOf(hi) < state.get(CPL)) return refuse(cpu, VECTOR_GP, fault);
  if (!(hi & D_PRESENT)) return refuse(cpu, VECTOR_NP, fault);
  const ext = kind === 'software' ? 0 : 1;
  const selector = lo >>> 16;
  if (type === TASK_GATE) {
    const task = taskDescriptor(cpu, selector, false, VECTOR_GP, ext);
    return task !== null && switchTask(cpu, selector, task, 'nested', ext, withError ? error : null, kind === 'fault');
  }
  return enterGate(cpu, selector, lo, hi, vector, withError ? error : null, kind);
}

/** A gate to a handler, `lo` and `hi` its descriptor. */
function enterGate(
  cpu: Cpu,
  selector: number,
  lo: number,
  hi: number,
  vector: number,
  error: number | null,
  kind: EventKind,
): boolean {
  const { state } = cpu;
  const ext = kind === 'software' ? 0 : 1;
  const code = codeFor(cpu, selector, ext, false);
  if (!code) return false;
  const cpl = state.get(CPL);
  const newCpl = code.hi & D_CONFORMING ? cpl : dplOf(code.hi);
  const virtual = state.virtual8086;
  if (virtual && newCpl !== 0) return refuse(cpu, VECTOR_GP, (selector & 0xfffc) | ext);
  const words: number[] = [];
  let stack: InnerStack | null = null;
  if (newCpl < cpl) {
    stack = innerStack(cpu, newCpl, ext);
    if (!stack) return false;
    if (virtual) for (const index of [GS, FS, DS, ES]) words.push(selectorOf(cpu, index));
    words.push(selectorOf(cpu, SS), state.get(RSP));
  }
  words.push(pushedFlags(cpu, kind), selectorOf(cpu, CS), ripOf(cpu)[0]);
  if (error !== null) words.push(error);
  const bytes = hi & 0x800 ? 4 : 2;
  const pointer = pushAll(cpu, stack, words, bytes, newCpl, ext);
  if (pointer === null) return false;
  if (!markAccessed(cpu, selector, code)) return false;
  if (stack && !markAccessed(cpu, stack.selector, stack.descriptor)) return false;
  const big = (stack ? stack.descriptor.hi : attributesOf(cpu, SS)) & D_BIG;
  state.setPair(RSP, big ? pointer : (state.get(RSP) & 0xffff0000) | (pointer & 0xffff), 0);
  if (virtual) {
    state.set(FLAGS, state.get(FLAGS) & ~RFLAGS_VM);
    for (const index of [ES, DS, FS, GS]) setSegmentRaw(cpu, index, 0, 0, 0, 0, 0);
  }
  if (stack) setSegment(cpu, SS, (stack.selector & 0xfffc) | newCpl, stack.descriptor);
  setCode(cpu, selector, code, newCpl);
  segmentsChanged(cpu);
  const offset = bytes === 4 ? (lo & 0xffff) | (hi & 0xffff0000) : lo & 0xffff;
  enterHandler(cpu, offset, 0, (hi & 0x100) === 0, vector);
  return true;
}

/** Pushes onto a stack, `null` for that of now: the new stack pointer, or null after an exception. */
export function pushAll(
  cpu: Cpu,
  stack: InnerStack | null,
  words: readonly number[],
  bytes: number,
  newCpl: number,
  external: number,
): number | null {
  const { state, memory } = cpu;
  const attributes = stack ? stack.descriptor.hi : attributesOf(cpu, SS);
  const limit = stack ? limitOf(stack.descriptor) : cpu.limitOf(SS);
  const base = stack ? baseOf(stack.descriptor) : state.get(HIDDEN_BASE + SS * 8);
  const mask = attributes & D_BIG ? -1 : 0xffff;
  const access = newCpl === 3 ? ACCESS_USER : 0;
  let pointer = stack ? stack.pointer : state.get(RSP);
  for (const word of words) {
    pointer = (pointer & ~mask) | ((pointer - bytes) & mask);
    const offset = pointer & mask;
    if (!segmentAllows(attributes, limit, true, offset, bytes, true)) {
      state.raise(VECTOR_SS, (stack ? stack.selector & 0xfffc : 0) | external);
      return null;
    }
    if (!memory.store((base + offset) | 0, 0, bytes, access, word, 0, true)) return null;
  }
  return pointer;
}
