/**
 * Pages that exist only because huge pages must not be executable (the iTLB multihit mitigation).
 * Source: Linux 6.1 mmu.c.
 */
import type { Mmu } from './mmu.ts';

/** The page blocks a huge page because that must not be executable. @kvm account_huge_nx_page */
export function accountHugeNxPage(mmu: Mmu, sp: number): void {
  if (mmu.pages.lpageDisallowed[sp] !== 0) return;
  mmu.stats.nx_lpage_splits++;
  mmu.pages.lpageDisallowed[sp] = 1;
}

/** @kvm unaccount_huge_nx_page */
export function unaccountHugeNxPage(mmu: Mmu, sp: number): void {
  mmu.stats.nx_lpage_splits--;
  mmu.pages.lpageDisallowed[sp] = 0;
}
