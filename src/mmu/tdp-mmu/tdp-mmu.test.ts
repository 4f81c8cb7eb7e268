/**
 * The TDP MMU where recordings can't look: races at its compare-and-exchange, walks that yield, deferred freeing, roots.
 * A point of `race.ts` runs a whole operation of somebody else, there and then.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  bitsOf,
  buildVm,
  type BuiltVm,
  entryAt,
  expectSound,
  FETCH,
  flushesDuring,
  READ,
  triple,
  WRITE,
} from '../../vm/testing/build-vm.ts';
import { MEM_LOG_DIRTY_PAGES } from '../../mem/memslots.ts';
import { doPageFault } from '../fault.ts';
import { RET_PF_RETRY } from '../page-fault.ts';
import { POLICIES } from '../policy.ts';
import {
  RACE_FAST_FAULT_CMPXCHG,
  RACE_FAULT_BEFORE_LOCK,
  RACE_TDP_CMPXCHG,
  RACE_TDP_FROZEN,
  RACE_TDP_YIELD,
} from '../race.ts';
import { isInvalidRole, ROLE_CR0_WP } from '../role.ts';
import { spOf } from '../shadow-pages.ts';
import { REMOVED_SPTE_LO, SPTE_HOST_WRITABLE, SPTE_MMU_WRITABLE, SPTE_P, SPTE_PSE, SPTE_W } from '../spte.ts';
import { unmapGfnRange } from './tdp-notifier.ts';
import { trySplitHugePages } from './tdp-split.ts';
import { tdpZapCollapsibleSptes, zapAllRoots } from './tdp-zap.ts';

const others = vi.hoisted(() => ({ at: new Map<number, (() => void)[]>(), yields: (): boolean => false }));
vi.mock('../race.ts', async (original) => ({
  ...(await original<object>()),
  race: (point: number) => others.at.get(point)?.shift()?.(),
  yields: () => others.yields(),
}));

/** What others do when the point is next come to, the first time and so on. */
function at(point: number, ...operations: (() => void)[]): void {
  others.at.set(point, operations);
}
/** What is left to do: nothing, once the points were come to. */
function left(): number {
  return [...others.at.values()].flat().length;
}

afterEach(() => {
  others.at.clear();
  others.yields = () => false;
});

function build(options: Parameters<typeof buildVm>[0] = {}): BuiltVm {
  return buildVm({ tdpMmu: true, vcpus: 2, pages: 2048, ...options });
}

const LOG = MEM_LOG_DIRTY_PAGES;

describe('a fault', () => {
  it('that loses the race for an entry lets the guest fault again', () => {
    const { vm, vcpu } = build();
    const [, second] = vm.vcpus;
    second.touchPage(600, READ);
    // Both want the table of the first 2 MiB, the second for a page of 4 KiB.
    vm.mmu.slots[0].byId(0)!.lpageInfo[0][0]++;
    at(RACE_TDP_CMPXCHG, () => second.touchPage(1, WRITE));
    vcpu.touchPage(0, WRITE);
    vm.mmu.slots[0].byId(0)!.lpageInfo[0][0]--;
    expect(left()).toBe(0);
    expect([vcpu.mmu.stats.pf_taken, vcpu.mmu.stats.pf_fixed]).toEqual([2, 1]);
    expect(vm.stats.pages_4k).toBe(2);
    expectSound(vm);
  });

  it('finds an entry frozen, and waits', () => {
    const { vm, vcpu, setFlags } = build();
    vcpu.touchPage(0, WRITE);
    const [, second] = vm.vcpus;
    second.touchPage(600, READ);
    setFlags(LOG);
    let seen = 0;
    at(RACE_TDP_FROZEN, () => {
      seen = entryAt(vm, vcpu, 0).lo;
      expect(doPageFault(vm.mmu, second.mmu, 5 << 12, 0, 4)).toBe(RET_PF_RETRY);
    });
    vcpu.touchPage(1, WRITE);
    expect(left()).toBe(0);
    expect(seen).toBe(REMOVED_SPTE_LO);
    expectSound(vm);
  });

  it('is stale if its root went since the frame was looked up', () => {
    const { vm, vcpu } = build();
    vcpu.touchPage(0, READ);
    at(RACE_FAULT_BEFORE_LOCK, () => vm.setNxHugePages(true));
    vcpu.touchPage(600, WRITE);
    expect(left()).toBe(0);
    expect(entryAt(vm, vcpu, 600 * 4096).level).toBe(2);
    expect(vm.mmu.tdpRoots).toEqual([vcpu.mmu.root.sp]);
    expectSound(vm);
  });

  it('drops a large logged leaf before it makes the table: freeze, flush, link (the neighbours fault again)', () => {
    const { vm, vcpu, setFlags } = build();
    vcpu.touchPage(0, WRITE);
    setFlags(LOG);
    expect(flushesDuring(vm, () => vcpu.touchPage(7, WRITE))).toBe(1);
    expect(vm.stats).toMatchObject({ pages_2m: 0, pages_4k: 1 });
    vcpu.touchPage(8, READ);
    expect(vm.stats.pages_4k).toBe(2);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([7, 8]);
    expectSound(vm);
  });

  it('maps 4 KiB for a fetch under the mitigation, and the large page comes back when its tables went', () => {
    const { vm, vcpu } = build({ nxHugePages: true });
    vcpu.touchPage(0, WRITE);
    vcpu.touchPage(3, FETCH);
    expect(vm.stats).toMatchObject({ pages_2m: 0, pages_4k: 1, nx_lpage_splits: 1 });
    expectSound(vm);
    vm.setNxHugePages(false);
    vcpu.touchPage(3, FETCH);
    expect(vm.stats).toMatchObject({ pages_2m: 1, pages_4k: 0, nx_lpage_splits: 0 });
    expectSound(vm);
  });
});

