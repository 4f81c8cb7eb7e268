/**
 * Debian's cloud kernel with busybox, through the library. The images come from guests/build-debian.sh, which is run if
 * they are missing.
 */
import { execFileSync } from 'node:child_process';
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

  it(
    'idles in real time with at most 2 % of a core',
    async () => {
      const machine = await shell({ realtime: true });
      const before = process.cpuUsage();
      const started = performance.now();
      await new Promise((resolve) => setTimeout(resolve, 10_000));
      const { user, system } = process.cpuUsage(before);
      const share = (user + system) / 1000 / (performance.now() - started);
      process.stderr.write(`idle: ${(100 * share).toFixed(2)} % of a core\n`);
      machine.stop();
      expect(share).toBeLessThan(0.02);
    },
    5 * MINUTES,
  );
});
