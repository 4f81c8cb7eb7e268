/**
 * As model.test.ts, 10^7 steps for each policy, from other seeds: here two policies, in model-others.long.test.ts the two
 * others, as workers share tests by file.
 */
import { describe, expect, it } from 'vitest';
import { POLICIES } from '../mmu/policy.ts';
import { LONG_PARTS, LONG_STEPS, longSeed, runSteps } from './testing/model-run.ts';

describe.each(LONG_PARTS)('part %i', (part) => {
  it('under lazy neither guest, TLB nor log ever differ from the model', () => {
    expect(runSteps(POLICIES.lazy, longSeed('lazy', part), LONG_STEPS).lost).toBe(0);
  });

  it('under lazy+bug pages are lost, and nothing else goes wrong', () => {
    expect(runSteps(POLICIES['lazy+bug'], longSeed('lazy+bug', part), LONG_STEPS).lost).toBeGreaterThan(1000);
  });
});
