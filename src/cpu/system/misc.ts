/** Flags, input and output, identification, time, and what else is rare. */
import { ACCESS_IMPLICIT, ACCESS_WRITE, EXIT_HALT, EXIT_HYPERCALL } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import { META_REP, META_REPNE, R_ADDRESS_SHIFT, R_IMMEDIATE, R_SEGMENT } from '../record.ts';
import { loadSegment, selectorOf, SEGMENT_LIMIT_OF_TR } from '../segments.ts';
import {
  CPL,
  CR4,
  FLAGS,
  HIDDEN_BASE,
  LINEAR_MASK,
  PKRU,
  RAX,
  RBP,
  RBX,
  RCX,
  RDI,
  RDX,
  RSI,
  RSP,
  SEGMENT_BASE,
  SHADOW_BEGINS,
  SHADOW_ON,
  SS,
  SS_BASE,
  TR,
  TSC_AUX,
} from '../state.ts';
import { setEdxEax, timeStamp } from './control.ts';
import { mergeFlags } from './flow.ts';
import {
  FAULT,
  generalProtection,
  type HelperFunction,
  high,
  invalidOpcode,
  LEAVE,
  linear,
  loadOperand,
  low,
  meta,
  NEXT,
  programAccess,
  sizeOf,
  writeRegister,
} from './outcome.ts';

const RFLAGS_IF = 1 << 9;
const RFLAGS_TF = 1 << 8;
const RFLAGS_DF = 1 << 10;
const RFLAGS_AC = 1 << 18;
const CR4_TSD = 1 << 2;
const CR4_PCE = 1 << 8;
const CR4_PKE = 1 << 22;

const iopl = (cpu: Cpu): number => (cpu.state.get(FLAGS) >>> 12) & 3;

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
  return LEAVE;
};

/** Linear address of a place on the stack. */
function stackTop(cpu: Cpu, distance: number): [number, number] {
  const { state } = cpu;
  const at = BigInt.asUintN(64, state.big(RSP) + BigInt(distance) + state.big(SS_BASE)) & state.big(LINEAR_MASK);
  return [low(at), high(at)];
}

function popBytes(cpu: Cpu, bytes: number): boolean {
  const [lo, hi] = stackTop(cpu, 0);
  return cpu.memory.load(lo, hi, bytes, programAccess(cpu), true);
}

function moveStack(cpu: Cpu, distance: number): void {
  const { state } = cpu;
  state.setBig(RSP, (state.big(RSP) + BigInt(distance)) & state.big(LINEAR_MASK));
}

const popf: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  const bytes = sizeOf(cpu, record);
  if (!popBytes(cpu, bytes)) return FAULT;
  const before = state.get(FLAGS);
  moveStack(cpu, bytes);
  state.rflags = mergeFlags(cpu, cpu.memory.lo, bytes) & ~0x10000;
  const now = state.get(FLAGS);
  if ((before ^ now) & RFLAGS_AC) cpu.modeChanged();
  return (now & ~before & RFLAGS_IF) | (now & RFLAGS_TF) ? LEAVE : NEXT;
};

