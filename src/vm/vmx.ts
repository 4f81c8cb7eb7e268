/**
 * What KVM does of exits that only Intel's CPUs have: EPT violations, misconfigurations, a full log of dirty pages.
 * Source: Linux 6.1 vmx.c.
 */
import { EPTQ_FETCH, EPTQ_GVA_TRANSLATED, EPTQ_READ, EPTQ_RIGHTS, EPTQ_WRITE } from '../arch/ept.ts';
import {
  PFERR_FETCH_LO,
  PFERR_GUEST_FINAL_HI,
  PFERR_GUEST_PAGE_HI,
  PFERR_P_LO,
  PFERR_U_LO,
  PFERR_W_LO,
} from '../arch/pferr.ts';
import type { EptMode } from '../hw/ept-walker.ts';
import type { PmlBuffer } from '../hw/pml-buffer.ts';
import type { DirtyRing } from '../mem/dirty-ring.ts';
import { markPageDirty } from '../mmu/guest-memory.ts';
import { type Mmu, vcpuSlot } from '../mmu/mmu.ts';
import type { MmuVcpu } from '../mmu/vcpu.ts';

/** EPTP's bits that matter here, or null where tables aren't EPT's. @kvm construct_eptp */
export function eptModeOf(mmu: Mmu): EptMode | null {
  return mmu.ept === null ? null : { ad: mmu.ept.ad, executeOnly: mmu.ept.executeOnly };
}

/** The error code that KVM makes of an exit qualification: its low word. @kvm handle_ept_violation */
export function eptErrorLo(qualification: number): number {
  return (
    (qualification & EPTQ_READ ? PFERR_U_LO : 0) |
    (qualification & EPTQ_WRITE ? PFERR_W_LO : 0) |
    (qualification & EPTQ_FETCH ? PFERR_FETCH_LO : 0) |
    (qualification & EPTQ_RIGHTS ? PFERR_P_LO : 0)
  );
}

/** Its high word: where the access ended, or a guest's table on the way. */
export function eptErrorHi(qualification: number): number {
  return qualification & EPTQ_GVA_TRANSLATED ? PFERR_GUEST_FINAL_HI : PFERR_GUEST_PAGE_HI;
}

/** What the CPU has logged goes into KVM's own log. At each exit, before anything else. @kvm vmx_flush_pml_buffer */
export function flushPmlBuffer(mmu: Mmu, vcpu: MmuVcpu, pml: PmlBuffer): void {
  if (pml.isEmpty) return;
  pml.drain((lo, hi) => {
    const gfn = (lo >>> 12) + hi * 0x100000;
    markPageDirty(vcpuSlot(mmu, vcpu, gfn), gfn);
  });
}

/** The vCPU leaves the guest, if it is there: the same. In a ring its pages are its own, whoever runs. */
export function kickPml(mmu: Mmu, vcpu: MmuVcpu, pml: PmlBuffer, ring: DirtyRing | null): void {
  const { rings } = mmu;
  if (rings === null) {
    flushPmlBuffer(mmu, vcpu, pml);
    return;
  }
  const { running } = rings;
  rings.running = ring;
  flushPmlBuffer(mmu, vcpu, pml);
  rings.running = running;
}

/** Serves REQ_UPDATE_CPU_DIRTY_LOGGING. @kvm vmx_update_cpu_dirty_logging */
export function updatePml(mmu: Mmu, pml: PmlBuffer): void {
  pml.enabled = mmu.cpuDirtyLogSize !== 0 && mmu.cpuDirtyLoggingCount > 0;
}
