/**
 * What went wrong once in the kernel, a test each; the commits tell the whole story. B1, B2 ... are the entries of the
 * reference's bug museum.
 *
 * Shadow paging: 16 MiB on is data in small host pages. The guest's tables lie in its first MiB and are mapped at their
 * own addresses, so that guest ops can write them; `hw` is a write of the VMM behind KVM's back.
 */
import { describe, expect, it } from 'vitest';
import { FLAT_HVA } from '../mem/flat-host.ts';
import { MEM_LOG_DIRTY_PAGES as LOG, MEMSLOT_INVALID } from '../mem/memslots.ts';
import { A, buildGuest, D, type Guest, type GuestOptions, P, PS, U, W, WUAD } from '../vm/testing/build-guest.ts';
import {
  activePages,
  bitsOf,
  buildVm,
  entryAt,
  expectSound,
  flushesDuring,
  READ,
  triple,
  WRITE,
} from '../vm/testing/build-vm.ts';
import { POLICIES } from '../vm/vm.ts';
import { doPageFault } from './fault.ts';
import { PFERR_PRESENT, PFERR_USER, PFERR_WRITE } from './guest-mode.ts';
import { makeSpte } from './make-spte.ts';
import { isObsolete } from './mmu.ts';
import { CopyOnWriteHost } from './museum/testing/copy-on-write-host.ts';
import { RET_PF_RETRY } from './page-fault.ts';
import { isTracked } from './page-track.ts';
import { spteLo, spteWriteProtect } from './rmap.ts';
import { slotGfnWriteProtect } from './write-protect.ts';
import { indexOf, spOf, tablePfn } from './shadow-pages.ts';
import {
  ACC_ALL,
  isLarge,
  isMmioSpte,
  isShadowPresent,
  isWritable,
  nonleafLo,
  SPTE_MMU_PRESENT,
  SPTE_PSE,
  SPTE_W,
} from './spte.ts';

const MIB = 2 ** 20;
/** Guest-physical start of the data slot. */
const DATA = 16 * MIB;
const VA = 0x40000000;
const DATA_SLOT = { id: 1, gpa: DATA, bytes: 4 * MIB };

/** A guest under shadow paging with 4 MiB of data behind small host pages. */
function shadowGuest(options: GuestOptions): Guest {
  return buildGuest({ slots: [DATA_SLOT], ...options });
}

const leaf = (gpa: number, bits = WUAD): string => `0x${(gpa | bits).toString(16)}`;

// ---- around the seed -----------------------------------------------------------------------------------------------

describe('B1 6b73a96065e8: a large page that was lazily protected', () => {
  function pagesSeen(policy: keyof typeof POLICIES): number[] {
    const { vm, vcpu, setFlags } = buildVm({ policy: POLICIES[policy] });
    vcpu.touchPage(0, WRITE);
    expect(entryAt(vm, vcpu, 0).level).toBe(2);
    setFlags(LOG);
    for (const page of [5, 77, 300]) vcpu.touchPage(page, WRITE);
    return bitsOf(vm.getDirtyLog(0));
  }

  it('is dropped, not made writable again, so that each write is logged', () => {
    expect(pagesSeen('lazy')).toEqual([5, 77, 300]);
  });

  it('loses all but its first page if the fast fault makes it writable again, as it did in January 2013', () => {
    expect(pagesSeen('lazy+bug')).toEqual([0]);
  });

  it.each(['zap', 'eager'] as const)('loses nothing under %s either', (policy) => {
    expect(pagesSeen(policy)).toEqual([5, 77, 300]);
  });

  it('serves reads without a fault until the first write', () => {
    const { vm, vcpu, setFlags } = buildVm();
    vcpu.touchPage(0, WRITE);
    setFlags(LOG);
    const before = vcpu.mmu.stats.pf_taken;
    for (let page = 0; page < 512; page++) vcpu.touchPage(page, READ);
    expect(vcpu.mmu.stats.pf_taken).toBe(before);
    expect(triple(entryAt(vm, vcpu, 0).lo)).toBe('110');
    // What takes the place of a present entry flushes.
    expect(flushesDuring(vm, () => vcpu.touchPage(5, WRITE))).toBe(1);
    expect([vm.stats.pages_2m, vm.stats.pages_4k]).toEqual([0, 1]);
  });
});

