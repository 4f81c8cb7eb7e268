import { describe, expect, it } from 'vitest';
import { EEXIST, EINVAL, ENOMEM } from '../base/errno.ts';
import { FLAT_HVA, FlatHost } from '../mem/flat-host.ts';
import { MEM_LOG_DIRTY_PAGES, MEM_READONLY, type MemSlot } from '../mem/memslots.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS } from '../mmu/requests.ts';
import type { MemoryRegion } from './memory-region.ts';
import {
  activePages,
  bitsOf,
  buildVm,
  entryAt,
  errnoOf,
  expectSound,
  flushesDuring,
  READ,
  WRITE,
} from './testing/build-vm.ts';
import { Vm } from './vm.ts';

const MIB = 2 ** 20;
const LOG = MEM_LOG_DIRTY_PAGES;
const RO = MEM_READONLY;
const USER_END = 2 ** 47 - 4096;
const HOST_END = 2 ** 40;

/** Slot 1: 2 MiB at 16 MiB; slot 2: 1 MiB at 32 MiB, read-only; slot 3: the last page that the host could map. */
function threeSlots(npt = true): Vm {
  const vm = new Vm({ host: new FlatHost({ bytes: 64 * MIB, level: 1, sparse: true }), npt });
  vm.setUserMemoryRegion(region({ slot: 1, guestPhysAddr: 16 * MIB }));
  vm.setUserMemoryRegion(region({ slot: 2, guestPhysAddr: 32 * MIB, memorySize: MIB, flags: RO }));
  vm.setUserMemoryRegion(region({ slot: 3, guestPhysAddr: HOST_END - 4096, memorySize: 4096 }));
  return vm;
}

function region<N extends number | bigint = number>(fields: Partial<MemoryRegion<N>>): MemoryRegion<number | N> {
  return { slot: 9, flags: 0, guestPhysAddr: 64 * MIB, memorySize: 2 * MIB, userspaceAddr: FLAT_HVA, ...fields };
}

const SLOT_1 = { slot: 1, guestPhysAddr: 16 * MIB };
const SLOT_2 = { slot: 2, guestPhysAddr: 32 * MIB, memorySize: MIB, flags: RO };

