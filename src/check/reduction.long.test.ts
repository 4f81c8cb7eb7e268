/** As reduction.test.ts: every preset, and walks over 512 entries at each of which a thread stops. */
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

describe('stopping at the entries of all frames,', () => {
  it.each(['linux-6.12-tdp', 'linux-6.12-tdp-eager'])(
    '%s comes to the same ends when its log starts',
    async (preset) => {
      await expectSameEnds(preset, START_ONE, { everyEntry: true });
    },
  );

  it.each(['linux-6.1-tdp', 'linux-6.12-tdp'])('%s comes to the same ends when its log stops', async (preset) => {
    await expectSameEnds(preset, STOP_ONE, { everyEntry: true });
  });

  it.each(PRESETS.filter(({ tdpMmu, policy }) => !tdpMmu && policy.fastFaultLarge === 'guarded'))(
    '$name comes to the same ends whatever is done',
    async (preset) => {
      for (const configuration of SMALL_ONES) await expectSameEnds(preset.name, configuration, { everyEntry: true });
    },
  );
});
