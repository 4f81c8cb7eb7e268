/**
 * Runs of the model-based tests: seeded sequences of operations, and for one that fails a short script, found by
 * fast-check's shrinking.
 */
import * as fc from 'fast-check';
import { Prng } from '../../base/prng.ts';
import { KERNEL_6_1, KERNEL_6_12 } from '../../mmu/kernel-version.ts';
import { POLICIES, type Policy, type PolicyName } from '../../mmu/policy.ts';
import { isMmioSpte, SPTE_W } from '../../mmu/spte.ts';
import { type Op, OP_NAMES, type WorldPlan } from './world-plan.ts';
import { World } from './world.ts';

/** Steps of one machine; then comes a new one. */
export const STEPS_PER_WORLD = 1000;
/** The long tests: parts for each policy, steps of each. */
export const LONG_PARTS: readonly number[] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
export const LONG_STEPS = 1_000_000;
/** For each of the two ways of shrinking. */
const SHRINK_MILLISECONDS = 10_000;

/** No two parts, nor any part and the short test, have a seed in common. */
export function longSeed(policy: PolicyName, part: number): number {
  return 1_000_000 * (1 + Object.keys(POLICIES).indexOf(policy)) + 10_000 * part;
}

export interface RunResult {
  steps: number;
  /** Times that a page was missing in the log, where the policy may lose pages. */
  lost: number;
  /** Machines that ended early, by a fault that is the kernel's own. */
  cutShort: number;
}

/** How often each kind of operation comes, in order of OP_NAMES. */
const WEIGHTS = [120, 30, 8, 6, 4, 4, 5, 5, 5, 0.7, 0.4, 5, 3, 0.7, 0.3, 1.5, 0.1];

/** The machine for a seed. */
export function planOf(seed: number, policy: Policy): WorldPlan {
  const random = new Prng(seed * 31 + 7);
  const guest = random.pick(['touch', 'touch', 'tables', 'tables', 'tables'] as const);
  const paging = guest === 'touch' ? 'tdp' : random.pick(['tdp', 'shadow', 'shadow'] as const);
  const plan: WorldPlan = {
    policy,
    paging,
    guest,
    host: random.pick(['flat-2m', 'flat-2m', 'flat-4k', 'linux', 'linux'] as const),
    log: random.pick(['legacy', 'manual', 'initially-set'] as const),
    tlb: random.pick(['stalest', 'permissive', 'newest'] as const),
    // Shadow paging makes no use of the fast fault.
    mayLose: policy.fastFaultLarge === 'unguarded' && paging === 'tdp',
    hostile: guest === 'tables' && random.chance(1 / 4),
  };
  const isTdpMmu = paging === 'tdp' && random.chance(1 / 2);
  const kernel = random.chance(1 / 3) ? KERNEL_6_12 : KERNEL_6_1;
  return { ...plan, kernel, paging: isTdpMmu ? 'tdp-mmu' : paging };
}

/** The same with nested paging in EPT's format: with A and D or without, with the CPU's log or without, of 4 levels or 5. */
export function eptPlanOf(seed: number, policy: Policy): WorldPlan {
  const random = new Prng(seed * 37 + 11);
  const plan = planOf(seed, policy);
  const ad = random.chance(2 / 3);
  const paging = random.pick(['tdp', 'tdp-mmu'] as const);
  const ept = { ad, executeOnly: random.chance(1 / 2), pml: ad && random.chance(2 / 3) };
  return { ...plan, paging, ept, levels: random.pick([4, 5] as const) };
}

class OpSource {
  private readonly random: Prng;
  private readonly total = WEIGHTS.reduce((a, b) => a + b);

  constructor(seed: number) {
    this.random = new Prng(seed);
  }

  next(): Op {
    const { random } = this;
    let left = (random.next() / 4294967296) * this.total;
    let kind = 0;
    while (kind < WEIGHTS.length - 1 && left >= WEIGHTS[kind]) left -= WEIGHTS[kind++];
    return [kind, random.next() & 0xff, random.next() & 0xffff, random.next() & 0xffff];
  }
}

/** Runs machines with seeds from `firstSeed` on until `steps` steps are done. Throws at the first difference. */
export function runSteps(
  policy: Policy,
  firstSeed: number,
  steps: number,
  makePlan: (seed: number, policy: Policy) => WorldPlan = planOf,
): RunResult {
  const result: RunResult = { steps: 0, lost: 0, cutShort: 0 };
  for (let seed = firstSeed; result.steps < steps; seed++) {
    const world = new World(makePlan(seed, policy));
    if (!runWorld(world, seed)) result.cutShort++;
    result.steps += world.steps;
    result.lost += world.lost;
  }
  return result;
}

