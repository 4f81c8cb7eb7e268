/**
 * Engine, adversarial TLB and host against a model of what a guest may see (testing/world.ts): 10^5 steps for each
 * policy, and a check of everything after each. model.long.test.ts does a hundred times as many.
 */
import { describe, expect, it } from 'vitest';
import { POLICIES } from '../mmu/policy.ts';
import { opsOf, planOf, replay, runSteps, shrink } from './testing/model-run.ts';
import { editArgument, ENTRIES, L2A, T1, VAS } from './testing/guest-image.ts';
import { type Op, OP_NAMES, type WorldPlan } from './testing/world-plan.ts';
import { World } from './testing/world.ts';

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

describe('what Linux 6.1 itself gets wrong, and the engine with it', () => {
  const plan: WorldPlan = {
    policy: POLICIES.lazy,
    paging: 'shadow',
    guest: 'tables',
    host: 'flat-2m',
    log: 'legacy',
    tlb: 'stalest',
    mayLose: false,
    hostile: false,
  };
  /** T1[511] maps gfn 3072, which is in no slot. */
  const VA = 0x5ff000;
  const read: Op = op('access', 0, VAS.indexOf(VA));
  const ENTRY = ENTRIES.findIndex((entry) => entry.table === T1 && entry.index === 511);

  it('make_spte takes the access of an MMIO entry for the write bit of a leaf, and maps a guest table writable', () => {
    const edit = op('edit', 0, ENTRY, editArgument(ENTRIES[ENTRY], (L2A << 12) | 0x67));
    const write = op('access', 2, VAS.indexOf(VA));
    // Without the change of slots in between the entry is of the present generation, and the access is emulated.
    expect(replay(plan, [read, edit, write]).message).toBe('');
    const { message } = replay(plan, [read, op('log'), edit, write]);
    expect(message).toMatch(/^INVARIANT tracked: entry \d+ may write the guest table at gfn 20$/);
  });

  it('sync_mmio_spte renews an MMIO entry where there is a slot by now', () => {
    const exits = (...ops: Op[]): number => {
      const world = new World(plan);
      for (const one of ops) world.step(one);
      return world.vm.vcpus[0].mmu.stats.mmio_exits;
    };
    // T1[1] maps gfn 512, in slot 1.
    const readSlot1 = op('access', 0, VAS.indexOf(0x401000));
    const edit = op('edit', 0, ENTRY, editArgument(ENTRIES[ENTRY], 0));
    const start = [op('slot'), readSlot1, op('slot', 0, 0, 1)];
    expect(exits(...start, op('cr3'), readSlot1)).toBe(1);
    expect(exits(...start, edit, op('cr3'), readSlot1)).toBe(2);
  });
});

function op(name: (typeof OP_NAMES)[number], a = 0, b = 0, c = 0): Op {
  return [OP_NAMES.indexOf(name), a, b, c];
}
