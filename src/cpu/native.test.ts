/** Random instructions, on our CPU and on the machine's own. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { compare } from '../../cpu-check/compare.ts';

const source = fileURLToPath(new URL('../../cpu-check/native.c', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'penumbra-native-'));
const harness = join(directory, 'native');
const built =
  process.arch === 'x64' &&
  process.platform === 'linux' &&
  spawnSync('gcc', ['-O1', '-o', harness, source], { stdio: 'ignore' }).status === 0;

afterAll(() => rmSync(directory, { recursive: true }));

// Needs an x86-64 Linux with gcc.
describe.skipIf(!built)('single instructions, against the processor of this machine', () => {
  it('have the same results, flags and faults', () => {
    const { mismatches, forms } = compare(harness, 20_000, 10_000);
    expect(mismatches.map((m) => `${m.narrow ? 32 : 64} ${m.row.name} ${m.code}: ${m.what}`)).toEqual([]);
    expect(forms).toBeGreaterThan(400);
  });
});
