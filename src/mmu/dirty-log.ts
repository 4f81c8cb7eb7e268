/**
 * Dirty logging, the MMU's part: taking write permission away when it starts and when bits are collected, giving large
 * mappings a chance to come back when it stops.
 *
 *     start, legacy         all levels read-only                          one flush, always
 *     start, initially set  nothing: the log is all ones                  no flush
 *     start, logged by CPU  4 KiB entries clean, larger ones read-only    one flush, always
 *     collect a page        its 4 KiB entries read-only                   the caller flushes if any bit was set
 *     collect, initially set  its large entries too, as if for a page table
 *     collect, logged by CPU  its 4 KiB entries clean
 *     stop                  small entries go where a large one may be     one flush if any went
 *
 * INVARIANT logged: once starting has returned, no large entry of a logged slot is writable (legacy modes).
 *
 * Source: Linux 6.1 mmu.c, x86.c kvm_mmu_slot_apply_flags.
 */
import { MAX_HUGEPAGE_LEVEL } from '../base/page.ts';
import type { MemSlot } from '../mem/memslots.ts';
import { maxMappingLevel } from './level.ts';
import { LOCK_MMU, LOCK_SHARED, lock, unlock } from './lock.ts';
import { flushRemoteTlbsRange, kickAll, type Mmu, requestAll } from './mmu.ts';
import { REQ_UPDATE_CPU_DIRTY_LOGGING } from './requests.ts';
import { rmapClearDirty, rmapWriteProtect, zapOneRmapSpte } from './rmap.ts';
import { isDirectRole } from './role.ts';
import { spOf } from './shadow-pages.ts';
import { walkWholeSlot } from './slot-walk.ts';
import { splitLarge, trySplitNestedPages } from './split-large.ts';
import { clearDirtyPtMasked, clearDirtySlot, wrprotSlot } from './tdp-mmu/tdp-dirty.ts';
import { trySplitHugePages } from './tdp-mmu/tdp-split.ts';
import { tdpZapCollapsibleSptes } from './tdp-mmu/tdp-zap.ts';
import { slotGfnWriteProtect } from './write-protect.ts';

/** @kvm slot_rmap_write_protect */
function protectHead(mmu: Mmu, _slot: MemSlot, heads: Int32Array, at: number, level: number): boolean {
  return rmapWriteProtect(mmu, heads, at, level, false);
}

/**
 * Write-protects a slot from `startLevel` up. True if an entry changed; the caller flushes all the same, as one may have
 * been protected by somebody who has not flushed yet. Only where large entries are dropped have TLBs been flushed: a host that
 * takes the frame away finds nothing to flush once the lock is free. @kvm kvm_mmu_slot_remove_write_access
 */
export function slotRemoveWriteAccess(mmu: Mmu, slot: MemSlot, startLevel: number): boolean {
  let changed = false;
  if (slot.rmap.length !== 0) {
    lock(LOCK_MMU);
    changed = walkWholeSlot(mmu, slot, startLevel, MAX_HUGEPAGE_LEVEL, protectHead);
    if (mmu.policy.onProtect === 'zap') flushRemoteTlbsRange(mmu, slot.baseGfn, slot.npages);
    unlock(LOCK_MMU);
  }
  if (mmu.tdpMmu) {
    lock(LOCK_SHARED);
    if (wrprotSlot(mmu, slot, startLevel)) changed = true;
    unlock(LOCK_SHARED);
  }
  return changed;
}

/**
 * Eager page splitting when logging starts: no fault will have to. In Linux only the TDP MMU does it.
 * @kvm kvm_mmu_slot_try_split_huge_pages
 */
export function slotTrySplitHugePages(mmu: Mmu, slot: MemSlot): void {
  if (!mmu.tdpMmu) {
    if (mmu.policy.onProtect !== 'eager') return;
    lock(LOCK_MMU);
    slotSplitLarge(mmu, slot);
    unlock(LOCK_MMU);
    return;
  }
  if (!mmu.eagerPageSplit) return;
  if (slot.rmap.length !== 0) {
    lock(LOCK_MMU);
    trySplitNestedPages(mmu, slot, slot.baseGfn, slot.baseGfn + slot.npages);
    unlock(LOCK_MMU);
  }
  lock(LOCK_SHARED);
  trySplitHugePages(mmu, slot, slot.baseGfn, slot.baseGfn + slot.npages, 1, true);
  unlock(LOCK_SHARED);
}

