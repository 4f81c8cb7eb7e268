/**
 * The guest's memory map, in the form of the firmware call E820. RAM begins at 0; what doesn't fit below the hole for devices
 * (3 to 4 GiB) goes on at 4 GiB.
 */
export const E820_RAM = 1;
export const E820_RESERVED = 2;

export interface E820Entry {
  readonly gpa: number;
  readonly bytes: number;
  readonly type: number;
}

/** Where the extended BIOS data area would begin. */
export const LOW_RAM_END = 0x9fc00;
/** ACPI tables lie between here and 1 MiB: backed by memory, reserved. */
export const FIRMWARE_GPA = 0xe0000;
export const HIGH_RAM_GPA = 0x100000;
export const DEVICE_HOLE_GPA = 0xc0000000;
export const DEVICE_HOLE_END = 2 ** 32;

/** The map of a machine with this much RAM (at least 2 MiB, whole pages). All gpa that RAM backs: 0 up, but for the hole. */
export function buildE820(ramBytes: number): E820Entry[] {
  if (!Number.isInteger(ramBytes / 4096) || ramBytes < 0x200000) {
    throw new RangeError(`${ramBytes} bytes of RAM: at least 2 MiB, in whole pages`);
  }
  const below = Math.min(ramBytes, DEVICE_HOLE_GPA);
  const entries = [
    { gpa: 0, bytes: LOW_RAM_END, type: E820_RAM },
    { gpa: LOW_RAM_END, bytes: 0xa0000 - LOW_RAM_END, type: E820_RESERVED },
    { gpa: FIRMWARE_GPA, bytes: HIGH_RAM_GPA - FIRMWARE_GPA, type: E820_RESERVED },
    { gpa: HIGH_RAM_GPA, bytes: below - HIGH_RAM_GPA, type: E820_RAM },
  ];
  if (ramBytes > below) entries.push({ gpa: DEVICE_HOLE_END, bytes: ramBytes - below, type: E820_RAM });
  return entries;
}
