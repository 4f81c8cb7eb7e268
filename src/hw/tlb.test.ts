import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AdversarialTlb } from './adversarial-tlb.ts';
import {
  ACCESS_FETCH,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  ATTR_D,
  ATTR_G,
  ATTR_HOST_ALL,
  ATTR_HOST_D,
  ATTR_HOST_NX,
  ATTR_HOST_W,
  ATTR_NX,
  ATTR_PAGE_SHIFT_AT,
  ATTR_U,
  ATTR_W,
  cachedRightsSuffice,
  CTL_SMEP,
  CTL_WP,
} from './rights.ts';
import { ANY_PCID, SetAssociativeTlb, type Tlb, tlbSpace } from './tlb.ts';

const shift = (bits: number): number => bits << ATTR_PAGE_SHIFT_AT;
/** Everything allowed; without a page size, and of a 4 KiB page. */
const ALL = ATTR_W | ATTR_U | ATTR_D | ATTR_HOST_ALL;
const RWU = ALL | shift(12);
const SPACE = tlbSpace(1, 5);

const KINDS: [string, () => Tlb][] = [
  ['set-associative', () => new SetAssociativeTlb()],
  ['adversarial', () => new AdversarialTlb()],
];

describe.each(KINDS)('the %s TLB', (_name, make) => {
  const read = (tlb: Tlb, lo: number, hi = 0, space = SPACE): boolean => tlb.lookup(space, lo, hi, ACCESS_READ, 0, 0);

  it('misses what it never saw', () => {
    const tlb = make();
    expect(read(tlb, 0)).toBe(false);
    expect(tlb).toMatchObject({ hits: 0, misses: 1, fills: 0 });
  });

  it.each([
    [1, 0x12345678, 0x12345abc, 0x900, 0x900],
    [2, 0x12345678, 0x12234abc, 0x845, 0x834],
    [3, 0x12345678, 0x01234abc, 0x52345, 0x41234],
  ])('serves every page of an entry of level %i', (level, filled, used, pfn, expected) => {
    const tlb = make();
    tlb.insert(SPACE, filled, 0x7f, pfn, level, ALL | shift(3 + 9 * level));
    expect(read(tlb, used, 0x7f)).toBe(true);
    expect(tlb).toMatchObject({ pfn: expected, level });
    expect(read(tlb, used, 0x7e)).toBe(false);
  });

  it('keeps ASIDs and PCIDs apart, but for global entries within an ASID', () => {
    const tlb = make();
    tlb.insert(SPACE, 0x1000, 0, 7, 1, RWU);
    tlb.insert(SPACE, 0x2000, 0, 8, 1, RWU | ATTR_G);
    expect(read(tlb, 0x1000, 0, tlbSpace(1, 6))).toBe(false);
    expect(read(tlb, 0x2000, 0, tlbSpace(1, 6))).toBe(true);
    expect(read(tlb, 0x2000, 0, tlbSpace(2, 5))).toBe(false);
  });

  it.each([
    ['write without D', ATTR_D, 0, ACCESS_WRITE, 0],
    ['write without D in the host', ATTR_HOST_D, 0, ACCESS_WRITE, 0],
    ['write against the host', ATTR_HOST_W, 0, ACCESS_WRITE, 0],
    ['write with WP', ATTR_W, 0, ACCESS_WRITE, CTL_WP],
    ['user write', ATTR_W, 0, ACCESS_WRITE | ACCESS_USER, 0],
    ["user in a supervisor's page", ATTR_U, 0, ACCESS_USER, 0],
    ['fetch against NX', 0, ATTR_NX, ACCESS_FETCH, 0],
    ['fetch against the host', 0, ATTR_HOST_NX, ACCESS_FETCH, 0],
    ['fetch against SMEP', 0, 0, ACCESS_FETCH, CTL_SMEP],
  ])('misses, rather than faults: %s', (_case, without, extra, access, controls) => {
    const tlb = make();
    tlb.insert(SPACE, 0x1000, 0, 7, 1, (RWU & ~without) | extra);
    expect(tlb.lookup(SPACE, 0x1000, 0, access, controls, 0)).toBe(false);
    tlb.insert(SPACE, 0x1000, 0, 7, 1, RWU);
    expect(tlb.lookup(SPACE, 0x1000, 0, access, controls & CTL_WP, 0)).toBe(true);
  });

  it('serves a supervisor that writes a read-only page without WP', () => {
    const tlb = make();
    tlb.insert(SPACE, 0x1000, 0, 7, 1, RWU & ~ATTR_W);
    expect(tlb.lookup(SPACE, 0x1000, 0, ACCESS_WRITE, 0, 0)).toBe(true);
  });

  it('drops what each flush names, and nothing else', () => {
    const other = tlbSpace(1, 6);
    const fill = (): Tlb => {
      const tlb = make();
      tlb.insert(SPACE, 0x1000, 0, 1, 1, RWU);
      tlb.insert(SPACE, 0x2000, 0, 2, 1, RWU | ATTR_G);
      tlb.insert(other, 0x3000, 0, 3, 1, RWU);
      tlb.insert(tlbSpace(2, 5), 0x1000, 0, 4, 1, RWU);
      tlb.insert(SPACE, 0x400000, 0, 0x400, 2, ALL | shift(21));
      return tlb;
    };
    const left = (drop: (tlb: Tlb) => void): string => {
      const tlb = fill();
      drop(tlb);
      return [
        read(tlb, 0x1000) ? 'own ' : '',
        read(tlb, 0x2000) ? 'global ' : '',
        read(tlb, 0x3000, 0, other) ? 'pcid6 ' : '',
        read(tlb, 0x1000, 0, tlbSpace(2, 5)) ? 'asid2 ' : '',
        read(tlb, 0x412345) ? 'large' : '',
      ]
        .join('')
        .trim();
    };
    expect(left(() => {})).toBe('own global pcid6 asid2 large');
    expect(left((tlb) => tlb.flushAll())).toBe('');
    expect(left((tlb) => tlb.flushAsid(1))).toBe('asid2');
    expect(left((tlb) => tlb.flushNonGlobal(1))).toBe('global asid2');
    expect(left((tlb) => tlb.flushPcid(1, 5))).toBe('global pcid6 asid2');
    expect(left((tlb) => tlb.flushGva(1, 5, 0x1abc, 0))).toBe('global pcid6 asid2 large');
    expect(left((tlb) => tlb.flushGva(1, 6, 0x2000, 0))).toBe('own pcid6 asid2 large');
    expect(left((tlb) => tlb.flushGva(1, 6, 0x3000, 0))).toBe('own global asid2 large');
    expect(left((tlb) => tlb.flushGva(1, 5, 0x3000, 0))).toBe('own global pcid6 asid2 large');
    expect(left((tlb) => tlb.flushGva(1, ANY_PCID, 0x3000, 0))).toBe('own global asid2 large');
    expect(left((tlb) => tlb.flushGva(1, 5, 0x5ff000, 0))).toBe('own global pcid6 asid2');
    expect(left((tlb) => tlb.flushSingle(1, 5, 0x2000, 0))).toBe('own global pcid6 asid2 large');
    expect(left((tlb) => tlb.flushSingle(1, 5, 0x1000, 0))).toBe('global pcid6 asid2 large');
  });

  it('drops all pieces of a large guest page at once', () => {
    const tlb = make();
    tlb.insert(SPACE, 0x400000, 0, 1, 1, ALL | shift(22));
    tlb.insert(SPACE, 0x7ff000, 0, 2, 1, ALL | shift(22));
    tlb.insert(SPACE, 0x800000, 0, 3, 1, RWU);
    tlb.flushGva(1, 5, 0x555000, 0);
    expect(tlb.count()).toBe(1);
    expect(read(tlb, 0x800000)).toBe(true);
  });
});

