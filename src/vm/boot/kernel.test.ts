import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BootError, type BootImage, isRam } from './boot-image.ts';
import { buildE820 } from './e820.ts';
import { loadKernel } from './kernel.ts';
import { buildBzImage, buildElf, type ElfOptions, MAP, sourceOf } from './testing/images.ts';

const bytesAt = (image: BootImage, gpa: number): DataView => {
  const write = image.writes.find((w) => w.gpa <= gpa && gpa < w.gpa + w.bytes.length);
  if (write === undefined) throw new Error(`nothing at 0x${gpa.toString(16)}`);
  const offset = gpa - write.gpa;
  return new DataView(write.bytes.buffer, write.bytes.byteOffset + offset, write.bytes.byteLength - offset);
};
const textAt = (image: BootImage, gpa: number): string => {
  const view = bytesAt(image, gpa);
  let text = '';
  for (let i = 0; view.getUint8(i) !== 0; i++) text += String.fromCharCode(view.getUint8(i));
  return text;
};

describe('an ELF kernel with a PVH entry', () => {
  it.each([true, false])('starts in 32-bit protected mode with the start info in EBX (64-bit file: %s)', (is64) => {
    const file = buildElf({ is64, pvhEntry: 0x100010 });
    const image = loadKernel(sourceOf(file, { initrd: new Uint8Array(100).fill(9) }));
    expect(image.kind).toBe('PVH');
    const { rip, rbx, cr0, cr4, efer, cs } = image.registers;
    expect([rip, rbx, cr0, cr4, efer, cs.flags]).toEqual([0x100010, 0x2000, 0x11, 0, 0, 0xc]);
    const info = bytesAt(image, 0x2000);
    expect([info.getUint32(0, true), info.getUint32(4, true), info.getUint32(12, true)]).toEqual([0x336ec578, 1, 1]);
    expect(textAt(image, info.getUint32(24, true))).toBe('console=ttyS0');
    expect(info.getUint32(32, true)).toBe(0xe0000);
    const module = bytesAt(image, info.getUint32(16, true));
    expect([module.getUint32(8, true), bytesAt(image, module.getUint32(0, true)).getUint8(99)]).toEqual([100, 9]);
    const map = bytesAt(image, info.getUint32(40, true));
    const entries = Array.from({ length: info.getUint32(48, true) }, (_, i) => ({
      gpa: Number(map.getBigUint64(i * 24, true)),
      bytes: Number(map.getBigUint64(i * 24 + 8, true)),
      type: map.getUint32(i * 24 + 16, true),
    }));
    expect(entries).toEqual(MAP);
  });

  // biome-ignore format: a table
  it.each<[string, ElfOptions, RegExp]>([
    ['no note',                       {},                                                                  /no note PHYS32_ENTRY/],
    ['an entry outside',              { pvhEntry: 0x5000 },                                                /entry point 0x5000 lies in no segment/],
    ['a segment outside of memory',   { pvhEntry: 0x100000, load: 0x10000000 },                            /no memory there for its 4096 bytes/],
    ['a segment over the firmware',   { pvhEntry: 0xe0000, load: 0xe0000 },                                /no memory there/],
    ['a segment over the zero page',  { pvhEntry: 0x2000, load: 0x2000 },                                  /overlaps itself/],
    ['more in the file than in memory', { pvhEntry: 0x100000, memoryBytes: 1000 },                         /1024 bytes in the file, 1000 in memory/],
    ['3 GiB of memory',               { pvhEntry: 0x100000, memoryBytes: 3 * 2 ** 30 },                    /no memory there for its 3221225472 bytes/],
    ['a segment beyond the file',     { pvhEntry: 0x100000, change: (v) => v.setUint32(52 + 4, 0x500, true) }, /header 0: ends at 0x900, the file at 0x600/],
    ['program headers beyond it',     { change: (v) => v.setUint32(28, 0x5f0, true) },                     /1 program headers at 0x5f0 lie beyond/],
    ['65,535 program headers',        { change: (v) => v.setUint16(44, 0xffff, true) },                    /65535 program headers/],
    ['tiny program headers',          { change: (v) => v.setUint16(42, 8, true) },                         /program headers of 8 bytes/],
    ['a note beyond its segment',     { pvhEntry: 0x100000, change: (v) => v.setUint32(0x144, 400, true) }, /ELF note at 0x140/],
    ['an entry of 3 bytes',           { pvhEntry: 0x100000, change: (v) => v.setUint32(0x144, 3, true) },  /3 bytes are no address/],
    ['another machine',               { change: (v) => v.setUint16(18, 40, true) },                        /machine 40 is not x86/],
    ['the other byte order',          { change: (v) => v.setUint8(5, 2) },                                 /not little-endian/],
    ['an unknown class',              { change: (v) => v.setUint8(4, 3) },                                 /class 3/],
    ['the type of an object file',    { change: (v) => v.setUint16(16, 1, true) },                         /type 1, no executable/],
    ['nothing to load',               { change: (v) => v.setUint32(52, 6, true) },                         /nothing to load/],
  ])('with %s is refused', (_, options, message) => {
    const source = sourceOf(buildElf(options));
    expect(() => loadKernel(source)).toThrow(BootError);
    expect(() => loadKernel(source)).toThrow(message);
  });
});

