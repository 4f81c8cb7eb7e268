/**
 * A pack: many recordings in one text, as the repository keeps them (there compressed; `scripts/pack-recordings.mjs`
 * makes it).
 *
 * One JSON value a line. The first line says what it is; then, for each recording, a line with the head and the memory,
 * and its ops, a line each, as they stand in the recorder's JSON. The settings of a scenario (its lines before `run`)
 * stand with its first recording.
 *
 *     {"pack":1,"name":"6.1-core","recordings":90}
 *     {"name":"perms.A","lines":54,"chars":40961,"settings":["slot 1 0x1000000 4M 2m", ...],"head":{...},"memory":[...]}
 *     {"n":0,"op":"nop", ...}
 *
 * `chars` is the length of the ops' lines, so that a reader can pass over a recording that it does not want.
 */
import { JsonCheck, RecordingError } from './json-check.ts';
import { assembleRecording, type Mode, type Recording } from './recording.ts';

/** A recording's name becomes a file's (`conformance --write`), so it is one, and nothing that leads elsewhere. */
const NAME = /^\w[\w.+-]{0,200}$/;

export interface PackedRecording {
  /** NAME.MODE, unique within the pack. */
  readonly name: string;
  readonly scenario: string;
  readonly mode: Mode;
  readonly kernel: string;
  /** The scenario's lines before `run`. */
  readonly settings: readonly string[];
  /** The ops' texts, without the rest. */
  opTexts(): string[];
  load(): Recording;
}

/** The recordings of a pack, in the order in which they stand there. Ops are not looked at before `load`. */
export function readPack(text: string, file: string): PackedRecording[] {
  const check = new JsonCheck(file);
  const first = readLine(text, 0, file);
  const header = check.object(first.value);
  if (header['pack'] !== 1) throw new RecordingError(`${file}: is not a pack of recordings that this version reads`);
  const recordings: PackedRecording[] = [];
  const settings = new Map<string, readonly string[]>();
  const names = new Set<string>();
  let at = first.end;
  while (at < text.length) {
    const line = readLine(text, at, file);
    const { recording, chars } = readHeadLine(check, line.value, settings, text, line.end, file);
    const { name } = recording;
    if (!NAME.test(name))
      throw new RecordingError(`${file}: a recording's name is no file name: ${JSON.stringify(name)}`);
    if (names.has(name)) throw new RecordingError(`${file}: has two recordings named ${name}`);
    names.add(name);
    recordings.push(recording);
    at = line.end + chars;
  }
  if (at !== text.length || recordings.length !== header['recordings']) {
    throw new RecordingError(
      `${file}: is cut off: ${recordings.length} recordings, not ${String(header['recordings'])}`,
    );
  }
  return recordings;
}

function readHeadLine(
  check: JsonCheck,
  value: unknown,
  settingsSoFar: Map<string, readonly string[]>,
  text: string,
  start: number,
  file: string,
): { recording: PackedRecording; chars: number } {
  const line = check.object(value);
  const name = check.text(line['name']);
  const lines = check.integer(line['lines'], 0);
  const chars = check.integer(line['chars'], 0);
  const head = check.object(line['head']);
  const scenario = check.text(head['scenario']);
  if (line['settings'] !== undefined) settingsSoFar.set(scenario, check.array(line['settings']).map(String));
  const ops = (): unknown[] => {
    const values = readLines(text, start, start + chars, file);
    if (values.length !== lines) throw new RecordingError(`${file}: ${name} has ${values.length} ops, not ${lines}`);
    return values;
  };
  const recording: PackedRecording = {
    name,
    scenario,
    mode: check.oneOf(head['mode'], ['A', 'B', 'C']),
    kernel: check.text(head['kernel']),
    settings: settingsSoFar.get(scenario) ?? [],
    opTexts: () => ops().map((op) => check.text(check.object(op)['op'])),
    load: () => assembleRecording(new JsonCheck(`${file}: ${name}`), { ...head }, line['memory'], ops()),
  };
  return { recording, chars };
}

function readLines(text: string, start: number, end: number, file: string): unknown[] {
  const values: unknown[] = [];
  for (let at = start; at < end; ) {
    const line = readLine(text, at, file);
    values.push(line.value);
    at = line.end;
  }
  return values;
}

function readLine(text: string, start: number, file: string): { value: unknown; end: number } {
  const newline = text.indexOf('\n', start);
  const end = newline < 0 ? text.length : newline;
  try {
    return { value: JSON.parse(text.slice(start, end)), end: end + 1 };
  } catch {
    throw new RecordingError(`${file}: is damaged: no JSON at character ${start}`);
  }
}