describe('setting a slot answers as the kernel does', () => {
  // Rows of the reference's table 10.1, in its order.
  // biome-ignore format: a table
  it.each<[string, string, Partial<MemoryRegion>, number]>([
    ['-',  'a new slot',                                     {},                                                            0],
    ['1',  'the last slot number',                           { slot: 32763 },                                               0],
    ['1',  'one more',                                       { slot: 32764 },                                               EINVAL],
    ['1',  '-1',                                             { slot: -1 },                                                  EINVAL],
    ['2',  'both flags',                                     { flags: LOG | RO },                                           0],
    ['2',  'another flag',                                   { flags: 4 },                                                  EINVAL],
    ['2',  "the kernel's own INVALID",                       { flags: 1 << 16 },                                            EINVAL],
    ['3',  'a size of half a page',                          { memorySize: 2 * MIB + 2048 },                                EINVAL],
    ['3',  'a size that is negative, huge to the kernel',    { memorySize: -4096 },                                         EINVAL],
    ['4',  'a guest address within a page',                  { guestPhysAddr: 64 * MIB + 8 },                               EINVAL],
    ['5',  'a host address within a page',                   { userspaceAddr: FLAT_HVA + 8 },                               EINVAL],
    ['5',  'the end of user space',                          { userspaceAddr: USER_END - 2 * MIB },                         0],
    ['5',  'beyond it',                                      { userspaceAddr: USER_END - 2 * MIB + 4096 },                  EINVAL],
    ['5',  'the lowest host address',                        { userspaceAddr: 0 },                                          0],
    ['5',  'a kernel address',                               { userspaceAddr: -4096 },                                      EINVAL],
    ['6',  'the second address space',                       { slot: 1 << 16 },                                             0],
    ['6',  'a third one',                                    { slot: 2 << 16 },                                             EINVAL],
    ['7',  'an end at 2^64',                                 { guestPhysAddr: 2 ** 64 - 2 * MIB },                          EINVAL],
    ['7',  'an end beyond 2^64',                             { guestPhysAddr: 2 ** 64 - 4096 },                             EINVAL],
    ['8',  '2^31 pages',                                     { memorySize: 2 ** 43, userspaceAddr: 0 },                     EINVAL],
    ['9',  'size 0 of no slot',                              { memorySize: 0 },                                             EINVAL],
    ['9',  'size 0 of a slot',                               { ...SLOT_1, memorySize: 0 },                                  0],
    ['9',  'size 0 of a slot, elsewhere, other flags',       { slot: 1, memorySize: 0, guestPhysAddr: 0, flags: LOG | RO }, 0],
    ['9',  'size 0 and a host address within a page',        { ...SLOT_1, memorySize: 0, userspaceAddr: 8 },                EINVAL],
    ['9',  'size 0 and an unknown flag',                     { ...SLOT_1, memorySize: 0, flags: 8 },                        EINVAL],
    ['11', 'another host address',                           { ...SLOT_1, userspaceAddr: FLAT_HVA + 4096 },                 EINVAL],
    ['11', 'a smaller size',                                 { ...SLOT_1, memorySize: MIB },                                EINVAL],
    ['11', 'a larger size',                                  { ...SLOT_1, memorySize: 4 * MIB },                            EINVAL],
    ['11', 'read-only on',                                   { ...SLOT_1, flags: RO },                                      EINVAL],
    ['11', 'read-only off',                                  { ...SLOT_2, flags: 0 },                                       EINVAL],
    ['12', 'nothing new',                                    SLOT_1,                                                        0],
    ['12', 'logging on',                                     { ...SLOT_1, flags: LOG },                                     0],
    ['12', 'logging on in a read-only slot',                 { ...SLOT_2, flags: RO | LOG },                                0],
    ['12', 'another guest address',                          { ...SLOT_1, guestPhysAddr: 48 * MIB },                        0],
    ['12', 'another guest address and logging on',           { ...SLOT_1, guestPhysAddr: 48 * MIB, flags: LOG },            0],
    ['12', 'a move by half a slot, onto itself',             { ...SLOT_1, guestPhysAddr: 17 * MIB },                        0],
    ['13', 'over a slot',                                    { guestPhysAddr: 16 * MIB },                                   EEXIST],
    ['13', "over a slot's last page",                        { guestPhysAddr: 18 * MIB - 4096 },                            EEXIST],
    ['13', "over a slot's first page",                       { guestPhysAddr: 14 * MIB + 4096 },                            EEXIST],
    ['13', 'between slots, touching both',                   { guestPhysAddr: 18 * MIB, memorySize: 14 * MIB },             0],
    ['13', 'the same addresses in the other space',          { slot: (1 << 16) | 1, guestPhysAddr: 16 * MIB },              0],
    ['13', 'a move over another slot',                       { ...SLOT_1, guestPhysAddr: 31 * MIB },                        EEXIST],
    ['15', 'the last frames of the host',                    { guestPhysAddr: HOST_END - 2 * MIB - 4096 },                  0],
    ['15', 'one frame more than the host has',               { guestPhysAddr: HOST_END },                                   EINVAL],
    ['15', 'a move beyond the host',                         { ...SLOT_1, guestPhysAddr: HOST_END },                        EINVAL],
  ])('row %s: %s', (_row, _name, fields, errno) => {
    expect(errnoOf(() => threeSlots().setUserMemoryRegion(region(fields)))).toBe(errno);
  });

  it('row 15, shadow paging: 52 bits of address, whatever the host has', () => {
    const vm = threeSlots(false);
    const at = (slot: number, guestPhysAddr: number): number =>
      errnoOf(() => vm.setUserMemoryRegion(region({ slot, guestPhysAddr })));
    expect([at(4, HOST_END), at(5, 2 ** 52 - 2 * MIB), at(6, 2 ** 52)]).toEqual([0, 0, EINVAL]);
  });

  it('row 14: tables that no host has the memory for', () => {
    const huge = region({ guestPhysAddr: 2 ** 44, memorySize: 2 ** 42, userspaceAddr: 0 });
    expect(errnoOf(() => threeSlots(false).setUserMemoryRegion(huge))).toBe(ENOMEM);
    // Row 15 comes first.
    expect(errnoOf(() => threeSlots(true).setUserMemoryRegion(huge))).toBe(EINVAL);
  });

  it('takes bigints where numbers are not exact any more', () => {
    const wrapping = { guestPhysAddr: 2n ** 64n - 4096n, memorySize: 4096n };
    expect(errnoOf(() => threeSlots().setUserMemoryRegion(region(wrapping)))).toBe(EINVAL);
    expect(errnoOf(() => threeSlots().setUserMemoryRegion(region({ guestPhysAddr: 2n ** 30n })))).toBe(0);
  });

  // Two reasons to refuse: the first one's errno.
  // biome-ignore format: a table
  it.each<[string, Partial<MemoryRegion>, number]>([
    ['an unknown flag (2), over a slot (13)',               { flags: 4, guestPhysAddr: 16 * MIB },                          EINVAL],
    ['half a page (3), over a slot (13)',                   { memorySize: 2048, guestPhysAddr: 16 * MIB },                  EINVAL],
    ['another size (11), over another slot (13)',           { ...SLOT_1, guestPhysAddr: 31 * MIB, memorySize: 4 * MIB },    EINVAL],
    ['read-only on (11), over another slot (13)',           { ...SLOT_1, guestPhysAddr: 31 * MIB, flags: RO },              EINVAL],
    ['another host address (11), over another slot (13)',   { ...SLOT_1, guestPhysAddr: 31 * MIB, userspaceAddr: 0 },       EINVAL],
    ['over a slot (13), beyond the host (15)',              { guestPhysAddr: HOST_END - 4096 },                             EEXIST],
    ['a move over a slot (13), beyond the host (15)',       { ...SLOT_1, guestPhysAddr: HOST_END - 4096 },                  EEXIST],
  ])('%s', (_name, fields, errno) => {
    expect(errnoOf(() => threeSlots().setUserMemoryRegion(region(fields)))).toBe(errno);
  });

  it('and a refusal by its arguments changes nothing', () => {
    const vm = threeSlots();
    const before = [vm.mmu.slots[0].generation, vm.mmu.validGen, vm.mmu.slots[0].slots.length];
    for (const fields of [{ flags: 4 }, { guestPhysAddr: 16 * MIB }, { ...SLOT_1, memorySize: MIB }])
      errnoOf(() => vm.setUserMemoryRegion(region(fields)));
    expect([vm.mmu.slots[0].generation, vm.mmu.validGen, vm.mmu.slots[0].slots.length]).toEqual(before);
  });
});

