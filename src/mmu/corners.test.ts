/**
 * Calls of the MMU that no recording needs, because what they guard against takes a race, a log that starts in the middle
 * of a word, or a TLB that outlives a guest entry. Each test fails without its call.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { EFAULT, ENOSPC } from '../base/errno.ts';
import { FLAT_HVA, FlatHost } from '../mem/flat-host.ts';
import { MEM_LOG_DIRTY_PAGES as LOG } from '../mem/memslots.ts';
import { A, buildGuest, type Guest, P, U, W, WUAD } from '../vm/testing/build-guest.ts';
import { activePages, buildVm, entryAt, expectSound, flushesDuring, triple, WRITE } from '../vm/testing/build-vm.ts';
import { CAP_MANUAL_DIRTY_LOG_PROTECT2, POLICIES, type Policy, Vm } from '../vm/vm.ts';
import { isObsolete } from './mmu.ts';
import { MmuNotifier } from './notifier.ts';
import { prepareZapPage, unprotectPage, zapAll, zapAllFast } from './page-zap.ts';
import { mmuPteWrite } from './pte-write.ts';
import * as racePoints from './race.ts';
import { dropSpte, mmuSpteUpdate, spteHi, spteLo } from './rmap.ts';
import { ROLE_GUEST_MODE } from './role.ts';
import { freeCurrentRoot, loadMmu, syncPrevRoots, syncRoots } from './roots.ts';
import { pfnOf, SPTE_D } from './spte.ts';

/** What happens at the next passage of a race point. */
const scheduled = vi.hoisted(() => ({ point: 0, call: (): void => {} }));
vi.mock('./race.ts', async (original) => ({
  ...(await original<typeof racePoints>()),
  race: (point: number): void => {
    if (point !== scheduled.point) return;
    scheduled.point = 0;
    scheduled.call();
  },
}));
function atNext(point: number, call: () => void): void {
  Object.assign(scheduled, { point, call });
}
afterEach(() => atNext(0, () => {}));

const MIB = 2 ** 20;
const DATA = 16 * MIB;
const VA = 0x40000000;
const DATA_SLOT = { id: 1, gpa: DATA, bytes: 4 * MIB };

describe('the first clear of a word that crosses into another large page', () => {
  /** A slot from gfn 32 on, so that a word of the log spans gfn 1024; two large pages, all bits set. */
  function initiallySet(policy?: Policy): { vm: Vm; large: () => string[]; clear: (...gfns: number[]) => void } {
    const base = 32 * 4096;
    const vm = new Vm({ host: new FlatHost({ bytes: 2 ** 30, level: 2, sparse: true }), npt: true, policy });
    vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, 3);
    const slot = { slot: 0, guestPhysAddr: base, memorySize: 2048 * 4096, userspaceAddr: FLAT_HVA + base };
    vm.setUserMemoryRegion({ ...slot, flags: 0 });
    const vcpu = vm.createVcpu();
    for (const gfn of [600, 1100]) vcpu.touchPage(gfn, WRITE);
    vm.setUserMemoryRegion({ ...slot, flags: LOG });
    return {
      vm,
      large: () =>
        [600, 1100].map((gfn) => {
          const { level, lo } = entryAt(vm, vcpu, gfn * 4096);
          return `${level}:${triple(lo)}`;
        }),
      clear: (...gfns) => {
        const mask = Int32Array.of(0, 0);
        for (const gfn of gfns) mask[(gfn - 992) >>> 5] |= 1 << ((gfn - 992) & 31);
        vm.clearDirtyLog(0, 960, 64, mask);
      },
    };
  }

  it('protects both', () => {
    const { vm, large, clear } = initiallySet();
    expect(large()).toEqual(['2:111', '2:111']);
    clear(1000, 1030);
    expect(large()).toEqual(['2:100', '2:100']);
    expectSound(vm);
  });

  it('protects one if all pages lie in it', () => {
    const { large, clear } = initiallySet();
    clear(1000, 1001);
    expect(large()).toEqual(['2:100', '2:111']);
  });

  it('is flushed under mmu_lock only by the policy that drops what it protects', () => {
    for (const policy of [POLICIES.zap, POLICIES.lazy]) {
      const { vm, clear } = initiallySet(policy);
      // The other one is the ioctl's own.
      const before = vm.stats.remote_tlb_flush_requests;
      clear(1000);
      expect(vm.stats.remote_tlb_flush_requests - before).toBe(policy === POLICIES.zap ? 2 : 1);
      expectSound(vm);
    }
  });

  it('misses the second, as Linux 6.1 does, if only its first page is meant: both addresses round up to it', () => {
    const { large, clear } = initiallySet();
    clear(1000, 1024);
    expect(large()).toEqual(['2:100', '2:111']);
  });
});

