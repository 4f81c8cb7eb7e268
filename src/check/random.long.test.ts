/** Many seeds of the seeded scheduler, for every kernel that is to survive them. */
import { expect, it } from 'vitest';
import { interleaved } from '../../scripts/interleave.mjs';
import { PRESETS } from './check.ts';
import { runRandomly } from './random-schedule.ts';
import type { InterleavedWorld } from './threads.ts';

const SEEDS = 100;
const LENGTH = 200;

it.each(PRESETS.filter(({ policy }) => policy.fastFaultLarge === 'guarded'))(
  `$name survives ${SEEDS} seeds`,
  async (preset) => {
    const world = (await interleaved('src/check/world.ts')) as InterleavedWorld;
    for (let seed = 1; seed <= SEEDS; seed++)
      expect(runRandomly(world, preset, seed, LENGTH).violation, `seed ${seed}`).toBeNull();
  },
);
