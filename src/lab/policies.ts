/** The columns that a story can have, in the order of history. */
import { POLICIES, type PolicyName, type Preset, PRESETS } from '../vm/vm.ts';
import type { Idea, StoryPolicy } from './story.ts';
import { makeVmMachine } from './vm-machine.ts';

/** Policies of one engine, the rmap-based one of Linux 6.1: the columns if none are asked for. */
export const STORY_POLICIES: readonly StoryPolicy[] = [
  onePolicy('zap', 'drops every large spte when the log starts (Linux until 3.15)'),
  onePolicy(
    'lazy+bug',
    'makes it read-only; the fast path makes it writable again (caf6900f2d8a, reverted by 6b73a96065e8)',
  ),
  onePolicy('lazy', 'makes it read-only, drops it at the first write (c126d94f2c90, Linux 3.16)'),
  onePolicy('eager', 'splits it into read-only small ones when the log starts (ours for this engine)'),
];

/** Kernel versions: policy, engine and version of the MMU together. */
export const STORY_KERNELS: readonly StoryPolicy[] = PRESETS.map((preset) => ({
  name: preset.name,
  about: preset.about,
  idea: ideaOf(preset),
  kernel: true,
  loses: ideaOf(preset) === 'lazy+bug',
  makeMachine: (memBytes, vcpus, trace) => makeVmMachine(preset, memBytes, vcpus, trace),
}));

/** Whatever `--policy` may name. */
export const ALL_POLICIES: readonly StoryPolicy[] = [...STORY_POLICIES, ...STORY_KERNELS];

function onePolicy(name: PolicyName, about: string): StoryPolicy {
  return {
    name,
    about,
    idea: name,
    kernel: false,
    loses: name === 'lazy+bug',
    makeMachine: (memBytes, vcpus, trace) => makeVmMachine({ policy: POLICIES[name] }, memBytes, vcpus, trace),
  };
}

/** What becomes of a large entry that is in the way of the log. */
function ideaOf({ policy, tdpMmu, kernel }: Preset): Idea {
  if (policy.onProtect !== 'lazy') return policy.onProtect;
  if (policy.fastFaultLarge === 'unguarded') return 'lazy+bug';
  return tdpMmu && kernel.tdpLargeInTheWay === 'split' ? 'split' : 'lazy';
}
