import { describe, expect, it } from 'vitest';
import { type BootImage, BootError } from './boot-image.ts';
import { loadBzImage } from './bzimage.ts';
import { buildE820 } from './e820.ts';
import { loadKernel } from './kernel.ts';
import { buildBzImage, MAP, sourceOf } from './testing/images.ts';

const at = (image: BootImage, gpa: number): DataView => {
  const write = image.writes.find((w) => w.gpa <= gpa && gpa < w.gpa + w.bytes.length);
  if (write === undefined) throw new Error(`nothing at 0x${gpa.toString(16)}`);
  const offset = gpa - write.gpa;
  return new DataView(write.bytes.buffer, write.bytes.byteOffset + offset, write.bytes.byteLength - offset);
};

describe('a bzImage', () => {
  it('is loaded where it prefers, and entered at startup_64 in long mode', () => {
    const image = loadKernel(sourceOf(buildBzImage()));
    expect(image.kind).toBe('bzImage');
    expect(Array.from({ length: 300 }, (_, i) => at(image, 0x1000000).getUint8(i))).toEqual(
      Array.from({ length: 300 }, (_, i) => i % 251),
    );
    const { rip, rsi, cr0, cr3, cr4, efer, cs } = image.registers;
    expect([rip, rsi, cr0 >>> 0, cr3, cr4, efer]).toEqual([0x1000200, 0x2000, 0x80000011, 0x9000, 0x20, 0x500]);
    expect([cs.selector, cs.flags]).toEqual([0x10, 0xa]);
  });

  it.each([
    ['says that it has no 64-bit entry', (v: DataView) => v.setUint16(0x236, 0, true)],
    ['is older than the 64-bit entry', (v: DataView) => v.setUint16(0x206, 0x20b, true)],
  ])('is entered at its start in protected mode without paging if it %s', (_, change) => {
    const image = loadKernel(sourceOf(buildBzImage(change)));
    const { rip, rsi, cr0, cr4, efer, rflags, cs, ds } = image.registers;
    expect([rip, rsi, cr0, cr4, efer, rflags]).toEqual([0x1000000, 0x2000, 0x11, 0, 0, 2]);
    expect([cs.selector, cs.flags, cs.limit, ds.selector, ds.flags]).toEqual([0x10, 0xc, 0xffffffff, 0x18, 0xc]);
    expect(image.writes.some((write) => write.gpa === 0x9000)).toBe(false);
  });

  it('finds its zero page filled in', () => {
    const image = loadKernel(sourceOf(buildBzImage(), { initrd: new Uint8Array(5000).fill(7) }));
    const page = at(image, 0x2000);
    expect([page.getUint32(0x202, true), page.getUint8(0x210)]).toEqual([0x53726448, 0xff]);
    expect(page.getUint32(0x070, true)).toBe(0xe0000);
    expect(
      String.fromCharCode(...Array.from({ length: 14 }, (_, i) => at(image, page.getUint32(0x228, true)).getUint8(i))),
    ).toBe('console=ttyS0\0');
    const initrd = page.getUint32(0x218, true);
    expect([initrd, page.getUint32(0x21c, true), at(image, initrd).getUint8(4999)]).toEqual([
      128 * 2 ** 20 - 8192,
      5000,
      7,
    ]);
    const entries = Array.from({ length: page.getUint8(0x1e8) }, (_, i) => ({
      gpa: Number(page.getBigUint64(0x2d0 + i * 20, true)),
      bytes: Number(page.getBigUint64(0x2d8 + i * 20, true)),
      type: page.getUint32(0x2e0 + i * 20, true),
    }));
    expect(entries).toEqual(MAP);
  });

  it('finds the low 4 GiB mapped to themselves', () => {
    const image = loadKernel(sourceOf(buildBzImage()));
    const entry = (gpa: number, i: number): bigint => at(image, gpa).getBigUint64(i * 8, true);
    for (const gpa of [0n, 0x1000000n, 0xfee00000n]) {
      const pdpt = entry(0x9000, 0);
      const pd = entry(Number(pdpt & ~0xfffn), Number(gpa >> 30n));
      const leaf = entry(Number(pd & ~0xfffn), Number((gpa >> 21n) & 511n));
      expect([leaf & ~0x1fffffn, leaf & 0xfffn]).toEqual([gpa & ~0x1fffffn, 0x83n]);
    }
  });

  it('finds descriptors that agree with its segment registers', () => {
    const image = loadKernel(sourceOf(buildBzImage()));
    const gdt = at(image, image.registers.gdtBase);
    expect(gdt.getBigUint64(0x10, true)).toBe(0x00af9b000000ffffn);
    expect(gdt.getBigUint64(0x18, true)).toBe(0x00cf93000000ffffn);
    expect(gdt.getBigUint64(0x20, true)).toBe(0x00008b0000000067n);
  });

  it('goes elsewhere if its place is no memory, when it can be moved', () => {
    const small = buildE820(8 * 2 ** 20);
    expect(loadBzImage(sourceOf(buildBzImage(), { map: small })).registers.rip).toBe(0x200200);
    const fixed = buildBzImage((view) => view.setUint8(0x234, 0));
    expect(() => loadBzImage(sourceOf(fixed, { map: small }))).toThrow(
      /no memory for the kernel: it needs 2097152 bytes/,
    );
  });

  it('keeps the initrd below the limit that the kernel names, and above the kernel', () => {
    const limited = buildBzImage((view) => view.setUint32(0x22c, 0x1ffffff, true));
    const initrd = new Uint8Array(4096);
    expect(loadBzImage(sourceOf(limited, { initrd })).writes.map((w) => w.gpa)).toContain(0x1fff000);
    const tooLow = buildBzImage((view) => view.setUint32(0x22c, 0x10fffff, true));
    expect(() => loadBzImage(sourceOf(tooLow, { initrd }))).toThrow(/initrd: no memory for its 4096 bytes/);
  });

  it('is told apart by its setup_sects of 0, which means 4', () => {
    const old = buildBzImage((view) => {
      view.setUint8(0x1f1, 0);
      view.setUint32(0x1f4, (8192 - 3 * 512) / 16, true);
    });
    expect(at(loadBzImage(sourceOf(old)), 0x1000000).getUint8(0)).toBe((3 * 512) % 251);
  });

  // biome-ignore format: a table
  it.each<[string, (view: DataView) => void, RegExp]>([
    ['no boot flag',                (v) => v.setUint16(0x1fe, 0),            /offset 0x1fe: no boot flag/],
    ['an old protocol',             (v) => v.setUint16(0x206, 0x209, true),  /offset 0x206: boot protocol 2.9/],
    ['a zImage',                    (v) => v.setUint8(0x211, 0),             /offset 0x211: a zImage/],
    ['a header that ends early',    (v) => v.setUint8(0x201, 0x10),          /offset 0x201: the setup header ends at 0x212/],
    ['a header that ends late',     (v) => v.setUint8(0x201, 0xff),          /offset 0x201: the setup header ends at 0x301/],
    ['more kernel than file',       (v) => v.setUint32(0x1f4, 514, true),    /says 8224 bytes of kernel, the file has 8192/],
    ['no kernel',                   (v) => v.setUint32(0x1f4, 0, true),      /says 0 bytes of kernel/],
    ['a size of 64 GiB',            (v) => v.setUint32(0x1f4, -1, true),     /says 68719476720 bytes of kernel/],
    ['an alignment of 3',           (v) => v.setUint32(0x230, 3, true),      /alignment of 0x3 is no power of two/],
    ['a need of 2 GiB',             (v) => v.setUint32(0x260, 2**31, true),  /no memory for the kernel/],
  ])('with %s is refused', (_, change, message) => {
    const image = buildBzImage(change);
    expect(() => loadBzImage(sourceOf(image))).toThrow(BootError);
    expect(() => loadBzImage(sourceOf(image))).toThrow(message);
  });

  it('that was cut off is refused, wherever that was', () => {
    const whole = buildBzImage();
    for (let bytes = 0; bytes < whole.length - 16; bytes += bytes < 1100 ? 1 : 97) {
      expect(() => loadKernel(sourceOf(whole.subarray(0, bytes))), `${bytes} bytes`).toThrow(BootError);
    }
  });

  it('takes a command line as long as it says, and no longer', () => {
    const image = buildBzImage();
    loadBzImage(sourceOf(image, { cmdline: 'x'.repeat(2047) }));
    expect(() => loadBzImage(sourceOf(image, { cmdline: 'x'.repeat(2048) }))).toThrow(
      '2048 bytes, the kernel takes 2047',
    );
    expect(() => loadBzImage(sourceOf(image, { cmdline: 'ü'.repeat(1024) }))).toThrow('2048 bytes');
    expect(() => loadBzImage(sourceOf(image, { cmdline: 'a\0b' }))).toThrow('zero byte');
  });

  it('that lies within a bigger buffer is read at its own place', () => {
    const image = buildBzImage();
    const buffer = new Uint8Array(image.length + 100);
    buffer.set(image, 77);
    const inside = loadBzImage(sourceOf(buffer.subarray(77, 77 + image.length)));
    expect(at(inside, 0x1000000).getUint8(5)).toBe(5);
  });
});
