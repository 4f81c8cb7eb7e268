/**
 * `npm run bench`: every figure with its target, as the median of interleaved rounds, and against the baseline.
 *
 *     npm run bench                        all of it
 *     npm run bench -- --quick             fewer rounds, small guests: under 40 s
 *     npm run bench -- TLB fault           only figures whose names contain one of the words
 *     npm run bench -- --json              for programs
 *     npm run bench -- --update-baseline   what was measured is the new baseline
 *
 * Exit status 1: a figure is worse than the baseline allows. A missed target is shown, and no failure.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isRegression, readBaseline, toBaseline, writeBaseline } from './baseline.bench.ts';
import {
  BIG_GUEST_ARGUMENT,
  BIG_GUESTS,
  bigGuestFigures,
  type BigGuestSize,
  QUICK_BIG_GUESTS,
  runBigGuest,
  spawnBigGuest,
} from './big-guest.bench.ts';
import { DIRTY_LOG_FIGURES } from './dirty-log.bench.ts';
import { FAULT_FIGURES } from './fault.bench.ts';
import { isMet, type Measured, measureFigures, summarise, yardstickNs } from './figure.bench.ts';
import { REPLAY_FIGURES } from './replay.bench.ts';
import { WALK_FIGURES } from './walk.bench.ts';

const FIGURES = [...WALK_FIGURES, ...FAULT_FIGURES, ...DIRTY_LOG_FIGURES, ...REPLAY_FIGURES];
const ROUNDS = 9;
const QUICK_ROUNDS = 5;
const SCRIPT = fileURLToPath(import.meta.url);
const BASELINE = join(dirname(dirname(SCRIPT)), 'bench', 'baseline.json');

const at = process.argv.indexOf(BIG_GUEST_ARGUMENT);
if (at > 0) process.stdout.write(JSON.stringify(runBigGuest(JSON.parse(process.argv[at + 1]) as BigGuestSize)));
else main();

function main(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      'update-baseline': { type: 'boolean', default: false },
    },
  });
  const isWanted = (name: string): boolean =>
    positionals.length === 0 || positionals.some((word) => name.toLowerCase().includes(word.toLowerCase()));
  const figures = FIGURES.filter(({ name }) => isWanted(name));
  const sizes = (values.quick ? QUICK_BIG_GUESTS : BIG_GUESTS).filter((size) =>
    bigGuestFigures(size).some(({ figure }) => isWanted(figure.name)),
  );
  const measured = [
    ...measureFigures(figures, values.quick ? QUICK_ROUNDS : ROUNDS, (round) => say(`round ${round}`)),
    ...sizes.flatMap((size) => measureBigGuest(size)),
  ];
  const baseline = readBaseline(BASELINE);
  if (values.json) console.log(JSON.stringify(measured.map(toJson), null, 2));
  else printTable(measured, baseline);
  if (values['update-baseline']) writeBaseline(BASELINE, baseline, measured);
  else if (measured.some((one) => isRegression(baseline, one))) process.exitCode = 1;
}

function say(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}\r`);
}

function measureBigGuest(size: BigGuestSize): Measured[] {
  say(`${size.gib} GiB`);
  const yardstick = yardstickNs();
  const run = spawnBigGuest(SCRIPT, size);
  return bigGuestFigures(size).map(({ figure, of }) => summarise(figure, [of(run)], [yardstick]));
}

function toJson({ figure, samples, median, relative }: Measured): object {
  const { name, unit, target, better } = figure;
  return { name, unit, target, better, median, relative, samples };
}

function printTable(measured: readonly Measured[], baseline: ReturnType<typeof readBaseline>): void {
  const row = (...cells: readonly string[]): void => {
    const [name, ...rest] = cells;
    console.log(`${name.padEnd(44)}${rest.map((cell, i) => cell.padStart(i === 2 ? 18 : 11)).join('')}`);
  };
  row('figure', 'target', 'median', 'least - most', 'unit', 'target', 'x baseline');
  for (const one of measured) {
    const { figure, samples, median } = one;
    const sign = figure.better === 'lower' ? '<=' : '>=';
    const times = toBaseline(baseline, one);
    row(
      figure.name,
      figure.target === null ? '' : `${sign} ${figure.target}`,
      number(median),
      samples.length === 1 ? '' : `${number(Math.min(...samples))} - ${number(Math.max(...samples))}`,
      figure.unit,
      figure.target === null ? '' : isMet(one) ? 'met' : 'MISSED',
      times === undefined ? '' : `${times.toFixed(2)}${isRegression(baseline, one) ? ' WORSE' : ''}`,
    );
  }
  const yardstick = Array.from({ length: 5 }, yardstickNs).sort((a, b) => a - b)[2];
  console.log(`\nyardstick ${yardstick.toFixed(2)} ns; node ${process.version}; medians of interleaved rounds`);
}

function number(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value.toPrecision(3);
}
