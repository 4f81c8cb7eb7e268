import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  entriesForLevel,
  gfnToIndex,
  makeLpageInfo,
  MEM_LOG_DIRTY_PAGES,
  MEM_READONLY,
  MEMSLOT_INVALID,
  MemSlot,
  Memslots,
  setDirtyBit,
} from './memslots.ts';

const slotAt = (id: number, baseGfn: number, npages: number): MemSlot => new MemSlot(id, 0, baseGfn, npages, 0, 0);

describe('a slot', () => {
  it('contains the frames from its base on, and no more', () => {
    const slot = slotAt(1, 16, 4);
    expect([15, 16, 19, 20].map((gfn) => slot.contains(gfn))).toEqual([false, true, true, false]);
  });

  it('gives the host address of a frame', () => {
    expect(new MemSlot(1, 0, 16, 4, 0, 2 ** 46).hvaOf(18)).toBe(2 ** 46 + 8192);
  });

  // biome-ignore format: a table
  it.each([
    ['nothing',     0,                                     false, false, false],
    ['logging',     MEM_LOG_DIRTY_PAGES,                   true,  false, false],
    ['read-only',   MEM_READONLY,                          false, true,  false],
    ['both',        MEM_LOG_DIRTY_PAGES | MEM_READONLY,    true,  true,  false],
    ['going away',  MEMSLOT_INVALID | MEM_LOG_DIRTY_PAGES, true,  false, true],
  ])('tells its flags: %s', (_name, flags, logs, readonly, invalid) => {
    const slot = new MemSlot(1, 0, 0, 1, flags, 0);
    expect([slot.logsDirty, slot.isReadonly, slot.isInvalid]).toEqual([logs, readonly, invalid]);
  });
});

describe('a set of slots', () => {
  /** Disjoint slots, and gfns to look for. */
  const layout = fc.array(fc.tuple(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 1, max: 6 })), { maxLength: 8 });

  function build(gaps: readonly (readonly [number, number])[]): { set: Memslots; slots: MemSlot[]; end: number } {
    const set = new Memslots(0);
    const slots: MemSlot[] = [];
    let gfn = 0;
    for (const [gap, npages] of gaps) {
      slots.push(slotAt(slots.length, gfn + gap, npages));
      gfn += gap + npages;
    }
    // Entered out of order.
    for (const slot of slots.toSorted((a, b) => (a.id % 3) - (b.id % 3))) set.replace(null, slot);
    return { set, slots, end: gfn };
  }

  it('finds the slot of each frame, in whatever order one asks', () => {
    fc.assert(
      fc.property(layout, fc.array(fc.nat(100)), (gaps, questions) => {
        const { set, slots, end } = build(gaps);
        for (const gfn of [...Array(end + 2).keys(), ...questions])
          expect(set.find(gfn)).toBe(slots.find((slot) => slot.contains(gfn)) ?? null);
      }),
    );
  });

  it('keeps its slots by address', () => {
    fc.assert(
      fc.property(layout, (gaps) => {
        const { set, slots } = build(gaps);
        expect(set.slots).toEqual(slots);
      }),
    );
  });

  it('tells whether a range would overlap another slot', () => {
    fc.assert(
      fc.property(layout, fc.nat(60), fc.integer({ min: 1, max: 8 }), fc.nat(8), (gaps, base, npages, id) => {
        const { set, slots } = build(gaps);
        const frames = Array.from({ length: npages }, (_, i) => base + i);
        const taken = slots.some((slot) => slot.id !== id && frames.some((gfn) => slot.contains(gfn)));
        expect(set.overlaps(base, npages, id)).toBe(taken);
      }),
    );
  });

  it('finds slots by number', () => {
    const { set, slots } = build([
      [0, 1],
      [3, 2],
    ]);
    expect([set.byId(0), set.byId(1), set.byId(2)]).toEqual([slots[0], slots[1], null]);
  });

  it('forgets the slot it found last when that is replaced', () => {
    const set = new Memslots(0);
    const old = slotAt(1, 8, 8);
    set.replace(null, old);
    expect(set.find(9)).toBe(old);
    const moved = slotAt(1, 12, 8);
    set.replace(old, moved);
    expect([set.find(9), set.find(19)]).toEqual([null, moved]);
    set.replace(moved, null);
    expect(set.find(19)).toBeNull();
  });

  it('starts with the number of its address space as generation, so that two spaces never share one', () => {
    expect([new Memslots(0).generation, new Memslots(1).generation]).toEqual([0, 1]);
  });
});

