/**
 * What the host's notifier asks of the TDP MMU, for frames [start, end) of a slot. The lock is held for writing; none but
 * `unmapGfnRange` may yield. Source: Linux 6.1 tdp_mmu.c.
 */
import type { MemSlot } from '../../mem/memslots.ts';
import type { Mmu } from '../mmu.ts';
import {
  hasAccessedDirty,
  isAccessed,
  isLast,
  isShadowPresent,
  isWritable,
  pfnOf,
  unaccessedHi,
  unaccessedLo,
} from '../spte.ts';
import { rcuReadLock, rcuReadUnlock } from './rcu.ts';
import { TdpIter } from './tdp-iter.ts';
import { nextRoot, rootAddressSpace } from './tdp-roots.ts';
import { setSpte, setSpteNoAccTrack } from './tdp-set-spte.ts';
import { zapLeafsOfRoot } from './tdp-zap.ts';

/** For a leaf; true if it says yes to what was asked. */
type LeafHandler = (mmu: Mmu, it: TdpIter) => boolean;

/** Empties leaves, of invalid roots too. True if a flush is due. @kvm kvm_tdp_mmu_unmap_gfn_range */
export function unmapGfnRange(mmu: Mmu, slot: MemSlot, start: number, end: number, flush: boolean): boolean {
  let due = flush;
  for (let root = nextRoot(mmu, 0, false); root !== 0; root = nextRoot(mmu, root, false))
    if (rootAddressSpace(mmu, root) === slot.asId) due = zapLeafsOfRoot(mmu, root, start, end, due);
  return due;
}

/** @kvm kvm_tdp_mmu_handle_gfn */
function handleLeaves(mmu: Mmu, slot: MemSlot, start: number, end: number, handler: LeafHandler): boolean {
  const it = new TdpIter();
  let result = false;
  for (const root of mmu.tdpRoots) {
    if (rootAddressSpace(mmu, root) !== slot.asId) continue;
    rcuReadLock(mmu);
    for (it.start(mmu, root, 1, start); it.valid && it.gfn < end; it.next(mmu))
      if (isShadowPresent(it.oldLo) && isLast(it.oldLo, it.level) && handler(mmu, it)) result = true;
    rcuReadUnlock(mmu);
  }
  return result;
}

/** @kvm age_gfn_range */
function ageLeaf(mmu: Mmu, it: TdpIter): boolean {
  const { format } = mmu;
  const { oldLo, oldHi } = it;
  if (!isAccessed(format, oldLo, oldHi)) return false;
  // That it is dirty would be lost with W.
  if (!hasAccessedDirty(oldHi) && isWritable(oldLo)) mmu.host.markDirty(pfnOf(oldLo, oldHi));
  setSpteNoAccTrack(mmu, it, unaccessedLo(format, oldLo, oldHi), unaccessedHi(format, oldLo, oldHi));
  return true;
}

/** Clears A, or tracks access; true if it was set anywhere. @kvm kvm_tdp_mmu_age_gfn_range */
export function ageGfnRange(mmu: Mmu, slot: MemSlot, start: number, end: number): boolean {
  return handleLeaves(mmu, slot, start, end, ageLeaf);
}

/** @kvm test_age_gfn */
function isLeafAccessed(mmu: Mmu, it: TdpIter): boolean {
  return isAccessed(mmu.format, it.oldLo, it.oldHi);
}

/** @kvm kvm_tdp_mmu_test_age_gfn */
export function testAgeGfn(mmu: Mmu, slot: MemSlot, start: number, end: number): boolean {
  return handleLeaves(mmu, slot, start, end, isLeafAccessed);
}

/** The host has a new writable frame there; a fault will install it. @kvm set_spte_gfn */
function emptySmallLeaf(mmu: Mmu, it: TdpIter): boolean {
  if (it.level !== 1) return false;
  setSpte(mmu, it, 0, 0);
  return true;
}

/** True if a flush is due. @kvm kvm_tdp_mmu_set_spte_gfn */
export function setSpteGfn(mmu: Mmu, slot: MemSlot, start: number, end: number): boolean {
  return handleLeaves(mmu, slot, start, end, emptySmallLeaf);
}
