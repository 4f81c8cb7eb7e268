import { describe, expect, it } from 'vitest';
import { EINVAL } from '../base/errno.ts';
import { MEM_LOG_DIRTY_PAGES as LOG } from '../mem/memslots.ts';
import { VM_STAT_NAMES } from '../trace/stats.ts';
import { activePages, bitsOf, buildVm, errnoOf, expectSound, FETCH, READ, WRITE } from './testing/build-vm.ts';
import { CAP_MANUAL_DIRTY_LOG_PROTECT2, CAP_VM_DISABLE_NX_HUGE_PAGES } from './vm.ts';

describe('a VM', () => {
  it('numbers its vCPUs, up to 1024 of them', () => {
    const { vm } = buildVm({ vcpus: 3 });
    expect(vm.vcpus.map(({ id }) => id)).toEqual([0, 1, 2]);
    for (let i = 3; i < 1024; i++) vm.createVcpu();
    expect(errnoOf(() => vm.createVcpu())).toBe(EINVAL);
  });

  it('hears of changes in the host it was given', () => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vcpu.touchPage(1, WRITE);
    const { host } = vm.mmu;
    host.notifier!.invalidateRangeStart(2 ** 46, 2 ** 46 + 8192);
    host.notifier!.invalidateRangeEnd(2 ** 46, 2 ** 46 + 8192);
    expect([vm.stats.pages_4k, vm.mmu.invalidateSeq]).toEqual([6, 1]);
  });

  it("has statistics with the kernel's names, in its order", () => {
    const { vm } = buildVm();
    expect(Object.keys(vm.stats)).toEqual([...VM_STAT_NAMES]);
    expect(VM_STAT_NAMES.slice(2, 9)).toEqual([
      'mmu_shadow_zapped',
      'mmu_pte_write',
      'mmu_pde_zapped',
      'mmu_flooded',
      'mmu_recycled',
      'mmu_cache_miss',
      'mmu_unsync',
    ]);
  });
});

describe('manual protection', () => {
  // biome-ignore format: a table
  it.each([
    // argument  errno   manual  initially set
    [0,          0,      false,  false],
    [1,          0,      true,   false],
    [2,          EINVAL, false,  false],
    [3,          0,      true,   true],
    [4,          EINVAL, false,  false],
    [5,          EINVAL, false,  false],
    [2 ** 32,    EINVAL, false,  false],
    [-1,         EINVAL, false,  false],
  ])('argument %d', (argument, errno, manual, initiallySet) => {
    const { vm } = buildVm();
    expect(errnoOf(() => vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, argument))).toBe(errno);
    expect([vm.mmu.manualProtect, vm.mmu.initiallySet]).toEqual([manual, initiallySet]);
  });

  it('may be changed at any time; 0 turns it off', () => {
    const { vm, vcpu } = buildVm({ flags: LOG, manual: 1 });
    vcpu.touchPage(5, WRITE);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([5]);
    vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, 0);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([5]);
    expect(bitsOf(vm.getDirtyLog(0))).toEqual([]);
  });

  it('takes no flags; a capability that is not known is refused', () => {
    const { vm } = buildVm();
    expect(errnoOf(() => vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, 1, 1))).toBe(EINVAL);
    expect(errnoOf(() => vm.enableCap(1, 0))).toBe(EINVAL);
  });
});

describe('the limit of MMU pages', () => {
  it.each([
    [0, EINVAL],
    [63, EINVAL],
    [-1, EINVAL],
    [64, 0],
    [100_000, 0],
  ])('%d', (count, errno) => {
    const { vm } = buildVm({ pages: 0 });
    expect(errnoOf(() => vm.setNrMmuPages(count))).toBe(errno);
    expect(vm.getNrMmuPages()).toBe(errno === 0 ? count : 0);
  });

  it('is kept while the guest runs: what it maps anew takes the place of the oldest', () => {
    const { vm, vcpu } = buildVm({ pages: 200 * 512, level: 1 });
    vm.setNrMmuPages(64);
    for (let i = 0; i < 200; i++) {
      vcpu.touchPage(512 * i, READ);
      expect(activePages(vm).length).toBeLessThanOrEqual(64);
    }
    expect(vm.stats.mmu_recycled).toBeGreaterThan(100);
    expectSound(vm);
  });

  it('may be lowered below what is in use', () => {
    const { vm, vcpu } = buildVm({ pages: 100 * 512, level: 1 });
    vm.setNrMmuPages(200);
    for (let i = 0; i < 100; i++) vcpu.touchPage(512 * i, READ);
    expect(activePages(vm)).toHaveLength(103);
    vm.setNrMmuPages(70);
    expect([activePages(vm).length, vm.getNrMmuPages()]).toEqual([70, 70]);
    expectSound(vm);
  });
});

describe('the mitigation against executable large pages', () => {
  it('maps what is fetched by small pages, and what is read by large ones that can not be executed', () => {
    const { vm, vcpu } = buildVm({ nxHugePages: true });
    vcpu.touchPage(0, READ);
    vcpu.touchPage(513, FETCH);
    expect([vm.stats.pages_2m, vm.stats.nx_lpage_splits]).toEqual([1, 1]);
    expectSound(vm);
  });

  it('zaps everything when it is switched, and does nothing when it is not', () => {
    const { vm, vcpu } = buildVm();
    vcpu.touchPage(0, WRITE);
    vm.setNxHugePages(false);
    expect([vm.stats.pages_2m, vm.mmu.validGen]).toEqual([1, 0]);
    vm.setNxHugePages(true);
    expect([vm.stats.pages_2m, vm.mmu.validGen]).toEqual([0, 1]);
    vcpu.touchPage(0, FETCH);
    expect(vm.stats.pages_2m).toBe(0);
  });

  it('can be left off for good by a VM that has no vCPU yet', () => {
    const { vm } = buildVm({ vcpus: 0, nxHugePages: true });
    expect(errnoOf(() => vm.enableCap(CAP_VM_DISABLE_NX_HUGE_PAGES, 1))).toBe(EINVAL);
    vm.enableCap(CAP_VM_DISABLE_NX_HUGE_PAGES, 0);
    const vcpu = vm.createVcpu();
    expect(errnoOf(() => vm.enableCap(CAP_VM_DISABLE_NX_HUGE_PAGES, 0))).toBe(EINVAL);
    vcpu.touchPage(0, FETCH);
    expect(vm.stats.pages_2m).toBe(1);
  });
});
