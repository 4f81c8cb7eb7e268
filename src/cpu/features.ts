/**
 * What CPUID announces, as far as it decides whether an instruction or a bit of a control register exists. Features that
 * aren't listed (VMX, AVX...) aren't built, whatever CPUID says.
 */
import type { Bus } from './bus.ts';

const EAX = 0;
const EBX = 1;
const ECX = 2;
const EDX = 3;

type Place = readonly [leaf: number, register: number, bit: number];

/** Leaves whose bits are told by a subleaf other than 0. */
const SUBLEAVES: Readonly<Record<number, number>> = { 0xd: 1 };
const XSAVE_LEAF = 0xd;
/** x87, SSE, PKRU. */
const XCR0_BUILT = 0x203;

/** Features that rows of the instruction table name after `if:`. */
const INSTRUCTIONS: Readonly<Record<string, Place>> = {
  sse3: [1, ECX, 0],
  pclmulqdq: [1, ECX, 1],
  ssse3: [1, ECX, 9],
  cx16: [1, ECX, 13],
  'sse4.1': [1, ECX, 19],
  'sse4.2': [1, ECX, 20],
  movbe: [1, ECX, 22],
  popcnt: [1, ECX, 23],
  aes: [1, ECX, 25],
  xsave: [1, ECX, 26],
  clflush: [1, EDX, 19],
  fsgsbase: [7, EBX, 0],
  bmi1: [7, EBX, 3],
  bmi2: [7, EBX, 8],
  invpcid: [7, EBX, 10],
  adx: [7, EBX, 19],
  smap: [7, EBX, 20],
  pcommit: [7, EBX, 22],
  clflushopt: [7, EBX, 23],
  clwb: [7, EBX, 24],
  rdpid: [7, ECX, 22],
  xsaveopt: [0xd, EAX, 0],
  lzcnt: [0x80000001, ECX, 5],
  rdtscp: [0x80000001, EDX, 27],
};

/** Bits of CR4 and the feature each needs. */
const CR4_BITS: readonly (readonly [bit: number, ...Place])[] = [
  [0, 1, EDX, 1],
  [1, 1, EDX, 1],
  [2, 1, EDX, 4],
  [3, 1, EDX, 2],
  [4, 1, EDX, 3],
  [5, 1, EDX, 6],
  [6, 1, EDX, 7],
  [7, 1, EDX, 13],
  [9, 1, EDX, 24],
  [10, 1, EDX, 25],
  [11, 7, ECX, 2],
  [12, 7, ECX, 16],
  [16, 7, EBX, 0],
  [17, 1, ECX, 17],
  [18, 1, ECX, 26],
  [20, 7, EBX, 7],
  [21, 7, EBX, 20],
  [22, 7, ECX, 3],
];
const CR4_PCE = 1 << 8;

const EFER_BITS: readonly (readonly [bit: number, ...Place])[] = [
  [0, 0x80000001, EDX, 11],
  [8, 0x80000001, EDX, 29],
  [10, 0x80000001, EDX, 29],
  [11, 0x80000001, EDX, 20],
  [12, 0x80000001, ECX, 2],
  [14, 0x80000001, EDX, 25],
];

const bitsOf = (list: readonly (readonly [number, ...Place])[]): number =>
  list.reduce((bits, [bit]) => bits | (1 << bit), 0);

export const CR4_BUILT = bitsOf(CR4_BITS) | CR4_PCE;
export const EFER_BUILT = bitsOf(EFER_BITS);
export const ALL_INSTRUCTIONS: ReadonlySet<string> = new Set(Object.keys(INSTRUCTIONS));

export interface Features {
  readonly instructions: ReadonlySet<string>;
  readonly cr4: number;
  readonly efer: number;
  /** Bits that XCR0 may have. */
  readonly xcr0: number;
  /** The vendor decides where SYSENTER and SYSCALL work. */
  readonly intel: boolean;
}

export function readFeatures(bus: Bus): Features {
  const [basic, vendor] = bus.cpuid(0, 0);
  const [extended] = bus.cpuid(0x80000000, 0);
  const has = ([leaf, register, bit]: Place): boolean => {
    const last = leaf >>> 31 ? extended : basic;
    return leaf <= last >>> 0 && ((bus.cpuid(leaf, SUBLEAVES[leaf] ?? 0)[register] >>> bit) & 1) !== 0;
  };
  const choose = (list: readonly (readonly [number, ...Place])[]): number =>
    list.reduce((bits, [bit, ...place]) => bits | (has(place) ? 1 << bit : 0), 0);
  const instructions = new Set(Object.keys(INSTRUCTIONS).filter((name) => has(INSTRUCTIONS[name])));
  const xcr0 = instructions.has('xsave') ? bus.cpuid(XSAVE_LEAF, 0)[EAX] & XCR0_BUILT : 0;
  // "Genu"
  const intel = vendor === 0x756e6547;
  return { instructions, cr4: choose(CR4_BITS) | CR4_PCE, efer: choose(EFER_BITS), xcr0, intel };
}
