/**
 * Taking back what the NX huge page mitigation split: tables that stand where a huge page could are zapped, oldest first,
 * a part of them at a time. The next read or write maps a huge page again, the next fetch splits it anew.
 *
 * In the kernel a thread of each VM does so periodically; here whoever owns the clock calls it.
 * Source: Linux 6.1 mmu.c kvm_recover_nx_lpages, 6.12 kvm_recover_nx_huge_pages.
 */
import { LOCK_MMU, LOCK_SRCU, lock, unlock } from './lock.ts';
import { type Mmu, slotForRole } from './mmu.ts';
import { unaccountHugeNxPage } from './nx-huge-page.ts';
import { prepareZapPage, remoteFlushOrZap } from './page-zap.ts';
import { rcuReadLock, rcuReadUnlock } from './tdp-mmu/rcu.ts';
import { zapTdpPage } from './tdp-mmu/tdp-zap.ts';

/** @kvm nx_huge_pages_recovery_ratio */
export const DEFAULT_RECOVERY_RATIO = 60;
/** Recoveries an hour at most, if the period is derived from the ratio. */
const MAX_DERIVED_RATIO = 3600;
const HOUR_MS = 3_600_000;

/**
 * Zaps one `ratio`-th of the tables that the mitigation made, rounded up; 0: none.
 * @kvm kvm_recover_nx_lpages, kvm_recover_nx_huge_pages
 */
export function recoverNxHugePages(mmu: Mmu, ratio: number): void {
  const invalid: number[] = [];
  let flush = false;
  lock(LOCK_SRCU);
  lock(LOCK_MMU);
  rcuReadLock(mmu);
  let left = ratio === 0 ? 0 : Math.ceil(mmu.stats.nx_lpage_splits / ratio);
  for (; left > 0 && mmu.possibleNxPages.length > 0; left--) {
    const [sp] = mmu.possibleNxPages;
    if (mmu.kernel.recoverySkipsLogged && isLogged(mmu, sp)) unaccountHugeNxPage(mmu, sp);
    else if (mmu.pages.tdp[sp] === 0) prepareZapPage(mmu, sp, invalid);
    else {
      zapTdpPage(mmu, sp);
      flush = true;
    }
  }
  remoteFlushOrZap(mmu, invalid, flush);
  rcuReadUnlock(mmu);
  unlock(LOCK_MMU);
  unlock(LOCK_SRCU);
}

/** What goes would come back as 4 KiB entries; it goes with the log's end. */
function isLogged(mmu: Mmu, sp: number): boolean {
  return slotForRole(mmu, mmu.pages.role[sp], mmu.pages.gfn[sp]).logsDirty;
}

/**
 * Milliseconds between two recoveries; Infinity: none. `periodMs` 0: an hour for all of them.
 * @kvm calc_nx_huge_pages_recovery_period, get_nx_huge_page_recovery_timeout
 */
export function recoveryPeriodMs(mmu: Mmu, ratio: number, periodMs: number): number {
  if (!mmu.nxHugePages || ratio === 0) return Infinity;
  return periodMs !== 0 ? periodMs : Math.floor(HOUR_MS / Math.min(ratio, MAX_DERIVED_RATIO));
}
