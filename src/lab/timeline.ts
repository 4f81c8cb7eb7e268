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
 * Costs about 2 % of a replay: `penumbra story --report FILE` against `penumbra story`.
 */
import type { PageTrace } from '../formats/pntrace.ts';
import { REGION_PAGES, type TraceProfile } from './profile.ts';
import type { GuestFaults, RegionView, ReplayMachine, ReplayObserver } from './replay.ts';

/** A chart is a few hundred pixels wide. */
const MOST_BINS = 240;

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
  private readonly writtenRegions: readonly number[];
  private readonly epochs: number;
  private readonly epochsPerBin: number;
  private readonly readFaults: number[] = [];
  private readonly writeFaults: number[] = [];
  private readonly frames: TimelineFrame[] = [];
  private requestsBefore = 0;
  private readonly destination: Uint32Array;
  private versions: Uint32Array = new Uint32Array(0);
  private view: RegionView | undefined;
  private epoch = 0;
  private faults = NO_FAULTS;
  private binBegan = NO_FAULTS;
  private sentPages = 0;

  constructor(trace: PageTrace, profile: TraceProfile, machine: ReplayMachine) {
    this.machine = machine;
    this.regions = profile.regions;
    this.writtenRegions = Array.from(profile.regionWritten.keys()).filter((n) => profile.regionWritten[n] === 1);
    this.epochs = trace.header.epochs;
    this.epochsPerBin = Math.max(1, Math.ceil(this.epochs / MOST_BINS));
    this.destination = new Uint32Array(profile.pages);
  }

  beforeLog(): void {
    this.requestsBefore = this.machine.counters().remote_tlb_flush_requests;
    this.look();
    this.keepFrame();
  }

  logStarted(versions: Uint32Array): void {
    this.versions = versions;
    this.look();
    this.keepFrame();
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
    this.look();
  }

  roundEnds(bitmap: Int32Array): void {
    for (let word = 0; word < bitmap.length; word++) {
      for (let rest = bitmap[word]; rest !== 0; rest &= rest - 1) {
        const page = word * 32 + 31 - Math.clz32(rest & -rest);
        this.destination[page] = this.versions[page];
        this.sentPages++;
      }
    }
    this.keepFrame();
  }

  finish(): Timeline {
    const { epochsPerBin, readFaults, writeFaults, frames } = this;
    return { epochsPerBin, readFaults, writeFaults, frames };
  }

  private look(): void {
    this.view = { states: new Uint8Array(this.regions), dirtyPages: new Uint16Array(this.regions) };
    this.machine.regions?.(this.view);
  }

  private keepFrame(): void {
    if (this.view === undefined) throw new Error('a frame is kept before anything was looked at');
    this.frames.push({
      epoch: this.epoch,
      ...this.view,
      behindPages: this.countBehind(),
      ...this.faults,
      flushRequests: this.machine.counters().remote_tlb_flush_requests - this.requestsBefore,
      sentPages: this.sentPages,
    });
  }

  private countBehind(): Uint16Array {
    const { versions, destination } = this;
    const behind = new Uint16Array(this.regions);
    if (versions.length === 0) return behind;
    for (const region of this.writtenRegions) {
      const end = Math.min(versions.length, (region + 1) * REGION_PAGES);
      for (let page = region * REGION_PAGES; page < end; page++) {
        if (versions[page] !== destination[page]) behind[region]++;
      }
    }
    return behind;
  }
}
