/** EPT as a whole: what KVM writes, what the CPU makes of it, what KVM makes of the exit; under both nested engines. */
import { describe, expect, it, vi } from 'vitest';
import { EFAULT, EINVAL } from '../base/errno.ts';
import { toBigInt } from '../base/u64.ts';
import { FLAT_HVA, FlatHost } from '../mem/flat-host.ts';
import { MEM_LOG_DIRTY_PAGES as LOG } from '../mem/memslots.ts';
import { MmuNotifier } from '../mmu/notifier.ts';
import { rmapClearDirty } from '../mmu/rmap.ts';
import { ROLE_AD_DISABLED, roleLevel } from '../mmu/role.ts';
import {
  isAccessTracked,
  isDirty,
  isMmioSpte,
  pfnOf,
  SPTE_AD_DISABLED_HI,
  SPTE_AD_WRPROT_ONLY_HI,
  SPTE_W,
} from '../mmu/spte.ts';
import { Tracer } from '../trace/tracer.ts';
import { TP_EXIT, TP_FAST_PAGE_FAULT, TP_PAGE_FAULT, TP_PML_FULL } from '../trace/tracepoints.ts';
import {
  bitsOf,
  buildVm,
  type BuiltVm,
  entryAt,
  errnoOf,
  expectSound,
  FETCH,
  READ,
  WRITE,
} from './testing/build-vm.ts';
import { CAP_DIRTY_LOG_RING, type EptFeatures, Vm } from './vm.ts';

const AD: EptFeatures = { ad: true, executeOnly: true, pml: false };
const PML: EptFeatures = { ad: true, executeOnly: true, pml: true };
const NO_AD: EptFeatures = { ad: false, executeOnly: true, pml: false };
const ENGINES = [
  ['rmap engine', false],
  ['TDP MMU', true],
] as const;

const wordOf = (built: BuiltVm, gfn: number): bigint => {
  const { lo, hi } = entryAt(built.vm, built.vcpu, gfn * 4096);
  return toBigInt(lo, hi) & ~(((1n << 40n) - 1n) << 12n);
};

/** Fields of the records of one tracepoint, in order. */
function recordsDuring(vm: Vm, ids: readonly number[], act: () => void): number[][] {
  const records: number[][] = [];
  const emit = vm.trace.emit.bind(vm.trace);
  vm.trace.on = true;
  vm.trace.emit = (...words: number[]): void => {
    if (ids.includes(words[0])) records.push(words);
  };
  act();
  vm.trace.emit = emit;
  vm.trace.on = false;
  return records;
}

describe.each(ENGINES)('the entries of the %s', (_name, tdpMmu) => {
  // 11 MMU-present, 57 and 58 host- and MMU-writable, 52 no A/D; WB, IPAT.
  // biome-ignore format: a table
  it.each([
    ['A/D, written',     AD,    WRITE, 1, 0x0600_0000_0000_0b77n],
    ['A/D, read',        AD,    READ,  1, 0x0600_0000_0000_0b77n],
    ['A/D, large',       AD,    WRITE, 2, 0x0600_0000_0000_0bf7n],
    ['without, written', NO_AD, WRITE, 1, 0x0610_0000_0000_0877n],
    ['without, large',   NO_AD, FETCH, 2, 0x0610_0000_0000_08f7n],
  ] as const)('%s', (_case, ept, kind, level, word) => {
    const built = buildVm({ ept, tdpMmu, level });
    built.vcpu.touchPage(3, kind);
    expect(wordOf(built, 3).toString(16)).toBe(word.toString(16));
    expectSound(built.vm);
  });

  it('are not executable while large under the mitigation, and are split so that they are', () => {
    const built = buildVm({ ept: AD, tdpMmu, nxHugePages: true, level: 2 });
    built.vcpu.touchPage(3, WRITE);
    expect(wordOf(built, 3) & 7n).toBe(3n);
    built.vcpu.touchPage(3, FETCH);
    expect([wordOf(built, 3) & 7n, entryAt(built.vm, built.vcpu, 3 * 4096).level]).toEqual([7n, 1]);
    expectSound(built.vm);
  });

  it('of MMIO are misconfigured on purpose, so that no fault is traced', () => {
    const { vm, vcpu } = buildVm({ ept: AD, tdpMmu });
    const HOLE = 2000;
    const first = recordsDuring(vm, [TP_EXIT, TP_PAGE_FAULT], () =>
      expect(errnoOf(() => vcpu.touchPage(HOLE, READ))).toBe(EFAULT),
    );
    expect(first.map(([id]) => id)).toEqual([TP_PAGE_FAULT]);
    const { lo, hi } = entryAt(vm, vcpu, HOLE * 4096);
    expect([lo & 7, isMmioSpte(vm.mmu.format, lo, hi)]).toEqual([6, true]);
    const second = recordsDuring(vm, [TP_PAGE_FAULT], () => void errnoOf(() => vcpu.touchPage(HOLE, WRITE)));
    expect(second).toEqual([]);
    expectSound(vm);
  });
});

