/**
 * Writing entries, and the reverse map that remembers which leaves map a frame.
 *
 * INVARIANT rmap: each present leaf is in exactly one list, that of (slot, gfn, level); each present non-leaf is in
 * its child's list of parents; nothing else is in any list.
 * INVARIANT rmap-used: a head that isn't empty lies in a chunk that its slot marks as used. Heads fill here only.
 *
 * In the rmap engines nobody but this file stores to an entry. Source: Linux 6.1 mmu.c, mmu_spte_* and rmap_*.
 */
import { pagesPerLevel } from '../base/page.ts';
import { gfnToIndex, type MemSlot, RMAP_CHUNK_SHIFT } from '../mem/memslots.ts';
import { flushRemoteTlbsRange, type Mmu, slotForRole } from './mmu.ts';
import { RACE_SPTE, race } from './race.ts';
import { roleLevel } from './role.ts';
import { indexOf, spOf } from './shadow-pages.ts';
import {
  hasAccessedDirty,
  hasVolatileBits,
  isAccessed,
  isDirty,
  isMmuWritable,
  isShadowPresent,
  isWritable,
  needsWriteProtect,
  pfnOf,
  SPTE_W,
  unaccessedHi,
  unaccessedLo,
} from './spte.ts';

/** An rmap with more entries than this before an add is emptied. @kvm RMAP_RECYCLE_THRESHOLD */
const RECYCLE_THRESHOLD = 1000;

export function spteLo(mmu: Mmu, sptep: number): number {
  return mmu.arena.words[sptep << 1];
}
export function spteHi(mmu: Mmu, sptep: number): number {
  return mmu.arena.words[(sptep << 1) + 1];
}

/** Stores over an entry that isn't present. @kvm mmu_spte_set */
export function mmuSpteSet(mmu: Mmu, sptep: number, lo: number, hi: number): void {
  race(RACE_SPTE, sptep);
  const words = mmu.arena.words;
  if (isShadowPresent(words[sptep << 1])) throw new Error(`INVARIANT set: entry ${sptep} is present`);
  words[sptep << 1] = lo;
  words[(sptep << 1) + 1] = hi;
}

/** Empties an entry without a trace in lists, statistics or A and D bits. @kvm mmu_spte_clear_no_track */
export function mmuSpteClearNoTrack(mmu: Mmu, sptep: number): void {
  race(RACE_SPTE, sptep);
  const words = mmu.arena.words;
  words[sptep << 1] = 0;
  words[(sptep << 1) + 1] = 0;
}

/**
 * Replaces an entry by one of the same frame. True if a TLB may hold more rights than remain: the old entry was
 * MMU-writable (a fast fault may have set W since anyone looked) and the new one is read-only, or A or D was lost.
 * @kvm mmu_spte_update
 */
export function mmuSpteUpdate(mmu: Mmu, sptep: number, lo: number, hi: number): boolean {
  race(RACE_SPTE, sptep);
  const words = mmu.arena.words;
  const oldLo = words[sptep << 1];
  const oldHi = words[(sptep << 1) + 1];
  words[sptep << 1] = lo;
  words[(sptep << 1) + 1] = hi;
  if (!isShadowPresent(oldLo)) return false;

  const f = mmu.format;
  let flush = isMmuWritable(f, oldLo, oldHi) && !isWritable(lo) && (isWritable(oldLo) || !mmu.bugs.flushIfWritable);
  if (isAccessed(f, oldLo, oldHi) && !isAccessed(f, lo, hi)) {
    flush = true;
    mmu.host.markAccessed(pfnOf(oldLo, oldHi));
  }
  if (isDirty(f, oldLo, oldHi) && !isDirty(f, lo, hi)) {
    flush = true;
    mmu.host.markDirty(pfnOf(oldLo, oldHi));
  }
  return flush;
}

/** @kvm kvm_update_page_stats */
export function updatePageStats(mmu: Mmu, level: number, count: number): void {
  if (level === 1) mmu.stats.pages_4k += count;
  else if (level === 2) mmu.stats.pages_2m += count;
  else mmu.stats.pages_1g += count;
}

