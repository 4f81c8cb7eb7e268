/**
 * A page fault, whichever engine handles it: the entry, and the steps they share.
 *
 * A write fault on a large read-only entry: `directPageFault` tries `fastPageFault` (refused: large and logged), finds
 * level 1 in `hugepageAdjust` (logged), and `linkShadowPage` drops the large entry when the walk passes it.
 *
 * Source: Linux 6.1 mmu.c, mmu_internal.h kvm_mmu_do_page_fault, kvm_main.c hva_to_pfn.
 */
import { EFAULT } from '../base/errno.ts';
import { directPageFault } from './direct-fault.ts';
import { hvaOfGfn } from './guest-memory.ts';
import { guestLevels } from './guest-mode.ts';
import type { Mmu } from './mmu.ts';
import { cacheMmioInfo } from './mmio-cache.ts';
import {
  type PageFault,
  PFN_ERR_FAULT,
  PFN_ERR_RO_FAULT,
  PFN_NOSLOT,
  RET_PF_CONTINUE,
  RET_PF_EMULATE,
  RET_PF_FIXED,
  RET_PF_RETRY,
  RET_PF_SPURIOUS,
} from './page-fault.ts';
import { isTracked } from './page-track.ts';
import { isObsolete } from './page-zap.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS } from './requests.ts';
import { shadowPageFault } from './shadow-fault.ts';
import { MMIO_ACCESS_MASK } from './spte.ts';
import type { MmuVcpu } from './vcpu.ts';

/**
 * Handles a fault at an address (gpa in direct engines, else gva) and counts it. RET_PF_*, or a negative errno.
 * @kvm kvm_mmu_do_page_fault
 */
export function doPageFault(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number, errorCode: number): number {
  const fault = vcpu.fault;
  fault.init(lo, hi, errorCode);
  fault.isTdp = mmu.tdp;
  fault.nxHugePageWorkaround = mmu.nxHugePages;
  vcpu.stats.pf_taken++;
  let ret: number;
  if (mmu.tdp) ret = directPageFault(mmu, vcpu, fault);
  else if (guestLevels(vcpu) === 0) {
    fault.maxLevel = 2;
    ret = directPageFault(mmu, vcpu, fault);
  } else ret = shadowPageFault(mmu, vcpu, fault);
  if (ret === RET_PF_FIXED) vcpu.stats.pf_fixed++;
  else if (ret === RET_PF_EMULATE) vcpu.stats.pf_emulate++;
  else if (ret === RET_PF_SPURIOUS) vcpu.stats.pf_spurious++;
  return ret;
}

/** A write to a tracked gfn is emulated before anything is looked up. @kvm page_fault_handle_page_track */
export function isTrackedWrite(mmu: Mmu, fault: PageFault): boolean {
  if (fault.rsvd || !fault.present || !fault.write) return false;
  return isTracked(mmu, fault.slot, fault.gfn);
}

/** Looks the host frame up. CONTINUE, or RETRY while the slot is going away. @kvm kvm_faultin_pfn */
export function faultinPfn(mmu: Mmu, fault: PageFault): number {
  fault.mmuSeq = mmu.invalidateSeq;
  if (fault.slot?.isInvalid) return RET_PF_RETRY;
  fault.pfn = gfnToPfn(mmu, fault);
  return RET_PF_CONTINUE;
}

/**
 * The frame behind a fault's gfn, with `hva` and `mapWritable`. A read takes a writable mapping if the host has one,
 * so that a later write doesn't fault. @kvm __gfn_to_pfn_memslot, hva_to_pfn
 */
function gfnToPfn(mmu: Mmu, fault: PageFault): number {
  const slot = fault.slot;
  fault.mapWritable = false;
  fault.hva = hvaOfGfn(slot, fault.gfn);
  if (slot === null) return PFN_NOSLOT;
  if (slot.isReadonly) {
    if (fault.write) {
      fault.hva = -1;
      return PFN_ERR_RO_FAULT;
    }
    const pfn = mmu.host.gupSlow(fault.hva, false);
    return pfn >= 0 ? pfn : PFN_ERR_FAULT;
  }
  const fast = mmu.host.gupFast(fault.hva);
  if (fast >= 0) {
    fault.mapWritable = true;
    return fast;
  }
  const pfn = mmu.host.gupSlow(fault.hva, fault.write);
  if (pfn < 0) return PFN_ERR_FAULT;
  fault.mapWritable = fault.write;
  if (fault.write) return pfn;
  const upgraded = mmu.host.gupFast(fault.hva);
  if (upgraded < 0) return pfn;
  fault.mapWritable = true;
  return upgraded;
}

/** No frame: MMIO goes on (an MMIO entry will be installed), errors end here. @kvm handle_abnormal_pfn */
export function handleAbnormalPfn(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault, access: number): number {
  if (fault.pfn === PFN_ERR_RO_FAULT) return RET_PF_EMULATE;
  if (fault.pfn === PFN_ERR_FAULT) return -EFAULT;
  if (fault.slot === null) {
    const lo = fault.isTdp ? 0 : fault.addrLo;
    const hi = fault.isTdp ? 0 : fault.addrHi;
    cacheMmioInfo(mmu, vcpu, lo, hi, fault.gfn, access & MMIO_ACCESS_MASK);
  }
  return RET_PF_CONTINUE;
}

/** Something changed since the frame was looked up; under the lock. @kvm is_page_fault_stale */
export function isPageFaultStale(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault): boolean {
  const root = vcpu.root.sp;
  if (root > 0) {
    if (isObsolete(mmu, root)) return true;
  } else if ((vcpu.requests & REQ_MMU_FREE_OBSOLETE_ROOTS) !== 0) return true;
  if (fault.slot === null) return false;
  if (mmu.invalidateInProgress !== 0 && fault.hva >= mmu.invalidateRangeStart && fault.hva < mmu.invalidateRangeEnd)
    return true;
  return mmu.invalidateSeq !== fault.mmuSeq;
}
