/**
 * Zapping shadow pages, in two steps: `prepareZapPage` takes a page out of every table and list and puts it on a list
 * of invalid pages; `commitZapPages` flushes once and frees them. Between the two a TLB may still use them.
 *
 * Children of a zapped page stay: they are found again in the hash when the walk comes back.
 *
 * Lists of invalid pages are arrays whose last element is the list's head: commit frees from the end.
 *
 * Source: Linux 6.1 mmu.c, kvm_mmu_prepare_zap_page and around.
 */
import { MAX_HUGEPAGE_LEVEL } from '../base/page.ts';
import type { MemSlot } from '../mem/memslots.ts';
import { TP_ZAP_ALL_FAST } from '../trace/tracepoints.ts';
import { LOCK_MMU, lock, unlock } from './lock.ts';
import { flushRemoteTlbs, isObsolete, type Mmu, requestAll } from './mmu.ts';
import { unaccountHugeNxPage } from './nx-huge-page.ts';
import { unaccountShadowed } from './page-track.ts';
import { RACE_ZAP_BATCH, race } from './race.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS } from './requests.ts';
import { dropSpte, mmuSpteClearNoTrack, spteHi, spteLo, zapRmap } from './rmap.ts';
import { isInvalidRole, ROLE_GUEST_MODE, ROLE_INVALID, roleHasGptes } from './role.ts';
import { childOf, spOf, sptepAt } from './shadow-pages.ts';
import { walkSlotRmaps } from './slot-walk.ts';
import { isLast, isMmioSpte, isShadowPresent } from './spte.ts';
import { unmapGfnRange } from './tdp-mmu/tdp-notifier.ts';
import { invalidateAllRoots } from './tdp-mmu/tdp-roots.ts';
import { zapAllRoots, zapInvalidatedRoots } from './tdp-mmu/tdp-zap.ts';
import { tracePrepareZapPage } from './tracing.ts';
import { UnsyncPages, unlinkUnsyncPage, unsyncWalk } from './unsync.ts';

/** Shadow pages that must be available before a fault maps anything. @kvm KVM_MIN_FREE_MMU_PAGES */
export const MIN_FREE_PAGES = 5;
/** @kvm KVM_REFILL_PAGES */
const REFILL_PAGES = 25;
/** @kvm BATCH_ZAP_PAGES */
const BATCH_ZAP_PAGES = 10;

/** Takes an entry out of its child's list of parents and empties it. @kvm drop_parent_pte */
export function dropParentPte(mmu: Mmu, child: number, sptep: number): void {
  mmu.lists.remove(mmu.pages.parents, child, sptep);
  mmuSpteClearNoTrack(mmu, sptep);
}

/**
 * Empties one entry, whatever it is. Pages zapped with it: a child of nested paging that has no parent left.
 * @kvm mmu_page_zap_pte
 */
export function zapPte(mmu: Mmu, sptep: number, invalid: number[] | null): number {
  const lo = spteLo(mmu, sptep);
  const hi = spteHi(mmu, sptep);
  if (!isShadowPresent(lo)) {
    if (isMmioSpte(mmu.format, lo, hi)) mmuSpteClearNoTrack(mmu, sptep);
    return 0;
  }
  if (isLast(lo, mmu.pages.level(spOf(sptep)))) {
    dropSpte(mmu, sptep);
    return 0;
  }
  const child = childOf(lo, hi);
  dropParentPte(mmu, child, sptep);
  if (!mmu.tdp || invalid === null || (mmu.pages.role[child] & ROLE_GUEST_MODE) === 0) return 0;
  if (mmu.pages.rootCount[child] !== 0 || mmu.pages.parents[child] !== 0) return 0;
  return prepareZapPage(mmu, child, invalid);
}

/** @kvm mmu_zap_unsync_children */
function zapUnsyncChildren(mmu: Mmu, parent: number, invalid: number[]): number {
  if (mmu.pages.level(parent) === 1 || mmu.pages.unsyncChildren[parent] === 0) return 0;
  const found = new UnsyncPages();
  let zapped = 0;
  while (unsyncWalk(mmu, parent, found)) {
    for (let i = found.first(mmu); i < found.nr; i = found.next(mmu, i)) {
      prepareZapPage(mmu, found.sp[i], invalid);
      found.clearParents(mmu);
      zapped++;
    }
  }
  return zapped;
}

