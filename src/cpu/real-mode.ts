/** Real mode: segments are addresses, interrupts go through the table of vectors. What a processor starts in. */
import { ACCESS_IMPLICIT } from './bus.ts';
import type { Cpu } from './cpu.ts';
import { resetState } from './reset.ts';
import { loadRealSegment, REAL_CODE, segmentsChanged, setSegmentRaw } from './segments.ts';
import {
  CS,
  FLAGS,
  GDTR_LIMIT,
  IDTR_BASE,
  IDTR_LIMIT,
  LINEAR_RIP,
  RSP,
  SEGMENT_BYTES,
  SEGMENT_SELECTOR,
  SEGMENTS,
  SS_BASE,
} from './state.ts';

const REAL_DATA = 0x9300;
const VECTOR_GP = 13;
const RFLAGS_ON_ENTRY = (1 << 8) | (1 << 9) | (1 << 18);

/** Delivers an event through a vector of four bytes. */
export function deliverReal(cpu: Cpu, vector: number): boolean {
  const { state, memory } = cpu;
  const entry = vector * 4;
  if (entry + 3 > (state.get(IDTR_LIMIT) & 0xffff)) {
    state.raise(VECTOR_GP, 0);
    return false;
  }
  if (!memory.load((state.get(IDTR_BASE) + entry) | 0, 0, 4, ACCESS_IMPLICIT)) return false;
  const target = memory.lo;
  const selector = state.get(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_SELECTOR);
  const offset = (state.get(LINEAR_RIP) - (selector << 4)) & 0xffff;
  const pointer = state.get(RSP);
  const words = [state.rflags & 0xffff, selector, offset];
  for (let i = 0; i < 3; i++) {
    const at = ((pointer - 2 * (i + 1)) & 0xffff) + state.get(SS_BASE);
    if (!memory.store(at | 0, state.high(SS_BASE), 2, 0, words[i], 0, true)) return false;
  }
  state.set(RSP, (pointer & ~0xffff) | ((pointer - 6) & 0xffff));
  state.set(FLAGS, state.get(FLAGS) & ~RFLAGS_ON_ENTRY);
  loadRealSegment(cpu, CS, target >>> 16);
  cpu.setRip(target & 0xffff, 0);
  return true;
}

/** What INIT and a start-up message with `vector` make of a CPU: it begins at that page, in real mode. */
export function startUp(cpu: Cpu, vector: number): void {
  const { state } = cpu;
  resetState(state);
  state.set(GDTR_LIMIT, 0xffff);
  state.set(IDTR_LIMIT, 0xffff);
  for (let index = 0; index < 6; index++) setSegmentRaw(cpu, index, 0, REAL_DATA, 0xffff, 0, 0);
  setSegmentRaw(cpu, CS, vector << 8, REAL_CODE, 0xffff, vector << 12, 0);
  segmentsChanged(cpu);
  cpu.tlb.flush();
  cpu.debugChanged();
  cpu.setRip(0, 0);
}
