import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hiOf, loOf } from '../base/u64.ts';
import { FlatHost } from '../mem/flat-host.ts';
import { Tracer } from '../trace/tracer.ts';
import { CpuState } from '../vm/cpu-state.ts';
import { Mmu } from './mmu.ts';
import { indexOf, spOf, sptepAt, tablePfn } from './shadow-pages.ts';
import { ShadowWalk, spteIndex } from './shadow-walk.ts';
import { nonleafLo, pfnHi, SPTE_MMU_PRESENT, SPTE_P, SPTE_PSE } from './spte.ts';
import { X86_64_FORMAT } from './spte-format.ts';
import { MmuVcpu, PAE_ROOT } from './vcpu.ts';

const LEAF = SPTE_P | SPTE_MMU_PRESENT;

function build(level: number): { mmu: Mmu; vcpu: MmuVcpu; tables: number[]; set: Setter } {
  const mmu = new Mmu({ host: new FlatHost({ bytes: 4096, level: 1 }), trace: new Tracer(), tdp: true });
  const nothing = (): void => {};
  const port = {
    queuePageFault: nothing,
    leaveNestedGuest: nothing,
    refreshPdptrs: nothing,
    flushTlbGva: nothing,
    flushTlbCurrent: nothing,
    kick: nothing,
  };
  const vcpu = new MmuVcpu(0, new CpuState(), port);
  vcpu.rootRole = level;
  const tables = Array.from({ length: 6 }, () => mmu.arena.alloc());
  const set = (table: number, index: number, lo: number, hi = 0): void => {
    mmu.arena.words[sptepAt(table, index) << 1] = lo;
    mmu.arena.words[(sptepAt(table, index) << 1) + 1] = hi;
  };
  return { mmu, vcpu, tables, set };
}
type Setter = (table: number, index: number, lo: number, hi?: number) => void;

/** Table, index and level of each step. */
function steps(mmu: Mmu, vcpu: MmuVcpu, address: bigint): [number, number, number][] {
  const walk = new ShadowWalk();
  const seen: [number, number, number][] = [];
  for (walk.init(vcpu, loOf(address), hiOf(address)); walk.ok(); walk.next(mmu))
    seen.push([spOf(walk.sptep), indexOf(walk.sptep), walk.level]);
  return seen;
}

describe('spteIndex', () => {
  it('cuts nine bits a level out of the address', () => {
    const address = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
    fc.assert(
      fc.property(address, fc.integer({ min: 1, max: 5 }), (a, level) => {
        expect(spteIndex(loOf(a), hiOf(a), level)).toBe(Number((a >> BigInt(12 + 9 * (level - 1))) & 511n));
      }),
      { numRuns: 500 },
    );
  });
});

describe('a walk', () => {
  const address = (1n << 39n) | (2n << 30n) | (3n << 21n) | (4n << 12n) | 5n;
  const link = (set: Setter, table: number, index: number, child: number): void =>
    set(table, index, nonleafLo(X86_64_FORMAT, tablePfn(child), false), pfnHi(tablePfn(child)));

  it('goes down four levels to the entry of the address', () => {
    const { mmu, vcpu, tables, set } = build(4);
    const [l4, l3, l2, l1] = tables;
    vcpu.root.sp = l4;
    link(set, l4, 1, l3);
    link(set, l3, 2, l2);
    link(set, l2, 3, l1);
    set(l1, 4, LEAF);
    const want = [
      [l4, 1, 4],
      [l3, 2, 3],
      [l2, 3, 2],
      [l1, 4, 1],
    ];
    expect(steps(mmu, vcpu, address)).toEqual(want);
    // The last one shows whether it maps anything or not.
    set(l1, 4, 0);
    expect(steps(mmu, vcpu, address)).toEqual(want);
  });

  it('goes down five levels', () => {
    const { mmu, vcpu, tables, set } = build(5);
    const [l5, l4] = tables;
    vcpu.root.sp = l5;
    link(set, l5, 7, l4);
    expect(steps(mmu, vcpu, (7n << 48n) | address)).toEqual([
      [l5, 7, 5],
      [l4, 1, 4],
    ]);
  });

  it('ends at an entry that is not present, even if it looks like a table', () => {
    const { mmu, vcpu, tables, set } = build(4);
    const [l4, l3] = tables;
    vcpu.root.sp = l4;
    set(l4, 1, nonleafLo(X86_64_FORMAT, tablePfn(l3), false) & ~SPTE_MMU_PRESENT, pfnHi(tablePfn(l3)));
    expect(steps(mmu, vcpu, address)).toEqual([[l4, 1, 4]]);
  });

  it('ends at a large leaf', () => {
    const { mmu, vcpu, tables, set } = build(4);
    const [l4, l3] = tables;
    vcpu.root.sp = l4;
    link(set, l4, 1, l3);
    set(l3, 2, LEAF | SPTE_PSE);
    expect(steps(mmu, vcpu, address)).toHaveLength(2);
  });

  it('of a PAE root starts in the table that bits 30 and 31 choose, at level 2', () => {
    const { mmu, vcpu, tables } = build(3);
    vcpu.root.sp = PAE_ROOT;
    vcpu.paeRoots.set(tables.slice(0, 4));
    for (let i = 0; i < 4; i++) expect(steps(mmu, vcpu, (BigInt(i) << 30n) | (3n << 21n))).toEqual([[tables[i], 3, 2]]);
  });

  it('does not start where there is no root, or no PAE entry', () => {
    const { mmu, vcpu, tables } = build(3);
    expect(steps(mmu, vcpu, 0n)).toEqual([]);
    vcpu.root.sp = PAE_ROOT;
    vcpu.paeRoots[0] = tables[0];
    expect(steps(mmu, vcpu, 1n << 30n)).toEqual([]);
  });

  it('may start at a root that is not in use', () => {
    const { vcpu, tables } = build(4);
    vcpu.root.sp = tables[0];
    const walk = new ShadowWalk();
    walk.initUsingRoot(vcpu, tables[1], 0, 0);
    expect([walk.ok(), spOf(walk.sptep)]).toEqual([true, tables[1]]);
  });

  it('goes by the entry as it was read before, if told so', () => {
    const { vcpu, tables } = build(4);
    const [l4, l3] = tables;
    vcpu.root.sp = l4;
    const walk = new ShadowWalk();
    walk.init(vcpu, loOf(address), hiOf(address));
    walk.step(nonleafLo(X86_64_FORMAT, tablePfn(l3), false), pfnHi(tablePfn(l3)));
    expect([walk.ok(), spOf(walk.sptep), walk.level]).toEqual([true, l3, 3]);
    walk.step(0, 0);
    expect(walk.ok()).toBe(false);
  });
});