/** False: it ended early, with the kernel's own fault of `wasWritableMmio`. */
function runWorld(world: World, seed: number): boolean {
  const source = new OpSource(seed);
  try {
    for (let i = 0; i < STEPS_PER_WORLD; i++) world.step(source.next());
    world.checkMemory();
    return true;
  } catch (error) {
    if (wasWritableMmio(world, seed, error as Error)) return false;
    throw new Error(explain(world.plan, seed, world.steps, error as Error), { cause: error });
  }
}

/**
 * Linux 6.1's make_spte takes an MMIO entry that it replaces for the old leaf, and that entry's note of the access, W, for
 * its write bit. It then skips the search for shadowed tables, and so maps one writable. (The entry must be of an older
 * generation of slots, and out of sync.) The engine does as the kernel does; after that the tables are unsound, and the
 * run is over. True if each entry that is complained of was such an entry one step before.
 */
function wasWritableMmio(world: World, seed: number, error: Error): boolean {
  const complaints = error.message.split('; ').map((line) => /: entry (\d+) may write the guest table/.exec(line)?.[1]);
  if (complaints.some((entry) => entry === undefined)) return false;
  const before = new World(world.plan);
  for (const op of opsOf(seed, world.steps - 1)) before.step(op);
  const { words } = before.vm.mmu.arena;
  return complaints.every((entry) => {
    const lo = words[Number(entry) << 1];
    return isMmioSpte(before.vm.mmu.format, lo, words[(Number(entry) << 1) + 1]) && (lo & SPTE_W) !== 0;
  });
}

/** The operations of a seed. */
export function opsOf(seed: number, count: number): Op[] {
  const source = new OpSource(seed);
  return Array.from({ length: count }, () => source.next());
}

/** The failing part of a run, made short, in words. */
function explain(plan: WorldPlan, seed: number, steps: number, error: Error): string {
  const head = `seed ${seed}, step ${steps}: ${error.message}`;
  const short = shrink(plan, opsOf(seed, steps));
  const { lines, message } = replay(plan, short);
  const { policy, ...rest } = plan;
  return [head, `policy ${policy.name}, ${JSON.stringify(rest)}`, ...lines, `=> ${message}`].join('\n  ');
}

/** Performs operations; where it ends, and why. */
export function replay(plan: WorldPlan, ops: readonly Op[]): { lines: string[]; message: string } {
  const lines: string[] = [];
  const world = new World(plan);
  const { narrator } = world;
  narrator.verbose = true;
  for (const op of ops) {
    let message = '';
    narrator.note = '';
    try {
      world.step(op);
    } catch (error) {
      message = (error as Error).message;
    }
    if (narrator.note !== 'nothing') lines.push(`[${op.join(', ')}]  ${OP_NAMES[op[0]]}: ${narrator.note}`);
    if (message !== '') return { lines, message };
  }
  return { lines, message: '' };
}

/** A part of a failing run that fails too. Whole stretches go first, the long ones before the short; then fast-check makes what is left small and plain. */
export function shrink(plan: WorldPlan, ops: readonly Op[]): readonly Op[] {
  const rest = dropStretches(plan, ops);
  const number = fc.nat({ max: 0xffff });
  const op = fc.tuple(fc.nat({ max: OP_NAMES.length - 1 }), fc.nat({ max: 0xff }), number, number);
  const property = fc.property(fc.array(op, { maxLength: Math.max(rest.length, 1) }), (list) => {
    const world = new World(plan);
    for (const one of list) world.step(one);
  });
  const details = fc.check(property, {
    examples: [[rest.map((one) => [...one] as [number, number, number, number])]],
    numRuns: 1,
    interruptAfterTimeLimit: SHRINK_MILLISECONDS,
    markInterruptAsFailure: true,
  });
  return details.counterexample?.[0] ?? rest;
}

function dropStretches(plan: WorldPlan, ops: readonly Op[]): readonly Op[] {
  const deadline = performance.now() + SHRINK_MILLISECONDS;
  let rest = ops;
  for (let size = ops.length >>> 1; size > 0; size = size === 1 ? 0 : size >>> 1) {
    for (let at = 0; at < rest.length && performance.now() < deadline; ) {
      const shorter = [...rest.slice(0, at), ...rest.slice(at + size)];
      if (fails(plan, shorter)) rest = shorter;
      else at += size;
    }
  }
  return rest;
}

function fails(plan: WorldPlan, ops: readonly Op[]): boolean {
  const world = new World(plan);
  try {
    for (const op of ops) world.step(op);
    return false;
  } catch {
    return true;
  }
}