/** Empties an entry and hands its A and D bits to the host. The old low word. @kvm mmu_spte_clear_track_bits */
function mmuSpteClearTrackBits(mmu: Mmu, sptep: number): number {
  race(RACE_SPTE, sptep);
  const words = mmu.arena.words;
  const lo = words[sptep << 1];
  const hi = words[(sptep << 1) + 1];
  words[sptep << 1] = 0;
  words[(sptep << 1) + 1] = 0;
  if (!isShadowPresent(lo)) return lo;
  updatePageStats(mmu, roleLevel(mmu.pages.role[spOf(sptep)]), -1);
  if (isAccessed(mmu.format, lo, hi)) mmu.host.markAccessed(pfnOf(lo, hi));
  if (isDirty(mmu.format, lo, hi)) mmu.host.markDirty(pfnOf(lo, hi));
  return lo;
}

/** Lists of `slot` at `level`. @kvm gfn_to_rmap */
function headsOf(slot: MemSlot, level: number): Int32Array {
  return slot.rmap[level - 1];
}

/**
 * Enters a new leaf into the reverse map and counts it. A list that grew too long is emptied, the new entry included;
 * the guest then faults again. @kvm __rmap_add
 */
export function rmapAdd(mmu: Mmu, slot: MemSlot, sptep: number, gfn: number, access: number): void {
  const sp = spOf(sptep);
  const level = mmu.pages.level(sp);
  mmu.pages.setTranslation(sp, indexOf(sptep), gfn, access);
  updatePageStats(mmu, level, 1);
  const heads = headsOf(slot, level);
  const at = gfnToIndex(gfn, slot.baseGfn, level);
  slot.rmapUsed[level - 1][at >>> RMAP_CHUNK_SHIFT] = 1;
  const before = mmu.lists.add(heads, at, sptep);
  if (before > mmu.stats.max_mmu_rmap_size) mmu.stats.max_mmu_rmap_size = before;
  if (before > RECYCLE_THRESHOLD) {
    zapRmap(mmu, heads, at);
    flushRemoteTlbsRange(mmu, mmu.pages.gfn[sp], pagesPerLevel(level));
  }
}

/** @kvm rmap_remove */
function rmapRemove(mmu: Mmu, sptep: number): void {
  const sp = spOf(sptep);
  const role = mmu.pages.role[sp];
  const gfn = mmu.pages.entryGfn(sp, indexOf(sptep));
  const slot = slotForRole(mmu, role, gfn);
  const level = roleLevel(role);
  mmu.lists.remove(headsOf(slot, level), gfnToIndex(gfn, slot.baseGfn, level), sptep);
}

/** Removes a leaf. The caller flushes. @kvm drop_spte */
export function dropSpte(mmu: Mmu, sptep: number): void {
  const old = mmuSpteClearTrackBits(mmu, sptep);
  if (isShadowPresent(old)) rmapRemove(mmu, sptep);
}

/** Removes one leaf of a list that is being walked: walk it anew afterwards. @kvm kvm_zap_one_rmap_spte */
export function zapOneRmapSpte(mmu: Mmu, heads: Int32Array, at: number, sptep: number): void {
  mmuSpteClearTrackBits(mmu, sptep);
  mmu.lists.remove(heads, at, sptep);
}

/** Removes every leaf of a list. True if there was one. @kvm kvm_zap_all_rmap_sptes */
export function zapRmap(mmu: Mmu, heads: Int32Array, at: number): boolean {
  if (heads[at] === 0) return false;
  const lists = mmu.lists;
  mmuSpteClearTrackBits(mmu, lists.first(heads, at));
  for (let c = lists.next(lists.firstCursor(heads, at)); c !== 0; c = lists.next(c))
    mmuSpteClearTrackBits(mmu, lists.at(c));
  lists.clear(heads, at);
  return true;
}

/**
 * Takes write permission from an entry of any size. A large entry stays, read-only: reads go on through it, and the
 * fault path drops it when a write needs a smaller mapping. `ptProtect`: because the frame holds a page table, so that
 * the fast fault must not give the permission back.
 *
 * Returns one thing: whether a TLB flush is needed. @kvm spte_write_protect
 */