describe('B2 404381c5839d: a large page that is read-only in the host', () => {
  it('is dropped by the first write under logging: one fault, and no loop', () => {
    const host = new CopyOnWriteHost({ bytes: 4 * MIB, level: 2, sparse: true });
    const { vm, vcpu, setFlags } = buildVm({ host });
    vcpu.touchPage(0, READ);
    const { level, lo } = entryAt(vm, vcpu, 0);
    expect([level, triple(lo)]).toEqual([2, '000']);
    setFlags(LOG);
    const before = vcpu.mmu.stats.pf_taken;
    vcpu.touchPage(9, WRITE);
    expect(vcpu.mmu.stats.pf_taken - before).toBe(1);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([9]);
    expectSound(vm);
  });
});

describe('B3 7f31c9595e3c: whether to flush', () => {
  it('is decided by who may set W, not by W: the fast fault may have set it since anyone looked', () => {
    const { vm, vcpu, slot, setFlags } = buildVm({ level: 1 });
    vcpu.touchPage(0, WRITE);
    setFlags(LOG);
    expect(triple(entryAt(vm, vcpu, 0).lo)).toBe('110');
    expect(slotGfnWriteProtect(vm.mmu, slot(), 0, 1)).toBe(true);
    expect(triple(entryAt(vm, vcpu, 0).lo)).toBe('100');
    expect(slotGfnWriteProtect(vm.mmu, slot(), 0, 1)).toBe(false);
  });
});

describe('B5 b64d740ea7dd: starting to log', () => {
  it('flushes even if it found nothing to protect', () => {
    const { vm, setFlags } = buildVm();
    expect(flushesDuring(vm, () => setFlags(LOG))).toBe(1);
  });

  it('catches writes through a TLB that somebody else has forgotten to flush', () => {
    const { vm, vcpu, setFlags } = buildVm({ level: 1 });
    vcpu.touchPage(5, WRITE);
    spteWriteProtect(vm.mmu, entryAt(vm, vcpu, 5 * 4096).sptep, false);
    setFlags(LOG);
    vcpu.touchPage(5, WRITE);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([5]);
  });
});

describe('trap 3: the rules of flushing', () => {
  const run = (manual: number, action: 'start' | 'get' | 'get clean' | 'clear' | 'clear clean'): number => {
    const { vm, vcpu, setFlags } = buildVm({ pages: 64, level: 1, manual });
    if (action === 'start') return flushesDuring(vm, () => setFlags(LOG));
    setFlags(LOG);
    if (manual === 3) vm.clearDirtyLog(0, 0, 64, Int32Array.of(-1, -1));
    if (!action.endsWith('clean')) vcpu.touchPage(5, WRITE);
    if (action.startsWith('get')) return flushesDuring(vm, () => vm.getDirtyLog(0));
    return flushesDuring(vm, () => vm.clearDirtyLog(0, 0, 64, Int32Array.of(-1, -1)));
  };
  // biome-ignore format: a table
  it.each([
    // mode                 start  get  get clean  clear  clear clean
    ['plain',            0, 1,     1,   0,         1,     0],
    ['manual',           1, 1,     0,   0,         1,     0],
    ['initially set',    3, 0,     0,   0,         1,     0],
  ])('%s', (_name, manual, start, get, getClean, clear, clearClean) => {
    expect(run(manual, 'start')).toBe(start);
    expect(run(manual, 'get')).toBe(get);
    expect(run(manual, 'get clean')).toBe(getClean);
    expect(run(manual, 'clear')).toBe(clear);
    expect(run(manual, 'clear clean')).toBe(clearClean);
  });
});

