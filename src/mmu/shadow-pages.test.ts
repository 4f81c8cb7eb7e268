import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TABLE_PFN_BASE, TableArena } from '../mem/table-arena.ts';
import { ROLE_ACCESS, ROLE_DIRECT } from './role.ts';
import { childOf, hashBucket, indexOf, ShadowPages, spOf, sptepAt, tablePfn } from './shadow-pages.ts';
import { nonleafLo, pfnHi } from './spte.ts';
import { X86_64_FORMAT } from './spte-format.ts';

const DIRECT_1 = ROLE_ACCESS | ROLE_DIRECT | 1;
const INDIRECT_1 = ROLE_ACCESS | 1;

function build(tables = 64): { arena: TableArena; pages: ShadowPages; add: (gfn: number, role?: number) => number } {
  const arena = new TableArena(tables);
  const pages = new ShadowPages(arena);
  const add = (gfn: number, role = DIRECT_1): number => {
    const sp = arena.alloc();
    pages.add(sp, gfn, role, 0);
    return sp;
  };
  return { arena, pages, add };
}

/** Pages from the oldest to the newest, checked in both directions. */
function listOf(pages: ShadowPages): number[] {
  const up: number[] = [];
  for (let sp = pages.oldest; sp !== 0; sp = pages.newerOf(sp)) up.push(sp);
  const down: number[] = [];
  for (let sp = pages.newest; sp !== 0; sp = pages.olderOf(sp)) down.push(sp);
  expect(down).toEqual(up.toReversed());
  return up;
}

function bucketOf(pages: ShadowPages, gfn: number): number[] {
  const found: number[] = [];
  for (let sp = pages.bucketFirst(gfn); sp !== 0; sp = pages.bucketNext(sp)) found.push(sp);
  return found;
}

describe('hashBucket', () => {
  const expected = (gfn: number): number => Number(BigInt.asUintN(64, BigInt(gfn) * 0x61c8864680b583ebn) >> 52n);

  it('is hash_64 of the gfn to 12 bits', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), (gfn) => {
        expect(hashBucket(gfn)).toBe(expected(gfn));
      }),
      { numRuns: 2000 },
    );
  });

  it('is so at each power of two and around it', () => {
    for (let bit = 0; bit < 32; bit++)
      for (const gfn of [2 ** bit - 1, 2 ** bit, 2 ** bit + 1]) expect(hashBucket(gfn), `${gfn}`).toBe(expected(gfn));
  });

  it('is so for the first 2^16 frames', () => {
    const wrong = Array.from({ length: 2 ** 16 }, (_, gfn) => gfn).filter((gfn) => hashBucket(gfn) !== expected(gfn));
    expect(wrong).toEqual([]);
  });
});

describe('the list of pages', () => {
  it('and the hash hold what a plain model holds: newest last, newest first in each bucket', () => {
    // Three gfns that share a bucket, and one that does not.
    const crowd = [...Array(100_000).keys()].filter((gfn) => hashBucket(gfn) === hashBucket(5)).slice(0, 3);
    const gfns = [...crowd, 6];
    const step = fc.tuple(fc.constantFrom('add', 'add', 'unlist', 'remove'), fc.nat(50));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const { arena, pages, add } = build(4);
        let list: number[] = [];
        let hashed: { sp: number; gfn: number }[] = [];
        for (const [what, number] of steps) {
          if (what === 'add') {
            const gfn = gfns[number % gfns.length];
            const sp = add(gfn);
            list.push(sp);
            hashed.unshift({ sp, gfn });
          } else if (hashed.length > 0) {
            const { sp } = hashed[number % hashed.length];
            list = list.filter((other) => other !== sp);
            if (what === 'unlist') pages.unlist(sp);
            else {
              pages.remove(sp);
              arena.free(sp);
              hashed = hashed.filter((page) => page.sp !== sp);
            }
          }
          expect(listOf(pages)).toEqual(list);
          for (const gfn of gfns) {
            const bucket = hashed.filter((page) => hashBucket(page.gfn) === hashBucket(gfn)).map(({ sp }) => sp);
            expect(bucketOf(pages, gfn)).toEqual(bucket);
          }
          for (const { sp } of hashed) expect(pages.isListed(sp)).toBe(list.includes(sp));
        }
      }),
    );
  });

  it('may lose a page twice', () => {
    const { pages, add } = build();
    const [a, b] = [add(1), add(2)];
    pages.unlist(a);
    pages.unlist(a);
    expect(listOf(pages)).toEqual([b]);
  });
});

