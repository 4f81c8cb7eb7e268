/**
 * Dirty logging under the TDP MMU: write permission or D taken from entries, by slot, by pages of the log, by frame.
 * Source: Linux 6.1 tdp_mmu.c.
 */
import type { MemSlot } from '../../mem/memslots.ts';
import type { Mmu } from '../mmu.ts';
import { sptepAt } from '../shadow-pages.ts';
import { isLast, isShadowPresent, needsWriteProtect, SPTE_W } from '../spte.ts';
import { RACE_TDP_YIELD, yields } from '../race.ts';
import { rcuReadLock, rcuReadUnlock } from './rcu.ts';
import { smallTable, TdpIter } from './tdp-iter.ts';
import { nextRoot, rootAddressSpace } from './tdp-roots.ts';
import { condResched, giveWay, rearmSpte, rearmSpteAtomic, setSpte, zapSpteAtomic } from './tdp-set-spte.ts';

/**
 * Takes W from every leaf of a slot at `minLevel` and above, under the read lock. True if one changed and a flush is
 * due. @kvm kvm_tdp_mmu_wrprot_slot
 */
export function wrprotSlot(mmu: Mmu, slot: MemSlot, minLevel: number): boolean {
  return clearInSlot(mmu, slot, minLevel, SPTE_W);
}

/** Takes D from every leaf of a slot, for logging in hardware. True if one changed. @kvm kvm_tdp_mmu_clear_dirty_slot */
export function clearDirtySlot(mmu: Mmu, slot: MemSlot): boolean {
  return clearInSlot(mmu, slot, 1, mmu.format.dirtyLo);
}

/** What re-arms an entry for logging: `bit`, or W where D doesn't do. */
function rearmBit(bit: number, hi: number): number {
  return needsWriteProtect(hi) ? SPTE_W : bit;
}

function clearInSlot(mmu: Mmu, slot: MemSlot, minLevel: number, bit: number): boolean {
  let changed = false;
  for (let root = nextRoot(mmu, 0, true); root !== 0; root = nextRoot(mmu, root, true)) {
    if (rootAddressSpace(mmu, root) !== slot.asId) continue;
    if (clearInRange(mmu, root, slot.baseGfn, slot.baseGfn + slot.npages, minLevel, bit)) changed = true;
  }
  return changed;
}

/**
 * @kvm wrprot_gfn_range, clear_dirty_gfn_range
 * @diverges policy zap: the TDP MMU never dropped what it protects.
 */
function clearInRange(mmu: Mmu, root: number, start: number, end: number, minLevel: number, bit: number): boolean {
  const it = new TdpIter();
  let changed = false;
  rcuReadLock(mmu);
  for (it.start(mmu, root, minLevel, start); it.valid && it.gfn < end; it.next(mmu)) {
    if (it.level === 1) {
      if (clearInSmallTable(mmu, it, end, bit)) changed = true;
      continue;
    }
    while (!condResched(mmu, it, false)) {
      if (!isShadowPresent(it.oldLo) || !isLast(it.oldLo, it.level)) break;
      const taken = rearmBit(bit, it.oldHi);
      if ((it.oldLo & taken) === 0) break;
      const drop = bit === SPTE_W && mmu.policy.onProtect === 'zap';
      if (drop) {
        if (!zapSpteAtomic(mmu, it)) continue;
      } else if (!rearmSpteAtomic(mmu, it.asId, it.sptep, it.gfn, it.oldLo, it.oldHi, it.level, taken)) {
        it.reread(mmu);
        continue;
      }
      changed = true;
      break;
    }
  }
  rcuReadUnlock(mmu);
  return changed;
}

/**
 * The same from an entry of a 4 KiB table to the table's end, or until it gives way. Nearly all entries are passed here, so
 * the iterator stays behind and only hears where the walk has come to.
 */
