/** Rarer instructions of the stack: flags, segments, frames, all registers at once. */
import { ACCESS_WRITE } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import { R_IMMEDIATE } from '../record.ts';
import { loadSegment, selectorOf } from '../segments.ts';
import { FLAGS, LINEAR_MASK, RBP, RSP, SS, SS_BASE, STACK_MASK } from '../state.ts';
import { shadowStack } from './segment-registers.ts';
import {
  FAULT,
  generalProtection,
  type HelperFunction,
  high,
  LEAVE,
  low,
  NEXT,
  programAccess,
  sizeOf,
  writeRegister,
} from './outcome.ts';
import { mergeFlags, movePointer, virtualNeedsMonitor } from './stack-access.ts';

const RFLAGS_TF = 1 << 8;
const RFLAGS_IF = 1 << 9;
const RFLAGS_AC = 1 << 18;

/** Linear address of a place on the stack, at a distance from a register. */
function stackTop(cpu: Cpu, distance: number, register = RSP): [number, number] {
  const { state } = cpu;
  const pointer = (state.big(register) + BigInt(distance)) & state.big(STACK_MASK);
  const at = BigInt.asUintN(64, pointer + state.big(SS_BASE)) & state.big(LINEAR_MASK);
  return [low(at), high(at)];
}

function popBytes(cpu: Cpu, bytes: number): boolean {
  const [lo, hi] = stackTop(cpu, 0);
  return cpu.memory.load(lo, hi, bytes, programAccess(cpu), true);
}

const moveStack = movePointer;

const popf: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  const bytes = sizeOf(cpu, record);
  if (virtualNeedsMonitor(cpu)) return generalProtection(cpu);
  if (!popBytes(cpu, bytes)) return FAULT;
  const before = state.get(FLAGS);
  moveStack(cpu, bytes);
  state.rflags = mergeFlags(cpu, cpu.memory.lo, bytes) & ~0x10000;
  const now = state.get(FLAGS);
  if ((before ^ now) & RFLAGS_AC) cpu.modeChanged();
  return (now & ~before & RFLAGS_IF) | (now & RFLAGS_TF) ? LEAVE : NEXT;
};

const pushSegment = (index: number): HelperFunction => {
  return (cpu, record) => {
    const bytes = sizeOf(cpu, record);
    const [lo, hi] = stackTop(cpu, -bytes);
    if (!cpu.memory.store(lo, hi, bytes, programAccess(cpu), selectorOf(cpu, index), 0, true)) return FAULT;
    moveStack(cpu, -bytes);
    return NEXT;
  };
};

const popSegment = (index: number): HelperFunction => {
  return (cpu, record) => {
    const bytes = sizeOf(cpu, record);
    if (!popBytes(cpu, bytes) || !loadSegment(cpu, index, cpu.memory.lo & 0xffff)) return FAULT;
    moveStack(cpu, bytes);
    return index === SS ? shadowStack(cpu) : NEXT;
  };
};

/** ENTER with its chain of frames. What comes before a fault has been pushed by then, below a stack pointer that isn't moved. */
const enter: HelperFunction = (cpu, record) => {
  const { state, memory } = cpu;
  const bytes = sizeOf(cpu, record);
  const frame = state.view.getUint16(record + R_IMMEDIATE, true);
  const level = state.bytes[record + R_IMMEDIATE + 2] & 31;
  const access = programAccess(cpu);
  const mask = state.big(STACK_MASK);
  const old = state.big(RSP);
  const pointer = (old & ~mask) | ((old - BigInt(bytes)) & mask);
  let pushed = 0;
  const push = (lo: number, hi: number): boolean => {
    pushed += bytes;
    const [at, atHigh] = stackTop(cpu, -pushed);
    return memory.store(at, atHigh, bytes, access, lo, hi, true);
  };
  if (!push(state.get(RBP), state.high(RBP))) return FAULT;
  for (let i = 1; i < level; i++) {
    const [lo, hi] = stackTop(cpu, -i * bytes, RBP);
    if (!memory.load(lo, hi, bytes, access, true) || !push(memory.lo, memory.hi)) return FAULT;
  }
  if (level > 0 && !push(low(pointer), high(pointer))) return FAULT;
  const moved = old - BigInt(pushed + frame);
  // It must be possible to write there, too.
  const [lo, hi] = stackTop(cpu, -pushed - frame);
  if (memory.access(lo, hi, bytes, access | ACCESS_WRITE, false, true) === 0) return FAULT;
  writeRegister(cpu, RBP, bytes, low(pointer), high(pointer));
  state.setBig(RSP, (old & ~mask) | (moved & mask));
  return NEXT;
};

const PUSHED = [0, 8, 16, 24, 32, 40, 48, 56];

const pusha: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  const bytes = sizeOf(cpu, record);
  for (let i = 0; i < 8; i++) {
    const [lo, hi] = stackTop(cpu, -bytes * (i + 1));
    if (!cpu.memory.store(lo, hi, bytes, programAccess(cpu), state.get(PUSHED[i]), 0, true)) return FAULT;
  }
  moveStack(cpu, -8 * bytes);
  return NEXT;
};

/** Registers that come before a fault are loaded by then; as the stack pointer isn't moved, the instruction can be done again. */
const popa: HelperFunction = (cpu, record) => {
  const bytes = sizeOf(cpu, record);
  for (let i = 0; i < 8; i++) {
    const [lo, hi] = stackTop(cpu, bytes * i);
    if (!cpu.memory.load(lo, hi, bytes, programAccess(cpu), true)) return FAULT;
    const register = PUSHED[7 - i];
    if (register !== RSP) writeRegister(cpu, register, bytes, cpu.memory.lo);
  }
  moveStack(cpu, 8 * bytes);
  return NEXT;
};

export const STACK_INSTRUCTIONS: Record<string, HelperFunction> = {
  popf,
  enter,
  pusha,
  popa,
  ...Object.fromEntries(
    [0, 1, 2, 3, 4, 5].flatMap((i) => [
      [`push${i}`, pushSegment(i)],
      [`pop${i}`, popSegment(i)],
    ]),
  ),
};
