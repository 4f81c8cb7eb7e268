/** The fuzzers, by name. */
import { apiFuzzer } from './api-fuzzer.ts';
import { bootFuzzer } from './boot-fuzzer.ts';
import { flagsFuzzer } from './flags-fuzzer.ts';
import type { Fuzzer } from './harness.ts';
import { pntraceFuzzer } from './pntrace-fuzzer.ts';
import { recordingsFuzzer } from './recordings-fuzzer.ts';
import { scenariosFuzzer } from './scenarios-fuzzer.ts';
import { virtioFuzzer } from './virtio-fuzzer.ts';

export const FUZZERS: readonly (readonly [name: string, make: () => Fuzzer])[] = [
  ['recordings', recordingsFuzzer],
  ['scenarios', scenariosFuzzer],
  ['flags', flagsFuzzer],
  ['api', apiFuzzer],
  ['pntrace', pntraceFuzzer],
  ['boot', bootFuzzer],
  ['virtio', virtioFuzzer],
];