describe('the set-associative TLB alone', () => {
  it('replaces an entry of the same page', () => {
    const tlb = new SetAssociativeTlb();
    tlb.insert(SPACE, 0x1000, 0, 7, 1, RWU);
    tlb.insert(SPACE, 0x1000, 0, 8, 1, RWU);
    expect(tlb.count()).toBe(1);
    expect(tlb.lookup(SPACE, 0x1000, 0, ACCESS_READ, 0, 0)).toBe(true);
    expect(tlb.pfn).toBe(8);
  });

  it('evicts in turn when a set is full', () => {
    const tlb = new SetAssociativeTlb();
    const page = (i: number): number => i << 18; // all in set 0
    for (let i = 0; i < 10; i++) tlb.insert(SPACE, page(i), 0, i, 1, RWU);
    const hit = Array.from({ length: 10 }, (_, i) => tlb.lookup(SPACE, page(i), 0, ACCESS_READ, 0, 0));
    expect(hit).toEqual([false, false, ...Array(8).fill(true)]);
    expect(tlb).toMatchObject({ evictions: 2, fills: 10, hits: 8, misses: 2 });
  });
});

describe('the adversarial TLB alone', () => {
  it('goes on using the translation that was never flushed', () => {
    const tlb = new AdversarialTlb();
    tlb.insert(SPACE, 0x1000, 0, 7, 1, RWU);
    tlb.insert(SPACE, 0x1000, 0, 8, 1, RWU & ~ATTR_W & ~ATTR_D);
    expect(tlb.lookup(SPACE, 0x1000, 0, ACCESS_WRITE | ACCESS_USER, 0, 0)).toBe(true);
    expect(tlb.pfn).toBe(7);
    tlb.flushGva(1, 5, 0x1000, 0);
    expect(tlb.lookup(SPACE, 0x1000, 0, ACCESS_WRITE | ACCESS_USER, 0, 0)).toBe(false);
  });

  it('prefers what it is told to', () => {
    const frames = (['stalest', 'permissive', 'newest'] as const).map((preference) => {
      const tlb = new AdversarialTlb(preference);
      tlb.insert(SPACE, 0x1000, 0, 7, 1, RWU & ~ATTR_W);
      tlb.insert(SPACE, 0x1000, 0, 0x200, 2, RWU);
      tlb.insert(SPACE, 0x1000, 0, 9, 1, RWU & ~ATTR_U);
      tlb.lookup(SPACE, 0x1000, 0, ACCESS_READ, 0, 0);
      return tlb.pfn;
    });
    expect(frames).toEqual([7, 0x201, 9]);
  });

  it('never evicts', () => {
    const tlb = new AdversarialTlb();
    for (let i = 0; i < 5000; i++) tlb.insert(SPACE, i << 12, 0, i, 1, RWU);
    expect(tlb.count()).toBe(5000);
  });
});

