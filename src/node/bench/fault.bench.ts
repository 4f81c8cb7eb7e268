/**
 * What a fault costs, from the guest's access until that has succeeded: TLB miss, walk, fault, repair, walk, fill.
 */
import { type Figure, nsPer } from './figure.bench.ts';
import { GIB, Guest, READ, WRITE } from './guest.bench.ts';

const FAULT: Pick<Figure, 'unit' | 'better' | 'timed' | 'tolerance'> = {
  unit: 'ns',
  better: 'lower',
  timed: true,
  tolerance: 1.75,
};

/** Faults must be taken, or the figure is of something else. */
function checkFaults(guest: Guest, before: number, expected: number): void {
  const taken = guest.vcpu.mmu.stats.pf_taken - before;
  if (taken !== expected) throw new Error(`${taken} faults instead of ${expected}`);
}

export const FAULT_FIGURES: readonly Figure[] = [
  {
    ...FAULT,
    name: 'fast-fixed dirty fault',
    target: 260,
    prepare() {
      const guest = new Guest(GIB / 4, 1);
      guest.touchEach(1, WRITE);
      guest.startLog();
      guest.touchEach(1, WRITE);
      return () => {
        guest.vm.getDirtyLog(0);
        const before = guest.vcpu.mmu.stats.pf_fast;
        const ns = nsPer(guest.pages, () => guest.touchEach(1, WRITE));
        if (guest.vcpu.mmu.stats.pf_fast - before !== guest.pages) throw new Error('not all faults were fast');
        return ns;
      };
    },
  },
  {
    ...FAULT,
    name: 'slow fault, 4 KiB page in a logged slot',
    target: 1000,
    prepare: () => () => {
      const guest = new Guest(GIB / 8, 1);
      guest.startLog();
      const before = guest.vcpu.mmu.stats.pf_taken;
      const ns = nsPer(guest.pages, () => guest.touchEach(1, WRITE));
      checkFaults(guest, before, guest.pages);
      return ns;
    },
  },
  {
    ...FAULT,
    name: 'slow fault, 4 KiB page and 7 prefetched',
    target: 1000,
    prepare: () => () => {
      const guest = new Guest(GIB / 2, 1);
      const before = guest.vcpu.mmu.stats.pf_taken;
      const ns = nsPer(guest.pages / 8, () => guest.touchEach(8, READ));
      checkFaults(guest, before, guest.pages / 8);
      return ns;
    },
  },
  {
    ...FAULT,
    name: 'slow fault, 2 MiB page',
    target: 1000,
    prepare: () => () => {
      const guest = new Guest(64 * GIB, 2);
      const ns = nsPer(guest.pages / 512, () => guest.touchEach(512, WRITE));
      checkFaults(guest, 0, guest.pages / 512);
      return ns;
    },
  },
  {
    ...FAULT,
    // Mostly the host's work: each fault takes a fresh table, and fresh memory costs what it costs that day.
    name: 'slow fault, drops a 2 MiB entry',
    tolerance: 3,
    target: null,
    prepare: () => () => {
      const guest = new Guest(8 * GIB, 2);
      guest.touchEach(512, WRITE);
      guest.startLog();
      const before = guest.vcpu.mmu.stats.pf_taken;
      const ns = nsPer(guest.pages / 512, () => guest.touchEach(512, WRITE));
      checkFaults(guest, before, guest.pages / 512);
      return ns;
    },
  },
];
