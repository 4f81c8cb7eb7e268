/**
 * Versions of the kernel: what differs in the MMU between those that the recordings come from. A flat record, as a policy
 * is; the engines ask it where they differ.
 */
export interface KernelVersion {
  readonly name: 'linux-6.1' | 'linux-6.12';
  /** What a fault of the TDP MMU does with a large leaf that is in its way (c4b33d28ea51, Linux 6.3). */
  readonly tdpLargeInTheWay: 'zap' | 'split';
  /** Levels at which the TDP MMU zaps a root one after the other, before the root's own (Linux 6.9: small ones too). */
  readonly tdpZapLevels: readonly number[];
  /** Zapping an entry under the read lock tells of it, and goes below, when the freeze has ended (Linux 6.10). */
  readonly tdpTellsAfterFreeze: boolean;
  /** Roots of the TDP MMU are made and given back holding mmu_lock for reading (Linux 6.9). */
  readonly tdpRootsShared: boolean;
  /** High word of a frozen entry: an entry that is not present has bit 63 (Linux 6.10). */
  readonly frozenHi: number;
  /** EPT's present entries have the bit that suppresses #VE (Linux 6.10). */
  readonly suppressVe: boolean;
  /** The fast fault's tracepoint has all 64 bits of the error code. */
  readonly wideErrorCode: boolean;
  /** CLEAR splits the last page's large leaf, too (Linux 6.8). */
  readonly clearSplitsLastPage: boolean;
  /** The NX mitigation marks every table that it makes, counts those that could be large, and keeps marked ones (6.2). */
  readonly nxMarksEveryTable: boolean;
  /** Syncing leaves entries alone whose rights are what they were, and INVLPG syncs its entry (Linux 6.4). */
  readonly syncsByEntry: boolean;
  /** A fault during the delivery of an event drops the pages that mirror what was hit (until 6.12). */
  readonly unprotectsOnDelivery: boolean;
  /** A fault is found stale before the lock is taken, too: before and after its frame is looked up (Linux 6.9). */
  readonly staleBeforeLock: boolean;
  /** CR0.WP alone changes nothing while paging is off. */
  readonly ignoresIdleWp: boolean;
  /** KVM_PRE_FAULT_MEMORY exists (Linux 6.11). */
  readonly preFault: boolean;
  /** Bits of KVM_CAP_DISABLE_QUIRKS2; of them only SLOT_ZAP_ALL (Linux 6.12) is the MMU's. */
  readonly validQuirks: number;
  /** Recovery of NX huge pages leaves logged slots alone (Linux 6.2). */
  readonly recoverySkipsLogged: boolean;
  /** KVM_SET_SREGS that changes the mode flushes the guest's TLB entries. */
  readonly sregsFlush: boolean;
}

export const KERNEL_6_1: KernelVersion = {
  name: 'linux-6.1',
  tdpLargeInTheWay: 'zap',
  tdpZapLevels: [3],
  tdpTellsAfterFreeze: false,
  tdpRootsShared: false,
  frozenHi: 0,
  suppressVe: false,
  wideErrorCode: false,
  clearSplitsLastPage: false,
  nxMarksEveryTable: false,
  syncsByEntry: false,
  unprotectsOnDelivery: true,
  staleBeforeLock: false,
  ignoresIdleWp: false,
  preFault: false,
  validQuirks: 0x7f,
  recoverySkipsLogged: false,
  sregsFlush: false,
};

export const KERNEL_6_12: KernelVersion = {
  name: 'linux-6.12',
  tdpLargeInTheWay: 'split',
  tdpZapLevels: [1, 2, 3],
  tdpTellsAfterFreeze: true,
  tdpRootsShared: true,
  frozenHi: 1 << 31,
  suppressVe: true,
  wideErrorCode: true,
  clearSplitsLastPage: true,
  nxMarksEveryTable: true,
  syncsByEntry: true,
  unprotectsOnDelivery: false,
  staleBeforeLock: true,
  ignoresIdleWp: true,
  preFault: true,
  validQuirks: 0x7ff,
  recoverySkipsLogged: true,
  sregsFlush: true,
};
