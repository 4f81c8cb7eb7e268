import { expect, it } from 'vitest';
import { DATA_GFNS, ENTRIES, editArgument, L2A, T1, T2, VAS } from '../vm/testing/guest-image.ts';
import { type Op, OP_NAMES } from '../vm/testing/world-plan.ts';
import { World } from '../vm/testing/world.ts';
import type { Mmu } from './mmu.ts';
import { prepareZapPage } from './page-zap.ts';
import { POLICIES } from './policy.ts';
import { ROLE_CR0_WP } from './role.ts';
import { hashBucket } from './shadow-pages.ts';
import { SPTE_HOST_WRITABLE, SPTE_MMU_WRITABLE, SPTE_P, SPTE_PSE, SPTE_W } from './spte.ts';
import { verify } from './verify.ts';

const READ = 0;
const WRITE = 2;

function op(name: (typeof OP_NAMES)[number], a = 0, b = 0, c = 0): Op {
  return [OP_NAMES.indexOf(name), a, b, c];
}

/** A guest without tables that has read 512 (large) and written 2048 (small). */
function direct(...more: Op[]): World {
  const world = new World({
    policy: POLICIES.lazy,
    paging: 'tdp',
    guest: 'touch',
    host: 'flat-2m',
    log: 'legacy',
    tlb: 'stalest',
    mayLose: false,
    hostile: false,
  });
  for (const one of [op('access', READ, 0), op('access', WRITE, DATA_GFNS.indexOf(2048)), ...more]) world.step(one);
  return world;
}

const READS_T1 = 0x601000;
const READS_L2A = 0x602000;

/** A guest with tables that has read a page, and T1 and L2A through entries of T2 that it edited. T2 is out of sync. */
function shadowed(): World {
  const world = new World({
    policy: POLICIES.lazy,
    paging: 'shadow',
    guest: 'tables',
    host: 'flat-2m',
    log: 'legacy',
    tlb: 'stalest',
    mayLose: false,
    hostile: false,
  });
  const read = (va: number): Op => op('access', READ, VAS.indexOf(va));
  for (const one of [read(VAS[0]), read(READS_T1), map(1, T1), map(2, L2A), op('invlpg', 0, VAS.indexOf(READS_T1))])
    world.step(one);
  for (const one of [read(READS_T1), read(READS_L2A)]) world.step(one);
  return world;
}

/** The edit that lets entry `index` of T2 map a frame with all rights. */
function map(index: number, gfn: number): Op {
  const n = ENTRIES.findIndex((entry) => entry.table === T2 && entry.index === index);
  return op('edit', 0, n, editArgument(ENTRIES[n], (gfn << 12) | 0x67));
}

/** The entries of the first vCPU's tables on the way to an address, root first. */
function path(mmu: Mmu, address: number): number[] {
  const { walk } = mmu.vcpus[0];
  const entries: number[] = [];
  for (walk.init(mmu.vcpus[0], address, 0); walk.ok(); walk.next(mmu)) entries.push(walk.sptep);
  return entries;
}
function leaf(mmu: Mmu, address: number): number {
  return path(mmu, address).at(-1) as number;
}
function set(mmu: Mmu, sptep: number, bits: number): void {
  mmu.arena.words[sptep << 1] |= bits;
}
function clear(mmu: Mmu, sptep: number, bits: number): void {
  mmu.arena.words[sptep << 1] &= ~bits;
}
const slot = (mmu: Mmu, gfn: number) => mmu.slots[0].find(gfn)!;

const LOG_SLOT_1 = op('log', 0, 1);
const LARGE = 512 << 12;
const SMALL = 2048 << 12;
/** W with all that it implies. */
const MAY_WRITE = SPTE_W | SPTE_MMU_WRITABLE | SPTE_HOST_WRITABLE;

