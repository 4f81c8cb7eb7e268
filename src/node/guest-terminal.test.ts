/** `penumbra run` on a terminal of its own, which util-linux's `script` gives it. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { codeImage } from '../vm/machine/testing/guests.ts';
import { packageFile } from './package-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-terminal-'));
afterAll(() => rmSync(folder, { recursive: true }));
const hasScript = spawnSync('script', ['--version']).status === 0;

/** Sends a `>`, then back each byte that it gets. */
const ECHO = codeImage(
  [0x66, 0xba, 0xf8, 0x03, 0xb0, 0x3e, 0xee], // mov dx, 0x3f8; mov al, '>'; out dx, al
  [0x66, 0xba, 0xfd, 0x03], // mov dx, 0x3fd
  [0xec, 0xa8, 0x01, 0x74, 0xf7], // in al, dx; test al, 1; jz
  [0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, 0xeb, 0xef], // mov dx, 0x3f8; in al, dx; out dx, al; jmp
);

function onTerminal(kernel: string): { process: ChildProcess; ended: Promise<number | null>; text: () => string } {
  const command = `${process.execPath} ${packageFile('bin', 'penumbra.mjs')} run --memory 16M --kernel ${kernel}`;
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (data: Buffer) => (text += data.toString('latin1')));
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  return { process: child, ended, text: () => text };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}

describe.skipIf(!hasScript)('a guest on a terminal (skipped where there is no script)', () => {
  it('gets each key as it is typed, Ctrl-C too; Ctrl-A x leaves it', async () => {
    const kernel = join(folder, 'echo');
    writeFileSync(kernel, ECHO);
    const { process: child, ended, text } = onTerminal(kernel);
    // By then the terminal is raw, and echoes nothing itself.
    await until(() => text().includes('>'));
    child.stdin?.write('key\x03\x01\x01');
    await until(() => text().length >= 6);
    expect(text()).toBe('>key\x03\x01');
    child.stdin?.write('\x01x');
    expect(await ended).toBe(0);
  });
});

describe('a guest at the end of a pipe', () => {
  it('gets all that comes, and what it does not take stays in the pipe', async () => {
    const kernel = join(folder, 'slow');
    // Sends a `>`, and the `w` of the first byte that it gets; then nothing more.
    writeFileSync(
      kernel,
      codeImage(
        [0x66, 0xba, 0xf8, 0x03, 0xb0, 0x3e, 0xee], // mov dx, 0x3f8; mov al, '>'; out dx, al
        [0x66, 0xba, 0xfd, 0x03], // mov dx, 0x3fd
        [0xec, 0xa8, 0x01, 0x74, 0xfb], // in al, dx; test al, 1; jz
        [0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, 0xeb, 0xfe], // mov dx, 0x3f8; in al, dx; out dx, al; jmp $
      ),
    );
    const args = [packageFile('bin', 'penumbra.mjs'), 'run', '--memory', '16M', '--kernel', kernel];
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (data: Buffer) => (text += data.toString('latin1')));
    child.stdin.on('error', () => {});
    const ended = new Promise((resolve) => child.on('exit', resolve));
    try {
      child.stdin.write(Buffer.alloc(2 ** 23, 'w'));
      await until(() => text === '>w');
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(child.stdin.writableLength).toBeGreaterThan(0);
    } finally {
      child.kill('SIGTERM');
    }
    expect(await ended).toBe(0);
  });
});
