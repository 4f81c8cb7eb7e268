/** INVLPG, INVPCID, and caches that this CPU doesn't have. */
import { CR4 } from '../state.ts';
import {
  FAULT,
  field,
  generalProtection,
  type HelperFunction,
  high,
  LEAVE,
  linear,
  loadOperand,
  low,
  NEXT,
} from './outcome.ts';
import { supervisor } from './privilege.ts';

const CR4_PCIDE = 1 << 17;

const invlpg = supervisor((cpu, record) => {
  const at = linear(cpu, record);
  if (cpu.bus.invalidatePage(low(at), high(at))) cpu.tlb.flush();
  else cpu.tlb.flushPage(low(at), high(at));
  return cpu.memory.exitRequested ? LEAVE : NEXT;
});

const invpcid = supervisor((cpu, record) => {
  const { state, memory } = cpu;
  const type = field(cpu, record, 0);
  const kind = state.get(type);
  if (state.high(type) !== 0 || kind >>> 0 > 3) return generalProtection(cpu);
  if (!loadOperand(cpu, record, 0, 8)) return FAULT;
  const pcid = memory.lo;
  if (memory.hi !== 0 || pcid & ~0xfff) return generalProtection(cpu);
  if (!loadOperand(cpu, record, 8, 8)) return FAULT;
  if (kind === 0 && !memory.mayBeCanonical(memory.hi)) return generalProtection(cpu);
  if (kind < 2 && pcid !== 0 && !(state.get(CR4) & CR4_PCIDE)) return generalProtection(cpu);
  if (!cpu.bus.invalidatePcid(kind, pcid, memory.lo, memory.hi)) return generalProtection(cpu);
  cpu.tlb.flush();
  return NEXT;
});

const nothing = supervisor(() => NEXT);

export const INVALIDATION: Record<string, HelperFunction> = { invlpg, invpcid, wbinvd: nothing };
