/**
 * x87, as far as a kernel and simple programs need it. Registers are 80 bits wide; loads, stores and integer conversions
 * are exact, but arithmetic is done in doubles. No exceptions are raised, transcendental functions are missing (#UD).
 */
import type { Cpu } from '../cpu.ts';
import { R_IMMEDIATE } from '../record.ts';
import { CR0, FCW, FSW, FTAGS, FTOP, RAX } from '../state.ts';
import { fromDouble, fromInteger, ROUND_ZERO, toDouble, toInteger } from './extended.ts';
import {
  FAULT,
  fault,
  type HelperFunction,
  high,
  invalidOpcode,
  loadOperand,
  low,
  NEXT,
  storeOperand,
  writeRegister,
} from './outcome.ts';
import { get, pop, push, put, reset, slot, statusWord } from './x87-stack.ts';

const CONDITION = 0x4500;

const number = (cpu: Cpu, i: number): number => toDouble(get(cpu, i));
const rounding = (cpu: Cpu): number => (cpu.state.get(FCW) >>> 10) & 3;
/** The eight operations of D8, DC and DE; null for comparisons. */
function operate(digit: number, a: number, b: number): number | null {
  switch (digit) {
    case 0:
      return a + b;
    case 1:
      return a * b;
    case 4:
      return a - b;
    case 5:
      return b - a;
    case 6:
      return a / b;
    case 7:
      return b / a;
    default:
      return null;
  }
}

/** C3, C2, C0 from a comparison. */
function compare(cpu: Cpu, a: number, b: number): void {
  const code = Number.isNaN(a) || Number.isNaN(b) ? 0x4500 : a === b ? 0x4000 : a < b ? 0x100 : 0;
  cpu.state.set(FSW, (cpu.state.get(FSW) & ~CONDITION) | code);
}

function compareToFlags(cpu: Cpu, a: number, b: number): number {
  const code = Number.isNaN(a) || Number.isNaN(b) ? 0x45 : a === b ? 0x40 : a < b ? 1 : 0;
  cpu.state.rflags = (cpu.state.rflags & ~0x8d5) | code;
  return NEXT;
}

/** ST(0) with a value from memory. */
function withMemory(cpu: Cpu, digit: number, b: number): number {
  const a = number(cpu, 0);
  const result = operate(digit, a, b);
  if (result !== null) {
    put(cpu, 0, fromDouble(result));
    return NEXT;
  }
  compare(cpu, a, b);
  return digit === 3 ? pop(cpu) : NEXT;
}

/** An operand in memory as a number: m32, m64, m32int, m16int for D8, DC, DA, DE. */
function memoryNumber(cpu: Cpu, record: number, group: number): number | null {
  const { memory } = cpu;
  const bytes = [4, 0, 4, 0, 8, 0, 2, 0][group];
  if (!loadOperand(cpu, record, 0, bytes)) return null;
  bits.setInt32(0, memory.lo, true);
  bits.setInt32(4, memory.hi, true);
  if (group === 0) return bits.getFloat32(0, true);
  if (group === 4) return bits.getFloat64(0, true);
  return group === 2 ? memory.lo : (memory.lo << 16) >> 16;
}

const bits = new DataView(new ArrayBuffer(8));

function loadInteger(cpu: Cpu, record: number, bytes: number): number {
  if (!loadOperand(cpu, record, 0, bytes)) return FAULT;
  const whole = (BigInt(cpu.memory.hi) << 32n) | BigInt(cpu.memory.lo >>> 0);
  return push(cpu, fromInteger(BigInt.asIntN(bytes * 8, whole)));
}

function storeInteger(cpu: Cpu, record: number, bytes: number, popping: boolean, mode: number): number {
  const value = toInteger(get(cpu, 0), mode);
  const width = bytes * 8;
  const fits = value !== null && BigInt.asIntN(width, value) === value;
  const stored = fits ? value : 1n << BigInt(width - 1);
  if (!storeOperand(cpu, record, 0, bytes, low(stored), high(stored))) return FAULT;
  return popping ? pop(cpu) : NEXT;
}

function loadFloat(cpu: Cpu, record: number, bytes: number): number {
  const value = memoryNumber(cpu, record, bytes === 4 ? 0 : 4);
  return value === null ? FAULT : push(cpu, fromDouble(value));
}