describe('the exit qualification', () => {
  // biome-ignore format: a table
  it.each([
    ['a read of nothing',       READ,  0x181],
    ['a write to nothing',      WRITE, 0x182],
    ['a fetch from nothing',    FETCH, 0x184],
  ] as const)('of %s is what the tracepoint shows', (_case, kind, qualification) => {
    const { vm, vcpu } = buildVm({ ept: AD });
    const [record] = recordsDuring(vm, [TP_PAGE_FAULT], () => vcpu.touchPage(3, kind));
    expect(record.slice(6, 8)).toEqual([qualification, 0]);
  });

  it('of a write to a protected page has its R and X; KVM makes P and W of it', () => {
    const built = buildVm({ ept: AD, level: 1 });
    const { vm, vcpu } = built;
    vcpu.touchPage(3, WRITE);
    built.setFlags(LOG);
    const records = recordsDuring(vm, [TP_PAGE_FAULT, TP_FAST_PAGE_FAULT], () => vcpu.touchPage(3, WRITE));
    expect(records.map(([id]) => id)).toEqual([TP_PAGE_FAULT, TP_FAST_PAGE_FAULT]);
    expect(records[0][6]).toBe(0x182 | (5 << 3));
    expect(records[1][4]).toBe(3);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([3]);
  });
});

describe.each(ENGINES)('without A and D the %s', (_name, tdpMmu) => {
  const build = (): BuiltVm => buildVm({ ept: NO_AD, tdpMmu, level: 1 });
  const age = (vm: Vm): boolean => new MmuNotifier(vm.mmu).clearFlushYoung(FLAT_HVA, FLAT_HVA + 8 * 4096);

  it('marks tables and prefetches nothing', () => {
    const { vm, vcpu } = build();
    vcpu.touchPage(3, WRITE);
    expect([vcpu.mmu.rootRole & ROLE_AD_DISABLED, vm.stats.pages_4k]).toEqual([ROLE_AD_DISABLED, 1]);
  });

  it('tells use by taking an entry away, and gives R and X back on the fast path', () => {
    const built = build();
    const { vm, vcpu } = built;
    vcpu.touchPage(3, WRITE);
    const before = wordOf(built, 3);
    expect([age(vm), age(vm)]).toEqual([true, false]);
    const { lo, hi } = entryAt(vm, vcpu, 3 * 4096);
    expect([lo & 7, isAccessTracked(vm.mmu.format, lo, hi), (hi >>> 22) & 5]).toEqual([0, true, 5]);
    expectSound(vm);
    const fixes = vcpu.mmu.stats.pf_fast;
    vcpu.touchPage(3, READ);
    expect([vcpu.mmu.stats.pf_fast - fixes, wordOf(built, 3)]).toEqual([1, before & ~2n]);
    expect(age(vm)).toBe(true);
    // A write gets W too, at once.
    vcpu.touchPage(3, WRITE);
    expect([vcpu.mmu.stats.pf_fast - fixes, wordOf(built, 3)]).toEqual([2, before]);
    expectSound(vm);
  });

  it('tells the host that a page is dirty before W goes', () => {
    const { vm, vcpu } = build();
    const dirtied: number[] = [];
    const { host } = vm.mmu;
    const markDirty = host.markDirty.bind(host);
    host.markDirty = (pfn) => {
      dirtied.push(pfn);
      markDirty(pfn);
    };
    vcpu.touchPage(3, WRITE);
    age(vm);
    // The TDP MMU tells it twice: as it ages the page, and as the change of the entry shows it.
    const told = tdpMmu ? 2 : 1;
    expect(dirtied).toHaveLength(told);
    age(vm);
    expect(dirtied).toHaveLength(told);
  });

  it('logs by taking W away, and dirtiness is told with it', () => {
    const built = build();
    const { vm, vcpu } = built;
    vcpu.touchPage(3, WRITE);
    const markDirty = vi.spyOn(vm.mmu.host, 'markDirty');
    built.setFlags(LOG);
    expect(markDirty).toHaveBeenCalledTimes(1);
    const { lo, hi } = entryAt(vm, vcpu, 3 * 4096);
    expect([lo & 7, isDirty(vm.mmu.format, lo, hi)]).toEqual([5, false]);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([]);
    vcpu.touchPage(3, WRITE);
    age(vm);
    vcpu.touchPage(4, READ);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([3, 4]);
    vcpu.touchPage(3, WRITE);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([3]);
    expectSound(vm);
  });
});

