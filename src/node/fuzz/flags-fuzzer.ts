/**
 * Command lines: commands, options and values at random, good and bad, in this process. Each ends with status 0, 1 or 2,
 * with 2 in one line; and what it wrote is whole, or not there.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Command, Option } from 'commander';
import type { Prng } from '../../base/prng.ts';
import { writeRecording } from '../../conform/write.ts';
import { encodePntrace } from '../../formats/pntrace-encode.ts';
import { syntheticTrace } from '../../lab/synthetic.ts';
import { createProgram } from '../program.ts';
import { givenStarts } from './given-starts.ts';
import type { Fuzzer } from './harness.ts';
import { checkRun, type ProgramRun, runProgram } from './program-run.ts';

const VALUES = [
  '',
  ' ',
  '0',
  '1',
  '2',
  '-1',
  '-',
  '--',
  '1e3',
  '0x10',
  'NaN',
  '007',
  '1.5',
  '99999999999999999999',
  'all',
];
const MORE_VALUES = [
  'A',
  'C',
  'AC',
  'B',
  'AA',
  'zap',
  'lazy,zap',
  'lazy+bug',
  'eager',
  ',',
  'zip',
  '\n',
  'ü',
  '=',
  "'",
];
/** What takes a file or a folder to write to. */
const OUTPUTS = /^--(write|report|out|output|trace|save)/;

const FULL = existsSync('/dev/full') ? '/dev/full' : '';

interface Places {
  readonly folder: string;
  /** To be read: good and bad ones. */
  readonly inputs: readonly string[];
  readonly trace: string;
  readonly recordings: readonly string[];
  /** Where something can be written, or can't. */
  readonly out: string;
}

