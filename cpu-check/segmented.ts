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
/** Two code segments: one that the window is in as well, and one for instructions at its end, which isn't a page's. */
export const CODE_SEGMENTS = [DATA - 0x0c00, END_CODE + 0x400] as const;
/** Offset of usual instructions in the first. */
export const USUAL_IP = 0xfc00;
/** In the second, the end of an instruction: its first exit lies before the segment's end, the other behind its beginning. */
export const LAST_END = 0xfff4;

// biome-ignore format: a table
const BASES: Readonly<Record<number, number>> = { [CS]: CODE_SEGMENTS[0], [ES]: DATA - 0x9004, [SS]: DATA - 0x6ff8, [DS]: DATA - 0x8020, [GS]: DATA - 0x5003 };
const DATA_SEGMENTS = [ES, SS, DS, GS];

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

const LDT_USER = 7;
const CODE_16 = 0xfb00;
const DATA_16 = 0xf300;

/** As `native.c` has them: the LDT's first entries are the code segments. */
export function loadSegments({ cpu }: BareMachine): void {
  cpu.state.set(EFER, 0xd01);
  for (const [i, index] of DATA_SEGMENTS.entries()) {
    setSegmentRaw(cpu, index, ((i + 2) << 3) | LDT_USER, DATA_16, 0xffff, BASES[index], 0);
  }
  // What user mode has in FS.
  setSegmentRaw(cpu, FS, 0, 0, 0, 0, 0);
  useCodeSegment({ cpu }, 0);
}

/** Takes one of the two code segments. */
export function useCodeSegment({ cpu }: Pick<BareMachine, 'cpu'>, which: number): void {
  setSegmentRaw(cpu, CS, (which << 3) | LDT_USER, CODE_16, 0xffff, CODE_SEGMENTS[which], 0);
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