describe('trap 4: the first clear of a log that was all ones', () => {
  it('takes MMU-writable from a large page, so that the fast fault can not bring it back', () => {
    const { vm, vcpu, setFlags } = buildVm({ manual: 3 });
    vcpu.touchPage(0, WRITE);
    setFlags(LOG);
    expect(triple(entryAt(vm, vcpu, 0).lo)).toBe('111');
    vm.clearDirtyLog(0, 0, 64, Int32Array.of(1 << 5, 0));
    expect([entryAt(vm, vcpu, 0).level, triple(entryAt(vm, vcpu, 0).lo)]).toEqual([2, '100']);
    const fast = vcpu.mmu.stats.pf_fast;
    vcpu.touchPage(6, WRITE);
    expect(vcpu.mmu.stats.pf_fast).toBe(fast);
    expect([vm.stats.pages_2m, vm.stats.pages_4k]).toEqual([0, 1]);
    expectSound(vm);
  });

  it('leaves MMU-writable to small pages: there the fast fault may', () => {
    const { vm, vcpu, setFlags } = buildVm({ manual: 3, level: 1 });
    vcpu.touchPage(5, WRITE);
    setFlags(LOG);
    vm.clearDirtyLog(0, 0, 64, Int32Array.of(1 << 5, 0));
    expect(triple(entryAt(vm, vcpu, 5 * 4096).lo)).toBe('110');
    vcpu.touchPage(5, WRITE);
    expect(vcpu.mmu.stats.pf_fast).toBe(1);
  });
});

// ---- shadow paging -------------------------------------------------------------------------------------------------

describe('B9 9e7b0e7fba45: a large guest page whose rights widen', () => {
  it('gets small pages of its own, and those that mirror the narrow rights stay narrow', () => {
    const guest = shadowGuest({ maps: [{ va: VA, gpa: DATA, level: 2, bits: P | W | U | A }] });
    guest.expectDone(`r ${VA}`);
    const narrow = spOf(entryAt(guest.vm, guest.vcpu, VA).sptep);
    expect(triple(entryAt(guest.vm, guest.vcpu, VA).lo)).toBe('100');
    guest.expectDone(`w ${VA} 5`);
    const wide = spOf(entryAt(guest.vm, guest.vcpu, VA).sptep);
    expect(wide).not.toBe(narrow);
    expect(triple(spteLo(guest.vm.mmu, narrow << 9))).toBe('100');
    expectSound(guest.vm);
  });
});

describe('B11 36a2e6774bfb: syncing pages of which one maps the other', () => {
  it('leaves no writable mapping of any table', () => {
    // Three last-level tables: of VA, of another 2 MiB, and that of the first 2 MiB, which maps all three and itself.
    const guest = shadowGuest({
      maps: [
        { va: VA, gpa: DATA, count: 4 },
        { va: VA + 2 * MIB, gpa: DATA, count: 4 },
      ],
    });
    guest.expectDone(`r ${VA}`, `r ${VA + 2 * MIB}`);
    const tables = [VA, VA + 2 * MIB, 0].map((va) => guest.entry(va, 1) & ~0xfff);
    for (const table of tables) guest.expectDone(`w64 ${table + 0xf00} 0`);
    expect(guest.vm.stats.mmu_unsync).toBe(3);
    for (const table of tables) expect(triple(entryAt(guest.vm, guest.vcpu, table).lo)).toBe('111');
    guest.expectDone('cr3 0');
    expect(guest.vm.stats.mmu_unsync).toBe(0);
    for (const table of tables) expect(isWritable(entryAt(guest.vm, guest.vcpu, table).lo)).toBe(false);
    expectSound(guest.vm);
  });
});

describe('B12 b1bd5cba3306, CVE-2021-38198: a table below two entries with different rights', () => {
  it('is mirrored once for each: a write through the read-only one faults, whatever was used before', () => {
    //         level 3            level 2                level 1
    // VA      writable     \     [0] read-only    ->    page 1
    //                       one
    // OTHER   read-only    /     [1] writable     ->    page 2
    const OTHER = VA + 2 ** 30;
    const READ_ONLY = BigInt(P | U | A);
    const guest = shadowGuest({
      maps: [
        { va: VA, gpa: DATA },
        { va: VA + 2 * MIB, gpa: DATA + 4096 },
      ],
      edit: (image) => {
        const shared = image.get(image.entry(0, VA, 3), 8);
        image.put(image.entry(0, OTHER, 3), (shared & ~0xfffn) | READ_ONLY, 8);
        const first = image.entry(0, VA, 2);
        image.put(first, (image.get(first, 8) & ~0xfffn) | READ_ONLY, 8);
      },
    });
    guest.expectDone(`r ${VA}`, `w ${VA + 2 * MIB} 1`, `r ${OTHER}`, `r ${OTHER + 2 * MIB}`);
    expect(guest.do(`w ${OTHER + 2 * MIB} 2`).res).toMatchObject({ exit: 'pf', err: '0x3' });
    expect(guest.do(`w ${VA} 2`).res).toMatchObject({ exit: 'pf', err: '0x3' });
    guest.expectDone(`w ${VA + 2 * MIB} 3`);
    const level2 = activePages(guest.vm).filter(
      (sp) => guest.vm.mmu.pages.level(sp) === 2 && guest.vm.mmu.pages.gfn[sp] === guest.entry(VA, 2) >>> 12,
    );
    expect(level2).toHaveLength(2);
    expectSound(guest.vm);
  });
});