it.each<[name: string, what: string, world: () => World, corrupt: (mmu: Mmu) => void]>([
  [
    'logged',
    'a large entry of a logged slot may write',
    () => direct(LOG_SLOT_1),
    (m) => set(m, leaf(m, LARGE), SPTE_W),
  ],
  ['rmap', 'a leaf is missing from its list', direct, (m) => slot(m, 2048).rmap[0].fill(0)],
  ['rmap', 'a large leaf is missing from its list', direct, (m) => slot(m, 512).rmap[1].fill(0)],
  ['rmap', 'a leaf is listed twice', direct, (m) => void m.lists.add(slot(m, 2048).rmap[0], 0, leaf(m, SMALL))],
  ['rmap', 'a leaf is listed elsewhere too', direct, (m) => void m.lists.add(slot(m, 512).rmap[0], 9, leaf(m, SMALL))],
  ['rmap', 'an empty entry is listed', direct, (m) => void m.lists.add(slot(m, 2048).rmap[0], 20, leaf(m, SMALL) + 20)],
  ['parents', 'a page has forgotten its parent', direct, (m) => void (m.pages.parents[leaf(m, SMALL) >>> 9] = 0)],
  [
    'parents',
    'a page has one parent twice',
    direct,
    (m) => void m.lists.add(m.pages.parents, leaf(m, SMALL) >>> 9, path(m, SMALL)[2]),
  ],
  ['hash', 'a page can not be found by its gfn', direct, (m) => forget(m, m.pages.gfn[leaf(m, SMALL) >>> 9])],
  ['unsync', 'a synced table may be written', shadowed, (m) => set(m, leaf(m, READS_T1), MAY_WRITE)],
  [
    'unsync',
    'a synced table may soon be written',
    shadowed,
    (m) => set(m, leaf(m, READS_T1), SPTE_MMU_WRITABLE | SPTE_HOST_WRITABLE),
  ],
  ['unsync', 'a page counts a mark too many', shadowed, (m) => void m.pages.unsyncChildren[m.vcpus[0].root.sp]++],
  ['unsync', 'no marks lead to a page that is out of sync', shadowed, unmark],
  ['unsync', 'an upper page is out of sync', shadowed, unsyncRoot],
  ['tracked', 'an upper table may be written', shadowed, (m) => set(m, leaf(m, READS_L2A), MAY_WRITE)],
  ['tracked', 'an upper table is not tracked', shadowed, (m) => void (slot(m, L2A).gfnTrack![L2A] = 0)],
  ['tracked', 'a frame that is no table is tracked', shadowed, (m) => void slot(m, 600).gfnTrack![600 - 512]++],
  ['lpage', 'large mappings are forbidden without a reason', direct, (m) => void slot(m, 1024).lpageInfo[0][1]++],
  ['lpage', 'large mappings of a shadowed table are allowed', shadowed, (m) => void slot(m, T1).lpageInfo[0][0]--],
  ['lpage', 'a small entry says it is large', direct, (m) => set(m, leaf(m, SMALL), SPTE_PSE)],
  ['nx', 'a large entry is executable', direct, (m) => void (m.nxHugePages = true)],
  ['writable', 'W without MMU-writable', direct, (m) => clear(m, leaf(m, SMALL), SPTE_MMU_WRITABLE)],
  ['writable', 'MMU-writable without host-writable', direct, (m) => clear(m, leaf(m, SMALL), SPTE_HOST_WRITABLE)],
  [
    'child',
    'a page of another role is linked',
    direct,
    (m) => void (m.pages.role[leaf(m, SMALL) >>> 9] ^= ROLE_CR0_WP),
  ],
  ['counters', 'pages_4k', direct, (m) => void m.stats.pages_4k++],
  ['counters', 'pages_2m', direct, (m) => void m.stats.pages_2m--],
  ['counters', 'pages_1g', direct, (m) => void m.stats.pages_1g++],
  ['counters', 'mmu_unsync', shadowed, (m) => void m.stats.mmu_unsync++],
  ['counters', 'nx_lpage_splits', direct, (m) => void m.stats.nx_lpage_splits++],
  ['counters', 'used pages', direct, (m) => void m.nUsedPages--],
  ['counters', 'indirect pages', shadowed, (m) => void m.indirectShadowPages++],
  ['roots', 'a root counts a vCPU too many', direct, (m) => void m.pages.rootCount[m.vcpus[0].root.sp]++],
  ['roots', 'a vCPU keeps a root of which nobody knows', direct, (m) => void (m.vcpus[1].root.sp = m.vcpus[0].root.sp)],
  ['roots', 'nobody asks a vCPU to drop its zapped root', zappedRoot, (m) => void (m.vcpus[0].requests = 0)],
  [
    'generation',
    'an obsolete page is younger than a current one',
    direct,
    (m) => void (m.pages.validGen[m.pages.newest] ^= 1),
  ],
  ['mmio', 'an entry is junk', direct, (m) => set(m, leaf(m, SMALL) + 100, SPTE_P)],
])('tells %s: %s', (name, _what, world, corrupt) => {
  const { mmu } = world().vm;
  expect(verify(mmu)).toEqual([]);
  corrupt(mmu);
  const names = new Set(verify(mmu).map((line) => /^INVARIANT (\w+): /.exec(line)?.[1]));
  expect([...names]).toEqual([name]);
});

it('finds a page that was zapped and never freed, once its frame has a page again', () => {
  const { vm } = direct();
  const [, , , l1] = path(vm.mmu, SMALL);
  prepareZapPage(vm.mmu, l1 >>> 9, []);
  // Not the page itself: nothing has flushed it.
  vm.vcpus[0].touchPage(SMALL / 4096 + 1, 0);
  expect(verify(vm.mmu)).toEqual([expect.stringContaining('was zapped and never freed')]);
});

it('changes nothing', () => {
  const { mmu } = shadowed().vm;
  const before = [mmu.arena.words.slice(), mmu.pages.parents.slice(), Object.values(mmu.stats)];
  verify(mmu);
  expect([mmu.arena.words, mmu.pages.parents, Object.values(mmu.stats)]).toEqual(before);
});

/** Empties the bucket of a gfn. */
function forget(mmu: Mmu, gfn: number): void {
  const { buckets } = mmu.pages as unknown as { buckets: Int32Array };
  buckets[hashBucket(gfn)] = 0;
}

/** Takes the root's marks away, and their count with them. */
function unmark(mmu: Mmu): void {
  const { pages } = mmu;
  const root = mmu.vcpus[0].root.sp;
  for (let i = pages.nextUnsyncBit(root, 0); i >= 0; i = pages.nextUnsyncBit(root, i + 1)) {
    pages.clearUnsyncBit(root, i);
    pages.unsyncChildren[root]--;
  }
}

function unsyncRoot(mmu: Mmu): void {
  mmu.pages.unsync[mmu.vcpus[0].root.sp] = 1;
  mmu.stats.mmu_unsync++;
}

/** Everything was zapped, and the vCPU has not run since. */
function zappedRoot(): World {
  return direct(op('nx'));
}
