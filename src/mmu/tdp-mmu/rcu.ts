/**
 * Deferred freeing. The TDP MMU's tables are walked by some who hold mmu_lock only for reading or not at all. They do so
 * between `rcuReadLock` and `rcuReadUnlock`; a table that is unlinked meanwhile keeps its contents until the last of
 * them has left, and is freed then. Source: Linux 6.1 tdp_mmu.c, RCU.
 */
import type { Mmu } from '../mmu.ts';

/** @kvm rcu_read_lock */
export function rcuReadLock(mmu: Mmu): void {
  mmu.rcuReaders++;
}

/** @kvm rcu_read_unlock */
export function rcuReadUnlock(mmu: Mmu): void {
  if (--mmu.rcuReaders > 0 || mmu.rcuPending.length === 0) return;
  for (const sp of mmu.rcuPending) freePage(mmu, sp);
  mmu.rcuPending.length = 0;
}

/** Frees an unlinked page once nobody can stand in it. @kvm call_rcu, tdp_mmu_free_sp_rcu_callback */
export function freePageLater(mmu: Mmu, sp: number): void {
  if (mmu.rcuReaders > 0) mmu.rcuPending.push(sp);
  else freePage(mmu, sp);
}

/** Frees a page that was never linked, or that nobody can reach. @kvm tdp_mmu_free_sp */
export function freePage(mmu: Mmu, sp: number): void {
  mmu.pages.removeTdp(sp);
  mmu.arena.free(sp);
}
