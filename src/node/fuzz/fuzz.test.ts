/**
 * A little of each fuzzer: the same seeds every time. `fuzz.long.test.ts` takes other ones for as long as it is told.
 * PENUMBRA_FUZZ_SEED=N runs just the execution of that seed.
 */
import { describe, expect, it } from 'vitest';
import { FUZZERS } from './fuzzers.ts';
import { fuzz, reproduction } from './harness.ts';

const ONE = process.env['PENUMBRA_FUZZ_SEED'];

/** Executions, and no more than this many seconds on a slow machine. */
const BOUNDS: Readonly<Record<string, number>> = {
  recordings: 60,
  scenarios: 60,
  flags: 60,
  api: 60,
  pntrace: 150,
  boot: 5000,
  virtio: 60,
};
const SECONDS = 40;

describe('whatever comes in', () => {
  it.each(FUZZERS)('of %s is done or refused, and nothing else happens', { timeout: 240_000 }, async (name, make) => {
    const fuzzer = make();
    try {
      const bounds = ONE === undefined ? { executions: BOUNDS[name], seconds: SECONDS } : { executions: 1 };
      const report = await fuzz(fuzzer, { firstSeed: Number(ONE ?? 1), ...bounds });
      expect(report.findings.map((finding) => reproduction(name, finding))).toEqual([]);
      // Something of both kinds, unless the machine was too busy for more than a few.
      expect(report.executions < 10 || Object.keys(report.outcomes).length > 1).toBe(true);
    } finally {
      fuzzer.close?.();
    }
  });
});
