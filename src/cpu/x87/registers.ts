/**
 * The registers of x87 as a stack, its status, and how an instruction ends: with its flags in the status word, and without a
 * result when something is wrong that the control word doesn't mask.
 */
import type { Cpu } from '../cpu.ts';
import { BEFORE, DEFAULT_NAN, Environment, INVALID, type Parts } from '../float/number.ts';
import { FCW, FPR, FSW, FTAGS, FTOP } from '../state.ts';
import { packExtended, unpackExtended } from './extended.ts';

const STACK_FAULT = 0x40;
const SUMMARY = 0x8080;
const MOVES = 24576;
export const C0 = 0x100;
export const C1 = 0x200;
export const C2 = 0x400;
export const C3 = 0x4000;

/** Of the instruction that is being done. */
export const environment = new Environment();

export function begin(cpu: Cpu): void {
  const control = cpu.state.get(FCW);
  environment.rounding = (control >>> 10) & 3;
  environment.masked = control & 0x3f;
  environment.flags = 0;
  environment.roundedUp = false;
  environment.moves = MOVES;
}

/** Notes what happened; false: the result isn't to be stored, nor the stack popped. */
export function settle(cpu: Cpu): boolean {
  const { state } = cpu;
  // What would have been found later isn't, when something has stopped the operation.
  if (environment.flags & BEFORE & ~environment.masked) {
    environment.flags &= BEFORE | STACK_FAULT;
    if (!(environment.flags & STACK_FAULT)) environment.roundedUp = false;
  }
  const { flags } = environment;
  let status = (state.get(FSW) & ~C1) | (flags & 0x7f);
  if (environment.roundedUp) status |= C1;
  if (flags & 0x3f & ~environment.masked) status |= SUMMARY;
  state.set(FSW, status);
  return (flags & BEFORE & ~environment.masked) === 0;
}

/** Some instructions clear C1 only when they find the stack empty. */
export function settleKeepingC1(cpu: Cpu): boolean {
  const kept = environment.flags & STACK_FAULT ? 0 : cpu.state.get(FSW) & C1;
  const good = settle(cpu);
  cpu.state.set(FSW, cpu.state.get(FSW) | kept);
  return good;
}

export function setConditions(cpu: Cpu, bits: number): void {
  cpu.state.set(FSW, (cpu.state.get(FSW) & ~(C0 | C1 | C2 | C3)) | bits);
}

/** Physical number of ST(i). */
export const slot = (cpu: Cpu, i: number): number => (cpu.state.get(FTOP) + i) & 7;

export const isEmpty = (cpu: Cpu, i: number): boolean => ((cpu.state.get(FTAGS) >>> slot(cpu, i)) & 1) === 0;

/** Notes a stack fault: an empty register is used, or (`over`) a full one is pushed to. */
export function stackFault(over: boolean): void {
  environment.flags |= INVALID | STACK_FAULT;
  environment.roundedUp = over;
}

export function rawAt(cpu: Cpu, i: number): [significand: bigint, head: number] {
  const { view } = cpu.state;
  const at = cpu.layout.state + FPR + slot(cpu, i) * 16;
  return [view.getBigUint64(at, true), view.getUint16(at + 8, true)];
}

/** ST(i), whatever its tag. */
export const peekAt = (cpu: Cpu, i: number): Parts => unpackExtended(...rawAt(cpu, i));

export function putRaw(cpu: Cpu, i: number, significand: bigint, head: number): void {
  const { state } = cpu;
  const at = cpu.layout.state + FPR + slot(cpu, i) * 16;
  state.view.setBigUint64(at, significand, true);
  state.view.setUint16(at + 8, head, true);
  state.set(FTAGS, state.get(FTAGS) | (1 << slot(cpu, i)));
}

export function put(cpu: Cpu, i: number, value: Parts): void {
  putRaw(cpu, i, ...packExtended(value));
}

/** Pushes, or what a full stack makes of it. Settles. */
export function push(cpu: Cpu, value: Parts): void {
  pushRaw(cpu, ...packExtended(value));
}

export function pushRaw(cpu: Cpu, significand: bigint, head: number): void {
  const { state } = cpu;
  const full = !isEmpty(cpu, 7);
  if (full) stackFault(true);
  settle(cpu);
  // A denormal number is loaded even if that is to be reported.
  if (environment.flags & INVALID & ~environment.masked) return;
  state.set(FTOP, (state.get(FTOP) - 1) & 7);
  if (full) put(cpu, 0, DEFAULT_NAN);
  else putRaw(cpu, 0, significand, head);
}

/** Pushes a result of an instruction that has settled, for a full stack too. */
export function pushSettled(cpu: Cpu, value: Parts): void {
  const { state } = cpu;
  state.set(FTOP, (state.get(FTOP) - 1) & 7);
  put(cpu, 0, value);
}

export function pop(cpu: Cpu): void {
  const { state } = cpu;
  state.set(FTAGS, state.get(FTAGS) & ~(1 << slot(cpu, 0)));
  state.set(FTOP, (state.get(FTOP) + 1) & 7);
}

export const statusWord = (cpu: Cpu): number => (cpu.state.get(FSW) & ~0x3800) | (cpu.state.get(FTOP) << 11);

/** Of the reserved bits one is always set. */
export function setControlWord(cpu: Cpu, word: number): void {
  cpu.state.set(FCW, (word & 0x1f3f) | 0x40);
}

export function setStatusWord(cpu: Cpu, word: number): void {
  cpu.state.set(FTOP, (word >>> 11) & 7);
  cpu.state.set(FSW, word & 0xffff & ~0x3800);
}

/** Is an exception waiting that the next instruction has to report? */
export const errorWaits = (cpu: Cpu): boolean => (cpu.state.get(FSW) & 0x80) !== 0;

/** Sets the summary by flags and masks, after a load of either. */
export function refreshSummary(cpu: Cpu): void {
  const { state } = cpu;
  const waits = (state.get(FSW) & 0x3f & ~state.get(FCW)) !== 0;
  state.set(FSW, waits ? state.get(FSW) | SUMMARY : state.get(FSW) & ~SUMMARY);
}

export function reset(cpu: Cpu): void {
  const { state } = cpu;
  state.set(FCW, 0x37f);
  state.set(FSW, 0);
  state.set(FTOP, 0);
  state.set(FTAGS, 0);
}

/** An MMX instruction: all registers are in use, and the stack begins at the first. */
export function useMmx(cpu: Cpu): void {
  cpu.state.set(FTOP, 0);
  cpu.state.set(FTAGS, 255);
}
