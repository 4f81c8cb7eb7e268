/**
 * Formats of entries, as masks: what the kernel keeps in its `shadow_*_mask` variables. Some bits are where they are in
 * every format, and those are constants (spte.ts): P or R in bit 0, W, size, MMU-present, the frame.
 *
 *     x86-64 (shadow paging, NPT)                     EPT
 *     63 NX                                           63 suppress #VE (since 6.10)
 *                                                     58 MMU-writable   57 host-writable
 *                                                     56, 54 X and R of an entry that is tracked by taking them away
 *     53:52 A/D type, always 0                        53:52 A/D type: 0 has A and D, 1 has none, 2 has, but writes are
 *                                                           logged by W (pages of nested guests under PML)
 *     11 MMU-present                                  11 MMU-present
 *     10 MMU-writable   9 host-writable               9 D   8 A   (with A/D)
 *     7 size   6 D   5 A   4, 3 memory type (0)       7 size   6 ignore PAT   5:3 memory type
 *     2 U   1 W   0 P                                 2 X   1 W   0 R
 *
 * MMIO entries: x86-64 sets a reserved bit, 51, in a present entry; EPT is writable and executable, not readable, which is a
 * misconfiguration. Both have the generation in bits 3-10 and 52-62.
 *
 * Without A and D an entry's use is told by access tracking: ageing takes R, W and X away and saves R and X, and the next
 * access faults and gets them back.
 *
 * Not there: entries that hide frames from L1TF, memory encryption. The CPUs meant need no such mask, or have no such key.
 *
 * Source: Linux 6.1 spte.c kvm_mmu_reset_all_pte_masks, kvm_mmu_set_ept_masks; spte.h.
 */
export interface SpteFormat {
  readonly name: string;
  /** @kvm shadow_present_mask. EPT has none in the low word if the CPU knows execute-only entries. */
  readonly presentLo: number;
  readonly presentHi: number;
  /** @kvm shadow_user_mask */
  readonly userLo: number;
  /** What lets execute, or what forbids it: one of the two is 0. @kvm shadow_x_mask, shadow_nx_mask */
  readonly xLo: number;
  readonly nxHi: number;
  /** 0: the CPU keeps none. @kvm shadow_accessed_mask, shadow_dirty_mask */
  readonly accessedLo: number;
  readonly dirtyLo: number;
  /** @kvm shadow_host_writable_mask */
  readonly hostWritableLo: number;
  readonly hostWritableHi: number;
  /** @kvm shadow_mmu_writable_mask */
  readonly mmuWritableLo: number;
  readonly mmuWritableHi: number;
  /** Memory type of a leaf that maps RAM. @kvm shadow_memtype_mask, vmx_get_mt_mask */
  readonly memtypeLo: number;
  /** What access tracking takes away. @kvm shadow_acc_track_mask */
  readonly accTrackLo: number;
  /** An MMIO entry has `value` under `mask`. @kvm shadow_mmio_value, shadow_mmio_mask */
  readonly mmioValueLo: number;
  readonly mmioValueHi: number;
  readonly mmioMaskLo: number;
  readonly mmioMaskHi: number;
  /** Rights that an MMIO entry keeps. @kvm shadow_mmio_access_mask */
  readonly mmioAccess: number;
}

/** Shadow paging and NPT. */
export const X86_64_FORMAT: SpteFormat = {
  name: 'x86-64',
  presentLo: 1 << 0,
  presentHi: 0,
  userLo: 1 << 2,
  xLo: 0,
  nxHi: 1 << 31,
  accessedLo: 1 << 5,
  dirtyLo: 1 << 6,
  hostWritableLo: 1 << 9,
  hostWritableHi: 0,
  mmuWritableLo: 1 << 10,
  mmuWritableHi: 0,
  memtypeLo: 0,
  accTrackLo: 0,
  mmioValueLo: 1 << 0,
  mmioValueHi: 1 << (51 - 32),
  mmioMaskLo: 1 << 0,
  mmioMaskHi: 1 << (51 - 32),
  mmioAccess: 6,
};

const EPT_R = 1 << 0;
const EPT_W = 1 << 1;
const EPT_X = 1 << 2;
const EPT_WRITE_BACK = 6 << 3;
const EPT_IGNORE_PAT = 1 << 6;
const EPT_A = 1 << 8;
const EPT_D = 1 << 9;
const EPT_SUPPRESS_VE_HI = 1 << 31;

/** What of EPT a CPU can do, and KVM uses. */
export interface EptFeatures {
  /** A and D in EPT's entries. @kvm enable_ept_ad_bits */
  readonly ad: boolean;
  /** Entries that let execute and not read. @kvm cpu_has_vmx_ept_execute_only */
  readonly executeOnly: boolean;
  /** Page-modification logging; only with A and D. @kvm enable_pml */
  readonly pml: boolean;
}

/**
 * `suppressVe`: of Linux since 6.10. No device bypasses the caches here, so memory is write-back whatever the guest says.
 * @kvm kvm_mmu_set_ept_masks
 */
export function eptFormat(ept: EptFeatures, suppressVe: boolean): SpteFormat {
  return {
    name: ept.ad ? 'EPT' : 'EPT without A and D',
    presentLo: ept.executeOnly ? 0 : EPT_R,
    presentHi: suppressVe ? EPT_SUPPRESS_VE_HI : 0,
    userLo: EPT_R,
    xLo: EPT_X,
    nxHi: 0,
    accessedLo: ept.ad ? EPT_A : 0,
    dirtyLo: ept.ad ? EPT_D : 0,
    hostWritableLo: 0,
    hostWritableHi: 1 << (57 - 32),
    mmuWritableLo: 0,
    mmuWritableHi: 1 << (58 - 32),
    memtypeLo: EPT_WRITE_BACK | EPT_IGNORE_PAT,
    accTrackLo: EPT_R | EPT_W | EPT_X,
    mmioValueLo: EPT_W | EPT_X,
    mmioValueHi: 0,
    mmioMaskLo: EPT_R | EPT_W | EPT_X,
    mmioMaskHi: suppressVe ? EPT_SUPPRESS_VE_HI : 0,
    mmioAccess: 0,
  };
}
