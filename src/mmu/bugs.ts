/**
 * Bugs that KVM had, each a switch that brings it back. All are off unless a test or a tool asks; `docs/museum/` tells
 * what they did to people, the tests in `museum/` show it. A switch is looked at only where its bug makes a difference
 * (a mismatch was found, a table is linked, an ioctl ends), never on the way that every fault takes.
 *
 * The first exhibit has no switch: it is the policy `lazy+bug`.
 */

/** Switch: what KVM does with it on. */
export const BUGS = {
  // The dirty log.
  readOnlyLargeStays: 'the direct map gives up below a large read-only entry instead of dropping it',
  flushIfWritable: 'protecting flushes if W was set, not if somebody may just have cleared it',
  flushIfChanged: 'starting a log flushes only if an entry was protected by it',
  exchangeNotLogged: 'an emulated compare-and-exchange writes without a mark in the log',

  // Rights in shadow pages.
  directRightsNotInKey: 'small pages below a large guest page are shared whatever its rights',
  directRightsFromAbove: 'small pages below a large guest page have the rights of the tables above it',
  directRightsUnchecked: 'small pages that stand below a large guest page are used though its rights have changed',
  lowerRightsInherited: 'a table gets the rights of the whole path, of tables below it too',

  // Guest tables that change.
  syncMayUnsync: 'syncing one page may make the next one unsync that is about to be synced',
  linkedBeforeSynced: 'a page with stale pages below becomes reachable before they are synced',
  flushInsteadOfSync: 'a page with stale pages below becomes reachable, and the TLB is flushed in place of a sync',
  gpteNotReread: 'a guest entry is not read again once its table is write-protected',
  childGfnUnchecked: 'any page of the right role counts as the child, whatever gfn it maps',
  childRoleUnchecked: 'any page of the right gfn counts as the child, whatever its role',
  trackedInOneSpace: 'a table that is shadowed in one address space may be mapped writable in the other',

  // Roots, zapping, limits.
  previousRootsUnchecked: 'previous roots are freed if the current one is obsolete, not if they are',
  newestZappedFirst: 'the youngest pages are recycled, those that the guest needs most',
  stableZapsUncounted: 'a batch counts only pages that took others with them, so it never ends',

  // Memory slots, MMIO, faults.
  mmioOverPresent: 'an MMIO entry is stored over a present one, which stays in its list',
  mmioGenerationOverlaps: 'the generation in an MMIO entry shares a bit with the signature',
  mmioInInvalidSlot: 'a fault on a slot that is going away is taken for MMIO',
  sequenceHas32Bits: 'the notifier sequence is kept in a signed 32-bit word by faults',
  hugePageBeyondSlot: 'the level for a huge page is looked up though it begins before its slot',

  // The guest's mode.
  pkruMaskNotReset: 'bits of the protection key mask are added at each change of mode, never taken away',
  invpcidFlushesCurrent: 'INVPCID under nested paging flushes only if it names the current PCID',
  invpcidWithoutPaging: 'INVPCID without paging calls the function that such a guest has not',
} as const;

export type BugName = keyof typeof BUGS;
export type Bugs = Readonly<Record<BugName, boolean>>;

/**
 * A record with these switches on and all others off. It starts as a copy: made property by property it would be a hash table
 * for V8, and each look at a switch would cost 20 ns (npm run bench -- "slow fault").
 */
export function withBugs(...names: readonly BugName[]): Bugs {
  const bugs: Record<BugName, boolean | string> = { ...BUGS };
  for (const name of Object.keys(BUGS) as BugName[]) bugs[name] = names.includes(name);
  return bugs as Record<BugName, boolean>;
}

/** Linux 6.1 as it is. */
export const NO_BUGS: Bugs = withBugs();
