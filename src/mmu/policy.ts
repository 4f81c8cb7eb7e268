/**
 * Memory policies: a flat record, each field something that KVM had at some time (or that we add, marked @diverges).
 * One engine reads them; presets name the combinations.
 */
export interface Policy {
  readonly name: string;
  /**
   * What write protection does to a large entry: `zap` drops it (before January 2013), `lazy` makes it read-only and
   * drops it when a write needs a smaller mapping, `eager` splits it into read-only 4 KiB entries when logging starts.
   *
   * @diverges eager: Linux 6.1 splits eagerly in the TDP MMU only; for the rmap engines it is ours. zap: the TDP MMU came
   * after it, and never did so.
   */
  readonly onProtect: 'zap' | 'lazy' | 'eager';
  /**
   * `guarded`: the fast page fault leaves large entries of logged slots alone (c126d94f2c90). `unguarded`: it makes
   * them writable and marks one page of them dirty, the first (caf6900f2d8a, reverted by 6b73a96065e8).
   */
  readonly fastFaultLarge: 'guarded' | 'unguarded';
}

/** Linux 6.1: the kernel that the conformance suite was recorded on. */
export const LINUX_6_1: Policy = { name: 'lazy', onProtect: 'lazy', fastFaultLarge: 'guarded' };

export const POLICIES = {
  zap: { name: 'zap', onProtect: 'zap', fastFaultLarge: 'guarded' },
  'lazy+bug': { name: 'lazy+bug', onProtect: 'lazy', fastFaultLarge: 'unguarded' },
  lazy: LINUX_6_1,
  eager: { name: 'eager', onProtect: 'eager', fastFaultLarge: 'guarded' },
} as const satisfies Record<string, Policy>;

export type PolicyName = keyof typeof POLICIES;
