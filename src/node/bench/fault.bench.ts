/**
 * What a fault costs, from the guest's access until that has succeeded: TLB miss, walk, fault, repair, walk, fill.
 */
import { type Figure, nsPer } from './figure.bench.ts';
import { DIRECT, type Engine, GIB, Guest, READ, TDP_EPT_PML, TDP_MMU, TDP_RING, WRITE } from './guest.bench.ts';

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

/** All pages have been written and collected; now each is written again. No more of them than a ring holds. */
function rewrite(engine: Engine, what: string, fastFaults: 'all' | 'none'): Figure {
  return {
    ...FAULT,
    name: `${engine.prefix}${what}`,
    target: 260,
    prepare() {
      const guest = new Guest(engine.ringBytes === undefined ? GIB / 4 : GIB / 8, 1, engine);
      guest.touchEach(1, WRITE);
      guest.startLog();
      guest.touchEach(1, WRITE);
      const expected = fastFaults === 'all' ? guest.pages : 0;
      return () => {
        guest.collect();
        const { stats } = guest.vcpu.mmu;
        const before = stats.pf_fast;
        const taken = stats.pf_taken;
        const ns = nsPer(guest.pages, () => guest.touchEach(1, WRITE));
        if (stats.pf_fast - before !== expected) throw new Error(`not ${fastFaults} of the faults were fast`);
        checkFaults(guest, taken, expected);
        return ns;
      };
    },
  };
}

/** Each access faults once, in a fresh guest; every `step`-th page is touched. */
function slowFault(
  engine: Engine,
  what: string,
  guestOf: { bytes: number; hostLevel: 1 | 2; step: number; kind: number },
  prepare: (guest: Guest) => void = () => {},
): Figure {
  const { bytes, hostLevel, step, kind } = guestOf;
  return {
    ...FAULT,
    name: `${engine.prefix}slow fault, ${what}`,
    target: 1000,
    prepare: () => () => {
      const guest = new Guest(bytes, hostLevel, engine);
      prepare(guest);
      const before = guest.vcpu.mmu.stats.pf_taken;
      const ns = nsPer(guest.pages / step, () => guest.touchEach(step, kind));
      checkFaults(guest, before, guest.pages / step);
      return ns;
    },
  };
}

const inLoggedSlot = (engine: Engine): Figure =>
  slowFault(engine, '4 KiB page in a logged slot', { bytes: GIB / 8, hostLevel: 1, step: 1, kind: WRITE }, (guest) =>
    guest.startLog(),
  );

const withPrefetch = (engine: Engine): Figure =>
  slowFault(engine, '4 KiB page and 7 prefetched', { bytes: GIB / 2, hostLevel: 1, step: 8, kind: READ });

const largePage = (engine: Engine): Figure =>
  slowFault(engine, '2 MiB page', { bytes: 64 * GIB, hostLevel: 2, step: 512, kind: WRITE });

/** Mostly the host's work: each fault takes a fresh table, and fresh memory costs what it costs that day. */
const dropLarge = (engine: Engine): Figure => ({
  ...slowFault(engine, 'drops a 2 MiB entry', { bytes: 8 * GIB, hostLevel: 2, step: 512, kind: WRITE }, (guest) => {
    guest.touchEach(512, WRITE);
    guest.startLog();
  }),
  tolerance: 3,
  target: null,
});

export const FAULT_FIGURES: readonly Figure[] = [
  rewrite(DIRECT, 'fast-fixed dirty fault', 'all'),
  inLoggedSlot(DIRECT),
  withPrefetch(DIRECT),
  largePage(DIRECT),
  dropLarge(DIRECT),
];

/** The TDP MMU does not prefetch. With PML a page that is written again costs no fault, but its share of a full buffer's exit. */
export const TODAYS_FAULT_FIGURES: readonly Figure[] = [
  rewrite(TDP_MMU, 'fast-fixed dirty fault', 'all'),
  inLoggedSlot(TDP_MMU),
  largePage(TDP_MMU),
  dropLarge(TDP_MMU),
  rewrite(TDP_EPT_PML, 'page written again', 'none'),
  inLoggedSlot(TDP_EPT_PML),
  largePage(TDP_EPT_PML),
  dropLarge(TDP_EPT_PML),
  rewrite(TDP_RING, 'fast-fixed dirty fault', 'all'),
  inLoggedSlot(TDP_RING),
];
