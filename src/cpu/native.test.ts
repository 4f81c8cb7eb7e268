/** Random instructions, on our CPU and on the machine's own. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { compare, refusal } from '../../cpu-check/compare.ts';
import { INSTRUCTION_TABLE } from './table/table.ts';
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
describe.skipIf(!built)('single instructions, against the processor of this machine', () => {
  it('have the same results, flags and faults', () => {
    const { mismatches, forms, seen, lastPlaces } = compare(harness, 20_000, 10_000);
    expect(mismatches.map((m) => `${m.bits} ${m.row.name} ${m.code}: ${m.what}`)).toEqual([]);
    expect(forms).toBeGreaterThan(400);
    expect(lastPlaces).toBeLessThan(10);
    // Each instruction behind VEX, in 64-bit and in 32-bit code.
    const behindVex = [...seen]
      .filter((form) => form.includes(' vex '))
      .map((form) => form.split(' ').slice(0, 6).join(' '));
    expect(new Set(behindVex).size).toBe(2 * INSTRUCTION_TABLE.filter((row) => row.vex).length);
  });
});

// And an LDT.
describe.skipIf(!built || refused !== '')(
  'single instructions of 16-bit code, against the processor of this machine',
  () => {
    it('have the same results, flags and faults', () => {
      const { mismatches, forms } = compare(harness, 30_000, 6000, undefined, [16]);
      expect(mismatches.map((m) => `${m.bits} ${m.row.name} ${m.code}: ${m.what}`)).toEqual([]);
      expect(forms).toBeGreaterThan(1500);
    });
  },
);

describe.skipIf(!built)("x87's transcendental functions, against the processor of this machine", () => {
  it('differ by one unit in the last place at most', () => {
    const program = join(directory, 'transcendental');
    expect(spawnSync('gcc', ['-O1', '-o', program, transcendental]).status).toBe(0);
    const far = [...distances(program, 1, 150)].map(([name, by]) => [
      name,
      [...by.keys()].filter((d) => d < 0 || d > 1),
    ]);
    expect(far).toEqual(FUNCTIONS.map(({ name }) => [name, []]));
  });
});
