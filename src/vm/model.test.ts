/**
 * Engine, adversarial TLB and host against a model of what a guest may see (testing/world.ts): 10^5 steps for each
 * policy, and a check of everything after each. model.long.test.ts does a hundred times as many.
 */
import { describe, expect, it } from 'vitest';
import { POLICIES } from '../mmu/policy.ts';
import { opsOf, planOf, replay, runSteps, shrink } from './testing/model-run.ts';
import { OP_NAMES, type WorldPlan } from './testing/world.ts';

const STEPS = 100_000;

it.each(['zap', 'lazy', 'eager'] as const)('under %s neither guest, TLB nor log ever differ from the model', (name) => {
  const result = runSteps(POLICIES[name], 0, STEPS);
  expect(result.steps).toBeGreaterThanOrEqual(STEPS);
  expect(result.lost).toBe(0);
});

describe('the fast fault as first merged (caf6900f2d8a, reverted by 6b73a96065e8)', () => {
  it('loses written pages, and nothing else goes wrong', () => {
    const result = runSteps(POLICIES['lazy+bug'], 0, STEPS);
    expect(result.steps).toBeGreaterThanOrEqual(STEPS);
    expect(result.lost).toBeGreaterThan(100);
  });

  it('is found at once, and told in a handful of steps', () => {
    const seed = 0;
    const plan: WorldPlan = {
      ...planOf(seed, POLICIES['lazy+bug']),
      paging: 'tdp',
      guest: 'touch',
      host: 'flat-2m',
      log: 'legacy',
      mayLose: false,
      hostile: false,
    };
    const short = shrink(plan, opsOf(seed, 1000));
    const { lines, message } = replay(plan, short);
    expect(message).toMatch(/^INVARIANT dirty: page \d+ of slot [13] was written and is not in the log$/);
    expect(lines.length).toBeLessThanOrEqual(4);
    expect(short.some(([kind]) => OP_NAMES[kind] === 'log')).toBe(true);
    // The same steps are harmless under the guard of c126d94f2c90.
    expect(replay({ ...plan, policy: POLICIES.lazy }, short).message).toBe('');
  });
});