describe('the fast fault', () => {
  it('gives W back between the look and the exchange of one who takes it: W goes, and the page is in the log', () => {
    const { vm, vcpu, setFlags } = build({ level: 1 });
    vcpu.touchPage(5, WRITE);
    setFlags(LOG);
    at(RACE_TDP_CMPXCHG, () => vcpu.touchPage(5, WRITE));
    setFlags(0);
    setFlags(LOG);
    expect(triple(entryAt(vm, vcpu, 5 * 4096).lo)).toBe('110');
    vcpu.touchPage(5, WRITE);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([5]);
    expectSound(vm);
  });

  it('never makes an entry writable that went meanwhile', () => {
    const { vm, vcpu, slot, setFlags } = build({ level: 1 });
    vcpu.touchPage(5, WRITE);
    setFlags(LOG);
    at(RACE_FAST_FAULT_CMPXCHG, () => {
      unmapGfnRange(vm.mmu, slot(), 5, 6, false);
    });
    vcpu.touchPage(5, WRITE);
    expect(left()).toBe(0);
    expect([vcpu.mmu.stats.pf_fast, vm.stats.pages_4k]).toEqual([0, 1]);
    expectSound(vm);
  });
});

describe('a walk that yields', () => {
  it.each([1, 2, 3, 7])('goes on where it was, from the root (every %i steps)', (every) => {
    const { vm, vcpu, setFlags } = build({ level: 1 });
    for (let page = 0; page < 1500; page += 3) vcpu.touchPage(page, WRITE);
    let steps = 0;
    let yielded = 0;
    others.yields = () => {
      if (++steps % every !== 0) return false;
      yielded++;
      return true;
    };
    setFlags(LOG);
    expect(yielded).toBeGreaterThan(100);
    for (let page = 0; page < 1500; page += 3) expect(triple(entryAt(vm, vcpu, page * 4096).lo)).toBe('110');
    expectSound(vm);
  });

  it('flushes before it gives way, if it took something', () => {
    const { vm, vcpu, slot } = build({ level: 1 });
    for (let page = 0; page < 64; page++) vcpu.touchPage(page, WRITE);
    let steps = 0;
    others.yields = () => ++steps % 16 === 0;
    const flushes = flushesDuring(vm, () => expect(unmapGfnRange(vm.mmu, slot(), 0, 64, false)).toBe(true));
    expect(flushes).toBeGreaterThan(2);
    expect(vm.stats.pages_4k).toBe(0);
    expectSound(vm);
  });

  it('outlives the table that it stood in: the table is freed, the walk begins again at the root', () => {
    const { vm, vcpu, setFlags } = build({ pages: 4096 });
    vcpu.touchPage(0, WRITE);
    setFlags(LOG);
    for (let page = 0; page < 512; page += 2) vcpu.touchPage(page, WRITE);
    vm.getDirtyLog(0);
    for (let page = 0; page < 512; page += 2) vcpu.touchPage(page, WRITE);
    const table = spOf(entryAt(vm, vcpu, 0).sptep);
    let steps = 0;
    // Somebody zaps everything in the middle of it: the walk goes on in an invalid root.
    others.yields = () => ++steps === 40;
    at(RACE_TDP_YIELD, () => {
      vm.setNxHugePages(true);
      expect(vm.mmu.pages.tdp[table]).toBe(0);
    });
    trySplitHugePages(vm.mmu, vm.mmu.slots[0].byId(0)!, 0, 4096, 1, true);
    unmapGfnRange(vm.mmu, vm.mmu.slots[0].byId(0)!, 0, 4096, false);
    expect(left() + vm.stats.pages_4k).toBe(0);
    expectSound(vm);
  });
});

