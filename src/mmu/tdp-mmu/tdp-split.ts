/**
 * Eager page splitting: each large leaf is replaced by a table of 512 that map the same with the same rights, A and D.
 * So nothing needs a flush: a TLB that still has the large mapping translates alike.
 *
 * Source: Linux 6.1 tdp_mmu.c kvm_tdp_mmu_try_split_huge_pages.
 */
import { EBUSY } from '../../base/errno.ts';
import { pagesPerLevel } from '../../base/page.ts';
import type { MemSlot } from '../../mem/memslots.ts';
import { TP_SPLIT_HUGE_PAGE } from '../../trace/tracepoints.ts';
import type { Mmu } from '../mmu.ts';
import { updatePageStats } from '../rmap.ts';
import { roleAccess } from '../role.ts';
import { sptepAt } from '../shadow-pages.ts';
import { ACC_EXEC, isLarge, isShadowPresent, splitChildHi, splitChildLo } from '../spte.ts';
import { freePage, rcuReadLock, rcuReadUnlock } from './rcu.ts';
import { TdpIter } from './tdp-iter.ts';
import { initChildPage, linkPage } from './tdp-pages.ts';
import { nextRoot, rootAddressSpace } from './tdp-roots.ts';
import { condResched } from './tdp-set-spte.ts';

/** Splits what is larger than `targetLevel` in [start, end) of a slot. @kvm kvm_tdp_mmu_try_split_huge_pages */
export function trySplitHugePages(
  mmu: Mmu,
  slot: MemSlot,
  start: number,
  end: number,
  targetLevel: number,
  shared: boolean,
): void {
  for (let root = nextRoot(mmu, 0, true); root !== 0; root = nextRoot(mmu, root, true))
    if (rootAddressSpace(mmu, root) === slot.asId) splitHugePagesOfRoot(mmu, root, start, end, targetLevel, shared);
}

/**
 * An entry comes before what is below it, so a 1 GiB leaf becomes 2 MiB ones and each of these is met and split in turn.
 * @kvm tdp_mmu_split_huge_pages_root
 */
function splitHugePagesOfRoot(
  mmu: Mmu,
  root: number,
  start: number,
  end: number,
  targetLevel: number,
  shared: boolean,
): void {
  const it = new TdpIter();
  let spare = 0;
  rcuReadLock(mmu);
  for (it.start(mmu, root, targetLevel + 1, start); it.valid && it.gfn < end; it.next(mmu)) {
    while (!condResched(mmu, it, false)) {
      if (!isShadowPresent(it.oldLo) || !isLarge(it.oldLo)) break;
      if (spare === 0) spare = mmu.arena.alloc();
      initChildPage(mmu, spare, it);
      if (!splitHugePage(mmu, it, spare, shared)) continue;
      spare = 0;
      break;
    }
  }
  rcuReadUnlock(mmu);
  if (spare !== 0) freePage(mmu, spare);
}

/** Replaces the large leaf at hand by table `sp`, made for its place. False if it changed meanwhile. @kvm tdp_mmu_split_huge_page */
export function splitHugePage(mmu: Mmu, it: TdpIter, sp: number, shared: boolean): boolean {
  const { oldLo, oldHi, gfn, level } = it;
  fillTable(mmu, sp, oldLo, oldHi, level - 1);
  const linked = linkPage(mmu, it, sp, shared);
  if (linked) updatePageStats(mmu, level - 1, 512);
  if (mmu.trace.on) mmu.trace.emit(TP_SPLIT_HUGE_PAGE, gfn, oldLo, oldHi, level, linked ? 0 : -EBUSY);
  return linked;
}

/** The table isn't linked yet, so nobody else sees it. @kvm make_huge_page_split_spte */
function fillTable(mmu: Mmu, sp: number, lo: number, hi: number, level: number): void {
  const mayExecute = level === 1 && mmu.nxHugePages && (roleAccess(mmu.pages.role[sp]) & ACC_EXEC) !== 0;
  const { format } = mmu;
  const { words } = mmu.arena;
  for (let i = 0; i < 512; i++) {
    const at = sptepAt(sp, i) << 1;
    const offset = i * pagesPerLevel(level);
    words[at] = splitChildLo(format, lo, hi, offset, level, mayExecute);
    words[at + 1] = splitChildHi(format, lo, hi, offset, mayExecute);
  }
}