export function spteWriteProtect(mmu: Mmu, sptep: number, ptProtect: boolean): boolean {
  race(RACE_SPTE, sptep);
  const { words } = mmu.arena;
  const f = mmu.format;
  const at = sptep << 1;
  const lo = words[at];
  const hi = words[at + 1];
  if (!isWritable(lo) && !(ptProtect && isMmuWritable(f, lo, hi))) return false;
  // What mmuSpteUpdate would do, as neither A nor D is lost: 1.6 ms for a dirty GiB and 2.3 (npm run bench -- get+clear).
  words[at] = ptProtect ? lo & ~(SPTE_W | f.mmuWritableLo) : lo & ~SPTE_W;
  if (ptProtect && f.mmuWritableHi !== 0) words[at + 1] = hi & ~f.mmuWritableHi;
  if (!hasAccessedDirty(hi) && isWritable(lo)) mmu.host.markDirty(pfnOf(lo, hi));
  return isMmuWritable(f, lo, hi) && (isWritable(lo) || !mmu.bugs.flushIfWritable);
}

/** Write-protects every leaf of a list; true if a flush is needed. @kvm rmap_write_protect */
export function rmapWriteProtect(mmu: Mmu, heads: Int32Array, at: number, level: number, ptProtect: boolean): boolean {
  const head = heads[at];
  if (head === 0) return false;
  if (level > 1 && mmu.policy.onProtect === 'zap') return zapRmap(mmu, heads, at);
  // One entry, as nearly always: no list.
  if (head > 0) return spteWriteProtect(mmu, head, ptProtect);
  const lists = mmu.lists;
  let flush = spteWriteProtect(mmu, lists.first(heads, at), ptProtect);
  for (let c = lists.next(lists.firstCursor(heads, at)); c !== 0; c = lists.next(c))
    if (spteWriteProtect(mmu, lists.at(c), ptProtect)) flush = true;
  return flush;
}

/**
 * Makes every leaf of a list ready for the CPU to log the next write: clean, or read-only where D doesn't do. True if one
 * was not. @kvm __rmap_clear_dirty
 */
export function rmapClearDirty(mmu: Mmu, heads: Int32Array, at: number): boolean {
  if (heads[at] === 0) return false;
  const lists = mmu.lists;
  let flush = clearDirty(mmu, lists.first(heads, at));
  for (let c = lists.next(lists.firstCursor(heads, at)); c !== 0; c = lists.next(c))
    if (clearDirty(mmu, lists.at(c))) flush = true;
  return flush;
}

/** @kvm spte_clear_dirty, spte_wrprot_for_clear_dirty */
function clearDirty(mmu: Mmu, sptep: number): boolean {
  const lo = spteLo(mmu, sptep);
  const hi = spteHi(mmu, sptep);
  if (!needsWriteProtect(hi)) return mmuSpteUpdate(mmu, sptep, lo & ~mmu.format.dirtyLo, hi);
  if (!isWritable(lo)) return false;
  mmu.arena.words[sptep << 1] = lo & ~SPTE_W;
  if (!hasAccessedDirty(hi)) mmu.host.markDirty(pfnOf(lo, hi));
  return true;
}

/** The rmap engines' part of `slotGfnWriteProtect`. */
export function rmapsGfnWriteProtect(mmu: Mmu, slot: MemSlot, gfn: number, minLevel: number): boolean {
  let flush = false;
  if (slot.rmap.length === 0) return false;
  for (let level = minLevel; level <= 3; level++) {
    const heads = headsOf(slot, level);
    if (rmapWriteProtect(mmu, heads, gfnToIndex(gfn, slot.baseGfn, level), level, true)) flush = true;
  }
  return flush;
}

/** Clears the A bit, or tracks access; true if it was used. @kvm mmu_spte_age */
export function spteAge(mmu: Mmu, sptep: number): boolean {
  race(RACE_SPTE, sptep);
  const { words } = mmu.arena;
  const f = mmu.format;
  const at = sptep << 1;
  const lo = words[at];
  const hi = words[at + 1];
  if (!isAccessed(f, lo, hi)) return false;
  // That it is dirty would be lost with W.
  if (!hasAccessedDirty(hi) && isWritable(lo)) mmu.host.markDirty(pfnOf(lo, hi));
  words[at] = unaccessedLo(f, lo, hi);
  words[at + 1] = unaccessedHi(f, lo, hi);
  return true;
}

/** For tests and `verify`: the entry may be changed behind our back, so it must be replaced atomically. */
export function isVolatile(mmu: Mmu, sptep: number): boolean {
  return hasVolatileBits(mmu.format, spteLo(mmu, sptep), spteHi(mmu, sptep));
}
