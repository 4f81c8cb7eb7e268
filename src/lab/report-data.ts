/**
 * The numbers that the report's own script draws: frames as differences from the frame before, regions as steps from the
 * region before, since most of a map stays as it was. `report-script.ts` is the reader.
 */
import type { Story } from './story.ts';
import type { Timeline, TimelineFrame } from './timeline.ts';

export interface ReportData {
  readonly stories: readonly StoryData[];
}

export interface StoryData {
  readonly name: string;
  readonly regions: number;
  /** Regions in a row of the map. */
  readonly columns: number;
  readonly epochs: number;
  readonly epochInsns: number;
  /** A '1' for each region that the recording writes to. */
  readonly written: string;
  readonly runs: readonly RunData[];
}

export interface RunData {
  readonly policy: string;
  readonly epochsPerBin: number;
  readonly readFaults: readonly number[];
  readonly writeFaults: readonly number[];
  readonly frames: readonly FrameData[];
}

export interface FrameData {
  readonly epoch: number;
  /** Changes of state: steps and states. */
  readonly states: readonly number[];
  /** Regions with dirty pages: steps and pages. */
  readonly dirty: readonly number[];
  /** Changes of the pages behind: steps and pages. */
  readonly behind: readonly number[];
  /** Reads and writes that faulted, flushes, pages sent: so far. */
  readonly soFar: readonly [reads: number, writes: number, flushes: number, sent: number];
}

/** Only stories that were told with a timeline can be drawn. */
export function reportData(stories: readonly Story[]): ReportData {
  return { stories: stories.map(storyData) };
}

/** A row holds 2^n regions, so that addresses of rows are round; tall rather than wide, four maps stand side by side. */
export function mapColumns(regions: number): number {
  let columns = 8;
  while (columns * columns * 2 < regions) columns *= 2;
  return columns;
}

function storyData({ trace, profile, runs }: Story): StoryData {
  return {
    name: trace.header.name,
    regions: profile.regions,
    columns: mapColumns(profile.regions),
    epochs: trace.header.epochs,
    epochInsns: trace.header.epochInsns,
    written: Array.from(profile.regionWritten).join(''),
    runs: runs.map(({ policy, timeline }) => {
      if (timeline === undefined) throw new Error(`the run under ${policy} kept no timeline`);
      return { policy, ...runData(timeline) };
    }),
  };
}

function runData({ epochsPerBin, readFaults, writeFaults, frames }: Timeline): Omit<RunData, 'policy'> {
  const nothing = new Uint16Array(frames[0].states.length);
  return { epochsPerBin, readFaults, writeFaults, frames: frames.map((frame, i) => frameData(frame, frames[i - 1])) };

  function frameData(frame: TimelineFrame, before: TimelineFrame | undefined): FrameData {
    const { readFaults, writeFaults, flushRequests, sentPages } = frame;
    return {
      epoch: frame.epoch,
      states: changes(frame.states, before?.states ?? nothing),
      dirty: changes(frame.dirtyPages, nothing),
      behind: changes(frame.behindPages, before?.behindPages ?? nothing),
      soFar: [readFaults, writeFaults, flushRequests, sentPages],
    };
  }
}

/** `step, value` for each place at which the two differ; the first step counts from 0. */
function changes(now: ArrayLike<number>, before: ArrayLike<number>): number[] {
  const pairs: number[] = [];
  let last = 0;
  for (let i = 0; i < now.length; i++) {
    if (now[i] === before[i]) continue;
    pairs.push(i - last, now[i]);
    last = i;
  }
  return pairs;
}
