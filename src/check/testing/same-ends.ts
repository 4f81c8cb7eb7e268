/** Does the checker come to the same ends when it leaves orders out, as it does when it doesn't? */
import { expect } from 'vitest';
import { interleaved } from '../../../scripts/interleave.mjs';
import { PRESETS } from '../check.ts';
import { type Configuration, type Exploration, explore, type Stops } from '../explore.ts';
import type { InterleavedWorld } from '../threads.ts';

export async function explored(preset: string, configuration: Configuration, stops: Stops = {}): Promise<Exploration> {
  const world = (await interleaved('src/check/world.ts')) as InterleavedWorld;
  const engine = PRESETS.find(({ name }) => name === preset)!;
  return explore(world, engine, configuration, { maxStates: 1_000_000, ...stops });
}

export async function expectSameEnds(preset: string, configuration: Configuration, stops: Stops): Promise<void> {
  const reduced = await explored(preset, configuration);
  const full = await explored(preset, configuration, stops);
  expect(reduced.violation).toBeNull();
  expect(full.violation).toBeNull();
  expect(full.states).toBeGreaterThanOrEqual(reduced.states);
  expect(reduced.ends.length).toBeGreaterThan(1);
  expect(reduced.ends).toEqual(full.ends);
}
