/** SYSCALL, SYSENTER and the ways back. */
import type { Cpu } from '../cpu.ts';
import { ripOf } from '../exceptions.ts';
import { META_WIDE } from '../record.ts';
import { FLAT_CODE_32, FLAT_CODE_64, FLAT_DATA, segmentsChanged, setFlat } from '../segments.ts';
import {
  CPL,
  CS,
  CSTAR,
  EFER,
  FLAGS,
  LSTAR,
  R11,
  RCX,
  RDX,
  RSP,
  SFMASK,
  SS,
  STAR,
  SYSENTER_CS,
  SYSENTER_EIP,
  SYSENTER_ESP,
} from '../state.ts';
import { generalProtection, type HelperFunction, invalidOpcode, JUMP, LEAVE, meta } from './outcome.ts';
import { RFLAGS_CHANGEABLE } from './stack-access.ts';

const EFER_SCE = 1;
const RFLAGS_TF = 1 << 8;
const RFLAGS_IF = 1 << 9;
const RFLAGS_RF = 1 << 16;
const RFLAGS_VM = 1 << 17;

const syscall: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (!(state.get(EFER) & EFER_SCE)) return invalidOpcode(cpu);
  const long = cpu.mode === 2;
  if (!long && cpu.sysenterInLongMode) return invalidOpcode(cpu);
  const flags = state.rflags;
  const [lo, hi] = ripOf(cpu);
  const selector = state.high(STAR) & 0xfffc;
  state.setPair(RCX, lo, hi);
  if (state.longMode) state.setPair(R11, flags & ~RFLAGS_RF, 0);
  setFlat(cpu, CS, selector, state.longMode ? FLAT_CODE_64 : FLAT_CODE_32);
  setFlat(cpu, SS, selector + 8, FLAT_DATA);
  state.set(CPL, 0);
  state.rflags = state.longMode
    ? flags & ~state.get(SFMASK) & ~RFLAGS_RF
    : flags & ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
  segmentsChanged(cpu);
  if (state.longMode) cpu.setRip(state.get(long ? LSTAR : CSTAR), state.high(long ? LSTAR : CSTAR));
  else cpu.setRip(state.get(STAR), 0);
  return stepped(cpu);
};

/** Single-stepping goes by the TF that these instructions leave, so that a kernel can mask it by SFMASK. */
function stepped(cpu: Cpu): number {
  cpu.trapHeld = true;
  if (!(cpu.state.get(FLAGS) & RFLAGS_TF)) return JUMP;
  cpu.trap();
  return LEAVE;
}

const sysret: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  if (!(state.get(EFER) & EFER_SCE)) return invalidOpcode(cpu);
  if (state.get(CPL) !== 0 || !state.protectedMode) return generalProtection(cpu);
  const selector = state.high(STAR) >>> 16;
  const wide = (meta(cpu, record) & META_WIDE) !== 0;
  const ring3 = 3 << 13;
  setFlat(cpu, CS, (wide ? selector + 16 : selector) | 3, (wide ? FLAT_CODE_64 : FLAT_CODE_32) | ring3);
  setFlat(cpu, SS, (selector + 8) | 3, FLAT_DATA | ring3);
  state.set(CPL, 3);
  if (state.longMode) state.rflags = (state.get(R11) & RFLAGS_CHANGEABLE & ~RFLAGS_RF) | 2;
  else state.rflags |= RFLAGS_IF;
  segmentsChanged(cpu);
  cpu.setRip(state.get(RCX), wide ? state.high(RCX) : 0);
  return stepped(cpu);
};

const sysenter: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (state.longMode && !cpu.sysenterInLongMode) return invalidOpcode(cpu);
  const selector = state.get(SYSENTER_CS) & 0xfffc;
  if (!state.protectedMode || selector === 0) return generalProtection(cpu);
  const long = state.longMode;
  setFlat(cpu, CS, selector, long ? FLAT_CODE_64 : FLAT_CODE_32);
  setFlat(cpu, SS, selector + 8, FLAT_DATA);
  state.set(CPL, 0);
  state.rflags &= ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
  segmentsChanged(cpu);
  state.setPair(RSP, state.get(SYSENTER_ESP), long ? state.high(SYSENTER_ESP) : 0);
  cpu.setRip(state.get(SYSENTER_EIP), long ? state.high(SYSENTER_EIP) : 0);
  return JUMP;
};

const sysexit: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  if (state.longMode && !cpu.sysenterInLongMode) return invalidOpcode(cpu);
  const selector = state.get(SYSENTER_CS) & 0xfffc;
  if (!state.protectedMode || selector === 0 || state.get(CPL) !== 0) return generalProtection(cpu);
  const wide = (meta(cpu, record) & META_WIDE) !== 0;
  const ring3 = 3 << 13;
  const target = wide ? selector + 32 : selector + 16;
  setFlat(cpu, CS, target | 3, (wide ? FLAT_CODE_64 : FLAT_CODE_32) | ring3);
  setFlat(cpu, SS, (target + 8) | 3, FLAT_DATA | ring3);
  state.set(CPL, 3);
  segmentsChanged(cpu);
  state.setPair(RSP, state.get(RCX), wide ? state.high(RCX) : 0);
  cpu.setRip(state.get(RDX), wide ? state.high(RDX) : 0);
  return JUMP;
};

export const SYSTEM_CALLS: Record<string, HelperFunction> = { syscall, sysret, sysenter, sysexit };
