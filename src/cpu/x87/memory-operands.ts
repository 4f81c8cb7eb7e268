/** Loads and stores: floats, doubles, 80 bits, integers, decimals. */
import type { Cpu } from '../cpu.ts';
import {
  DEFAULT_NAN,
  DOUBLE,
  type Format,
  fromWhole,
  INEXACT,
  INVALID,
  pack,
  type Parts,
  SINGLE,
  TO_ZERO,
  toWhole,
  unpack,
} from '../float/number.ts';
import { convert } from '../float/operations.ts';
import { high, loadOperand, loadPart, low, mayStorePart, storeOperand, storePart } from '../system/outcome.ts';
import { environment, isEmpty, peekAt, pop, push, pushRaw, rawAt, settle, stackFault } from './registers.ts';

const INDEFINITE_HEAD = 0xffff;
const INDEFINITE = 3n << 62n;

const loaded = (cpu: Cpu): bigint => (BigInt(cpu.memory.hi >>> 0) << 32n) | BigInt(cpu.memory.lo >>> 0);

/** A float (4 bytes) or double (8) from memory; null after a fault. */
export function readFloat(cpu: Cpu, record: number, bytes: number): Parts | null {
  if (!loadOperand(cpu, record, 0, bytes)) return null;
  return unpack(bytes === 4 ? SINGLE : DOUBLE, BigInt.asUintN(bytes * 8, loaded(cpu)), environment);
}

export function readInteger(cpu: Cpu, record: number, bytes: number): Parts | null {
  return loadOperand(cpu, record, 0, bytes) ? fromWhole(BigInt.asIntN(bytes * 8, loaded(cpu))) : null;
}

/** To the 80 bits of a register, which is exact. */
const WIDE: Format = { precision: 64, maxExponent: 16383, minExponent: -16382 };

export function pushFloat(cpu: Cpu, value: Parts): void {
  // A full stack is found first.
  push(cpu, isEmpty(cpu, 7) ? convert(WIDE, value, environment) : value);
}

export function loadExtended(cpu: Cpu, record: number): boolean {
  if (!loadPart(cpu, record, 0, 8)) return false;
  const significand = loaded(cpu);
  if (!loadPart(cpu, record, 8, 2)) return false;
  pushRaw(cpu, significand, cpu.memory.lo);
  return true;
}

/** Ten bytes are two parts, and both must be writable before anything is noted. */
const mayStoreTen = (cpu: Cpu, record: number): boolean =>
  mayStorePart(cpu, record, 8, 2) && mayStorePart(cpu, record, 0, 8);

function storeTen(cpu: Cpu, record: number, significand: bigint, head: number): void {
  storePart(cpu, record, 8, 2, head);
  storePart(cpu, record, 0, 8, low(significand), high(significand));
}

export function storeExtended(cpu: Cpu, record: number): boolean {
  if (!mayStoreTen(cpu, record)) return false;
  let raw = rawAt(cpu, 0);
  if (isEmpty(cpu, 0)) {
    stackFault(false);
    raw = [INDEFINITE, INDEFINITE_HEAD];
  }
  if (!settle(cpu)) return true;
  storeTen(cpu, record, raw[0], raw[1]);
  pop(cpu);
  return true;
}

export function storeFloat(cpu: Cpu, record: number, bytes: number, popping: boolean): boolean {
  const format = bytes === 4 ? SINGLE : DOUBLE;
  let value = DEFAULT_NAN;
  if (isEmpty(cpu, 0)) stackFault(false);
  else value = withoutMoves(() => convert(format, withoutDenormalFlag(peekAt(cpu, 0)), environment));
  const bits = pack(format, value);
  return storeBits(cpu, record, bytes, bits, popping);
}

/** What doesn't fit into memory isn't stored at all, when nothing masks it. */
function withoutMoves<T>(f: () => T): T {
  const { moves } = environment;
  environment.moves = 0;
  const result = f();
  environment.moves = moves;
  return result;
}

/** Storing a denormal number isn't an operation on it. */
const withoutDenormalFlag = (a: Parts): Parts => ({ ...a, denormal: false });

/** Stores unless an exception that isn't masked says no; even then, before anything is noted, the memory must be there. */
function storeBits(cpu: Cpu, record: number, bytes: number, bits: bigint, popping: boolean): boolean {
  const stopped = (environment.flags & 0x1f & ~environment.masked) !== 0;
  if (stopped ? !mayStorePart(cpu, record, 0, bytes) : !storeOperand(cpu, record, 0, bytes, low(bits), high(bits))) {
    return false;
  }
  if (stopped) {
    environment.flags &= ~INEXACT;
    environment.roundedUp = false;
  }
  settle(cpu);
  if (!stopped && popping) pop(cpu);
  return true;
}

export function storeInteger(cpu: Cpu, record: number, bytes: number, popping: boolean, truncate: boolean): boolean {
  const width = bytes * 8;
  let whole: bigint | null = null;
  if (isEmpty(cpu, 0)) {
    stackFault(false);
  } else {
    whole = toWhole(peekAt(cpu, 0), truncate ? TO_ZERO : environment.rounding, environment);
    if (whole === null || BigInt.asIntN(width, whole) !== whole) {
      environment.flags = INVALID;
      environment.roundedUp = false;
      whole = null;
    }
  }
  return storeBits(cpu, record, bytes, whole ?? 1n << BigInt(width - 1), popping);
}

/** Eighteen decimal digits and a sign. */
export function loadDecimal(cpu: Cpu, record: number): boolean {
  if (!loadPart(cpu, record, 0, 8)) return false;
  const digits = loaded(cpu);
  if (!loadPart(cpu, record, 8, 2)) return false;
  const top = cpu.memory.lo;
  let value = 0n;
  const all = (BigInt(top & 0xff) << 64n) | digits;
  for (let i = 17; i >= 0; i--) value = value * 10n + ((all >> BigInt(i * 4)) & 15n);
  push(cpu, { ...fromWhole(value), negative: (top & 0x8000) !== 0 });
  return true;
}

export function storeDecimal(cpu: Cpu, record: number): boolean {
  if (!mayStoreTen(cpu, record)) return false;
  let whole: bigint | null = null;
  let negative = false;
  if (isEmpty(cpu, 0)) {
    stackFault(false);
  } else {
    const value = peekAt(cpu, 0);
    negative = value.negative;
    whole = toWhole(value, environment.rounding, environment);
    if (whole !== null && whole < 0n) whole = -whole;
    if (whole === null || whole >= 10n ** 18n) {
      environment.flags = INVALID;
      environment.roundedUp = false;
      whole = null;
    }
  }
  let digits = 0n;
  if (whole === null) digits = 0xffffc000000000000000n;
  else for (let i = 0n; i < 18n; i++, whole /= 10n) digits |= (whole % 10n) << (i * 4n);
  if (digits >> 76n === 0n && negative) digits |= 0x80n << 72n;
  const stopped = (environment.flags & 0x1f & ~environment.masked) !== 0;
  if (!stopped) storeTen(cpu, record, digits, Number(digits >> 64n));
  settle(cpu);
  if (!stopped) pop(cpu);
  return true;
}
