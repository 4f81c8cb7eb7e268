/** A million random operations of x87 and as many of SSE, on our CPU and on the machine's own: registers, memory and flags bit for bit. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { compare } from '../../cpu-check/compare.ts';
import type { Row } from './table/row.ts';

const source = fileURLToPath(new URL('../../cpu-check/native.c', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'penumbra-native-'));
const harness = join(directory, 'native');
const built =
  process.arch === 'x64' &&
  process.platform === 'linux' &&
  spawnSync('gcc', ['-O1', '-o', harness, source], { stdio: 'ignore' }).status === 0;

afterAll(() => rmSync(directory, { recursive: true }));

const PIECE = 100_000;
const PIECES = 10;
/** By kind, which rows of the instruction table. */
const KINDS: readonly (readonly [string, (row: Row) => boolean])[] = [
  ['x87', (row) => row.operands.includes('F')],
  ['SSE', (row) => !row.operands.includes('F') && row.operands.some((operand) => /^[VWU]/.test(operand))],
];

// Needs an x86-64 Linux with gcc.
describe.skipIf(!built).each(KINDS)('%s, against the processor of this machine', (kind, isOne) => {
  let [compared, mismatches, lastPlaces] = [0, 0, 0];
  const forms = new Set<string>();
  afterAll(() =>
    console.info(
      `${kind}: ${compared} compared, ${forms.size} forms, ${mismatches} mismatches, ${lastPlaces} of transcendental functions off in the last place`,
    ),
  );

  it.each(Array.from({ length: PIECES }, (_, i) => i))(`piece %i of ${PIECES}`, (piece) => {
    const outcome = compare(harness, 77_000_000 + piece * PIECE, PIECE, isOne);
    compared += outcome.compared;
    mismatches += outcome.mismatches.length;
    lastPlaces += outcome.lastPlaces;
    for (const form of outcome.seen) forms.add(form);
    expect(outcome.mismatches.map((m) => `${m.bits} ${m.row.name} ${m.code}: ${m.what}`)).toEqual([]);
  });
});
