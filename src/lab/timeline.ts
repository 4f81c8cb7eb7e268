/**
 * How a run looks over time, for the report: faults in bins of epochs, and a frame of all 2 MiB regions for each round.
 *
 *     frame 0        frame 1          frame 2            ...      the last frame
 *     before the     the log          the first round             the last round,
 *     log starts     just started     reads the log               the guest stopped
 *
 * A frame shows the regions as the engine's tables and its dirty log have them while the guest stands still, before the
 * round reads the log; and how many pages of each region are *behind* once the round is done: written, not sent, so that
 * the destination's version is older than the source's. Behind is found by comparing versions and knows nothing of the
 * log; after the last round those pages are the lost ones.
 *
 * Costs about 30 us a frame, which is 4 % of the replays of redis-small and 9 % of those of grep, where a round comes every
 * 5 million instructions; of `penumbra story` as a whole, 3 %.
 */
import type { PageTrace } from '../formats/pntrace.ts';
import type { TraceProfile } from './profile.ts';
import type { GuestFaults, ReplayMachine, ReplayObserver } from './replay.ts';

/** A chart is a few hundred pixels wide. */
const MOST_BINS = 240;
const REGION_SHIFT = 9;

export interface TimelineFrame {
  /** Epochs that the guest has run. */
  readonly epoch: number;
  /** By region, a state of `vm/inspect.ts`. */
  readonly states: Uint8Array;
  /** By region: pages in the log that no round has read yet. */
  readonly dirtyPages: Uint16Array;
  /** By region: pages that the destination has in an older version, after the round. */
  readonly behindPages: Uint16Array;
  /** All since the log started, its start included. */
  readonly readFaults: number;
  readonly writeFaults: number;
  readonly flushRequests: number;
  /** Pages sent after the first copy, this frame's round included. */
  readonly sentPages: number;
}

export interface Timeline {
  readonly epochsPerBin: number;
  /** Faults in each bin; the last one may be shorter. */
  readonly readFaults: readonly number[];
  readonly writeFaults: readonly number[];
  readonly frames: readonly TimelineFrame[];
}

const NO_FAULTS: GuestFaults = { readFaults: 0, writeFaults: 0 };

/** Looks at one run. */
export class TimelineRecorder implements ReplayObserver {
  private readonly machine: ReplayMachine;
  private readonly regions: number;
  /** Only these can fall behind: the others have version 0 on both sides. */
  private readonly writtenPages: Uint32Array;
  private readonly epochs: number;
  private readonly epochsPerBin: number;
  private readonly readFaults: number[] = [];
  private readonly writeFaults: number[] = [];
  private readonly frames: TimelineFrame[] = [];
  private requestsBefore = 0;
  private readonly destination: Uint32Array;
  private versions: Uint32Array = new Uint32Array(0);
  private states = new Uint8Array(0);
  private epoch = 0;
  private faults = NO_FAULTS;
  private binBegan = NO_FAULTS;
  private sentPages = 0;

  constructor(trace: PageTrace, profile: TraceProfile, machine: ReplayMachine) {
    this.machine = machine;
    this.regions = profile.regions;
    this.writtenPages = profile.writtenPageList;
    this.epochs = trace.header.epochs;
    this.epochsPerBin = Math.max(1, Math.ceil(this.epochs / MOST_BINS));
    this.destination = new Uint32Array(profile.pages);
  }

  beforeLog(): void {
    this.requestsBefore = this.machine.counters().remote_tlb_flush_requests;
    this.keepFrame(this.look());
  }

  logStarted(versions: Uint32Array): void {
    this.versions = versions;
    this.keepFrame(this.look());
  }

  epochEnds(epoch: number, { readFaults, writeFaults }: GuestFaults): void {
    this.epoch = epoch + 1;
    this.faults = { readFaults, writeFaults };
    if (this.epoch % this.epochsPerBin !== 0 && this.epoch !== this.epochs) return;
    this.readFaults.push(readFaults - this.binBegan.readFaults);
    this.writeFaults.push(writeFaults - this.binBegan.writeFaults);
    this.binBegan = this.faults;
  }

  roundBegins(): void {
    this.states = new Uint8Array(this.regions);
    this.machine.regions?.({ states: this.states });
  }

  roundEnds(bitmap: Int32Array): void {
    const { destination, versions } = this;
    const dirtyPages = new Uint16Array(this.regions);
    for (let word = 0; word < bitmap.length; word++) {
      for (let rest = bitmap[word]; rest !== 0; rest &= rest - 1) {
        const page = word * 32 + 31 - Math.clz32(rest & -rest);
        destination[page] = versions[page];
        dirtyPages[page >>> REGION_SHIFT]++;
        this.sentPages++;
      }
    }
    this.keepFrame(dirtyPages);
  }

  finish(): Timeline {
    const { epochsPerBin, readFaults, writeFaults, frames } = this;
    return { epochsPerBin, readFaults, writeFaults, frames };
  }

  /** The regions between rounds, where the log has to be asked for what it holds. */
  private look(): Uint16Array {
    const dirtyPages = new Uint16Array(this.regions);
    this.states = new Uint8Array(this.regions);
    this.machine.regions?.({ states: this.states, dirtyPages });
    return dirtyPages;
  }

  private keepFrame(dirtyPages: Uint16Array): void {
    this.frames.push({
      epoch: this.epoch,
      states: this.states,
      dirtyPages,
      behindPages: this.countBehind(),
      ...this.faults,
      flushRequests: this.machine.counters().remote_tlb_flush_requests - this.requestsBefore,
      sentPages: this.sentPages,
    });
  }

  private countBehind(): Uint16Array {
    const { versions, destination, writtenPages } = this;
    const behind = new Uint16Array(this.regions);
    if (versions.length === 0) return behind;
    for (let i = 0; i < writtenPages.length; i++) {
      const page = writtenPages[i];
      if (versions[page] !== destination[page]) behind[page >>> REGION_SHIFT]++;
    }
    return behind;
  }
}
