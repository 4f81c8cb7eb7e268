/**
 * What a loader makes of an image: bytes to be written into guest memory (which is zero otherwise), and the registers that the boot
 * processor starts with. Loaders are pure functions; what is wrong with an image is a `BootError`.
 *
 * Low memory while booting, by gpa (the guest may use all of it later):
 *
 *   1000 GDT   2000 boot parameters (zero page, start info)   3000 their lists, and multiboot's   8000 top of the stack
 *   9000 page tables up to f000   20000 command line   30000 multiboot info   e0000 ACPI tables, reserved up to 1 MiB
 */
import { hex64, hiOfNumber, loOfNumber } from '../../base/u64.ts';
import { E820_RAM, type E820Entry } from './e820.ts';

export const GDT_GPA = 0x1000;
export const BOOT_PARAMS_GPA = 0x2000;
export const BOOT_LISTS_GPA = 0x3000;
export const BOOT_STACK_GPA = 0x8000;
export const PAGE_TABLES_GPA = 0x9000;
/** Above the first pages, which small kernels use as they like. */
export const MULTIBOOT_INFO_GPA = 0x30000;
export const CMDLINE_GPA = 0x20000;
/** Longest command line, its final zero included. */
export const CMDLINE_BYTES = 0x10000;

export const CR0_PE = 1 << 0;
export const CR0_ET = 1 << 4;
export const CR0_PG = 1 << 31;
export const CR4_PAE = 1 << 5;
export const EFER_LME = 1 << 8;
export const EFER_LMA = 1 << 10;

/** An image that can't be booted: `where` it is wrong (file offset or address), and what is wrong. */
export class BootError extends Error {
  readonly where: string;
  constructor(where: string, what: string) {
    super(`${where}: ${what}`);
    this.name = 'BootError';
    this.where = where;
  }
}

export interface MemoryWrite {
  readonly gpa: number;
  readonly bytes: Uint8Array;
  /** What it takes in memory, if that is more: zero after the bytes, and nothing else may lie there. */
  readonly roomBytes?: number;
}

/** A write's bytes and the room after them. */
export function roomOf({ bytes, roomBytes = 0 }: MemoryWrite): number {
  return Math.max(bytes.length, roomBytes);
}

/** A segment register with its hidden part. `access` is byte 5 of the descriptor, `flags` the upper half of byte 6: G, D, L, AVL. */
export interface BootSegment {
  readonly selector: number;
  readonly base: number;
  readonly limit: number;
  readonly access: number;
  readonly flags: number;
}

/** Registers at entry; all general registers that are not named are 0, and so are the IDT's base and limit and the LDT. */
export interface BootRegisters {
  readonly rip: number;
  readonly rsp: number;
  readonly rax: number;
  readonly rbx: number;
  readonly rsi: number;
  readonly rflags: number;
  readonly cr0: number;
  readonly cr3: number;
  readonly cr4: number;
  readonly efer: number;
  readonly cs: BootSegment;
  /** DS, ES, SS, FS and GS. */
  readonly ds: BootSegment;
  readonly tr: BootSegment;
  readonly gdtBase: number;
  readonly gdtLimit: number;
}

export interface BootImage {
  readonly kind: 'bzImage' | 'PVH' | 'multiboot';
  readonly writes: readonly MemoryWrite[];
  readonly registers: BootRegisters;
}

export interface BootSource {
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly cmdline: string;
  readonly map: readonly E820Entry[];
  /** Address of the ACPI root pointer, 0 if there is none. */
  readonly rsdpGpa: number;
  /** First word of a multiboot kernel's command line; 'kernel' if not given. */
  readonly name?: string;
}

const GDT_WORDS = 8;
const RFLAGS_FIXED = 2;
const CODE = 0x9b;
const DATA = 0x93;
const TSS_BUSY = 0x8b;

/** Linux's __BOOT_CS and __BOOT_DS, which fit the others as well. */
const CS_SELECTOR = 0x10;
const DS_SELECTOR = 0x18;
const TR_SELECTOR = 0x20;

const flat = (selector: number, access: number, flags: number): BootSegment => ({
  selector,
  base: 0,
  limit: 0xffffffff,
  access,
  flags,
});

interface EntryState {
  readonly rip: number;
  readonly rax?: number;
  readonly rbx?: number;
  readonly rsi?: number;
}

/** 64-bit mode on the identity map that `identityTables` makes. */
export function longModeEntry(state: EntryState): BootRegisters {
  return {
    ...commonEntry(state, 0xa),
    cr0: CR0_PE | CR0_ET | CR0_PG,
    cr3: PAGE_TABLES_GPA,
    cr4: CR4_PAE,
    efer: EFER_LME | EFER_LMA,
  };
}

/** 32-bit protected mode without paging. */
export function protectedModeEntry(state: EntryState): BootRegisters {
  return { ...commonEntry(state, 0xc), cr0: CR0_PE | CR0_ET, cr3: 0, cr4: 0, efer: 0 };
}

function commonEntry({ rip, rax = 0, rbx = 0, rsi = 0 }: EntryState, codeFlags: number) {
  return {
    rip,
    rsp: BOOT_STACK_GPA,
    rax,
    rbx,
    rsi,
    rflags: RFLAGS_FIXED,
    cs: flat(CS_SELECTOR, CODE, codeFlags),
    ds: flat(DS_SELECTOR, DATA, 0xc),
    tr: { selector: TR_SELECTOR, base: 0, limit: 0x67, access: TSS_BUSY, flags: 0 },
    gdtBase: GDT_GPA,
    gdtLimit: GDT_WORDS * 8 - 1,
  };
}

