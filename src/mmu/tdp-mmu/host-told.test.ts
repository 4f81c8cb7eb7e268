/** What the host's memory management hears of a frame when the TDP MMU takes its entry away, or a right from it. */
import { describe, expect, it, vi } from 'vitest';
import { FLAT_PFN } from '../../mem/flat-host.ts';
import { MEM_LOG_DIRTY_PAGES as LOG, MEM_READONLY } from '../../mem/memslots.ts';
import { buildVm, expectSound, READ, WRITE } from '../../vm/testing/build-vm.ts';
import { zapAll } from '../page-zap.ts';
import { ageGfnRange, testAgeGfn } from './tdp-notifier.ts';

describe('under the TDP MMU', () => {
  it('the end of a VM takes every entry and every root', () => {
    const { vm, vcpu } = buildVm({ tdpMmu: true, level: 1 });
    for (const page of [1, 600, 900]) vcpu.touchPage(page, WRITE);
    expect(vm.stats.pages_4k).toBeGreaterThan(0);
    zapAll(vm.mmu);
    expect(vm.stats.pages_4k).toBe(0);
  });

  // biome-ignore format: a table
  it.each([
    ['may have been written, is dirty',  0,            WRITE, [FLAT_PFN + 1]],
    ['could only be read, is not',       MEM_READONLY, READ,  []],
  ])('the host hears, when its entry goes, that a frame which %s', (_name, flags, kind, dirty) => {
    const { vm, vcpu } = buildVm({ tdpMmu: true, level: 1, flags, pages: 2 });
    vcpu.touchPage(1, kind);
    const told = vi.spyOn(vm.mmu.host, 'markDirty');
    zapAll(vm.mmu);
    expect(told.mock.calls.map(([pfn]) => pfn)).toEqual(dirty);
  });

  it('the host does not hear of one that stays, and stays dirty', () => {
    const { vm, vcpu, setFlags } = buildVm({ tdpMmu: true, level: 1 });
    vcpu.touchPage(1, WRITE);
    const told = vi.spyOn(vm.mmu.host, 'markDirty');
    setFlags(LOG);
    expect(told).not.toHaveBeenCalled();
    expectSound(vm);
  });

  it('a page that was asked for its age is young again only once it is used again', () => {
    const { vm, vcpu, slot } = buildVm({ tdpMmu: true, level: 1 });
    vcpu.touchPage(1, WRITE);
    expect(testAgeGfn(vm.mmu, slot(), 1, 2)).toBe(true);
    expect(ageGfnRange(vm.mmu, slot(), 1, 2)).toBe(true);
    expect(testAgeGfn(vm.mmu, slot(), 1, 2)).toBe(false);
    expect(ageGfnRange(vm.mmu, slot(), 1, 2)).toBe(false);
  });
});
