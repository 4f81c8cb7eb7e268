/** Starting the log, and collecting it: milliseconds for each GiB of the guest. */
import { CAP_MANUAL_DIRTY_LOG_PROTECT2 } from '../../vm/vm.ts';
import { type Figure, nsPer } from './figure.bench.ts';
import { DIRECT, type Engine, GIB, Guest, TDP_EPT_PML, TDP_MMU, TDP_RING, WRITE } from './guest.bench.ts';

const LOG: Pick<Figure, 'unit' | 'better' | 'timed' | 'tolerance'> = {
  unit: 'ms/GiB',
  better: 'lower',
  timed: true,
  tolerance: 1.5,
};

function msPer(gib: number, work: () => void): number {
  return nsPer(gib, work) / 1e6;
}

function logStart(engine: Engine, hostLevel: 1 | 2, gib: number, target: number): Figure {
  return {
    ...LOG,
    name: `${engine.prefix}log start, ${hostLevel === 1 ? '4 KiB' : '2 MiB'} mappings`,
    target,
    prepare() {
      const guest = new Guest(gib * GIB, hostLevel, engine);
      return () => {
        guest.touchEach(hostLevel === 1 ? 1 : 512, WRITE);
        const ms = msPer(gib, () => guest.startLog());
        guest.stopLog();
        return ms;
      };
    },
  };
}

/** Of a guest that the ring holds, if it is one. */
function collect(engine: Engine): Figure {
  const gib = engine.ringBytes === undefined ? 1 : 1 / 8;
  const what = engine.ringBytes === undefined ? 'get+clear' : 'harvest and reset';
  return {
    ...LOG,
    name: `${engine.prefix}${what} of a fully dirty guest`,
    target: 3,
    prepare() {
      const guest = new Guest(gib * GIB, 1, engine);
      guest.startLog();
      return () => {
        guest.touchEach(1, WRITE);
        return msPer(gib, () => guest.collect());
      };
    },
  };
}

function collectByHand(engine: Engine): Figure {
  return {
    ...LOG,
    name: `${engine.prefix}get, then clear by hand, fully dirty`,
    target: 3,
    prepare() {
      const guest = new Guest(GIB, 1, engine);
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
  };
}

function withBitmap(engine: Engine): Figure[] {
  return [logStart(engine, 1, 1, 4), logStart(engine, 2, 64, 0.05), collect(engine), collectByHand(engine)];
}

export const DIRTY_LOG_FIGURES: readonly Figure[] = withBitmap(DIRECT);
export const TODAYS_DIRTY_LOG_FIGURES: readonly Figure[] = [
  ...withBitmap(TDP_MMU),
  ...withBitmap(TDP_EPT_PML),
  collect(TDP_RING),
];
