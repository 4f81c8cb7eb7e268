/**
 * KVM's own accesses to guest memory, by guest-physical address: through the memslots and the host's mapping, not
 * through any table. A write marks the page dirty in the log but sets no bit of any entry and faults nothing in KVM.
 *
 * All copies go through `mmu.bytes` / `mmu.words`. None may cross a page. Source: Linux 6.1 kvm_main.c.
 */
import { type MemSlot, setDirtyBit } from '../mem/memslots.ts';
import { type Mmu, vcpuSlot } from './mmu.ts';
import type { MmuVcpu } from './vcpu.ts';

/** Host address of a gfn, or -1: no slot, or one that is being deleted. @kvm gfn_to_hva_memslot_prot */
export function hvaOfGfn(slot: MemSlot | null, gfn: number): number {
  return slot === null || slot.isInvalid ? -1 : slot.hvaOf(gfn);
}

/** @kvm mark_page_dirty_in_slot */
export function markPageDirty(slot: MemSlot | null, gfn: number): void {
  if (slot === null || !slot.logsDirty) return;
  if (slot.dirtyBitmap !== null) setDirtyBit(slot.dirtyBitmap, gfn - slot.baseGfn);
  else if (slot.dirtySink !== null) slot.dirtySink.push(slot, gfn - slot.baseGfn);
}

/**
 * Reads `count` bytes at (gfn, offset) into `mmu.bytes`, without faulting anything in. @kvm kvm_vcpu_read_guest_atomic
 */
export function readGuestAtomic(mmu: Mmu, vcpu: MmuVcpu, gfn: number, offset: number, count: number): boolean {
  const hva = hvaOfGfn(vcpuSlot(mmu, vcpu, gfn), gfn);
  return hva >= 0 && mmu.host.readUserAtomic(hva + offset, mmu.bytes, count) === 0;
}

/** Reads `count` bytes at (gfn, offset) into `mmu.bytes`, as a process does. @kvm kvm_vcpu_read_guest_page */
export function readGuest(mmu: Mmu, vcpu: MmuVcpu, gfn: number, offset: number, count: number): boolean {
  const hva = hvaOfGfn(vcpuSlot(mmu, vcpu, gfn), gfn);
  return hva >= 0 && mmu.host.readUser(hva + offset, mmu.bytes, count) === 0;
}

/** Writes `count` bytes of `mmu.bytes` to (gfn, offset) and logs the page. @kvm kvm_vcpu_write_guest_page */
export function writeGuest(mmu: Mmu, vcpu: MmuVcpu, gfn: number, offset: number, count: number): boolean {
  const slot = vcpuSlot(mmu, vcpu, gfn);
  const hva = hvaOfGfn(slot, gfn);
  if (hva < 0 || slot?.isReadonly) return false;
  if (mmu.host.writeUser(hva + offset, mmu.bytes, count) !== 0) return false;
  markPageDirty(slot, gfn);
  return true;
}
