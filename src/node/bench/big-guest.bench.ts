/**
 * Guests of up to 1 TiB, each in a process of its own, so that its memory can be told apart: map all, start the log,
 * write one page in a hundred, get the log, stop it. What each step takes, and how much the process grew.
 */
import { spawnSync } from 'node:child_process';
import { type Figure, median, nsPer, yardstickNs } from './figure.bench.ts';
import { DIRECT, GIB, Guest, READ, TDP_MMU, WRITE } from './guest.bench.ts';

export interface BigGuestSize {
  readonly gib: number;
  readonly level: 1 | 2;
  /** The TDP MMU in place of the rmap-based engine. */
  readonly tdpMmu?: true;
}

/** Linear growth shows in the columns per GiB. */
export const BIG_GUESTS: readonly BigGuestSize[] = [
  { gib: 64, level: 2 },
  { gib: 256, level: 2 },
  { gib: 1024, level: 2 },
  { gib: 16, level: 1 },
  { gib: 64, level: 1 },
  { gib: 256, level: 1 },
  { gib: 1024, level: 2, tdpMmu: true },
  { gib: 64, level: 1, tdpMmu: true },
];
export const QUICK_BIG_GUESTS: readonly BigGuestSize[] = [
  { gib: 64, level: 2 },
  { gib: 16, level: 1 },
  { gib: 16, level: 1, tdpMmu: true },
];

/** Milliseconds, and bytes that the process grew by at most. */
export interface BigGuestRun {
  readonly yardstick: number;
  readonly mapMs: number;
  readonly startMs: number;
  readonly writeMs: number;
  readonly getMs: number;
  readonly stopMs: number;
  readonly peakBytes: number;
}

/** In this process: call it in a fresh one. Small guests first, so that the code is compiled when the big one comes. */
export function runBigGuest(size: BigGuestSize): BigGuestRun {
  const small = { ...size, gib: size.level === 2 ? 16 : 1 };
  for (let i = 0; i < WARMUP_GUESTS; i++) runOnce(small);
  return runOnce(size);
}

const WARMUP_GUESTS = 4;

function runOnce({ gib, level, tdpMmu }: BigGuestSize): BigGuestRun {
  const yardstick = median(Array.from({ length: 5 }, yardstickNs));
  const before = process.memoryUsage.rss();
  const guest = new Guest(gib * GIB, level, tdpMmu ? TDP_MMU : DIRECT);
  const mapMs = msOf(() => guest.touchEach(level === 2 ? 512 : 1, READ));
  const startMs = msOf(() => guest.startLog());
  const writeMs = msOf(() => guest.touchEach(100, WRITE));
  const getMs = msOf(() => void guest.vm.getDirtyLog(0));
  const stopMs = msOf(() => guest.stopLog());
  const peakBytes = process.resourceUsage().maxRSS * 1024 - before;
  return { yardstick, mapMs, startMs, writeMs, getMs, stopMs, peakBytes };
}

function msOf(work: () => void): number {
  return nsPer(1e6, work);
}

/** The argument that makes the bench's own file run one guest and print it. */
export const BIG_GUEST_ARGUMENT = '--one-big-guest';

/** In a process of its own. */
export function spawnBigGuest(script: string, size: BigGuestSize): BigGuestRun {
  const child = spawnSync(process.execPath, [script, BIG_GUEST_ARGUMENT, JSON.stringify(size)], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (child.status !== 0) throw new Error(`the guest of ${size.gib} GiB ended with ${child.status ?? child.signal}`);
  return JSON.parse(child.stdout) as BigGuestRun;
}

/**
 * What is held against targets and the baseline. Memory is the growth of the process at its highest, with what the tables
 * were copied from as they grew; 24 bytes a page are meant for 4 KiB mappings.
 */
export function bigGuestFigures(size: BigGuestSize): { figure: Figure; of: (run: BigGuestRun) => number }[] {
  const { gib, level, tdpMmu } = size;
  // Few samples: the tolerances are wide.
  const name = `${tdpMmu ? TDP_MMU.prefix : ''}${gib} GiB in ${level === 2 ? '2 MiB' : '4 KiB'} pages`;
  const time = { unit: 'ms/GiB', better: 'lower', timed: true, tolerance: 3, prepare: never } as const;
  const memory = { better: 'lower', timed: false, tolerance: 1.4, prepare: never } as const;
  const pages = (gib * GIB) / 4096;
  const small = level === 1;
  return [
    { figure: { ...time, name: `${name}: map all`, target: null }, of: (run) => run.mapMs / gib },
    { figure: { ...time, name: `${name}: log start`, target: small ? 4 : 0.05 }, of: (run) => run.startMs / gib },
    { figure: { ...time, name: `${name}: write 1 %`, target: null }, of: (run) => run.writeMs / gib },
    { figure: { ...time, name: `${name}: get log`, target: 3 }, of: (run) => run.getMs / gib },
    { figure: { ...time, name: `${name}: log stop`, target: null }, of: (run) => run.stopMs / gib },
    small
      ? {
          figure: { ...memory, name: `${name}: at most`, unit: 'B/page', target: 24 },
          of: (run) => run.peakBytes / pages,
        }
      : {
          figure: { ...memory, name: `${name}: at most`, unit: 'MiB', target: null },
          of: (run) => run.peakBytes / 2 ** 20,
        },
  ];
}

function never(): never {
  throw new Error('a big guest runs in a process of its own');
}
