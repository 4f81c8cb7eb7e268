/** Exhibits about roots, and about zapping pages in the right order and number. */
import { vi } from 'vitest';
import { buildGuest } from '../../vm/testing/build-guest.ts';
import { buildVm, READ, WRITE } from '../../vm/testing/build-vm.ts';
import { unprotectPage, zapAllFast } from '../page-zap.ts';
import { RACE_ZAP_BATCH } from '../race.ts';
import { broken, exhibit } from './testing/exhibit.ts';

/** Passages of race points, by number. */
const passed = vi.hoisted((): number[] => []);
vi.mock('../race.ts', async (original) => ({
  ...(await original<object>()),
  race: (point: number): void => {
    passed[point] = (passed[point] ?? 0) + 1;
  },
}));

exhibit('previousRootsUnchecked', 'a vCPU keeps a root that was zapped', {
  script: (bugs) => {
    const guest = buildGuest({ roots: 2, bugs });
    guest.expectDone('nop', 'cr3 1', 'nop');
    const { vm } = guest;
    // The root that was used before goes; the one in use doesn't.
    unprotectPage(vm.mmu, guest.image.roots[0] / 4096);
    guest.expectDone('nop');
    return { invariants: broken(vm), kept: guest.vcpu.mmu.prevRoots.filter(({ sp }) => sp !== 0).length };
  },
  damage: { invariants: ['roots'], kept: 1 },
  mended: { invariants: [], kept: 0 },
});

exhibit('newestZappedFirst', 'a working set that fits never does, as tables long out of use keep their room', {
  script: (bugs) => {
    const { vm, vcpu } = buildVm({ pages: 200 * 512, level: 1, bugs });
    vm.setNrMmuPages(64);
    for (let region = 0; region < 58; region++) vcpu.touchPage(region * 512, READ);
    const useWorkingSet = (): number => {
      const before = vcpu.mmu.stats.pf_taken;
      for (let region = 100; region < 140; region++) vcpu.touchPage(region * 512, READ);
      return vcpu.mmu.stats.pf_taken - before;
    };
    for (let i = 0; i < 2; i++) useWorkingSet();
    return [1, 2, 3, 4].map(useWorkingSet);
  },
  damage: [40, 40, 40, 40],
  mended: [0, 0, 0, 0],
});

exhibit('stableZapsUncounted', 'a zap of everything never lets others have the lock', {
  script: (bugs) => {
    const { vm, vcpu } = buildVm({ level: 1, pages: 40 * 512, bugs });
    for (let region = 0; region < 40; region++) vcpu.touchPage(region * 512, WRITE);
    passed[RACE_ZAP_BATCH] = 0;
    zapAllFast(vm.mmu);
    return { pauses: passed[RACE_ZAP_BATCH] };
  },
  damage: { pauses: 0 },
  mended: { pauses: 4 },
});
