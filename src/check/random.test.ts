/** Random interleavings of long programs; many more in random.long.test.ts. */
import { expect, it } from 'vitest';
import { interleaved } from '../../scripts/interleave.mjs';
import { PRESETS } from './check.ts';
import { runRandomly } from './random-schedule.ts';
import type { InterleavedWorld } from './threads.ts';

const interleavedWorld = async (): Promise<InterleavedWorld> =>
  (await interleaved('src/check/world.ts')) as InterleavedWorld;

it.each(PRESETS.filter(({ policy }) => policy.fastFaultLarge === 'guarded'))(
  '$name survives a seeded scheduler',
  async (preset) => {
    const run = runRandomly(await interleavedWorld(), preset, 7, 60);
    expect(run.violation).toBeNull();
    expect(run.steps).toBeGreaterThan(500);
    expect(run.judged).toBeGreaterThan(10);
  },
);

it('linux-3.9-rc does not', async () => {
  const preset = PRESETS.find(({ name }) => name === 'linux-3.9-rc')!;
  expect(runRandomly(await interleavedWorld(), preset, 7, 60).violation).toContain('LOST');
});

it('a seed gives the same run each time', async () => {
  const world = await interleavedWorld();
  const preset = PRESETS.find(({ name }) => name === 'linux-6.1')!;
  expect(runRandomly(world, preset, 3, 10)).toEqual(runRandomly(world, preset, 3, 10));
});