/** What any TLB may do at most, and the adversarial one must: a list of all fills that no flush has covered. */
interface Fill {
  asid: number;
  pcid: number;
  page: number;
  level: number;
  size: number;
  pfn: number;
  attr: number;
}
const PAGES_OF = [0, 1, 512, 1 << 18];

describe('against a list of fills', () => {
  const fill = fc.record({
    kind: fc.constant('fill' as const),
    asid: fc.constantFrom(1, 2),
    pcid: fc.constantFrom(0, 1),
    page: fc.constantFrom(0, 1, 511, 512, 513, 1024, 0x40000, 0x40001),
    level: fc.constantFrom(1, 2, 3),
    size: fc.constantFrom(12, 21, 22, 30),
    pfn: fc.constantFrom(0, 0x40000, 0x80000),
    attr: fc.constantFrom(ALL, ALL & ~ATTR_D, ALL & ~ATTR_W, ALL | ATTR_G, ALL | ATTR_NX),
  });
  const drop = fc.record({
    kind: fc.constantFrom('all', 'asid', 'nonGlobal', 'pcid', 'gva', 'single', 'any' as const),
    asid: fc.constantFrom(1, 2),
    pcid: fc.constantFrom(0, 1),
    page: fc.constantFrom(0, 1, 511, 512, 513, 1024, 0x40000, 0x40001),
  });
  const look = fc.record({
    kind: fc.constant('look' as const),
    asid: fc.constantFrom(1, 2),
    pcid: fc.constantFrom(0, 1),
    page: fc.constantFrom(0, 1, 511, 512, 513, 1024, 0x40000, 0x40001),
    access: fc.constantFrom(ACCESS_READ, ACCESS_WRITE, ACCESS_USER, ACCESS_FETCH),
  });
  const lo = (page: number): number => (page << 12) | 0;
  const ops = fc.array(
    fc.oneof({ weight: 3, arbitrary: fill }, { weight: 1, arbitrary: drop }, { weight: 4, arbitrary: look }),
    {
      maxLength: 60,
    },
  );

  type Op = typeof ops extends fc.Arbitrary<(infer T)[]> ? T : never;

  const survives = (f: Fill, kind: string, asid: number, pcid: number, page: number): boolean => {
    const global = (f.attr & ATTR_G) !== 0;
    const same = f.page >> (f.size - 12) === page >> (f.size - 12);
    if (kind === 'all') return false;
    if (f.asid !== asid) return true;
    if (kind === 'asid') return false;
    if (kind === 'nonGlobal') return global;
    if (kind === 'pcid') return global || f.pcid !== pcid;
    if (!same) return true;
    if (kind === 'single') return global || f.pcid !== pcid;
    return !global && kind !== 'any' && f.pcid !== pcid;
  };

  const run = (tlb: Tlb, script: Op[], mustHit: boolean): void => {
    let fills: Fill[] = [];
    for (const op of script) {
      if (op.kind === 'fill') {
        const size = Math.max(op.size, 3 + 9 * op.level);
        const attr = op.attr | shift(size);
        const inside = op.page % PAGES_OF[op.level];
        fills.push({ ...op, size, attr });
        tlb.insert(tlbSpace(op.asid, op.pcid), lo(op.page), 0, op.pfn + inside, op.level, attr);
      } else if (op.kind === 'look') {
        const legal = fills.filter(
          (f) =>
            f.asid === op.asid &&
            (f.pcid === op.pcid || f.attr & ATTR_G) &&
            Math.floor(f.page / PAGES_OF[f.level]) === Math.floor(op.page / PAGES_OF[f.level]) &&
            cachedRightsSuffice(f.attr, op.access, CTL_WP, 0),
        );
        const hit = tlb.lookup(tlbSpace(op.asid, op.pcid), lo(op.page), 0, op.access, CTL_WP, 0);
        if (mustHit) expect(hit).toBe(legal.length > 0);
        if (hit) {
          const frames = legal.map((f) => f.pfn + (op.page % PAGES_OF[f.level]));
          expect(frames).toContain(tlb.pfn);
        }
      } else {
        const { kind, asid, pcid, page } = op;
        fills = fills.filter((f) => survives(f, kind, asid, pcid, page));
        if (kind === 'all') tlb.flushAll();
        else if (kind === 'asid') tlb.flushAsid(asid);
        else if (kind === 'nonGlobal') tlb.flushNonGlobal(asid);
        else if (kind === 'pcid') tlb.flushPcid(asid, pcid);
        else if (kind === 'gva') tlb.flushGva(asid, pcid, lo(page), 0);
        else if (kind === 'any') tlb.flushGva(asid, ANY_PCID, lo(page), 0);
        else tlb.flushSingle(asid, pcid, lo(page), 0);
      }
    }
  };

  it('the set-associative TLB never serves what a flush covered', () => {
    fc.assert(
      fc.property(ops, (script) => run(new SetAssociativeTlb(), script, false)),
      { numRuns: 500 },
    );
  });

  it('the adversarial TLB serves exactly what no flush covered', () => {
    fc.assert(
      fc.property(ops, (script) => run(new AdversarialTlb(), script, true)),
      { numRuns: 500 },
    );
  });
});
