/** Walks skip chunks of empty heads, and must visit what a look at every head would. */
import { describe, expect, it } from 'vitest';
import { Prng } from '../base/prng.ts';
import { FLAT_HVA, FlatHost } from '../mem/flat-host.ts';
import { Vm } from '../vm/vm.ts';
import { zapRmap } from './rmap.ts';
import { walkSlotRmaps } from './slot-walk.ts';

const PAGES = 8 * 512;
const HOLE = 300;

function makeVm(): Vm {
  const vm = new Vm({ host: new FlatHost({ bytes: 64 * 2 ** 20, level: 1, sparse: true }), npt: true });
  // The slot begins and ends within a chunk.
  const region = { slot: 0, flags: 0, userspaceAddr: FLAT_HVA };
  vm.setUserMemoryRegion({ ...region, guestPhysAddr: 4096 * HOLE, memorySize: 4096 * PAGES });
  vm.createVcpu();
  return vm;
}

function visited(vm: Vm, from: number, to: number): number[] {
  const slot = vm.mmu.slots[0].slots[0];
  const seen: number[] = [];
  walkSlotRmaps(vm.mmu, slot, 1, 1, HOLE + from, HOLE + to, (_mmu, _slot, _heads, at) => {
    seen.push(at);
    return false;
  });
  return seen;
}

describe('a walk of the reverse map', () => {
  it('visits every head that is used, in any range, while mappings come and go', () => {
    const random = new Prng(3);
    const vm = makeVm();
    const slot = vm.mmu.slots[0].slots[0];
    for (let step = 0; step < 400; step++) {
      const page = random.int(PAGES);
      if (random.chance(0.4)) vm.vcpus[0].touchPage(HOLE + page, 1);
      // The host takes a range back.
      else if (random.chance(0.5)) {
        const end = Math.min(PAGES, page + 1 + random.int(1200));
        for (let at = page; at < end; at++) zapRmap(vm.mmu, slot.rmap[0], at);
      }
      const from = random.int(PAGES);
      const to = from + random.int(PAGES - from + 1);
      const used = Array.from({ length: to - from }, (_, i) => from + i).filter((at) => slot.rmap[0][at] !== 0);
      expect(visited(vm, from, to)).toEqual(used);
    }
  });

  it('forgets chunks that became empty', () => {
    const vm = makeVm();
    const slot = vm.mmu.slots[0].slots[0];
    vm.vcpus[0].touchPage(HOLE + 700, 1);
    expect(slot.rmapUsed[0].indexOf(1)).toBe(1);
    for (let at = 0; at < PAGES; at++) zapRmap(vm.mmu, slot.rmap[0], at);
    expect(visited(vm, 0, PAGES)).toEqual([]);
    expect(slot.rmapUsed[0].indexOf(1)).toBe(-1);
  });
});
