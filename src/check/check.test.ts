/**
 * The checker at work, on configurations that take a second: it finds what is known to be wrong, with a shortest trace,
 * and nothing where nothing is. `npm run check` is the whole of it.
 */
import { describe, expect, it } from 'vitest';
import { interleaved } from '../../scripts/interleave.mjs';
import { CONFIGURATIONS } from './configurations.ts';
import { type BugName, withBugs } from '../mmu/bugs.ts';
import type { Preset } from '../mmu/presets.ts';
import { check, isAsKnown, PRESETS, type Verdict } from './check.ts';
import type { Configuration } from './explore.ts';
import { DELETE_ONE, SAME_PAGE, SMALL, START_ONE, UNMAP, UNMAP_LOGGED } from './testing/small.ts';
import type { InterleavedWorld } from './threads.ts';

type Edit = { file: string; from: string; to: string };

const presetNamed = (wanted: string): Preset => PRESETS.find(({ name }) => name === wanted)!;

async function verdictOf(preset: string, configuration: Configuration | string, ...edits: Edit[]): Promise<Verdict> {
  const world = (await interleaved('src/check/world.ts', { edits })) as InterleavedWorld;
  const chosen =
    typeof configuration === 'string' ? CONFIGURATIONS.find(({ name }) => name === configuration)! : configuration;
  return check(world, presetNamed(preset), chosen);
}

describe('the checker', () => {
  it('finds the lost pages of linux-3.9-rc by itself, and tells how they are lost', async () => {
    const verdict = await verdictOf('linux-3.9-rc', 'start');
    expect(verdict.violation).toContain('LOST: page 1');
    expect(isAsKnown(presetNamed('linux-3.9-rc'), [verdict])).toBe(true);
    const trace = verdict.trace.join('\n');
    expect(trace).toContain('page 1 for vcpu0: 2M -MD');
    expect(trace).toMatch(/before the fast fault's compare-and-exchange/);
    expect(verdict.trace.at(-1)).toContain('written, not copied');
  });

  it.each(['linux-3.8', 'linux-6.12-tdp'])('finds nothing wrong with a collection of %s', async (preset) => {
    const verdict = await verdictOf(preset, SMALL);
    expect(verdict).toMatchObject({ violation: null, trace: [] });
    expect(verdict.states).toBeGreaterThan(100);
    expect(verdict.transitions).toBeGreaterThan(verdict.states);
  });

  it('comes to the same number of states and transitions each time', async () => {
    const first = await verdictOf('linux-6.1', SMALL);
    expect(await verdictOf('linux-6.1', SMALL)).toEqual(first);
  });
});

describe('the checker finds, when it is taken away,', () => {
  it('the flush of a collection', async () => {
    const verdict = await verdictOf('linux-6.1', SMALL, {
      file: 'vm/dirty-log-ioctl.ts',
      from: '    enableLogDirtyMasked(mmu, slot, 32 * i, lo, hi);\n  }\n  unlock(LOCK_MMU);\n  if (flush)',
      to: '    enableLogDirtyMasked(mmu, slot, 32 * i, lo, hi);\n  }\n  unlock(LOCK_MMU);\n  if (flush && slot.isReadonly)',
    });
    expect(verdict.violation).toContain('LOST: page 0');
  });

  it("the fast fault's look at what it exchanges", async () => {
    const verdict = await verdictOf('linux-6.1', UNMAP_LOGGED, {
      file: 'mmu/fast-fault.ts',
      from: '  if (words[sptep << 1] !== lo || words[(sptep << 1) + 1] !== hi) return false;',
      to: '',
    });
    expect(verdict.violation).not.toBeNull();
  });

  it("the fault's look at what the host did meanwhile", async () => {
    const verdict = await verdictOf('linux-6.1', UNMAP, {
      file: 'mmu/fault-steps.ts',
      from: '  return fault.slot !== null && isInvalidated(mmu, fault, fault.hva);',
      to: '  return false;',
    });
    expect(verdict.violation).toContain('which is gone');
  });

  it("the flush of the host's invalidation before its lock is released", async () => {
    const verdict = await verdictOf('linux-6.1-tdp', UNMAP, {
      file: 'mmu/notifier.ts',
      from: '      race(RACE_BEFORE_FLUSH);\n      flushRemoteTlbs(mmu);\n    }\n    unlock(LOCK_MMU);',
      to: '    }\n    unlock(LOCK_MMU);',
    });
    expect(verdict.violation).toContain('which is gone');
  });

  it('the flush of what a starting log drops before its lock is released', async () => {
    const verdict = await verdictOf('linux-3.8', 'unmap and start', {
      file: 'mmu/dirty-log.ts',
      from: "    if (mmu.policy.onProtect === 'zap') flushRemoteTlbsRange(mmu, slot.baseGfn, slot.npages);\n    unlock(LOCK_MMU);",
      to: "    unlock(LOCK_MMU);\n    if (mmu.policy.onProtect === 'zap') flushRemoteTlbsRange(mmu, slot.baseGfn, slot.npages);",
    });
    expect(verdict.violation).toContain('which is gone');
  });

  it("the TDP MMU's look at what it exchanges", async () => {
    const verdict = await verdictOf('linux-6.1-tdp', SAME_PAGE, {
      file: 'tdp-mmu/tdp-set-spte.ts',
      from: '  if (words[at] !== oldLo || words[at + 1] !== oldHi) {',
      to: '  if (oldLo !== oldLo) {',
    });
    expect(verdict.violation).not.toBeNull();
  });
});

describe('the checker finds bugs that KVM had:', () => {
  it.each([
    ['linux-6.1', 'readOnlyLargeStays', START_ONE, 'STUCK'],
    ['linux-6.1', 'mmioInInvalidSlot', DELETE_ONE, 'an access fails though its slot is there'],
  ] satisfies [string, BugName, Configuration, string][])('%s with %s', async (preset, bug, configuration, what) => {
    const world = (await interleaved('src/check/world.ts')) as InterleavedWorld;
    const engine = { ...presetNamed(preset), bugs: withBugs(bug) };
    expect(check(world, engine, configuration).violation).toContain(what);
  });
});
