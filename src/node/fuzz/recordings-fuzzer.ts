/** Damaged recordings, packs and scenarios through `penumbra conformance`: one line and status 2, or an ordinary run. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import type { Prng } from '../../base/prng.ts';
import { parseRecording } from '../../conform/recording.ts';
import { writeRecording } from '../../conform/write.ts';
import { givenStarts } from './given-starts.ts';
import type { Fuzzer } from './harness.ts';
import { type Json, mutateBytes, mutateJson, mutateText } from './mutate.ts';
import { checkRun, runProgram } from './program-run.ts';

interface Base {
  readonly name: string;
  readonly json: string;
  readonly scenario: string;
  readonly settings: readonly string[];
}

export function recordingsFuzzer(): Fuzzer {
  const folder = mkdtempSync(join(tmpdir(), 'penumbra-fuzz-'));
  const bases = givenStarts(10).map(({ recording, settings }): Base => {
    const ops = recording.results.map(({ op }) => op);
    return {
      name: `${recording.scenario}.${recording.mode}`,
      json: writeRecording(recording),
      scenario: [...settings, 'run', ...ops, ''].join('\n'),
      settings,
    };
  });
  return {
    name: 'recordings',
    async run(prng) {
      const input = join(folder, 'in');
      rmSync(input, { recursive: true, force: true });
      mkdirSync(input);
      const path = prng.chance(0.3) ? makePack(input, prng, bases) : makeFile(input, prng, prng.pick(bases));
      return convicted(prng.chance(0.2) ? input : path, join(folder, 'out'), prng);
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** Runs the program on what was made, and judges. */
async function convicted(path: string, out: string, prng: Prng): Promise<string> {
  const args = ['conformance', path];
  if (prng.chance(0.3)) args.push('--strict');
  if (prng.chance(0.3)) args.push('--json');
  const write = prng.chance(0.3);
  if (write) args.push('--write', out);
  rmSync(out, { recursive: true, force: true });
  const result = await runProgram(args);
  checkRun(args, result);
  if (write && result.status === 0) checkWritten(out);
  return `${write ? 'write' : 'compare'}: status ${result.status}`;
}

/** What was written can be read: whole recordings, and nothing else. */
function checkWritten(folder: string): void {
  for (const file of readdirSync(folder)) {
    if (!file.endsWith('.json')) throw new Error(`${file} was left in the folder`);
    parseRecording(readFileSync(join(folder, file), 'utf8'), file);
  }
}

/** NAME.MODE.json, and NAME.scn beside it more often than not. */
function makeFile(folder: string, prng: Prng, base: Base): string {
  const path = join(folder, `${base.name}.json`);
  const inJson = prng.chance(0.7);
  const damaged = inJson
    ? JSON.stringify(mutateJson(JSON.parse(base.json) as Json, prng))
    : mutateText(base.json, prng);
  writeFileSync(path, prng.chance(0.1) ? base.json : damaged);
  if (prng.chance(0.7)) {
    const scenario = prng.chance(0.5) ? base.scenario : mutateText(base.scenario, prng);
    writeFileSync(join(folder, `${base.name.slice(0, -2)}.scn`), scenario);
  }
  return path;
}

function makePack(folder: string, prng: Prng, bases: readonly Base[]): string {
  const path = join(folder, 'x.ndjson.br');
  const lines = packLines([prng.pick(bases), prng.pick(bases)]);
  if (prng.chance(0.5)) {
    const at = prng.chance(0.5) ? prng.pick(headLines(lines)) : prng.int(lines.length);
    lines[at] = JSON.stringify(mutateJson(JSON.parse(lines[at]) as Json, prng));
    if (prng.chance(0.5)) fixLengths(lines);
  }
  const text = `${lines.join('\n')}\n`;
  const packed = compress(prng.chance(0.4) ? mutateText(text, prng) : text);
  writeFileSync(path, prng.chance(0.2) ? mutateBytes(packed, prng) : packed);
  return path;
}

function compress(text: string): Uint8Array {
  return brotliCompressSync(text, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } });
}

/** As `scripts/pack-recordings.mjs` packs. */
function packLines(bases: readonly Base[]): string[] {
  const lines = [JSON.stringify({ pack: 1, name: 'x', recordings: bases.length })];
  for (const { name, json, settings } of bases) {
    const { memory, results, ...head } = JSON.parse(json) as { memory: Json; results: Json[]; [key: string]: Json };
    const ops = results.map((result) => JSON.stringify(result));
    const chars = ops.reduce((sum, line) => sum + line.length + 1, 0);
    lines.push(JSON.stringify({ name, lines: ops.length, chars, settings, head, memory }), ...ops);
  }
  return lines;
}

function headLines(lines: readonly string[]): number[] {
  return lines.flatMap((line, i) => (i === 0 || line.startsWith('{"name"') ? [i] : []));
}

/** So that damage behind a recording's head is reached. */
function fixLengths(lines: string[]): void {
  const heads = headLines(lines);
  for (const [i, at] of heads.entries()) {
    if (at === 0) continue;
    const end = heads[i + 1] ?? lines.length;
    const chars = lines.slice(at + 1, end).reduce((sum, line) => sum + line.length + 1, 0);
    lines[at] = lines[at].replace(/"chars":\d+/, `"chars":${chars}`);
  }
}
