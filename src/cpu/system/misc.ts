/** Identification, time, the interrupt flag, and what else is rare. */
import { ACCESS_WRITE, EXIT_HALT, EXIT_HYPERCALL, EXIT_PAUSE } from '../bus.ts';
import {
  CPL,
  CR0,
  CR4,
  FLAGS,
  PKRU,
  RAX,
  RBX,
  RCX,
  RDX,
  SHADOW_BEGINS,
  SHADOW_ON,
  TSC_AUX,
  TSC_OFFSET,
  FPR,
  LINEAR_MASK,
  RDI,
  XMM,
} from '../state.ts';
import { R_ADDRESS_SHIFT, R_SEGMENT } from '../record.ts';
import { useMmx } from '../x87/registers.ts';
import { setEdxEax } from './model-specific.ts';
import {
  FAULT,
  fault,
  field,
  generalProtection,
  type HelperFunction,
  high,
  invalidOpcode,
  LEAVE,
  linear,
  loadOperand,
  low,
  NEXT,
  programAccess,
  sizeOf,
} from './outcome.ts';
import { iopl } from './stack-access.ts';

const RFLAGS_IF = 1 << 9;
const RFLAGS_AC = 1 << 18;
const CR0_EM = 1 << 2;
const CR4_TSD = 1 << 2;
const CR4_PCE = 1 << 8;
const CR4_OSFXSR = 1 << 9;
const CR4_PKE = 1 << 22;
const WORD = 4294967296;

const cli: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (state.get(CPL) > iopl(cpu)) return generalProtection(cpu);
  state.set(FLAGS, state.get(FLAGS) & ~RFLAGS_IF);
  return NEXT;
};

const sti: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (state.get(CPL) > iopl(cpu)) return generalProtection(cpu);
  if (state.get(FLAGS) & RFLAGS_IF) return NEXT;
  state.set(FLAGS, state.get(FLAGS) | RFLAGS_IF);
  state.set(SHADOW_ON, SHADOW_BEGINS);
  cpu.shadowOfStack = false;
  return LEAVE;
};

const hlt: HelperFunction = (cpu) => {
  if (cpu.state.get(CPL) !== 0) return generalProtection(cpu);
  cpu.exitReason = EXIT_HALT;
  return LEAVE;
};

/** Somebody waits for another CPU. */
const pause: HelperFunction = (cpu) => {
  if (!cpu.exitsAtPause) return NEXT;
  cpu.exitReason = EXIT_PAUSE;
  return LEAVE;
};

const hypercall: HelperFunction = (cpu) => {
  cpu.exitReason = EXIT_HYPERCALL;
  return LEAVE;
};

const cpuid: HelperFunction = (cpu) => {
  const { state } = cpu;
  const [a, b, c, d] = cpu.bus.cpuid(state.get(RAX) >>> 0, state.get(RCX) >>> 0);
  state.setPair(RAX, a, 0);
  state.setPair(RBX, b, 0);
  state.setPair(RCX, c, 0);
  state.setPair(RDX, d, 0);
  return NEXT;
};

const rdtsc: HelperFunction = (cpu, record) => {
  if (cpu.state.get(CPL) !== 0 && cpu.state.get(CR4) & CR4_TSD) return generalProtection(cpu);
  const { state } = cpu;
  // In words: guests that only look at the time do this all the time.
  const ticks = cpu.ticksAt(cpu.now(record));
  const lo = (ticks >>> 0) + (state.get(TSC_OFFSET) >>> 0);
  state.setPair(RAX, lo | 0, 0);
  state.setPair(RDX, (Math.floor(ticks / WORD) + state.high(TSC_OFFSET) + (lo >= WORD ? 1 : 0)) | 0, 0);
  return NEXT;
};

const rdtscp: HelperFunction = (cpu, record) => {
  const outcome = rdtsc(cpu, record);
  if (outcome === NEXT) cpu.state.setPair(RCX, cpu.state.get(TSC_AUX), 0);
  return outcome;
};

const rdpmc: HelperFunction = (cpu) => {
  if (cpu.state.get(CPL) !== 0 && !(cpu.state.get(CR4) & CR4_PCE)) return generalProtection(cpu);
  const value = cpu.bus.readMsr(0xc0010004 + (cpu.state.get(RCX) & 3));
  if (value === null) return generalProtection(cpu);
  setEdxEax(cpu, value);
  return NEXT;
};

