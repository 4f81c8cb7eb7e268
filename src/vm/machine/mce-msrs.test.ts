import { describe, expect, it } from 'vitest';
import { isMceMsr, MceMsrs } from './mce-msrs.ts';

const ALL_ONES = (1n << 64n) - 1n;

describe('the machine-check registers', () => {
  it('are ten banks of four, the three of the whole, and the two of the first Pentium', () => {
    const has = [0, 1, 2, 0x178, 0x179, 0x17b, 0x17c, 0x3ff, 0x400, 0x427, 0x428].filter(isMceMsr);
    expect(has).toEqual([0, 1, 0x179, 0x17b, 0x400, 0x427]);
    expect(new MceMsrs().read(0x179)).toBe(0x10an);
  });

  // biome-ignore format: a table
  it.each([
    [0x179, 1n,              false], // MCG_CAP
    [0x17a, 5n,              true],
    [0x17b, ALL_ONES,        true],
    [0x17b, 1n,              false],
    [0x400, 0n,              true],
    [0x400, ALL_ONES,        true],
    [0x400, 1n,              false],
    [0x410, ALL_ONES ^ 1024n, true], // as Linux does on a K8
    [0x404, ALL_ONES ^ 1n,   true], // as UnixWare does
    [0x401, 1n,              false], // STATUS
    [0x402, 1n << 63n,       true], // ADDR
    [0x403, 0xaaaan,         true], // MISC
  ])('%i takes %i: %s', (msr, value, taken) => {
    const mce = new MceMsrs();
    const before = mce.read(msr);
    expect(mce.write(msr, value)).toBe(taken);
    expect(mce.read(msr)).toBe(taken ? value : before);
  });
});
