/**
 * Debian's cloud kernel with busybox, through the library. The images come from guests/build-debian.sh, which is run if
 * they are missing.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Machine, type MachineOptions } from '../machine.ts';
import { packageFile } from './package-files.ts';

const GUESTS = packageFile('guests');
const OUT = join(GUESTS, 'out');
const MINUTES = 60_000;

function image(...names: string[]): Uint8Array {
  const path = join(OUT, ...names);
  if (!existsSync(path)) execFileSync('bash', [join(GUESTS, 'build-debian.sh')], { stdio: 'inherit' });
  return readFileSync(path);
}

async function shell(options: Partial<MachineOptions> = {}): Promise<Machine> {
  const machine = await Machine.boot({
    kernel: image('cloud', 'bzImage'),
    initrd: image('debian.cpio.gz'),
    cmdline: 'console=ttyS0 quiet',
    ...options,
  });
  await machine.console.waitFor('# ');
  return machine;
}

describe('Debian', () => {
  it.each(['tdp', 'shadow'] as const)(
    'runs commands under %s paging',
    async (paging) => {
      const machine = await shell({ paging });
      const { output, status } = await machine.exec('uname -a');
      expect({ output, status }).toEqual({
        output: expect.stringMatching(/^Linux \(none\) 6\.1\.0-\d+-cloud-amd64 #1 SMP [^\n]+ x86_64 GNU\/Linux\n$/),
        status: 0,
      });
      expect(await machine.exec('ls /nowhere')).toEqual({
        output: 'ls: /nowhere: No such file or directory\n',
        status: 1,
      });
      expect((await machine.exec('for i in 1 2 3; do echo $i; done')).output).toBe('1\n2\n3\n');
      expect(machine.vm.verify()).toEqual([]);
      machine.console.write('poweroff -f\n');
      expect(await machine.ended).toMatchObject({ reason: 'power-off' });
    },
    5 * MINUTES,
  );

  // In a process of its own: what other tests do meanwhile is not the guest's.
  it.skipIf(process.platform !== 'linux')(
    'idles in real time with at most 2 % of a core',
    async () => {
      image('cloud', 'bzImage');
      const files = ['--kernel', join(OUT, 'cloud', 'bzImage'), '--initrd', join(OUT, 'debian.cpio.gz')];
      const flags = ['run', '--realtime', ...files, '--append', 'console=ttyS0 quiet'];
      const run = spawn(process.execPath, [packageFile('bin', 'penumbra.mjs'), ...flags], { stdio: 'pipe' });
      try {
        let said = '';
        for await (const chunk of run.stdout) if ((said += String(chunk)).includes('# ')) break;
        const before = cpuSeconds(run.pid);
        const started = performance.now();
        await new Promise((resolve) => setTimeout(resolve, 10_000));
        const share = (cpuSeconds(run.pid) - before) / ((performance.now() - started) / 1000);
        process.stderr.write(`idle: ${(100 * share).toFixed(2)} % of a core\n`);
        expect(share).toBeLessThan(0.02);
      } finally {
        run.kill('SIGKILL');
      }
    },
    5 * MINUTES,
  );
});

/** That a process has taken so far; /proc counts it in hundredths of a second. */
function cpuSeconds(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
