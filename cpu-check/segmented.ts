/**
 * The segments of 16-bit code, as `native.c` makes them, and addresses in them. Each is 64 KiB, and the window lies at another offset in
 * each. What is reached without meaning to is zero on both sides, or outside the segment; only CS reaches the code.
 */
import { setSegmentRaw, segmentsChanged } from '../src/cpu/segments.ts';
import { CS, DS, EFER, ES, FS, GS, RSP, SS } from '../src/cpu/state.ts';
import type { BareMachine } from '../src/cpu/testing/bare-machine.ts';
import type { Random } from './random.ts';

export const DATA = 0x800000;

export const END_CODE = 0x710000;
export const END_BYTES = 0x11000;
/** Code segments: one that the window is in as well, one for instructions at its end, which isn't a page's; the first for 32-bit code. */
export const CODE_SEGMENTS = [DATA - 0x0c00, END_CODE + 0x400, DATA - 0x0c00] as const;
export const AT_END = 1;
export const CODE_32 = 2;
/** Offset of usual instructions in the first. */
export const USUAL_IP = 0xfc00;
/** In the second, the end of an instruction: its first exit lies before the segment's end, the other behind its beginning. */
export const LAST_END = 0xfff4;

// biome-ignore format: a table
const BASES: Readonly<Record<number, number>> = { [CS]: CODE_SEGMENTS[0], [ES]: DATA - 0x9004, [SS]: DATA - 0x6ff8, [DS]: DATA - 0x8020, [GS]: DATA - 0x5003 };

/** Prefixes, without CS for the second code segment. */
export const OVERRIDES: readonly (readonly [segment: number, prefix: number])[] = [
  [DS, 0x3e],
  [ES, 0x26],
  [SS, 0x36],
  [GS, 0x65],
  [CS, 0x2e],
];

/** Bytes at either end of the stack segment, where pushes wrap around: these are compared as the window is. */
export const EDGE = 64;
export const EDGES = [BASES[SS], BASES[SS] + 0x10000 - EDGE] as const;

/** Where the window, or another linear address, is in a segment. */
export const offsetIn = (segment: number, linear: number): number => (linear - BASES[segment]) & 0xffff;

const BIG = 1 << 22;
const CODE = 0xfb00;
const WRITABLE = 0xf300;

/** Numbers in the LDT, attributes and limits, as `native.c` has them. */
// biome-ignore format: a table
const CODES = [{ entry: 0, attributes: CODE }, { entry: 1, attributes: CODE }, { entry: 6, attributes: CODE | BIG }];
const STACKS = [
  { entry: 3, attributes: WRITABLE },
  { entry: 7, attributes: WRITABLE | BIG },
];
const DATAS = [
  { entry: 4, attributes: WRITABLE, limit: 0xffff },
  { entry: 8, attributes: 0xf100, limit: 0xffff },
  { entry: 9, attributes: 0xf700, limit: 0x8092 },
];
const selector = (entry: number): number => (entry << 3) | 7;

/** Which segments a case has, as a byte of it: one of each table. */
export const choice = (code: number, stack: number, data: number): number => code | (stack << 2) | (data << 3);
export const isCode32 = (segments: number): boolean => (segments & 3) === CODE_32;
export const isStack32 = (segments: number): boolean => ((segments >> 2) & 1) === 1;

/** Segments of any kind: the usual ones mostly. */
export function chooseSegments(random: Random): number {
  const code = random.chance(3) ? AT_END : random.chance(3) ? CODE_32 : 0;
  return choice(code, random.chance(4) ? 1 : 0, random.chance(4) ? 1 + random.below(2) : 0);
}

/** All segment registers; `useSegments` changes some of them. */
export function loadSegments({ cpu }: BareMachine): void {
  cpu.state.set(EFER, 0xd01);
  setSegmentRaw(cpu, ES, selector(2), WRITABLE, 0xffff, BASES[ES], 0);
  setSegmentRaw(cpu, GS, selector(5), WRITABLE, 0xffff, BASES[GS], 0);
  // What user mode has in FS.
  setSegmentRaw(cpu, FS, 0, 0, 0, 0, 0);
  useSegments({ cpu }, 0);
}

/** Takes the CS, SS and DS of a case. */
export function useSegments({ cpu }: Pick<BareMachine, 'cpu'>, segments: number): void {
  const [code, stack, data] = [CODES[segments & 3], STACKS[(segments >> 2) & 1], DATAS[segments >> 3]];
  setSegmentRaw(cpu, CS, selector(code.entry), code.attributes, 0xffff, CODE_SEGMENTS[segments & 3], 0);
  setSegmentRaw(cpu, SS, selector(stack.entry), stack.attributes, 0xffff, BASES[SS], 0);
  setSegmentRaw(cpu, DS, selector(data.entry), data.attributes, data.limit, BASES[DS], 0);
  segmentsChanged(cpu);
}

const BX = 3;
const BP = 5;
const SI = 6;
const DI = 7;
const SP = RSP >> 3;
/** By ModRM.rm: base and index. */
const FORMS: readonly (readonly number[])[] = [[BX, SI], [BX, DI], [BP, SI], [BP, DI], [SI], [DI], [BP], [BX]];

export interface SegmentedOperand {
  /** ModRM and displacement. */
  readonly bytes: readonly number[];
  /** Registers that are set to an address, and their low halves. */
  readonly registers: readonly (readonly [number, number])[];
}

/** A 16-bit form that reaches `place`, or the end of the segment. `override`: a segment, or -1. */
export function address16(random: Random, reg: number, place: number, override: number, atEnd: boolean): SegmentedOperand {
  const rm = random.below(8);
  const mod = random.below(3);
  const absolute = mod === 0 && rm === 6;
  const stack = (rm === 2 || rm === 3 || rm === 6) && !absolute;
  const segment = override >= 0 ? override : stack ? SS : DS;
  const offset = atEnd ? 0xfff0 + random.below(16) : offsetIn(segment, place);
  if (absolute) return { bytes: [(reg << 3) | rm, offset & 255, offset >> 8], registers: [] };
  const displacement = mod === 0 ? 0 : mod === 1 ? random.below(256) - 128 : random.below(65536);
  const tail = mod === 0 ? [] : mod === 1 ? [displacement & 255] : [displacement & 255, displacement >> 8];
  const [base, index] = FORMS[rm];
  const distance = index === undefined ? 0 : random.below(65536);
  const registers: [number, number][] = [[base, (offset - displacement - distance) & 0xffff]];
  if (index !== undefined) registers.push([index, distance]);
  return { bytes: [(mod << 6) | (reg << 3) | rm, ...tail], registers };
}

/** A 32-bit form with ESP, whatever that is: an operand of the stack or, with more in ESP than SP, none. */
export function onStack(random: Random, reg: number): readonly number[] {
  return [0x44 | (reg << 3), 0x20 | SP, random.below(64)];
}
