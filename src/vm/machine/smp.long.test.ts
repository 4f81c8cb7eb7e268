/**
 * The turns of several CPUs as a stress for the MMU: `guests/smp` under every paging and policy with random seeds, quanta and backings, all
 * invariants checked between turns, and the dirty log held against memory.
 *
 *     PENUMBRA_LONG=1 PENUMBRA_SMP_RUNS=20 PENUMBRA_SMP_SEED=1 npx vitest run src/vm/machine/smp.long.test.ts
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { Prng } from '../../base/prng.ts';
import { POLICIES, type PolicyName } from '../../mmu/policy.ts';
import { DirtyLogCheck } from './dirty-log-check.ts';
import type { PagingName } from './pc.ts';
import { makePc } from './testing/guests.ts';

const SMP = readFileSync(fileURLToPath(new URL('../../../guests/smp/smp.elf', import.meta.url)));
const RUNS = Number(process.env['PENUMBRA_SMP_RUNS'] ?? 3);
const FIRST_SEED = Number(process.env['PENUMBRA_SMP_SEED'] ?? 1);
const PAGINGS: readonly PagingName[] = ['tdp', 'tdp-mmu', 'shadow'];
const POLICY_NAMES = (Object.keys(POLICIES) as PolicyName[]).filter((name) => name !== 'lazy+bug');
/** The guest ends long before. */
const MAX_INSTRUCTIONS = 60_000_000;

it.each(PAGINGS.flatMap((paging) => POLICY_NAMES.map((policy) => [paging, policy] as const)))(
  'under %s, policy %s, several CPUs keep all invariants and lose no page',
  { timeout: 600_000 },
  (paging, policy) => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + RUNS; seed++)
      expect(`seed ${seed}: ${trouble(seed, paging, policy)}`).toBe(`seed ${seed}: `);
  },
);

/** The first one, or ''. */
function trouble(seed: number, paging: PagingName, policy: PolicyName): string {
  const random = new Prng(seed);
  const cpus = 2 + random.int(3);
  const quantum = random.pick([20, 150, 1000]);
  const hostLevel = random.pick([1, 2] as const);
  const ringBytes = random.pick([undefined, 4096]);
  const { pc, console } = makePc(SMP, { paging, policy, cpus, quantum, seed, hostLevel, ringBytes, megabytes: 32 });
  pc.run(1 + random.int(50_000));
  const log = random.chance(0.7) ? new DirtyLogCheck(pc) : null;
  while (pc.end === null && pc.instructions < MAX_INSTRUCTIONS) {
    pc.run(1 + random.int(10 * quantum + 20_000));
    const [broken] = pc.vm.verify();
    if (broken !== undefined) return broken;
    if (random.chance(0.05)) log?.round();
  }
  log?.round();
  if (log !== null && log.lostCount > 0) return `${log.lostCount} pages lost`;
  return console.text.endsWith(' ok\n') ? '' : `the guest says ${JSON.stringify(console.text)}`;
}
