/**
 * Steps that the direct and the shadow engine take alike on a fault's way: tracked writes, the host's frame, staleness.
 * Source: Linux 6.1 mmu.c, kvm_main.c hva_to_pfn.
 */
import { EFAULT } from '../base/errno.ts';
import { TP_SPTE_REQUESTED } from '../trace/tracepoints.ts';
import { hvaOfGfn } from './guest-memory.ts';
import { cacheMmioInfo } from './mmio-cache.ts';
import { isObsolete, type Mmu } from './mmu.ts';
import {
  type PageFault,
  PFN_ERR_FAULT,
  PFN_ERR_RO_FAULT,
  PFN_NOSLOT,
  RET_PF_CONTINUE,
  RET_PF_EMULATE,
  RET_PF_RETRY,
} from './page-fault.ts';
import { isTracked } from './page-track.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS } from './requests.ts';
import type { MmuVcpu } from './vcpu.ts';

/** Frames that nested tables can map, the host's own. @kvm kvm_mmu_max_gfn */
const MAX_TDP_GFN = 2 ** 28 - 1;

/** A write to a tracked gfn is emulated before anything is looked up. @kvm page_fault_handle_page_track */
export function isTrackedWrite(mmu: Mmu, fault: PageFault): boolean {
  if (fault.rsvd || !fault.present || !fault.write) return false;
  return isTracked(mmu, fault.slot, fault.gfn);
}

/** Looks the host frame up. CONTINUE, or RETRY while the slot is going away or (since 6.9) the mapping changes. @kvm kvm_faultin_pfn */
export function faultinPfn(mmu: Mmu, fault: PageFault): number {
  const { bugs, invalidateSeq } = mmu;
  fault.mmuSeq = bugs.sequenceHas32Bits ? invalidateSeq | 0 : invalidateSeq;
  if (fault.slot?.isInvalid) return bugs.mmioInInvalidSlot ? RET_PF_CONTINUE : RET_PF_RETRY;
  const early = mmu.kernel.staleBeforeLock && fault.slot !== null;
  if (early && isInvalidated(mmu, fault, fault.slot!.hvaOf(fault.gfn))) return RET_PF_RETRY;
  fault.pfn = gfnToPfn(mmu, fault);
  if (!early || fault.pfn < 0 || !isInvalidated(mmu, fault, fault.hva)) return RET_PF_CONTINUE;
  mmu.host.markAccessed(fault.pfn);
  return RET_PF_RETRY;
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
    cacheMmioInfo(mmu, vcpu, lo, hi, fault.gfn, access & mmu.format.mmioAccess);
    // No table maps it; only pre-faulting comes here with such an address.
    if (mmu.tdp && fault.gfn > MAX_TDP_GFN) return RET_PF_EMULATE;
  }
  return RET_PF_CONTINUE;
}

/** The host changes this mapping, or changed any since. @kvm mmu_invalidate_retry_hva, mmu_invalidate_retry_gfn_unsafe */
function isInvalidated(mmu: Mmu, fault: PageFault, hva: number): boolean {
  if (mmu.invalidateInProgress !== 0 && hva >= mmu.invalidateRangeStart && hva < mmu.invalidateRangeEnd) return true;
  return mmu.invalidateSeq !== fault.mmuSeq;
}

/** Something changed since the frame was looked up; under the lock. @kvm is_page_fault_stale */
export function isPageFaultStale(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault): boolean {
  const root = vcpu.root.sp;
  if (root > 0) {
    if (isObsolete(mmu, root)) return true;
  } else if ((vcpu.requests & REQ_MMU_FREE_OBSOLETE_ROOTS) !== 0) return true;
  return fault.slot !== null && isInvalidated(mmu, fault, fault.hva);
}

export function traceSpteRequested(mmu: Mmu, fault: PageFault): void {
  if (mmu.trace.on) mmu.trace.emit(TP_SPTE_REQUESTED, fault.gfn, fault.goalLevel);
}
