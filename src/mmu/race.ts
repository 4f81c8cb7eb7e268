/**
 * The points at which the kernel's code can race or yield. In production `race` is empty and is inlined away; a test
 * build replaces it, so that a scheduler can interleave vCPUs and ioctl threads there. lock.ts says who must wait for whom;
 * at the points marked "drops" mmu_lock is dropped and taken again.
 */
/** Before the fast fault's compare-and-exchange: the entry was read, no lock is held. */
export const RACE_FAST_FAULT_CMPXCHG = 1;
/** After the host frame was looked up, before mmu_lock is taken. */
export const RACE_FAULT_BEFORE_LOCK = 2;
/** Between two reverse map heads of a slot walk: the kernel may drop mmu_lock here. */
export const RACE_SLOT_WALK = 3;
/** Between two batches of a zap of obsolete pages; drops. */
export const RACE_ZAP_BATCH = 4;
/** After an ioctl dropped mmu_lock, before it flushes. */
export const RACE_BEFORE_FLUSH = 5;
/** Between two rounds of syncing children; drops. */
export const RACE_SYNC_ROUND = 6;

/** Before the TDP MMU's compare-and-exchange: the entry was read, mmu_lock is held for reading. */
export const RACE_TDP_CMPXCHG = 7;
/** An entry of the TDP MMU is frozen, the TLBs are not yet flushed. */
export const RACE_TDP_FROZEN = 8;
/** A walk of the TDP MMU gives way; drops. */
export const RACE_TDP_YIELD = 9;

/**
 * Before an entry is changed by somebody who holds mmu_lock: the CPU, the fast page fault and guests with an older
 * translation go on. What reads and changes an entry in one exchange has its point before the read.
 */
export const RACE_SPTE = 10;
/** The fast fault has set W and not yet marked the page. */
export const RACE_FAST_FAULT_MARK = 11;
/** A vCPU is about to look for requests and enter the guest. */
export const RACE_ENTRY = 12;
/** An entry of a removed table is frozen by somebody else, who will not be long. */
export const RACE_TDP_SPIN = 13;
/** A word of the dirty log is about to be taken. */
export const RACE_LOG_WORD = 14;

/** `_at`: the entry that is about to change (an sptep), or the word of the log; 0: no one in particular. */
export function race(_point: number, _at?: number): void {}

/** Does somebody wait for the lock or the CPU, so that a walk must give way here? Never in production. */
export function yields(_point: number, _at?: number): boolean {
  return false;
}