it.each(ENGINES)('with D and without PML the %s takes W, and nothing is told: D stays', (_name, tdpMmu) => {
  const built = buildVm({ ept: AD, tdpMmu, level: 1 });
  const { vm, vcpu } = built;
  vcpu.touchPage(3, WRITE);
  const markDirty = vi.spyOn(vm.mmu.host, 'markDirty');
  built.setFlags(LOG);
  const { lo, hi } = entryAt(vm, vcpu, 3 * 4096);
  expect([lo & SPTE_W, isDirty(vm.mmu.format, lo, hi)]).toEqual([0, true]);
  // Nor as a writable page ages.
  vcpu.touchPage(3, WRITE);
  expect(new MmuNotifier(vm.mmu).clearFlushYoung(FLAT_HVA, FLAT_HVA + 8 * 4096)).toBe(true);
  expect(markDirty).not.toHaveBeenCalled();
});

describe.each(ENGINES)('page-modification logging under the %s', (_name, tdpMmu) => {
  const MANY = 600;
  const build = (more: Parameters<typeof buildVm>[0] = {}): BuiltVm =>
    buildVm({ ept: PML, tdpMmu, level: 1, pages: 2048, ...more });
  const writeMany = ({ vcpu }: BuiltVm): void => {
    for (let gfn = 0; gfn < MANY; gfn++) vcpu.touchPage(gfn, WRITE);
  };
  const all = Array.from({ length: MANY }, (_, gfn) => gfn);

  it('is on while a slot is logged', () => {
    const built = build();
    const { vm, vcpu } = built;
    const { pml } = vcpu.cpu;
    vcpu.touchPage(0, WRITE);
    expect([pml.enabled, vm.mmu.cpuDirtyLoggingCount]).toEqual([false, 0]);
    built.setFlags(LOG);
    vcpu.touchPage(0, WRITE);
    expect([pml.enabled, vm.mmu.cpuDirtyLoggingCount, pml.index]).toEqual([true, 1, 510]);
    expect(vm.createVcpu().cpu.pml.enabled).toBe(true);
    built.setFlags(0);
    vcpu.touchPage(0, WRITE);
    expect([pml.enabled, vm.mmu.cpuDirtyLoggingCount]).toEqual([false, 0]);
  });

  it('keeps pages writable: no fault, and one exit when the buffer is full', () => {
    const built = build();
    const { vm, vcpu } = built;
    writeMany(built);
    built.setFlags(LOG);
    const { exits, pf_taken } = vcpu.mmu.stats;
    const records = recordsDuring(vm, [TP_PAGE_FAULT, TP_PML_FULL], () => writeMany(built));
    expect(records).toEqual([[TP_PML_FULL, 0]]);
    expect([vcpu.mmu.stats.exits - exits, vcpu.mmu.stats.pf_taken - pf_taken]).toEqual([1, 0]);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual(all);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([]);
    vcpu.touchPage(7, WRITE);
    vcpu.touchPage(7, WRITE);
    expect([vcpu.cpu.pml.index, bitsOf(vm.getDirtyLog(0))]).toEqual([510, [7]]);
    expectSound(vm);
  });

  it('still protects large pages, which a write drops', () => {
    const built = build({ level: 2 });
    const { vm, vcpu } = built;
    vcpu.touchPage(5, WRITE);
    built.setFlags(LOG);
    const { lo, level } = entryAt(vm, vcpu, 0);
    if (vm.mmu.eagerPageSplit) throw new Error('lazy is meant');
    expect([level, lo & 2]).toEqual([2, 0]);
    vcpu.touchPage(6, WRITE);
    expect(entryAt(vm, vcpu, 6 * 4096).level).toBe(1);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([6]);
    vcpu.touchPage(6, WRITE);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([6]);
    expectSound(vm);
  });

  it('logs from the first CLEAR on where the log starts all ones', () => {
    const built = build({ level: 2, manual: 3, pages: 512 });
    const { vm, vcpu } = built;
    vcpu.touchPage(5, WRITE);
    built.setFlags(LOG);
    vcpu.touchPage(6, WRITE);
    expect(bitsOf(vm.getDirtyLog(0))).toHaveLength(512);
    vm.clearDirtyLog(0, 0, 512, new Int32Array(16).fill(-1));
    vcpu.touchPage(7, WRITE);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([7]);
    vm.clearDirtyLog(0, 0, 64, new Int32Array(2).fill(-1));
    vcpu.touchPage(7, WRITE);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([7]);
  });

  it('fills rings, with room for the buffer in their reserve', () => {
    const built = build({ ring: 16384 });
    const { vm, vcpu } = built;
    const ring = vcpu.dirtyRing!;
    expect(ring.softLimit).toBe(1024 - 64 - 512);
    writeMany(built);
    built.setFlags(LOG);
    const seen = new Set<number>();
    const take = (): void => void (ring.harvest((_slot, page) => seen.add(page)), vm.resetDirtyRings());
    for (let gfn = 0; gfn < MANY; gfn++) while (errnoOf(() => vcpu.touchPage(gfn, WRITE)) !== 0) take();
    vcpu.mmu.port.kick();
    take();
    expect([...seen].sort((a, b) => a - b)).toEqual(all);
  });

  it('asks for rings that hold the buffer', () => {
    const host = new FlatHost({ bytes: 2 ** 30, level: 1, sparse: true });
    const vm = new Vm({ host, npt: true, tdpMmu, ept: PML, trace: new Tracer() });
    expect(errnoOf(() => vm.enableCap(CAP_DIRTY_LOG_RING, 8192))).toBe(EINVAL);
    expect(errnoOf(() => vm.enableCap(CAP_DIRTY_LOG_RING, 16384))).toBe(0);
  });
});

