/**
 * Two runs with one seed are the same, instruction for instruction: Debian's cloud kernel to busybox, a few commands, power-off. Every 20
 * million instructions all CPUs' registers are taken down, and at the end memory, the console and KVM's statistics.
 * The images come from guests/build-debian.sh, which is run if they are missing.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { STATE_BYTES } from '../cpu/state.ts';
import { Machine } from '../machine.ts';
import type { PagingName } from '../vm/machine/pc.ts';
import { packageFile } from './package-files.ts';

const GUESTS = packageFile('guests');
const COMMANDS = 'uname -a; seq 3000 | sort -r | md5sum; (cat /proc/stat & cat /proc/interrupts; wait) | head -20';
const INTERVAL = 20_000_000;
const MINUTES = 60_000;

function image(...names: string[]): Uint8Array {
  const path = join(GUESTS, 'out', ...names);
  if (!existsSync(path)) execFileSync('bash', [join(GUESTS, 'build-debian.sh')], { stdio: 'inherit' });
  return readFileSync(path);
}

const digest = (...parts: readonly Uint8Array[]): string => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex').slice(0, 16);
};

interface Run {
  /** `instructions ns registers` at each interval. */
  readonly steps: string[];
  readonly memory: string;
  readonly console: string;
  readonly end: string | undefined;
  readonly stats: unknown;
}

function boot(paging: PagingName, cpus: number, seed: number): Run {
  const machine = Machine.load({
    kernel: image('cloud', 'bzImage'),
    initrd: image('debian.cpio.gz'),
    cmdline: `console=ttyS0 quiet penumbra.run="${COMMANDS}"`,
    memory: 128 << 20,
    epoch: 1_700_000_000,
    paging,
    cpus,
    seed,
  });
  const { pc } = machine;
  const steps: string[] = [];
  while (pc.end === null) {
    pc.run(INTERVAL);
    // Registers, and what the last run has left beside them.
    const states = pc.cpus.map(({ cpu }) => cpu.state.bytes.slice(cpu.layout.state, cpu.layout.state + STATE_BYTES));
    steps.push(`${pc.instructions} ${pc.nowNs} ${digest(...states)}`);
  }
  machine.console.flush();
  return {
    steps,
    memory: digest(pc.ram),
    console: machine.console.text,
    end: pc.end?.reason,
    stats: machine.stats(),
  };
}

describe('Linux', () => {
  it.each([
    ['tdp', 1],
    ['tdp', 2],
    ['shadow', 2],
  ] as const)(
    'runs twice in the same way, %s paging, %i CPUs',
    (paging, cpus) => {
      const first = boot(paging, cpus, 7);
      expect(first).toMatchObject({ end: 'power-off', console: expect.stringContaining('GNU/Linux') });
      expect(boot(paging, cpus, 7)).toEqual(first);
      const last = first.steps.at(-1)?.split(' ')[0];
      console.info(
        `${paging}, ${cpus} CPUs: ${last} instructions twice, registers at ${first.steps.length} points, memory ${first.memory}`,
      );
    },
    60 * MINUTES,
  );

  it(
    'runs otherwise with another seed',
    () => {
      expect(boot('tdp', 2, 8).steps).not.toEqual(boot('tdp', 2, 9).steps);
    },
    60 * MINUTES,
  );
});
