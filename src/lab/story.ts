/**
 * One recording under several policies, side by side, and what must hold between the columns whatever the recording:
 * only a policy that has the bug loses pages, and lazy dropping never makes a read fault that dropping at once spares.
 */
import type { PageTrace } from '../formats/pntrace.ts';
import type { Tracer } from '../trace/tracer.ts';
import { profileTrace, type TraceProfile } from './profile.ts';
import { type ReplayMachine, type ReplayOptions, type ReplayResult, replay } from './replay.ts';
import { type Timeline, TimelineRecorder } from './timeline.ts';

/** What becomes of a large spte that the log is started on; `split`: read-only, split by the fault of its first write. */
export type Idea = 'zap' | 'lazy+bug' | 'lazy' | 'split' | 'eager';

/** A column of the table. */
export interface StoryPolicy {
  readonly name: string;
  readonly idea: Idea;
  /** Stands for a version of the kernel, not for one policy of one engine. */
  readonly kernel: boolean;
  /** What the policy does, in a few words. */
  readonly about: string;
  /** Has the bug of caf6900f2d8a: expected to lose pages. */
  readonly loses: boolean;
  /** A fresh machine for a guest with so much memory; its tracepoints fire into `trace`. */
  readonly makeMachine: (memBytes: number, vcpus: number, trace?: Tracer) => ReplayMachine;
}

export interface StoryRun {
  readonly policy: string;
  readonly idea: Idea;
  readonly kernel: boolean;
  readonly about: string;
  readonly loses: boolean;
  readonly result: ReplayResult;
  /** If it was asked for. */
  readonly timeline?: Timeline;
}

export interface Story {
  readonly trace: PageTrace;
  readonly profile: TraceProfile;
  readonly roundEpochs: number;
  readonly seed: number;
  readonly runs: readonly StoryRun[];
  readonly relations: readonly Relation[];
}

/** Something that must hold between the numbers. */
export interface Relation {
  readonly text: string;
  readonly holds: boolean;
}

export interface StoryOptions extends Omit<ReplayOptions, 'onProgress' | 'observer'> {
  readonly onProgress?: (policy: string, epoch: number) => void;
  /** Keeps how memory looked at each round, and faults over time. */
  readonly timeline?: boolean;
}

/** Runs the recording once under each policy. */
export function tellStory(trace: PageTrace, policies: readonly StoryPolicy[], options: StoryOptions): Story {
  const profile = profileTrace(trace);
  const { memBytes, vcpus } = trace.header;
  const runs = policies.map(({ name, idea, kernel, about, loses, makeMachine }) => {
    const machine = makeMachine(memBytes, vcpus);
    const recorder = options.timeline === true ? new TimelineRecorder(trace, profile, machine) : undefined;
    const onProgress = (epoch: number): void => options.onProgress?.(name, epoch);
    const result = replay(trace, machine, { ...options, onProgress, observer: recorder }, profile);
    return { policy: name, idea, kernel, about, loses, result, timeline: recorder?.finish() };
  });
  const { roundEpochs, seed } = options;
  return { trace, profile, roundEpochs, seed, runs, relations: relationsOf(runs, profile) };
}

/** The run under a policy, if it was asked for. */
export function runOf(story: Story, policy: string): ReplayResult | undefined {
  return story.runs.find((run) => run.policy === policy)?.result;
}

/** The first run of an idea. */
export function runBy(story: Story, idea: Idea): StoryRun | undefined {
  return story.runs.find((run) => run.idea === idea);
}

function relationsOf(runs: readonly StoryRun[], profile: TraceProfile): Relation[] {
  const relations: Relation[] = [];
  const add = (text: string, holds: boolean): void => void relations.push({ text, holds });
  for (const { policy, loses, result } of runs) {
    const { lostPages } = result.migration;
    if (!loses) {
      add(`${policy} loses no page`, lostPages === 0);
      add(`${policy} breaks no invariant of the MMU`, result.brokenInvariants.length === 0);
    } else if (profile.writtenBesideFirst > 0) {
      // The bug names the first page of a region in place of the one that was written.
      add(`${policy} loses pages`, lostPages > 0);
    }
  }
  const [zap] = runs.filter(({ idea }) => idea === 'zap');
  for (const { policy, idea, result } of runs) {
    if (idea === 'lazy' && zap !== undefined)
      add(`no more reads fault under ${policy} than under ${zap.policy}`, result.readFaults <= zap.result.readFaults);
    if (idea === 'split' || idea === 'eager') add(`no read faults under ${policy}`, result.readFaults === 0);
    if (idea === 'split') add(`${policy} sends nothing for nothing`, result.migration.unchangedPages === 0);
  }
  return relations;
}
