import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildAcpiTables } from './acpi-tables.ts';
import { device, eisaId, integer, name, nameString, packageOf, scope, string } from './aml.ts';
import { buildE820, FIRMWARE_GPA, HIGH_RAM_GPA } from './e820.ts';

const sum = (bytes: Uint8Array): number => bytes.reduce((a, b) => (a + b) & 0xff, 0);
const hasIasl = spawnSync('iasl', ['-v']).status === 0;

describe('the ACPI tables', () => {
  const acpi = buildAcpiTables(2);
  const memory = new DataView(acpi.write.bytes.buffer);
  const signature = (gpa: number): string =>
    String.fromCharCode(...acpi.write.bytes.subarray(gpa - FIRMWARE_GPA, gpa - FIRMWARE_GPA + 4));
  const u32 = (gpa: number): number => memory.getUint32(gpa - FIRMWARE_GPA, true);

  it('lie where the memory map has a reserved area, however many CPUs there are', () => {
    for (const cpus of [1, 2, 255]) {
      const { write } = buildAcpiTables(cpus);
      expect(write.gpa).toBe(FIRMWARE_GPA);
      expect(write.gpa + write.bytes.length).toBeLessThan(HIGH_RAM_GPA);
    }
  });

  it('are found from the root pointer', () => {
    expect(String.fromCharCode(...acpi.write.bytes.subarray(0, 8))).toBe('RSD PTR ');
    const xsdt = u32(acpi.rsdpGpa + 24);
    expect(signature(xsdt)).toBe('XSDT');
    const fadt = u32(xsdt + 36);
    expect([signature(fadt), signature(u32(xsdt + 44))]).toEqual(['FACP', 'APIC']);
    expect([signature(u32(fadt + 36)), signature(u32(fadt + 40)), u32(fadt + 140)]).toEqual([
      'FACS',
      'DSDT',
      u32(fadt + 40),
    ]);
    expect(u32(fadt + 36) % 64).toBe(0);
  });

  it('have sums of 0', () => {
    for (const [name, bytes] of acpi.tables) expect(sum(bytes), name).toBe(0);
    expect([sum(acpi.write.bytes.subarray(0, 20)), sum(acpi.write.bytes.subarray(0, 36))]).toEqual([0, 0]);
  });
});

describe.skipIf(!hasIasl)('the tables, as iasl (acpica-tools) reads them', () => {
  let folder: string;
  let read: (table: string) => string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'penumbra-acpi-'));
    for (const [name, bytes] of buildAcpiTables(2).tables) writeFileSync(join(folder, `${name}.dat`), bytes);
    read = (table) => {
      const { status, stdout, stderr } = spawnSync('iasl', ['-d', `${table}.dat`], { cwd: folder, encoding: 'utf8' });
      const complaint = /.*(error|warning).*/i.exec(`${stdout}${stderr}`);
      if (status !== 0 || complaint !== null) throw new Error(`${table}: ${complaint?.[0]}`);
      return readFileSync(join(folder, `${table}.dsl`), 'utf8');
    };
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('name the power-off state, the processors and the legacy devices, and compile again to the same bytes', () => {
    const dsl = read('DSDT');
    for (const part of [
      'Name (_S5, Package (0x04)',
      '"ACPI0007"',
      'Device (C001)',
      'EisaId ("PNP0501")',
      'EisaId ("PNP0B00")',
    ]) {
      expect(dsl).toContain(part);
    }
    expect(dsl).toMatch(/0x03F8,\s+\/\/ Range Minimum/);
    const compiled = spawnSync('iasl', ['-p', 'again', 'DSDT.dsl'], { cwd: folder, encoding: 'utf8' });
    expect(compiled.stdout).toMatch(/ 0 Errors/);
    // The header names the compiler; the code after it is the same.
    const again = readFileSync(join(folder, 'again.aml')).subarray(36);
    expect(again.equals(readFileSync(join(folder, 'DSDT.dat')).subarray(36))).toBe(true);
  });

  it('describe the fixed hardware', () => {
    const dsl = read('FACP');
    for (const part of [
      'PM1A Event Block Address : 00000600',
      'PM1A Control Block Address : 00000604',
      'PM Timer Block Address : 00000608',
      '8042 Present on ports 60/64 (V2) : 0',
      'Reset Register Supported (V2) : 1',
      'Value to cause reset : 06',
      'RTC Century Index : 32',
      'Hardware Reduced (V5) : 0',
    ]) {
      expect(dsl).toContain(part);
    }
  });

  it('describe the interrupt controllers', () => {
    const dsl = read('APIC');
    expect(dsl.match(/\[Processor Local APIC\]/g)).toHaveLength(2);
    expect(dsl).toMatch(/I\/O Apic ID : 02[^]*Address : FEC00000/);
    expect(dsl).toMatch(/Source : 00[^]*Interrupt : 00000002[^]*Source : 09[^]*Interrupt : 00000009/);
  });

  it('have the sums that it computes', () => {
    expect(read('XSDT')).toContain('[Extended System Description Table]');
  });
});

