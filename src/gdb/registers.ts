/**
 * A CPU's registers as GDB knows them: their numbers are their places in this table, and `target.xml` is made from it. Where a
 * debugger sets one, the rules of the instruction that could are kept; what no instruction sets alone (a selector without its
 * descriptor) can only be read.
 */
import type { Cpu } from '../cpu/cpu.ts';
import { writeCr0, writeCr3, writeCr4, writeEfer } from '../cpu/system/control-registers.ts';
import { segmentsChanged } from '../cpu/segments.ts';
import {
  CR0,
  CR2,
  CR3,
  CR4,
  CR8,
  DR0,
  DR6,
  DR7,
  EFER,
  FCW,
  FOP,
  FTAGS,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  HIDDEN_BASE,
  IDTR_BASE,
  IDTR_LIMIT,
  KERNEL_GS_BASE,
  LINEAR_RIP,
  MXCSR,
  NO_EXCEPTION,
  PENDING_VECTOR,
  SEGMENT_BYTES,
  SEGMENTS,
  XMM,
} from '../cpu/state.ts';
import { FAULT } from '../cpu/system/outcome.ts';
import { putRaw, rawAt, setStatusWord, statusWord } from '../cpu/x87/registers.ts';

export interface Register {
  readonly name: string;
  readonly bits: number;
  /** GDB's, or one that `target-xml.ts` defines. */
  readonly type: string;
  readonly feature: Feature;
  readonly read: (cpu: Cpu) => bigint;
  /** False: not this value. None: it can't be set. */
  readonly write?: (cpu: Cpu, value: bigint) => boolean;
}

export type Feature =
  | 'org.gnu.gdb.i386.core'
  | 'org.gnu.gdb.i386.sse'
  | 'org.gnu.gdb.i386.segments'
  | 'penumbra.system';

const CORE = 'org.gnu.gdb.i386.core';
const SSE = 'org.gnu.gdb.i386.sse';
const BASES = 'org.gnu.gdb.i386.segments';
const SYSTEM = 'penumbra.system';

/** In GDB's order, by their numbers in the CPU. */
const GENERAL: readonly (readonly [string, number])[] = [
  ['rax', 0],
  ['rbx', 3],
  ['rcx', 1],
  ['rdx', 2],
  ['rsi', 6],
  ['rdi', 7],
  ['rbp', 5],
  ['rsp', 4],
  ...[8, 9, 10, 11, 12, 13, 14, 15].map((n) => [`r${n}`, n] as const),
];
const SEGMENT_NAMES: readonly (readonly [string, number])[] = [
  ['cs', 1],
  ['ss', 2],
  ['ds', 3],
  ['es', 0],
  ['fs', 4],
  ['gs', 5],
];
/** CF PF AF ZF SF TF IF DF OF IOPL NT RF AC ID: what POPF in ring 0 can set, and RF. */
const SETTABLE_FLAGS = 0x257fd5;
const LOW_32 = 0xffffffffn;
const CR8_NUMBER = 8;

