/** Interrupts by instruction. */
import type { Cpu } from '../cpu.ts';
import { deliver } from '../exceptions.ts';
import { R_IMMEDIATE } from '../record.ts';
import { FAULT, type HelperFunction, JUMP } from './outcome.ts';

function interrupt(cpu: Cpu, vector: number): number {
  return deliver(cpu, vector, 0, 'software') && !cpu.state.raised ? JUMP : FAULT;
}

const intN: HelperFunction = (cpu, record) => interrupt(cpu, cpu.state.bytes[record + R_IMMEDIATE]);
const int3: HelperFunction = (cpu) => interrupt(cpu, 3);
const int1: HelperFunction = (cpu) => interrupt(cpu, 1);
const into: HelperFunction = (cpu) => (cpu.state.rflags & 0x800 ? interrupt(cpu, 4) : JUMP);

export const SOFTWARE_INTERRUPTS: Record<string, HelperFunction> = { intN, int3, int1, into };