describe('a piece of AML', () => {
  it('has names of four letters, with prefixes for paths', () => {
    expect(String.fromCharCode(...nameString('_HID'))).toBe('_HID');
    expect(nameString('\\A')).toEqual([0x5c, 0x41, 0x5f, 0x5f, 0x5f]);
    expect(nameString('A.B').slice(0, 1)).toEqual([0x2e]);
    expect(nameString('A.B.C').slice(0, 2)).toEqual([0x2f, 3]);
  });

  it('has integers in the shortest form', () => {
    expect([0, 1, 2, 255, 256, 65536].map((value) => integer(value).length)).toEqual([1, 1, 2, 2, 3, 5]);
    expect(integer(0xfedcba98)).toEqual([0x0c, 0x98, 0xba, 0xdc, 0xfe]);
  });

  it('counts its length with the length itself', () => {
    const body = (bytes: number): number[] => Array.from({ length: bytes }, () => 0);
    expect(packageOf(body(10)).slice(0, 2)).toEqual([0x12, 12]);
    expect(scope('ABCD', body(100)).slice(0, 3)).toEqual([0x10, 0x40 | (106 & 15), 106 >> 4]);
    expect(device('ABCD', body(5000)).slice(0, 5)).toEqual([
      0x5b,
      0x82,
      0x80 | (5007 & 15),
      (5007 >> 4) & 255,
      5007 >> 12,
    ]);
    for (const bytes of [61, 62, 63, 4092, 4093, 4094]) {
      const aml = packageOf(body(bytes));
      const more = aml[1] >> 6;
      let length = more === 0 ? aml[1] : aml[1] & 15;
      for (let i = 0; i < more; i++) length |= aml[2 + i] << (4 + 8 * i);
      expect(length).toBe(aml.length - 1);
    }
  });

  it('compresses plug and play numbers', () => {
    expect(eisaId('PNP0501')).toEqual([0x0c, 0x41, 0xd0, 0x05, 0x01]);
    expect(name('_HID', string('A'))).toEqual([8, ...nameString('_HID'), 0x0d, 0x41, 0]);
  });
});

describe('the memory map', () => {
  it('leaves a hole for devices below 4 GiB', () => {
    const map = buildE820(5 * 2 ** 30);
    expect(map.slice(-2)).toEqual([
      { gpa: 0x100000, bytes: 0xc0000000 - 0x100000, type: 1 },
      { gpa: 2 ** 32, bytes: 2 * 2 ** 30, type: 1 },
    ]);
    expect(buildE820(2 ** 30)).toHaveLength(4);
  });

  it('refuses an amount of RAM that no machine has', () => {
    for (const bytes of [0, 2 ** 20, 2 ** 30 + 1, Number.NaN]) expect(() => buildE820(bytes)).toThrow(RangeError);
  });
});
