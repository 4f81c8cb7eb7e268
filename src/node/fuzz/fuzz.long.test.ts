/**
 * Each fuzzer for PENUMBRA_FUZZ_SECONDS (600 if not set) from a seed that changes with the hour, or PENUMBRA_FUZZ_SEED.
 * What it did is printed, and each finding with the command that has it again.
 */
import { describe, expect, it } from 'vitest';
import { FUZZERS } from './fuzzers.ts';
import { fuzz, reproduction } from './harness.ts';

const SECONDS = Number(process.env['PENUMBRA_FUZZ_SECONDS'] ?? 600);
const FIRST_SEED = Number(process.env['PENUMBRA_FUZZ_SEED'] ?? Math.floor(Date.now() / 3_600_000) * 1_000_000) >>> 0;

describe('for a long time, whatever comes in', () => {
  it.each(FUZZERS)(
    'of %s is done or refused, and nothing else happens',
    async (name, make) => {
      const fuzzer = make();
      try {
        const report = await fuzz(fuzzer, { firstSeed: FIRST_SEED, seconds: SECONDS });
        process.stderr.write(`${JSON.stringify(report)}\n`);
        expect(report.findings.map((finding) => reproduction(name, finding))).toEqual([]);
      } finally {
        fuzzer.close?.();
      }
    },
    1000 * SECONDS + 120_000,
  );
});
