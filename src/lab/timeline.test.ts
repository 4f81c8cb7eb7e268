import { describe, expect, it } from 'vitest';
import { REGION_LARGE_WRITABLE } from '../vm/inspect.ts';
import { STORY_POLICIES } from './policies.ts';
import { type Story, tellStory } from './story.ts';
import { syntheticTrace } from './synthetic.ts';
import type { Timeline, TimelineFrame } from './timeline.ts';

const OPTIONS = { roundEpochs: 10, seed: 1 };
const sum = (values: Iterable<number>): number => Array.from(values).reduce((total, value) => total + value, 0);
const last = ({ frames }: Timeline): TimelineFrame => frames[frames.length - 1];

function runs(seed: number): Story['runs'] {
  return tellStory(syntheticTrace(seed), STORY_POLICIES, { ...OPTIONS, timeline: true }).runs;
}

describe.each([4, 5, 6])('the timeline of synthetic guest %i', (seed) => {
  const told = runs(seed).map(({ policy, result, timeline }) => {
    if (timeline === undefined) throw new Error('no timeline');
    return { policy, result, timeline };
  });

  it('has a frame before the log, one at its start and one a round', () => {
    for (const { result, timeline } of told) {
      expect(timeline.frames).toHaveLength(2 + result.migration.rounds.length);
      expect(timeline.frames.slice(0, 2).map(({ epoch }) => epoch)).toEqual([0, 0]);
      expect(Array.from(timeline.frames[0].states)).toEqual(Array(result.largeBefore).fill(REGION_LARGE_WRITABLE));
    }
  });

  it('ends with the numbers of the table', () => {
    for (const { result, timeline } of told) {
      const frame = last(timeline);
      expect(sum(timeline.readFaults)).toBe(result.readFaults);
      expect(sum(timeline.writeFaults)).toBe(result.writeFaults);
      expect(frame).toMatchObject({
        readFaults: result.readFaults,
        writeFaults: result.writeFaults,
        flushRequests: result.counters.remote_tlb_flush_requests,
        sentPages: result.migration.sentPages,
      });
      expect(sum(frame.behindPages)).toBe(result.migration.lostPages);
      expect(frame.states.filter((state) => state === 1 || state === 2)).toHaveLength(result.largeKept);
    }
  });

  it('shows the pages that a round is about to send', () => {
    for (const { result, timeline } of told) {
      const rounds = timeline.frames.slice(2).map(({ dirtyPages }) => sum(dirtyPages));
      expect(rounds).toEqual(result.migration.rounds.map(({ dirtyPages }) => dirtyPages));
    }
  });

  it('has pages behind only where the bug is', () => {
    const everBehind = told.filter(({ timeline }) => timeline.frames.some(({ behindPages }) => sum(behindPages) > 0));
    expect(everBehind.map(({ policy }) => policy)).toEqual(['lazy+bug']);
  });

  it('changes nothing that is measured', () => {
    const plain = tellStory(syntheticTrace(seed), STORY_POLICIES, OPTIONS);
    expect(told.map(({ result }) => result)).toEqual(plain.runs.map(({ result }) => result));
    expect(plain.runs[0].timeline).toBeUndefined();
  });
});
