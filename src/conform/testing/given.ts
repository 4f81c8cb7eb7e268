/** The recordings of the real kernel that the repository holds, for tests. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import { type PackedRecording, readPack } from '../pack.ts';
import type { Recording } from '../recording.ts';

export type GivenSet = '6.1-core' | '6.1-errors' | '6.1-host' | '6.1-random' | '6.12-core' | '6.12-random';

const SUFFIX = '.ndjson.br';

export function givenText(set: GivenSet): string {
  const file = new URL(`../../../recordings/${set}${SUFFIX}`, import.meta.url);
  return brotliDecompressSync(readFileSync(file)).toString('utf8');
}

export function givenPack(set: GivenSet): PackedRecording[] {
  return readPack(givenText(set), set);
}

/** All of them, the smallest set first, each set read when it is its turn. */
export function* allGiven(): Generator<PackedRecording> {
  const folder = new URL('../../../recordings/', import.meta.url);
  const files = readdirSync(folder).filter((name) => name.endsWith(SUFFIX));
  const size = (name: string) => statSync(new URL(name, folder)).size;
  files.sort((a, b) => size(a) - size(b));
  for (const name of files) yield* givenPack(name.slice(0, -SUFFIX.length) as GivenSet);
}

/** Some of a set by their names (NAME.MODE). */
export function givenRecordings(set: GivenSet, ...names: string[]): Recording[] {
  const pack = givenPack(set);
  return names.map((name) => {
    const packed = pack.find((candidate) => candidate.name === name);
    if (packed === undefined) throw new Error(`no ${name} in ${set}`);
    return packed.load();
  });
}
