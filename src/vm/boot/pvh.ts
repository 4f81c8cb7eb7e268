/**
 * An ELF kernel by PVH, Xen's way to start a guest without firmware: the note PHYS32_ENTRY names a physical address that is entered
 * in 32-bit protected mode, with EBX at the start info. (Linux's vmlinux with CONFIG_PVH, FreeBSD, unikernels.)
 */
import {
  BOOT_LISTS_GPA,
  BOOT_PARAMS_GPA,
  BootError,
  type BootImage,
  type BootSource,
  checkedImage,
  CMDLINE_BYTES,
  CMDLINE_GPA,
  cmdlineWrite,
  gdtWrite,
  hex,
  isRam,
  type MemoryWrite,
  placeInitrd,
  protectedModeEntry,
  setU64,
} from './boot-image.ts';
import { type ElfFile, parseElf } from './elf.ts';

const NOTE_NAME = 'Xen';
const NOTE_PHYS32_ENTRY = 18;
const START_MAGIC = 0x336ec578;
const START_INFO_BYTES = 56;
const MODULE_BYTES = 32;
const MEMMAP_ENTRY_BYTES = 24;

/** The entry point for PVH, or -1 if the file has none. */
export function pvhEntry(elf: ElfFile): number {
  const note = elf.notes.find((n) => n.name === NOTE_NAME && n.type === NOTE_PHYS32_ENTRY);
  if (note === undefined) return -1;
  if (note.bytes.length !== 4 && note.bytes.length !== 8) {
    throw new BootError('ELF note PHYS32_ENTRY', `${note.bytes.length} bytes are no address`);
  }
  return new DataView(note.bytes.buffer, note.bytes.byteOffset).getUint32(0, true);
}

export function loadPvh(source: BootSource): BootImage {
  const elf = parseElf(source.kernel);
  const entry = pvhEntry(elf);
  if (entry < 0) throw new BootError('ELF', 'no note PHYS32_ENTRY (PVH), and no multiboot header');
  const writes = segmentWrites(elf, source);
  const end = checkEntry(elf, entry);
  const info = new Uint8Array(START_INFO_BYTES);
  const view = new DataView(info.buffer);
  view.setUint32(0, START_MAGIC, true);
  view.setUint32(4, 1, true); // version: with a memory map
  setU64(view, 24, CMDLINE_GPA);
  setU64(view, 32, source.rsdpGpa);
  const lists = new Uint8Array(MODULE_BYTES + source.map.length * MEMMAP_ENTRY_BYTES);
  const listView = new DataView(lists.buffer);
  if (source.initrd !== undefined && source.initrd.length > 0) {
    const gpa = placeInitrd(source.map, source.initrd.length, end, 2 ** 32);
    view.setUint32(12, 1, true);
    setU64(view, 16, BOOT_LISTS_GPA);
    setU64(listView, 0, gpa);
    setU64(listView, 8, source.initrd.length);
    writes.push({ gpa, bytes: source.initrd });
  }
  setU64(view, 40, BOOT_LISTS_GPA + MODULE_BYTES);
  view.setUint32(48, source.map.length, true);
  for (const [i, entry] of source.map.entries()) {
    const at = MODULE_BYTES + i * MEMMAP_ENTRY_BYTES;
    setU64(listView, at, entry.gpa);
    setU64(listView, at + 8, entry.bytes);
    listView.setUint32(at + 16, entry.type, true);
  }
  const registers = protectedModeEntry({ rip: entry, rbx: BOOT_PARAMS_GPA });
  writes.push(gdtWrite(registers), cmdlineWrite(source.cmdline, CMDLINE_BYTES), { gpa: BOOT_PARAMS_GPA, bytes: info });
  writes.push({ gpa: BOOT_LISTS_GPA, bytes: lists });
  return checkedImage({ kind: 'PVH', writes, registers }, source.map);
}

/** The segments as writes, once each is known to lie in RAM with all its memory. */
export function segmentWrites(elf: ElfFile, source: BootSource): MemoryWrite[] {
  return elf.segments.map(({ gpa, bytes, memoryBytes }) => {
    if (gpa + memoryBytes > 2 ** 32 || !isRam(source.map, gpa, memoryBytes)) {
      throw new BootError(`ELF segment at ${hex(gpa)}`, `no memory there for its ${memoryBytes} bytes`);
    }
    return { gpa, bytes, roomBytes: memoryBytes };
  });
}

/** Refuses an entry point outside of the segments; returns where the last segment ends. */
export function checkEntry(elf: ElfFile, entry: number): number {
  if (!elf.segments.some((s) => entry >= s.gpa && entry < s.gpa + s.memoryBytes)) {
    throw new BootError('ELF', `the entry point ${hex(entry)} lies in no segment`);
  }
  return Math.max(...elf.segments.map((s) => s.gpa + s.memoryBytes));
}
