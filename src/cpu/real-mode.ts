/** Real mode: segments are addresses, interrupts go through the table of vectors. What a processor starts in. */
import { ACCESS_IMPLICIT } from './bus.ts';
import type { Cpu } from './cpu.ts';
import { loadRealSegment, REAL_CODE, segmentsChanged, setSegmentRaw } from './segments.ts';
import {
  CPL,
  CR0,
  CR2,
  CR3,
  CR4,
  CR8,
  CS,
  DR0,
  DR6,
  DR7,
  EFER,
  FLAGS,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  IDTR_BASE,
  IDTR_LIMIT,
  LDTR,
  LINEAR_RIP,
  NMI_BLOCKED,
  NO_EXCEPTION,
  PENDING_VECTOR,
  RDX,
  RSP,
  SEGMENT_BYTES,
  SEGMENT_SELECTOR,
  SEGMENTS,
  SHADOW_ON,
  SS_BASE,
  TR,
} from './state.ts';

const REAL_DATA = 0x9300;
const EMPTY_LDT = 0x8200;
const BUSY_TSS = 0x8b00;
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

/** Offset at which a CPU begins after INIT, 16 bytes below the end of the last page of the address space. */
const FIRST_OFFSET = 0xfff0;
const FIRST_BASE = 0xffff0000 | 0;
const FIRST_SELECTOR = 0xf000;
const CR0_CACHE_BITS = 0x60000000;
const CR0_ET = 0x10;

/**
 * INIT: registers as after reset, but for what INIT leaves alone: caching, x87 and SSE, MSRs, and the counts. RDX says what
 * CPU it is.
 */
export function initialize(cpu: Cpu, signature: number): void {
  const { state } = cpu;
  for (let at = GPR; at < GPR + 128; at += 8) state.setPair(at, 0, 0);
  state.setPair(RDX, signature, 0);
  state.rflags = 2;
  state.set(CR0, CR0_ET | (state.get(CR0) & CR0_CACHE_BITS));
  for (const at of [CR2, CR3, GDTR_BASE, IDTR_BASE]) state.setPair(at, 0, 0);
  for (const at of [CR4, CR8, EFER, CPL, SHADOW_ON, NMI_BLOCKED]) state.set(at, 0);
  state.set(GDTR_LIMIT, 0xffff);
  state.set(IDTR_LIMIT, 0xffff);
  for (let at = DR0; at < DR6; at += 8) state.setPair(at, 0, 0);
  state.set(DR6, 0xffff0ff0 | 0);
  state.set(DR7, 0x400);
  state.set(PENDING_VECTOR, NO_EXCEPTION);
  cpu.forgetEvents();
  for (let index = 0; index < 6; index++) setSegmentRaw(cpu, index, 0, REAL_DATA, 0xffff, 0, 0);
  setSegmentRaw(cpu, LDTR, 0, EMPTY_LDT, 0xffff, 0, 0);
  setSegmentRaw(cpu, TR, 0, BUSY_TSS, 0xffff, 0, 0);
  beginAt(cpu, FIRST_SELECTOR, FIRST_BASE, FIRST_OFFSET);
  cpu.tlb.flush();
  cpu.debugChanged();
}

/** What a start-up message with `vector` makes of a CPU that INIT has stopped: it begins at that page. */
export function startUp(cpu: Cpu, vector: number): void {
  beginAt(cpu, vector << 8, vector << 12, 0);
}

function beginAt(cpu: Cpu, selector: number, base: number, offset: number): void {
  setSegmentRaw(cpu, CS, selector, REAL_CODE, 0xffff, base, 0);
  segmentsChanged(cpu);
  cpu.setRip(offset, 0);
}