describe('the generation', () => {
  // biome-ignore format: a table
  it.each<[string, Partial<MemoryRegion>, number]>([
    ['create',         { guestPhysAddr: 0 },                                    2],
    ['flags only',     { ...SLOT_1, flags: LOG },                               2],
    ['delete',         { ...SLOT_1, memorySize: 0 },                            4],
    ['move',           { ...SLOT_1, guestPhysAddr: 48 * MIB },                  4],
    ['unchanged',      SLOT_1,                                                  0],
    ['a move that the host refuses, after it has zapped everything', { ...SLOT_1, guestPhysAddr: HOST_END }, 4],
  ])('advances with each swap: %s', (_name, fields, steps) => {
    const vm = threeSlots();
    const [first, second] = vm.mmu.slots;
    const before = first.generation;
    errnoOf(() => vm.setUserMemoryRegion(region(fields)));
    expect(first.generation - before).toBe(steps);
    expect(second.generation).toBe(1);
  });

  it('zaps everything when its 19 bits come round: old MMIO entries would look new', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vcpu.touchPage(3, READ);
    const { generation } = vm.mmu.slots[0];
    vm.mmu.slots[0].generation = 2 ** 19 - 4;
    vm.setUserMemoryRegion(region({ slot: 1 }));
    expect(vm.mmu.validGen).toBe(0);
    vm.setUserMemoryRegion(region({ slot: 2, guestPhysAddr: 128 * MIB }));
    expect(vm.mmu.validGen).toBe(1);
    expect(generation).toBe(2);
  });
});

