/**
 * A #PF for the guest, and forgetting one address as INVLPG does. Source: Linux 6.1 x86.c
 * kvm_inject_emulated_page_fault, mmu.c kvm_mmu_invalidate_gva.
 */
import { guestLevels, PFERR_PRESENT, PFERR_RSVD } from './guest-mode.ts';
import type { GuestWalk } from './guest-walk.ts';
import { clearMmioInfoOf } from './mmio-cache.ts';
import type { Mmu } from './mmu.ts';
import { invlpgRoot } from './sync-page.ts';
import type { MmuVcpu } from './vcpu.ts';

const CR4_PCIDE = 1 << 17;

/**
 * Queues the fault that a guest walk ended with. If it is one of rights, the address is forgotten first, as hardware
 * does; else a guest that only widened its entry would fault for ever on a stale page. @kvm kvm_inject_emulated_page_fault
 */
export function injectPageFault(mmu: Mmu, vcpu: MmuVcpu, walk: GuestWalk): void {
  const { errorCode, addrLo, addrHi } = walk;
  if ((errorCode & (PFERR_PRESENT | PFERR_RSVD)) === PFERR_PRESENT) {
    // What a nested guest's hypervisor has not mapped is a guest-physical address, for which there is no INVLPG.
    if (!vcpu.isNested) vcpu.port.flushTlbGva(addrLo, addrHi);
    invalidateInRoot(mmu, vcpu, addrLo, addrHi, vcpu.root.sp);
  }
  if (vcpu.isNested) {
    vcpu.port.leaveNestedGuest(errorCode);
    return;
  }
  vcpu.stats.pf_guest++;
  vcpu.port.queuePageFault(errorCode, addrLo, addrHi);
}

/**
 * Queues the fault that emulating a nested guest's instruction ended with: for the nested guest, or for its hypervisor.
 * @kvm kvm_inject_emulated_page_fault
 */
export function injectNestedFault(mmu: Mmu, vcpu: MmuVcpu, walk: GuestWalk): void {
  if (walk.isNestedFault) {
    injectPageFault(mmu, vcpu, vcpu.translation);
    return;
  }
  const { errorCode, addrLo, addrHi } = walk;
  if ((errorCode & (PFERR_PRESENT | PFERR_RSVD)) === PFERR_PRESENT) vcpu.port.flushTlbGva(addrLo, addrHi);
  vcpu.stats.pf_guest++;
  vcpu.port.queuePageFault(errorCode, addrLo, addrHi);
}

/** INVLPG emulated: in the current root and all that were used before. @kvm kvm_mmu_invlpg */
export function invlpg(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number): void {
  if (isCanonical(vcpu, hi)) {
    vcpu.port.flushTlbGva(lo, hi);
    invalidateInRoot(mmu, vcpu, lo, hi, vcpu.root.sp);
    for (const root of vcpu.prevRoots) if (root.sp !== 0) invalidateInRoot(mmu, vcpu, lo, hi, root.sp);
  }
  vcpu.stats.invlpg++;
}

/** INVPCID of one address: in the roots whose CR3 has that PCID. @kvm kvm_mmu_invpcid_gva */
export function invpcidGva(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number, pcid: number): void {
  const pcidOf = (cr3Lo: number): number => (vcpu.regs.cr4 & CR4_PCIDE ? cr3Lo & 0xfff : 0);
  let flush = false;
  if (pcid === pcidOf(vcpu.regs.cr3Lo)) {
    if (mmu.bugs.invpcidWithoutPaging) invlpgOf(mmu, vcpu)!(mmu, vcpu, lo, hi, vcpu.root.sp);
    invalidateInRoot(mmu, vcpu, lo, hi, vcpu.root.sp);
    flush = true;
  }
  for (const root of vcpu.prevRoots) {
    if (root.sp === 0 || pcid !== pcidOf(root.pgdLo)) continue;
    invalidateInRoot(mmu, vcpu, lo, hi, root.sp);
    flush = true;
  }
  if (flush) vcpu.port.flushTlbGva(lo, hi);
  vcpu.stats.invlpg++;
}

/** Shadow paging of a guest that pages; else there is nothing to forget. */
function invalidateInRoot(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number, root: number): void {
  const forget = invlpgOf(mmu, vcpu);
  if (forget === null) return;
  clearMmioInfoOf(vcpu, lo, hi);
  vcpu.topUp(mmu.arena);
  if (root !== 0) forget(mmu, vcpu, lo, hi, root);
}

/** What a guest's mode has for INVLPG: null where it has no tables that are shadowed. @kvm kvm_mmu.invlpg */
function invlpgOf(mmu: Mmu, vcpu: MmuVcpu): typeof invlpgRoot | null {
  return (mmu.tdp && !vcpu.isNested) || guestLevels(vcpu) === 0 ? null : invlpgRoot;
}

/** 48 bits, with five levels 57; any 32-bit address of a guest outside long mode is. @kvm is_noncanonical_address */
function isCanonical(vcpu: MmuVcpu, hi: number): boolean {
  const levels = guestLevels(vcpu);
  return levels < 4 || hi >> (levels === 5 ? 24 : 15) === hi >> 31;
}
