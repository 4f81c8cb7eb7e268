/** The columns of the story, in the order of history. */
import type { StoryPolicy } from './story.ts';
import { makeVmMachine } from './vm-machine.ts';

export const STORY_POLICIES: readonly StoryPolicy[] = [
  {
    name: 'zap',
    about: 'drops every large spte when the log starts (Linux until 3.15)',
    loses: false,
    makeMachine: (memBytes, vcpus, trace) => makeVmMachine('zap', memBytes, vcpus, trace),
  },
  {
    name: 'lazy+bug',
    about: 'makes it read-only; the fast path makes it writable again (caf6900f2d8a, reverted by 6b73a96065e8)',
    loses: true,
    makeMachine: (memBytes, vcpus, trace) => makeVmMachine('lazy+bug', memBytes, vcpus, trace),
  },
  {
    name: 'lazy',
    about: 'makes it read-only, drops it at the first write (c126d94f2c90, Linux 3.16)',
    loses: false,
    makeMachine: (memBytes, vcpus, trace) => makeVmMachine('lazy', memBytes, vcpus, trace),
  },
  {
    name: 'eager',
    about: 'splits it into read-only small ones when the log starts (ours for this engine)',
    loses: false,
    makeMachine: (memBytes, vcpus, trace) => makeVmMachine('eager', memBytes, vcpus, trace),
  },
];