/**
 * Re-arms the log for pages whose bits were just collected: bits of one 64-page word of the bitmap, `first` relative
 * to the slot. @kvm kvm_arch_mmu_enable_log_dirty_pt_masked
 */
export function enableLogDirtyMasked(mmu: Mmu, slot: MemSlot, first: number, maskLo: number, maskHi: number): void {
  if (mmu.manualProtect && mmu.initiallySet) protectLargeAt(mmu, slot, first, maskLo, maskHi);
  const logsByCpu = mmu.cpuDirtyLogSize !== 0;
  if (mmu.tdpMmu) clearDirtyPtMasked(mmu, slot, slot.baseGfn + first, maskLo, maskHi, !logsByCpu);
  if (slot.rmap.length === 0) return;
  const rearm = logsByCpu ? cleanPages : protectPages;
  rearm(mmu, slot, first, maskLo);
  rearm(mmu, slot, first + 32, maskHi);
}

/** @kvm kvm_mmu_write_protect_pt_masked */
function protectPages(mmu: Mmu, slot: MemSlot, first: number, mask: number): void {
  const heads = slot.rmap[0];
  for (let left = mask; left !== 0; left &= left - 1)
    rmapWriteProtect(mmu, heads, first + 31 - Math.clz32(left & -left), 1, false);
}

/** The CPU will log the next write to each of the pages. @kvm kvm_mmu_clear_dirty_pt_masked */
function cleanPages(mmu: Mmu, slot: MemSlot, first: number, mask: number): void {
  const heads = slot.rmap[0];
  for (let left = mask; left !== 0; left &= left - 1) rmapClearDirty(mmu, heads, first + 31 - Math.clz32(left & -left));
}

function cleanHead(mmu: Mmu, _slot: MemSlot, heads: Int32Array, at: number): boolean {
  return rmapClearDirty(mmu, heads, at);
}

/**
 * The CPU will log the next write to each page of a slot: of the rmap engine's entries those of 4 KiB, of the TDP MMU's all.
 * The caller flushes. @kvm kvm_mmu_slot_leaf_clear_dirty
 */
export function slotLeafClearDirty(mmu: Mmu, slot: MemSlot): void {
  if (slot.rmap.length !== 0) {
    lock(LOCK_MMU);
    walkWholeSlot(mmu, slot, 1, 1, cleanHead);
    unlock(LOCK_MMU);
  }
  if (!mmu.tdpMmu) return;
  lock(LOCK_SHARED);
  clearDirtySlot(mmu, slot);
  unlock(LOCK_SHARED);
}

/** Before the log is read, what CPUs have logged comes into it. @kvm kvm_arch_sync_dirty_log */
export function syncDirtyLog(mmu: Mmu): void {
  if (mmu.cpuDirtyLogSize !== 0) kickAll(mmu);
}

/**
 * Logging starts or stops for one slot; with the first and after the last the CPUs are told.
 * @kvm kvm_mmu_update_cpu_dirty_logging
 */
export function updateCpuDirtyLogging(mmu: Mmu, enable: boolean): void {
  if (mmu.cpuDirtyLogSize === 0) return;
  mmu.cpuDirtyLoggingCount += enable ? 1 : -1;
  if (mmu.cpuDirtyLoggingCount === (enable ? 1 : 0)) requestAll(mmu, REQ_UPDATE_CPU_DIRTY_LOGGING);
}

/**
 * Initially-set mode left large entries writable; now they must go read-only. They lose "MMU-writable" with it, so the
 * fast fault can't bring them back: the slow path puts small ones in their place. A word of 64 pages touches two large
 * pages at most; a first page just on a boundary counts as two, harmlessly.
 *
 * Eager splitting has an oddity of 6.1's: the range's end is its last page where it should be the one behind, so a last
 * page that is the first of a large one leaves that unsplit.
 */
