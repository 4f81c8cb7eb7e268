/**
 * Multiboot 1: a header of three words in the first 8 KiB of the file, which is ELF32 or says in the header where it is to be
 * loaded. Entered in 32-bit protected mode without paging, EAX the loader's magic, EBX at the information structure.
 */
import {
  BOOT_LISTS_GPA,
  MULTIBOOT_INFO_GPA,
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
  utf8,
} from './boot-image.ts';
import { E820_RAM, HIGH_RAM_GPA, LOW_RAM_END } from './e820.ts';
import { isElf, parseElf } from './elf.ts';
import { checkEntry, segmentWrites } from './pvh.ts';

const HEADER_MAGIC = 0x1badb002;
const LOADER_MAGIC = 0x2badb002;
const SEARCH_BYTES = 8192;
/** Requests of the header's flags: modules at pages, memory information, a video mode; and the addresses that follow. */
const WANTS_KNOWN = 0x7;
const WANTS_MASK = 0xffff;
const HAS_ADDRESSES = 1 << 16;

const INFO_BYTES = 116;
const INFO_MEMORY = 1 << 0;
const INFO_CMDLINE = 1 << 2;
const INFO_MODULES = 1 << 3;
const INFO_MAP = 1 << 6;
const INFO_LOADER_NAME = 1 << 9;
const MODULE_BYTES = 16;
const MAP_ENTRY_BYTES = 24;
const LOADER_NAME = 'Penumbra';

/** File offset of the header, or -1. */
export function findMultibootHeader(file: Uint8Array): number {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  for (let at = 0; at + 12 <= Math.min(file.length, SEARCH_BYTES); at += 4) {
    if (view.getUint32(at, true) !== HEADER_MAGIC) continue;
    const sum = HEADER_MAGIC + view.getUint32(at + 4, true) + view.getUint32(at + 8, true);
    if ((sum | 0) === 0) return at;
  }
  return -1;
}

export function loadMultiboot(source: BootSource): BootImage {
  const at = findMultibootHeader(source.kernel);
  if (at < 0) throw new BootError('multiboot', 'no header in the first 8 KiB');
  const view = new DataView(source.kernel.buffer, source.kernel.byteOffset, source.kernel.byteLength);
  const flags = view.getUint32(at + 4, true);
  if (flags & WANTS_MASK & ~WANTS_KNOWN) {
    throw new BootError(`multiboot header at ${hex(at)}`, `asks for what nobody knows: flags ${hex(flags)}`);
  }
  const { writes, entry, end } = flags & HAS_ADDRESSES ? loadByHeader(source, at, view) : loadByElf(source);
  const name = source.name ?? 'kernel';
  // The first word is the program's own name, as with other loaders.
  writes.push(cmdlineWrite(source.cmdline === '' ? name : `${name} ${source.cmdline}`, CMDLINE_BYTES));
  writes.push(...infoWrites(source, end));
  const registers = protectedModeEntry({ rip: entry, rax: LOADER_MAGIC, rbx: MULTIBOOT_INFO_GPA });
  writes.push(gdtWrite(registers));
  return checkedImage({ kind: 'multiboot', writes, registers }, source.map);
}

interface Loaded {
  readonly writes: MemoryWrite[];
  readonly entry: number;
  readonly end: number;
}

function loadByElf(source: BootSource): Loaded {
  if (!isElf(source.kernel)) throw new BootError('multiboot', 'neither ELF nor load addresses in the header');
  const elf = parseElf(source.kernel);
  if (elf.is64) throw new BootError('ELF offset 4', 'a 64-bit file, multiboot takes 32 bits (objcopy -O elf32-i386)');
  return { writes: segmentWrites(elf, source), entry: elf.entry, end: checkEntry(elf, elf.entry) };
}

/** "The a.out kludge": header address, load address, end of data, end of bss, entry. */
function loadByHeader(source: BootSource, at: number, view: DataView): Loaded {
  const where = `multiboot header at ${hex(at)}`;
  if (at + 32 > view.byteLength) throw new BootError(where, 'the file ends within the load addresses');
  const word = (i: number): number => view.getUint32(at + 12 + i * 4, true);
  const [headerGpa, load, dataEnd, bssEnd, entry] = [word(0), word(1), word(2), word(3), word(4)];
  const fileAt = at - (headerGpa - load);
  const bytes = dataEnd === 0 ? view.byteLength - fileAt : dataEnd - load;
  if (fileAt < 0 || bytes <= 0 || fileAt + bytes > view.byteLength) {
    throw new BootError(where, `load addresses ${hex(load)} to ${hex(dataEnd)} lie beyond the file: cut off?`);
  }
  const end = Math.max(bssEnd, load + bytes);
  if (!isRam(source.map, load, end - load)) throw new BootError(where, `no memory from ${hex(load)} to ${hex(end)}`);
  if (entry < load || entry >= load + bytes) throw new BootError(where, `the entry point ${hex(entry)} is not loaded`);
  return {
    writes: [{ gpa: load, bytes: source.kernel.subarray(fileAt, fileAt + bytes), roomBytes: end - load }],
    entry,
    end,
  };
}

function infoWrites(source: BootSource, kernelEnd: number): MemoryWrite[] {
  const info = new Uint8Array(INFO_BYTES);
  const view = new DataView(info.buffer);
  const name = utf8(LOADER_NAME);
  const nameAt = MODULE_BYTES;
  const mapAt = nameAt + 16;
  const lists = new Uint8Array(mapAt + source.map.length * MAP_ENTRY_BYTES);
  const listView = new DataView(lists.buffer);
  lists.set(name, nameAt);
  let flags = INFO_MEMORY | INFO_CMDLINE | INFO_MAP | INFO_LOADER_NAME;
  const high = source.map.find((e) => e.type === E820_RAM && e.gpa === HIGH_RAM_GPA);
  view.setUint32(4, LOW_RAM_END >> 10, true);
  view.setUint32(8, Math.floor((high?.bytes ?? 0) / 1024), true);
  view.setUint32(16, CMDLINE_GPA, true);
  const writes: MemoryWrite[] = [];
  if (source.initrd !== undefined && source.initrd.length > 0) {
    const gpa = placeInitrd(source.map, source.initrd.length, kernelEnd, 2 ** 32);
    flags |= INFO_MODULES;
    view.setUint32(20, 1, true);
    view.setUint32(24, BOOT_LISTS_GPA, true);
    listView.setUint32(0, gpa, true);
    listView.setUint32(4, gpa + source.initrd.length, true);
    listView.setUint32(8, CMDLINE_GPA, true);
    writes.push({ gpa, bytes: source.initrd });
  }
  view.setUint32(44, source.map.length * MAP_ENTRY_BYTES, true);
  view.setUint32(48, BOOT_LISTS_GPA + mapAt, true);
  for (const [i, { gpa, bytes, type }] of source.map.entries()) {
    const at = mapAt + i * MAP_ENTRY_BYTES;
    listView.setUint32(at, MAP_ENTRY_BYTES - 4, true);
    setU64(listView, at + 4, gpa);
    setU64(listView, at + 12, bytes);
    listView.setUint32(at + 20, type, true);
  }
  view.setUint32(64, BOOT_LISTS_GPA + nameAt, true);
  view.setUint32(0, flags, true);
  writes.push({ gpa: MULTIBOOT_INFO_GPA, bytes: info }, { gpa: BOOT_LISTS_GPA, bytes: lists });
  return writes;
}
