/**
 * Where the kernel takes which lock. In production, where one thread plays all parts in turn, these are empty and are
 * inlined away; the checker (`docs/checker.md`) makes threads wait here, so that it explores what the kernel can do and
 * nothing else.
 *
 *     LOCK_SLOTS    slots_lock, a mutex: one ioctl that changes or collects at a time
 *     LOCK_MMU      mmu_lock for writing
 *     LOCK_SHARED   mmu_lock for reading: the TDP MMU's faults and most of its walks
 *     LOCK_SRCU     kvm->srcu: a reader of the slots; `awaitReaders` waits for those that there are
 *     LOCK_NOTIFIER between the start and the end of an invalidation; `awaitNotifiers` waits until there is none
 *
 * No lock keeps guests, the CPU's A and D bits, or the fast page fault away: these run at any point of race.ts.
 */
export const LOCK_SLOTS = 1;
export const LOCK_MMU = 2;
export const LOCK_SHARED = 3;
export const LOCK_SRCU = 4;
export const LOCK_NOTIFIER = 5;

export function lock(_which: number): void {}

export function unlock(_which: number): void {}

/** Until all who read the slots when it was called have ended. @kvm synchronize_srcu_expedited */
export function awaitReaders(): void {}

/** @kvm mn_active_invalidate_count */
export function awaitNotifiers(): void {}
