/**
 * A page fault's entry: which engine handles it, and what is counted.
 *
 * A write fault on a large read-only entry: `directPageFault` tries `fastPageFault` (refused: large and logged), finds
 * level 1 in `hugepageAdjust` (logged), and `linkShadowPage` drops the large entry when the walk passes it.
 *
 * Source: Linux 6.1 mmu_internal.h kvm_mmu_do_page_fault.
 */
import { directPageFault } from './direct-fault.ts';
import { guestLevels } from './guest-mode.ts';
import type { Mmu } from './mmu.ts';
import { RET_PF_EMULATE, RET_PF_FIXED, RET_PF_SPURIOUS } from './page-fault.ts';
import { shadowPageFault } from './shadow-fault.ts';
import type { MmuVcpu } from './vcpu.ts';

/**
 * Handles a fault at an address (gpa in direct engines, else gva) and counts it. RET_PF_*, or a negative errno.
 * @kvm kvm_mmu_do_page_fault
 */
export function doPageFault(
  mmu: Mmu,
  vcpu: MmuVcpu,
  lo: number,
  hi: number,
  errorCode: number,
  errorCodeHi = 0,
): number {
  vcpu.stats.pf_taken++;
  const ret = handleFault(mmu, vcpu, lo, hi, errorCode, errorCodeHi, false);
  if (ret === RET_PF_FIXED) vcpu.stats.pf_fixed++;
  else if (ret === RET_PF_EMULATE) vcpu.stats.pf_emulate++;
  else if (ret === RET_PF_SPURIOUS) vcpu.stats.pf_spurious++;
  return ret;
}

/** The same without a count; `prefetch`: of an address that no one has accessed. */
export function handleFault(
  mmu: Mmu,
  vcpu: MmuVcpu,
  lo: number,
  hi: number,
  errorCode: number,
  errorCodeHi: number,
  prefetch: boolean,
): number {
  const fault = vcpu.fault;
  fault.init(lo, hi, errorCode, mmu.kernel.wideErrorCode ? errorCodeHi : 0);
  fault.isTdp = mmu.tdp && !vcpu.isNested;
  fault.prefetch = prefetch;
  fault.nxHugePageWorkaround = mmu.nxHugePages;
  if (fault.isTdp) return directPageFault(mmu, vcpu, fault);
  if (guestLevels(vcpu) !== 0) return shadowPageFault(mmu, vcpu, fault);
  fault.maxLevel = 2;
  return directPageFault(mmu, vcpu, fault);
}
