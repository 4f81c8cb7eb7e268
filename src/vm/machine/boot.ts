/** Puts a kernel into a PC's memory and the CPU at its entry, as firmware and boot loader would have left them. */
import { resetMmuContext } from '../../mmu/roots.ts';
import { CR0, CR4, EFER } from '../../cpu/state.ts';
import { buildAcpiTables } from '../boot/acpi-tables.ts';
import { type BootImage, roomOf } from '../boot/boot-image.ts';
import { buildE820 } from '../boot/e820.ts';
import { loadKernel } from '../boot/kernel.ts';
import { leaveFirmware } from './multiboot-firmware.ts';
import type { Pc } from './pc.ts';
import { loadRegisters } from './registers.ts';

export interface BootFiles {
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly cmdline: string;
  /** First word of a multiboot kernel's command line. */
  readonly name?: string;
}

/** Throws a BootError for an image that is broken or has no room. Memory and CPU may have been used before. */
export function bootPc(pc: Pc, files: BootFiles): BootImage {
  const map = buildE820(pc.ramBytes);
  const acpi = buildAcpiTables(pc.cpus.length);
  const image = loadKernel({ ...files, map, rsdpGpa: acpi.rsdpGpa });
  if (image.kind === 'multiboot') leaveFirmware((gpa, bytes) => pc.write(gpa, bytes), pc.board.ports);
  for (const write of [acpi.write, ...image.writes]) pc.write(write.gpa, write.bytes, roomOf(write));
  const { cpu, unit, vm } = pc;
  loadRegisters(cpu, image.registers);
  const { state } = cpu;
  Object.assign(unit.regs, {
    cr0: state.get(CR0),
    cr3Lo: image.registers.cr3,
    cr3Hi: 0,
    cr4: state.get(CR4),
    efer: state.get(EFER),
  });
  resetMmuContext(vm.mmu, unit.vcpu);
  return image;
}