describe('B13 65855ed8b034: a subtree that is linked again', () => {
  it('is synced before, as a guest need not flush what was not present', () => {
    const guest = shadowGuest({
      maps: [{ va: VA, gpa: DATA }],
      data: [
        [DATA, 0x11n],
        [DATA + 4096, 0x22n],
      ],
    });
    const [l3, l1] = [guest.entry(VA, 3), guest.entry(VA, 1)];
    const old = guest.peek(l3);
    expect(guest.read(VA)).toBe('0x11');
    guest.expectDone(`w64 ${l1} ${leaf(DATA)}`);
    expect(guest.vm.stats.mmu_unsync).toBe(1);
    guest.expectDone(`w64 ${l3} 0`, `w64 ${l1} ${leaf(DATA + 4096)}`);
    expect(guest.vm.stats.mmu_unsync).toBe(1);
    guest.expectDone(`w64 ${l3} 0x${old.toString(16)}`);
    const { res, events } = guest.do(`r ${VA}`);
    expect(res?.value).toBe('0x22');
    expect(events.map(({ name }) => name)).toContain('kvm_mmu_sync_page');
    expectSound(guest.vm);
  });
});

describe('B16 CVE-2026-46113: a guest entry that was changed behind our back', () => {
  it('unlinks small pages of another frame, so that no leaf is in the list of a frame that it does not map', () => {
    const guest = shadowGuest({
      maps: [{ va: VA, gpa: DATA, level: 2 }],
      data: [
        [DATA + 0x5000, 0x11n],
        [DATA + 2 * MIB + 0x9000, 0x22n],
      ],
    });
    expect(guest.read(VA + 0x5000)).toBe('0x11');
    const before = spOf(entryAt(guest.vm, guest.vcpu, VA).sptep);
    guest.expectDone(`hw ${guest.entry(VA, 2)} ${leaf(DATA + 2 * MIB, WUAD | PS)}`);
    // Far from what was mapped, or prefetched, of the old frame.
    expect(guest.read(VA + 0x9000)).toBe('0x22');
    expect(spOf(entryAt(guest.vm, guest.vcpu, VA).sptep)).not.toBe(before);
    expectSound(guest.vm);
    guest.expectDone('del 1');
    expect(guest.vm.stats.pages_4k).toBe(0);
    expectSound(guest.vm);
  });
});

describe('B17 CVE-2026-53359: the same frame in another role', () => {
  it('unlinks the direct page of a large entry that has become a table at that very frame', () => {
    const guest = shadowGuest({
      maps: [{ va: VA, gpa: DATA, level: 2 }],
      // The frame's own contents: a table whose entry 9 maps the next page but eight.
      data: [
        [DATA + 8 * 9, BigInt((DATA + 0x9000) | WUAD)],
        [DATA + 0x9000, 0x33n],
      ],
    });
    guest.expectDone(`r ${VA + 0x20000}`);
    const before = spOf(entryAt(guest.vm, guest.vcpu, VA).sptep);
    guest.expectDone(`hw ${guest.entry(VA, 2)} ${leaf(DATA, P | W | U | A)}`);
    expect(guest.read(VA + 0x9000)).toBe('0x33');
    const { pages } = guest.vm.mmu;
    const now = spOf(entryAt(guest.vm, guest.vcpu, VA).sptep);
    expect(now).not.toBe(before);
    expect([pages.gfn[now], pages.role[now] ^ pages.role[before]]).toEqual([DATA / 4096, 0x80]);
    expectSound(guest.vm);
    guest.expectDone('del 1');
    expectSound(guest.vm);
  });
});

