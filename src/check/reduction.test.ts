/**
 * The orders that the checker leaves out change nothing: without them it finds the same, and comes to the same ends. More of
 * it, and what takes longer, in reduction.long.test.ts.
 */
import { expect, it } from 'vitest';
import { expectSameEnds, explored } from './testing/same-ends.ts';
import { CLEAR_ONE, DELETE_ONE, SMALL, START_ONE, STOP_ONE, UNMAP, UNMAP_LOGGED } from './testing/small.ts';

it.each([
  ['linux-6.1', UNMAP_LOGGED.name, UNMAP_LOGGED],
  ['linux-6.1', DELETE_ONE.name, DELETE_ONE],
  ['linux-6.1-tdp', START_ONE.name, START_ONE],
  ['linux-6.1-tdp', STOP_ONE.name, STOP_ONE],
  ['linux-6.12-tdp', UNMAP.name, UNMAP],
] as const)('stopping at every mark, %s comes to the same ends in %s', async (preset, _name, configuration) => {
  await expectSameEnds(preset, configuration, { everyMark: true });
});

it.each([
  ['linux-6.1', SMALL.name, Infinity, SMALL],
  ['linux-6.1-tdp', CLEAR_ONE.name, Infinity, CLEAR_ONE],
  ['linux-6.1-tdp', UNMAP_LOGGED.name, 2, UNMAP_LOGGED],
  ['linux-6.12-tdp-eager', START_ONE.name, 2, START_ONE],
] as const)(
  '%s comes to the same ends in %s, stopping at more untouched frames: %d',
  async (preset, _name, frames, one) => {
    await expectSameEnds(preset, one, { frames });
  },
);

it('a world in which pages are lost loses them either way', async () => {
  const reduced = await explored('linux-3.9-rc', START_ONE);
  expect(reduced.violation?.what).toContain('LOST: page 1');
  const full = await explored('linux-3.9-rc', START_ONE, { everyMark: true, frames: Infinity });
  expect(full.violation?.what).toEqual(reduced.violation?.what);
});
