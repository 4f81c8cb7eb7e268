import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { loadKernel } from './kernel.ts';
import { sourceOf } from './testing/images.ts';

const GUESTS = fileURLToPath(new URL('../../../guests/', import.meta.url));
const hasNasm = spawnSync('nasm', ['-v']).status === 0;

describe.each(['tiny', 'smp'])('the guest of our own %s', (name) => {
  const home = join(GUESTS, name);

  it('is a multiboot kernel that starts at 1 MiB', () => {
    const image = loadKernel(sourceOf(readFileSync(join(home, `${name}.elf`))));
    expect(image.kind).toBe('multiboot');
    expect(image.writes[0].gpa).toBe(0x100000);
  });

  it.skipIf(!hasNasm)('is what nasm makes of its source (skipped where nasm is not installed)', () => {
    const folder = mkdtempSync(join(tmpdir(), 'penumbra-tiny-'));
    const out = join(folder, 'made.elf');
    const made = spawnSync('nasm', ['-f', 'bin', '-o', out, `${name}.asm`], { cwd: home, encoding: 'utf8' });
    expect([made.status, made.stderr]).toEqual([0, '']);
    expect(readFileSync(out).equals(readFileSync(join(home, `${name}.elf`)))).toBe(true);
    rmSync(folder, { recursive: true });
  });
});