describe('B18 CVE-2026-23401: an MMIO entry in place of a present one', () => {
  it('takes it out of its list first', () => {
    const NO_SLOT = 0x70000000;
    // D is clear: mapped read-only, so that the write faults.
    const guest = shadowGuest({ maps: [{ va: VA, gpa: DATA, bits: P | W | U | A }] });
    guest.expectDone(`r ${VA}`);
    expect(isShadowPresent(entryAt(guest.vm, guest.vcpu, VA).lo)).toBe(true);
    guest.expectDone(`hw ${guest.entry(VA, 1)} ${leaf(NO_SLOT)}`);
    const leaves = guest.vm.stats.pages_4k;
    let mmio: unknown;
    const flushes = flushesDuring(guest.vm, () => {
      mmio = guest.do(`w ${VA} 7`).mmio;
    });
    expect(flushes).toBe(1);
    expect(mmio).toEqual([{ dir: 'write', gpa: `0x${NO_SLOT.toString(16)}`, len: 4, data: '0x7' }]);
    const { lo, hi } = entryAt(guest.vm, guest.vcpu, VA);
    expect([isMmioSpte(guest.vm.mmu.format, lo, hi), guest.vm.stats.pages_4k]).toEqual([true, leaves - 1]);
    expect(guest.vm.mmu.slots[0].byId(1)!.rmap[0][0]).toBe(0);
    expectSound(guest.vm);
    guest.expectDone('del 1');
    expectSound(guest.vm);
  });
});

describe('B21 CVE-2026-98164: write tracking', () => {
  it('holds in both address spaces, wherever the frame was tracked', () => {
    const guest = shadowGuest({});
    guest.expectDone('nop');
    const { mmu } = guest.vm;
    const low = { slot: 1 << 16, flags: 0, guestPhysAddr: DATA, memorySize: 4 * MIB };
    guest.vm.setUserMemoryRegion({ ...low, userspaceAddr: mmu.slots[0].byId(1)!.userspaceAddr });
    const [slot, smm] = [mmu.slots[0].byId(1)!, mmu.slots[1].byId(0)!];
    expect(isTracked(mmu, slot, slot.baseGfn + 3)).toBe(false);
    smm.gfnTrack![3]++;
    expect([3, 4].map((i) => isTracked(mmu, slot, slot.baseGfn + i))).toEqual([true, false]);
  });
});

describe('B22 "Skip the try unsync path iff the old SPTE was a leaf SPTE"', () => {
  it('looks for shadowed tables when a large page takes the place of a table, whose W is no permission', () => {
    const guest = shadowGuest({});
    guest.expectDone('nop');
    const { vm } = guest;
    const { mmu } = vm;
    const slot = mmu.slots[0].byId(0)!;
    const root = guest.image.roots[0] / 4096;
    const page = guest.vcpu.mmu.root.sp;
    const make = (oldLo: number): boolean => makeSpte(mmu, page, 2, slot, ACC_ALL, root, 1, oldLo, false, true, true);
    const table = nonleafLo(mmu.format, tablePfn(5), false);
    expect(isWritable(table)).toBe(true);
    expect([make(table), isWritable(mmu.spteLo)]).toEqual([true, false]);
    expect([make(0), isWritable(mmu.spteLo)]).toEqual([true, false]);
    // What was a writable leaf before has been looked at already.
    expect([make(SPTE_MMU_PRESENT | SPTE_PSE | SPTE_W), isWritable(mmu.spteLo)]).toEqual([false, true]);
  });
});

describe('B25 "Check every prev_roots in __kvm_mmu_free_obsolete_roots()"', () => {
  it('gives up every root that is obsolete, the current one and all that were used before', () => {
    const guest = shadowGuest({ roots: 4 });
    guest.expectDone('nop', 'cr3 1', 'nop', 'cr3 2', 'nop', 'cr3 3', 'nop');
    const { mmu } = guest.vcpu;
    const old = [mmu.root.sp, ...mmu.prevRoots.map(({ sp }) => sp)];
    expect(old.every((sp) => sp > 0)).toBe(true);
    guest.expectDone('del 1');
    expect(old.every((sp) => isObsolete(guest.vm.mmu, sp))).toBe(true);
    guest.expectDone('nop');
    expect(mmu.prevRoots.map(({ sp }) => sp)).toEqual([0, 0, 0]);
    expect(activePages(guest.vm).every((sp) => !isObsolete(guest.vm.mmu, sp))).toBe(true);
    expectSound(guest.vm);
  });
});

