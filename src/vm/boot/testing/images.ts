/** Small boot images for tests, correct to begin with. */
import { buildE820 } from '../e820.ts';
import type { BootSource } from '../boot-image.ts';

export const MAP = buildE820(128 * 2 ** 20);

export function sourceOf(kernel: Uint8Array, rest: Partial<BootSource> = {}): BootSource {
  return { kernel, cmdline: 'console=ttyS0', map: MAP, rsdpGpa: 0xe0000, ...rest };
}

/** A bzImage of protocol 2.15 with 8 KiB of kernel, byte i of which is i % 251. */
export function buildBzImage(change: (view: DataView) => void = () => {}): Uint8Array {
  const setupBytes = 2 * 512;
  const file = new Uint8Array(setupBytes + 8192);
  const view = new DataView(file.buffer);
  view.setUint8(0x1f1, 1);
  view.setUint32(0x1f4, 8192 / 16, true);
  view.setUint16(0x1fe, 0xaa55, true);
  view.setUint16(0x200, 0x6aeb, true);
  view.setUint32(0x202, 0x53726448, true);
  view.setUint16(0x206, 0x020f, true);
  view.setUint8(0x211, 1);
  view.setUint32(0x22c, 0x7fffffff, true);
  view.setUint32(0x230, 0x200000, true);
  view.setUint8(0x234, 1);
  view.setUint16(0x236, 1, true);
  view.setUint32(0x238, 2047, true);
  view.setUint32(0x258, 0x1000000, true);
  view.setUint32(0x260, 0x200000, true);
  for (let i = 0; i < 8192; i++) file[setupBytes + i] = i % 251;
  change(view);
  return file;
}

export interface ElfOptions {
  readonly is64?: boolean;
  readonly load?: number;
  readonly entry?: number;
  /** PHYS32_ENTRY, if there is to be one. */
  readonly pvhEntry?: number;
  readonly multiboot?: boolean;
  readonly memoryBytes?: number;
  readonly change?: (view: DataView) => void;
}

/** An ELF file with one segment of 1 KiB at file offset 0x200 and, perhaps, a note. */
export function buildElf(options: ElfOptions = {}): Uint8Array {
  const { is64 = false, load = 0x100000, entry = load, pvhEntry, memoryBytes = 4096 } = options;
  const file = new Uint8Array(0x600);
  const view = new DataView(file.buffer);
  const headerBytes = is64 ? 64 : 52;
  const programBytes = is64 ? 56 : 32;
  const word = (at: number, value: number): void => {
    view.setUint32(at, value, true);
    if (is64) view.setUint32(at + 4, 0, true);
  };
  file.set([0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, is64 ? 62 : 3, true);
  view.setUint32(20, 1, true);
  word(24, entry);
  word(is64 ? 32 : 28, headerBytes);
  view.setUint16(is64 ? 52 : 40, headerBytes, true);
  view.setUint16(is64 ? 54 : 42, programBytes, true);
  view.setUint16(is64 ? 56 : 44, pvhEntry === undefined ? 1 : 2, true);
  const program = (
    index: number,
    type: number,
    offset: number,
    gpa: number,
    inFile: number,
    inMemory: number,
  ): void => {
    const at = headerBytes + index * programBytes;
    view.setUint32(at, type, true);
    word(at + (is64 ? 8 : 4), offset);
    word(at + (is64 ? 24 : 12), gpa);
    word(at + (is64 ? 32 : 16), inFile);
    word(at + (is64 ? 40 : 20), inMemory);
    word(at + (is64 ? 48 : 28), 4);
  };
  program(0, 1, 0x200, load, 1024, memoryBytes);
  for (let i = 0; i < 1024; i++) file[0x200 + i] = i % 253;
  if (pvhEntry !== undefined) {
    program(1, 4, 0x140, 0, 20, 20);
    [4, 4, 18, 0x6e6558, pvhEntry].forEach((value, i) => view.setUint32(0x140 + i * 4, value, true));
  }
  if (options.multiboot) {
    [0x1badb002, 3, -(0x1badb002 + 3)].forEach((value, i) => view.setInt32(0x200 + i * 4, value, true));
  }
  options.change?.(view);
  return file;
}