describe('the tables of a slot', () => {
  it('have an entry for each aligned chunk that the slot touches', () => {
    // Shadow paging takes frames up to 2^40; those around 2^32 wrap in a word.
    const base = fc.oneof(
      fc.nat(2 ** 20),
      fc.maxSafeNat().map((n) => n % 2 ** 40),
      fc.nat(2 ** 19).map((n) => 2 ** 32 - n),
    );
    fc.assert(
      fc.property(base, fc.integer({ min: 1, max: 2 ** 20 }), fc.constantFrom(1, 2, 3), (base, n, level) => {
        const size = 512 ** (level - 1);
        const chunk = (gfn: number): number => Math.floor(gfn / size);
        expect(entriesForLevel(base, n, level)).toBe(chunk(base + n - 1) - chunk(base) + 1);
        expect(gfnToIndex(base + n - 1, base, level)).toBe(chunk(base + n - 1) - chunk(base));
      }),
    );
  });

  const M2 = 512;
  const G1 = 512 * 512;
  const HVA = 2 ** 46;
  // biome-ignore format: a table
  it.each([
    ['aligned at both ends',                   0,      4 * M2,      HVA,                  [0, 0, 0, 0],    [1]],
    ['a whole 1 GiB',                          G1,     G1,          HVA,                  null,            [0]],
    ['two and a half 1 GiB, half at the end',  G1,     2 * G1 + M2, HVA,                  null,            [0, 0, 1]],
    ['a start within a large page',            1,      2 * M2 - 1,  HVA + 4096,           [1, 0],          [1]],
    ['an end within a large page',             M2,     M2 + 1,      HVA + M2 * 4096,      [0, 1],          [1]],
    ['both in one large page: 1, not 2',       1,      2,           HVA + 4096,           [1],             [1]],
    ['host off by one page',                   0,      3 * M2,      HVA + 4096,           [1, 1, 1],       [1]],
    ['host off by 2 MiB: only 1 GiB suffers',  G1,     G1,          HVA + M2 * 4096,      null,            [1]],
  ])('forbid large pages: %s', (_name, base, npages, hva, large, huge) => {
    const [info2, info3] = makeLpageInfo(base, npages, hva);
    expect([...info3]).toEqual(huge);
    expect([...info2]).toEqual(large ?? [...info2].map(() => 0));
  });

  it('allow a large page exactly where guest and host frames are aligned alike and the slot holds all of it', () => {
    const offset = fc.constantFrom(0, 1, 511, 512, 513);
    fc.assert(
      fc.property(offset, fc.integer({ min: 1, max: 2100 }), offset, (base, npages, hostPage) => {
        const [info] = makeLpageInfo(base, npages, HVA + hostPage * 4096);
        const congruent = base % 512 === hostPage % 512;
        info.forEach((count, i) => {
          const first = (Math.floor(base / 512) + i) * 512;
          const whole = first >= base && first + 512 <= base + npages;
          expect(count).toBe(congruent && whole ? 0 : 1);
        });
      }),
    );
  });
});

describe('setDirtyBit', () => {
  it('sets one bit and keeps the others', () => {
    const bitmap = new Int32Array(4);
    for (const bit of [0, 31, 32, 127, 31]) setDirtyBit(bitmap, bit);
    expect([...bitmap]).toEqual([0x80000001 | 0, 1, 0, 1 << 31]);
  });
});
