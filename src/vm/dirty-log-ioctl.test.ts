import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EFAULT, EINVAL, ENOENT } from '../base/errno.ts';
import { FLAT_HVA } from '../mem/flat-host.ts';
import { MEM_LOG_DIRTY_PAGES as LOG, MEM_READONLY } from '../mem/memslots.ts';
import {
  bitsOf,
  buildVm,
  entryAt,
  errnoOf,
  expectSound,
  flushesDuring,
  READ,
  triple,
  WRITE,
} from './testing/build-vm.ts';
import type { Vm } from './vm.ts';

/** Slot 0: 100 pages, logged; slot 1: not logged. */
function loggedVm(manual = 0): Vm {
  const { vm } = buildVm({ pages: 100, flags: LOG, level: 1, manual });
  const memorySize = 4096;
  vm.setUserMemoryRegion({ slot: 1, flags: 0, guestPhysAddr: 2 ** 30, memorySize, userspaceAddr: FLAT_HVA });
  return vm;
}

const ones = (pages: number): Int32Array => new Int32Array(2 * Math.ceil(pages / 64)).fill(-1);

describe('getting a dirty log', () => {
  // biome-ignore format: a table
  it.each([
    ['a logged slot',                      0,                     0],
    ['a slot number too high',             32764,                 EINVAL],
    ['the third address space',            2 << 16,               EINVAL],
    ['both',                               (2 << 16) | 32764,     EINVAL],
    ['a number that is none',              -1,                    EINVAL],
    ['no such slot',                       2,                     ENOENT],
    ['no such slot in the other space',    1 << 16,               ENOENT],
    ['a slot that is not logged',          1,                     ENOENT],
  ])('of %s', (_name, slot, errno) => {
    expect(errnoOf(() => loggedVm().getDirtyLog(slot))).toBe(errno);
  });

  it('of a read-only slot is possible too', () => {
    const { vm } = buildVm({ flags: LOG | MEM_READONLY });
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([]);
  });

  it('gives whole words of 64 pages', () => {
    expect(loggedVm().getDirtyLog(0)).toHaveLength(4);
  });

  it('collects the bits, re-arms those pages and no others, and flushes once', () => {
    const { vm, vcpu } = buildVm({ pages: 100, flags: LOG, level: 1 });
    for (const page of [3, 40, 70]) vcpu.touchPage(page, WRITE);
    vm.getDirtyLog(0);
    vcpu.touchPage(40, WRITE);
    let log: Int32Array = new Int32Array();
    expect(
      flushesDuring(vm, () => {
        log = vm.getDirtyLog(0);
      }),
    ).toBe(1);
    expect(bitsOf(log)).toEqual([40]);
    for (const page of [3, 40, 70]) expect(triple(entryAt(vm, vcpu, page * 4096).lo)).toBe('110');
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([]);
  });

  it('gives a copy, which later writes leave alone', () => {
    const { vm, vcpu } = buildVm({ flags: LOG });
    const log = vm.getDirtyLog(0);
    vcpu.touchPage(5, WRITE);
    expect(bitsOf(log)).toEqual([]);
    const manual = buildVm({ flags: LOG, manual: 1 });
    const copy = manual.vm.getDirtyLog(0);
    manual.vcpu.touchPage(5, WRITE);
    expect(bitsOf(copy)).toEqual([]);
  });

  it('only copies under manual protection: again and again the same, nothing re-armed, nothing flushed', () => {
    const { vm, vcpu } = buildVm({ flags: LOG, manual: 1 });
    vcpu.touchPage(5, WRITE);
    expect(
      flushesDuring(vm, () => {
        expect(bitsOf(vm.getDirtyLog(0))).toEqual([5]);
        expect(bitsOf(vm.getDirtyLog(0))).toEqual([5]);
      }),
    ).toBe(0);
    expect(triple(entryAt(vm, vcpu, 5 * 4096).lo)).toBe('111');
  });
});

