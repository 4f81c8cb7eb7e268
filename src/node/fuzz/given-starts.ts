/** Starts that fuzzers change: short pieces of the recordings that come with the project, with the settings beside. */
import { readFileSync } from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';
import { readPack } from '../../conform/pack.ts';
import type { Recording } from '../../conform/recording.ts';

export interface Start {
  readonly recording: Recording;
  /** The scenario's lines before `run`. */
  readonly settings: readonly string[];
}

const SETS = ['6.1-core', '6.1-errors'];
/** Of all paging modes, host memories and limits; few events an op. */
const SCENARIOS = [
  'perms lazy-drop-g2m lazy-drop-32 lazy-drop-nopaging lazy-drop-pae notifier memslot two-vcpus pt-write pt-unsync',
  'manual3-2m few-pages nx-huge odd-slots multi-cr3 dirty-4k bad-region bad-log bad-cap translate-long',
]
  .join(' ')
  .split(' ');

/** In all modes, each cut to its first `ops`. */
export function givenStarts(ops: number): Start[] {
  return SETS.flatMap((set) => {
    const path = new URL(`../../../recordings/${set}.ndjson.br`, import.meta.url);
    return readPack(brotliDecompressSync(readFileSync(path)).toString('utf8'), set)
      .filter(({ scenario }) => SCENARIOS.includes(scenario))
      .map((packed) => {
        const recording = packed.load();
        return { recording: { ...recording, results: recording.results.slice(0, ops) }, settings: packed.settings };
      });
  });
}
