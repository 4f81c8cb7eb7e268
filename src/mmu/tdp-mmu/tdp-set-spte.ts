/**
 * Storing to entries of the TDP MMU, and giving way in the middle of a walk.
 *
 *     mmu_lock held for    store                     if the entry changed meanwhile
 *     reading (shared)     compare-and-exchange      false; the iterator has the entry as it is
 *     writing              exchange, or plain        only bits that the CPU or the fast fault may set can have changed
 *
 * A leaf or table that is to be replaced under the read lock is frozen first: REMOVED_SPTE, which nobody may store over.
 * TLBs are flushed, then the entry is emptied. So nobody can install something else before the flush.
 *
 * Source: Linux 6.1 tdp_mmu.c, tdp_iter.h.
 */
import { pagesPerLevel } from '../../base/page.ts';
import { flushRemoteTlbs, flushRemoteTlbsRange, type Mmu } from '../mmu.ts';
import { RACE_SPTE, RACE_TDP_CMPXCHG, RACE_TDP_FROZEN, RACE_TDP_YIELD, race, yields } from '../race.ts';
import { hasVolatileBits, isLast, isRemoved, isShadowPresent, REMOVED_SPTE_LO } from '../spte.ts';
import { handleAccessed, handleChange, handleDirtyLog, handleRearmed } from './changed-spte.ts';
import { rcuReadLock, rcuReadUnlock } from './rcu.ts';
import type { TdpIter } from './tdp-iter.ts';

/**
 * Stores if the entry is still what the iterator saw. False if not: nothing has happened, and the iterator sees the
 * entry as it is. Doesn't mark pages dirty: `makeSpte` has. @kvm tdp_mmu_set_spte_atomic
 */
export function setSpteAtomic(mmu: Mmu, it: TdpIter, newLo: number, newHi: number): boolean {
  const { oldLo, oldHi } = it;
  if (!exchange(mmu, it, newLo, newHi)) return false;
  handleChange(mmu, it.asId, it.gfn, oldLo, oldHi, newLo, newHi, it.level, true);
  handleAccessed(mmu, oldLo, oldHi, newLo, newHi, it.level);
  return true;
}

/**
 * Takes `bits`, W or D, from a present leaf that holds `lo`, `hi`. False if it no longer does, and nothing has happened.
 * As logs are started with it, it needs no iterator. @kvm tdp_mmu_set_spte_atomic
 */
export function rearmSpteAtomic(
  mmu: Mmu,
  asId: number,
  sptep: number,
  gfn: number,
  lo: number,
  hi: number,
  level: number,
  bits: number,
): boolean {
  race(RACE_TDP_CMPXCHG, sptep);
  const { words } = mmu.arena;
  if (words[sptep << 1] !== lo || words[(sptep << 1) + 1] !== hi) return false;
  words[sptep << 1] = lo & ~bits;
  handleRearmed(mmu, asId, gfn, lo, lo & ~bits, hi, level);
  return true;
}

/** The bare compare-and-exchange. @kvm __tdp_mmu_set_spte_atomic */
function exchange(mmu: Mmu, it: TdpIter, newLo: number, newHi: number): boolean {
  const { oldLo, oldHi } = it;
  if (it.yielded || isRemoved(oldLo, oldHi)) throw new Error(`INVARIANT frozen: a store over entry ${it.sptep}`);
  race(RACE_TDP_CMPXCHG, it.sptep);
  const { words } = mmu.arena;
  const at = it.sptep << 1;
  if (words[at] !== oldLo || words[at + 1] !== oldHi) {
    it.reread(mmu);
    return false;
  }
  words[at] = newLo;
  words[at + 1] = newHi;
  return true;
}

/**
 * Freezes, flushes, empties. False if the entry changed meanwhile. What follows from the change comes with the freeze,
 * or (Linux 6.12) when it has ended. @kvm tdp_mmu_zap_spte_atomic
 */
