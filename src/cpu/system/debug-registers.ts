/** DR0 to DR7. Breakpoints in them don't stop anything. */
import { CR4, DR0, DR6, DR7 } from '../state.ts';
import { fault, field, generalProtection, type HelperFunction, invalidOpcode, NEXT, writeRegister } from './outcome.ts';
import { controlBytes, supervisor } from './privilege.ts';

const moveFromDebug = supervisor((cpu, record) => {
  const { state } = cpu;
  const to = field(cpu, record, 0);
  const number = field(cpu, record, 1);
  const bytes = controlBytes(cpu);
  if (number > 7 || ((number & 6) === 4 && state.get(CR4) & 8)) return invalidOpcode(cpu);
  if (state.get(DR7) & 0x2000) {
    state.set(DR6, state.get(DR6) | 0x2000);
    return fault(cpu, 1);
  }
  if (number < 4) writeRegister(cpu, to, bytes, state.get(DR0 + number * 8), state.high(DR0 + number * 8));
  else writeRegister(cpu, to, bytes, state.get(number & 1 ? DR7 : DR6));
  return NEXT;
});

const moveToDebug = supervisor((cpu, record) => {
  const { state } = cpu;
  const from = field(cpu, record, 1);
  const number = field(cpu, record, 0);
  if (number > 7 || ((number & 6) === 4 && state.get(CR4) & 8)) return invalidOpcode(cpu);
  if (state.get(DR7) & 0x2000) {
    state.set(DR6, state.get(DR6) | 0x2000);
    return fault(cpu, 1);
  }
  const hi = cpu.mode === 2 ? state.high(from) : 0;
  if (number < 4) {
    state.setPair(DR0 + number * 8, state.get(from), hi);
    return NEXT;
  }
  if (hi !== 0) return generalProtection(cpu);
  if (number & 1) state.set(DR7, (state.get(from) & 0xffff2fff) | 0x400);
  else state.set(DR6, (state.get(from) & 0xe00f) | (0xffff0ff0 | 0));
  return NEXT;
});

export const DEBUG_REGISTERS: Record<string, HelperFunction> = { moveFromDebug, moveToDebug };
