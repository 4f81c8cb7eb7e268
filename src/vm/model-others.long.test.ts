/** The policies that model.long.test.ts leaves out. */
import { describe, expect, it } from 'vitest';
import { POLICIES } from '../mmu/policy.ts';
import { LONG_PARTS, LONG_STEPS, longSeed, runSteps } from './testing/model-run.ts';

describe.each(LONG_PARTS)('part %i', (part) => {
  it.each(['zap', 'eager'] as const)('under %s neither guest, TLB nor log ever differ from the model', (name) => {
    expect(runSteps(POLICIES[name], longSeed(name, part), LONG_STEPS).lost).toBe(0);
  });
});
