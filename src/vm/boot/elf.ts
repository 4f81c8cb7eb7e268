/**
 * ELF executables for x86, 32 and 64 bits, as far as a boot loader reads them: the loadable segments, by physical address, and the
 * notes. Every offset and size in the file is held against the file before it is used.
 */
import { BootError, hex } from './boot-image.ts';

export interface ElfSegment {
  readonly gpa: number;
  readonly bytes: Uint8Array;
  /** Size in memory; what `bytes` doesn't fill is zero. */
  readonly memoryBytes: number;
}

export interface ElfNote {
  readonly name: string;
  readonly type: number;
  readonly bytes: Uint8Array;
}

export interface ElfFile {
  readonly is64: boolean;
  readonly entry: number;
  readonly segments: readonly ElfSegment[];
  readonly notes: readonly ElfNote[];
}

const MACHINE_386 = 3;
const MACHINE_X86_64 = 62;
const TYPE_EXECUTABLE = 2;
const TYPE_SHARED = 3;
const PT_LOAD = 1;
const PT_NOTE = 4;
const MAX_PROGRAM_HEADERS = 256;

export function isElf(file: Uint8Array): boolean {
  return file.length >= 4 && file[0] === 0x7f && file[1] === 0x45 && file[2] === 0x4c && file[3] === 0x46;
}

export function parseElf(file: Uint8Array): ElfFile {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (!isElf(file) || file.length < 52)
    throw new BootError('ELF', `${file.length} bytes, cut off within the file header`);
  const is64 = file[4] === 2;
  if (file[4] !== 1 && !is64) throw new BootError('ELF offset 4', `class ${file[4]} is neither 32 nor 64 bits`);
  if (file[5] !== 1) throw new BootError('ELF offset 5', 'not little-endian');
  if (is64 && file.length < 64) throw new BootError('ELF', `${file.length} bytes, cut off within the file header`);
  const type = view.getUint16(16, true);
  if (type !== TYPE_EXECUTABLE && type !== TYPE_SHARED)
    throw new BootError('ELF offset 0x10', `type ${type}, no executable`);
  const machine = view.getUint16(18, true);
  if (machine !== MACHINE_386 && machine !== MACHINE_X86_64) {
    throw new BootError('ELF offset 0x12', `machine ${machine} is not x86`);
  }
  const entry = is64 ? u64(view, 24) : view.getUint32(24, true);
  const at = is64 ? u64(view, 32) : view.getUint32(28, true);
  const entryBytes = view.getUint16(is64 ? 54 : 42, true);
  const count = view.getUint16(is64 ? 56 : 44, true);
  if (entryBytes < (is64 ? 56 : 32)) throw new BootError('ELF file header', `program headers of ${entryBytes} bytes`);
  if (count === 0 || count > MAX_PROGRAM_HEADERS) throw new BootError('ELF file header', `${count} program headers`);
  if (at + count * entryBytes > file.length) {
    throw new BootError(
      'ELF file header',
      `${count} program headers at ${hex(at)} lie beyond the file's ${file.length} bytes`,
    );
  }
  const segments: ElfSegment[] = [];
  const notes: ElfNote[] = [];
  for (let i = 0; i < count; i++) {
    const header = readProgramHeader(view, at + i * entryBytes, is64, i);
    const bytes = file.subarray(header.offset, header.offset + header.fileBytes);
    if (header.type === PT_LOAD && header.memoryBytes > 0) {
      segments.push({ gpa: header.gpa, bytes, memoryBytes: header.memoryBytes });
    } else if (header.type === PT_NOTE) {
      notes.push(...readNotes(bytes, header.offset, header.align));
    }
  }
  if (segments.length === 0) throw new BootError('ELF', 'nothing to load');
  return { is64, entry, segments, notes };
}

function readProgramHeader(view: DataView, at: number, is64: boolean, index: number) {
  const word = (at32: number, at64: number): number => (is64 ? u64(view, at + at64) : view.getUint32(at + at32, true));
  const type = view.getUint32(at, true);
  const offset = word(4, 8);
  const gpa = word(12, 24);
  const fileBytes = word(16, 32);
  const memoryBytes = word(20, 40);
  const align = word(28, 48);
  if (type !== PT_LOAD && type !== PT_NOTE) return { type, offset: 0, gpa, fileBytes: 0, memoryBytes, align };
  if (offset + fileBytes > view.byteLength) {
    const end = hex(offset + fileBytes);
    throw new BootError(`ELF program header ${index}`, `ends at ${end}, the file at ${hex(view.byteLength)}: cut off?`);
  }
  if (type === PT_LOAD && fileBytes > memoryBytes) {
    throw new BootError(`ELF program header ${index}`, `${fileBytes} bytes in the file, ${memoryBytes} in memory`);
  }
  return { type, offset, gpa, fileBytes, memoryBytes, align };
}

function readNotes(bytes: Uint8Array, offset: number, align: number): ElfNote[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const unit = align === 8 ? 8 : 4;
  const pad = (n: number): number => Math.ceil(n / unit) * unit;
  const notes: ElfNote[] = [];
  let at = 0;
  while (at + 12 <= bytes.length) {
    const nameBytes = view.getUint32(at, true);
    const bodyBytes = view.getUint32(at + 4, true);
    const bodyAt = pad(at + 12 + nameBytes);
    if (bodyAt + bodyBytes > bytes.length) {
      throw new BootError(
        `ELF note at ${hex(offset + at)}`,
        `${nameBytes} and ${bodyBytes} bytes lie beyond its segment`,
      );
    }
    const name = String.fromCharCode(...bytes.subarray(at + 12, at + 12 + Math.min(nameBytes, 32)));
    notes.push({
      name: name.replace(/\0+$/, ''),
      type: view.getUint32(at + 8, true),
      bytes: bytes.subarray(bodyAt, bodyAt + bodyBytes),
    });
    at = pad(bodyAt + bodyBytes);
  }
  return notes;
}

/** A 64-bit field; one of 2^53 and more is inexact, and beyond any file or memory. */
function u64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}
