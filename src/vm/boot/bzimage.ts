/**
 * Linux's bzImage by the 64-bit or 32-bit boot protocol: no firmware, no real mode. The protected-mode part goes to the kernel's
 * preferred address (or, if that is not RAM and it can be moved, elsewhere), the setup header is copied into the zero page and
 * completed, and the boot processor starts in 64-bit mode at startup_64, 0x200 after the start; or, if the kernel has no such
 * entry, in 32-bit protected mode without paging at the start itself. (Documentation/x86/boot.rst)
 */
import {
  BOOT_PARAMS_GPA,
  BootError,
  type BootImage,
  type BootSource,
  checkedImage,
  CMDLINE_GPA,
  cmdlineWrite,
  gdtWrite,
  hex,
  identityTables,
  isRam,
  longModeEntry,
  type MemoryWrite,
  placeInitrd,
  protectedModeEntry,
  setU64,
} from './boot-image.ts';
import { E820_RAM, HIGH_RAM_GPA } from './e820.ts';

// Offsets in the file and in the zero page alike.
const SETUP_SECTS = 0x1f1;
const SYSSIZE = 0x1f4;
const BOOT_FLAG = 0x1fe;
const HEADER_JUMP = 0x201;
const MAGIC = 0x202;
const VERSION = 0x206;
const TYPE_OF_LOADER = 0x210;
const LOADFLAGS = 0x211;
const CODE32_START = 0x214;
const RAMDISK_IMAGE = 0x218;
const RAMDISK_BYTES = 0x21c;
const CMD_LINE_PTR = 0x228;
const INITRD_ADDR_MAX = 0x22c;
const KERNEL_ALIGNMENT = 0x230;
const RELOCATABLE = 0x234;
const XLOADFLAGS = 0x236;
const CMDLINE_BYTES_MAX = 0x238;
const PREF_ADDRESS = 0x258;
const INIT_BYTES = 0x260;
const HEADER_END = 0x264;
// In the zero page only.
const ACPI_RSDP = 0x070;
const E820_COUNT = 0x1e8;
const E820_TABLE = 0x2d0;
const E820_MAX = 128;

const HDRS = 0x53726448;
/** 2.10 brought the preferred address and the room that unpacking needs. */
const VERSION_NEEDED = 0x020a;
/** 2.12 brought the 64-bit entry point. */
const VERSION_64BIT = 0x020c;
const LOADED_HIGH = 1;
const XLF_KERNEL_64 = 1;
const LOADER_UNDEFINED = 0xff;
const SECTOR = 512;
const STARTUP_64 = 0x200;

/** Whether this is a bzImage at all. */
export function isBzImage(file: Uint8Array): boolean {
  return file.length >= MAGIC + 4 && viewOf(file).getUint32(MAGIC, true) === HDRS;
}

export function loadBzImage(source: BootSource): BootImage {
  const file = source.kernel;
  const header = readHeader(file);
  const load = chooseAddress(source, header);
  const bytes = file.subarray(header.kernelAt, header.kernelEnd);
  const writes: MemoryWrite[] = [{ gpa: load, bytes, roomBytes: header.initBytes }];
  const zeroPage = new Uint8Array(4096);
  zeroPage.set(file.subarray(SETUP_SECTS, header.end), SETUP_SECTS);
  const view = viewOf(zeroPage);
  view.setUint8(TYPE_OF_LOADER, LOADER_UNDEFINED);
  view.setUint32(CODE32_START, load, true);
  view.setUint32(CMD_LINE_PTR, CMDLINE_GPA, true);
  setU64(view, ACPI_RSDP, source.rsdpGpa);
  writeE820(view, source);
  if (source.initrd !== undefined && source.initrd.length > 0) {
    const limit = header.initrdAddrMax + 1;
    const gpa = placeInitrd(source.map, source.initrd.length, load + header.initBytes, limit);
    view.setUint32(RAMDISK_IMAGE, gpa, true);
    view.setUint32(RAMDISK_BYTES, source.initrd.length, true);
    writes.push({ gpa, bytes: source.initrd });
  }
  const registers = header.is64Bit
    ? longModeEntry({ rip: load + STARTUP_64, rsi: BOOT_PARAMS_GPA })
    : protectedModeEntry({ rip: load, rsi: BOOT_PARAMS_GPA });
  if (header.is64Bit) writes.push(identityTables());
  writes.push(gdtWrite(registers), cmdlineWrite(source.cmdline, header.cmdlineBytes));
  writes.push({ gpa: BOOT_PARAMS_GPA, bytes: zeroPage });
  return checkedImage({ kind: 'bzImage', writes, registers }, source.map);
}

