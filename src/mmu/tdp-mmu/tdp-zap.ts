/**
 * Taking mappings away: leaves of a range, whole roots, tables that a large mapping could stand for.
 * Source: Linux 6.1 tdp_mmu.c.
 */
import { LEVEL_2M, MAX_HUGEPAGE_LEVEL } from '../../base/page.ts';
import type { MemSlot } from '../../mem/memslots.ts';
import { maxMappingLevel } from '../level.ts';
import { LOCK_SHARED, lock, unlock } from '../lock.ts';
import type { Mmu } from '../mmu.ts';
import { RACE_TDP_YIELD, yields } from '../race.ts';
import { isInvalidRole, roleAddressSpace } from '../role.ts';
import { isLast, isShadowPresent } from '../spte.ts';
import { rcuReadLock, rcuReadUnlock } from './rcu.ts';
import { TdpIter } from './tdp-iter.ts';
import { nextRoot, putRoot, rootAddressSpace } from './tdp-roots.ts';
import { condResched, giveWay, setSpte, setSpteAtomic, zapSpteAtomic } from './tdp-set-spte.ts';

/** Frames that the CPU of the recordings can address: no table maps more. @kvm tdp_mmu_max_gfn_exclusive */
const MAX_GFN_EXCLUSIVE = 2 ** 28;

/**
 * Empties every leaf of one root in [start, end). True if a flush is due: `flush`, or one was emptied since the last
 * yield. The tables stay. @kvm tdp_mmu_zap_leafs
 */
export function zapLeafsOfRoot(mmu: Mmu, root: number, start: number, end: number, flush: boolean): boolean {
  const it = new TdpIter();
  const last = Math.min(end, MAX_GFN_EXCLUSIVE);
  let due = flush;
  rcuReadLock(mmu);
  for (it.start(mmu, root, 1, start); it.valid && it.gfn < last; it.next(mmu)) {
    if (condResched(mmu, it, due)) {
      due = false;
      continue;
    }
    if (!isShadowPresent(it.oldLo) || !isLast(it.oldLo, it.level)) continue;
    setSpte(mmu, it, 0, 0);
    due = true;
  }
  rcuReadUnlock(mmu);
  return due;
}

/** Takes one table, which is no root, out of the tree with all below it. A flush is due. @kvm kvm_tdp_mmu_zap_sp */
export function zapTdpPage(mmu: Mmu, sp: number): void {
  const { pages } = mmu;
  const it = new TdpIter();
  it.at(mmu, pages.parents[sp], pages.gfn[sp], pages.level(sp) + 1, roleAddressSpace(pages.role[sp]));
  setSpte(mmu, it, 0, 0);
}

/** Everything below a root: level by level, so that nothing takes long. No flush. @kvm tdp_mmu_zap_root */
function zapRoot(mmu: Mmu, root: number, shared: boolean): void {
  rcuReadLock(mmu);
  for (const level of mmu.kernel.tdpZapLevels) zapRootAt(mmu, root, shared, level);
  zapRootAt(mmu, root, shared, mmu.pages.level(root));
  rcuReadUnlock(mmu);
}

/** @kvm __tdp_mmu_zap_root */
function zapRootAt(mmu: Mmu, root: number, shared: boolean, zapLevel: number): void {
  const it = new TdpIter();
  for (it.start(mmu, root, zapLevel, 0); it.valid && it.gfn < MAX_GFN_EXCLUSIVE; it.next(mmu)) {
    for (;;) {
      // As `condResched`, without a call: each of the 512 entries of a table, of each level in turn, is passed here.
      if (it.nextLastLevelGfn !== it.yieldedGfn && yields(RACE_TDP_YIELD, it.sptep)) {
        giveWay(mmu, it, false);
        break;
      }
      if (!isShadowPresent(it.oldLo) || it.level > zapLevel) break;
      if (shared) {
        if (setSpteAtomic(mmu, it, 0, 0)) break;
      } else {
        setSpte(mmu, it, 0, 0);
        break;
      }
    }
  }
}

/** The end of a VM: every root, with the lock held for writing. @kvm kvm_tdp_mmu_zap_all */
export function zapAllRoots(mmu: Mmu): void {
  for (let root = nextRoot(mmu, 0, false); root !== 0; root = nextRoot(mmu, root, false)) zapRoot(mmu, root, false);
}

/**
 * Zaps the roots that were invalidated and gives the TDP MMU's own reference to each back. No flush: a vCPU flushes when
 * it loads another root. @kvm kvm_tdp_mmu_zap_invalidated_roots
 */
export function zapInvalidatedRoots(mmu: Mmu): void {
  const { pages } = mmu;
  lock(LOCK_SHARED);
  for (let root = nextRoot(mmu, 0, false); root !== 0; root = nextRoot(mmu, root, false)) {
    if (pages.zapScheduled[root] === 0) continue;
    pages.zapScheduled[root] = 0;
    if (!isInvalidRole(pages.role[root])) throw new Error(`INVARIANT roots: valid root ${root} is to be zapped`);
    zapRoot(mmu, root, true);
    putRoot(mmu, root);
  }
  unlock(LOCK_SHARED);
}

/**
 * Zaps the tables of a slot in whose place the host would allow a large mapping now, each with a flush.
 * @kvm kvm_tdp_mmu_zap_collapsible_sptes
 */
export function tdpZapCollapsibleSptes(mmu: Mmu, slot: MemSlot): void {
  for (let root = nextRoot(mmu, 0, true); root !== 0; root = nextRoot(mmu, root, true))
    if (rootAddressSpace(mmu, root) === slot.asId) zapCollapsibleOfRoot(mmu, root, slot);
}

/** @kvm zap_collapsible_spte_range */
function zapCollapsibleOfRoot(mmu: Mmu, root: number, slot: MemSlot): void {
  const it = new TdpIter();
  const end = slot.baseGfn + slot.npages;
  rcuReadLock(mmu);
  for (it.start(mmu, root, LEVEL_2M, slot.baseGfn); it.valid && it.gfn < end; it.next(mmu))
    while (!condResched(mmu, it, false) && isCollapsible(mmu, it, slot)) if (zapSpteAtomic(mmu, it)) break;
  rcuReadUnlock(mmu);
}

/** Is the entry at hand a table that lies in the slot and that one leaf could replace? */
function isCollapsible(mmu: Mmu, it: TdpIter, slot: MemSlot): boolean {
  if (it.level > MAX_HUGEPAGE_LEVEL || !isShadowPresent(it.oldLo) || isLast(it.oldLo, it.level)) return false;
  // A table that begins outside may cover part of the slot only; the slot knows nothing of its first frame.
  if (!slot.contains(it.gfn)) return false;
  return maxMappingLevel(mmu, slot, it.gfn, MAX_HUGEPAGE_LEVEL) >= it.level;
}
