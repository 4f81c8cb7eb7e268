import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { compareRecordings, formatDifference } from '../../conform/compare.ts';
import { type Mode, type Recording, strip } from '../../conform/recording.ts';
import { runScript } from '../../conform/run.ts';
import { writeRecording } from '../../conform/write.ts';
import { ScenarioError } from '../../conform/scenario.ts';
import { writeWhole } from '../atomic-file.ts';
import { CliError } from '../cli-error.ts';
import { findRecordings, type RecordingSource } from '../recordings.ts';

interface Options {
  readonly mode: string;
  readonly write?: string;
  readonly differences: string;
  readonly strict?: boolean;
  readonly json?: boolean;
}

interface Verdict {
  readonly name: string;
  readonly mode: Mode;
  readonly identical: boolean;
  /** The first ones, a line each. */
  readonly differences: readonly string[];
}

/** Modes whose engines are built. */
const MODES: readonly string[] = ['A', 'B', 'C'];

/** Replays recorded scenarios of the real KVM and compares event for event; exit status 1 if any differs. */
export function register(program: Command): void {
  program
    .command('conformance')
    .description('replays scenarios recorded from the real KVM and compares event for event')
    .argument('[paths...]', 'folders or files of recordings (default: those that come with the project)')
    .option('--mode <modes>', 'A direct, B TDP MMU, C shadow paging', 'ABC')
    .option('--write <folder>', "writes our runs in the recorder's JSON instead of comparing")
    .option('--differences <n>', 'differences to print for each recording', '1')
    .option('--strict', 'compares guest entries, exits and emulated instructions too')
    .option('--json', 'prints the verdicts as JSON')
    .action((paths: string[], options: Options) => conformance(paths, options));
}

function conformance(paths: string[], options: Options): void {
  const modes = options.mode.split('');
  const unknown = modes.find((mode) => !MODES.includes(mode));
  if (modes.length === 0 || unknown !== undefined)
    throw new CliError(`--mode ${options.mode}: the engines that are built are ${MODES.join(' and ')}`);
  const limit = Number(options.differences);
  if (!Number.isInteger(limit) || limit < 1) throw new CliError(`--differences ${options.differences}: not a number`);
  const all = paths.length === 0 ? findRecordings() : paths.flatMap((path) => findRecordings(path));
  const sources = all.filter((source) => modes.includes(source.mode));
  if (sources.length === 0) throw new CliError(`no recording in mode ${modes.join(' or ')}`);
  if (options.write !== undefined) {
    writeAll(sources, options.write);
    return;
  }
  const verdicts = sources.map((source) => judge(source, limit, options));
  if (options.json) process.stdout.write(`${JSON.stringify(summary(verdicts))}\n`);
  else printSummary(verdicts);
  if (verdicts.some((verdict) => !verdict.identical)) process.exitCode = 1;
}

/** Our run of a recording. Only what `strip` leaves of it is used. */
function replay(source: RecordingSource, recording: Recording): Recording {
  try {
    return runScript(strip(recording), source.machine(recording).machine);
  } catch (error) {
    if (error instanceof ScenarioError) throw new CliError(`${source.name}: ${error.message}`);
    throw error;
  }
}

function judge(source: RecordingSource, limit: number, { json, strict }: Options): Verdict {
  const recording = source.load();
  const { count, differences } = compareRecordings(recording, replay(source, recording), {
    limit,
    strict: strict === true,
  });
  const lines = differences.map((difference) => formatDifference(difference));
  if (json !== true && count > 0) {
    process.stdout.write(`${source.name}: ${count} ${count === 1 ? 'difference' : 'differences'}\n`);
    for (const line of lines) process.stdout.write(`  ${line}\n`);
  }
  return { name: source.name, mode: source.mode, identical: count === 0, differences: lines };
}

function writeAll(sources: readonly RecordingSource[], folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const source of sources)
    writeWhole(join(folder, `${source.name}.json`), [writeRecording(replay(source, source.load()))]);
  process.stdout.write(`${sources.length} runs written to ${folder}\n`);
}

function tally(verdicts: readonly Verdict[]): { identical: number; total: number } {
  return { identical: verdicts.filter((verdict) => verdict.identical).length, total: verdicts.length };
}

function summary(verdicts: readonly Verdict[]): object {
  const modes = MODES.map((mode) => [mode, tally(verdicts.filter((verdict) => verdict.mode === mode))]);
  return { ...tally(verdicts), modes: Object.fromEntries(modes), recordings: verdicts };
}

function printSummary(verdicts: readonly Verdict[]): void {
  for (const mode of MODES) {
    const { identical, total } = tally(verdicts.filter((verdict) => verdict.mode === mode));
    if (total > 0) process.stdout.write(`mode ${mode}: ${identical} of ${total} identical\n`);
  }
  const { identical, total } = tally(verdicts);
  process.stdout.write(`${identical} of ${total} identical\n`);
}
