/**
 * Finds recordings: one file, a folder of them, a pack, or without an argument those that come with the project.
 *
 * The lists are in a stable order and cheap; a recording is read, checked and unfolded by `load`. Malformed input throws
 * a `CliError` then, or at once where a pack itself is damaged.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';
import { scenario as randomScenario } from '../../recorder/random-scenario.mjs';
import { type Machine, opsOf, parseMachine, settingsOf } from '../conform/machine.ts';
import { guessMachine } from '../conform/machine-guess.ts';
import { type PackedRecording, readPack } from '../conform/pack.ts';
import { type Mode, parseRecording, type Recording, RecordingError, strip } from '../conform/recording.ts';
import { ScenarioError } from '../conform/scenario.ts';
import { CliError } from './cli-error.ts';

/** Where a machine's settings were found; a guess rests on memory, slots and ops, and may be wrong. */
export type MachineOrigin = 'pack' | 'scenario' | 'seed' | 'guess';

export interface RecordingSource {
  /** NAME.MODE, as the recorder names the file. */
  readonly name: string;
  /** The folder, or the name of the pack. */
  readonly set: string;
  /** Looking at these may read the file. */
  readonly mode: Mode;
  readonly kernel: string;
  load(): Recording;
  /** What the recording's head does not tell about the machine. */
  machine(recording: Recording): { readonly machine: Machine; readonly origin: MachineOrigin };
}

const PACK_SUFFIX = '.ndjson.br';
const EMBEDDED_FOLDER = 'recordings';
/** Whose packs are replayed if nobody says otherwise; those of other kernels may lie beside. */
const EMBEDDED_KERNELS = ['6.1', '6.12'];

/** The recordings at `path`; the embedded ones without a path. Throws a `CliError` if there is none. */
export function findRecordings(path?: string): RecordingSource[] {
  const sources = path === undefined ? embeddedRecordings() : recordingsAt(path);
  if (sources.length === 0) throw new CliError(`no recordings (NAME.MODE.json or *${PACK_SUFFIX}) in ${path}`);
  return sources;
}

function recordingsAt(path: string): RecordingSource[] {
  if (!existsSync(path)) throw new CliError(`${path}: no such file or folder`);
  if (!statSync(path).isDirectory()) return readFileOrPack(path);
  return readdirSync(path)
    .filter((name) => name.endsWith('.json') || name.endsWith(PACK_SUFFIX))
    .sort()
    .flatMap((name) => readFileOrPack(join(path, name)));
}

function readFileOrPack(path: string): RecordingSource[] {
  return path.endsWith('.br') ? readPackFile(path).map((packed) => packedSource(packed, path)) : [fileSource(path)];
}

function embeddedRecordings(): RecordingSource[] {
  return embeddedPacks().flatMap((path) => readPackFile(path).map((packed) => packedSource(packed, path)));
}

/** Files of the packs that come with the project, sorted. */
function embeddedPacks(): string[] {
  // This module is src/node/recordings.ts in a checkout, and part of dist/cli.js in a package.
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, EMBEDDED_FOLDER))) {
    if (dirname(folder) === folder) throw new CliError(`the folder '${EMBEDDED_FOLDER}' of the project is missing`);
    folder = dirname(folder);
  }
  return readdirSync(join(folder, EMBEDDED_FOLDER))
    .filter((name) => EMBEDDED_KERNELS.some((kernel) => name.startsWith(`${kernel}-`)) && name.endsWith(PACK_SUFFIX))
    .sort()
    .map((name) => join(folder, EMBEDDED_FOLDER, name));
}

function readPackFile(path: string): PackedRecording[] {
  const bytes = readFileSync(path);
  let text: string;
  try {
    text = brotliDecompressSync(bytes).toString('utf8');
  } catch {
    throw new CliError(`${path}: is not a brotli-compressed pack, or is damaged`);
  }
  return userError(() => readPack(text, path));
}

/** What is wrong with a recording or a scenario is the user's to put right: its message needs no stack. */
function userError<T>(work: () => T, where = ''): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof RecordingError) throw new CliError(error.message);
    if (error instanceof ScenarioError) throw new CliError(where === '' ? error.message : `${where}: ${error.message}`);
    throw error;
  }
}

function packedSource(packed: PackedRecording, path: string): RecordingSource {
  const { name, mode, kernel, settings } = packed;
  return {
    name,
    set: basename(path, PACK_SUFFIX),
    mode,
    kernel,
    load: () => userError(() => packed.load()),
    machine: () => userError(() => ({ machine: parseMachine(settings), origin: 'pack' }), `${path}: ${name}`),
  };
}

function fileSource(path: string): RecordingSource {
  let head: { mode: Mode; kernel: string } | undefined;
  const load = (): Recording => {
    const recording = userError(() => parseRecording(readFileSync(path, 'utf8'), path));
    head = { mode: recording.mode, kernel: recording.kernel };
    return recording;
  };
  return {
    name: basename(path, '.json'),
    set: dirname(path),
    get mode() {
      return (head ?? load()).mode;
    },
    get kernel() {
      return (head ?? load()).kernel;
    },
    load,
    machine: (recording) => userError(() => findMachine(recording, dirname(path)), path),
  };
}

/**
 * The settings of the recording's scenario: from NAME.scn beside the recording, from its seed, or from the project's
 * own scenarios. Only a scenario with just these ops counts, whatever its name. Else the recording has to tell.
 */
function findMachine(recording: Recording, folder: string): { machine: Machine; origin: MachineOrigin } {
  const beside = join(resolve(folder), `${recording.scenario}.scn`);
  if (existsSync(beside)) {
    const machine = machineOf(readFileSync(beside, 'utf8'), recording);
    if (machine !== undefined) return { machine, origin: 'scenario' };
  }
  const seed = /^random-(\d{4,10})$/.exec(recording.scenario)?.[1];
  if (seed !== undefined) {
    const machine = machineOf(randomScenario(Number(seed), recording.results.length), recording);
    if (machine !== undefined) return { machine, origin: 'seed' };
  }
  const settings = embeddedSettings(recording);
  if (settings !== undefined) return { machine: parseMachine(settings), origin: 'pack' };
  return { machine: guessMachine(strip(recording)), origin: 'guess' };
}

/** The scenario's machine if the recording is one of it. */
function machineOf(scenario: string, recording: Recording): Machine | undefined {
  return sameOps(opsOf(scenario), recording) ? parseMachine(settingsOf(scenario)) : undefined;
}

function embeddedSettings(recording: Recording): readonly string[] | undefined {
  for (const path of embeddedPacks()) {
    const packed = readPackFile(path).find((candidate) => candidate.scenario === recording.scenario);
    if (packed !== undefined && sameOps(packed.opTexts(), recording)) return packed.settings;
  }
  return undefined;
}

/** A recording that broke off has the first of the scenario's ops. */
function sameOps(ops: readonly string[], { results, complete }: Recording): boolean {
  if (complete ? ops.length !== results.length : ops.length < results.length) return false;
  return results.every((result, i) => result.op === ops[i]);
}
