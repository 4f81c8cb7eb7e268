/** Interrupts by instruction. */
import type { Cpu } from '../cpu.ts';
import { deliver } from '../exceptions.ts';
import { R_IMMEDIATE } from '../record.ts';
import { FAULT, generalProtection, type HelperFunction, JUMP, LEAVE } from './outcome.ts';
import { virtualNeedsMonitor } from './stack-access.ts';

function interrupt(cpu: Cpu, vector: number): number {
  cpu.trapHeld = true;
  const done = deliver(cpu, vector, 0, 'software');
  if (cpu.taskSwitched) return LEAVE;
  return done && !cpu.state.raised ? JUMP : FAULT;
}

const intN: HelperFunction = (cpu, record) =>
  virtualNeedsMonitor(cpu) ? generalProtection(cpu) : interrupt(cpu, cpu.state.bytes[record + R_IMMEDIATE]);
const int3: HelperFunction = (cpu) => interrupt(cpu, 3);
/** INT1 is the hardware's #DB, whatever the gate's DPL says. */
const int1: HelperFunction = (cpu) => {
  cpu.trapHeld = true;
  cpu.raise(1, 0, 'trap');
  return LEAVE;
};
const into: HelperFunction = (cpu) => (cpu.state.rflags & 0x800 ? interrupt(cpu, 4) : JUMP);

export const SOFTWARE_INTERRUPTS: Record<string, HelperFunction> = { intN, int3, int1, into };
