/** Presets against configurations: what `npm run check` runs, and what it is to find. */
import { PRESETS, type Preset } from '../mmu/presets.ts';
import { CONFIGURATIONS } from './configurations.ts';
import { type Configuration, Explorer, explore, type Limits } from './explore.ts';
import { narrate } from './narrate.ts';
import type { InterleavedWorld } from './threads.ts';

export { CONFIGURATIONS, PRESETS };

export interface Verdict {
  readonly preset: string;
  readonly configuration: string;
  readonly states: number;
  readonly transitions: number;
  readonly depth: number;
  /** What is wrong, or null; and the lines of a shortest trace. */
  readonly violation: string | null;
  readonly trace: readonly string[];
}

/** Kernels that lost pages: the checker must find it. All others must be clean. */
export function mustLosePages(preset: Preset): boolean {
  return preset.policy.fastFaultLarge === 'unguarded';
}

export function check(
  interleaved: InterleavedWorld,
  preset: Preset,
  configuration: Configuration,
  limits: Limits = {},
): Verdict {
  const { states, transitions, depth, violation } = explore(interleaved, preset, configuration, limits);
  const figures = { preset: preset.name, configuration: configuration.name, states, transitions, depth };
  if (violation === null) return { ...figures, violation: null, trace: [] };
  // Once more, so that the trace is a shortest one of single steps.
  const shortest = explore(interleaved, preset, configuration, { ...limits, everyMark: true }).violation ?? violation;
  const explorer = new Explorer(interleaved, preset, configuration, { ...limits, everyMark: true });
  return { ...figures, violation: shortest.what, trace: narrate(explorer, configuration, shortest.schedule) };
}

/** Is this what these presets are known for? Lost pages in at least one configuration, or nothing in any. */
export function isAsKnown(preset: Preset, verdicts: readonly Verdict[]): boolean {
  if (!mustLosePages(preset)) return verdicts.every(({ violation }) => violation === null);
  return verdicts.some(({ violation }) => violation?.startsWith('LOST') === true);
}
