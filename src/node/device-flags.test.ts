import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { MemoryDisk } from '../dev/virtio/memory-disk.ts';
import type { DiskPort } from '../dev/virtio/virtio-blk.ts';
import { deviceOptions, openDisks } from './device-flags.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-disk-'));
afterAll(() => rmSync(folder, { recursive: true }));

const SECTORS = 101;
const contents = (): Uint8Array => Uint8Array.from({ length: SECTORS * 512 }, (_, i) => i ^ (i >> 8));
let files = 0;
const file = (bytes: Uint8Array = contents()): string => {
  const path = join(folder, `disk${files++}`);
  writeFileSync(path, bytes);
  return path;
};
const hash = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');
const openDisk = (text: string): DiskPort => openDisks([text])[0];
const sector = (byte: number): Uint8Array => new Uint8Array(512).fill(byte);

describe('a disk in a file', () => {
  it('is the file', () => {
    const path = file();
    const disk = openDisk(path);
    expect(disk.sectors).toBe(SECTORS);
    expect(disk.write(512, sector(9)) && disk.flush()).toBe(true);
    expect(
      readFileSync(path)
        .subarray(500, 1030)
        .every((byte, i) => byte === 9 || i < 12 || i >= 524),
    ).toBe(true);
    const found = new Uint8Array(1024);
    expect(disk.read(512, found)).toBe(true);
    expect(found.subarray(0, 512)).toEqual(sector(9));
    expect(found.subarray(512)).toEqual(contents().subarray(1024, 1536));
  });

  it('can be read-only', () => {
    const path = file();
    const before = hash(path);
    const disk = openDisk(`${path},ro`);
    expect(disk.isReadonly).toBe(true);
    expect(disk.write(0, sector(1))).toBe(false);
    expect(hash(path)).toBe(before);
  });

  it.each(['snapshot', 'overlay'])('is not changed by a byte under a %s', (kind) => {
    const path = file();
    const before = hash(path);
    const disk = openDisk(kind === 'snapshot' ? `${path},snapshot` : `${path},overlay=${path}.over`);
    for (let i = 0; i < SECTORS; i += 3) expect(disk.write(i * 512, sector(i))).toBe(true);
    disk.flush();
    const found = new Uint8Array(512);
    expect(disk.read(99 * 512, found)).toBe(true);
    expect(found).toEqual(sector(99));
    expect(hash(path)).toBe(before);
  });
});

describe('an overlay', () => {
  it('behaves as a copy of the disk, also when it is opened again', () => {
    const steps = fc.array(fc.tuple(fc.nat(3), fc.nat(SECTORS - 1), fc.integer({ min: 1, max: 30 }), fc.nat(255)), {
      maxLength: 20,
    });
    fc.assert(
      fc.property(steps, (list) => {
        const path = file();
        const text = `${path},overlay=${path}.over`;
        const copy = new MemoryDisk(contents());
        let disk = openDisk(text);
        for (const [kind, first, count, byte] of list) {
          const bytes = Math.min(count, SECTORS - first) * 512;
          const found = new Uint8Array(bytes).fill(byte);
          const expected = found.slice();
          if (kind === 0) disk = openDisk(text);
          for (const [one, data] of [[copy, expected] as const, [disk, found] as const])
            expect(kind > 1 ? one.write(first * 512, data) : one.read(first * 512, data)).toBe(true);
          expect(Buffer.compare(found, expected)).toBe(0);
        }
      }),
      { numRuns: 20 },
    );
  });

  it('is a sparse file', () => {
    const path = file(new Uint8Array(64 * 2 ** 20));
    openDisk(`${path},overlay=${path}.over`).write(63 * 2 ** 20, sector(1));
    expect(statSync(`${path}.over`).size).toBeGreaterThan(63 * 2 ** 20);
    expect(statSync(`${path}.over`).blocks * 512).toBeLessThan(2 ** 20);
  });

  it('belongs to one base, as that was', () => {
    const path = file();
    const over = `${path}.over`;
    openDisk(`${path},overlay=${over}`).write(0, sector(1));
    expect(() => openDisk(`${file(new Uint8Array(512))},overlay=${over}`)).toThrow(/another base/);
    utimesSync(path, 1, 1);
    expect(() => openDisk(`${path},overlay=${over}`)).toThrow(/another base, or its base has changed/);
    expect(() => openDisk(`${path},overlay=${file()}`)).toThrow(/not an overlay$/);
  });
});

