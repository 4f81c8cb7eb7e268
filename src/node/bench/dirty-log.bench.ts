/** Starting the log, and collecting it: milliseconds for each GiB of the guest. */
import { CAP_MANUAL_DIRTY_LOG_PROTECT2 } from '../../vm/vm.ts';
import { type Figure, nsPer } from './figure.bench.ts';
import { GIB, Guest, WRITE } from './guest.bench.ts';

const LOG: Pick<Figure, 'unit' | 'better' | 'timed' | 'tolerance'> = {
  unit: 'ms/GiB',
  better: 'lower',
  timed: true,
  tolerance: 1.5,
};

function msPer(gib: number, work: () => void): number {
  return nsPer(gib, work) / 1e6;
}

export const DIRTY_LOG_FIGURES: readonly Figure[] = [
  {
    ...LOG,
    name: 'log start, 4 KiB mappings',
    target: 4,
    prepare() {
      const guest = new Guest(GIB, 1);
      return () => {
        guest.touchEach(1, WRITE);
        const ms = msPer(1, () => guest.startLog());
        guest.stopLog();
        return ms;
      };
    },
  },
  {
    ...LOG,
    name: 'log start, 2 MiB mappings',
    target: 0.05,
    prepare() {
      const guest = new Guest(64 * GIB, 2);
      return () => {
        guest.touchEach(512, WRITE);
        const ms = msPer(64, () => guest.startLog());
        guest.stopLog();
        return ms;
      };
    },
  },
  {
    ...LOG,
    name: 'get+clear of a fully dirty guest',
    target: 3,
    prepare() {
      const guest = new Guest(GIB, 1);
      guest.startLog();
      return () => {
        guest.touchEach(1, WRITE);
        return msPer(1, () => void guest.vm.getDirtyLog(0));
      };
    },
  },
  {
    ...LOG,
    name: 'get, then clear by hand, fully dirty',
    target: 3,
    prepare() {
      const guest = new Guest(GIB, 1);
      guest.vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, 1);
      guest.startLog();
      return () => {
        guest.touchEach(1, WRITE);
        return msPer(1, () => {
          const bits = guest.vm.getDirtyLog(0);
          guest.vm.clearDirtyLog(0, 0, guest.pages, bits);
        });
      };
    },
  },
];