const hlt: HelperFunction = (cpu) => {
  if (cpu.state.get(CPL) !== 0) return generalProtection(cpu);
  cpu.exitReason = EXIT_HALT;
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
  setEdxEax(cpu, timeStamp(cpu, record));
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

/** May the program use these ports? The answer is in the task state's bit map unless IOPL says yes. */
function mayUsePorts(cpu: Cpu, port: number, bytes: number): boolean {
  const { state, memory } = cpu;
  if (state.get(CPL) <= iopl(cpu)) return true;
  const limit = state.get(SEGMENT_LIMIT_OF_TR) >>> 0;
  const lo = state.get(HIDDEN_BASE + TR * 8);
  const hi = state.high(HIDDEN_BASE + TR * 8);
  if (limit < 103) return refusePort(cpu);
  if (!memory.loadAt(lo, hi, 102, 2, ACCESS_IMPLICIT)) return false;
  const at = memory.lo + (port >>> 3);
  if (at + 1 > limit) return refusePort(cpu);
  if (!memory.loadAt(lo, hi, at, 2, ACCESS_IMPLICIT)) return false;
  return (memory.lo >>> (port & 7)) & ((1 << bytes) - 1) ? refusePort(cpu) : true;
}

function refusePort(cpu: Cpu): false {
  cpu.state.raise(13, 0);
  return false;
}

/** Ports are read and written in 1, 2 or 4 bytes. */
const portBytes = (cpu: Cpu, record: number, wide: boolean): number => (wide ? Math.min(sizeOf(cpu, record), 4) : 1);

const input = (wide: boolean, immediate: boolean): HelperFunction => {
  return (cpu, record) => {
    const { state } = cpu;
    const bytes = portBytes(cpu, record, wide);
    const port = immediate ? state.bytes[record + R_IMMEDIATE] : state.get(RDX) & 0xffff;
    if (!mayUsePorts(cpu, port, bytes)) return FAULT;
    writeRegister(cpu, RAX, bytes, cpu.bus.portIn(port, bytes));
    return cpu.memory.exitRequested ? LEAVE : NEXT;
  };
};

const output = (wide: boolean, immediate: boolean): HelperFunction => {
  return (cpu, record) => {
    const { state } = cpu;
    const bytes = portBytes(cpu, record, wide);
    const port = immediate ? state.bytes[record + R_IMMEDIATE] : state.get(RDX) & 0xffff;
    if (!mayUsePorts(cpu, port, bytes)) return FAULT;
    const value = state.get(RAX);
    cpu.bus.portOut(port, bytes, bytes === 4 ? value : value & ((1 << (bytes * 8)) - 1));
    return cpu.memory.exitRequested ? LEAVE : NEXT;
  };
};

/** INS and OUTS. A repeated one does at most a page's worth before it looks for events again. */
const portString = (wide: boolean, out: boolean): HelperFunction => {
  return (cpu, record) => {
    const { state, memory } = cpu;
    const bytes = portBytes(cpu, record, wide);
    const port = state.get(RDX) & 0xffff;
    const repeated = (meta(cpu, record) & (META_REP | META_REPNE)) !== 0;
    const bits = 64 - state.bytes[record + R_ADDRESS_SHIFT];
    const pointer = out ? RSI : RDI;
    const segment = out ? state.bytes[record + R_SEGMENT] : SEGMENT_BASE;
    const step = BigInt(state.get(FLAGS) & RFLAGS_DF ? -bytes : bytes);
    if (!mayUsePorts(cpu, port, bytes)) return FAULT;
    for (let done = 0; ; done++) {
      const count = BigInt.asUintN(bits, state.big(RCX));
      if (repeated && count === 0n) return NEXT;
      if (done === 1024) {
        cpu.again(record);
        return LEAVE;
      }
      const offset = BigInt.asUintN(bits, state.big(pointer));
      const at = (offset + state.big(segment)) & state.big(LINEAR_MASK);
      if (out) {
        if (!memory.load(low(at), high(at), bytes, programAccess(cpu))) return FAULT;
        cpu.bus.portOut(port, bytes, memory.lo);
      } else {
        // The store is found possible before the device is read.
        if (memory.access(low(at), high(at), bytes, programAccess(cpu) | ACCESS_WRITE, false, false) === 0)
          return FAULT;
        if (!memory.store(low(at), high(at), bytes, programAccess(cpu), cpu.bus.portIn(port, bytes))) return FAULT;
      }
      state.setBig(pointer, BigInt.asUintN(bits, offset + step));
      if (!repeated) return NEXT;
      state.setBig(RCX, count - 1n);
    }
  };
};

const pushSegment = (index: number): HelperFunction => {
  return (cpu, record) => {
    const bytes = sizeOf(cpu, record);
    const [lo, hi] = stackTop(cpu, -bytes);
    if (!cpu.memory.store(lo, hi, bytes, programAccess(cpu), selectorOf(cpu, index), 0, true)) return FAULT;
    moveStack(cpu, -bytes);
    return NEXT;
  };
};

const popSegment = (index: number): HelperFunction => {
  return (cpu, record) => {
    const bytes = sizeOf(cpu, record);
    if (!popBytes(cpu, bytes) || !loadSegment(cpu, index, cpu.memory.lo & 0xffff)) return FAULT;
    moveStack(cpu, bytes);
    if (index !== SS) return NEXT;
    cpu.state.set(SHADOW_ON, SHADOW_BEGINS);
    return LEAVE;
  };
};

/** ENTER with its chain of frames. */
const enter: HelperFunction = (cpu, record) => {
  const { state, memory } = cpu;
  const bytes = sizeOf(cpu, record);
  const frame = state.view.getUint16(record + R_IMMEDIATE, true);
  const level = state.bytes[record + R_IMMEDIATE + 2] & 31;
  const access = programAccess(cpu);
  const mask = state.big(LINEAR_MASK);
  const pointer = (state.big(RSP) - BigInt(bytes)) & mask;
  const words: bigint[] = [state.big(RBP)];
  for (let i = 1; i < level; i++) {
    const at = (state.big(RBP) - BigInt(i * bytes) + state.big(SS_BASE)) & mask;
    if (!memory.load(low(at), high(at), bytes, access, true)) return FAULT;
    words.push((BigInt(memory.hi >>> 0) << 32n) | BigInt(memory.lo >>> 0));
  }
  if (level > 0) words.push(pointer);
  for (let i = 0; i < words.length; i++) {
    const at = (pointer - BigInt(i * bytes) + state.big(SS_BASE)) & mask;
    if (!memory.store(low(at), high(at), bytes, access, low(words[i]), high(words[i]), true)) return FAULT;
  }
  writeRegister(cpu, RBP, bytes, low(pointer), high(pointer));
  const moved = (pointer - BigInt((words.length - 1) * bytes + frame)) & mask;
  state.setBig(RSP, moved);
  return NEXT;
};

const PUSHED = [0, 8, 16, 24, 32, 40, 48, 56];

const pusha: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  const bytes = sizeOf(cpu, record);
  for (let i = 0; i < 8; i++) {
    const [lo, hi] = stackTop(cpu, -bytes * (i + 1));
    if (!cpu.memory.store(lo, hi, bytes, programAccess(cpu), state.get(PUSHED[i]), 0, true)) return FAULT;
  }
  moveStack(cpu, -8 * bytes);
  return NEXT;
};

