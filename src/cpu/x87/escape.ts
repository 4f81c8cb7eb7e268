/** The eight opcodes of x87, whose meaning is in ModRM. */
import type { Cpu } from '../cpu.ts';
import { finite, fromWhole, type Parts, round, zero } from '../float/number.ts';
import { R_IMMEDIATE } from '../record.ts';
import { CR0, FCW, FSW, FTAGS, FTOP, RAX } from '../state.ts';
import {
  FAULT,
  fault,
  type HelperFunction,
  invalidOpcode,
  loadOperand,
  NEXT,
  storeOperand,
  writeRegister,
} from '../system/outcome.ts';
import { arithmetic, compare, compareToFlags, operand } from './arithmetic.ts';
import { loadEnvironment, restoreAll, saveAll, storeEnvironment } from './environment.ts';
import { EXTENDED } from './extended.ts';
import * as f from './functions.ts';
import {
  loadDecimal,
  loadExtended,
  pushFloat,
  readFloat,
  readInteger,
  storeDecimal,
  storeExtended,
  storeFloat,
  storeInteger,
} from './memory-operands.ts';
import {
  begin,
  C1,
  environment,
  errorWaits,
  isEmpty,
  pop,
  push,
  putRaw,
  rawAt,
  refreshSummary,
  setControlWord,
  reset,
  settle,
  settleKeepingC1,
  slot,
  stackFault,
  statusWord,
} from './registers.ts';

const CR0_NE = 1 << 5;
const VECTOR_NM = 7;
const VECTOR_MF = 16;

const done = (good: boolean): number => (good ? NEXT : FAULT);

/** D8, DC, DA, DE with a number in memory. */
function withMemory(cpu: Cpu, record: number, group: number, digit: number): number {
  const bytes = [4, 0, 4, 0, 8, 0, 2][group];
  const value = group & 2 ? readInteger(cpu, record, bytes) : readFloat(cpu, record, bytes);
  if (value === null) return FAULT;
  if (digit === 2 || digit === 3) compare(cpu, value, false, digit - 2);
  else arithmetic(cpu, digit, value, 0, false);
  return NEXT;
}

/** D9, DB, DD, DF with memory, by group and digit in octal. */
function memoryForms(cpu: Cpu, record: number, form: number): number {
  const { state } = cpu;
  switch (form) {
    case 0o10:
    case 0o50: {
      const value = readFloat(cpu, record, form === 0o10 ? 4 : 8);
      if (value === null) return FAULT;
      pushFloat(cpu, value);
      return NEXT;
    }
    case 0o12:
    case 0o13:
      return done(storeFloat(cpu, record, 4, form === 0o13));
    case 0o52:
    case 0o53:
      return done(storeFloat(cpu, record, 8, form === 0o53));
    case 0o14:
      return done(loadEnvironment(cpu, record));
    case 0o15:
      if (!loadOperand(cpu, record, 0, 2)) return FAULT;
      setControlWord(cpu, cpu.memory.lo);
      refreshSummary(cpu);
      return NEXT;
    case 0o16:
      return done(storeEnvironment(cpu, record));
    case 0o17:
      return done(storeOperand(cpu, record, 0, 2, state.get(FCW)));
    case 0o35:
      return done(loadExtended(cpu, record));
    case 0o37:
      return done(storeExtended(cpu, record));
    case 0o54:
      return done(restoreAll(cpu, record));
    case 0o56:
      return done(saveAll(cpu, record));
    case 0o57:
      return done(storeOperand(cpu, record, 0, 2, statusWord(cpu)));
    case 0o74:
      return done(loadDecimal(cpu, record));
    case 0o76:
      return done(storeDecimal(cpu, record));
    default:
      return integerForms(cpu, record, form);
  }
}

function integerForms(cpu: Cpu, record: number, form: number): number {
  const group = form >> 3;
  const digit = form & 7;
  const far = group === 7 && digit >= 5;
  const bytes = far ? 8 : group === 3 ? 4 : group === 7 ? 2 : 8;
  if ((group !== 5 && digit === 0) || (far && digit === 5)) {
    const value = readInteger(cpu, record, bytes);
    if (value === null) return FAULT;
    push(cpu, value);
    return NEXT;
  }
  if (far && digit === 7) return done(storeInteger(cpu, record, 8, true, false));
  if (digit === 1) return done(storeInteger(cpu, record, bytes, true, true));
  if (group !== 5 && (digit === 2 || digit === 3)) return done(storeInteger(cpu, record, bytes, digit === 3, false));
  return invalidOpcode(cpu);
}

/** 1, log2 10, log2 e, pi, log10 2, ln 2, 0: with more bits than a register has. */
const CONSTANTS: readonly Parts[] = [
  fromWhole(1n),
  finite(false, 0xd49a784bcd1b8afe492bf6ffn, -94),
  finite(false, 0xb8aa3b295c17f0bbbe87fed0n, -95),
  finite(false, 0xc90fdaa22168c234c4c6628bn, -94),
  finite(false, 0x9a209a84fbcff7988f8959acn, -97),
  finite(false, 0xb17217f7d1cf79abc9e3b398n, -96),
  zero(false),
];

