/**
 * `bench/baseline.json`: for each figure its relative cost (times in yardsticks, see figure.bench.ts) and how many times
 * as large it may become. A figure that is missing on either side is no regression.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Measured } from './figure.bench.ts';

interface Entry {
  /** The figure as it was, for the eye only. */
  readonly was: string;
  readonly relative: number;
  readonly tolerance: number;
}

export interface Baseline {
  readonly about: string;
  readonly figures: Readonly<Record<string, Entry>>;
}

const ABOUT =
  'npm run bench -- --update-baseline wrote this. relative: the cost in yardsticks (a fixed loop timed in the same run), ' +
  'amounts and ratios as they are; a regression is a cost above relative x tolerance.';

export function readBaseline(path: string): Baseline {
  if (!existsSync(path)) return { about: ABOUT, figures: {} };
  return JSON.parse(readFileSync(path, 'utf8')) as Baseline;
}

/** Figures that were not measured this time stay as they are. */
export function writeBaseline(path: string, old: Baseline, measured: readonly Measured[]): void {
  const figures: Record<string, Entry> = { ...old.figures };
  for (const { figure, median, relative } of measured) {
    figures[figure.name] = {
      was: `${Number(median.toPrecision(3))} ${figure.unit}`,
      relative: Number(relative.toPrecision(3)),
      tolerance: figure.tolerance,
    };
  }
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify({ about: ABOUT, figures }, null, 2)}\n`);
}

/** How many times the baseline's cost; undefined without one. */
export function toBaseline(baseline: Baseline, { figure, relative }: Measured): number | undefined {
  const entry = baseline.figures[figure.name];
  return entry === undefined ? undefined : relative / entry.relative;
}

export function isRegression(baseline: Baseline, measured: Measured): boolean {
  const times = toBaseline(baseline, measured);
  return times !== undefined && times > baseline.figures[measured.figure.name].tolerance;
}
