/**
 * The TDP MMU's pages. They are neither in the hash nor on the active list and don't count against the page limit. Each
 * hangs on one entry, kept in `parents`; a root on none. Source: Linux 6.1 tdp_mmu.c.
 */
import type { Mmu } from '../mmu.ts';
import { spOf, tablePfn } from '../shadow-pages.ts';
import { nonleafHi, nonleafLo } from '../spte.ts';
import { traceGetPage } from '../tracing.ts';
import type { TdpIter } from './tdp-iter.ts';
import { setSpte, setSpteAtomic } from './tdp-set-spte.ts';

/** Makes table `sp` a page for gfn below `sptep` (0: a root). @kvm tdp_mmu_init_sp */
export function initPage(mmu: Mmu, sp: number, sptep: number, gfn: number, role: number): void {
  mmu.pages.addTdp(sp, sptep, gfn, role);
  traceGetPage(mmu, sp, true);
}

/** Makes table `sp` the page for the entry at hand, which doesn't point at it yet. @kvm tdp_mmu_init_child_sp */
export function initChildPage(mmu: Mmu, sp: number, it: TdpIter): void {
  initPage(mmu, sp, it.sptep, it.gfn, mmu.pages.role[spOf(it.sptep)] - 1);
}

/**
 * Points the entry at hand at page `sp`. False if the entry changed meanwhile (only if `shared`): then the page is the
 * caller's still. @kvm tdp_mmu_link_sp
 */
export function linkPage(mmu: Mmu, it: TdpIter, sp: number, shared: boolean): boolean {
  const pfn = tablePfn(sp);
  const lo = nonleafLo(mmu.format, pfn, mmu.adDisabled);
  const hi = nonleafHi(mmu.format, pfn, mmu.adDisabled);
  if (!shared) setSpte(mmu, it, lo, hi);
  else if (!setSpteAtomic(mmu, it, lo, hi)) return false;
  mmu.nTdpPages++;
  return true;
}
