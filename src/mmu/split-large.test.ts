import { expect, it } from 'vitest';
import { buildVm, entryAt, WRITE } from '../vm/testing/build-vm.ts';
import { splitLarge } from './split-large.ts';

it('a descriptor that the large entry sets free does not go back to the cache', () => {
  const { vm, vcpu } = buildVm({ level: 2 });
  const { mmu } = vm;
  for (const gfn of [3, 515]) vcpu.touchPage(gfn, WRITE);
  const [first, second] = [3, 515].map((gfn) => entryAt(vm, vcpu, gfn * 4096).sptep);
  const slot = mmu.slots[0].byId(0)!;
  // As if another had mapped the first two MiB, too: the list keeps its descriptor until it is empty.
  mmu.lists.add(slot.rmap[1], 0, second);
  mmu.lists.remove(slot.rmap[1], 0, second);
  mmu.splitCaches.topUp();
  const { descriptors, tables } = mmu.splitCaches;
  const { used } = mmu.lists;
  splitLarge(mmu, slot, first);
  expect(mmu.lists.used).toBe(used - 1);
  expect([mmu.splitCaches.descriptors, mmu.splitCaches.tables]).toEqual([descriptors, tables - 1]);
});
