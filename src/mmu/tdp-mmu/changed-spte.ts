/**
 * What follows from a change of an entry: the tracepoint, statistics, A and D handed to the host, the dirty log, and, if
 * a table went, everything below it. Each change of an entry of the TDP MMU comes through here, but for the store of 0
 * that ends a freeze (tdp-set-spte.ts) and the fast page fault's.
 *
 * INVARIANT frame: a present leaf is never replaced by a present leaf of another frame; it is emptied first.
 *
 * Source: Linux 6.1 tdp_mmu.c handle_changed_spte and around.
 */
import { pagesPerLevel } from '../../base/page.ts';
import { TP_TDP_SPTE_CHANGED } from '../../trace/tracepoints.ts';
import { markPageDirty } from '../guest-memory.ts';
import type { Mmu } from '../mmu.ts';
import { unaccountHugeNxPage } from '../nx-huge-page.ts';
import { RACE_SPTE, RACE_TDP_SPIN, race, yields } from '../race.ts';
import { updatePageStats } from '../rmap.ts';
import { roleAddressSpace } from '../role.ts';
import { childOf, sptepAt } from '../shadow-pages.ts';
import {
  isAccessed,
  isDirty,
  isLast,
  isRemoved,
  isShadowPresent,
  isWritable,
  pfnOf,
  REMOVED_SPTE_LO,
} from '../spte.ts';
import { tracePrepareZapPage } from '../tracing.ts';
import { freePageLater } from './rcu.ts';

/**
 * Bookkeeping without A and without the dirty log. `shared`: mmu_lock is held for reading, so others may change the
 * entries of a removed table at the same time. @kvm __handle_changed_spte
 */
export function handleChange(
  mmu: Mmu,
  asId: number,
  gfn: number,
  oldLo: number,
  oldHi: number,
  newLo: number,
  newHi: number,
  level: number,
  shared: boolean,
): void {
  if (oldLo === newLo && oldHi === newHi) return;
  const wasPresent = isShadowPresent(oldLo);
  const isPresent = isShadowPresent(newLo);
  const wasLeaf = wasPresent && isLast(oldLo, level);
  const isLeaf = isPresent && isLast(newLo, level);
  if (wasLeaf && isLeaf && pfnOf(oldLo, oldHi) !== pfnOf(newLo, newHi))
    throw new Error(`INVARIANT frame: the leaf of gfn ${gfn.toString(16)} at level ${level} changes its frame`);
  if (mmu.trace.on) traceChange(mmu, asId, gfn, oldLo, oldHi, newLo, newHi, level);
  // One MMIO entry for another, or a freeze of an empty one.
  if (!wasPresent && !isPresent) return;

  if (isLeaf !== wasLeaf) updatePageStats(mmu, level, isLeaf ? 1 : -1);
  const f = mmu.format;
  const staysDirty = isPresent && isDirty(f, newLo, newHi) && pfnOf(oldLo, oldHi) === pfnOf(newLo, newHi);
  if (wasLeaf && isDirty(f, oldLo, oldHi) && !staysDirty) mmu.host.markDirty(pfnOf(oldLo, oldHi));
  if (wasPresent && !wasLeaf && (isLeaf || !isPresent)) handleRemovedTable(mmu, childOf(oldLo, oldHi), shared);
}

/**
 * A leaf lost W or D, nothing else: what the functions around this one come to then. Logs are started and collected
 * through here. @kvm __handle_changed_spte
 */
export function handleRearmed(
  mmu: Mmu,
  asId: number,
  gfn: number,
  oldLo: number,
  newLo: number,
  hi: number,
  level: number,
): void {
  if (mmu.trace.on) traceChange(mmu, asId, gfn, oldLo, hi, newLo, hi, level);
  if (isDirty(mmu.format, oldLo & ~newLo, hi)) mmu.host.markDirty(pfnOf(oldLo, hi));
}

function traceChange(
  mmu: Mmu,
  asId: number,
  gfn: number,
  oldLo: number,
  oldHi: number,
  newLo: number,
  newHi: number,
  level: number,
): void {
  const gfnHi = Math.floor(gfn / 2 ** 32);
  mmu.trace.emit(TP_TDP_SPTE_CHANGED, gfn, gfnHi, oldLo, oldHi, newLo, newHi, level, asId);
}

/** Tells the host that a leaf's frame was used, if the entry knew and no longer does. @kvm handle_changed_spte_acc_track */
export function handleAccessed(
  mmu: Mmu,
  oldLo: number,
  oldHi: number,
  newLo: number,
  newHi: number,
  level: number,
): void {
  if (!isShadowPresent(oldLo) || !isLast(oldLo, level) || !isAccessed(mmu.format, oldLo, oldHi)) return;
  const pfn = pfnOf(oldLo, oldHi);
  if (isShadowPresent(newLo) && isAccessed(mmu.format, newLo, newHi) && pfnOf(newLo, newHi) === pfn) return;
  mmu.host.markAccessed(pfn);
}

/** A small leaf that became writable makes its page dirty. @kvm handle_changed_spte_dirty_log */
export function handleDirtyLog(
  mmu: Mmu,
  asId: number,
  gfn: number,
  oldLo: number,
  oldHi: number,
  newLo: number,
  newHi: number,
  level: number,
): void {
  if (level > 1 || !isWritable(newLo)) return;
  if (isWritable(oldLo) && pfnOf(oldLo, oldHi) === pfnOf(newLo, newHi)) return;
  markPageDirty(mmu.slots[asId].find(gfn), gfn);
}

/**
 * A table was unlinked: it and all that hangs below it go. Its entries are frozen one by one, so that nobody who still
 * stands in it installs anything. Holding the lock for reading, every entry is (another may be about to fill an empty
 * one); holding it for writing, only those that are present. @kvm handle_removed_pt
 */
function handleRemovedTable(mmu: Mmu, sp: number, shared: boolean): void {
  const { pages } = mmu;
  tracePrepareZapPage(mmu, sp);
  mmu.nTdpPages--;
  if (pages.lpageDisallowed[sp] !== 0) unaccountHugeNxPage(mmu, sp);
  const level = pages.level(sp);
  const asId = roleAddressSpace(pages.role[sp]);
  race(RACE_SPTE);
  for (let i = 0; i < 512; i++) {
    const { words } = mmu.arena;
    const at = sptepAt(sp, i) << 1;
    if (isShadowPresent(words[at])) race(RACE_SPTE, at >>> 1);
    // Frozen by somebody who is about to store into it.
    while (isRemoved(words[at], words[at + 1]) && yields(RACE_TDP_SPIN));
    const oldLo = words[at];
    const oldHi = words[at + 1];
    if (!shared && !isShadowPresent(oldLo)) continue;
    if (isRemoved(oldLo, oldHi)) throw new Error(`INVARIANT frozen: entry ${at >>> 1} of a removed table is frozen`);
    words[at] = REMOVED_SPTE_LO;
    words[at + 1] = mmu.kernel.frozenHi;
    // Of the freeze of an empty entry nothing follows but its tracepoint.
    if (!isShadowPresent(oldLo) && !mmu.trace.on) continue;
    const gfn = pages.gfn[sp] + i * pagesPerLevel(level);
    handleChange(mmu, asId, gfn, oldLo, oldHi, REMOVED_SPTE_LO, mmu.kernel.frozenHi, level, shared);
    handleAccessed(mmu, oldLo, oldHi, REMOVED_SPTE_LO, mmu.kernel.frozenHi, level);
  }
  freePageLater(mmu, sp);
}
