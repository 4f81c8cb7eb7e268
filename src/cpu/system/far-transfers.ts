/** Far jumps and calls: to code, through call gates, to tasks. */
import type { Cpu } from '../cpu.ts';
import { ripOf } from '../exceptions.ts';
import { R_IMMEDIATE } from '../record.ts';
import {
  D_CODE,
  D_CONFORMING,
  D_MEMORY,
  D_PRESENT,
  type Descriptor,
  dplOf,
  markAccessed,
  readDescriptor,
  selectorOf,
  setCode,
  typeOf,
  VECTOR_GP,
  VECTOR_NP,
  mayContinueAt,
  loadRealSegment,
} from '../segments.ts';
import { CPL, CS } from '../state.ts';
import {
  FAULT,
  fault,
  generalProtection,
  type HelperFunction,
  isMemory,
  JUMP,
  loadOperand,
  sizeOf,
} from './outcome.ts';
import { throughGate } from './call-gates.ts';
import { movePointer, poke } from './stack-access.ts';
import { taskDescriptor, toTask } from './task-switch.ts';

/** A code segment that JMP or CALL may go to, or a system descriptor, unchecked; null after an exception. */
function directCode(cpu: Cpu, selector: number): Descriptor | null {
  const cpl = cpu.state.get(CPL);
  if ((selector & 0xfffc) === 0) {
    fault(cpu, VECTOR_GP);
    return null;
  }
  const d = readDescriptor(cpu, selector);
  if (!d) return null;
  if (!(d.hi & D_MEMORY)) return d;
  const code = (d.hi & (D_MEMORY | D_CODE)) === (D_MEMORY | D_CODE);
  const allowed = d.hi & D_CONFORMING ? dplOf(d.hi) <= cpl : dplOf(d.hi) === cpl && (selector & 3) <= cpl;
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

function goReal(cpu: Cpu, target: { selector: number; lo: number }): number {
  loadRealSegment(cpu, CS, target.selector);
  cpu.setRip(target.lo, 0);
  return JUMP;
}

const CALL_GATES = [4, 12];
const TASK_GATE = 5;
const TASKS = [1, 9];

/** To a gate or a task; `d` is what `selector` names. In long mode there are 64-bit call gates only. */
function toSystem(cpu: Cpu, selector: number, d: Descriptor, call: boolean): number {
  const { longMode } = cpu.state;
  const type = typeOf(d.hi);
  const error = selector & 0xfffc;
  const gate = longMode ? type === 12 : CALL_GATES.includes(type) || type === TASK_GATE;
  const task = !longMode && TASKS.includes(type);
  const dpl = dplOf(d.hi);
  if (!(gate || task) || dpl < cpu.state.get(CPL) || dpl < (selector & 3)) return generalProtection(cpu, error);
  if (gate && type !== TASK_GATE) return throughGate(cpu, selector, d, call);
  if (!(d.hi & D_PRESENT)) return fault(cpu, VECTOR_NP, error);
  const to = type === TASK_GATE ? d.lo >>> 16 : selector;
  const descriptor = taskDescriptor(cpu, to, false, VECTOR_GP, 0);
  return descriptor ? toTask(cpu, to, descriptor, call ? 'nested' : 'jump') : FAULT;
}

const farJump: HelperFunction = (cpu, record) => {
  const target = farTarget(cpu, record);
  if (target && cpu.state.realSegments) return goReal(cpu, target);
  const code = target && directCode(cpu, target.selector);
  if (!code) return FAULT;
  if (!(code.hi & D_MEMORY)) return toSystem(cpu, target.selector, code, false);
  if (!mayContinueAt(cpu, code, target.lo, target.hi)) return generalProtection(cpu);
  setCode(cpu, target.selector, code, cpu.state.get(CPL));
  cpu.setRip(target.lo, target.hi);
  return JUMP;
};

const farCall: HelperFunction = (cpu, record) => {
  const target = farTarget(cpu, record);
  const real = cpu.state.realSegments;
  const code = target && !real ? directCode(cpu, target.selector) : null;
  if (!target || (!code && !real)) return FAULT;
  if (code && !(code.hi & D_MEMORY)) return toSystem(cpu, target.selector, code, true);
  if (code && !mayContinueAt(cpu, code, target.lo, target.hi)) return generalProtection(cpu);
  const bytes = sizeOf(cpu, record);
  const [lo, hi] = ripOf(cpu);
  if (!poke(cpu, -bytes, bytes, selectorOf(cpu, CS), 0) || !poke(cpu, -2 * bytes, bytes, lo, hi)) return FAULT;
  movePointer(cpu, -2 * bytes);
  if (!code) return goReal(cpu, target);
  setCode(cpu, target.selector, code, cpu.state.get(CPL));
  cpu.setRip(target.lo, target.hi);
  return JUMP;
};

export const FAR_TRANSFERS: Record<string, HelperFunction> = { farJump, farCall };
