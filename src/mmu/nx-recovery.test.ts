import { describe, expect, it } from 'vitest';
import { MEM_LOG_DIRTY_PAGES } from '../mem/memslots.ts';
import {
  buildVm,
  type BuiltVm,
  entryAt,
  errnoOf,
  expectSound,
  FETCH,
  flushesDuring,
  READ,
} from '../vm/testing/build-vm.ts';
import { KERNEL_6_1, KERNEL_6_12, type KernelVersion } from './kernel-version.ts';
import { recoveryPeriodMs } from './nx-recovery.ts';

const REGION = 2 ** 21;
const levels = ({ vm, vcpu }: BuiltVm, regions: number): number[] =>
  Array.from({ length: regions }, (_, region) => entryAt(vm, vcpu, region * REGION).level);

/** Five regions of 2 MiB, each split by a fetch, the lowest first. */
function split(tdpMmu: boolean, kernel: KernelVersion): BuiltVm {
  const built = buildVm({ pages: 5 * 512, nxHugePages: true, tdpMmu, kernel });
  for (let region = 0; region < 5; region++) built.vcpu.touchPage(512 * region + 3, FETCH);
  expect(built.vm.stats.nx_lpage_splits).toBe(5);
  return built;
}

describe.each<[string, boolean, KernelVersion]>([
  ['the rmap-based engine of 6.1', false, KERNEL_6_1],
  ['the TDP MMU of 6.1', true, KERNEL_6_1],
  ['the rmap-based engine of 6.12', false, KERNEL_6_12],
  ['the TDP MMU of 6.12', true, KERNEL_6_12],
])('recovery of NX huge pages in %s', (_name, tdpMmu, kernel) => {
  it('zaps one part of the tables, rounded up, oldest first, with one flush', () => {
    const built = split(tdpMmu, kernel);
    const { vm, vcpu } = built;
    expect(flushesDuring(vm, () => vm.recoverNxHugePages(3))).toBe(1);
    expect(vm.stats.nx_lpage_splits).toBe(3);
    expectSound(vm);
    for (let region = 0; region < 5; region++) vcpu.touchPage(512 * region + 3, READ);
    expect(levels(built, 5)).toEqual([2, 2, 1, 1, 1]);
    expect(vm.stats.nx_lpage_splits).toBe(3);
    expectSound(vm);
  });

  it('takes one at least, and none with a ratio of 0', () => {
    const { vm } = split(tdpMmu, kernel);
    expect(flushesDuring(vm, () => vm.recoverNxHugePages(0))).toBe(0);
    vm.recoverNxHugePages();
    expect(vm.stats.nx_lpage_splits).toBe(4);
    vm.recoverNxHugePages(1);
    expect(vm.stats.nx_lpage_splits).toBe(0);
    expect(flushesDuring(vm, () => vm.recoverNxHugePages(1))).toBe(0);
    expect(errnoOf(() => vm.recoverNxHugePages(-1))).toBe(22);
    expectSound(vm);
  });

  it('counts a table that comes back as the newest', () => {
    const built = split(tdpMmu, kernel);
    const { vm, vcpu } = built;
    vm.recoverNxHugePages(5);
    vcpu.touchPage(3, FETCH);
    vm.recoverNxHugePages(5);
    for (let region = 0; region < 5; region++) vcpu.touchPage(512 * region + 3, READ);
    expect(levels(built, 5)).toEqual([1, 2, 1, 1, 1]);
    expectSound(vm);
  });

  it(`${kernel.recoverySkipsLogged ? 'forgets' : 'zaps'} the tables of a slot whose log is on`, () => {
    const { vm, vcpu, setFlags } = split(tdpMmu, kernel);
    setFlags(MEM_LOG_DIRTY_PAGES);
    const before = vcpu.mmu.stats.pf_taken;
    const flushes = flushesDuring(vm, () => vm.recoverNxHugePages(1));
    expect(vm.stats.nx_lpage_splits).toBe(0);
    vcpu.touchPage(3, READ);
    const refaults = vcpu.mmu.stats.pf_taken - before;
    expect([flushes, refaults]).toEqual(kernel.recoverySkipsLogged ? [0, 0] : [1, 1]);
    expectSound(vm);
  });
});

it('the period is an hour for all if none is given, and none while the mitigation or the ratio is off', () => {
  const { mmu } = buildVm({ nxHugePages: true }).vm;
  expect([60, 1, 7200, 0].map((ratio) => recoveryPeriodMs(mmu, ratio, 0))).toEqual([60_000, 3_600_000, 1000, Infinity]);
  expect(recoveryPeriodMs(mmu, 60, 123)).toBe(123);
  mmu.nxHugePages = false;
  expect(recoveryPeriodMs(mmu, 60, 123)).toBe(Infinity);
});
