/**
 * Statistics by KVM's names, in its order. Gauges (pages_*, mmu_unsync, nx_lpage_splits) go up and down, peaks
 * (max_*) keep the largest value seen, the rest only counts up. Source: Linux 6.1 x86.c kvm_vm_stats_desc,
 * kvm_vcpu_stats_desc.
 */
export const VM_STAT_NAMES = [
  'remote_tlb_flush',
  'remote_tlb_flush_requests',
  'mmu_shadow_zapped',
  'mmu_pte_write',
  'mmu_pde_zapped',
  'mmu_flooded',
  'mmu_recycled',
  'mmu_cache_miss',
  'mmu_unsync',
  'pages_4k',
  'pages_2m',
  'pages_1g',
  'nx_lpage_splits',
  'max_mmu_rmap_size',
  'max_mmu_page_hash_collisions',
] as const;
export type VmStatName = (typeof VM_STAT_NAMES)[number];

export const VCPU_STAT_NAMES = [
  'pf_taken',
  'pf_fixed',
  'pf_emulate',
  'pf_spurious',
  'pf_fast',
  'pf_mmio_spte_created',
  'pf_guest',
  'tlb_flush',
  'invlpg',
  'exits',
  'mmio_exits',
] as const;
export type VcpuStatName = (typeof VCPU_STAT_NAMES)[number];

/** Counters of a VM: plain fields, so that a count costs one add. */
export class VmStats {
  remote_tlb_flush = 0;
  remote_tlb_flush_requests = 0;
  mmu_shadow_zapped = 0;
  mmu_pte_write = 0;
  mmu_pde_zapped = 0;
  mmu_flooded = 0;
  mmu_recycled = 0;
  mmu_cache_miss = 0;
  mmu_unsync = 0;
  pages_4k = 0;
  pages_2m = 0;
  pages_1g = 0;
  nx_lpage_splits = 0;
  max_mmu_rmap_size = 0;
  max_mmu_page_hash_collisions = 0;
}

/** Counters of a vCPU. */
export class VcpuStats {
  pf_taken = 0;
  pf_fixed = 0;
  pf_emulate = 0;
  pf_spurious = 0;
  pf_fast = 0;
  pf_mmio_spte_created = 0;
  pf_guest = 0;
  tlb_flush = 0;
  invlpg = 0;
  exits = 0;
  mmio_exits = 0;
}
