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
import { spawnSync } from 'node:child_process';
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
import { DIRTY_LOG_FIGURES, TODAYS_DIRTY_LOG_FIGURES } from './dirty-log.bench.ts';
import { FAULT_FIGURES, TODAYS_FAULT_FIGURES } from './fault.bench.ts';
import { type Figure, isMet, type Measured, measureFigures, type Series, summarise } from './figure.bench.ts';
import { REPLAY_FIGURES, TODAYS_REPLAY_FIGURES } from './replay.bench.ts';
import { EPT_WALK_FIGURES, WALK_FIGURES } from './walk.bench.ts';

/** Each group in a process of its own, so that what V8 learns from one doesn't decide over another. */
const GROUPS: readonly (readonly Figure[])[] = [
  WALK_FIGURES,
  FAULT_FIGURES,
  DIRTY_LOG_FIGURES,
  REPLAY_FIGURES,
  EPT_WALK_FIGURES,
  TODAYS_FAULT_FIGURES,
  TODAYS_DIRTY_LOG_FIGURES,
  TODAYS_REPLAY_FIGURES,
];
const GROUP_ARGUMENT = '--one-group';
const ROUNDS = 9;
const QUICK_ROUNDS = 5;
const NAME_WIDTH = 60;
const CELL_WIDTHS = [10, 10, 8, 8, 10, 18, 12];
const SCRIPT = fileURLToPath(import.meta.url);
const BASELINE = join(dirname(dirname(SCRIPT)), 'bench', 'baseline.json');

const [mode, argument] = process.argv.slice(2);
if (mode === BIG_GUEST_ARGUMENT) answer(runBigGuest(JSON.parse(argument) as BigGuestSize));
else if (mode === GROUP_ARGUMENT) answer(runGroup(JSON.parse(argument) as GroupRequest));
else main();

function answer(value: unknown): void {
  process.stdout.write(JSON.stringify(value));
}

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
  const rounds = values.quick ? QUICK_ROUNDS : ROUNDS;
  const sizes = (values.quick ? QUICK_BIG_GUESTS : BIG_GUESTS).filter((size) =>
    bigGuestFigures(size).some(({ figure }) => isWanted(figure.name)),
  );
  const measured = [
    ...GROUPS.flatMap((figures, group) =>
      measureGroup({ group, rounds, names: figures.map(({ name }) => name).filter(isWanted) }),
    ),
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

interface GroupRequest {
  readonly group: number;
  readonly rounds: number;
  readonly names: readonly string[];
}

/** In this process. */
function runGroup({ group, rounds, names }: GroupRequest): Series[] {
  const figures = GROUPS[group].filter(({ name }) => names.includes(name));
  return measureFigures(figures, rounds, (round) => say(`${names[0]} ... round ${round}`));
}

function measureGroup(request: GroupRequest): Measured[] {
  if (request.names.length === 0) return [];
  const child = spawnSync(process.execPath, [SCRIPT, GROUP_ARGUMENT, JSON.stringify(request)], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (child.status !== 0) throw new Error(`'${request.names[0]}' ended with ${child.status ?? child.signal}`);
  const series = JSON.parse(child.stdout) as Series[];
  const figures = GROUPS[request.group].filter(({ name }) => request.names.includes(name));
  return figures.map((figure, i) => summarise(figure, series[i]));
}

/** Three processes, one after another: a pause of the collector in a step of milliseconds would be half of it. */
function measureBigGuest(size: BigGuestSize): Measured[] {
  const runs = Array.from({ length: 3 }, (_, i) => {
    say(`${size.gib} GiB, run ${i}`);
    return spawnBigGuest(SCRIPT, size);
  });
  const yardsticks = runs.map((run) => run.yardstick);
  return bigGuestFigures(size).map(({ figure, of }) => summarise(figure, { samples: runs.map(of), yardsticks }));
}

function toJson(one: Measured): object {
  const { figure, samples, median, scaled, relative } = one;
  const { name, unit, target, better } = figure;
  const verdict = target === null ? null : isMet(one) ? 'met' : 'missed';
  return { name, unit, target, better, median, scaled, verdict, relative, samples };
}

function printTable(measured: readonly Measured[], baseline: ReturnType<typeof readBaseline>): void {
  const row = (name: string, ...cells: readonly string[]): void => {
    const padded = cells.map((cell, i) => cell.padStart(CELL_WIDTHS[i]));
    console.log(`${name.padEnd(NAME_WIDTH)}${padded.join('')}`);
  };
  row('figure', 'target', 'scaled', '', 'unit', 'median', 'least - most', 'x baseline');
  for (const one of measured) {
    const { figure, samples, median, scaled } = one;
    const { target } = figure;
    const times = toBaseline(baseline, one);
    row(
      figure.name,
      target === null ? '' : `${figure.better === 'lower' ? '<=' : '>='} ${target}`,
      number(scaled),
      target === null ? '' : isMet(one) ? 'met' : 'MISSED',
      figure.unit,
      number(median),
      `${number(Math.min(...samples))} - ${number(Math.max(...samples))}`,
      times === undefined ? '' : `${times.toFixed(2)}${isRegression(baseline, one) ? ' WORSE' : ''}`,
    );
  }
  console.log(`
median: of what was measured, in interleaved rounds. scaled: the median on the machine of the targets at rest, told by a
fixed loop timed beside each sample; verdicts are on this. x baseline: cost against bench/baseline.json, WORSE beyond its
tolerance. node ${process.version}`);
}

function number(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value.toPrecision(3);
}
