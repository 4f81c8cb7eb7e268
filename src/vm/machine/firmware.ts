/**
 * All the firmware there is: what a boot processor finds at its reset vector. It does as the PC/AT's did. The shutdown byte of CMOS memory
 * says why the processor was reset, and is cleared; a program that has reset it only to go on elsewhere gets it back at the far pointer
 * in its data area. Otherwise the kernel is asked for, from whoever has loaded it (`Pc.onBoot`).
 *
 *     gpa    467  far pointer    ff100  the code    ffff0  jump to it    fffffff0  the reset vector, which is ffff0 once more
 *
 * The last 64 KiB below 4 GiB are the last below 1 MiB, read-only: a memslot on the same host memory.
 */
import { FLAT_HVA } from '../../mem/flat-host.ts';
import { MEM_READONLY } from '../../mem/memslots.ts';
import { LOADER_PORT } from '../../dev/reset-ports.ts';
import type { Vm } from '../vm.ts';

const SHADOW_GPA = 0xf0000;
const ROM_GPA = 0xffff0000;
const ROM_BYTES = 0x10000;
const ROM_SLOT = 1;
const CODE_GPA = 0xff100;
const RESET_VECTOR_GPA = 0xffff0;

const le16 = (value: number): number[] => [value & 0xff, value >> 8];

const CODE = [
  [0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd8], // cli; cld; xor ax, ax; mov ds, ax
  [0xb0, 0x8f, 0xe6, 0x70, 0xe4, 0x71, 0x88, 0xc4], // mov al, 8f; out 70, al; in al, 71; mov ah, al
  [0x30, 0xc0, 0xe6, 0x71], // xor al, al; out 71, al
  [0x80, 0xfc, 0x0a, 0x74, 0x09], // cmp ah, 0a; je resume
  [0x80, 0xfc, 0x05, 0x75, 0x08], // cmp ah, 05; jne boot
  [0xb0, 0x20, 0xe6, 0x20], // mov al, 20; out 20, al
  [0xff, 0x2e, ...le16(0x467)], // resume: jmp far [467]
  [0xba, ...le16(LOADER_PORT), 0xee], // boot: mov dx, LOADER_PORT; out dx, al
  [0xf4, 0xeb, 0xfd], // hlt; jmp to it
].flat();

/** jmp far f000:f100 */
const JUMP = [0xea, ...le16(CODE_GPA - SHADOW_GPA), ...le16(SHADOW_GPA >> 4)];

export function writeFirmware(write: (gpa: number, bytes: Uint8Array) => void): void {
  write(CODE_GPA, Uint8Array.from(CODE));
  write(RESET_VECTOR_GPA, Uint8Array.from(JUMP));
}

/** Again after a reset, as chipsets switch the memory there: all that KVM has mapped goes. */
export function mapRom(vm: Vm): void {
  const region = { slot: ROM_SLOT, flags: MEM_READONLY, guestPhysAddr: ROM_GPA, userspaceAddr: FLAT_HVA + SHADOW_GPA };
  if (vm.mmu.slots[0].byId(ROM_SLOT) !== null) vm.setUserMemoryRegion({ ...region, memorySize: 0 });
  vm.setUserMemoryRegion({ ...region, memorySize: ROM_BYTES });
}
