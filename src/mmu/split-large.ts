/**
 * Splitting large leaves of the pages that have reverse maps: a table of 512 that map the same takes the leaf's place.
 *
 * In Linux that happens to nested guests' pages, beside the TDP MMU's own splitting. What it needs is allocated ahead: the walk
 * gives the lock up to fill its caches, says so (-EAGAIN), and begins the list at hand anew.
 *
 * Source: Linux 6.1 mmu.c shadow_mmu_split_huge_page, kvm_shadow_mmu_try_split_huge_pages.
 */
import { EAGAIN, ENOSPC } from '../base/errno.ts';
import { MAX_HUGEPAGE_LEVEL, pagesPerLevel } from '../base/page.ts';
import type { MemSlot } from '../mem/memslots.ts';
import { TP_SPLIT_HUGE_PAGE } from '../trace/tracepoints.ts';
import { dropPresent, getShadowPage, linkShadowPage } from './get-page.ts';
import type { Mmu } from './mmu.ts';
import { availablePages, MIN_FREE_PAGES } from './page-zap.ts';
import { mmuSpteSet, rmapAdd, spteHi, spteLo } from './rmap.ts';
import { childRole, isInvalidRole } from './role.ts';
import { indexOf, spOf, sptepAt } from './shadow-pages.ts';
import { walkSlotRmaps } from './slot-walk.ts';
import { ACC_EXEC, isShadowPresent, splitChildHi, splitChildLo } from './spte.ts';

/** Descriptors that one split may need: one for each entry's list and one for the table's parents. @kvm SPLIT_DESC_CACHE_MIN_NR_OBJECTS */
const MIN_DESCRIPTORS = 513;
/** Tables, and descriptors beyond those, that the caches hold when full. @kvm KVM_ARCH_NR_OBJS_PER_MEMORY_CACHE */
const CACHE_CAPACITY = 40;

/** What the caches for splitting hold. */
export class SplitCaches {
  tables = 0;
  descriptors = 0;

  /** @kvm need_topup_split_caches_or_resched */
  get areLow(): boolean {
    return this.tables < 1 || this.descriptors < MIN_DESCRIPTORS;
  }

  /** Each is filled if it is too low, and then to the full. @kvm topup_split_caches */
  topUp(): void {
    if (this.tables < 1) this.tables = CACHE_CAPACITY;
    if (this.descriptors < MIN_DESCRIPTORS) this.descriptors = MIN_DESCRIPTORS + CACHE_CAPACITY;
  }
}

/** One large leaf becomes a table of 512 that map the same. @kvm shadow_mmu_split_huge_page */
export function splitLarge(mmu: Mmu, slot: MemSlot, hugeSptep: number): void {
  const hugeSp = spOf(hugeSptep);
  const index = indexOf(hugeSptep);
  const lo = spteLo(mmu, hugeSptep);
  const hi = spteHi(mmu, hugeSptep);
  const access = mmu.pages.entryAccess(hugeSp, index);
  const gfn = mmu.pages.entryGfn(hugeSp, index);
  const before = mmu.nUsedPages;
  const sp = getShadowPage(mmu, null, gfn, childRole(mmu.pages.role[hugeSp], index, true, access));
  mmu.splitCaches.tables -= mmu.nUsedPages - before;
  const level = mmu.pages.level(sp);
  const mayExecute = level === 1 && mmu.nxHugePages && (access & ACC_EXEC) !== 0;
  let descriptors = mmu.lists.used;
  for (let i = 0; i < 512; i++) {
    const sptep = sptepAt(sp, i);
    // It is there if the frames are mapped twice with these rights.
    if (isShadowPresent(spteLo(mmu, sptep))) continue;
    const offset = i * pagesPerLevel(level);
    const childLo = splitChildLo(mmu.format, lo, hi, offset, level, mayExecute);
    mmuSpteSet(mmu, sptep, childLo, splitChildHi(mmu.format, lo, hi, offset, mayExecute));
    rmapAdd(mmu, slot, sptep, gfn + offset, access);
  }
  descriptors -= mmu.lists.used;
  // Descriptors that this sets free don't go back to the cache.
  dropPresent(mmu, hugeSptep);
  descriptors += mmu.lists.used;
  linkShadowPage(mmu, hugeSptep, sp);
  mmu.splitCaches.descriptors -= mmu.lists.used - descriptors;
}

/** Splits all that nested guests map large in [start, end) of a slot. @kvm kvm_shadow_mmu_try_split_huge_pages */
export function trySplitNestedPages(mmu: Mmu, slot: MemSlot, start: number, end: number): void {
  for (let level = MAX_HUGEPAGE_LEVEL; level > 1; level--)
    walkSlotRmaps(mmu, slot, level, level, start, end, splitHead);
}

/** @kvm shadow_mmu_try_split_huge_pages */
function splitHead(mmu: Mmu, slot: MemSlot, heads: Int32Array, at: number): boolean {
  const { lists, pages } = mmu;
  let cursor = lists.firstCursor(heads, at);
  for (let sptep = lists.first(heads, at); sptep !== 0; ) {
    if (isInvalidRole(pages.role[spOf(sptep)])) {
      cursor = lists.next(cursor);
      sptep = cursor === 0 ? 0 : lists.at(cursor);
      continue;
    }
    if (!trySplit(mmu, slot, sptep)) return false;
    cursor = lists.firstCursor(heads, at);
    sptep = lists.first(heads, at);
  }
  return false;
}

/** False: no page is left, and none will be. @kvm shadow_mmu_try_split_huge_page */
function trySplit(mmu: Mmu, slot: MemSlot, sptep: number): boolean {
  const sp = spOf(sptep);
  const gfn = mmu.pages.entryGfn(sp, indexOf(sptep));
  const lo = spteLo(mmu, sptep);
  const hi = spteHi(mmu, sptep);
  let error = 0;
  if (availablePages(mmu) <= MIN_FREE_PAGES) error = -ENOSPC;
  else if (mmu.splitCaches.areLow) {
    mmu.splitCaches.topUp();
    error = -EAGAIN;
  } else splitLarge(mmu, slot, sptep);
  if (mmu.trace.on) mmu.trace.emit(TP_SPLIT_HUGE_PAGE, gfn, lo, hi, mmu.pages.level(sp), error);
  return error !== -ENOSPC;
}