/**
 * Takes a page out of use. How many pages were put on `invalid`, itself included unless a vCPU has it as root: then it
 * only leaves the active list and is freed when the last such vCPU drops it. A flush is due until commit.
 * @kvm __kvm_mmu_prepare_zap_page
 */
export function prepareZapPage(mmu: Mmu, sp: number, invalid: number[]): number {
  tracePrepareZapPage(mmu, sp);
  mmu.stats.mmu_shadow_zapped++;
  const pages = mmu.pages;
  let zapped = zapUnsyncChildren(mmu, sp, invalid);
  const { words } = mmu.arena;
  for (let sptep = sptepAt(sp, 0); sptep < sptepAt(sp + 1, 0); sptep++)
    if ((words[sptep << 1] | words[(sptep << 1) + 1]) !== 0) zapped += zapPte(mmu, sptep, invalid);
  for (let p = mmu.lists.first(pages.parents, sp); p !== 0; p = mmu.lists.first(pages.parents, sp))
    dropParentPte(mmu, sp, p);
  mmu.zapUnstable = zapped !== 0;

  const role = pages.role[sp];
  if (!isInvalidRole(role) && roleHasGptes(role)) unaccountShadowed(mmu, sp);
  if (pages.unsync[sp] !== 0) unlinkUnsyncPage(mmu, sp);
  const wasObsolete = isObsolete(mmu, sp);
  const isRoot = pages.rootCount[sp] !== 0;
  pages.unlist(sp);
  if (!isRoot) {
    zapped++;
    invalid.push(sp);
    mmu.nUsedPages--;
  }
  if (pages.lpageDisallowed[sp] !== 0) unaccountHugeNxPage(mmu, sp);
  pages.role[sp] = role | ROLE_INVALID;
  // After the role is marked, so that a vCPU that serves the request finds its root invalid.
  if (isRoot && !wasObsolete) requestAll(mmu, REQ_MMU_FREE_OBSOLETE_ROOTS);
  return zapped;
}

/** Flushes once and frees; nothing at all for an empty list. @kvm kvm_mmu_commit_zap_page */
export function commitZapPages(mmu: Mmu, invalid: number[]): void {
  if (invalid.length === 0) return;
  flushRemoteTlbs(mmu);
  for (let sp = invalid.pop(); sp !== undefined; sp = invalid.pop()) {
    mmu.pages.remove(sp);
    mmu.arena.free(sp);
  }
}

/** Commits if there is something, else flushes if asked to. @kvm kvm_mmu_remote_flush_or_zap */
export function remoteFlushOrZap(mmu: Mmu, invalid: number[], flush: boolean): void {
  if (invalid.length !== 0) commitZapPages(mmu, invalid);
  else if (flush) flushRemoteTlbs(mmu);
}

/** Zaps the oldest pages that are no roots, at least `count` if there are. @kvm kvm_mmu_zap_oldest_mmu_pages */
function zapOldestPages(mmu: Mmu, count: number): void {
  const invalid: number[] = [];
  let total = 0;
  const { pages } = mmu;
  const wrongEnd = mmu.bugs.newestZappedFirst;
  let sp = wrongEnd ? pages.newest : pages.oldest;
  while (sp !== 0) {
    const next = wrongEnd ? pages.olderOf(sp) : pages.newerOf(sp);
    if (pages.rootCount[sp] !== 0) {
      sp = next;
      continue;
    }
    total += prepareZapPage(mmu, sp, invalid);
    if (total >= count) break;
    sp = !mmu.zapUnstable ? next : wrongEnd ? pages.newest : pages.oldest;
  }
  commitZapPages(mmu, invalid);
  mmu.stats.mmu_recycled += total;
}

export function availablePages(mmu: Mmu): number {
  return Math.max(0, mmu.nMaxPages - mmu.nUsedPages);
}

/** Makes room for one fault's tables; false: -ENOSPC. @kvm make_mmu_pages_available */
export function makePagesAvailable(mmu: Mmu): boolean {
  const available = availablePages(mmu);
  if (available >= MIN_FREE_PAGES) return true;
  zapOldestPages(mmu, REFILL_PAGES - available);
  return availablePages(mmu) > 0;
}

/** Sets the limit; if pages had to go, to what remained in use. @kvm kvm_mmu_change_mmu_pages */
export function changeMmuPages(mmu: Mmu, goal: number): void {
  let limit = goal;
  lock(LOCK_MMU);
  if (mmu.nUsedPages > goal) {
    zapOldestPages(mmu, mmu.nUsedPages - goal);
    limit = mmu.nUsedPages;
  }
  mmu.nMaxPages = limit;
  unlock(LOCK_MMU);
}