describe('clearing a dirty log', () => {
  // biome-ignore format: a table
  it.each([
    // what                                          slot     first  pages  errno
    ['all of it',                                    0,       0,     100,   0],
    ['no page',                                      0,       0,     0,     0],
    ['the first 64 pages',                           0,       0,     64,    0],
    ['the rest',                                     0,       64,    36,    0],
    ['a slot number too high',                       32764,   0,     64,    EINVAL],
    ['the third address space',                      2 << 16, 0,     64,    EINVAL],
    ['from a page within a word',                    0,       8,     64,    EINVAL],
    ['a slot that does not exist',                   2,       0,     64,    ENOENT],
    ['a slot that is not logged',                    1,       0,     64,    ENOENT],
    ['from beyond the end',                          0,       128,   0,     EINVAL],
    ['more than there is',                           0,       0,     101,   EINVAL],
    ['more than there is left',                      0,       64,    64,    EINVAL],
    ['part of a word that is not the end',           0,       0,     63,    EINVAL],
    ['part of the last word',                        0,       64,    32,    EINVAL],
    ['from before the start',                        0,       -64,   64,    EINVAL],
    ['less than nothing',                            0,       0,     -64,   EINVAL],
    // Two reasons: the first one's errno.
    ['from within a word of no slot',                2,       8,     64,    EINVAL],
    ['more than there is of no slot',                2,       0,     101,   ENOENT],
  ])('%s', (_name, slot, first, pages, errno) => {
    expect(errnoOf(() => loggedVm().clearDirtyLog(slot, first, pages, ones(128)))).toBe(errno);
  });

  it('looks at the bitmap last', () => {
    const clear = (slot: number, pages: number): number =>
      errnoOf(() => loggedVm().clearDirtyLog(slot, 0, pages, new Int32Array(1)));
    expect([clear(0, 100), clear(0, 101), clear(2, 100)]).toEqual([EFAULT, EINVAL, ENOENT]);
  });

  it('works with manual protection and without', () => {
    for (const manual of [0, 1]) {
      const { vm, vcpu } = buildVm({ pages: 200, flags: LOG, level: 1, manual });
      for (const page of [1, 66, 67]) vcpu.touchPage(page, WRITE);
      vm.clearDirtyLog(0, 64, 64, Int32Array.of(4, 0));
      expect(bitsOf(vm.getDirtyLog(0))).toEqual([1, 67]);
      expect(triple(entryAt(vm, vcpu, 66 * 4096).lo)).toBe('110');
    }
  });

  it('flushes if it cleared a bit, and not if all it was to clear were clear', () => {
    const { vm, vcpu } = buildVm({ pages: 128, flags: LOG, level: 1, manual: 1 });
    vcpu.touchPage(5, WRITE);
    expect(flushesDuring(vm, () => vm.clearDirtyLog(0, 64, 64, ones(64)))).toBe(0);
    expect(flushesDuring(vm, () => vm.clearDirtyLog(0, 0, 64, Int32Array.of(~(1 << 5), -1)))).toBe(0);
    expect(flushesDuring(vm, () => vm.clearDirtyLog(0, 0, 128, ones(128)))).toBe(1);
    expect(flushesDuring(vm, () => vm.clearDirtyLog(0, 0, 128, ones(128)))).toBe(0);
  });
});

describe('a log', () => {
  it('shows exactly the pages that were touched: a read of a page that the host maps writable counts', () => {
    const touch = fc.tuple(fc.nat(199), fc.constantFrom(READ, WRITE));
    fc.assert(
      fc.property(fc.array(fc.array(touch, { maxLength: 12 }), { maxLength: 6 }), (rounds) => {
        const { vm, vcpu } = buildVm({ pages: 200, flags: LOG });
        const mapped = new Set<number>();
        for (const round of rounds) {
          const dirty = new Set<number>();
          for (const [page, kind] of round) {
            vcpu.touchPage(page, kind);
            if (kind === WRITE || !mapped.has(page)) dirty.add(page);
            mapped.add(page);
          }
          expect(bitsOf(vm.getDirtyLog(0))).toEqual([...dirty].sort((a, b) => a - b));
        }
        expectSound(vm);
      }),
    );
  });
});
