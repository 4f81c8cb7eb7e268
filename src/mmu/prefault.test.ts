import { describe, expect, it } from 'vitest';
import { EINVAL, ENOENT, EOPNOTSUPP } from '../base/errno.ts';
import { MEM_LOG_DIRTY_PAGES } from '../mem/memslots.ts';
import { bitsOf, buildVm, entryAt, errnoOf, expectSound, READ, WRITE } from '../vm/testing/build-vm.ts';
import { KERNEL_6_1, KERNEL_6_12 } from './kernel-version.ts';
import { isAccessed, isWritable } from './spte.ts';

const REGION = 2 ** 21;
const kernel = KERNEL_6_12;

describe.each([
  ['the rmap-based engine', false],
  ['the TDP MMU', true],
])('KVM_PRE_FAULT_MEMORY in %s', (_name, tdpMmu) => {
  it('maps what a read would, without A, and counts no fault', () => {
    const { vm, vcpu } = buildVm({ tdpMmu, kernel, pages: 2048 });
    expect(vcpu.preFaultMemory(0, REGION + 4096)).toEqual({ gpa: BigInt(REGION) + 4096n, bytes: 0n });
    const [first, second, third] = [0, REGION, 2 * REGION].map((gpa) => entryAt(vm, vcpu, gpa));
    expect([first.level, second.level]).toEqual([2, 2]);
    expect([isAccessed(vm.mmu.format, first.lo, first.hi), isWritable(first.lo)]).toEqual([false, true]);
    expect(third.lo).toBe(0);
    expect([vcpu.mmu.stats.pf_taken, vcpu.mmu.stats.pf_fixed]).toEqual([0, 0]);
    vcpu.touchPage(5, WRITE);
    expect(vcpu.mmu.stats.pf_taken).toBe(0);
    expectSound(vm);
  });

  it('maps small and marks dirty in a logged slot', () => {
    const { vm, vcpu } = buildVm({ tdpMmu, kernel, flags: MEM_LOG_DIRTY_PAGES });
    vcpu.preFaultMemory(0x3000, 0x2000);
    expect(entryAt(vm, vcpu, 0x3000).level).toBe(1);
    const entry = entryAt(vm, vcpu, 0x4000);
    expect([isWritable(entry.lo), isAccessed(vm.mmu.format, entry.lo, entry.hi)]).toEqual([true, false]);
    expect(bitsOf(vm.getDirtyLog(0)).filter((page) => page === 3 || page === 4)).toEqual([3, 4]);
    expectSound(vm);
  });

  it('says how far it came where memory ends, and ENOENT where there is none', () => {
    const { vm, vcpu } = buildVm({ tdpMmu, kernel, pages: 512, level: 1 });
    expect(vcpu.preFaultMemory(510 * 4096, 0x4000)).toEqual({ gpa: 512n * 4096n, bytes: 0x2000n });
    expect(errnoOf(() => vcpu.preFaultMemory(512 * 4096, 0x1000))).toBe(ENOENT);
    expectSound(vm);
  });

  // biome-ignore format: a table
  it.each<[bigint, bigint, number]>([
    [0n,                  0n,      0],
    [1n,                  0x1000n, 0],
    [0n,                  0x1001n, 0],
    [0n,                  0x1000n, 1],
    [0xfffffffffffff000n, 0x1000n, 0],
    [0xfffffffffffff000n, 0x2000n, 0],
  ])('refuses 0x%s, %s bytes, flags %i', (gpa, bytes, flags) => {
    const { vcpu } = buildVm({ tdpMmu, kernel });
    expect(errnoOf(() => vcpu.preFaultMemory(gpa, bytes, flags))).toBe(EINVAL);
  });
});

it('is not there under shadow paging, nor in Linux 6.1', () => {
  const shadow = buildVm({ shadow: true, kernel });
  expect(errnoOf(() => shadow.vcpu.preFaultMemory(0, 0x1000))).toBe(EOPNOTSUPP);
  const old = buildVm({ kernel: KERNEL_6_1 });
  expect(errnoOf(() => old.vcpu.preFaultMemory(0, 0x1000))).toBe(EINVAL);
  expect([shadow, old, buildVm({ kernel })].map(({ vm }) => vm.checkExtension(236))).toEqual([0, 0, 1]);
});

it('a page that a vCPU reads next is mapped already', () => {
  const { vcpu } = buildVm({ kernel, tdpMmu: true });
  vcpu.preFaultMemory(0, 4096);
  vcpu.touchPage(0, READ);
  expect(vcpu.mmu.stats.pf_taken).toBe(0);
});
