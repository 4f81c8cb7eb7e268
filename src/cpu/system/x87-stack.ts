/** The registers of x87 as a stack, and MMX's view of them. */
import type { Cpu } from '../cpu.ts';
import { FCW, FPR, FSW, FTAGS, FTOP } from '../state.ts';
import { type Extended, INDEFINITE } from './extended.ts';
import { NEXT } from './outcome.ts';

export const slot = (cpu: Cpu, i: number): number => (cpu.state.get(FTOP) + i) & 7;

export function get(cpu: Cpu, i: number): Extended {
  const { state } = cpu;
  const at = cpu.layout.state + FPR + slot(cpu, i) * 16;
  if (!((state.get(FTAGS) >>> slot(cpu, i)) & 1)) return INDEFINITE;
  return { significand: state.view.getBigUint64(at, true), head: state.view.getUint16(at + 8, true) };
}

export function put(cpu: Cpu, i: number, value: Extended): void {
  const { state } = cpu;
  const at = cpu.layout.state + FPR + slot(cpu, i) * 16;
  state.view.setBigUint64(at, value.significand, true);
  state.view.setUint16(at + 8, value.head, true);
  state.set(FTAGS, state.get(FTAGS) | (1 << slot(cpu, i)));
}

export function push(cpu: Cpu, value: Extended): number {
  cpu.state.set(FTOP, (cpu.state.get(FTOP) - 1) & 7);
  put(cpu, 0, value);
  return NEXT;
}

export function pop(cpu: Cpu): number {
  const { state } = cpu;
  state.set(FTAGS, state.get(FTAGS) & ~(1 << slot(cpu, 0)));
  state.set(FTOP, (state.get(FTOP) + 1) & 7);
  return NEXT;
}

export const statusWord = (cpu: Cpu): number => (cpu.state.get(FSW) & ~0x3800) | (cpu.state.get(FTOP) << 11);

export function reset(cpu: Cpu): number {
  const { state } = cpu;
  state.set(FCW, 0x37f);
  state.set(FSW, 0);
  state.set(FTOP, 0);
  state.set(FTAGS, 0);
  return NEXT;
}

/** An MMX instruction: all registers are in use, and the stack begins at the first. */
export function useMmx(cpu: Cpu): void {
  cpu.state.set(FTOP, 0);
  cpu.state.set(FTAGS, 255);
}