const popa: HelperFunction = (cpu, record) => {
  const bytes = sizeOf(cpu, record);
  const words: number[] = [];
  for (let i = 0; i < 8; i++) {
    const [lo, hi] = stackTop(cpu, bytes * i);
    if (!cpu.memory.load(lo, hi, bytes, programAccess(cpu), true)) return FAULT;
    words.unshift(cpu.memory.lo);
  }
  for (let i = 0; i < 8; i++) if (PUSHED[i] !== RSP) writeRegister(cpu, PUSHED[i], bytes, words[i]);
  moveStack(cpu, 8 * bytes);
  return NEXT;
};

const cmpxchg16b: HelperFunction = (cpu, record) => {
  const { state, memory } = cpu;
  const at = linear(cpu, record);
  if (at & 15n) return generalProtection(cpu);
  const host = memory.access(low(at), high(at), 16, programAccess(cpu) | ACCESS_WRITE, true, false);
  if (host === 0) return FAULT;
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

export const MISC: Record<string, HelperFunction> = {
  ud: invalidOpcode,
  gp: (cpu) => generalProtection(cpu),
  cli,
  sti,
  popf,
  hlt,
  hypercall,
  cpuid,
  rdtsc,
  rdtscp,
  rdpmc,
  inByteImm: input(false, true),
  inWideImm: input(true, true),
  inByte: input(false, false),
  inWide: input(true, false),
  outByteImm: output(false, true),
  outWideImm: output(true, true),
  outByte: output(false, false),
  outWide: output(true, false),
  insByte: portString(false, false),
  insWide: portString(true, false),
  outsByte: portString(false, true),
  outsWide: portString(true, true),
  enter,
  pusha,
  popa,
  cmpxchg16b,
  stac: setAlignmentCheck(true),
  clac: setAlignmentCheck(false),
  rdpkru,
  wrpkru,
  clflush,
  ...Object.fromEntries(
    [0, 1, 2, 3, 4, 5].flatMap((i) => [
      [`push${i}`, pushSegment(i)],
      [`pop${i}`, popSegment(i)],
    ]),
  ),
};