const D9_FUNCTIONS: Readonly<Record<number, (cpu: Cpu) => void>> = {
  0xe4: (cpu) => compare(cpu, zero(false), false, 0),
  0xe5: f.examine,
  0xf0: f.exponential,
  0xf1: f.logarithm,
  0xf2: f.tangent,
  0xf3: f.arctangents,
  0xf4: f.extract,
  0xf5: (cpu) => f.remainder(cpu, true),
  0xf6: (cpu) => turn(cpu, -1),
  0xf7: (cpu) => turn(cpu, 1),
  0xf8: (cpu) => f.remainder(cpu, false),
  0xf9: f.logarithmPlus1,
  0xfa: f.squareRootTop,
  0xfb: f.sineAndCosine,
  0xfc: f.roundTop,
  0xfd: f.scale,
  0xfe: f.sine,
  0xff: f.cosine,
};

function turn(cpu: Cpu, by: number): void {
  cpu.state.set(FTOP, (cpu.state.get(FTOP) + by) & 7);
  cpu.state.set(FSW, cpu.state.get(FSW) & ~C1);
}

/** FCHS, FABS: only the sign's bit. */
function sign(cpu: Cpu, change: (head: number) => number): number {
  let [significand, head] = rawAt(cpu, 0);
  if (isEmpty(cpu, 0)) {
    stackFault(false);
    [significand, head] = [3n << 62n, 0xffff];
  } else {
    head = change(head);
  }
  if (settle(cpu)) putRaw(cpu, 0, significand, head);
  return NEXT;
}

/** Bits of ST(i), or what an empty register counts as. */
function bitsAt(cpu: Cpu, i: number): [bigint, number] {
  if (!isEmpty(cpu, i)) return rawAt(cpu, i);
  stackFault(false);
  return [3n << 62n, 0xffff];
}

function exchange(cpu: Cpu, i: number): number {
  const top = bitsAt(cpu, 0);
  const other = bitsAt(cpu, i);
  if (!settle(cpu)) return NEXT;
  putRaw(cpu, 0, ...other);
  putRaw(cpu, i, ...top);
  return NEXT;
}

function group1(cpu: Cpu, modrm: number): number {
  const i = modrm & 7;
  if (modrm < 0xc8) {
    const bits = bitsAt(cpu, i);
    const full = environment.flags === 0 && !isEmpty(cpu, 7);
    if (full) stackFault(true);
    if (!settle(cpu)) return NEXT;
    turnDown(cpu);
    if (full) putRaw(cpu, 0, 3n << 62n, 0xffff);
    else putRaw(cpu, 0, ...bits);
    return NEXT;
  }
  if (modrm < 0xd0) return exchange(cpu, i);
  if (modrm === 0xd0) return NEXT;
  if (modrm === 0xe0) return sign(cpu, (head) => head ^ 0x8000);
  if (modrm === 0xe1) return sign(cpu, (head) => head & 0x7fff);
  if (modrm >= 0xe8 && modrm < 0xef) {
    const value = round(EXTENDED, CONSTANTS[i], environment);
    environment.flags = 0;
    environment.roundedUp = false;
    push(cpu, value);
    return NEXT;
  }
  const call = D9_FUNCTIONS[modrm];
  if (!call) return modrm >= 0xd8 && modrm < 0xe0 ? storeRegister(cpu, i, true) : invalidOpcode(cpu);
  call(cpu);
  return NEXT;
}

function turnDown(cpu: Cpu): void {
  cpu.state.set(FTOP, (cpu.state.get(FTOP) - 1) & 7);
}

function storeRegister(cpu: Cpu, i: number, popping: boolean): number {
  const bits = bitsAt(cpu, 0);
  if (!settle(cpu)) return NEXT;
  putRaw(cpu, i, ...bits);
  if (popping) pop(cpu);
  return NEXT;
}

/** FCMOVcc. */
function conditionalMove(cpu: Cpu, i: number, modrm: number, wanted: boolean): number {
  const mask = [1, 0x40, 0x41, 4][(modrm >> 3) & 3];
  const empty = isEmpty(cpu, 0) || isEmpty(cpu, i);
  if (empty) stackFault(false);
  if (!settleKeepingC1(cpu)) return NEXT;
  if (empty) putRaw(cpu, 0, 3n << 62n, 0xffff);
  else if (((cpu.state.rflags & mask) !== 0) === wanted) putRaw(cpu, 0, ...rawAt(cpu, i));
  return NEXT;
}

/** DA and DB with a register: conditional moves, comparisons, control. */
function groups23(cpu: Cpu, group: number, modrm: number): number {
  const i = modrm & 7;
  if (modrm < 0xe0) return conditionalMove(cpu, i, modrm, group === 2);
  if (group === 2) {
    if (modrm !== 0xe9) return invalidOpcode(cpu);
    compare(cpu, operand(cpu, 1), true, 2);
    return NEXT;
  }
  if (modrm >= 0xe8 && modrm < 0xf8) {
    compareToFlags(cpu, i, modrm < 0xf0, false);
    return NEXT;
  }
  // The 8087's and 80287's controls do nothing.
  return modrm === 0xe0 || modrm === 0xe1 || modrm === 0xe4 ? NEXT : invalidOpcode(cpu);
}

