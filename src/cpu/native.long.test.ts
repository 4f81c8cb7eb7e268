/** A million random instructions, on our CPU and on the machine's own. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { compare, refusal } from '../../cpu-check/compare.ts';
import { distances, FUNCTIONS } from '../../cpu-check/transcendental.ts';

const source = fileURLToPath(new URL('../../cpu-check/native.c', import.meta.url));
const transcendental = fileURLToPath(new URL('../../cpu-check/transcendental.c', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'penumbra-native-'));
const harness = join(directory, 'native');
const built =
  process.arch === 'x64' &&
  process.platform === 'linux' &&
  spawnSync('gcc', ['-O1', '-o', harness, source], { stdio: 'ignore' }).status === 0;

afterAll(() => rmSync(directory, { recursive: true }));

const refused = built ? refusal(harness) : '';
if (refused) console.info(`16-bit code is skipped: ${refused}`);

// Needs an x86-64 Linux with gcc.
describe.skipIf(!built)('a million instructions, against the processor of this machine', () => {
  const total = { compared: 0, mismatches: 0, forms: new Set<string>() };
  afterAll(() => {
    console.info(`${total.compared} compared, ${total.forms.size} forms, ${total.mismatches} mismatches`);
  });

  it.each(Array.from({ length: 12 }, (_, i) => i))('seed %i', (seed) => {
    const { mismatches, compared, seen } = compare(harness, 1_000_000 * (seed + 1), 100_000);
    total.compared += compared;
    total.mismatches += mismatches.length;
    for (const form of seen) total.forms.add(form);
    expect(mismatches.map((m) => `${m.bits} ${m.row.name} ${m.code}: ${m.what}`)).toEqual([]);
  });
});

// And an LDT.
describe.skipIf(!built || refused !== '')('16-bit code, against the processor of this machine', () => {
  const total = { compared: 0, mismatches: 0, forms: new Set<string>() };
  afterAll(() => {
    console.info(`16-bit code: ${total.compared} compared, ${total.forms.size} forms, ${total.mismatches} mismatches`);
  });

  it.each(Array.from({ length: 10 }, (_, i) => i))('piece %i of 10', (piece) => {
    const { mismatches, compared, seen } = compare(harness, 160_000_000 + piece * 100_000, 100_000, undefined, [16]);
    total.compared += compared;
    total.mismatches += mismatches.length;
    for (const form of seen) total.forms.add(form);
    expect(mismatches.map((m) => `${m.bits} ${m.row.name} ${m.code}: ${m.what}`)).toEqual([]);
  });
});

describe.skipIf(!built)('BMI1 and BMI2, against the processor of this machine', () => {
  it.each([0, 1, 2, 3])('piece %i of 4', (piece) => {
    const { mismatches, compared } = compare(
      harness,
      55_000_000 + piece * 100_000,
      100_000,
      (row) => row.vex || row.name === 'tzcnt',
    );
    expect(mismatches.map((m) => `${m.bits} ${m.row.name} ${m.code}: ${m.what}`)).toEqual([]);
    expect(compared).toBe(100_000);
  });
});

describe.skipIf(!built)("x87's transcendental functions, against the processor of this machine", () => {
  it('differ by one unit in the last place at most', () => {
    const program = join(directory, 'transcendental');
    expect(spawnSync('gcc', ['-O1', '-o', program, transcendental]).status).toBe(0);
    const found = [...distances(program, 1, 20000)];
    for (const [name, by] of found) console.info(`${name}: ${by.get(0) ?? 0} equal, ${by.get(1) ?? 0} one unit off`);
    const far = found.map(([name, by]) => [name, [...by.keys()].filter((d) => d < 0 || d > 1)]);
    expect(far).toEqual(FUNCTIONS.map(({ name }) => [name, []]));
  });
});