describe('an overlay that is not whole', () => {
  const written = (): { flag: string; over: string } => {
    const path = file();
    const over = `${path}.over`;
    openDisk(`${path},overlay=${over}`).write(80 * 512, sector(1));
    return { flag: `${path},overlay=${over}`, over };
  };

  it.each([100, 4096, 8000, 8192, 8192 + 10 * 4096])('is refused: %s bytes of it', (bytes) => {
    const { flag, over } = written();
    expect(() => openDisk(flag)).not.toThrow();
    truncateSync(over, bytes);
    expect(() => openDisk(flag)).toThrow(/cut short/);
  });

  it('is refused if it has more than its base', () => {
    const { flag, over } = written();
    const bytes = readFileSync(over);
    bytes[4096 + 2] = 1;
    writeFileSync(over, bytes);
    expect(() => openDisk(flag)).toThrow(/damaged/);
  });

  it('is not there before the guest writes', () => {
    const path = file();
    const disk = openDisk(`${path},overlay=${path}.over`);
    disk.read(0, sector(0));
    disk.flush();
    expect(existsSync(`${path}.over`)).toBe(false);
    expect(disk.write(512, sector(7))).toBe(true);
    const found = sector(0);
    expect(openDisk(`${path},overlay=${path}.over`).read(512, found)).toBe(true);
    expect(found).toEqual(sector(7));
  });
});

describe('two disks', () => {
  it.each([
    ['DISK', 'DISK'],
    ['DISK', 'DISK,ro'],
    ['DISK,snapshot', 'LINK'],
    ['DISK,overlay=DISK.o', 'DISK,overlay=DISK.o'],
    ['DISK,ro', 'OTHER,overlay=LINK'],
    ['DISK,overlay=DISK', 'OTHER'],
  ])('can not share a file that one writes to: %s and %s', (first, second) => {
    const path = file();
    const other = file();
    symlinkSync(path, `${path}.link`);
    const flags = [first, second].map((text) =>
      text.replaceAll('DISK', path).replaceAll('LINK', `${path}.link`).replaceAll('OTHER', other),
    );
    expect(() => openDisks(flags)).toThrow(/and one of them writes to it/);
    expect(existsSync(`${path}.o`)).toBe(false);
  });

  it('can read the same', () => {
    const path = file();
    const flags = [`${path},ro`, `${path},snapshot`, `${path},overlay=${path}.1`, `${path},overlay=${path}.2`];
    expect(openDisks(flags)).toHaveLength(4);
  });
});

describe('bad flags', () => {
  it.each([
    ['none', /^--disk none: ENOENT/],
    [',ro', /no file/],
    ['DISK,overlay=nowhere/x', /ENOENT/],
    ['DISK,ro,ro', /one of/],
    ['DISK,overlay=a,overlay=b', /one of/],
    ['/dev/null', /a plain file/],
    ['EMPTY', /0 bytes are not a number/],
    ['ODD', /1000 bytes are not a number of 512-byte sectors/],
    ['DISK,rw', /'rw' is not overlay=FILE, snapshot or ro/],
    ['DISK,overlay=', /'overlay=' is not/],
    ['DISK,snapshot,ro', /one of overlay=FILE, snapshot and ro/],
  ])('are told: --disk %s', (text, message) => {
    const odd = file();
    truncateSync(odd, 1000);
    const path = text
      .replace('DISK', file())
      .replace('EMPTY', file(new Uint8Array(0)))
      .replace('ODD', odd);
    expect(() => openDisk(path)).toThrow(message);
  });

  it.skipIf(process.platform === 'win32')('are told: a pipe that nobody writes to', () => {
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    expect(() => openDisk(`${pipe},ro`)).toThrow(/a disk must be a plain file/);
  });

  it('are told: too many devices', () => {
    const path = file();
    const disk = Array.from({ length: 31 }, () => `${path},ro`);
    expect(deviceOptions({ disk, console: 'serial' }).disks).toHaveLength(31);
    expect(() => deviceOptions({ disk, balloon: true, console: 'serial' })).toThrow(/32 devices, and room for 31/);
  });

  it('are told: --rng', () => {
    expect(() => deviceOptions({ rng: '-1', console: 'serial' })).toThrow(/a seed below 2\^32/);
    expect(deviceOptions({ rng: true, console: 'serial' }).rngSeed).toBe(1);
    expect(deviceOptions({ rng: '4294967295', console: 'virtio' })).toMatchObject({
      rngSeed: 4294967295,
      virtioConsole: true,
    });
  });
});