function clearInSmallTable(mmu: Mmu, it: TdpIter, end: number, bit: number): boolean {
  const { asId } = it;
  const before = Math.min(end, (it.gfn | 511) + 1);
  let changed = false;
  let { gfn, sptep } = it;
  while (gfn < before) {
    if (gfn !== it.yieldedGfn && yields(RACE_TDP_YIELD, sptep)) {
      it.goTo(mmu, gfn);
      giveWay(mmu, it, false);
      return changed;
    }
    const { words } = mmu.arena;
    const lo = words[sptep << 1];
    const hi = words[(sptep << 1) + 1];
    const taken = rearmBit(bit, hi);
    if (isShadowPresent(lo) && (lo & taken) !== 0) {
      if (!rearmSpteAtomic(mmu, asId, sptep, gfn, lo, hi, 1, taken)) continue;
      changed = true;
    }
    gfn++;
    sptep++;
  }
  it.goTo(mmu, before - 1);
  return changed;
}

/**
 * Re-arms the log for pages of one 64-page word, `first` their first frame: `wrprot`, takes W from their 4 KiB leaves,
 * else D. Holds the lock for writing, and visits invalid roots too. The caller flushes.
 * @kvm kvm_tdp_mmu_clear_dirty_pt_masked
 */
export function clearDirtyPtMasked(
  mmu: Mmu,
  slot: MemSlot,
  first: number,
  maskLo: number,
  maskHi: number,
  wrprot: boolean,
): void {
  for (const root of mmu.tdpRoots)
    if (rootAddressSpace(mmu, root) === slot.asId) clearMaskedOfRoot(mmu, root, first, maskLo, maskHi, wrprot);
}

/** Nobody gives way here, so it goes from bit to bit without a `TdpIter`. @kvm clear_dirty_pt_masked */
function clearMaskedOfRoot(mmu: Mmu, root: number, first: number, lo: number, hi: number, wrprot: boolean): void {
  rcuReadLock(mmu);
  clearMasked32(mmu, root, first, lo, wrprot);
  clearMasked32(mmu, root, first + 32, hi, wrprot);
  rcuReadUnlock(mmu);
}

function clearMasked32(mmu: Mmu, root: number, first: number, mask: number, wrprot: boolean): void {
  const asId = rootAddressSpace(mmu, root);
  const bit = wrprot ? SPTE_W : mmu.format.dirtyLo;
  let table = -1;
  for (let gfn = first, left = mask; left !== 0; gfn++, left >>>= 1) {
    if ((gfn & 511) === 0) table = -1;
    if ((left & 1) === 0) continue;
    if (table < 0) table = smallTable(mmu, root, gfn);
    if (table === 0) continue;
    const sptep = sptepAt(table, gfn & 511);
    const { words } = mmu.arena;
    const lo = words[sptep << 1];
    const hi = words[(sptep << 1) + 1];
    const taken = rearmBit(bit, hi);
    if (isShadowPresent(lo) && (lo & taken) !== 0) rearmSpte(mmu, asId, sptep, gfn, hi, taken);
  }
}

/**
 * Takes W and MMU-writable from what maps one frame at `minLevel` and above, so that the fast fault can't undo it. True
 * if a flush is due. @kvm kvm_tdp_mmu_write_protect_gfn
 */
export function writeProtectGfn(mmu: Mmu, slot: MemSlot, gfn: number, minLevel: number): boolean {
  let changed = false;
  for (const root of mmu.tdpRoots)
    if (rootAddressSpace(mmu, root) === slot.asId && writeProtectGfnOfRoot(mmu, root, gfn, minLevel)) changed = true;
  return changed;
}

/** @kvm write_protect_gfn. @diverges policy zap: as above. */
function writeProtectGfnOfRoot(mmu: Mmu, root: number, gfn: number, minLevel: number): boolean {
  const it = new TdpIter();
  const { mmuWritableLo, mmuWritableHi } = mmu.format;
  let changed = false;
  rcuReadLock(mmu);
  for (it.start(mmu, root, minLevel, gfn); it.valid && it.gfn <= gfn; it.next(mmu)) {
    if (!isShadowPresent(it.oldLo) || !isLast(it.oldLo, it.level)) continue;
    const lo = it.oldLo & ~(SPTE_W | mmuWritableLo);
    const hi = it.oldHi & ~mmuWritableHi;
    if (lo === it.oldLo && hi === it.oldHi) break;
    if (it.level > 1 && mmu.policy.onProtect === 'zap') setSpte(mmu, it, 0, 0);
    else setSpte(mmu, it, lo, hi);
    changed = true;
  }
  rcuReadUnlock(mmu);
  return changed;
}
