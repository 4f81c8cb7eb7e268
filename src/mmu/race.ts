/**
 * The points at which the kernel's code can race or yield. In production `race` is empty and is inlined away; a test
 * build replaces it, so that a scheduler can interleave vCPUs and ioctl threads there.
 */
/** Before the fast fault's compare-and-exchange: the entry was read, no lock is held. */
export const RACE_FAST_FAULT_CMPXCHG = 1;
/** After the host frame was looked up, before mmu_lock is taken. */
export const RACE_FAULT_BEFORE_LOCK = 2;
/** Between two reverse map heads of a slot walk: the kernel may drop mmu_lock here. */
export const RACE_SLOT_WALK = 3;
/** Between two batches of a zap of obsolete pages. */
export const RACE_ZAP_BATCH = 4;
/** After an ioctl dropped mmu_lock, before it flushes. */
export const RACE_BEFORE_FLUSH = 5;
/** Between two rounds of syncing children. */
export const RACE_SYNC_ROUND = 6;

export function race(_point: number): void {}
