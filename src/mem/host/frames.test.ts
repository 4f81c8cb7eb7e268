/** Host frames: which numbers are handed out, how long they live, and what they hold. */
import { beforeEach, describe, expect, it } from 'vitest';
import { Frames, HUGE_ZERO_PFN, MAX_FRAMES, ZERO_PFN } from './frames.ts';

let frames: Frames;
beforeEach(() => {
  frames = new Frames();
});

describe('numbers', () => {
  it('are aligned to the folio, apart, and never 0 or a zero page', () => {
    const small = Array.from({ length: 1200 }, () => frames.allocSmall());
    const folios = Array.from({ length: 4 }, () => frames.allocFolio());
    const gigas = [frames.allocGiga(), frames.allocGiga()];
    expect(folios.map((pfn) => pfn % 512)).toEqual([0, 0, 0, 0]);
    expect(gigas.map((pfn) => pfn % 2 ** 18)).toEqual([0, 0]);
    expect(Math.max(...gigas)).toBeLessThan(MAX_FRAMES);
    const inFolio = (pfn: number): boolean => folios.some((head) => pfn >= head && pfn < head + 512);
    expect(small.filter((pfn) => pfn <= ZERO_PFN || pfn < HUGE_ZERO_PFN + 512 || inFolio(pfn))).toEqual([]);
    expect(new Set(small).size).toBe(small.length);
  });

  it('are used again, empty, only after the last reference went', () => {
    const pfn = frames.allocSmall();
    frames.write32(pfn, 8, 7);
    frames.get(pfn, 1);
    frames.put(pfn);
    expect(frames.allocSmall()).not.toBe(pfn);
    frames.put(pfn);
    expect(frames.allocSmall()).toBe(pfn);
    expect(frames.read32(pfn, 8)).toBe(0);
  });

  it('of a folio are free when as many references were put as its 512 parts had', () => {
    const head = frames.allocFolio();
    frames.get(head, 511);
    for (let i = 1; i < 512; i++) frames.put(head + i);
    expect([frames.isCounted(head + 5), frames.refs(head + 9)]).toEqual([true, 1]);
    frames.put(head);
    expect(frames.isCounted(head)).toBe(false);
    expect(frames.allocFolio()).toBe(head);
  });

  it('run out with an error', () => {
    expect(() => {
      for (;;) frames.allocGiga();
    }).toThrow('exhausted');
  });
});

describe('contents', () => {
  it.each([
    ['small', () => frames.allocSmall()],
    ['folio', () => frames.allocFolio() + 77],
    ['giga', () => frames.allocGiga() + 200_000],
  ])('%s: bytes and words are little-endian', (_kind, alloc) => {
    const pfn = alloc();
    frames.write32(pfn, 4092, 0x81020304 | 0);
    expect([4092, 4093, 4094, 4095].map((at) => frames.read8(pfn, at))).toEqual([4, 3, 2, 0x81]);
    frames.write8(pfn, 4093, 0xff);
    expect(frames.read32(pfn, 4092)).toBe(0x8102ff04 | 0);
  });

  it('exist only where something other than zero was written', () => {
    const pfn = frames.allocFolio();
    frames.write32(pfn, 0, 0);
    frames.write8(pfn + 1, 5, 0);
    expect([frames.page(pfn), frames.page(pfn + 1)]).toEqual([null, null]);
  });

  it('cannot be written in a zero page or a free frame', () => {
    const pfn = frames.allocSmall();
    frames.put(pfn);
    expect(() => frames.write8(ZERO_PFN, 0, 1)).toThrow('INVARIANT zero');
    expect(() => frames.write32(HUGE_ZERO_PFN + 511, 0, 1)).toThrow('INVARIANT zero');
    expect(() => frames.write32(pfn, 0, 1)).toThrow('INVARIANT refs');
    expect(frames.read32(pfn, 0)).toBe(0);
  });
});