export const REGISTERS: readonly Register[] = [
  ...GENERAL.map(([name, n]) => word(name, CORE, GPR + 8 * n, pointerType(name))),
  { ...word('rip', CORE, LINEAR_RIP, 'code_ptr'), write: setRip },
  {
    name: 'eflags',
    bits: 32,
    type: 'i386_eflags',
    feature: CORE,
    read: ({ state }) => big(state.rflags),
    write: setFlags,
  },
  ...SEGMENT_NAMES.map(([name, n]) =>
    readOnly(name, 32, CORE, (cpu) => big(cpu.state.get(SEGMENTS + n * SEGMENT_BYTES))),
  ),
  ...[0, 1, 2, 3, 4, 5, 6, 7].map(stackRegister),
  half('fctrl', FCW, 'int'),
  { name: 'fstat', bits: 32, type: 'int', feature: CORE, read: (cpu) => big(statusWord(cpu)), write: setStatus },
  readOnly('ftag', 32, CORE, ({ state }) => big(tagWord(state.get(FTAGS)))),
  ...['fiseg', 'fioff', 'foseg', 'fooff'].map((name) => readOnly(name, 32, CORE, () => 0n)),
  half('fop', FOP, 'int'),
  ...Array.from({ length: 16 }, (_, n) => vectorRegister(n)),
  { ...half('mxcsr', MXCSR, 'i386_mxcsr'), feature: SSE, write: setMxcsr },
  base('fs_base', BASES, 4),
  base('gs_base', BASES, 5),
  {
    ...word('k_gs_base', SYSTEM, KERNEL_GS_BASE, 'data_ptr'),
    write: (cpu, v) => isCanonical(cpu, v) && put(cpu, KERNEL_GS_BASE, v),
  },
  ...SEGMENT_NAMES.slice(0, 4).map(([name, n]) => ({ ...base(`${name}_base`, SYSTEM, n), write: undefined })),
  control('cr0', 'cr0', CR0, writeCr0),
  word('cr2', SYSTEM, CR2, 'data_ptr'),
  control('cr3', 'data_ptr', CR3, writeCr3),
  control('cr4', 'cr4', CR4, writeCr4),
  { ...readOnly('cr8', 64, SYSTEM, ({ state }) => big(state.get(CR8))), write: setCr8 },
  control('efer', 'efer', EFER, writeEfer),
  readOnly('gdtr_base', 64, SYSTEM, ({ state }) => state.big(GDTR_BASE)),
  readOnly('gdtr_limit', 32, SYSTEM, ({ state }) => big(state.get(GDTR_LIMIT))),
  readOnly('idtr_base', 64, SYSTEM, ({ state }) => state.big(IDTR_BASE)),
  readOnly('idtr_limit', 32, SYSTEM, ({ state }) => big(state.get(IDTR_LIMIT))),
  ...systemSegment('ldtr', 6),
  ...systemSegment('tr', 7),
  ...[0, 1, 2, 3].map((n) => readOnly(`dr${n}`, 64, SYSTEM, ({ state }) => state.big(DR0 + 8 * n))),
  readOnly('dr6', 32, SYSTEM, ({ state }) => big(state.get(DR6))),
  readOnly('dr7', 32, SYSTEM, ({ state }) => big(state.get(DR7))),
];

export const REGISTER_BYTES = REGISTERS.reduce((sum, { bits }) => sum + bits / 8, 0);

/** Little-endian, as GDB has them. */
export function readRegister(cpu: Cpu, { bits, read }: Register): Uint8Array {
  const bytes = new Uint8Array(bits / 8);
  let rest = BigInt.asUintN(bits, read(cpu));
  for (let i = 0; i < bytes.length; i++, rest >>= 8n) bytes[i] = Number(rest & 255n);
  return bytes;
}

/** False if it can't be set, or not to this. A value that it has already is always right. */
export function writeRegister(cpu: Cpu, register: Register, bytes: Uint8Array): boolean {
  if (bytes.length !== register.bits / 8) return false;
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]);
  if (value === BigInt.asUintN(register.bits, register.read(cpu))) return true;
  return register.write !== undefined && register.write(cpu, value);
}

function word(name: string, feature: Feature, at: number, type: string): Register {
  return {
    name,
    bits: 64,
    type,
    feature,
    read: ({ state }) => state.big(at),
    write: (cpu, value) => put(cpu, at, value),
  };
}

function put(cpu: Cpu, at: number, value: bigint): boolean {
  cpu.state.setBig(at, value);
  return true;
}

function readOnly(name: string, bits: number, feature: Feature, read: (cpu: Cpu) => bigint): Register {
  return { name, bits, type: bits === 64 ? 'data_ptr' : 'int', feature, read };
}

/** 16 bits of x87 or MXCSR, in 32. */
function half(name: string, at: number, type: string): Register {
  const write = (cpu: Cpu, value: bigint): boolean => {
    cpu.state.set(at, Number(value & 0xffffn));
    return true;
  };
  return { name, bits: 32, type, feature: CORE, read: ({ state }) => big(state.get(at) & 0xffff), write };
}