describe('an unchanged slot', () => {
  it('is no work: nothing is flushed, zapped, allocated', () => {
    const { vm, vcpu, slot, setFlags } = buildVm({ flags: LOG });
    vcpu.touchPage(5, WRITE);
    const before = slot();
    expect(flushesDuring(vm, () => setFlags(LOG))).toBe(0);
    expect(slot()).toBe(before);
    expect(bitsOf(slot().dirtyBitmap!)).toEqual([5]);
    expect(vm.stats.pages_4k).toBe(1);
  });
});

describe('the dirty bitmap', () => {
  it('comes and goes with the flag', () => {
    const { slot, setFlags } = buildVm({ pages: 65 });
    expect(slot().dirtyBitmap).toBeNull();
    setFlags(LOG);
    expect(slot().dirtyBitmap).toHaveLength(4);
    setFlags(0);
    expect(slot().dirtyBitmap).toBeNull();
  });

  // biome-ignore format: a table
  it.each([
    [0, 0],
    [1, 0],
    [3, 70],
  ])('starts with all bits set only if asked to: manual protection %i', (manual, count) => {
    for (const created of [true, false]) {
      const { slot, setFlags } = buildVm({ pages: 70, manual, flags: created ? LOG : 0 });
      setFlags(LOG);
      expect(bitsOf(slot().dirtyBitmap!)).toEqual([...Array(count).keys()]);
    }
  });

  it('keeps its bits over a move', () => {
    const { vm, vcpu, slot } = buildVm({ pages: 512, flags: LOG, level: 1 });
    vcpu.touchPage(7, WRITE);
    const { dirtyBitmap } = slot();
    vm.setUserMemoryRegion(region({ slot: 0, guestPhysAddr: 8 * MIB, flags: LOG }));
    expect(slot().dirtyBitmap).toBe(dirtyBitmap);
    vcpu.touchPage(2048 + 9, WRITE);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([7, 9]);
  });
});

describe('deleting and moving', () => {
  const SLOT_5 = region({ slot: 5, guestPhysAddr: 512 * MIB, userspaceAddr: FLAT_HVA + 8 * MIB });

  // biome-ignore format: a table
  it.each<[string, Partial<MemoryRegion>]>([
    ['deleting', { memorySize: 0 }],
    ['moving',   { guestPhysAddr: 768 * MIB }],
  ])('%s a slot zaps the whole VM, other slots too, and asks the vCPUs to give up their roots', (_name, fields) => {
    const { vm, vcpu } = buildVm({ level: 1, vcpus: 2 });
    vm.setUserMemoryRegion(SLOT_5);
    vcpu.touchPage(3, WRITE);
    vcpu.touchPage(SLOT_5.guestPhysAddr / 4096, WRITE);
    const root = vcpu.mmu.root.sp;
    vm.setUserMemoryRegion({ ...SLOT_5, ...fields });
    expect([vm.stats.pages_4k, vm.mmu.validGen]).toEqual([0, 1]);
    // The root in use is off the list, and lives until its vCPU gives it up.
    expect([activePages(vm), vcpu.mmu.root.sp]).toEqual([[], root]);
    for (const { mmu } of vm.vcpus) expect(mmu.requests & REQ_MMU_FREE_OBSOLETE_ROOTS).not.toBe(0);
    expectSound(vm);
    vcpu.touchPage(3, WRITE);
    expect(entryAt(vm, vcpu, 3 * 4096).level).toBe(1);
    expectSound(vm);
  });

  it('a move that the host refuses has zapped the VM all the same, and leaves the slot where it was', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vm.setUserMemoryRegion(SLOT_5);
    vcpu.touchPage(3, WRITE);
    expect(errnoOf(() => vm.setUserMemoryRegion({ ...SLOT_5, guestPhysAddr: HOST_END }))).toBe(EINVAL);
    expect([vm.stats.pages_4k, vm.mmu.validGen]).toEqual([0, 1]);
    const slot: MemSlot = vm.mmu.slots[0].byId(5)!;
    expect([slot.baseGfn, slot.flags]).toEqual([SLOT_5.guestPhysAddr / 4096, 0]);
    vcpu.touchPage(slot.baseGfn, WRITE);
    expectSound(vm);
  });

  it('a move that overlaps is refused before anything is zapped', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vm.setUserMemoryRegion(SLOT_5);
    vcpu.touchPage(3, WRITE);
    expect(errnoOf(() => vm.setUserMemoryRegion({ ...SLOT_5, guestPhysAddr: 0 }))).toBe(EEXIST);
    expect([entryAt(vm, vcpu, 3 * 4096).level, vm.mmu.validGen]).toEqual([1, 0]);
  });
});