/** Zaps every page that mirrors the table at gfn; true if there was one. @kvm kvm_mmu_unprotect_page */
export function unprotectPage(mmu: Mmu, gfn: number): boolean {
  const invalid: number[] = [];
  const pages = mmu.pages;
  let found = false;
  lock(LOCK_MMU);
  for (let sp = pages.bucketFirst(gfn); sp !== 0; sp = pages.bucketNext(sp)) {
    if (pages.gfn[sp] !== gfn || isObsolete(mmu, sp) || !roleHasGptes(pages.role[sp])) continue;
    found = true;
    prepareZapPage(mmu, sp, invalid);
  }
  commitZapPages(mmu, invalid);
  unlock(LOCK_MMU);
  return found;
}

/** @kvm kvm_zap_obsolete_pages */
function zapObsoletePages(mmu: Mmu): void {
  const invalid: number[] = [];
  let batch = 0;
  let sp = mmu.pages.oldest;
  while (sp !== 0 && isObsolete(mmu, sp)) {
    if (batch >= BATCH_ZAP_PAGES) {
      race(RACE_ZAP_BATCH);
      batch = 0;
    }
    const newer = mmu.pages.newerOf(sp);
    const zapped = prepareZapPage(mmu, sp, invalid);
    if (mmu.zapUnstable || !mmu.bugs.stableZapsUncounted) batch += zapped;
    sp = mmu.zapUnstable ? mmu.pages.oldest : newer;
  }
  commitZapPages(mmu, invalid);
}

/**
 * Zaps everything by changing the generation: old pages are obsolete at once and form the tail of the list. Roots in
 * use survive until their vCPUs free them. @kvm kvm_mmu_zap_all_fast
 */
export function zapAllFast(mmu: Mmu): void {
  if (mmu.trace.on) mmu.trace.emit(TP_ZAP_ALL_FAST, mmu.validGen, mmu.nUsedPages);
  lock(LOCK_MMU);
  mmu.validGen = mmu.validGen === 0 ? 1 : 0;
  if (mmu.tdpMmu) invalidateAllRoots(mmu);
  requestAll(mmu, REQ_MMU_FREE_OBSOLETE_ROOTS);
  zapObsoletePages(mmu);
  unlock(LOCK_MMU);
  if (mmu.tdpMmu) zapInvalidatedRoots(mmu);
}

/**
 * Zaps what a slot has: the leaves that map it, and the pages that mirror guest tables in it, whose accounts it keeps.
 * Since 6.12, and only if user space asks for it; else everything goes. @kvm kvm_mmu_zap_memslot_pages_and_flush
 */
export function zapSlot(mmu: Mmu, slot: MemSlot): void {
  const { pages } = mmu;
  const invalid: number[] = [];
  lock(LOCK_MMU);
  const end = slot.baseGfn + slot.npages;
  const zapped = walkSlotRmaps(mmu, slot, 1, MAX_HUGEPAGE_LEVEL, slot.baseGfn, end, zapHead);
  const flush = mmu.tdpMmu ? unmapGfnRange(mmu, slot, slot.baseGfn, end, zapped) : zapped;
  for (let gfn = slot.baseGfn; gfn < end && pages.newest !== 0; gfn++)
    for (let sp = pages.bucketFirst(gfn); sp !== 0; sp = pages.bucketNext(sp))
      if (pages.gfn[sp] === gfn && !isObsolete(mmu, sp) && roleHasGptes(pages.role[sp]))
        prepareZapPage(mmu, sp, invalid);
  remoteFlushOrZap(mmu, invalid, flush);
  unlock(LOCK_MMU);
}

function zapHead(mmu: Mmu, _slot: MemSlot, heads: Int32Array, at: number): boolean {
  return zapRmap(mmu, heads, at);
}

/** Zaps every page, roots in use included: the end of a VM. @kvm kvm_mmu_zap_all */
export function zapAll(mmu: Mmu): void {
  const invalid: number[] = [];
  let sp = mmu.pages.newest;
  while (sp !== 0) {
    const older = mmu.pages.olderOf(sp);
    prepareZapPage(mmu, sp, invalid);
    sp = mmu.zapUnstable ? mmu.pages.newest : older;
  }
  commitZapPages(mmu, invalid);
  if (mmu.tdpMmu) zapAllRoots(mmu);
}