export function flagsFuzzer(): Fuzzer {
  const folder = mkdtempSync(join(tmpdir(), 'penumbra-fuzz-'));
  const places = makePlaces(folder);
  return {
    name: 'flags',
    async run(prng) {
      rmSync(places.out, { recursive: true, force: true });
      mkdirSync(join(places.out, 'taken', 'dir'), { recursive: true });
      mkdirSync(join(places.out, 'runs', 'dirty-4k.A.json'), { recursive: true });
      writeFileSync(join(places.out, 'file'), 'text');
      const args = commandLine(prng, places);
      const run = await runProgram(args);
      if (!showsHelp(args, run.err)) checkRun(args, args[0] === 'run' ? withoutReport(run) : run);
      checkOutput(places.out, args, run.status);
      return `${args[0] ?? 'none'}: status ${run.status}`;
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** A guest's stdout is its console's, so what is said of a run that went well, or was ended by its guest, is on stderr. */
function withoutReport(run: ProgramRun): ProgramRun {
  return run.status === 2 ? run : { ...run, err: '' };
}

/** Without a command, or asked for help on one that isn't there, the program shows its help, on stderr. */
function showsHelp(args: readonly string[], err: string): boolean {
  const named = args.find((arg) => !arg.startsWith('-') && arg !== '');
  return err.startsWith('Usage: penumbra') && (named === undefined || named === 'help');
}

function makePlaces(folder: string): Places {
  const recordings = join(folder, 'recordings');
  mkdirSync(recordings);
  const starts = givenStarts(6).filter(({ recording }) =>
    /^(dirty-4k|bad-log|lazy-drop-pae)$/.test(recording.scenario),
  );
  for (const { recording } of starts)
    writeFileSync(join(recordings, `${recording.scenario}.${recording.mode}.json`), writeRecording(recording));
  const one = join(recordings, 'dirty-4k.A.json');
  const whole = readFileSync(one, 'utf8');
  const mixed = join(folder, 'mixed');
  mkdirSync(mixed);
  writeFileSync(join(mixed, 'a.A.json'), whole);
  writeFileSync(join(mixed, 'b.A.json'), whole.slice(0, 3000));
  writeFileSync(join(mixed, 'c.A.json'), whole.replace('"op":"nop"', '"op":"jump 1"'));
  const trace = join(folder, 'small.pntrace');
  const options = { regions: 2, epochs: 8, vcpus: 1 };
  const bytes = encodePntrace(syntheticTrace(3, options), (data) => gzipSync(data));
  writeFileSync(trace, bytes);
  writeFileSync(join(folder, 'cut.pntrace'), bytes.subarray(0, bytes.length - 100));
  writeFileSync(join(folder, 'empty'), '');
  const names = [
    'recordings',
    'mixed',
    'cut.pntrace',
    'empty',
    'mixed/b.A.json',
    'mixed/c.A.json',
    'nowhere',
    'nowhere/x',
  ];
  const inputs = [trace, trace, trace, trace, one, one, recordings, folder, ...names.map((name) => join(folder, name))];
  return { folder, inputs, trace, recordings: [one, recordings], out: join(folder, 'out') };
}

// ---- command lines -------------------------------------------------------------------------------------------------

function commandLine(prng: Prng, places: Places): string[] {
  const program = createProgram();
  if (prng.chance(0.05)) return junk(prng, places, 1 + prng.int(4));
  const command = prng.pick(program.commands);
  const args = [command.name()];
  // With something to read: what a command takes without it may take minutes.
  if (command.registeredArguments.length > 0) args.push(fitting(prng, command, places));
  for (const { long } of command.options.filter((option) => option.mandatory && prng.chance(0.9)))
    args.push(long ?? '', output(prng, places));
  for (let n = prng.int(5); n > 0; n--) args.push(...anOption(prng, command, places));
  if (prng.chance(0.1)) args.push(input(prng, places));
  if (prng.chance(0.05)) args.push(...junk(prng, places, 1));
  return args;
}

function junk(prng: Prng, places: Places, count: number): string[] {
  return Array.from({ length: count }, () =>
    prng.pick([value(prng), `--${value(prng)}`, '--help', '--version', '-V', '-h', 'help', input(prng, places)]),
  );
}

/** Most often what the command can read. */
function fitting(prng: Prng, command: Command, places: Places): string {
  if (prng.chance(0.3)) return input(prng, places);
  return command.name() === 'conformance' ? prng.pick(places.recordings) : places.trace;
}

function input(prng: Prng, { inputs }: Places): string {
  return prng.chance(0.1) ? value(prng) || 'nowhere' : prng.pick(inputs);
}

function value(prng: Prng): string {
  return prng.pick(prng.chance(0.5) ? VALUES : MORE_VALUES);
}

function anOption(prng: Prng, command: Command, places: Places): string[] {
  if (command.options.length === 0 || prng.chance(0.03)) return [`--${value(prng)}`];
  const option: Option = prng.pick(command.options);
  const flag = prng.chance(0.1) && option.short !== undefined ? option.short : (option.long ?? option.short ?? '');
  if (!option.required && !option.optional) return prng.chance(0.02) ? [`${flag}=1`] : [flag];
  // What an output lacks would be taken from the next word, and then written to wherever this runs.
  if (!OUTPUTS.test(flag) && prng.chance(0.03)) return [flag];
  const given = OUTPUTS.test(flag) ? output(prng, places) : prng.chance(0.7) ? goodValue(prng, option) : value(prng);
  return prng.chance(0.3) ? [`${flag}=${given}`] : [flag, given];
}

function goodValue(prng: Prng, option: Option): string {
  const given = option.defaultValue as unknown;
  if (typeof given === 'string' && given !== '' && prng.chance(0.9)) return given;
  return prng.pick(option.argChoices ?? ['1', '2', '5', 'lazy', 'A', 'C']);
}

/** New, there already, a folder, below a file, in no folder, nothing, a device that is full. */
function output(prng: Prng, { out }: Places): string {
  if (FULL !== '' && prng.chance(0.1)) return FULL;
  const names = ['new', 'file', 'taken', 'taken/dir', 'runs', 'file/below', 'no/such/folder', 'new.html', 'taken/new'];
  return prng.chance(0.05) ? '' : join(out, prng.pick(names));
}

/**
 * Nothing is left of a write that failed, and of several files (`conformance --write`) each is whole. What a run that did
 * its work wrote can be read, as far as it is JSON or a page.
 */
function checkOutput(folder: string, args: readonly string[], status: number): void {
  const left = (name: string, text: string): never => {
    throw new Error(`penumbra ${args.join(' ')}: left ${name}: ${text.slice(-60)}`);
  };
  if (FULL !== '' && statSync(FULL).isFile()) left(FULL, 'a file in place of the device');
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) continue;
    const text = readFileSync(path, 'utf8');
    if (name === 'file' && text === 'text') continue;
    const whole = isJson(text) || /<\/html>\s*$/i.test(text) || (status !== 2 && !/^\s*[{<]/.test(text) && text !== '');
    if (!whole || name.endsWith('.part')) left(name, text);
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
