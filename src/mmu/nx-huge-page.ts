/**
 * Pages that exist only because huge pages must not be executable (the iTLB multihit mitigation).
 * Source: Linux 6.1 mmu.c.
 */
import type { Mmu } from './mmu.ts';

/**
 * The page was made for a fetch that must not use a huge page; `possible`: a huge page could stand there otherwise. Linux
 * 6.1 knows only the latter kind. @kvm account_huge_nx_page, account_nx_huge_page
 */
export function accountHugeNxPage(mmu: Mmu, sp: number, possible: boolean): void {
  const { pages } = mmu;
  if (!possible && !mmu.kernel.nxMarksEveryTable) return;
  pages.lpageDisallowed[sp] = 1;
  if (!possible || pages.possibleNx[sp] !== 0) return;
  mmu.stats.nx_lpage_splits++;
  pages.possibleNx[sp] = 1;
  mmu.possibleNxPages.push(sp);
}

/** @kvm unaccount_huge_nx_page, unaccount_nx_huge_page */
export function unaccountHugeNxPage(mmu: Mmu, sp: number): void {
  const { pages } = mmu;
  pages.lpageDisallowed[sp] = 0;
  if (pages.possibleNx[sp] === 0) return;
  mmu.stats.nx_lpage_splits--;
  pages.possibleNx[sp] = 0;
  mmu.possibleNxPages.splice(mmu.possibleNxPages.indexOf(sp), 1);
}