describe('a table that went', () => {
  it('keeps its contents until the last walk under way has ended', () => {
    const { vm, vcpu, slot, setFlags } = build({ pages: 4096 });
    vcpu.touchPage(0, WRITE);
    setFlags(LOG);
    vcpu.touchPage(0, WRITE);
    const { sptep } = entryAt(vm, vcpu, 0);
    const [, second] = vm.vcpus;
    let pending: number[] = [];
    // The second vCPU is about to make an entry writable when its table is zapped.
    vm.getDirtyLog(0);
    at(RACE_FAST_FAULT_CMPXCHG, () => {
      tdpZapCollapsibleSptes(vm.mmu, slot());
      pending = [...vm.mmu.rcuPending];
      expect(vm.mmu.arena.words[sptep << 1]).toBe(REMOVED_SPTE_LO);
    });
    second.touchPage(0, WRITE);
    expect(pending).toEqual([spOf(sptep)]);
    expect(vm.mmu.rcuPending).toEqual([]);
    expect([second.mmu.stats.pf_fast, vm.stats.pages_4k]).toEqual([0, 1]);
    expectSound(vm);
  });
});

describe('roots', () => {
  it('are shared by vCPUs, counted, and freed with the last reference', () => {
    const { vm, vcpu } = build();
    vcpu.touchPage(0, READ);
    vm.vcpus[1].touchPage(0, READ);
    const [root] = vm.mmu.tdpRoots;
    expect([vcpu.mmu.root.sp, vm.vcpus[1].mmu.root.sp, vm.mmu.pages.rootCount[root]]).toEqual([root, root, 3]);
    vm.setNxHugePages(true);
    expect(isInvalidRole(vm.mmu.pages.role[root])).toBe(true);
    expect([vm.mmu.pages.rootCount[root], vm.stats.pages_2m]).toEqual([2, 0]);
    vcpu.touchPage(0, READ);
    expect([vm.mmu.pages.rootCount[root], vm.mmu.tdpRoots.length]).toEqual([1, 2]);
    vm.vcpus[1].touchPage(0, READ);
    expect(vm.mmu.tdpRoots).toEqual([vcpu.mmu.root.sp]);
    expectSound(vm);
  });

  it('are all emptied at the end of a VM, without a flush', () => {
    const { vm, vcpu } = build({ level: 1 });
    for (let page = 0; page < 1000; page += 7) vcpu.touchPage(page, WRITE);
    expect(flushesDuring(vm, () => zapAllRoots(vm.mmu))).toBe(0);
    expect([vm.stats.pages_4k, vm.mmu.nTdpPages]).toEqual([0, 0]);
    expectSound(vm);
  });
});