describe('a multiboot kernel', () => {
  it('starts in 32-bit protected mode with the magic in EAX and the information in EBX', () => {
    const image = loadKernel(sourceOf(buildElf({ multiboot: true, entry: 0x100020 }), { name: 'me', cmdline: 'a b' }));
    expect(image.kind).toBe('multiboot');
    const { rip, rax, rbx, cr0 } = image.registers;
    expect([rip, rax, rbx, cr0]).toEqual([0x100020, 0x2badb002, 0x30000, 0x11]);
    const info = bytesAt(image, 0x30000);
    expect([info.getUint32(0, true), info.getUint32(4, true), info.getUint32(8, true)]).toEqual([
      0x245,
      639,
      127 * 1024,
    ]);
    expect(textAt(image, info.getUint32(16, true))).toBe('me a b');
    expect(textAt(image, info.getUint32(64, true))).toBe('Penumbra');
  });

  it('finds the memory map, each entry with its size before it', () => {
    const image = loadKernel(sourceOf(buildElf({ multiboot: true })));
    const info = bytesAt(image, 0x30000);
    const [length, start] = [info.getUint32(44, true), info.getUint32(48, true)];
    const entries = [];
    for (let at = start; at < start + length; ) {
      const view = bytesAt(image, at);
      const [gpa, bytes] = [Number(view.getBigUint64(4, true)), Number(view.getBigUint64(12, true))];
      entries.push({ gpa, bytes, type: view.getUint32(20, true) });
      at += view.getUint32(0, true) + 4;
    }
    expect(entries).toEqual(MAP);
  });

  it('finds the initrd as its only module', () => {
    const image = loadKernel(sourceOf(buildElf({ multiboot: true }), { initrd: Uint8Array.of(1, 2, 3) }));
    const info = bytesAt(image, 0x30000);
    expect([info.getUint32(0, true) & 8, info.getUint32(20, true)]).toEqual([8, 1]);
    const module = bytesAt(image, info.getUint32(24, true));
    const [start, end] = [module.getUint32(0, true), module.getUint32(4, true)];
    expect([end - start, start % 4096, bytesAt(image, start).getUint8(2)]).toEqual([3, 0, 3]);
  });

  it('may say in its header where it is to be loaded', () => {
    const file = new Uint8Array(0x400);
    const view = new DataView(file.buffer);
    const words = [0x1badb002, 0x10000, -(0x1badb002 + 0x10000), 0x200100, 0x200000, 0x200300, 0x201000, 0x200120];
    words.forEach((word, i) => view.setInt32(0x140 + i * 4, word, true));
    file[0x40 + 0x2ff] = 0x77;
    const image = loadKernel(sourceOf(file));
    expect(image.registers.rip).toBe(0x200120);
    expect(bytesAt(image, 0x200000).getUint8(0x2ff)).toBe(0x77);
    view.setInt32(0x140 + 5 * 4, 0x200500, true);
    expect(() => loadKernel(sourceOf(file))).toThrow(/lie beyond the file/);
  });

  it('in a 64-bit ELF file is refused, as is one with unknown requests', () => {
    expect(() => loadKernel(sourceOf(buildElf({ multiboot: true, is64: true })))).toThrow(/a 64-bit file/);
    const asks = buildElf({
      multiboot: true,
      change: (view) => [9, -(0x1badb002 + 9)].forEach((word, i) => view.setInt32(0x204 + i * 4, word, true)),
    });
    expect(() => loadKernel(sourceOf(asks))).toThrow(/asks for what nobody knows: flags 0x9/);
  });
});

describe('any other file', () => {
  it('is refused', () => {
    expect(() => loadKernel(sourceOf(new Uint8Array(0)))).toThrow('an empty file');
    expect(() => loadKernel(sourceOf(new Uint8Array(10000).fill(0x90)))).toThrow('10000 bytes that are neither');
    expect(() => loadKernel(sourceOf(Uint8Array.of(0x7f, 0x45, 0x4c, 0x46)))).toThrow('cut off within the file header');
  });
});

describe('a damaged image', () => {
  const originals = [
    buildBzImage(),
    buildElf({ pvhEntry: 0x100000 }),
    buildElf({ is64: true, pvhEntry: 0x100000 }),
    buildElf({ multiboot: true }),
    readFileSync(new URL('../../../guests/tiny/tiny.elf', import.meta.url)),
  ];
  const damage = fc.record({
    which: fc.nat(originals.length - 1),
    // Mostly where the headers are.
    changes: fc.array(fc.tuple(fc.oneof(fc.nat(0x300), fc.nat(0x2000)), fc.nat(255)), { maxLength: 8 }),
    keep: fc.option(fc.nat(0x2600), { freq: 3 }),
  });

  it('is either loaded into memory that is there, or refused with a reason', () => {
    fc.assert(
      fc.property(damage, fc.nat(2), ({ which, changes, keep }, size) => {
        const file = Uint8Array.from(originals[which]);
        for (const [at, value] of changes) if (at < file.length) file[at] = value;
        const map = buildE820([2, 32, 4096][size] * 2 ** 20);
        try {
          const kernel = keep === null ? file : file.subarray(0, keep);
          const image = loadKernel(sourceOf(kernel, { map, initrd: new Uint8Array(10) }));
          for (const { gpa, bytes } of image.writes)
            expect(bytes.length === 0 || isRam(map, gpa, bytes.length)).toBe(true);
        } catch (error) {
          if (!(error instanceof BootError)) throw error;
        }
      }),
      { numRuns: 3000 },
    );
  });
});