describe('a page', () => {
  it('starts clean, whatever its table was before', () => {
    const { arena, pages, add } = build();
    const sp = add(9, INDIRECT_1);
    pages.rootCount[sp] = 1;
    pages.unsync[sp] = 1;
    pages.unsyncChildren[sp] = 3;
    pages.setUnsyncBit(sp, 500);
    pages.writeFlooding[sp] = 2;
    pages.lpageDisallowed[sp] = 1;
    pages.parents[sp] = 77;
    pages.setTranslation(sp, 4, 1234, 7);
    pages.remove(sp);
    arena.free(sp);
    expect(add(10, INDIRECT_1)).toBe(sp);
    const { rootCount, unsync, unsyncChildren, writeFlooding, lpageDisallowed, parents } = pages;
    for (const field of [rootCount, unsync, unsyncChildren, writeFlooding, lpageDisallowed, parents])
      expect(field[sp]).toBe(0);
    expect(pages.nextUnsyncBit(sp, 0)).toBe(-1);
    expect([pages.entryGfn(sp, 4), pages.entryAccess(sp, 4)]).toEqual([0, 0]);
  });

  it('keeps all its fields while the arena grows', () => {
    const { arena, pages, add } = build(2);
    const sp = add(9, INDIRECT_1);
    pages.rootCount[sp] = 1;
    pages.unsync[sp] = 1;
    pages.unsyncChildren[sp] = 3;
    pages.setUnsyncBit(sp, 500);
    pages.writeFlooding[sp] = 2;
    pages.lpageDisallowed[sp] = 1;
    pages.parents[sp] = 77;
    pages.setTranslation(sp, 4, 1234, 5);
    for (let gfn = 100; gfn < 200; gfn++) add(gfn, INDIRECT_1);
    expect(arena.capacity).toBe(128);
    const { rootCount, unsync, unsyncChildren, writeFlooding, lpageDisallowed, parents, role, gfn } = pages;
    const fields = [rootCount, unsync, unsyncChildren, writeFlooding, lpageDisallowed, parents, role, gfn];
    expect(fields.map((field) => field[sp])).toEqual([1, 1, 3, 2, 1, 77, INDIRECT_1, 9]);
    expect([pages.nextUnsyncBit(sp, 0), pages.entryGfn(sp, 4), pages.entryAccess(sp, 4)]).toEqual([500, 1234, 5]);
    expect(listOf(pages)).toHaveLength(101);
  });
});

describe('the bitmap of unsync children', () => {
  it('holds what a set holds', () => {
    const step = fc.tuple(fc.boolean(), fc.oneof(fc.nat(511), fc.constantFrom(0, 31, 32, 511)));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const { pages, add } = build();
        const [before, sp, after] = [add(1), add(2), add(3)];
        const model = new Set<number>();
        for (const [set, index] of steps) {
          const wasSet = model.has(index);
          const changed = set ? pages.setUnsyncBit(sp, index) : pages.clearUnsyncBit(sp, index);
          expect(changed).toBe(set ? !wasSet : undefined);
          if (set) model.add(index);
          else model.delete(index);
        }
        const found: number[] = [];
        for (let i = pages.nextUnsyncBit(sp, 0); i >= 0; i = pages.nextUnsyncBit(sp, i + 1)) found.push(i);
        expect(found).toEqual([...model].sort((a, b) => a - b));
        expect([pages.nextUnsyncBit(before, 0), pages.nextUnsyncBit(after, 0)]).toEqual([-1, -1]);
      }),
    );
  });
});

describe('what an entry maps', () => {
  it('is told by its place in a direct page', () => {
    const { pages, add } = build();
    const sp = add(0x4000, ROLE_DIRECT | (5 << 8) | 2);
    expect([pages.entryGfn(sp, 3), pages.entryAccess(sp, 3), pages.level(sp)]).toEqual([0x4000 + 3 * 512, 5, 2]);
    pages.setTranslation(sp, 3, 1, 7);
    pages.setEntryAccess(sp, 3, 7);
    expect([pages.entryGfn(sp, 3), pages.entryAccess(sp, 3)]).toEqual([0x4000 + 3 * 512, 5]);
  });

  it('is kept for each entry of a page that mirrors a guest table', () => {
    const entry = fc.tuple(fc.nat(511), fc.nat(2 ** 29 - 1), fc.nat(7), fc.nat(7));
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 30 }), (entries) => {
        const { pages, add } = build();
        const [sp, other] = [add(1, INDIRECT_1), add(2, INDIRECT_1)];
        const model = new Map<number, [number, number]>();
        for (const [index, gfn, access, later] of entries) {
          pages.setTranslation(sp, index, gfn, access);
          expect([pages.entryGfn(sp, index), pages.entryAccess(sp, index)]).toEqual([gfn, access]);
          pages.setEntryAccess(sp, index, later);
          model.set(index, [gfn, later]);
        }
        for (const [index, want] of model)
          expect([pages.entryGfn(sp, index), pages.entryAccess(sp, index)]).toEqual(want);
        for (const index of model.keys()) expect(pages.entryGfn(other, index)).toBe(0);
      }),
    );
  });
});

describe('the number of an entry', () => {
  it('is made of its page and its place', () => {
    const sptep = sptepAt(1234, 511);
    expect([spOf(sptep), indexOf(sptep)]).toEqual([1234, 511]);
  });

  it('of a table leads back to the page', () => {
    for (const sp of [1, 63, 4096, 2 ** 20]) {
      const pfn = tablePfn(sp);
      expect(pfn).toBe(TABLE_PFN_BASE + sp);
      expect(childOf(nonleafLo(X86_64_FORMAT, pfn, false), pfnHi(pfn))).toBe(sp);
    }
  });
});