it("collecting a page takes D from each of its entries, but W from a nested guest's, and from one without D, which tells the host", () => {
  const { vm, vcpu } = buildVm({ ept: PML, level: 1 });
  const { mmu } = vm;
  for (const gfn of [3, 4, 5]) vcpu.touchPage(gfn, WRITE);
  const entries = [3, 4, 5].map((gfn) => entryAt(vm, vcpu, gfn * 4096).sptep);
  const { words } = mmu.arena;
  words[(entries[1] << 1) + 1] |= SPTE_AD_WRPROT_ONLY_HI;
  words[(entries[2] << 1) + 1] |= SPTE_AD_DISABLED_HI;
  // As if all of them mapped frame 3.
  const [heads] = mmu.slots[0].byId(0)!.rmap;
  for (const sptep of entries.slice(1)) mmu.lists.add(heads, 3, sptep);
  const markDirty = vi.spyOn(mmu.host, 'markDirty');
  expect(rmapClearDirty(mmu, heads, 3)).toBe(true);
  expect(entries.map((sptep) => words[sptep << 1] & (SPTE_W | mmu.format.dirtyLo))).toEqual([
    SPTE_W,
    mmu.format.dirtyLo,
    mmu.format.dirtyLo,
  ]);
  const pfns = [3, 5].map((gfn) => pfnOf(entryAt(vm, vcpu, gfn * 4096).lo, entryAt(vm, vcpu, gfn * 4096).hi));
  expect(markDirty.mock.calls.flat()).toEqual(pfns);
  expect(rmapClearDirty(mmu, heads, 3)).toBe(false);
});

describe('five levels', () => {
  // biome-ignore format: a table
  it.each([
    ['NPT has as many as the host',           undefined, 5, 40, 5],
    ['NPT of a host with four',               undefined, 4, 40, 4],
    ['EPT needs no fifth for 48 bits',        AD,        5, 48, 4],
    ['EPT with a fifth for more',             AD,        5, 52, 5],
    ['EPT without a fifth',                   AD,        4, 52, 4],
  ] as const)('%s', (_case, ept, hostLevels, guestMaxphyaddr, levels) => {
    for (const tdpMmu of [false, true]) {
      const built = buildVm({ ept, hostLevels, guestMaxphyaddr, tdpMmu, level: 1 });
      const { vm, vcpu } = built;
      for (const kind of [READ, WRITE, FETCH]) for (const gfn of [3, 1000]) vcpu.touchPage(gfn, kind);
      expect(roleLevel(vcpu.mmu.rootRole)).toBe(levels);
      built.setFlags(LOG);
      vcpu.touchPage(3, WRITE);
      expect(bitsOf(vm.getDirtyLog(0))).toEqual([3]);
      vm.setUserMemoryRegion({ slot: 0, flags: 0, guestPhysAddr: 0, memorySize: 0, userspaceAddr: FLAT_HVA });
      expect(errnoOf(() => vcpu.touchPage(3, READ))).toBe(EFAULT);
      expectSound(vm);
    }
  });
});
