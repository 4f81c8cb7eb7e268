/**
 * Boot images with lies in their headers, cut off, damaged: a BootError that says where and what in one line, or an image that a
 * machine can start. What a sane image is, is told here anew and not by the loaders' own checks.
 */
import { readFileSync } from 'node:fs';
import type { Prng } from '../../base/prng.ts';
import { buildAcpiTables } from '../../vm/boot/acpi-tables.ts';
import { BootError, type BootImage, type BootSource, roomOf } from '../../vm/boot/boot-image.ts';
import { buildE820, DEVICE_HOLE_END, DEVICE_HOLE_GPA, HIGH_RAM_GPA, LOW_RAM_END } from '../../vm/boot/e820.ts';
import { loadKernel } from '../../vm/boot/kernel.ts';
import { randomBzImage, randomElf, randomFlat } from './boot-images.ts';
import type { Fuzzer } from './harness.ts';
import { mutateBytes } from './mutate.ts';

const MIB = 2 ** 20;
const TINY = new URL('../../../guests/tiny/tiny.elf', import.meta.url);

export function bootFuzzer(): Fuzzer {
  const tiny = Uint8Array.from(readFileSync(TINY));
  const { rsdpGpa, write: tables } = buildAcpiTables(4);
  return {
    name: 'boot',
    run(prng) {
      const ramBytes = prng.pick([2 * MIB, 3 * MIB, 16 * MIB, 128 * MIB, 3072 * MIB, 5120 * MIB]);
      const kernel = damaged(prng.pick([randomBzImage, randomElf, randomFlat, () => tiny])(prng), prng);
      const source: BootSource = {
        kernel,
        cmdline: prng.chance(0.9) ? 'console=ttyS0 quiet' : 'ä€😀\u0001'.repeat(prng.int(8000)),
        map: buildE820(ramBytes),
        rsdpGpa,
        ...(prng.chance(0.5) ? { initrd: new Uint8Array(prng.int(prng.pick([2, 5000, 3 * MIB]))).fill(1) } : {}),
      };
      const before = kernel.slice();
      let image: BootImage;
      try {
        image = loadKernel(source);
      } catch (error) {
        if (!(error instanceof BootError)) throw error;
        if (!/^[^\n]{3,200}$/.test(error.message) || /NaN|undefined|null/.test(error.message)) {
          throw new Error(`an unclear message: ${error.message}`, { cause: error });
        }
        return 'refused';
      }
      if (!before.every((byte, i) => byte === kernel[i])) throw new Error('the loader changed the file');
      checkImage(image, ramBytes, tables.gpa);
      return image.kind;
    },
  };
}

function damaged(file: Uint8Array, prng: Prng): Uint8Array {
  if (prng.chance(0.6)) return file;
  if (prng.chance(0.3)) return file.subarray(0, prng.int(file.length));
  return mutateBytes(file, prng, 3);
}

function checkImage(image: BootImage, ramBytes: number, tablesGpa: number): void {
  const { writes, registers, kind } = image;
  const areas = writes
    .filter((write) => roomOf(write) > 0)
    .map((write) => [write.gpa, write.gpa + roomOf(write)] as const);
  for (const [start, end] of areas) {
    if (!isRam(start, end, ramBytes)) throw new Error(`${kind}: ${start} to ${end} is no RAM`);
    if (start < HIGH_RAM_GPA && end > tablesGpa) throw new Error(`${kind}: ${start} to ${end} is the firmware's`);
  }
  areas.sort((a, b) => a[0] - b[0]);
  for (let i = 1; i < areas.length; i++) {
    if (areas[i][0] < areas[i - 1][1]) throw new Error(`${kind}: overlap at ${areas[i][0]}`);
  }
  const { rip, rsp, cs, gdtBase, gdtLimit, cr0, cr3, efer } = registers;
  if (!Number.isInteger(rip) || !isRam(rip, rip + 1, ramBytes)) throw new Error(`${kind}: starts at ${rip}`);
  if (!isRam(rsp - 8, rsp, ramBytes)) throw new Error(`${kind}: a stack at ${rsp}`);
  if ((cr0 & 1) === 0) throw new Error(`${kind}: not in protected mode`);
  if (!areas.some(([start, end]) => gdtBase >= start && gdtBase + gdtLimit < end)) throw new Error(`${kind}: no GDT`);
  if (cs.selector + 7 > gdtLimit) throw new Error(`${kind}: CS lies beyond the GDT`);
  if (efer !== 0 && !areas.some(([start]) => start === cr3)) throw new Error(`${kind}: no page tables at ${cr3}`);
}

/** From end to end in one piece of RAM that the guest may use. */
function isRam(start: number, end: number, ramBytes: number): boolean {
  if (start < LOW_RAM_END) return start >= 0 && end <= LOW_RAM_END;
  if (start < DEVICE_HOLE_END) return start >= HIGH_RAM_GPA && end <= Math.min(ramBytes, DEVICE_HOLE_GPA);
  return end <= DEVICE_HOLE_END + ramBytes - DEVICE_HOLE_GPA;
}
