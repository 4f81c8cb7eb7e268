/** The worlds of model.test.ts on an Intel CPU: EPT with A and D and without, page-modification logging, 4 and 5 levels. */
import { expect, it } from 'vitest';
import { POLICIES } from '../mmu/policy.ts';
import { eptPlanOf, runSteps } from './testing/model-run.ts';

const STEPS = 5_000;

it.each(['zap', 'lazy', 'eager'] as const)('under %s neither guest, TLB nor log ever differ from the model', (name) => {
  const result = runSteps(POLICIES[name], 0, STEPS, eptPlanOf);
  expect(result.steps).toBeGreaterThanOrEqual(STEPS);
  expect(result.lost).toBe(0);
});
