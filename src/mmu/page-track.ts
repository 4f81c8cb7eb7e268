/**
 * Write tracking: a count for each gfn that forbids any writable mapping of it, whoever maps it. Upper-level guest
 * tables that are shadowed are tracked, so that each write to them is emulated and seen.
 *
 * Source: Linux 6.1 page_track.c, mmu.c account_shadowed.
 */
import { gfnToIndex, type MemSlot } from '../mem/memslots.ts';
import { flushRemoteTlbs, flushRemoteTlbsRange, type Mmu, slotForRole } from './mmu.ts';
import { slotGfnWriteProtect } from './write-protect.ts';

/** @kvm update_gfn_disallow_lpage_count */
function addDisallowLpage(slot: MemSlot, gfn: number, count: number): void {
  for (let level = 2; level <= 3; level++) {
    const table = slot.lpageInfo[level - 2];
    const at = gfnToIndex(gfn, slot.baseGfn, level);
    table[at] += count;
    if (table[at] < 0) throw new Error('INVARIANT lpage: disallow_lpage is negative');
  }
}

/** Tracked in this address space or the other: tracking is of the memory. @kvm kvm_slot_page_track_is_active */
export function isTracked(mmu: Mmu, slot: MemSlot | null, gfn: number): boolean {
  if (slot === null || mmu.indirectShadowPages === 0) return false;
  if (isTrackedInSlot(slot, gfn)) return true;
  const other = mmu.slots[slot.asId ^ 1].find(gfn);
  return other !== null && isTrackedInSlot(other, gfn) && !mmu.bugs.trackedInOneSpace;
}

function isTrackedInSlot(slot: MemSlot, gfn: number): boolean {
  return slot.gfnTrack !== null && slot.gfnTrack[gfn - slot.baseGfn] !== 0;
}

/**
 * A page begins to mirror the guest table at its gfn: no large mapping of it any more, and no writable one. The caller
 * has entered the page into the hash. @kvm account_shadowed, kvm_slot_page_track_add_page
 */
export function accountShadowed(mmu: Mmu, sp: number): void {
  const gfn = mmu.pages.gfn[sp];
  const slot = slotForRole(mmu, mmu.pages.role[sp], gfn);
  mmu.indirectShadowPages++;
  if (mmu.pages.level(sp) > 1) {
    slot.gfnTrack![gfn - slot.baseGfn]++;
    addDisallowLpage(slot, gfn, 1);
    if (slotGfnWriteProtect(mmu, slot, gfn, 1)) flushRemoteTlbs(mmu);
    return;
  }
  addDisallowLpage(slot, gfn, 1);
  if (slotGfnWriteProtect(mmu, slot, gfn, 1)) flushRemoteTlbsRange(mmu, gfn, 1);
}

/** @kvm unaccount_shadowed, kvm_slot_page_track_remove_page */
export function unaccountShadowed(mmu: Mmu, sp: number): void {
  const gfn = mmu.pages.gfn[sp];
  const slot = slotForRole(mmu, mmu.pages.role[sp], gfn);
  mmu.indirectShadowPages--;
  if (mmu.pages.level(sp) > 1) slot.gfnTrack![gfn - slot.baseGfn]--;
  addDisallowLpage(slot, gfn, -1);
}