function storeFloat(cpu: Cpu, record: number, bytes: number, popping: boolean): number {
  if (bytes === 4) bits.setFloat32(0, number(cpu, 0), true);
  else bits.setFloat64(0, number(cpu, 0), true);
  if (!storeOperand(cpu, record, 0, bytes, bits.getInt32(0, true), bits.getInt32(4, true))) return FAULT;
  return popping ? pop(cpu) : NEXT;
}

function loadExtended(cpu: Cpu, record: number): number {
  const { memory } = cpu;
  if (!loadOperand(cpu, record, 0, 8)) return FAULT;
  const significand = (BigInt(memory.hi >>> 0) << 32n) | BigInt(memory.lo >>> 0);
  if (!loadOperand(cpu, record, 8, 2)) return FAULT;
  return push(cpu, { significand, head: memory.lo });
}

function storeExtended(cpu: Cpu, record: number): number {
  const { significand, head } = get(cpu, 0);
  if (!storeOperand(cpu, record, 8, 2, head)) return FAULT;
  if (!storeOperand(cpu, record, 0, 8, low(significand), high(significand))) return FAULT;
  return pop(cpu);
}

function withMemoryOperand(cpu: Cpu, record: number, group: number, digit: number): number {
  if ((group & 1) === 0) {
    const value = memoryNumber(cpu, record, group);
    return value === null ? FAULT : withMemory(cpu, digit, value);
  }
  switch (group * 8 + digit) {
    case 0o10:
      return loadFloat(cpu, record, 4);
    case 0o12:
    case 0o13:
      return storeFloat(cpu, record, 4, digit === 3);
    case 0o15:
      if (!loadOperand(cpu, record, 0, 2)) return FAULT;
      cpu.state.set(FCW, cpu.memory.lo | 0x40);
      return NEXT;
    case 0o17:
      return storeOperand(cpu, record, 0, 2, cpu.state.get(FCW)) ? NEXT : FAULT;
    case 0o30:
      return loadInteger(cpu, record, 4);
    case 0o31:
      return storeInteger(cpu, record, 4, true, ROUND_ZERO);
    case 0o32:
    case 0o33:
      return storeInteger(cpu, record, 4, digit === 3, rounding(cpu));
    case 0o35:
      return loadExtended(cpu, record);
    case 0o37:
      return storeExtended(cpu, record);
    case 0o50:
      return loadFloat(cpu, record, 8);
    case 0o51:
      return storeInteger(cpu, record, 8, true, ROUND_ZERO);
    case 0o52:
    case 0o53:
      return storeFloat(cpu, record, 8, digit === 3);
    case 0o57:
      return storeOperand(cpu, record, 0, 2, statusWord(cpu)) ? NEXT : FAULT;
    case 0o70:
      return loadInteger(cpu, record, 2);
    case 0o71:
      return storeInteger(cpu, record, 2, true, ROUND_ZERO);
    case 0o72:
    case 0o73:
      return storeInteger(cpu, record, 2, digit === 3, rounding(cpu));
    case 0o75:
      return loadInteger(cpu, record, 8);
    case 0o77:
      return storeInteger(cpu, record, 8, true, rounding(cpu));
    default:
      return invalidOpcode(cpu);
  }
}

const CONSTANTS = [1, Math.log2(10), Math.LOG2E, Math.PI, Math.log10(2), Math.LN2, 0];

/** D9 with a register. */
function group1(cpu: Cpu, modrm: number): number {
  const i = modrm & 7;
  if (modrm < 0xc8) return push(cpu, get(cpu, i));
  if (modrm < 0xd0) {
    const other = get(cpu, i);
    put(cpu, i, get(cpu, 0));
    put(cpu, 0, other);
    return NEXT;
  }
  const top = get(cpu, 0);
  switch (modrm) {
    case 0xd0:
      return NEXT;
    case 0xe0:
      put(cpu, 0, { ...top, head: top.head ^ 0x8000 });
      return NEXT;
    case 0xe1:
      put(cpu, 0, { ...top, head: top.head & 0x7fff });
      return NEXT;
    case 0xe4:
      compare(cpu, toDouble(top), 0);
      return NEXT;
    case 0xfa:
      put(cpu, 0, fromDouble(Math.sqrt(toDouble(top))));
      return NEXT;
    case 0xfc: {
      const whole = toInteger(top, rounding(cpu));
      if (whole !== null) put(cpu, 0, whole === 0n ? { significand: 0n, head: top.head & 0x8000 } : fromInteger(whole));
      return NEXT;
    }
    case 0xf6:
    case 0xf7:
      cpu.state.set(FTOP, (cpu.state.get(FTOP) + (modrm & 1 ? 1 : -1)) & 7);
      return NEXT;
    default:
      return modrm >= 0xe8 && modrm < 0xef ? push(cpu, fromDouble(CONSTANTS[i])) : invalidOpcode(cpu);
  }
}

