import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { readPntrace } from '../formats/pntrace.ts';
import { measure } from './measures.ts';
import { STORY_POLICIES } from './policies.ts';
import { type Relation, runOf, type Story, tellStory } from './story.ts';
import { syntheticTrace } from './synthetic.ts';
import { PLAIN_POLICIES } from './testing/plain-machine.ts';

const OPTIONS = { roundEpochs: 50, seed: 1 };
const broken = (relations: readonly Relation[]): Relation[] => relations.filter(({ holds }) => !holds);

/** What only an engine with real tables and a real TLB counts; the plain machine has its own idea of these. */
const NOT_MODELLED = ['vcpuFlushes', 'flushRequests', 'tablesBefore', 'tablesAtEnd'];

function modelled(measures: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(measures).filter(([key]) => !NOT_MODELLED.includes(key)));
}

describe('the story of a synthetic guest', () => {
  it.each(Array.from({ length: 20 }, (_, seed) => seed))('has the relations that must hold, seed %i', (seed) => {
    const story = tellStory(syntheticTrace(seed), STORY_POLICIES, { ...OPTIONS, seed });
    expect(broken(story.relations)).toEqual([]);
    // Two for each policy without the bug, one for the one that has it, two between policies.
    expect(story.relations).toHaveLength(9);
  });

  it.each(Array.from({ length: 12 }, (_, seed) => seed))('has the numbers of the plain model, seed %i', (seed) => {
    const trace = syntheticTrace(seed);
    const roundEpochs = 20 + seed;
    const engine = tellStory(trace, STORY_POLICIES, { roundEpochs, seed });
    const plain = tellStory(trace, PLAIN_POLICIES, { roundEpochs, seed });
    for (const [i, { policy, result }] of engine.runs.entries()) {
      const expected = plain.runs[i].result;
      expect(modelled(measure(result)), policy).toEqual(modelled(measure(expected)));
      expect(result.migration, policy).toEqual(expected.migration);
    }
  });
});

describe.each([
  ['redis-small', 1],
  ['grep', 5],
])('the story of the embedded recording %s', (name, fewer) => {
  let story: Story;
  beforeAll(() => {
    const file = readFileSync(new URL(`../../traces/${name}.pntrace`, import.meta.url));
    const trace = readPntrace(file, (packed) => gunzipSync(packed));
    story = tellStory(trace, STORY_POLICIES, OPTIONS);
  }, 120_000);

  it('has the relations that must hold', () => {
    expect(broken(story.relations)).toEqual([]);
  });

  it('loses pages under the policy with the bug, and under no other', () => {
    const losers = story.runs.filter(({ result }) => result.migration.lostPages > 0).map(({ policy }) => policy);
    expect(losers).toEqual(['lazy+bug']);
  });

  it(`has at least ${fewer} times fewer reads that fault under lazy than under zap`, () => {
    const zap = runOf(story, 'zap')?.readFaults ?? 0;
    const lazy = runOf(story, 'lazy')?.readFaults ?? 0;
    expect(zap).toBeGreaterThanOrEqual(fewer * lazy);
    expect(lazy).toBeGreaterThan(0);
  });
});
