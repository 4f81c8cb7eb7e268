/**
 * Boot images by chance, for the fuzzer: files that are right but for the numbers in their headers, which are likely ones, odd ones
 * and lies by turns. Most are near enough to right that a loader has to look at everything.
 */
import type { Prng } from '../../base/prng.ts';

const HDRS = 0x53726448;
const MULTIBOOT = 0x1badb002;
const PT_LOAD = 1;
const PT_NOTE = 4;
const PHYS32_ENTRY = 18;

/** Numbers at which something ends, wraps or changes its sign. */
const ODD = [
  0, 1, 3, 4, 7, 255, 256, 511, 512, 4095, 4096, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xfffff000, 0xffffffff,
];
/** Addresses at which the loader or the machine keeps something. */
const PLACES = [
  0, 0x1000, 0x2000, 0x3000, 0x7000, 0x9000, 0x20000, 0x9f000, 0xa0000, 0xe0000, 0xff000, 0x100000, 0x1ff000,
];
const HIGH_PLACES = [0x200000, 0x1000000, 0xbffff000, 0xc0000000, 0xfee00000, 0xffffe000];

/** `right` most of the time, else a number that may be a lie. */
function likely(prng: Prng, right: number): number {
  if (prng.chance(0.97)) return right;
  if (prng.chance(0.4)) return (right + prng.pick([-4096, -16, -1, 1, 16, 4096])) >>> 0;
  return prng.chance(0.7) ? prng.pick(ODD) : prng.next();
}

function place(prng: Prng): number {
  const base = prng.chance(0.6) ? 0x100000 : prng.pick(prng.chance(0.6) ? PLACES : HIGH_PLACES);
  return prng.chance(0.8) ? base : (base + prng.int(0x3000)) >>> 0;
}

/** A bzImage: setup sectors with the header, then the kernel. */
export function randomBzImage(prng: Prng): Uint8Array {
  const sectors = 1 + prng.int(4);
  const kernelBytes = 16 * (1 + prng.int(600));
  const file = new Uint8Array((sectors + 1) * 512 + kernelBytes + prng.int(2) * prng.int(600));
  const view = new DataView(file.buffer);
  const byte = (at: number, value: number): void => view.setUint8(at, likely(prng, value));
  const half = (at: number, value: number): void => view.setUint16(at, likely(prng, value), true);
  const word = (at: number, value: number): void => view.setUint32(at, likely(prng, value), true);
  for (let at = 0; at < file.length; at += 4 + prng.int(64)) file[at] = prng.int(256);
  byte(0x1f1, sectors);
  word(0x1f4, kernelBytes / 16);
  view.setUint16(0x1fe, 0xaa55, true);
  byte(0x201, prng.pick([0x62, 0x6a, 0x7e]));
  view.setUint32(0x202, HDRS, true);
  half(0x206, prng.pick([0x020c, 0x020d, 0x020f]));
  byte(0x211, 1);
  word(0x22c, prng.pick([0x7fffffff, 0x37ffffff, 0xffffffff]));
  word(0x230, prng.pick([0x1000, 0x200000, 0x1000000]));
  byte(0x234, prng.int(2));
  half(0x236, prng.pick([1, 3, 0x7f]));
  word(0x238, prng.pick([255, 2047]));
  word(0x258, prng.pick([0x100000, 0x1000000]));
  word(0x25c, 0);
  word(0x260, prng.pick([0x2000, 0x100000, 0x3000000]));
  return file;
}

/** An ELF file of either class with a few segments, a note PHYS32_ENTRY, a multiboot header, or several of these. */
export function randomElf(prng: Prng): Uint8Array {
  const is64 = prng.chance(0.5);
  const segments = prng.chance(0.05) ? 0 : 1 + prng.int(4);
  const headerBytes = is64 ? 64 : 52;
  const programBytes = is64 ? 56 : 32;
  const hasNote = prng.chance(0.7);
  const noteAt = headerBytes + (segments + 1) * programBytes;
  const multibootAt = noteAt + 32;
  const file = new Uint8Array(multibootAt + 64 + prng.int(0x3000));
  const view = new DataView(file.buffer);
  const word = (at: number, value: number): void => {
    view.setUint32(at, likely(prng, value), true);
    if (is64) view.setUint32(at + 4, prng.chance(0.98) ? 0 : prng.pick(ODD), true);
  };
  file.set([0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, 1, 1]);
  view.setUint16(16, prng.chance(0.95) ? prng.pick([2, 3]) : prng.int(8), true);
  view.setUint16(18, prng.chance(0.95) ? prng.pick([3, 62]) : prng.int(300), true);
  const loads = Array.from({ length: segments }, () => place(prng));
  const entry = ((loads[0] ?? 0) + prng.int(64)) >>> 0;
  word(24, entry);
  word(is64 ? 32 : 28, headerBytes);
  view.setUint16(is64 ? 54 : 42, likely(prng, programBytes), true);
  view.setUint16(is64 ? 56 : 44, likely(prng, segments + Number(hasNote)), true);
  for (const [i, gpa] of loads.entries()) {
    const offset = prng.int(file.length);
    const fileBytes = prng.int(file.length - offset);
    program(i, PT_LOAD, offset, gpa, fileBytes, fileBytes + prng.pick([0, 0, 64, 0x1000, 0x30000, 0x1000000]));
  }
  if (hasNote) {
    program(segments, PT_NOTE, noteAt, 0, 20, 20);
    for (const [i, value] of [4, 4, PHYS32_ENTRY, 0x6e6558, entry].entries()) {
      view.setUint32(noteAt + i * 4, likely(prng, value), true);
    }
  }
  if (prng.chance(0.4)) multiboot(view, multibootAt, prng, prng.chance(0.9) ? prng.int(4) : prng.next());
  return file;

  function program(i: number, type: number, offset: number, gpa: number, fileBytes: number, memoryBytes: number): void {
    const at = headerBytes + i * programBytes;
    view.setUint32(at, prng.chance(0.97) ? type : prng.int(8), true);
    word(at + (is64 ? 8 : 4), offset);
    word(at + (is64 ? 24 : 12), gpa);
    word(at + (is64 ? 32 : 16), fileBytes);
    word(at + (is64 ? 40 : 20), memoryBytes);
    word(at + (is64 ? 48 : 28), prng.pick([1, 4, 8, 4096]));
  }
}

/** A multiboot file that says in its header where it is to be loaded. */
export function randomFlat(prng: Prng): Uint8Array {
  const at = 4 * prng.int(64);
  const file = new Uint8Array(at + 32 + prng.int(0x3000));
  for (let i = 0; i < file.length; i += 1 + prng.int(64)) file[i] = prng.int(256);
  const view = new DataView(file.buffer);
  multiboot(view, at, prng, 0x10000 | prng.int(4));
  const load = place(prng);
  const end = prng.chance(0.3) ? 0 : load + file.length;
  const addresses = [
    load + at,
    load,
    end,
    prng.chance(0.5) ? 0 : end + prng.int(0x10000),
    load + prng.int(file.length),
  ];
  for (const [i, value] of addresses.entries()) view.setUint32(at + 12 + i * 4, likely(prng, value >>> 0), true);
  return file;
}

function multiboot(view: DataView, at: number, prng: Prng, flags: number): void {
  view.setUint32(at, MULTIBOOT, true);
  view.setUint32(at + 4, flags, true);
  view.setUint32(at + 8, likely(prng, -(MULTIBOOT + flags) >>> 0), true);
}
