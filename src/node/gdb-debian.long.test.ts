/**
 * GDB on Debian's cloud kernel with two CPUs, with the symbols that the kernel itself tells. The images come from
 * guests/build-debian.sh, which is run if they are missing.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, describe, expect, it } from 'vitest';
import { parseSymbols, symbolFile } from '../../guests/symbols.mjs';
import { Machine } from '../machine.ts';
import { GdbServer } from './gdb-server.ts';
import { packageFile } from './package-files.ts';

const OUT = packageFile('guests', 'out');
const folder = mkdtempSync(join(tmpdir(), 'penumbra-gdb-debian-'));
afterAll(() => rmSync(folder, { recursive: true }));
const hasGdb = spawnSync('gdb', ['--version']).error === undefined;

function load(run: string, cpus = 1): Machine {
  if (!existsSync(join(OUT, 'cloud', 'bzImage')))
    execFileSync('bash', [packageFile('guests', 'build-debian.sh')], { stdio: 'inherit' });
  return Machine.load({
    kernel: readFileSync(join(OUT, 'cloud', 'bzImage')),
    initrd: readFileSync(join(OUT, 'debian.cpio.gz')),
    cmdline: `console=ttyS0 quiet nokaslr penumbra.quiet penumbra.run="${run}"`,
    memory: 256 << 20,
    cpus,
  });
}

async function kernelSymbols(): Promise<string> {
  const machine = load('cat /proc/kallsyms');
  let text = '';
  machine.console.onOutput = (bytes) => (text += Buffer.from(bytes).toString('latin1'));
  machine.start();
  await machine.ended;
  const path = join(folder, 'kernel.elf');
  writeFileSync(path, symbolFile(parseSymbols(text)));
  return path;
}

describe.skipIf(!hasGdb)('GDB on Debian (skipped without gdb)', () => {
  it('stops in the kernel’s functions, on its data, and on either CPU', async () => {
    const symbols = await kernelSymbols();
    const machine = load('cat /proc/version', 2);
    const server = await GdbServer.listen(machine, 0);
    const ended = machine.ended.then((end) => server.finish(end).then(() => end));
    const commands = [
      `target remote 127.0.0.1:${server.port}`,
      'hbreak start_kernel',
      'continue',
      'backtrace 2',
      'stepi',
      'print $cr0',
      'delete',
      'break do_sys_openat2',
      'continue',
      'printf "opens %s in %s\\n", (char *)$rsi, $gs_base < 0 ? "the kernel" : "a program"',
      'info threads',
      'delete',
      'watch *(unsigned long *)&jiffies_64',
      'continue',
      'delete',
      'break version_proc_show',
      'continue',
      'backtrace 2',
      'delete',
      'continue',
    ];
    const args = ['-nx', '-batch', symbols, ...commands.flatMap((command) => ['-ex', command])];
    const { stdout } = await promisify(execFile)('gdb', args, { timeout: 540_000 });
    expect(stdout).toMatch(
      /hit Breakpoint 1, 0xffffffff8\w+ in start_kernel \(\)\n#0 .* in start_kernel \(\)\n#1 .* in secondary_startup_64_no_verify \(\)/,
    );
    expect(stdout).toContain('= [ PE MP ET NE WP AM PG ]');
    expect(stdout).toContain('opens /init in ');
    expect(stdout).toMatch(/Thread 2 \(CPU 1 \[(running|halted)\]\)/);
    const [, before, after] =
      /Old value = (\d+)\nNew value = (\d+)\n0x\w+ in tick_do_update_jiffies64 \(\)/.exec(stdout) ?? [];
    expect(Number(after)).toBeGreaterThan(Number(before));
    expect(stdout).toMatch(/in version_proc_show \(\)\n#1 .* in seq_read_iter \(\)/);
    expect(stdout).toContain('exited normally');
    expect(await ended).toMatchObject({ reason: 'power-off' });
    expect(machine.console.text).toContain('Linux version 6.1.0');
    expect(machine.vm.verify()).toEqual([]);
  }, 600_000);
});
