import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PTE_LIST_EXT, PteLists } from './pte-list.ts';

const HEADS = 3;

/** The list as the file's head describes it: nothing, one entry, or descriptors of up to 14. */
class Model {
  private single = 0;
  private descs: number[][] = [];

  add(entry: number): number {
    if (this.descs.length === 0 && this.single === 0) {
      this.single = entry;
      return 0;
    }
    if (this.descs.length === 0) {
      this.descs = [[this.single, entry]];
      this.single = 0;
      return 1;
    }
    let at = this.descs.findIndex((desc) => desc.length < PTE_LIST_EXT);
    if (at < 0) at = this.descs.push([]) - 1;
    return at * PTE_LIST_EXT + this.descs[at].push(entry) - 1;
  }

  remove(entry: number): void {
    if (this.single === entry) this.single = 0;
    const desc = this.descs.find((d) => d.includes(entry));
    if (desc === undefined) return;
    const last = desc.pop()!;
    if (last !== entry) desc[desc.indexOf(entry)] = last;
    this.descs = this.descs.filter((d) => d.length > 0);
  }

  clear(): void {
    this.single = 0;
    this.descs = [];
  }

  get entries(): number[] {
    return this.single !== 0 ? [this.single] : this.descs.flat();
  }
  get descriptors(): number {
    return this.descs.length;
  }
}

/** Entries in the order in which the kernel's loops see them. */
function iterate(lists: PteLists, heads: Int32Array, at: number): number[] {
  const seen: number[] = [];
  let cursor = lists.firstCursor(heads, at);
  for (let entry = lists.first(heads, at); entry !== 0; ) {
    seen.push(entry);
    cursor = lists.next(cursor);
    entry = cursor === 0 ? 0 : lists.at(cursor);
  }
  return seen;
}

function expectBefore(got: number, want: number): void {
  expect(got).toBe(want);
}

type Step = ['add', number, number] | ['remove', number, number] | ['clear', number];
const head = fc.nat(HEADS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 12, arbitrary: fc.tuple(fc.constant('add' as const), head, fc.integer({ min: 1, max: 60 })) },
  { weight: 8, arbitrary: fc.tuple(fc.constant('remove' as const), head, fc.nat(100)) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('clear' as const), head) },
);

describe('lists of entries', () => {
  it('keep order, counts and descriptors as a plain model does', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 160, size: 'max' }), (steps) => {
        const lists = new PteLists();
        const heads = new Int32Array(HEADS);
        const models = Array.from({ length: HEADS }, () => new Model());
        for (const [what, at, number = 0] of steps) {
          const model = models[at];
          const { entries } = model;
          if (what === 'clear') {
            lists.clear(heads, at);
            model.clear();
          } else if (what === 'remove') {
            if (entries.length === 0) continue;
            const entry = entries[number % entries.length];
            lists.remove(heads, at, entry);
            model.remove(entry);
          } else if (!entries.includes(number)) {
            const before = lists.add(heads, at, number);
            expectBefore(before, model.add(number));
          }
          expect(iterate(lists, heads, at)).toEqual(model.entries);
          expect(lists.used).toBe(models.reduce((n, m) => n + m.descriptors, 0));
        }
        models.forEach((m, i) => {
          expect(iterate(lists, heads, i)).toEqual(m.entries);
          expect(lists.count(heads, i)).toBe(m.entries.length);
        });
      }),
      { numRuns: 80 },
    );
  });

  it('tell how many entries were there before an add', () => {
    const lists = new PteLists();
    const heads = new Int32Array(1);
    expect(Array.from({ length: 1100 }, (_, i) => lists.add(heads, 0, i + 1))).toEqual([...Array(1100).keys()]);
  });

  it('count only up to the gap that an add fills: what lies behind it is not looked at', () => {
    const lists = new PteLists();
    const heads = new Int32Array(1);
    for (let entry = 1; entry <= 30; entry++) lists.add(heads, 0, entry);
    lists.remove(heads, 0, 3);
    expect(lists.add(heads, 0, 99)).toBe(13);
    expect(iterate(lists, heads, 0).slice(0, 15)).toEqual([1, 2, 14, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 99, 15]);
  });

  it('hold one entry in the head itself', () => {
    const lists = new PteLists();
    const heads = new Int32Array(1);
    lists.add(heads, 0, 77);
    expect([heads[0], lists.used, lists.firstCursor(heads, 0)]).toEqual([77, 0, 0]);
  });

  it('stay in a descriptor when they shrink to one entry, and are empty when that goes', () => {
    const lists = new PteLists();
    const heads = new Int32Array(1);
    lists.add(heads, 0, 1);
    lists.add(heads, 0, 2);
    lists.remove(heads, 0, 1);
    expect([heads[0] < 0, lists.used, lists.count(heads, 0), lists.first(heads, 0)]).toEqual([true, 1, 1, 2]);
    lists.remove(heads, 0, 2);
    expect([heads[0], lists.used]).toEqual([0, 0]);
  });

  it('unlink a descriptor in the middle that was emptied', () => {
    const lists = new PteLists();
    const heads = new Int32Array(1);
    for (let entry = 1; entry <= 3 * PTE_LIST_EXT; entry++) lists.add(heads, 0, entry);
    for (let entry = PTE_LIST_EXT + 1; entry <= 2 * PTE_LIST_EXT; entry++) lists.remove(heads, 0, entry);
    expect(lists.used).toBe(2);
    expect(iterate(lists, heads, 0)).toEqual([...Array(14).keys()].flatMap((i) => [i + 1]).concat(range(29, 42)));
  });

  it('use descriptors again, without what was in them', () => {
    const lists = new PteLists();
    const heads = new Int32Array(2);
    for (let entry = 1; entry <= 100; entry++) lists.add(heads, 0, entry);
    const descriptors = lists.used;
    lists.clear(heads, 0);
    expect([lists.used, heads[0]]).toEqual([0, 0]);
    for (let entry = 1; entry <= 100; entry++) lists.add(heads, 1, 1000 + entry);
    expect(lists.used).toBe(descriptors);
    expect(iterate(lists, heads, 1)).toEqual(range(1001, 1100));
    expect(iterate(lists, heads, 0)).toEqual([]);
  });

  // biome-ignore format: a table
  it.each([
    ['an empty list',         []],
    ['a list of one',         [1]],
    ['a list in descriptors', range(1, 20)],
  ])('stop the VM if an entry to remove is not in %s', (_name, entries) => {
    const lists = new PteLists();
    const heads = new Int32Array(1);
    for (const entry of entries) lists.add(heads, 0, entry);
    expect(() => lists.remove(heads, 0, 55)).toThrow('INVARIANT rmap: entry 55 is not in its list');
  });
});

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