describe('eager page splitting', () => {
  it('leaves nothing for faults to drop, and the log starts with one flush', () => {
    const { vm, vcpu, setFlags } = build({ policy: POLICIES.eager });
    vcpu.touchPage(0, WRITE);
    expect(flushesDuring(vm, () => setFlags(LOG))).toBe(1);
    expect(vm.stats).toMatchObject({ pages_2m: 0, pages_4k: 512 });
    vcpu.touchPage(9, READ);
    vcpu.touchPage(10, WRITE);
    expect([vcpu.mmu.stats.pf_fast, ...bitsOf(vm.getDirtyLog(0))]).toEqual([1, 10]);
    expectSound(vm);
  });

  it('of a 1 GiB leaf goes down both levels, but for a cleared range that ends with its first page', () => {
    const { vm, vcpu } = build({ policy: POLICIES.eager, level: 2, manual: 3, flags: LOG });
    for (const page of [0, 512]) vcpu.touchPage(page, WRITE);
    expect(vm.stats.pages_4k).toBe(2);
    const large = build({ policy: POLICIES.eager, level: 3, pages: 2 ** 18, manual: 3 });
    large.vcpu.touchPage(0, WRITE);
    expect(large.vm.stats.pages_1g).toBe(1);
    large.setFlags(LOG);
    const one = new Int32Array([1, 0]);
    // 6.1 takes the last page for the range's end, so a range of one page is empty, and the entry only goes read-only.
    large.vm.clearDirtyLog(0, 0, 64, one);
    expect([large.vm.stats.pages_1g, triple(entryAt(large.vm, large.vcpu, 0).lo)]).toEqual([1, '100']);
    large.vm.clearDirtyLog(0, 64, 64, new Int32Array([3, 0]));
    expect(large.vm.stats).toMatchObject({ pages_1g: 0, pages_2m: 511, pages_4k: 512 });
    expectSound(large.vm);
  });
});

describe('the verifier', () => {
  type Corrupt = (built: BuiltVm) => void;
  const words = ({ vm }: BuiltVm): Int32Array => vm.mmu.arena.words;
  const leaf = (built: BuiltVm, page: number): number => entryAt(built.vm, built.vcpu, page * 4096).sptep << 1;
  const set =
    (page: number, bits: number): Corrupt =>
    (b) =>
      void (words(b)[leaf(b, page)] |= bits);
  const clear =
    (page: number, bits: number): Corrupt =>
    (b) =>
      void (words(b)[leaf(b, page)] &= ~bits);
  /** Page 0 is mapped large, 600 small; 601 is empty. */
  // biome-ignore format: a table
  it.each<[name: string, what: string, corrupt: Corrupt]>([
    ['frozen',   'an entry stayed frozen',                    (b) => void (words(b)[leaf(b, 601)] = REMOVED_SPTE_LO)],
    ['mmio',     'an entry is junk',                          set(601, SPTE_P)],
    ['writable', 'W without MMU-writable',                    clear(600, SPTE_MMU_WRITABLE)],
    ['writable', 'MMU-writable without host-writable',        clear(600, SPTE_HOST_WRITABLE)],
    ['lpage',    'a small entry says it is large',            set(600, SPTE_PSE)],
    ['nx',       'a large entry is executable',               (b) => void (b.vm.mmu.nxHugePages = true)],
    ['leaf',     'a leaf maps what is in no slot',            (b) => b.vm.mmu.slots[0].replace(b.slot(), null)],     
    ['child',    'a table has another role',                  (b) => void (b.vm.mmu.pages.role[leaf(b, 600) >>> 10] ^= ROLE_CR0_WP)],
    ['child',    'a table has forgotten where it hangs',      (b) => void (b.vm.mmu.pages.parents[leaf(b, 600) >>> 10] = 0)],
    ['roots',    'a root counts a reference too many',        (b) => void b.vm.mmu.pages.rootCount[b.vm.mmu.tdpRoots[0]]++],
    ['tables',   'a table is counted and not linked',         (b) => void b.vm.mmu.nTdpPages++],
    ['tables',   'a walk never ended',                        (b) => void b.vm.mmu.rcuReaders++],
    ['counters', 'pages_4k',                                  (b) => void b.vm.stats.pages_4k++],
    ['logged',   'a large entry of a logged slot may write',  (b) => { b.setFlags(LOG); set(0, SPTE_W)(b); }],
  ])('tells %s: %s', (name, _what, corrupt) => {
    const built = build();
    built.vcpu.touchPage(0, WRITE);
    built.slot().lpageInfo[0][1]++;
    built.vcpu.touchPage(600, WRITE);
    built.slot().lpageInfo[0][1]--;
    expectSound(built.vm);
    corrupt(built);
    const names = new Set(built.vm.verify().map((line) => /^INVARIANT (\w+): /.exec(line)?.[1]));
    expect([...names]).toEqual([name]);
  });
});