/** The descriptors that `registers` have in their hidden parts. */
export function gdtWrite(registers: BootRegisters): MemoryWrite {
  const bytes = new Uint8Array(GDT_WORDS * 8);
  const view = new DataView(bytes.buffer);
  for (const { selector, base, limit, access, flags } of [registers.cs, registers.ds, registers.tr]) {
    const shown = flags & 8 ? Math.floor(limit / 4096) : limit;
    view.setInt32(selector, (shown & 0xffff) | (base << 16), true);
    const high = ((base >> 16) & 0xff) | (access << 8) | (shown & 0xf0000) | (flags << 20) | (base & (0xff << 24));
    view.setInt32(selector + 4, high, true);
  }
  return { gpa: GDT_GPA, bytes };
}

/** Tables that map the low 4 GiB to themselves by 2 MiB pages: one level-4 page, one of level 3, four of level 2. */
export function identityTables(): MemoryWrite {
  const bytes = new Uint8Array(6 * 4096);
  const view = new DataView(bytes.buffer);
  const presentWritable = 3;
  const large = 0x80;
  view.setInt32(0, (PAGE_TABLES_GPA + 0x1000) | presentWritable, true);
  for (let i = 0; i < 4; i++)
    view.setInt32(0x1000 + i * 8, (PAGE_TABLES_GPA + 0x2000 + i * 0x1000) | presentWritable, true);
  for (let i = 0; i < 2048; i++) view.setInt32(0x2000 + i * 8, (i << 21) | presentWritable | large, true);
  return { gpa: PAGE_TABLES_GPA, bytes };
}

/** The command line as zero-terminated UTF-8. `maxBytes`: what the kernel takes, without the zero. */
export function cmdlineWrite(cmdline: string, maxBytes: number): MemoryWrite {
  const text = utf8(cmdline);
  if (text.includes(0)) throw new BootError('command line', 'has a zero byte in it');
  const most = Math.min(maxBytes, CMDLINE_BYTES - 1);
  if (text.length > most) throw new BootError('command line', `${text.length} bytes, the kernel takes ${most}`);
  const bytes = new Uint8Array(text.length + 1);
  bytes.set(text);
  return { gpa: CMDLINE_GPA, bytes };
}

/** As high as possible below `limit` in RAM under 4 GiB, at a page's start, and not below `floor`. */
export function placeInitrd(map: readonly E820Entry[], bytes: number, floor: number, limit: number): number {
  let best = -1;
  for (const entry of map) {
    if (entry.type !== E820_RAM) continue;
    const end = Math.min(entry.gpa + entry.bytes, limit, 2 ** 32);
    const gpa = end - bytes - ((end - bytes) % 4096);
    if (gpa >= Math.max(entry.gpa, floor) && gpa > best) best = gpa;
  }
  if (best < 0) {
    throw new BootError('initrd', `no memory for its ${bytes} bytes between ${hex(floor)} and ${hex(limit)}`);
  }
  return best;
}

/** Whether an area is RAM from end to end. */
export function isRam(map: readonly E820Entry[], gpa: number, bytes: number): boolean {
  return map.some((e) => e.type === E820_RAM && gpa >= e.gpa && gpa + bytes <= e.gpa + e.bytes);
}

/** The image, if all that it takes lies in RAM and nothing is taken twice. */
export function checkedImage(image: BootImage, map: readonly E820Entry[]): BootImage {
  const sorted = image.writes.filter((w) => roomOf(w) > 0).toSorted((a, b) => a.gpa - b.gpa);
  for (const [i, write] of sorted.entries()) {
    const room = roomOf(write);
    if (!isRam(map, write.gpa, room)) {
      throw new BootError(`gpa ${hex(write.gpa)}`, `no memory there for ${room} bytes of the image`);
    }
    const next = sorted[i + 1];
    if (next !== undefined && next.gpa < write.gpa + room) {
      throw new BootError(`gpa ${hex(next.gpa)}`, `the image overlaps itself, or what the loader keeps there`);
    }
  }
  return image;
}

/** `0x...` of a number below 2^53. */
export function hex(value: number): string {
  return hex64(loOfNumber(value), hiOfNumber(value));
}

/** Stores a number below 2^53 as 8 bytes. */
export function setU64(view: DataView, at: number, value: number): void {
  view.setInt32(at, loOfNumber(value), true);
  view.setInt32(at + 4, hiOfNumber(value), true);
}

/** These rooms know no TextEncoder. */
export function utf8(text: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of text) {
    const c = character.codePointAt(0) as number;
    if (c < 0x80) bytes.push(c);
    else if (c < 0x800) bytes.push(0xc0 | (c >> 6), 0x80 | (c & 63));
    else if (c < 0x10000) bytes.push(0xe0 | (c >> 12), 0x80 | ((c >> 6) & 63), 0x80 | (c & 63));
    else bytes.push(0xf0 | (c >> 18), 0x80 | ((c >> 12) & 63), 0x80 | ((c >> 6) & 63), 0x80 | (c & 63));
  }
  return Uint8Array.from(bytes);
}
