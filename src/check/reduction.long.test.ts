/** As reduction.test.ts, for every preset and everything that is done. */
import { describe, it } from 'vitest';
import { mustLosePages, PRESETS } from './check.ts';
import { expectSameEnds } from './testing/same-ends.ts';
import { CLEAR_ONE, DELETE_ONE, SAME_PAGE, SMALL, START_ONE, STOP_ONE, UNMAP, UNMAP_LOGGED } from './testing/small.ts';

const SMALL_ONES = [START_ONE, SAME_PAGE, SMALL, CLEAR_ONE, STOP_ONE, UNMAP, UNMAP_LOGGED, DELETE_ONE];

describe.each(PRESETS.filter((preset) => !mustLosePages(preset)))('$name, stopping at every mark,', (preset) => {
  it.each(SMALL_ONES)('comes to the same ends in $name', async (configuration) => {
    await expectSameEnds(preset.name, configuration, { everyMark: true });
  });
});

describe.each(PRESETS.filter((preset) => !mustLosePages(preset)))(
  '$name, stopping at more untouched frames,',
  (preset) => {
    it.each(SMALL_ONES)('comes to the same ends in $name', async (configuration) => {
      await expectSameEnds(preset.name, configuration, { frames: preset.tdpMmu ? 3 : Infinity });
    });
  },
);
