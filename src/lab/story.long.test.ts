/** The relations of the story over 1,000 synthetic guests, on the real engine. */
import { describe, expect, it } from 'vitest';
import { STORY_POLICIES } from './policies.ts';
import { runOf, tellStory } from './story.ts';
import { syntheticTrace } from './synthetic.ts';

const SEEDS = 1000;
const BATCH = 100;

describe('the story over many synthetic guests', () => {
  it.each(Array.from({ length: SEEDS / BATCH }, (_, i) => i * BATCH))(
    'has the relations that must hold, 100 seeds from %i',
    (first) => {
      const failures: string[] = [];
      for (let seed = first; seed < first + BATCH; seed++) {
        const story = tellStory(syntheticTrace(seed), STORY_POLICIES, { roundEpochs: 10 + (seed % 50), seed });
        for (const { text, holds } of story.relations) if (!holds) failures.push(`seed ${seed}: ${text}`);
        if (runOf(story, 'lazy+bug')?.migration.lostPages === 0) failures.push(`seed ${seed}: the bug lost nothing`);
      }
      expect(failures).toEqual([]);
    },
    120_000,
  );
});
