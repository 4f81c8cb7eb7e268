/** See testing/twin-guest.ts: what a guest sees doesn't depend on how its memory is virtualized. */
import { expect, it } from 'vitest';
import { POLICIES, type PolicyName } from '../../mmu/policy.ts';
import { TwinGuest } from './testing/twin-guest.ts';

const GUESTS = Number(process.env['PENUMBRA_TWIN_GUESTS'] ?? 6);
const FIRST_SEED = Number(process.env['PENUMBRA_TWIN_SEED'] ?? 1);
const EPISODES = 400;

it.each(Object.keys(POLICIES) as PolicyName[])(
  'under %s a random guest does the same with and without nested paging',
  (policy) => {
    for (let seed = FIRST_SEED; seed < FIRST_SEED + GUESTS; seed++) expect(difference(seed, policy)).toBe('');
  },
);

/** The first one, or ''. */
function difference(seed: number, policy: PolicyName): string {
  const guest = new TwinGuest(seed, policy);
  for (let i = 0; i < EPISODES; i++) {
    try {
      guest.episode();
      if (i % 20 === 19) guest.check();
    } catch (error) {
      return `seed ${seed}, episode ${i}: ${(error as Error).message}`;
    }
  }
  return '';
}