describe('a fault whose root became obsolete before it took the lock', () => {
  it('maps nothing there and is taken again', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vcpu.touchPage(1, WRITE);
    const { pf_taken, pf_fixed } = vcpu.mmu.stats;
    atNext(racePoints.RACE_FAULT_BEFORE_LOCK, () => zapAllFast(vm.mmu));
    vcpu.touchPage(100, WRITE);
    expect([vcpu.mmu.stats.pf_taken - pf_taken, vcpu.mmu.stats.pf_fixed - pf_fixed]).toEqual([2, 1]);
    expectSound(vm);
  });
});

describe('a shadow fault', () => {
  it('is taken again if the top entry of the walk changed before it took the lock', () => {
    // Another top entry than that of the low memory, where the guest's code is.
    const HIGH = 2 ** 40;
    const guest = buildGuest({ slots: [DATA_SLOT], maps: [{ va: HIGH, gpa: DATA }] });
    guest.expectDone('nop');
    const { host, slots } = guest.vm.mmu;
    const hva = slots[0].byId(0)!.userspaceAddr + guest.entry(HIGH, 4);
    atNext(racePoints.RACE_FAULT_BEFORE_LOCK, () => host.writeUser(hva, new Uint8Array(8), 8));
    expect(guest.read(HIGH)).toBe('pf');
    expectSound(guest.vm);
  });

  it('tells whether the page holds a table that translates it, whatever the access', () => {
    const guest = buildGuest({ slots: [DATA_SLOT], maps: [{ va: VA, gpa: DATA }] });
    const { fault } = guest.vcpu.mmu;
    // The first MiB's table of level 1, by its own address; then data.
    guest.expectDone(`r64 ${guest.entry(0xff000, 1)}`);
    expect(fault.writeFaultToShadowPgtable).toBe(true);
    guest.expectDone(`r ${VA}`);
    expect(fault.writeFaultToShadowPgtable).toBe(false);
  });
});

describe('a fault between two batches of a zap of everything', () => {
  it('takes no page that is on its way out', () => {
    // Each region has a table of its own: enough of them for a second batch.
    const { vm, vcpu } = buildVm({ level: 1, pages: 40 * 512 });
    for (let region = 0; region < 40; region++) vcpu.touchPage(region * 512, WRITE);
    let linked = 0;
    atNext(racePoints.RACE_ZAP_BATCH, () => {
      vcpu.touchPage(39 * 512, WRITE);
      linked = entryAt(vm, vcpu, 39 * 512 * 4096).sptep >>> 9;
      expect(isObsolete(vm.mmu, linked)).toBe(false);
    });
    zapAllFast(vm.mmu);
    expect(linked).not.toBe(0);
    expect(activePages(vm)).toContain(linked);
    expectSound(vm);
  });
});

