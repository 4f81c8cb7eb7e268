/**
 * Accesses a second: a recording replayed under a migration as `penumbra replay` does it, with the trace ring on and
 * off; and a guest of which 99 accesses of 100 hit the TLB.
 */
import { Prng } from '../../base/prng.ts';
import type { PageTrace } from '../../formats/pntrace.ts';
import { profileTrace } from '../../lab/profile.ts';
import { DEFAULT_ROUND_EPOCHS, DEFAULT_SEED, replay } from '../../lab/replay.ts';
import { makeVmMachine } from '../../lab/vm-machine.ts';
import { Tracer } from '../../trace/tracer.ts';
import { POLICIES } from '../../vm/vm.ts';
import { loadTrace } from '../trace-files.ts';
import { type Figure, nsPer } from './figure.bench.ts';
import { DIRECT, type Engine, GIB, Guest, READ, TDP_EPT_PML, TDP_MMU, WRITE } from './guest.bench.ts';

const RECORDING = 'redis-small';
const ACCESSES = 1 << 21;

const RATE: Pick<Figure, 'unit' | 'better' | 'timed' | 'tolerance'> = {
  unit: 'M/s',
  better: 'higher',
  timed: true,
  tolerance: 1.75,
};

/** Million accesses a second of one replay, from a fresh machine to the comparison at the end. */
function replayRate(
  trace: PageTrace,
  profile: ReturnType<typeof profileTrace>,
  tracer: boolean,
  { config }: Engine = DIRECT,
): number {
  const mmu = { policy: POLICIES.lazy, ...config };
  const machine = makeVmMachine(mmu, trace.header.memBytes, trace.header.vcpus, tracing(tracer));
  const options = { roundEpochs: DEFAULT_ROUND_EPOCHS, seed: DEFAULT_SEED };
  return 1e3 / nsPer(trace.records.length, () => void replay(trace, machine, options, profile));
}

function tracing(on: boolean): Tracer {
  const tracer = new Tracer({ capacity: 1 << 16 });
  tracer.on = on;
  return tracer;
}

/** 256 pages are at home in the TLB, one access in 100 goes anywhere in 1 GiB. The log is on and collected. */
class HotGuest {
  private readonly guest: Guest;
  private readonly pages = new Int32Array(ACCESSES);

  constructor(trace: boolean, engine: Engine) {
    this.guest = new Guest(GIB, 1, engine, tracing(trace));
    const random = new Prng(7);
    for (let i = 0; i < ACCESSES; i++) this.pages[i] = random.int(100) === 0 ? random.int(GIB / 4096) : random.int(256);
    this.guest.touchEach(1, WRITE);
    this.guest.startLog();
  }

  /** Million accesses a second; one in four writes. */
  sample(): number {
    const { guest, pages } = this;
    const { vcpu } = guest;
    const { tlb } = vcpu.cpu;
    guest.vm.getDirtyLog(0);
    const hits = tlb.hits;
    const rate =
      1e3 /
      nsPer(ACCESSES, () => {
        for (let i = 0; i < ACCESSES; i++) vcpu.touchPage(pages[i], (i & 3) === 0 ? WRITE : READ);
      });
    const share = (tlb.hits - hits) / ACCESSES;
    if (share < 0.97) throw new Error(`only ${share} of the accesses hit`);
    return rate;
  }
}

function rates(engine: Engine): Figure[] {
  return [
    {
      ...RATE,
      name: `${engine.prefix}replay of redis-small, trace ring on`,
      target: 10,
      prepare() {
        const trace = loadTrace(RECORDING);
        const profile = profileTrace(trace);
        return () => replayRate(trace, profile, true, engine);
      },
    },
    {
      ...RATE,
      name: `${engine.prefix}accesses of which 99 % hit, trace ring on`,
      target: 25,
      prepare() {
        const guest = new HotGuest(true, engine);
        return () => guest.sample();
      },
    },
  ];
}

export const REPLAY_FIGURES: readonly Figure[] = [
  ...rates(DIRECT),
  {
    name: 'time of a replay, ring on to off',
    unit: 'ratio',
    target: 1.2,
    better: 'lower',
    timed: false,
    tolerance: 1.25,
    prepare() {
      const trace = loadTrace(RECORDING);
      const profile = profileTrace(trace);
      return () => {
        const off = replayRate(trace, profile, false);
        return off / replayRate(trace, profile, true);
      };
    },
  },
];

export const TODAYS_REPLAY_FIGURES: readonly Figure[] = [...rates(TDP_MMU), ...rates(TDP_EPT_PML)];