describe('the limit of shadow pages', () => {
  const limitWith = (vm: Vm): number => vm.getNrMmuPages();

  it('is one for each 50 pages of memory, at least 64, and follows creating and deleting', () => {
    const { vm } = buildVm({ pages: 0 });
    const limits: number[] = [];
    const set = (fields: Partial<MemoryRegion>): void => {
      vm.setUserMemoryRegion(region(fields));
      limits.push(limitWith(vm));
    };
    set({ slot: 0, guestPhysAddr: 0, memorySize: 4 * MIB });
    set({ slot: 1, guestPhysAddr: 1024 * MIB, memorySize: 64 * MIB });
    set({ slot: 1, guestPhysAddr: 2048 * MIB, memorySize: 64 * MIB });
    set({ slot: 1, guestPhysAddr: 2048 * MIB, memorySize: 64 * MIB, flags: LOG });
    set({ slot: (1 << 16) | 1, guestPhysAddr: 1024 * MIB, memorySize: 64 * MIB });
    set({ slot: 1, memorySize: 0 });
    set({ slot: 0, memorySize: 0 });
    expect(limits).toEqual([64, 348, 348, 348, 675, 348, 327]);
  });

  it('stays where user space has put it', () => {
    const { vm } = buildVm({ pages: 0 });
    vm.setNrMmuPages(100);
    vm.setUserMemoryRegion(region({ memorySize: 64 * MIB }));
    expect(limitWith(vm)).toBe(100);
  });
});

describe('logging', () => {
  it('starting in a read-only slot protects nothing and does not flush', () => {
    const { vm, setFlags } = buildVm({ flags: RO });
    expect(flushesDuring(vm, () => setFlags(RO | LOG))).toBe(0);
  });

  it('stopping drops small entries where the host has large pages, with one flush, if there are any', () => {
    const { vm, vcpu, setFlags } = buildVm({ flags: LOG });
    vcpu.touchPage(5, WRITE);
    vcpu.touchPage(600, WRITE);
    expect(flushesDuring(vm, () => setFlags(0))).toBe(1);
    expect(vm.stats.pages_4k).toBe(0);
    setFlags(LOG);
    expect(flushesDuring(vm, () => setFlags(0))).toBe(0);
    vcpu.touchPage(5, WRITE);
    expect([vm.stats.pages_4k, vm.stats.pages_2m]).toEqual([0, 1]);
    expectSound(vm);
  });

  it('stopping keeps small entries where the host has none larger', () => {
    const { vm, vcpu, setFlags } = buildVm({ flags: LOG, level: 1 });
    vcpu.touchPage(5, WRITE);
    expect(flushesDuring(vm, () => setFlags(0))).toBe(0);
    expect(vm.stats.pages_4k).toBe(1);
  });
});