describe('the host learns that a frame was written', () => {
  /** The host's frames as told, while `call` handles the entry of a written page; the entry's own frame first. */
  function told(written: boolean, call: (vm: Vm, sptep: number) => void): number[] {
    const { vm, vcpu } = buildVm({ level: 1, flags: LOG });
    vcpu.touchPage(3, WRITE);
    const { sptep, lo, hi } = entryAt(vm, vcpu, 3 * 4096);
    if (!written) vm.mmu.arena.words[sptep << 1] &= ~SPTE_D;
    const markDirty = vi.spyOn(vm.mmu.host, 'markDirty');
    call(vm, sptep);
    return [pfnOf(lo, hi), ...markDirty.mock.calls.map(([pfn]) => pfn)];
  }
  const clean = (vm: Vm, sptep: number): void => {
    const lo = spteLo(vm.mmu, sptep);
    const flush = mmuSpteUpdate(vm.mmu, sptep, lo & ~SPTE_D, spteHi(vm.mmu, sptep));
    expect(flush).toBe((lo & SPTE_D) !== 0);
  };
  const drop = (vm: Vm, sptep: number): void => dropSpte(vm.mmu, sptep);

  it.each([
    ['when D is cleared', clean],
    ['when the entry goes', drop],
  ])('%s', (_when, call) => {
    const [pfn, ...written] = told(true, call);
    expect(written).toEqual([pfn]);
    expect(told(false, call)).toHaveLength(1);
  });
});

describe('a root', () => {
  it.each([
    ['direct', true],
    ['shadow', false],
  ])('is not made (%s) if no page may be used', (_kind, npt) => {
    const { vm, vcpu } = buildGuest({ npt });
    freeCurrentRoot(vm.mmu, vcpu.mmu);
    vm.mmu.nMaxPages = 0;
    expect(loadMmu(vm.mmu, vcpu.mmu)).toBe(-ENOSPC);
    vm.mmu.nMaxPages = 100;
    expect(loadMmu(vm.mmu, vcpu.mmu)).toBe(0);
  });

  it('that was used before is given up when it has become stale, and kept when not', () => {
    const guest = buildGuest({ roots: 2, slots: [DATA_SLOT], maps: [{ va: VA, gpa: DATA, count: 2 }] });
    const { mmu } = guest.vcpu;
    const previous = (): number => mmu.prevRoots.filter(({ sp }) => sp !== 0).length;
    guest.expectDone(`r ${VA}`, 'cr3 1', 'cr3 0', 'cr3 1');
    expect(previous()).toBe(1);
    syncPrevRoots(guest.vm.mmu, mmu);
    expect(previous()).toBe(1);
    guest.expectDone('cr3 0', `w64 ${guest.entry(VA, 1) + 8} ${DATA + 0x1000 + WUAD}`);
    expect(guest.vm.stats.mmu_unsync).toBe(1);
    guest.vcpu.mmu.prevRoots[2].sp = mmu.root.sp;
    guest.vm.mmu.pages.rootCount[mmu.root.sp]++;
    syncPrevRoots(guest.vm.mmu, mmu);
    expect([previous(), guest.vm.mmu.pages.rootCount[mmu.root.sp]]).toEqual([1, 1]);
    expectSound(guest.vm);
  });
});

describe('pages of a nested guest', () => {
  it('go with their last parent, as nothing else would find them again', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vcpu.touchPage(3, WRITE);
    const { mmu } = vm;
    const child = entryAt(vm, vcpu, 3 * 4096).sptep >>> 9;
    const parent = mmu.lists.first(mmu.pages.parents, child) >>> 9;
    mmu.pages.role[child] |= ROLE_GUEST_MODE;
    const invalid: number[] = [];
    prepareZapPage(mmu, parent, invalid);
    expect(invalid).toEqual([child, parent]);
  });

  it('unlike those of others', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vcpu.touchPage(3, WRITE);
    const child = entryAt(vm, vcpu, 3 * 4096).sptep >>> 9;
    const invalid: number[] = [];
    prepareZapPage(vm.mmu, vm.mmu.lists.first(vm.mmu.pages.parents, child) >>> 9, invalid);
    expect(invalid).not.toContain(child);
    expect(activePages(vm)).toContain(child);
  });
});

describe('the end of a VM', () => {
  it('zaps and frees all pages but the roots in use', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    for (const gfn of [0, 600, 1000]) vcpu.touchPage(gfn, WRITE);
    const { mmu } = vm;
    const gfns = activePages(vm).map((sp) => mmu.pages.gfn[sp]);
    expect(gfns.length).toBeGreaterThan(4);
    expect(flushesDuring(vm, () => zapAll(mmu))).toBe(1);
    expect([activePages(vm), mmu.nUsedPages, vm.stats.pages_4k]).toEqual([[], 1, 0]);
    for (const gfn of gfns)
      for (let sp = mmu.pages.bucketFirst(gfn); sp !== 0; sp = mmu.pages.bucketNext(sp))
        expect(sp).toBe(vcpu.mmu.root.sp);
  });
});