describe('B26: deleting a slot', () => {
  it('zaps the whole VM: a targeted zap was tried in 5.1 and taken back', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    const other = { slot: 1, flags: 0, guestPhysAddr: 2 ** 30, userspaceAddr: FLAT_HVA };
    vm.setUserMemoryRegion({ ...other, memorySize: 4096 });
    vcpu.touchPage(0, WRITE);
    vm.setUserMemoryRegion({ ...other, memorySize: 0 });
    expect([vm.stats.pages_4k, activePages(vm).length]).toEqual([0, 0]);
  });
});

describe('B27 "Zap the oldest MMU pages, not the newest"', () => {
  it('recycles in the order of age', () => {
    const { vm, vcpu } = buildVm({ pages: 100 * 512, level: 1 });
    vm.setNrMmuPages(200);
    for (let i = 0; i < 100; i++) vcpu.touchPage(512 * i, READ);
    const byAge = activePages(vm).toReversed();
    vm.setNrMmuPages(64);
    // The root stays: it is in use. It was the oldest.
    expect(activePages(vm).toReversed()).toEqual([byAge[0], ...byAge.slice(-63)]);
    expectSound(vm);
  });
});

describe('B40 "Retry page faults that hit an invalid memslot"', () => {
  it('makes no MMIO entry for a slot that is going away', () => {
    const { vm, vcpu, slot } = buildVm({ level: 1 });
    vcpu.touchPage(0, READ);
    slot().flags |= MEMSLOT_INVALID;
    const leaves = vm.stats.pages_4k;
    expect(doPageFault(vm.mmu, vcpu.mmu, 600 * 4096, 0, PFERR_USER | PFERR_WRITE, 0)).toBe(RET_PF_RETRY);
    expect([vm.stats.pages_4k, vcpu.mmu.stats.pf_mmio_spte_created]).toEqual([leaves, 0]);
  });
});

describe('B52 "Mark target gfn of emulated atomic instruction as dirty"', () => {
  it('logs an exchange that is emulated', () => {
    // A table above level 1 is never writable: the exchange is emulated.
    const guest = shadowGuest({ maps: [{ va: VA, gpa: DATA }] });
    guest.expectDone(`r ${VA}`, 'log 0 on', 'getlog 0');
    const table = guest.entry(VA, 3) & ~0xfff;
    guest.expectDone(`xchg ${table + 0x800} 0`);
    expect(guest.do('getlog 0').bitmap?.gfns.flat()).toContain(table / 4096);
  });
});

// ---- odd, and kept -------------------------------------------------------------------------------------------------

describe('a list of more than 1000 leaves of one frame', () => {
  it('is emptied by the fault that makes it longer, its own entry included, and the fault still counts as fixed', () => {
    const COUNT = 1002;
    // A is clear, so that each page comes with a fault of its own.
    const guest = shadowGuest({ maps: [{ va: VA, gpa: DATA, same: true, count: COUNT, bits: P | W | U | D }] });
    for (let i = 0; i < COUNT - 1; i++) guest.do(`r ${VA + 4096 * i}`);
    const { vm, vcpu } = guest;
    const before = vm.stats.pages_4k;
    expect([vm.stats.max_mmu_rmap_size, isShadowPresent(entryAt(vm, vcpu, VA).lo)]).toEqual([1000, true]);
    const { pf_fixed, pf_taken } = vcpu.mmu.stats;
    expect(flushesDuring(vm, () => expect(guest.read(VA + 4096 * (COUNT - 1))).toBe('0x0'))).toBe(1);
    // Emptied, and faulted in again.
    expect([vcpu.mmu.stats.pf_taken - pf_taken, vcpu.mmu.stats.pf_fixed - pf_fixed]).toEqual([2, 2]);
    expect([vm.stats.max_mmu_rmap_size, isShadowPresent(entryAt(vm, vcpu, VA).lo)]).toEqual([1001, false]);
    expect(vm.stats.pages_4k).toBeLessThan(before - 990);
    expectSound(vm);
  });
});