interface SetupHeader {
  /** End of the header in the file. */
  readonly end: number;
  readonly kernelAt: number;
  readonly kernelEnd: number;
  readonly prefAddress: number;
  readonly initBytes: number;
  readonly alignment: number;
  readonly isRelocatable: boolean;
  readonly initrdAddrMax: number;
  readonly cmdlineBytes: number;
  readonly is64Bit: boolean;
}

function readHeader(file: Uint8Array): SetupHeader {
  if (file.length < HEADER_END) throw new BootError('bzImage', `${file.length} bytes, cut off within the setup header`);
  const view = viewOf(file);
  if (view.getUint16(BOOT_FLAG, true) !== 0xaa55) throw new BootError('bzImage offset 0x1fe', 'no boot flag 0xaa55');
  if (!isBzImage(file)) throw new BootError('bzImage offset 0x202', 'no "HdrS"');
  const version = view.getUint16(VERSION, true);
  if (version < VERSION_NEEDED) {
    throw new BootError('bzImage offset 0x206', `boot protocol ${version >> 8}.${version & 255}, needed is 2.10`);
  }
  if (!(view.getUint8(LOADFLAGS) & LOADED_HIGH)) throw new BootError('bzImage offset 0x211', 'a zImage, loaded low');
  const end = MAGIC + view.getUint8(HEADER_JUMP);
  if (end < HEADER_END || end > E820_TABLE) {
    throw new BootError('bzImage offset 0x201', `the setup header ends at ${hex(end)}`);
  }
  const kernelAt = ((view.getUint8(SETUP_SECTS) || 4) + 1) * SECTOR;
  const kernelBytes = view.getUint32(SYSSIZE, true) * 16;
  const rest = file.length - kernelAt;
  // The last 16 bytes that syssize counts need not be whole.
  if (kernelBytes <= STARTUP_64 || rest <= kernelBytes - 16) {
    const has = Math.max(rest, 0);
    throw new BootError('bzImage offset 0x1f4', `says ${kernelBytes} bytes of kernel, the file has ${has}: cut off?`);
  }
  const initBytes = Math.max(view.getUint32(INIT_BYTES, true), kernelBytes);
  const prefAddress = view.getUint32(PREF_ADDRESS, true) + view.getUint32(PREF_ADDRESS + 4, true) * 2 ** 32;
  const alignment = view.getUint32(KERNEL_ALIGNMENT, true);
  if (alignment === 0 || (alignment & (alignment - 1)) !== 0) {
    throw new BootError('bzImage offset 0x230', `an alignment of ${hex(alignment)} is no power of two`);
  }
  return {
    end,
    kernelAt,
    kernelEnd: Math.min(kernelAt + kernelBytes, file.length),
    prefAddress,
    initBytes,
    alignment,
    isRelocatable: view.getUint8(RELOCATABLE) !== 0,
    initrdAddrMax: view.getUint32(INITRD_ADDR_MAX, true) || 0x37ffffff,
    cmdlineBytes: view.getUint32(CMDLINE_BYTES_MAX, true) || 255,
    is64Bit: version >= VERSION_64BIT && (view.getUint16(XLOADFLAGS, true) & XLF_KERNEL_64) !== 0,
  };
}

/** Where the kernel and the room it needs to unpack itself fit: its preference, else the lowest place that will do. */
function chooseAddress(source: BootSource, header: SetupHeader): number {
  const { prefAddress, initBytes, alignment } = header;
  if (prefAddress >= HIGH_RAM_GPA && prefAddress < 2 ** 32 && isRam(source.map, prefAddress, initBytes))
    return prefAddress;
  if (header.isRelocatable) {
    for (const entry of source.map) {
      if (entry.type !== E820_RAM || entry.gpa < HIGH_RAM_GPA) continue;
      const gpa = Math.ceil(entry.gpa / alignment) * alignment;
      if (gpa + initBytes <= Math.min(entry.gpa + entry.bytes, 2 ** 32)) return gpa;
    }
  }
  throw new BootError('bzImage', `no memory for the kernel: it needs ${initBytes} bytes at ${hex(prefAddress)}`);
}

function writeE820(view: DataView, source: BootSource): void {
  if (source.map.length > E820_MAX) throw new BootError('memory map', `more than ${E820_MAX} entries`);
  view.setUint8(E820_COUNT, source.map.length);
  for (const [i, { gpa, bytes, type }] of source.map.entries()) {
    const at = E820_TABLE + i * 20;
    setU64(view, at, gpa);
    setU64(view, at + 8, bytes);
    view.setUint32(at + 16, type, true);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