export function zapSpteAtomic(mmu: Mmu, it: TdpIter): boolean {
  const { oldLo, oldHi, asId, gfn, level } = it;
  const { frozenHi, tdpTellsAfterFreeze } = mmu.kernel;
  if (!(tdpTellsAfterFreeze ? exchange : setSpteAtomic)(mmu, it, REMOVED_SPTE_LO, frozenHi)) return false;
  race(RACE_TDP_FROZEN, it.sptep);
  flushRemoteTlbsRange(mmu, gfn, pagesPerLevel(level));
  race(RACE_SPTE, it.sptep);
  mmu.arena.words[it.sptep << 1] = 0;
  mmu.arena.words[(it.sptep << 1) + 1] = 0;
  if (!tdpTellsAfterFreeze) return true;
  handleChange(mmu, asId, gfn, oldLo, oldHi, 0, 0, level, true);
  handleAccessed(mmu, oldLo, oldHi, 0, 0, level);
  return true;
}

/** @kvm tdp_mmu_set_spte */
export function setSpte(mmu: Mmu, it: TdpIter, newLo: number, newHi: number): void {
  store(mmu, it, newLo, newHi, true);
}

/** For ageing: the host, which asks, isn't told. @kvm tdp_mmu_set_spte_no_acc_track */
export function setSpteNoAccTrack(mmu: Mmu, it: TdpIter, newLo: number, newHi: number): void {
  store(mmu, it, newLo, newHi, false);
}

/**
 * For collecting the log, holding the lock for writing: takes `bits`, W or D, from a present 4 KiB leaf whose
 * high word is `hi`. @kvm tdp_mmu_set_spte_no_dirty_log
 */
export function rearmSpte(mmu: Mmu, asId: number, sptep: number, gfn: number, hi: number, bits: number): void {
  race(RACE_SPTE, sptep);
  const { words } = mmu.arena;
  const lo = words[sptep << 1];
  words[sptep << 1] = lo & ~bits;
  handleRearmed(mmu, asId, gfn, lo, lo & ~bits, hi, 1);
}

/** Holding the lock for writing. @kvm _tdp_mmu_set_spte, __tdp_mmu_set_spte, kvm_tdp_mmu_write_spte */
function store(mmu: Mmu, it: TdpIter, newLo: number, newHi: number, accTrack: boolean): void {
  if (it.yielded || isRemoved(it.oldLo, it.oldHi)) throw new Error(`INVARIANT frozen: a store over entry ${it.sptep}`);
  race(RACE_SPTE, it.sptep);
  // An exchange where the CPU or the fast fault may have set bits since, so that none of them is lost.
  if (isShadowPresent(it.oldLo) && isLast(it.oldLo, it.level) && hasVolatileBits(mmu.format, it.oldLo, it.oldHi))
    it.reread(mmu);
  const { oldLo, oldHi, asId, gfn, level } = it;
  mmu.arena.words[it.sptep << 1] = newLo;
  mmu.arena.words[(it.sptep << 1) + 1] = newHi;
  handleChange(mmu, asId, gfn, oldLo, oldHi, newLo, newHi, level, false);
  if (accTrack) handleAccessed(mmu, oldLo, oldHi, newLo, newHi, level);
  handleDirtyLog(mmu, asId, gfn, oldLo, oldHi, newLo, newHi, level);
}

/**
 * Gives way to others if they wait, flushing first if a flush is due. True if it did: what the iterator shows is then
 * of the past, and only `next` may follow. @kvm tdp_mmu_iter_cond_resched
 */
export function condResched(mmu: Mmu, it: TdpIter, flush: boolean): boolean {
  if (it.nextLastLevelGfn === it.yieldedGfn) return false;
  if (!yields(RACE_TDP_YIELD, it.sptep)) return false;
  giveWay(mmu, it, flush);
  return true;
}

/** Only where `yields` says so: else `condResched`. */
export function giveWay(mmu: Mmu, it: TdpIter, flush: boolean): void {
  if (flush) flushRemoteTlbs(mmu);
  rcuReadUnlock(mmu);
  race(RACE_TDP_YIELD);
  rcuReadLock(mmu);
  it.yielded = true;
}
