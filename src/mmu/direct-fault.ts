/**
 * Faults of the direct engines: their common way, and then the TDP MMU's map or the legacy engine's, whose tables map
 * frames linearly, for two-dimensional paging and for a guest without paging under shadow paging. Source: Linux 6.1 mmu.c direct_page_fault, direct_map.
 */
import { EFAULT, ENOSPC } from '../base/errno.ts';
import { pagesPerLevel } from '../base/page.ts';
import { fastPageFault } from './fast-fault.ts';
import { faultinPfn, handleAbnormalPfn, isPageFaultStale, isTrackedWrite, traceSpteRequested } from './fault-steps.ts';
import { CHILD_EXISTS, getChildPage, linkShadowPage } from './get-page.ts';
import { disallowedHugepageAdjust, hugepageAdjust } from './level.ts';
import { LOCK_MMU, LOCK_SHARED, lock, unlock } from './lock.ts';
import { type Mmu, vcpuSlot } from './mmu.ts';
import {
  type PageFault,
  RET_PF_CONTINUE,
  RET_PF_EMULATE,
  RET_PF_INVALID,
  RET_PF_RETRY,
  RET_PF_SPURIOUS,
} from './page-fault.ts';
import { accountHugeNxPage } from './nx-huge-page.ts';
import { makePagesAvailable } from './page-zap.ts';
import { RACE_FAULT_BEFORE_LOCK, race } from './race.ts';
import { spteLo } from './rmap.ts';
import { directPtePrefetch, mmuSetSpte } from './set-spte.ts';
import { ACC_ALL, isLarge, isShadowPresent } from './spte.ts';
import { tdpMap } from './tdp-mmu/tdp-map.ts';
import type { MmuVcpu } from './vcpu.ts';

/** RET_PF_*, or a negative errno. @kvm direct_page_fault */
export function directPageFault(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault): number {
  fault.gfn = (fault.addrLo >>> 12) + fault.addrHi * 0x100000;
  fault.slot = vcpuSlot(mmu, vcpu, fault.gfn);
  if (isTrackedWrite(mmu, fault)) return RET_PF_EMULATE;
  let ret = fastPageFault(mmu, vcpu, fault);
  if (ret !== RET_PF_INVALID) return ret;
  vcpu.topUp(mmu.arena);
  ret = faultinPfn(mmu, fault);
  if (ret !== RET_PF_CONTINUE) return ret;
  ret = handleAbnormalPfn(mmu, vcpu, fault, ACC_ALL);
  if (ret !== RET_PF_CONTINUE) return ret;

  race(RACE_FAULT_BEFORE_LOCK);
  const held = mmu.tdpMmu ? LOCK_SHARED : LOCK_MMU;
  lock(held);
  const pfn = fault.pfn;
  // Making room may zap the root, so staleness is tested after it. The TDP MMU's pages are not limited.
  if (mmu.tdpMmu) ret = isPageFaultStale(mmu, vcpu, fault) ? RET_PF_RETRY : tdpMap(mmu, vcpu, fault);
  else if (!makePagesAvailable(mmu)) ret = -ENOSPC;
  else if (isPageFaultStale(mmu, vcpu, fault)) ret = RET_PF_RETRY;
  else ret = directMap(mmu, vcpu, fault);
  unlock(held);
  if (pfn >= 0) mmu.host.markAccessed(pfn);
  return ret;
}

/** Walks to the goal level, making tables as needed, and installs the leaf. @kvm direct_map */
function directMap(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault): number {
  hugepageAdjust(mmu, fault);
  traceSpteRequested(mmu, fault);
  const walk = vcpu.walk;
  let baseGfn = fault.gfn;
  for (walk.init(vcpu, fault.addrLo, fault.addrHi); walk.ok(); walk.next(mmu)) {
    if (fault.nxHugePageWorkaround) disallowedHugepageAdjust(mmu, fault, walk.sptep, walk.level);
    baseGfn = fault.gfn & ~(pagesPerLevel(walk.level) - 1);
    if (walk.level === fault.goalLevel) break;
    if (mmu.bugs.readOnlyLargeStays && isLargeLeaf(spteLo(mmu, walk.sptep))) return RET_PF_RETRY;
    const child = getChildPage(mmu, vcpu, walk.sptep, baseGfn, true, ACC_ALL);
    if (child === CHILD_EXISTS) continue;
    linkShadowPage(mmu, walk.sptep, child);
    if ((fault.isTdp || mmu.kernel.nxMarksEveryTable) && fault.hugePageDisallowed)
      accountHugeNxPage(mmu, child, fault.reqLevel >= walk.level);
  }
  if (walk.level !== fault.goalLevel) return -EFAULT;
  const ret = mmuSetSpte(mmu, vcpu, fault.slot, walk.sptep, ACC_ALL, baseGfn, fault.pfn, fault);
  if (ret !== RET_PF_SPURIOUS) directPtePrefetch(mmu, vcpu, walk.sptep);
  return ret;
}

/** The walk ends at it: nothing can be linked below. */
function isLargeLeaf(lo: number): boolean {
  return isShadowPresent(lo) && isLarge(lo);
}
