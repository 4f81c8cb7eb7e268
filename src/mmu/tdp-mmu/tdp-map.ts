/**
 * A fault under the TDP MMU: makes tables down to the goal level and installs the leaf, holding mmu_lock for reading.
 * Whoever loses a race for an entry lets the guest fault again.
 *
 * INVARIANT order: in Linux 6.1 a large leaf in the way is frozen, flushed and emptied before the table for its place is
 * even made.
 *
 * Source: Linux 6.1 tdp_mmu.c kvm_tdp_mmu_map.
 */
import { pagesPerLevel } from '../../base/page.ts';
import { traceSpteRequested } from '../fault-steps.ts';
import { disallowedHugepageAdjust, hugepageAdjust } from '../level.ts';
import { makeSpte } from '../make-spte.ts';
import { flushRemoteTlbsRange, type Mmu } from '../mmu.ts';
import { type PageFault, RET_PF_EMULATE, RET_PF_FIXED, RET_PF_RETRY, RET_PF_SPURIOUS } from '../page-fault.ts';
import { accountHugeNxPage } from '../nx-huge-page.ts';
import { spOf } from '../shadow-pages.ts';
import {
  ACC_ALL,
  isLarge,
  isLast,
  isRemoved,
  isShadowPresent,
  MMIO_GEN_MASK,
  mmioSpteHi,
  mmioSpteLo,
} from '../spte.ts';
import { traceMarkMmioSpte, traceSetSpte } from '../tracing.ts';
import type { MmuVcpu } from '../vcpu.ts';
import { freePage, rcuReadLock, rcuReadUnlock } from './rcu.ts';
import type { TdpIter } from './tdp-iter.ts';
import { initChildPage, linkPage } from './tdp-pages.ts';
import { setSpteAtomic, zapSpteAtomic } from './tdp-set-spte.ts';
import { splitHugePage } from './tdp-split.ts';

/** RET_PF_*. @kvm kvm_tdp_mmu_map */
export function tdpMap(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault): number {
  hugepageAdjust(mmu, fault);
  traceSpteRequested(mmu, fault);
  const it = vcpu.tdpIter;
  rcuReadLock(mmu);
  const end = fault.gfn + 1;
  for (it.start(mmu, vcpu.root.sp, 1, fault.gfn); it.valid && it.gfn < end; it.next(mmu)) {
    if (fault.nxHugePageWorkaround) disallowedHugepageAdjust(mmu, fault, it.sptep, it.level);
    if (it.level === fault.goalLevel || !ensureTable(mmu, vcpu, fault, it)) break;
  }
  const isThere = it.level === fault.goalLevel && !isRemoved(it.oldLo, it.oldHi);
  const ret = isThere ? mapTargetLevel(mmu, vcpu, fault, it) : RET_PF_RETRY;
  rcuReadUnlock(mmu);
  return ret;
}

/**
 * Sees to it that there is a table below the entry at hand. A large leaf that is in the way is dropped, or (Linux 6.12)
 * split: then its neighbours go on being mapped. False: somebody else is at the entry.
 */
function ensureTable(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault, it: TdpIter): boolean {
  const isLargeLeaf = isShadowPresent(it.oldLo) && isLarge(it.oldLo);
  const split = isLargeLeaf && mmu.kernel.tdpLargeInTheWay === 'split';
  if (isLargeLeaf && !split) {
    if (!zapSpteAtomic(mmu, it)) return false;
    it.reread(mmu);
  }
  if (isShadowPresent(it.oldLo) && !split) return true;
  if (isRemoved(it.oldLo, it.oldHi)) return false;
  const { level } = it;
  const sp = vcpu.takeTable();
  initChildPage(mmu, sp, it);
  if (!(split ? splitHugePage(mmu, it, sp, true) : linkPage(mmu, it, sp, true))) {
    freePage(mmu, sp);
    return false;
  }
  if (fault.hugePageDisallowed) accountHugeNxPage(mmu, sp, fault.reqLevel >= level);
  return true;
}

/**
 * Installs the leaf. Two oddities of the kernel's, as both can be seen: the tracepoints fire for a spurious fault too,
 * and after the store for MMIO; and replacing a table flushes the range of the whole table that the entry is in.
 * @kvm tdp_mmu_map_handle_target_level
 */
function mapTargetLevel(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault, it: TdpIter): number {
  const sp = spOf(it.sptep);
  const { slot } = fault;
  let newLo: number;
  let newHi: number;
  let wrprot = false;
  if (slot === null) {
    const generation = mmu.slots[0].generation & MMIO_GEN_MASK;
    newLo = mmioSpteLo(mmu.format, it.gfn, ACC_ALL, generation);
    newHi = mmioSpteHi(mmu.format, it.gfn, generation);
  } else {
    const { pfn, prefetch, mapWritable } = fault;
    wrprot = makeSpte(mmu, sp, it.level, slot, ACC_ALL, it.gfn, pfn, it.oldLo, prefetch, true, mapWritable);
    newLo = mmu.spteLo;
    newHi = mmu.spteHi;
  }

  let ret = RET_PF_FIXED;
  if (newLo === it.oldLo && newHi === it.oldHi) ret = RET_PF_SPURIOUS;
  else if (!setSpteAtomic(mmu, it, newLo, newHi)) return RET_PF_RETRY;
  else if (isShadowPresent(it.oldLo) && !isLast(it.oldLo, it.level))
    flushRemoteTlbsRange(mmu, mmu.pages.gfn[sp], pagesPerLevel(it.level + 1));
  if (wrprot && fault.write) ret = RET_PF_EMULATE;

  if (slot !== null) {
    traceSetSpte(mmu, it.level, it.gfn, it.sptep);
    return ret;
  }
  vcpu.stats.pf_mmio_spte_created++;
  traceMarkMmioSpte(mmu, it.sptep, it.gfn, newLo, newHi);
  return RET_PF_EMULATE;
}
