/**
 * Kernel versions as presets: each joins the policy, the engine and the version of the MMU that a kernel had.
 *
 * Those before 6.1 are 6.1's rmap-based engine under what write protection and the fast page fault did then; what else has
 * changed since (see the reference's appendix A) is not taken back. Those of the TDP MMU run with eager_page_split=N,
 * which is where the large leaf and the first write to it meet; the kernel's own default is Y, and has the suffix -eager.
 */
import { KERNEL_6_1, KERNEL_6_12, type KernelVersion } from './kernel-version.ts';
import { POLICIES, type Policy, type PolicyName } from './policy.ts';

export interface Preset<Name extends string = string> {
  readonly name: Name;
  /** What becomes of a large entry, in a few words. */
  readonly about: string;
  readonly policy: Policy;
  readonly kernel: KernelVersion;
  /** The TDP MMU; false: the rmap-based engine, or shadow paging. */
  readonly tdpMmu: boolean;
}

function preset<Name extends string>(
  name: Name,
  policy: PolicyName,
  kernel: KernelVersion,
  tdpMmu: boolean,
  about: string,
): Preset<Name> {
  return { name, about, policy: POLICIES[policy], kernel, tdpMmu };
}

// biome-ignore format: a table
const LIST = [
  preset('linux-3.8',            'zap',      KERNEL_6_1,  false, 'drops every large spte when the log starts'),
  preset('linux-3.9-rc',         'lazy+bug', KERNEL_6_1,  false, 'makes them read-only; the fast path makes them writable again (caf6900f2d8a)'),
  preset('linux-3.16',           'lazy',     KERNEL_6_1,  false, 'makes them read-only, drops each at its first write (c126d94f2c90)'),
  preset('linux-6.1',            'lazy',     KERNEL_6_1,  false, 'without the TDP MMU (tdp_mmu=N): as linux-3.16'),
  preset('linux-6.1-tdp',        'lazy',     KERNEL_6_1,  true,  'the TDP MMU: makes them read-only, freezes and drops each at its first write'),
  preset('linux-6.1-tdp-eager',  'eager',    KERNEL_6_1,  true,  'the TDP MMU: splits them when the log starts (eager_page_split=Y)'),
  preset('linux-6.12',           'lazy',     KERNEL_6_12, false, 'without the TDP MMU (tdp_mmu=N): as linux-3.16'),
  preset('linux-6.12-tdp',       'lazy',     KERNEL_6_12, true,  'the TDP MMU: makes them read-only, splits each in the fault of its first write (c4b33d28ea51)'),
  preset('linux-6.12-tdp-eager', 'eager',    KERNEL_6_12, true,  'the TDP MMU: splits them when the log starts (eager_page_split=Y)'),
] as const;

export type PresetName = (typeof LIST)[number]['name'];

/** In the order of history. */
export const PRESETS: readonly Preset<PresetName>[] = LIST;

export function findPreset(name: string): Preset<PresetName> | undefined {
  return PRESETS.find((preset) => preset.name === name);
}
