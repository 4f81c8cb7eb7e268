/** The stack and the flags, as far transfers and POPF see them. */
import type { Cpu } from '../cpu.ts';
import { carryInto } from '../memory-port.ts';
import { CPL, FLAGS, RSP, SS_BASE, STACK_MASK } from '../state.ts';
import { programAccess } from './outcome.ts';

const RFLAGS_IF = 1 << 9;
const RFLAGS_IOPL = 3 << 12;
/** What IRET and POPF may change at all: all but VM, VIF, VIP and the reserved ones. */
export const RFLAGS_CHANGEABLE = 0x257fd5;

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
export function peek(cpu: Cpu, distance: number, bytes: number): boolean {
  const { state, memory } = cpu;
  const lo = (state.get(RSP) + distance) | 0;
  const hi = carryInto(state.get(RSP), state.high(RSP), distance);
  if (cpu.mode === 2) return memory.load(lo, hi, bytes, programAccess(cpu), true);
  const at = ((lo & state.get(STACK_MASK)) + state.get(SS_BASE)) | 0;
  return memory.load(at, state.high(SS_BASE), bytes, programAccess(cpu), true);
}

export function movePointer(cpu: Cpu, distance: number): void {
  const { state } = cpu;
  const lo = state.get(RSP);
  const hi = carryInto(lo, state.high(RSP), distance);
  const mask = state.get(STACK_MASK);
  state.setPair(RSP, (lo & ~mask) | ((lo + distance) & mask), cpu.mode === 2 ? hi : 0);
}

/** Pushes at a distance below the pointer without moving it. */
export function poke(cpu: Cpu, distance: number, bytes: number, lo: number, hi: number): boolean {
  const { state, memory } = cpu;
  const at = (state.get(RSP) + distance) | 0;
  const atHi = carryInto(state.get(RSP), state.high(RSP), distance);
  if (cpu.mode === 2) return memory.store(at, atHi, bytes, programAccess(cpu), lo, hi, true);
  const linear = ((at & state.get(STACK_MASK)) + state.get(SS_BASE)) | 0;
  return memory.store(linear, state.high(SS_BASE), bytes, programAccess(cpu), lo, hi, true);
}

/** In virtual-8086 mode with IOPL below 3, instructions that touch IF are for the monitor: #GP. */
export const virtualNeedsMonitor = (cpu: Cpu): boolean => cpu.state.virtual8086 && iopl(cpu) < 3;

export const iopl = (cpu: Cpu): number => (cpu.state.get(FLAGS) >>> 12) & 3;