describe('trap 26: lowering the limit of shadow pages', () => {
  it('sets it to what remained, which is less than was asked for if a page took others with it', () => {
    const maps = Array.from({ length: 70 }, (_, i) => ({ va: VA + 2 * MIB * i, gpa: DATA }));
    const guest = shadowGuest({ maps, mmuPages: 200 });
    for (const { va } of maps) guest.expectDone(`r ${va}`);
    // Three stale tables below the oldest page that is no root.
    for (const { va } of maps.slice(-3)) guest.expectDone(`w64 ${guest.entry(va, 1)} ${leaf(DATA)}`);
    expect(guest.vm.stats.mmu_unsync).toBe(3);
    const used = guest.vm.mmu.nUsedPages;
    const goal = used - 1;
    guest.expectDone(`mmupages ${goal}`);
    expect(guest.vm.stats.mmu_unsync).toBe(0);
    expect(guest.vm.getNrMmuPages()).toBe(guest.vm.mmu.nUsedPages);
    expect(guest.vm.getNrMmuPages()).toBe(used - 4);
    expectSound(guest.vm);
  });

  it('leaves it at the goal if nothing had to go', () => {
    const { vm } = buildVm();
    vm.setNrMmuPages(64);
    expect(vm.getNrMmuPages()).toBe(64);
  });
});

describe('trap 6: a read fault on a page that the host maps writable', () => {
  it('installs a writable entry with D set, and under logging dirties the page', () => {
    const { vm, vcpu } = buildVm({ flags: LOG, level: 1 });
    vcpu.touchPage(5, READ);
    const { lo } = entryAt(vm, vcpu, 5 * 4096);
    expect([triple(lo), (lo & D) !== 0]).toEqual(['111', true]);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([5]);
  });
});

describe('trap 8: a fault on an entry that is writable already', () => {
  it('is FIXED, not SPURIOUS: the entry made anew has no D', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vcpu.touchPage(5, WRITE);
    const { sptep } = entryAt(vm, vcpu, 5 * 4096);
    const { pf_spurious, pf_fixed } = vcpu.mmu.stats;
    // A read: the fast path is for writes.
    doPageFault(vm.mmu, vcpu.mmu, 5 * 4096, 0, PFERR_USER | PFERR_PRESENT, 0);
    expect([vcpu.mmu.stats.pf_fixed - pf_fixed, vcpu.mmu.stats.pf_spurious - pf_spurious]).toEqual([1, 0]);
    expect(spteLo(vm.mmu, sptep) & D).toBe(0);
  });
});

describe('trap 38: the fast fault', () => {
  it('sets W and nothing else, flushes nothing, marks exactly the page', () => {
    const { vm, vcpu, setFlags } = buildVm({ level: 1 });
    vcpu.touchPage(5, WRITE);
    const { sptep } = entryAt(vm, vcpu, 5 * 4096);
    setFlags(LOG);
    vm.mmu.arena.words[sptep << 1] &= ~(A | D);
    const before = spteLo(vm.mmu, sptep);
    const flushes = flushesDuring(vm, () =>
      doPageFault(vm.mmu, vcpu.mmu, 5 * 4096, 0, PFERR_USER | PFERR_WRITE | PFERR_PRESENT, 0),
    );
    expect([spteLo(vm.mmu, sptep), flushes]).toEqual([before | SPTE_W, 0]);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([5]);
  });

  it('does make a large entry writable where nothing is logged', () => {
    const { vm, vcpu, setFlags } = buildVm();
    vcpu.touchPage(0, WRITE);
    const { sptep } = entryAt(vm, vcpu, 0);
    spteWriteProtect(vm.mmu, sptep, false);
    doPageFault(vm.mmu, vcpu.mmu, 0, 0, PFERR_USER | PFERR_WRITE | PFERR_PRESENT, 0);
    const lo = spteLo(vm.mmu, sptep);
    expect([isLarge(lo), triple(lo), vcpu.mmu.stats.pf_fast, indexOf(sptep)]).toEqual([true, '111', 1, 0]);
    setFlags(LOG);
    expect(triple(spteLo(vm.mmu, sptep))).toBe('110');
  });
});
