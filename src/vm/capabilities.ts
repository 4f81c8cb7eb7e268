/** KVM's capabilities: what KVM_CHECK_EXTENSION answers for what is built, and the numbers of those that can be enabled. */
import { DIRTY_GFN_BYTES, DIRTY_RING_MAX_ENTRIES } from '../mem/dirty-ring.ts';
import { ADDRESS_SPACES } from '../mem/memslots.ts';
import type { Mmu } from '../mmu/mmu.ts';

/** Highest slot number + 1 for user space. @kvm KVM_USER_MEM_SLOTS */
export const USER_MEM_SLOTS = 32764;
/** @kvm KVM_MAX_VCPUS */
export const MAX_VCPUS = 1024;

/** @kvm KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
export const CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168;
/** @kvm KVM_CAP_VM_DISABLE_NX_HUGE_PAGES */
export const CAP_VM_DISABLE_NX_HUGE_PAGES = 220;

/** @kvm KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL: on x86 they are the same. */
export const CAP_DIRTY_LOG_RING = 192;
export const CAP_DIRTY_LOG_RING_ACQ_REL = 223;

/** @kvm KVM_CAP_DISABLE_QUIRKS, KVM_CAP_DISABLE_QUIRKS2: the second refuses bits that it doesn't know. */
export const CAP_DISABLE_QUIRKS = 116;
export const CAP_DISABLE_QUIRKS2 = 213;
/** A slot that goes takes all mappings along. @kvm KVM_X86_QUIRK_SLOT_ZAP_ALL */
export const QUIRK_SLOT_ZAP_ALL = 1 << 7;
/** A guest's memory types don't count; without nested paging KVM has none to give up. @kvm KVM_X86_QUIRK_IGNORE_GUEST_PAT */
const QUIRK_IGNORE_GUEST_PAT = 1 << 9;
/** @kvm KVM_CAP_PRE_FAULT_MEMORY */
export const CAP_PRE_FAULT_MEMORY = 236;

const EXTENSIONS: ReadonlyMap<number, number> = new Map([
  [2, 1], // MMU_SHADOW_CACHE_CONTROL: KVM_SET_NR_MMU_PAGES
  [3, 1], // USER_MEMORY
  [10, USER_MEM_SLOTS], // NR_MEMSLOTS
  [16, 1], // SYNC_MMU
  [21, 1], // DESTROY_MEMORY_REGION_WORKS
  [30, 1], // JOIN_MEMORY_REGIONS_WORKS
  [66, MAX_VCPUS], // MAX_VCPUS
  [81, 1], // READONLY_MEM
  [98, 1], // ENABLE_CAP_VM
  [CAP_DISABLE_QUIRKS, 1],
  [105, 1], // CHECK_EXTENSION_VM
  [118, ADDRESS_SPACES], // MULTI_ADDRESS_SPACE
  [136, 1], // IMMEDIATE_EXIT
  [CAP_MANUAL_DIRTY_LOG_PROTECT2, 3],
  [CAP_VM_DISABLE_NX_HUGE_PAGES, 1],
  // Bytes of the largest ring.
  [CAP_DIRTY_LOG_RING, DIRTY_RING_MAX_ENTRIES * DIRTY_GFN_BYTES],
  [CAP_DIRTY_LOG_RING_ACQ_REL, DIRTY_RING_MAX_ENTRIES * DIRTY_GFN_BYTES],
]);

/** Quirks that user space can turn off. @kvm kvm_caps.supported_quirks */
export function supportedQuirks({ kernel, tdp }: Pick<Mmu, 'kernel' | 'tdp'>): number {
  return tdp ? kernel.validQuirks : kernel.validQuirks & ~QUIRK_IGNORE_GUEST_PAT;
}

/** 0 for what isn't there. @kvm KVM_CHECK_EXTENSION */
export function checkExtension({ kernel, tdp }: Pick<Mmu, 'kernel' | 'tdp'>, capability: number): number {
  if (capability === CAP_DISABLE_QUIRKS2) return supportedQuirks({ kernel, tdp });
  if (capability === CAP_PRE_FAULT_MEMORY) return kernel.preFault && tdp ? 1 : 0;
  return EXTENSIONS.get(capability) ?? 0;
}