function pointerType(name: string): string {
  return name === 'rbp' || name === 'rsp' ? 'data_ptr' : 'int64';
}

function stackRegister(n: number): Register {
  const read = (cpu: Cpu): bigint => {
    const [significand, head] = rawAt(cpu, n);
    return (BigInt(head) << 64n) | significand;
  };
  const write = (cpu: Cpu, value: bigint): boolean => {
    putRaw(cpu, n, BigInt.asUintN(64, value), Number(value >> 64n));
    return true;
  };
  return { name: `st${n}`, bits: 80, type: 'i387_ext', feature: CORE, read, write };
}

function vectorRegister(n: number): Register {
  const at = XMM + 16 * n;
  const write = (cpu: Cpu, value: bigint): boolean => put(cpu, at, value) && put(cpu, at + 8, value >> 64n);
  const read = ({ state }: Cpu): bigint => (state.big(at + 8) << 64n) | state.big(at);
  return { name: `xmm${n}`, bits: 128, type: 'vec128', feature: SSE, read, write };
}

function base(name: string, feature: Feature, segment: number): Register {
  const at = HIDDEN_BASE + 8 * segment;
  const write = (cpu: Cpu, value: bigint): boolean => {
    if (!isCanonical(cpu, value)) return false;
    put(cpu, at, value);
    segmentsChanged(cpu);
    return true;
  };
  return { name, bits: 64, type: 'data_ptr', feature, read: ({ state }) => state.big(at), write };
}

function systemSegment(name: string, segment: number): readonly Register[] {
  return [
    readOnly(name, 32, SYSTEM, ({ state }) => big(state.get(SEGMENTS + segment * SEGMENT_BYTES))),
    readOnly(`${name}_base`, 64, SYSTEM, ({ state }) => state.big(HIDDEN_BASE + 8 * segment)),
  ];
}

/** Set by the rules of MOV and WRMSR, which raise #GP: here it is a refusal. */
function control(name: string, type: string, at: number, set: (cpu: Cpu, lo: number, hi: number) => number): Register {
  const isPair = at === CR3;
  return {
    name,
    bits: 64,
    type,
    feature: SYSTEM,
    read: ({ state }) => (isPair ? state.big(at) : big(state.get(at))),
    write: (cpu, value) => {
      const { state } = cpu;
      // An exception that waits to be delivered would be lost.
      if (state.raised) return false;
      const isDone = set(cpu, Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n))) !== FAULT;
      if (!isDone) state.set(PENDING_VECTOR, NO_EXCEPTION);
      return isDone;
    },
  };
}

function setRip(cpu: Cpu, value: bigint): boolean {
  return isCanonical(cpu, value) && put(cpu, LINEAR_RIP, value);
}

function setFlags(cpu: Cpu, value: bigint): boolean {
  const { state } = cpu;
  state.rflags = (state.rflags & ~SETTABLE_FLAGS) | (Number(value & LOW_32) & SETTABLE_FLAGS);
  cpu.modeChanged();
  return true;
}

function setStatus(cpu: Cpu, value: bigint): boolean {
  setStatusWord(cpu, Number(value & 0xffffn));
  return true;
}

/** Reserved bits would be #GP. */
function setMxcsr(cpu: Cpu, value: bigint): boolean {
  if (value > 0xffffn) return false;
  cpu.state.set(MXCSR, Number(value));
  return true;
}

function setCr8(cpu: Cpu, value: bigint): boolean {
  if (value > 15n) return false;
  cpu.state.set(CR8, Number(value));
  cpu.bus.controlWritten(CR8_NUMBER);
  return true;
}

function isCanonical(cpu: Cpu, value: bigint): boolean {
  return cpu.memory.mayBeCanonical(Number(BigInt.asIntN(32, value >> 32n)));
}

/** Two bits a register, 0 for a value and 3 for none, from one. */
function tagWord(valid: number): number {
  let tags = 0;
  for (let n = 0; n < 8; n++) if (!((valid >>> n) & 1)) tags |= 3 << (2 * n);
  return tags;
}

const big = (value: number): bigint => BigInt(value >>> 0);
