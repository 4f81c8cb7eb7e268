/** IN, OUT and their string forms. */
import { ACCESS_IMPLICIT, ACCESS_WRITE } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import { META_REP, META_REPNE, R_ADDRESS_SHIFT, R_IMMEDIATE, R_SEGMENT } from '../record.ts';
import { SEGMENT_LIMIT_OF_TR } from '../segments.ts';
import { CPL, FLAGS, HIDDEN_BASE, LINEAR_MASK, RAX, RCX, RDI, RDX, RSI, SEGMENT_BASE, TR } from '../state.ts';
import {
  FAULT,
  type HelperFunction,
  high,
  LEAVE,
  low,
  meta,
  NEXT,
  programAccess,
  sizeOf,
  writeRegister,
} from './outcome.ts';
import { iopl } from './stack-access.ts';

const RFLAGS_DF = 1 << 10;

/** May the program use these ports? The answer is in the task state's bit map unless IOPL says yes. */
function mayUsePorts(cpu: Cpu, port: number, bytes: number): boolean {
  const { state, memory } = cpu;
  if (state.get(CPL) <= iopl(cpu) && !state.virtual8086) return true;
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

/** Notes breakpoints on ports, and looks whether the run has to end. */
function afterPort(cpu: Cpu, port: number, bytes: number): number {
  const { memory, breakpoints } = cpu;
  if (breakpoints.hasPort) memory.hits |= breakpoints.atPort(port, bytes);
  return memory.exitRequested || memory.hits !== 0 ? LEAVE : NEXT;
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
    return afterPort(cpu, port, bytes);
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
    return afterPort(cpu, port, bytes);
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
    const count = BigInt.asUintN(bits, state.big(RCX));
    if (repeated && count === 0n) return NEXT;
    const offset = BigInt.asUintN(bits, state.big(pointer));
    const at = (offset + state.big(segment)) & state.big(LINEAR_MASK);
    if (out) {
      if (!memory.load(low(at), high(at), bytes, programAccess(cpu))) return FAULT;
      cpu.bus.portOut(port, bytes, memory.lo);
    } else {
      // The store is found possible before the device is read.
      if (memory.access(low(at), high(at), bytes, programAccess(cpu) | ACCESS_WRITE, false, false) === 0) return FAULT;
      if (!memory.store(low(at), high(at), bytes, programAccess(cpu), cpu.bus.portIn(port, bytes))) return FAULT;
    }
    state.setBig(pointer, BigInt.asUintN(bits, offset + step));
    const leaves = afterPort(cpu, port, bytes) === LEAVE;
    if (!repeated) return leaves ? LEAVE : NEXT;
    state.setBig(RCX, count - 1n);
    // Each time counts as an instruction, so that no count keeps the CPU from an interrupt or from the end of its turn.
    if (count > 1n) cpu.again(record);
    return leaves || count > 1n ? LEAVE : NEXT;
  };
};

export const PORTS: Record<string, HelperFunction> = {
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
};
