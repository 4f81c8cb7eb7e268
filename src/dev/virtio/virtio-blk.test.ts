import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryDisk, SnapshotDisk } from './memory-disk.ts';
import { BUFFERS_GPA, TestDriver } from './testing/driver.ts';
import { type DiskPort, VirtioBlk } from './virtio-blk.ts';

const SECTORS = 300;
const HEADER = BUFFERS_GPA;
const STATUS = BUFFERS_GPA + 16;
const DATA = BUFFERS_GPA + 0x1000;

const numbered = (): Uint8Array => Uint8Array.from({ length: SECTORS * 512 }, (_, i) => (i >> 9) ^ i);
const driverOf = (disk: DiskPort): TestDriver => {
  const driver = new TestDriver((host) => new VirtioBlk(host, disk, 'serial-1'));
  driver.start();
  return driver;
};

/** A request; the status byte. `lengths`: of the pieces of data. */
function request(driver: TestDriver, type: number, sector: number, lengths: number[], write: boolean): number {
  const { view } = driver.memory;
  view.setUint32(HEADER, type, true);
  view.setUint32(HEADER + 8, sector % 2 ** 32, true);
  view.setUint32(HEADER + 12, Math.floor(sector / 2 ** 32), true);
  view.setUint8(STATUS, 0xee);
  let at = DATA;
  const data = lengths.map((bytes) => ({ gpa: (at += bytes) - bytes, bytes, write }));
  expect(
    driver.request(0, [{ gpa: HEADER, bytes: 16 }, ...data, { gpa: STATUS, bytes: 1, write: true }]),
  ).toBeGreaterThan(0);
  return view.getUint8(STATUS);
}

describe('a virtio disk', () => {
  it('tells its size and its name', () => {
    const driver = driverOf(new MemoryDisk(numbered()));
    expect(driver.read(0x2000, 4)).toBe(SECTORS);
    expect(driver.read(0x2014, 4)).toBe(512);
    expect(request(driver, 8, 0, [20], true)).toBe(0);
    expect(Buffer.from(driver.memory.bytes.subarray(DATA, DATA + 20)).toString()).toBe('serial-1'.padEnd(20, '\0'));
  });

  it('reads and writes in pieces of any length', () => {
    const disk = new MemoryDisk(numbered());
    const driver = driverOf(disk);
    expect(request(driver, 0, 7, [1, 511, 300, 212 + 512], true)).toBe(0);
    expect(Buffer.compare(driver.memory.bytes.subarray(DATA, DATA + 1536), disk.bytes.subarray(3584, 5120))).toBe(0);
    driver.memory.bytes.fill(0x5a, DATA, DATA + 1024);
    expect(request(driver, 1, 100, [1000, 24], false)).toBe(0);
    expect(disk.bytes.subarray(51200, 52224).every((byte) => byte === 0x5a)).toBe(true);
    expect(disk.bytes[51199]).toBe(numbered()[51199]);
    expect(disk.bytes[52224]).toBe(numbered()[52224]);
    expect(request(driver, 4, 0, [], false)).toBe(0);
  });

  it('writes only memory that it was given, and says which pages', () => {
    const driver = driverOf(new MemoryDisk(numbered()));
    driver.memory.dirty.clear();
    expect(request(driver, 0, 0, [4096, 4096], true)).toBe(0);
    const pages = [...driver.memory.dirty].toSorted((a, b) => a - b);
    expect(pages).toEqual([driver.rings(0).used >> 12, STATUS >> 12, DATA >> 12, (DATA >> 12) + 1]);
  });

  it.each([
    ['behind its end', 0, SECTORS, 512],
    ['across its end', 0, SECTORS - 1, 1024],
    ['far behind its end', 0, 2 ** 63, 512],
    ['of half a sector', 0, 0, 100],
    ['to be written, behind its end', 1, SECTORS, 512],
  ])('refuses what is %s', (_what, type, sector, bytes) => {
    const disk = new MemoryDisk(numbered());
    const driver = driverOf(disk);
    expect(request(driver, type, sector, [bytes], type === 0)).toBe(1);
    expect(Buffer.compare(disk.bytes, numbered())).toBe(0);
  });

  it('knows no other requests', () => {
    expect(request(driverOf(new MemoryDisk(numbered())), 77, 0, [512], true)).toBe(2);
  });

  it('is not written if it is read-only', () => {
    const disk: DiskPort = { ...quiet(), isReadonly: true, write: () => expect.unreachable() };
    const driver = driverOf(disk);
    expect(driver.read(0x04, 4) & 32).toBe(32);
    expect(request(driver, 1, 0, [512], false)).toBe(1);
  });

  it('tells an error of the host', () => {
    const driver = driverOf({ ...quiet(), read: () => false, write: () => false, flush: () => false });
    expect(request(driver, 0, 0, [512], true)).toBe(1);
    expect(request(driver, 1, 0, [512], false)).toBe(1);
    expect(request(driver, 4, 0, [], false)).toBe(1);
  });

  it('survives requests without a header or a status', () => {
    const driver = driverOf(new MemoryDisk(numbered()));
    expect(driver.request(0, [{ gpa: HEADER, bytes: 16 }])).toBe(0);
    expect(
      driver.request(0, [
        { gpa: HEADER, bytes: 3 },
        { gpa: STATUS, bytes: 1, write: true },
      ]),
    ).toBe(1);
    expect(driver.memory.bytes[STATUS]).toBe(1);
  });
});

function quiet(): DiskPort {
  return { sectors: SECTORS, isReadonly: false, read: () => true, write: () => true, flush: () => true };
}

describe('a snapshot of a disk', () => {
  it('behaves as a copy of it, and leaves it alone', () => {
    const ranges = fc.tuple(fc.boolean(), fc.nat(SECTORS - 1), fc.integer({ min: 1, max: 40 }), fc.nat(255));
    fc.assert(
      fc.property(fc.array(ranges, { maxLength: 30 }), (steps) => {
        const base = new MemoryDisk(numbered());
        const copy = new MemoryDisk(numbered());
        const snapshot = new SnapshotDisk({ ...quiet(), isReadonly: true, read: (at, into) => base.read(at, into) });
        for (const [write, sector, count, byte] of steps) {
          const bytes = Math.min(count, SECTORS - sector) * 512;
          const found = new Uint8Array(bytes).fill(byte);
          const expected = found.slice();
          for (const [disk, data] of [[copy, expected] as const, [snapshot, found] as const])
            expect(write ? disk.write(sector * 512, data) : disk.read(sector * 512, data)).toBe(true);
          expect(Buffer.compare(found, expected)).toBe(0);
        }
        expect(Buffer.compare(base.bytes, numbered())).toBe(0);
      }),
      { numRuns: 50 },
    );
  });
});