function protectLargeAt(mmu: Mmu, slot: MemSlot, first: number, maskLo: number, maskHi: number): void {
  const lowest = maskLo !== 0 ? 31 - Math.clz32(maskLo & -maskLo) : 63 - Math.clz32(maskHi & -maskHi);
  const highest = maskHi !== 0 ? 63 - Math.clz32(maskHi) : 31 - Math.clz32(maskLo);
  const start = slot.baseGfn + first + lowest;
  const end = slot.baseGfn + first + highest;
  if (mmu.tdpMmu && mmu.eagerPageSplit) {
    const behind = end + (mmu.kernel.clearSplitsLastPage ? 1 : 0);
    trySplitNestedPages(mmu, slot, start, behind);
    trySplitHugePages(mmu, slot, start, behind, 1, false);
  }
  let flush = slotGfnWriteProtect(mmu, slot, start, 2);
  if (Math.ceil(start / 512) !== Math.ceil(end / 512) && slotGfnWriteProtect(mmu, slot, end, 2)) flush = true;
  // As in `slotRemoveWriteAccess`; else the caller's flush does.
  if (flush && mmu.policy.onProtect === 'zap') flushRemoteTlbsRange(mmu, slot.baseGfn, slot.npages);
}

/** Entries of direct pages smaller than the host would allow now are dropped. @kvm kvm_mmu_zap_collapsible_spte */
function zapCollapsible(mmu: Mmu, slot: MemSlot, heads: Int32Array, at: number): boolean {
  const lists = mmu.lists;
  let flush = false;
  for (let again = true; again; ) {
    again = false;
    let cursor = lists.firstCursor(heads, at);
    for (let sptep = lists.first(heads, at); sptep !== 0; ) {
      const sp = spOf(sptep);
      const gfn = mmu.pages.gfn[sp];
      if (
        isDirectRole(mmu.pages.role[sp]) &&
        (slot.contains(gfn) || mmu.bugs.hugePageBeyondSlot) &&
        mmu.pages.level(sp) < maxMappingLevel(mmu, slot, gfn, MAX_HUGEPAGE_LEVEL)
      ) {
        zapOneRmapSpte(mmu, heads, at, sptep);
        flush = true;
        again = true;
        break;
      }
      cursor = lists.next(cursor);
      sptep = cursor === 0 ? 0 : lists.at(cursor);
    }
  }
  return flush;
}

/**
 * Logging stopped: makes way for large mappings, which faults will install. The emptied tables stay linked.
 * The TDP MMU's tables go with their entries.
 * @kvm kvm_mmu_zap_collapsible_sptes
 */
export function zapCollapsibleSptes(mmu: Mmu, slot: MemSlot): void {
  if (slot.rmap.length !== 0) {
    lock(LOCK_MMU);
    if (walkWholeSlot(mmu, slot, 1, MAX_HUGEPAGE_LEVEL - 1, zapCollapsible))
      flushRemoteTlbsRange(mmu, slot.baseGfn, slot.npages);
    unlock(LOCK_MMU);
  }
  if (!mmu.tdpMmu) return;
  lock(LOCK_SHARED);
  tdpZapCollapsibleSptes(mmu, slot);
  unlock(LOCK_SHARED);
}

// ---- the eager policy ----------------------------------------------------------------------------------------------

/**
 * Splits every large entry of a slot into entries of the next smaller size, down to 4 KiB. Rights are unchanged, so
 * the only flushes are those of linking the new tables.
 *
 * @diverges Linux 6.1 splits direct mappings eagerly in the TDP MMU only; this is for the rmap engines.
 */
function slotSplitLarge(mmu: Mmu, slot: MemSlot): void {
  for (let level = MAX_HUGEPAGE_LEVEL; level > 1; level--) walkWholeSlot(mmu, slot, level, level, splitHead);
}

function splitHead(mmu: Mmu, slot: MemSlot, heads: Int32Array, at: number): boolean {
  for (let sptep = mmu.lists.first(heads, at); sptep !== 0; sptep = mmu.lists.first(heads, at))
    splitLarge(mmu, slot, sptep);
  return false;
}