describe('giving up what mirrors a guest table', () => {
  /** Twenty regions with a table each. */
  function manyTables(): Guest {
    const maps = Array.from({ length: 20 }, (_, i) => ({ va: VA + 2 * MIB * i, gpa: DATA }));
    const guest = buildGuest({ slots: [DATA_SLOT], maps });
    for (const { va } of maps) guest.expectDone(`r ${va}`);
    return guest;
  }
  const tableOf = (guest: Guest, region: number): number => Math.floor(guest.entry(VA + 2 * MIB * region, 1) / 4096);

  it('zaps and frees its page', () => {
    const guest = manyTables();
    const { mmu } = guest.vm;
    const gfn = tableOf(guest, 3);
    const used = mmu.nUsedPages;
    expect(flushesDuring(guest.vm, () => expect(unprotectPage(mmu, gfn)).toBe(true))).toBe(1);
    expect(mmu.nUsedPages).toBe(used - 1);
    expect(activePages(guest.vm).some((sp) => mmu.pages.gfn[sp] === gfn)).toBe(false);
    for (let sp = mmu.pages.bucketFirst(gfn); sp !== 0; sp = mmu.pages.bucketNext(sp))
      expect(mmu.pages.gfn[sp]).not.toBe(gfn);
    expect(unprotectPage(mmu, gfn)).toBe(false);
    expectSound(guest.vm);
  });

  it('leaves a page to the zap of everything that is under way', () => {
    const guest = manyTables();
    const { mmu } = guest.vm;
    let found: boolean | undefined;
    atNext(racePoints.RACE_ZAP_BATCH, () => {
      found = unprotectPage(mmu, tableOf(guest, 19));
      // A write across two entries: it makes the page go if the page still counts.
      mmuPteWrite(mmu, guest.vcpu.mmu, tableOf(guest, 19), 4, 8);
    });
    zapAllFast(mmu);
    expect([found, guest.vm.stats.mmu_flooded]).toEqual([false, 0]);
    expectSound(guest.vm);
  });
});

describe('a guest table that is out of sync and becomes a table of a higher level', () => {
  it('loses its page of the lower level', () => {
    const OTHER = VA + 2 ** 30;
    const guest = buildGuest({
      slots: [DATA_SLOT],
      maps: [
        { va: VA, gpa: DATA, count: 2 },
        // Makes the tables down to level 2 for the other address.
        { va: OTHER, gpa: DATA },
      ],
      // As a table of level 2, the table of level 1 has the first data page as its first table.
      data: [[DATA, BigInt(DATA + 0x1000 + WUAD)]],
    });
    guest.expectDone(`r ${VA}`);
    const table = guest.entry(VA, 1) - (guest.entry(VA, 1) % 4096);
    // The guest writes its table: out of sync from now on.
    guest.expectDone(`w64 ${guest.entry(VA, 1) + 8} ${DATA + 0x1000 + WUAD}`);
    const { pages } = guest.vm.mmu;
    const ofTable = (): number[] => activePages(guest.vm).filter((sp) => pages.gfn[sp] === table / 4096);
    expect(ofTable().map((sp) => [pages.role[sp] & 15, pages.unsync[sp]])).toEqual([[1, 1]]);
    // The entry of level 3 for the other address points at it: its leaves are now what was mapped through level 1.
    const flushes = flushesDuring(guest.vm, () => {
      guest.expectDone(`hw ${guest.entry(OTHER, 3)} ${table + (P | W | U | A)}`);
      guest.do(`r ${OTHER}`);
    });
    expect(ofTable().map((sp) => pages.role[sp] & 15)).toEqual([2]);
    expect(flushes).toBeGreaterThan(0);
    // And it is freed: the hash holds it no more.
    for (let sp = pages.bucketFirst(table / 4096); sp !== 0; sp = pages.bucketNext(sp))
      expect(activePages(guest.vm)).toContain(sp);
    expectSound(guest.vm);
  });
});

