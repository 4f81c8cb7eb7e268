/** DR0 to DR7; what they ask for is in `breakpoints.ts`. */
import { CR4, DR0, DR6, DR7 } from '../state.ts';
import {
  FAULT,
  field,
  generalProtection,
  type HelperFunction,
  invalidOpcode,
  LEAVE,
  NEXT,
  writeRegister,
} from './outcome.ts';
import { controlBytes, supervisor } from './privilege.ts';

/** BD of DR6 and GD of DR7. */
const GENERAL_DETECT = 1 << 13;

const moveFromDebug = supervisor((cpu, record) => {
  const { state } = cpu;
  const to = field(cpu, record, 0);
  const number = field(cpu, record, 1);
  const bytes = controlBytes(cpu);
  if (number > 7 || ((number & 6) === 4 && state.get(CR4) & 8)) return invalidOpcode(cpu);
  if (state.get(DR7) & GENERAL_DETECT) {
    cpu.debugFault(GENERAL_DETECT);
    return FAULT;
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
  if (state.get(DR7) & GENERAL_DETECT) {
    cpu.debugFault(GENERAL_DETECT);
    return FAULT;
  }
  const hi = cpu.mode === 2 ? state.high(from) : 0;
  if (number < 4) {
    state.setPair(DR0 + number * 8, state.get(from), hi);
    cpu.debugChanged();
    return LEAVE;
  }
  if (hi !== 0) return generalProtection(cpu);
  if (number & 1) {
    state.set(DR7, (state.get(from) & 0xffff2fff) | 0x400);
    cpu.debugChanged();
  } else state.set(DR6, (state.get(from) & 0xe00f) | (0xffff0ff0 | 0));
  return LEAVE;
});

export const DEBUG_REGISTERS: Record<string, HelperFunction> = { moveFromDebug, moveToDebug };