/** DA and DB with a register: conditional moves, comparisons, control. */
function groups23(cpu: Cpu, group: number, modrm: number): number {
  const i = modrm & 7;
  if (modrm < 0xe0) {
    const flags = cpu.state.rflags;
    const mask = [1, 0x40, 0x41, 4][(modrm >> 3) & 3];
    if (((flags & mask) !== 0) === (group === 2)) put(cpu, 0, get(cpu, i));
    return NEXT;
  }
  if (group === 2) {
    if (modrm !== 0xe9) return invalidOpcode(cpu);
    compare(cpu, number(cpu, 0), number(cpu, 1));
    pop(cpu);
    return pop(cpu);
  }
  if (modrm === 0xe2) {
    cpu.state.set(FSW, cpu.state.get(FSW) & 0x7f00);
    return NEXT;
  }
  if (modrm === 0xe3) return reset(cpu);
  return modrm >= 0xe8 && modrm < 0xf8 ? compareToFlags(cpu, number(cpu, 0), number(cpu, i)) : invalidOpcode(cpu);
}

/** DC and DE with a register: the result goes to ST(i), and subtractions and divisions are the other way round. */
function groups46(cpu: Cpu, group: number, modrm: number): number {
  const i = modrm & 7;
  const digit = (modrm >> 3) & 7;
  const result = operate(digit, number(cpu, 0), number(cpu, i));
  if (result !== null) {
    put(cpu, i, fromDouble(result));
    return group === 6 ? pop(cpu) : NEXT;
  }
  compare(cpu, number(cpu, 0), number(cpu, i));
  if (group === 6 && digit === 3) pop(cpu);
  return digit === 3 ? pop(cpu) : NEXT;
}

function group5(cpu: Cpu, modrm: number): number {
  const i = modrm & 7;
  switch ((modrm >> 3) & 7) {
    case 0:
      cpu.state.set(FTAGS, cpu.state.get(FTAGS) & ~(1 << slot(cpu, i)));
      return NEXT;
    case 2:
    case 3:
      put(cpu, i, get(cpu, 0));
      return modrm & 8 ? pop(cpu) : NEXT;
    case 4:
    case 5:
      compare(cpu, number(cpu, 0), number(cpu, i));
      return modrm & 8 ? pop(cpu) : NEXT;
    default:
      return invalidOpcode(cpu);
  }
}

function group7(cpu: Cpu, modrm: number): number {
  if (modrm === 0xe0) {
    writeRegister(cpu, RAX, 2, statusWord(cpu));
    return NEXT;
  }
  if (modrm < 0xe8 || modrm >= 0xf8) return invalidOpcode(cpu);
  compareToFlags(cpu, number(cpu, 0), number(cpu, modrm & 7));
  return pop(cpu);
}

const escape: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  if (state.get(CR0) & 0xc) return fault(cpu, 7);
  const modrm = state.bytes[record + R_IMMEDIATE];
  const group = state.bytes[record + R_IMMEDIATE + 1];
  if (modrm < 0xc0) return withMemoryOperand(cpu, record, group, (modrm >> 3) & 7);
  switch (group) {
    case 0:
      return withMemory(cpu, (modrm >> 3) & 7, number(cpu, modrm & 7));
    case 1:
      return group1(cpu, modrm);
    case 2:
    case 3:
      return groups23(cpu, group, modrm);
    case 4:
    case 6:
      return groups46(cpu, group, modrm);
    case 5:
      return group5(cpu, modrm);
    default:
      return group7(cpu, modrm);
  }
};

const emms: HelperFunction = (cpu) => {
  cpu.state.set(FTAGS, 0);
  return NEXT;
};

export const X87: Record<string, HelperFunction> = { escape, emms };
