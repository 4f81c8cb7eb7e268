/**
 * Faulting guest memory in ahead of time (KVM_PRE_FAULT_MEMORY, Linux 6.11): what a read by the guest would map, without
 * A. Nested paging only, since only there an address of the guest's memory is the address of a fault.
 * Source: Linux 6.12 mmu.c.
 */
import { EINTR, ENOENT, EOPNOTSUPP } from '../base/errno.ts';
import { pagesPerLevel } from '../base/page.ts';
import { handleFault } from './fault.ts';
import type { Mmu } from './mmu.ts';
import { RET_PF_EMULATE, RET_PF_RETRY } from './page-fault.ts';
import { loadMmu } from './roots.ts';
import type { MmuVcpu } from './vcpu.ts';

/** @kvm PFERR_GUEST_FINAL_MASK */
const PFERR_GUEST_FINAL_HI = 1;

/**
 * The kernel goes on for ever, until a signal ends it: a root that was zapped stays the vCPU's as it doesn't enter the
 * guest, and every fault on it is stale.
 */
const MAX_TRIES = 64;

/**
 * How many pages from gfn on are mapped now, up to the end of the mapping; or a negative errno.
 *
 * @kvm kvm_arch_vcpu_pre_fault_memory, kvm_tdp_map_page
 * @diverges EINTR after so many tries, as if by a signal
 */
export function mapTdpPage(mmu: Mmu, vcpu: MmuVcpu, gfn: number): number {
  if (vcpu.root.sp === 0) {
    const result = loadMmu(mmu, vcpu);
    if (result !== 0) return result;
  }
  if (!mmu.tdp) return -EOPNOTSUPP;
  const lo = gfn << 12;
  const hi = Math.floor(gfn / 0x100000);
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const ret = handleFault(mmu, vcpu, lo, hi, 0, PFERR_GUEST_FINAL_HI, true);
    if (ret < 0) return ret;
    if (ret === RET_PF_EMULATE) return -ENOENT;
    if (ret !== RET_PF_RETRY) return pagesPerLevel(vcpu.fault.goalLevel) - (gfn % pagesPerLevel(vcpu.fault.goalLevel));
  }
  return -EINTR;
}