/** D8, DC and DE with a register. In DC and DE the result goes to ST(i). */
function registerArithmetic(cpu: Cpu, group: number, modrm: number): number {
  const i = modrm & 7;
  const digit = (modrm >> 3) & 7;
  const b = operand(cpu, i);
  if (digit === 2 || digit === 3) {
    if (group === 6 && digit === 3) {
      if (modrm !== 0xd9) return invalidOpcode(cpu);
      compare(cpu, b, false, 2);
    } else {
      compare(cpu, b, false, group === 6 ? 1 : digit - 2);
    }
    return NEXT;
  }
  arithmetic(cpu, digit, b, group === 0 ? 0 : i, group === 6);
  return NEXT;
}

function group5(cpu: Cpu, modrm: number): number {
  const i = modrm & 7;
  switch ((modrm >> 3) & 7) {
    case 0:
      cpu.state.set(FTAGS, cpu.state.get(FTAGS) & ~(1 << slot(cpu, i)));
      cpu.state.set(FSW, cpu.state.get(FSW) & ~C1);
      return NEXT;
    case 1:
      return exchange(cpu, i);
    case 2:
    case 3:
      return storeRegister(cpu, i, (modrm & 8) !== 0);
    case 4:
    case 5:
      compare(cpu, operand(cpu, i), true, (modrm >> 3) & 1);
      return NEXT;
    default:
      return invalidOpcode(cpu);
  }
}

function group7(cpu: Cpu, modrm: number): number {
  const i = modrm & 7;
  if (modrm < 0xc8) {
    cpu.state.set(FTAGS, cpu.state.get(FTAGS) & ~(1 << slot(cpu, i)));
    pop(cpu);
    return NEXT;
  }
  if (modrm < 0xd0) return exchange(cpu, i);
  if (modrm < 0xe0) return storeRegister(cpu, i, true);
  if (modrm < 0xe8 || modrm >= 0xf8) return invalidOpcode(cpu);
  compareToFlags(cpu, i, modrm < 0xf0, true);
  return NEXT;
}

/** FNINIT, FNCLEX, FNSTCW, FNSTSW, FNSTENV, FNSAVE: they don't wait for errors. -1: it isn't one of them. */
function controls(cpu: Cpu, record: number, group: number, modrm: number): number {
  if (modrm < 0xc0) {
    const form = group * 8 + ((modrm >> 3) & 7);
    return form === 0o16 || form === 0o17 || form === 0o56 || form === 0o57 ? memoryForms(cpu, record, form) : -1;
  }
  if (group === 7 && modrm === 0xe0) {
    writeRegister(cpu, RAX, 2, statusWord(cpu));
    return NEXT;
  }
  if (group !== 3) return -1;
  if (modrm === 0xe2) cpu.state.set(FSW, cpu.state.get(FSW) & 0x7f00);
  else if (modrm === 0xe3) reset(cpu);
  else return -1;
  return NEXT;
}

/** Reports an error of an earlier instruction. */
function reportError(cpu: Cpu): number {
  if (cpu.state.get(CR0) & CR0_NE) return fault(cpu, VECTOR_MF);
  cpu.unsupported = 'an x87 error by way of the interrupt controller';
  return fault(cpu, VECTOR_MF);
}

const escape: HelperFunction = (cpu, record) => {
  const { state } = cpu;
  if (state.get(CR0) & 0xc) return fault(cpu, VECTOR_NM);
  const modrm = state.bytes[record + R_IMMEDIATE];
  const group = state.bytes[record + R_IMMEDIATE + 1];
  const control = controls(cpu, record, group, modrm);
  if (control >= 0) return control;
  if (errorWaits(cpu)) return reportError(cpu);
  begin(cpu);
  if (modrm < 0xc0) {
    if ((group & 1) === 0) return withMemory(cpu, record, group, (modrm >> 3) & 7);
    return memoryForms(cpu, record, group * 8 + ((modrm >> 3) & 7));
  }
  switch (group) {
    case 0:
    case 4:
    case 6:
      return registerArithmetic(cpu, group, modrm);
    case 1:
      return group1(cpu, modrm);
    case 2:
    case 3:
      return groups23(cpu, group, modrm);
    case 5:
      return group5(cpu, modrm);
    default:
      return group7(cpu, modrm);
  }
};

const fwait: HelperFunction = (cpu) => {
  const { state } = cpu;
  const both = 0xa;
  if ((state.get(CR0) & both) === both) return fault(cpu, VECTOR_NM);
  return errorWaits(cpu) ? reportError(cpu) : NEXT;
};

const emms: HelperFunction = (cpu) => {
  cpu.state.set(FTAGS, 0);
  return NEXT;
};

export const X87: Record<string, HelperFunction> = { escape, fwait, emms };