describe('a stale page whose guest table can not be read', () => {
  it('is zapped when it should be synced', () => {
    const guest = buildGuest({ slots: [DATA_SLOT], maps: [{ va: VA, gpa: DATA, count: 2 }] });
    guest.expectDone(`r ${VA}`, `w64 ${guest.entry(VA, 1) + 8} ${DATA + 0x1000 + WUAD}`);
    const { mmu } = guest.vm;
    const gfn = Math.floor(guest.entry(VA, 1) / 4096);
    const isThere = (): boolean => activePages(guest.vm).some((sp) => mmu.pages.gfn[sp] === gfn);
    expect([guest.vm.stats.mmu_unsync, isThere()]).toEqual([1, true]);
    const read = vi.spyOn(mmu.host, 'readUserAtomic').mockReturnValue(-EFAULT);
    syncRoots(mmu, guest.vcpu.mmu);
    expect(read).toHaveBeenCalled();
    read.mockRestore();
    expect([guest.vm.stats.mmu_unsync, isThere()]).toEqual([0, false]);
    for (let sp = mmu.pages.bucketFirst(gfn); sp !== 0; sp = mmu.pages.bucketNext(sp))
      expect(mmu.pages.gfn[sp]).not.toBe(gfn);
    expectSound(guest.vm);
  });
});

describe('the TLB forgets the address', () => {
  function addressesFlushed(op: string, bits: number): string[] {
    const guest = buildGuest({ slots: [DATA_SLOT], maps: [{ va: VA, gpa: DATA, bits }] });
    guest.expectDone('nop');
    const flush = vi.spyOn(guest.vcpu.mmu.port, 'flushTlbGva');
    guest.do(op);
    return flush.mock.calls.map(([lo, hi]) => `${hi}:${lo}`);
  }

  it('of an INVLPG', () => {
    expect(addressesFlushed(`invlpg ${VA}`, WUAD)).toEqual([`0:${VA}`]);
  });

  it('of a #PF about rights, for the guest', () => {
    expect(addressesFlushed(`w ${VA} 1`, P | A)).toEqual([`0:${VA}`]);
  });

  it('not of a #PF about an entry that is not present', () => {
    expect(addressesFlushed(`r ${VA}`, 0)).toEqual([]);
  });
});

describe('a notifier', () => {
  it('flushes after it took away A bits, if asked to', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vcpu.touchPage(3, WRITE);
    const notifier = new MmuNotifier(vm.mmu);
    const [start, end] = [FLAT_HVA + 3 * 4096, FLAT_HVA + 4 * 4096];
    expect(notifier.testYoung(start)).toBe(true);
    expect(flushesDuring(vm, () => expect(notifier.clearFlushYoung(start, end)).toBe(true))).toBe(1);
    expect(notifier.testYoung(start)).toBe(false);
    expect(flushesDuring(vm, () => expect(notifier.clearFlushYoung(start, end)).toBe(false))).toBe(0);
    vcpu.touchPage(3, WRITE);
    expect(flushesDuring(vm, () => notifier.clearYoung(start, end))).toBe(0);
  });

  it('flushes what it mapped of a page that got another frame', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vcpu.touchPage(3, WRITE);
    const notifier = new MmuNotifier(vm.mmu);
    const hva = FLAT_HVA + 3 * 4096;
    expect(flushesDuring(vm, () => notifier.changePte(hva))).toBe(0);
    // In a range that is being invalidated, but not of this page: the page is still mapped.
    notifier.invalidateRangeStart(hva + 4096, hva + 8192);
    expect(flushesDuring(vm, () => notifier.changePte(hva))).toBe(1);
    expect(flushesDuring(vm, () => notifier.changePte(hva))).toBe(0);
    notifier.invalidateRangeEnd(hva + 4096, hva + 8192);
    expectSound(vm);
  });
});
