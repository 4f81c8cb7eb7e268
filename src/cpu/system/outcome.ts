/** What a TypeScript instruction answers, and how it reaches its operands. */
import { ACCESS_USER, ACCESS_WRITE } from '../bus.ts';
import type { Cpu } from '../cpu.ts';
import {
  META_MEMORY,
  META_SIZE,
  META_STACK,
  R_ADDRESS_SHIFT,
  R_BASE,
  R_DISPLACEMENT,
  R_INDEX,
  R_META,
  R_OPERAND,
  R_SCALE,
  R_SEGMENT,
} from '../record.ts';
import { CPL, LINEAR_MASK } from '../state.ts';

/** The instruction didn't happen: an exception was raised, or the run has to end. */
export const FAULT = 0;
/** Done; go on behind it. */
export const NEXT = 1;
/** Done; go on at LINEAR_RIP. */
export const JUMP = 2;
/** Done; look for events, then go on at LINEAR_RIP. */
export const LEAVE = 3;

export type HelperFunction = (cpu: Cpu, record: number) => number;

export function fault(cpu: Cpu, vector: number, error = 0): number {
  cpu.state.raise(vector, error);
  return FAULT;
}

export const generalProtection = (cpu: Cpu, error = 0): number => fault(cpu, 13, error);
export const invalidOpcode = (cpu: Cpu): number => fault(cpu, 6);

export function meta(cpu: Cpu, record: number): number {
  return cpu.state.bytes[record + R_META];
}

/** Operand size in bytes: 1, 2, 4 or 8. */
export function sizeOf(cpu: Cpu, record: number): number {
  return 1 << (meta(cpu, record) & META_SIZE);
}

export function isMemory(cpu: Cpu, record: number): boolean {
  return (meta(cpu, record) & META_MEMORY) !== 0;
}

/** The field of operand `i`: an offset into the state, or a bare number. */
export function field(cpu: Cpu, record: number, i: number): number {
  return cpu.state.bytes[record + R_OPERAND + i];
}

/** Access rights of the program: what memory operands are accessed with. */
export function programAccess(cpu: Cpu): number {
  return cpu.state.get(CPL) === 3 ? ACCESS_USER : 0;
}

/** Effective address of the memory operand, or at a distance from it. */
export function effective(cpu: Cpu, record: number, distance = 0): bigint {
  const { state } = cpu;
  const base = state.big(state.bytes[record + R_BASE]);
  const index = state.big(state.bytes[record + R_INDEX]) << BigInt(state.bytes[record + R_SCALE]);
  const displacement = state.view.getBigInt64(record + R_DISPLACEMENT, true);
  return BigInt.asUintN(64 - state.bytes[record + R_ADDRESS_SHIFT], base + index + displacement + BigInt(distance));
}

/** Linear address of the memory operand; or of a part of it that has an effective address of its own. */
export function linear(cpu: Cpu, record: number, distance = 0): bigint {
  const { state } = cpu;
  return (effective(cpu, record, distance) + state.big(state.bytes[record + R_SEGMENT])) & state.big(LINEAR_MASK);
}

export const low = (value: bigint): number => Number(BigInt.asIntN(32, value));
export const high = (value: bigint): number => Number(BigInt.asIntN(32, value >> 32n));

/** Loads from the memory operand at a distance, into `cpu.memory.lo` and `hi`. */
export function loadOperand(cpu: Cpu, record: number, distance: number, bytes: number): boolean {
  const at = linear(cpu, record) + BigInt(distance);
  const stack = (meta(cpu, record) & META_STACK) !== 0;
  return cpu.memory.load(low(at), high(at), bytes, programAccess(cpu), stack);
}

/** The same of a part whose address wraps around as the address size has it. */
export function loadPart(cpu: Cpu, record: number, distance: number, bytes: number): boolean {
  const at = linear(cpu, record, distance);
  return cpu.memory.load(low(at), high(at), bytes, programAccess(cpu), (meta(cpu, record) & META_STACK) !== 0);
}

export function storePart(cpu: Cpu, record: number, distance: number, bytes: number, lo: number, hi = 0): boolean {
  const at = linear(cpu, record, distance);
  const stack = (meta(cpu, record) & META_STACK) !== 0;
  return cpu.memory.store(low(at), high(at), bytes, programAccess(cpu), lo, hi, stack);
}

/** False after the exception that `storePart` would end in. */
export function mayStorePart(cpu: Cpu, record: number, distance: number, bytes: number): boolean {
  const at = linear(cpu, record, distance);
  const stack = (meta(cpu, record) & META_STACK) !== 0;
  return cpu.memory.access(low(at), high(at), bytes, programAccess(cpu) | ACCESS_WRITE, false, stack) !== 0;
}

export function storeOperand(cpu: Cpu, record: number, distance: number, bytes: number, lo: number, hi = 0): boolean {
  const at = linear(cpu, record) + BigInt(distance);
  const stack = (meta(cpu, record) & META_STACK) !== 0;
  return cpu.memory.store(low(at), high(at), bytes, programAccess(cpu), lo, hi, stack);
}

/** Operand `i`, a register or memory, 2 bytes: selectors. -1 after a fault. */
export function readWord(cpu: Cpu, record: number, i: number): number {
  if (!isMemory(cpu, record)) return cpu.state.view.getUint16(cpu.layout.state + field(cpu, record, i), true);
  return loadOperand(cpu, record, 0, 2) ? cpu.memory.lo : -1;
}

/** Writes the low bytes of a value to a general register; 4 bytes clear the upper half. */
export function writeRegister(cpu: Cpu, offset: number, bytes: number, lo: number, hi = 0): void {
  const { view } = cpu.state;
  const at = cpu.layout.state + offset;
  if (bytes === 1) view.setUint8(at, lo);
  else if (bytes === 2) view.setUint16(at, lo, true);
  else {
    view.setInt32(at, lo, true);
    view.setInt32(at + 4, bytes === 8 ? hi : 0, true);
  }
}

/** Writes a value to operand 0: memory gets `bytes`, a register `registerBytes`. */
export function writeOperand(
  cpu: Cpu,
  record: number,
  lo: number,
  hi: number,
  bytes: number,
  registerBytes: number,
): number {
  if (isMemory(cpu, record)) return storeOperand(cpu, record, 0, bytes, lo, hi) ? NEXT : FAULT;
  writeRegister(cpu, field(cpu, record, 0), registerBytes, lo, hi);
  return NEXT;
}
