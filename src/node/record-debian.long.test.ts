/**
 * A recording of Debian's boot names each page that changes: every 2e8 instructions all of memory is compared with what it was. What
 * the format leaves out is in pages that the kernel writes, too, but for the boot loader's tables, of which only A and D change.
 * The images come from guests/build-debian.sh, which is run if they are missing.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Machine } from '../machine.ts';
import { HOLE, TouchRecorder } from '../vm/machine/touch-recorder.ts';
import { packageFile } from './package-files.ts';

const OUT = packageFile('guests', 'out');
const PAGE = 4096;
const KIND_WRITE = 1;
const EVERY = 2e8;

describe('a recording of Debian’s boot', () => {
  it.each(['tdp', 'shadow'] as const)(
    'names each page that the guest changes (%s)',
    (paging) => {
      if (!existsSync(join(OUT, 'cloud', 'bzImage')))
        execFileSync('bash', [packageFile('guests', 'build-debian.sh')], { stdio: 'inherit' });
      const { pc } = Machine.load({
        kernel: readFileSync(join(OUT, 'cloud', 'bzImage')),
        initrd: readFileSync(join(OUT, 'debian.cpio.gz')),
        // The host writes the paravirtual clock's page.
        cmdline: 'console=ttyS0 quiet no-kvmclock penumbra.quiet penumbra.run="ls -lR /sys/devices"',
        memory: 256 << 20,
        paging,
        epoch: 1_704_067_200,
        countsAccesses: true,
      });
      const written = new Uint8Array(pc.ramBytes / PAGE);
      const before = Buffer.from(pc.ram);
      const unseen: string[] = [];
      let next = EVERY;
      let checks = 0;
      let changed = 0;
      const check = (): void => {
        checks++;
        for (let page = 0; page < written.length; page++) {
          const now = pc.ram.subarray(page * PAGE, (page + 1) * PAGE);
          const was = before.subarray(page * PAGE, (page + 1) * PAGE);
          if (was.equals(now) || (page >= HOLE[0] && page < HOLE[1])) continue;
          changed++;
          if (written[page] === 0 && !isWalked(was, now)) unseen.push(`${page.toString(16)} at ${pc.instructions}`);
          was.set(now);
        }
        written.fill(0);
      };
      const recorder = new TouchRecorder(
        pc,
        { epochInsns: 100_000, start: 'power-on', maxInsns: Infinity },
        {
          populate: () => {},
          touch: (page, kind) => {
            if (kind === KIND_WRITE) written[page] = 1;
          },
          endList: () => {
            if (pc.instructions < next) return;
            next += EVERY;
            check();
          },
        },
      );
      while (pc.end === null) pc.run(2_000_000);
      recorder.finish();
      check();
      expect(pc.end.reason).toBe('power-off');
      expect(unseen).toEqual([]);
      expect(checks).toBeGreaterThan(5);
      expect(changed).toBeGreaterThan(20_000);
      console.log(
        `${paging}: ${checks} checks, ${changed} pages changed, ${unseen.length} of them without a recorded write`,
      );
    },
    600_000,
  );
});

/** The CPU's walks have set bits, A and D of entries, and nothing else has changed. */
function isWalked(was: Buffer, now: Uint8Array): boolean {
  for (let at = 0; at < PAGE; at++) {
    const set = now[at] & ~was[at];
    if ((was[at] & ~now[at]) !== 0 || (set & ~(at % 8 === 0 ? 0x60 : 0)) !== 0) return false;
  }
  return true;
}
