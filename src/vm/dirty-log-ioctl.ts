/**
 * KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG.
 *
 * Get: collects the bits and re-arms the pages; under manual protection it only copies. Clear: collects the bits asked
 * for, with or without manual protection. Both flush if any bit was set, whatever re-arming found.
 *
 * Source: Linux 6.1 kvm_main.c kvm_get_dirty_log_protect, kvm_clear_dirty_log_protect.
 */
import { checkU32, checkU64 } from '../base/argument.ts';
import { EFAULT, EINVAL, ENOENT, ENXIO, KvmError } from '../base/errno.ts';
import { enableLogDirtyMasked, syncDirtyLog } from '../mmu/dirty-log.ts';
import { LOCK_MMU, LOCK_SLOTS, lock, unlock } from '../mmu/lock.ts';
import { flushRemoteTlbsRange, type Mmu } from '../mmu/mmu.ts';
import { RACE_LOG_WORD, race } from '../mmu/race.ts';
import { ADDRESS_SPACES, type MemSlot } from '../mem/memslots.ts';
import { USER_MEM_SLOTS } from './capabilities.ts';

/** With rings there is no bitmap to get or clear. */
function refuseWithRings(mmu: Mmu): void {
  if (mmu.rings !== null) throw new KvmError(ENXIO, 'the dirty log is in the rings');
}

function logOf(mmu: Mmu, slotArgument: number): MemSlot {
  const slot = mmu.slots[slotArgument >>> 16].byId(slotArgument & 0xffff);
  if (slot === null || slot.dirtyBitmap === null)
    throw new KvmError(ENOENT, `slot ${slotArgument & 0xffff} keeps no dirty log`);
  return slot;
}

function checkSlot(slotArgument: number): void {
  checkU32(slotArgument, 'slot');
  if (slotArgument >>> 16 >= ADDRESS_SPACES || (slotArgument & 0xffff) >= USER_MEM_SLOTS)
    throw new KvmError(EINVAL, `slot ${slotArgument}`);
}

/** The dirty pages of a slot, a bit each in words of 32. @kvm kvm_get_dirty_log_protect */
export function getDirtyLog(mmu: Mmu, slotArgument: number): Int32Array {
  refuseWithRings(mmu);
  checkSlot(slotArgument);
  lock(LOCK_SLOTS);
  const slot = logOf(mmu, slotArgument);
  syncDirtyLog(mmu);
  const bitmap = slot.dirtyBitmap!;
  const copy = bitmap.slice();
  if (!mmu.manualProtect) collect(mmu, slot, bitmap, copy);
  unlock(LOCK_SLOTS);
  return copy;
}

/** Takes each word out of the log into `copy`, and re-arms its pages. */
function collect(mmu: Mmu, slot: MemSlot, bitmap: Int32Array, copy: Int32Array): void {
  let flush = false;
  lock(LOCK_MMU);
  for (let i = 0; i < bitmap.length; i += 2) {
    race(RACE_LOG_WORD, i);
    const lo = bitmap[i];
    const hi = bitmap[i + 1];
    copy[i] = lo;
    copy[i + 1] = hi;
    if (lo === 0 && hi === 0) continue;
    flush = true;
    bitmap[i] = 0;
    bitmap[i + 1] = 0;
    enableLogDirtyMasked(mmu, slot, 32 * i, lo, hi);
  }
  unlock(LOCK_MMU);
  if (flush) flushRemoteTlbsRange(mmu, slot.baseGfn, slot.npages);
}

/**
 * Clears bits of [firstPage, firstPage + numPages): those set in `wanted`, whose first bit is firstPage's. firstPage
 * must be a multiple of 64, numPages too unless it reaches the end. `wanted` is looked at last: EFAULT if it is too
 * short. @kvm kvm_clear_dirty_log_protect
 */
export function clearDirtyLog(
  mmu: Mmu,
  slotArgument: number,
  firstPage: number | bigint,
  numPages: number,
  wanted: Int32Array,
): void {
  refuseWithRings(mmu);
  checkSlot(slotArgument);
  const exact = checkU64(firstPage, 'first page');
  checkU32(numPages, 'number of pages');
  if (exact % 64n !== 0n) throw new KvmError(EINVAL, `first page ${firstPage} is not a multiple of 64`);
  lock(LOCK_SLOTS);
  const slot = logOf(mmu, slotArgument);
  // A number that isn't exact any more is beyond every slot.
  const first = Number(exact);
  const rest = slot.npages - first;
  if (rest < 0 || numPages > rest || (numPages < rest && numPages % 64 !== 0))
    throw new KvmError(EINVAL, `pages ${first} to ${first + numPages} of ${slot.npages}`);
  const words = 2 * Math.ceil(numPages / 64);
  if (wanted.length < words) throw new KvmError(EFAULT, `a bitmap of ${wanted.length} words, not ${words}`);
  syncDirtyLog(mmu);
  const bitmap = slot.dirtyBitmap!;
  let flush = false;
  lock(LOCK_MMU);
  for (let i = 0; i < words; i += 2) {
    const at = first / 32 + i;
    race(RACE_LOG_WORD, at);
    const lo = bitmap[at] & wanted[i];
    const hi = bitmap[at + 1] & wanted[i + 1];
    if (lo === 0 && hi === 0) continue;
    flush = true;
    bitmap[at] &= ~lo;
    bitmap[at + 1] &= ~hi;
    enableLogDirtyMasked(mmu, slot, 32 * at, lo, hi);
  }
  unlock(LOCK_MMU);
  if (flush) flushRemoteTlbsRange(mmu, slot.baseGfn, slot.npages);
  unlock(LOCK_SLOTS);
}