const cmpxchg16b: HelperFunction = (cpu, record) => {
  const { state, memory } = cpu;
  const at = linear(cpu, record);
  if (at & 15n) return generalProtection(cpu);
  const host = memory.access(low(at), high(at), 16, programAccess(cpu) | ACCESS_WRITE, true, false);
  if (host === 0) return FAULT;
  memory.loads += 2;
  memory.stores += 2;
  const lo = state.view.getBigUint64(host, true);
  const hi = state.view.getBigUint64(host + 8, true);
  const equal = lo === state.big(RAX) && hi === state.big(RDX);
  state.view.setBigUint64(host, equal ? state.big(RBX) : lo, true);
  state.view.setBigUint64(host + 8, equal ? state.big(RCX) : hi, true);
  memory.finish(host);
  if (!equal) {
    state.setBig(RAX, lo);
    state.setBig(RDX, hi);
  }
  state.rflags = (state.rflags & ~0x40) | (equal ? 0x40 : 0);
  return NEXT;
};

const setAlignmentCheck = (on: boolean): HelperFunction => {
  return (cpu) => {
    const { state } = cpu;
    if (state.get(CPL) !== 0) return invalidOpcode(cpu);
    state.set(FLAGS, on ? state.get(FLAGS) | RFLAGS_AC : state.get(FLAGS) & ~RFLAGS_AC);
    cpu.modeChanged();
    return NEXT;
  };
};

const rdpkru: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (!(state.get(CR4) & CR4_PKE)) return invalidOpcode(cpu);
  if (state.get(RCX) !== 0) return generalProtection(cpu);
  setEdxEax(cpu, BigInt(state.get(PKRU) >>> 0));
  return NEXT;
};

const wrpkru: HelperFunction = (cpu) => {
  const { state } = cpu;
  if (!(state.get(CR4) & CR4_PKE)) return invalidOpcode(cpu);
  if (state.get(RCX) !== 0 || state.get(RDX) !== 0) return generalProtection(cpu);
  state.set(PKRU, state.get(RAX));
  cpu.tlb.flush();
  return NEXT;
};

/** CLFLUSH: a read, as far as rights go. */
const clflush: HelperFunction = (cpu, record) => (loadOperand(cpu, record, 0, 1) ? NEXT : FAULT);

/** What an instruction of MMX (size 1) or SSE (2) finds when CR0 or CR4 keeps it away. */
const unavailable: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  const sse = sizeOf(cpu, record) === 2;
  const undefinedHere = (state.get(CR0) & CR0_EM) !== 0 || (sse && !(state.get(CR4) & CR4_OSFXSR));
  return undefinedHere ? invalidOpcode(cpu) : fault(cpu, 7);
};

/**
 * Bytes of one register, where another one has its sign bits set, to memory at rDI. All of the operand must be writable, even under a mask
 * of zeros: what processors do differs there, and this is AMD's. Each half has an address of its own, which wraps around as its size has it.
 */
const maskedMove = (base: number, bytes: number): HelperFunction => {
  return (cpu, record) => {
    const { state, memory } = cpu;
    const at = cpu.layout.state + base;
    const mask = at + field(cpu, record, 1);
    const value = at + field(cpu, record, 0);
    const bits = 64 - state.bytes[record + R_ADDRESS_SHIFT];
    const segment = state.big(state.bytes[record + R_SEGMENT]);
    const halves = [0n, 8n].map((distance) => BigInt.asUintN(bits, state.big(RDI) + distance) + segment);
    for (const store of [false, true]) {
      for (let i = 0; i < bytes; i++) {
        if (store && !(state.bytes[mask + i] & 128)) continue;
        const to = (halves[i >> 3] + BigInt(i & 7)) & state.big(LINEAR_MASK);
        const access = programAccess(cpu) | ACCESS_WRITE;
        if (!store && memory.access(low(to), high(to), 1, access, false, false) === 0) return FAULT;
        if (store && !memory.store(low(to), high(to), 1, programAccess(cpu), state.bytes[value + i])) return FAULT;
      }
    }
    if (base === FPR) useMmx(cpu);
    return NEXT;
  };
};

const rdpid: HelperFunction = (cpu, record) => {
  cpu.state.setPair(field(cpu, record, 0), cpu.state.get(TSC_AUX), 0);
  return NEXT;
};

export const MISC: Record<string, HelperFunction> = {
  ud: invalidOpcode,
  gp: (cpu) => generalProtection(cpu),
  unavailable,
  cli,
  sti,
  hlt,
  pause,
  hypercall,
  cpuid,
  rdtsc,
  rdtscp,
  rdpid,
  maskmovq: maskedMove(FPR, 8),
  maskmovdqu: maskedMove(XMM, 16),
  rdpmc,
  cmpxchg16b,
  stac: setAlignmentCheck(true),
  clac: setAlignmentCheck(false),
  rdpkru,
  wrpkru,
  clflush,
};
