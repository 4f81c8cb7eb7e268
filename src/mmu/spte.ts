/**
 * A shadow page table entry ("spte"): what it is made of and what may be asked of it.
 *
 *     63   62 ........ 52   51 ............ 12   11   10   9   8   7   6   5   4   3   2   1   0
 *     +----+-------------+-------------------+----+----+---+---+---+---+---+-------+---+---+---+
 *     | NX |  (unused)   |   frame number    | MP | MW |HW | G | S | D | A | 0   0 | U | W | P |
 *     +----+-------------+-------------------+----+----+---+---+---+---+---+-------+---+---+---+
 *
 * MP "MMU-present" is the one test of presence: an MMIO entry has P too, and hardware must not be asked. It sits in
 * the low word because it is tested everywhere. HW "host-writable": the host maps the page writable. MW
 * "MMU-writable": KVM may set W again without looking at shadow pages, so the lockless fast fault may.
 *
 *     HW MW W    why                                                             who may set W
 *      1  1  1   writable                                                        -
 *      1  1  0   write-protected for dirty logging                               fast page fault
 *      1  0  0   the frame holds a shadowed or tracked guest page table          the slow path, after unsync
 *      0  0  0   read-only in the host (copy on write, zero page, RO slot)       nobody
 *
 * INVARIANT writable: W implies MW, MW implies HW.
 *
 * Format of shadow paging and NPT (x86-64). Source: Linux 6.1 spte.h, spte.c; AMD APM vol. 2, 5.4.
 */

export const SPTE_P = 1 << 0;
export const SPTE_W = 1 << 1;
export const SPTE_U = 1 << 2;
export const SPTE_A = 1 << 5;
export const SPTE_D = 1 << 6;
export const SPTE_PSE = 1 << 7;
/** @kvm DEFAULT_SPTE_HOST_WRITABLE, shadow_host_writable_mask */
export const SPTE_HOST_WRITABLE = 1 << 9;
/** @kvm DEFAULT_SPTE_MMU_WRITABLE, shadow_mmu_writable_mask */
export const SPTE_MMU_WRITABLE = 1 << 10;
/** @kvm SPTE_MMU_PRESENT_MASK */
export const SPTE_MMU_PRESENT = 1 << 11;
export const SPTE_NX_HI = 1 << 31;

/** Cumulative access rights as a shadow page's role and the guest walker hold them. @kvm ACC_EXEC_MASK ... ACC_ALL */
export const ACC_EXEC = 1;
export const ACC_WRITE = 2;
export const ACC_USER = 4;
export const ACC_ALL = 7;

/** Presence, of the low word. @kvm is_shadow_present_pte */
export function isShadowPresent(lo: number): boolean {
  return (lo & SPTE_MMU_PRESENT) !== 0;
}

/** @kvm is_large_pte */
export function isLarge(lo: number): boolean {
  return (lo & SPTE_PSE) !== 0;
}

/** Maps memory rather than a table; presence is the caller's to test. @kvm is_last_spte */
export function isLast(lo: number, level: number): boolean {
  return level === 1 || (lo & SPTE_PSE) !== 0;
}

/** @kvm is_writable_pte */
export function isWritable(lo: number): boolean {
  return (lo & SPTE_W) !== 0;
}

/** @kvm is_mmu_writable_spte */
export function isMmuWritable(lo: number): boolean {
  return (lo & SPTE_MMU_WRITABLE) !== 0;
}

/** @kvm is_accessed_spte */
export function isAccessed(lo: number): boolean {
  return (lo & SPTE_A) !== 0;
}

/** @kvm is_dirty_spte */
export function isDirty(lo: number): boolean {
  return (lo & SPTE_D) !== 0;
}

/** @kvm is_executable_pte */
export function isExecutable(hi: number): boolean {
  return (hi & SPTE_NX_HI) === 0;
}

/**
 * May the CPU or the lockless fast fault change the entry behind our back? Then it must be replaced atomically.
 * @kvm spte_has_volatile_bits
 */
export function hasVolatileBits(lo: number): boolean {
  if ((lo & (SPTE_W | SPTE_MMU_WRITABLE)) === SPTE_MMU_WRITABLE) return true;
  return (lo & SPTE_A) === 0 || (lo & (SPTE_W | SPTE_D)) === SPTE_W;
}

/** Frame number: bits 12 to 42 of the entry; frames lie below 2^31. @kvm spte_to_pfn */
export function pfnOf(lo: number, hi: number): number {
  return (lo >>> 12) | ((hi & 0x7ff) << 20);
}

/** Low word's share of a frame number. */
export function pfnLo(pfn: number): number {
  return pfn << 12;
}

/** High word's share of a frame number. */
export function pfnHi(pfn: number): number {
  return pfn >>> 20;
}

/** An entry that points at the table with frame number `pfn`: full rights, as rights are enforced at the leaf only.
 * The high word is `pfnHi(pfn)`. @kvm make_nonleaf_spte */
export function nonleafLo(pfn: number): number {
  return pfnLo(pfn) | SPTE_MMU_PRESENT | SPTE_P | SPTE_W | SPTE_U | SPTE_A;
}

/**
 * One leaf of the next smaller size out of a large one: frame and size change, every right and state bit is
 * inherited. `pfnOffset` in pages. The high word is computed by `pfnHi` of the child frame, NX kept.
 * @kvm make_huge_page_split_spte
 */
export function splitChildLo(hugeLo: number, hugeHi: number, pfnOffset: number, childLevel: number): number {
  const flags = hugeLo & 0xfff & (childLevel === 1 ? ~SPTE_PSE : ~0);
  return pfnLo(pfnOf(hugeLo, hugeHi) + pfnOffset) | flags;
}

/**
 * An entry of the TDP MMU that is frozen while its table is torn down or its TLB entries are flushed: not present, and
 * nobody stores over it. The high word is the kernel's `frozenHi`. @kvm REMOVED_SPTE, FROZEN_SPTE
 */
export const REMOVED_SPTE_LO = 0x5a0;

/** @kvm is_removed_spte, is_frozen_spte */
export function isRemoved(lo: number, hi: number): boolean {
  return lo === REMOVED_SPTE_LO && (hi & 0x7fffffff) === 0;
}

// ---- MMIO entries ----------------------------------------------------------------------------------------------
//
//     bit 51 (reserved on this CPU: the access faults with RSVD) + P      signature
//     bits 1, 2                                                           W and U of the access
//     bits 3-10, 52-62                                                    generation, 8 low and 11 high bits
//     bits 12-                                                            gfn

export const MMIO_SIGNATURE_HI = 1 << 19;
/** @kvm MMIO_SPTE_GEN_MASK */
export const MMIO_GEN_MASK = (1 << 19) - 1;
const MMIO_GEN_LOW_SHIFT = 3;
const MMIO_GEN_LOW_MASK = 0xff;
const MMIO_GEN_HIGH_SHIFT_HI = 52 - 32;
/** One too low: the first bit would fall on the signature. */
export const MMIO_GEN_OVERLAPPING_SHIFT_HI = 51 - 32;
const MMIO_GEN_HIGH_MASK = 0x7ff;
/** @kvm shadow_mmio_access_mask */
export const MMIO_ACCESS_MASK = ACC_WRITE | ACC_USER;

/** @kvm is_mmio_spte */
export function isMmioSpte(lo: number, hi: number): boolean {
  return (hi & MMIO_SIGNATURE_HI) !== 0 && (lo & (SPTE_P | SPTE_MMU_PRESENT)) === SPTE_P;
}

/** @kvm make_mmio_spte */
export function mmioSpteLo(gfn: number, access: number, generation: number): number {
  const gen = generation & MMIO_GEN_LOW_MASK;
  return pfnLo(gfn) | (gen << MMIO_GEN_LOW_SHIFT) | (access & MMIO_ACCESS_MASK) | SPTE_P;
}
export function mmioSpteHi(gfn: number, generation: number, highShift = MMIO_GEN_HIGH_SHIFT_HI): number {
  const gen = (generation & MMIO_GEN_MASK) >>> 8;
  return pfnHi(gfn) | MMIO_SIGNATURE_HI | (gen << highShift);
}

/** @kvm get_mmio_spte_generation */
export function mmioGeneration(lo: number, hi: number, highShift = MMIO_GEN_HIGH_SHIFT_HI): number {
  const low = (lo >>> MMIO_GEN_LOW_SHIFT) & MMIO_GEN_LOW_MASK;
  return low | ((((hi & ~MMIO_SIGNATURE_HI) >>> highShift) & MMIO_GEN_HIGH_MASK) << 8);
}

/** @kvm get_mmio_spte_gfn */
export function mmioGfn(lo: number, hi: number): number {
  return pfnOf(lo, hi & 0x7ff);
}

/** @kvm get_mmio_spte_access */
export function mmioAccess(lo: number): number {
  return lo & MMIO_ACCESS_MASK;
}

if (isShadowPresent(REMOVED_SPTE_LO) || isMmioSpte(REMOVED_SPTE_LO, 0))
  throw new Error('a frozen entry means something');

// Checks at import: no two masks of a present leaf overlap, and the MMIO generation stays clear of P, MP and bit 51.
const ALL = [SPTE_P, SPTE_W, SPTE_U, SPTE_A, SPTE_D, SPTE_PSE, SPTE_HOST_WRITABLE, SPTE_MMU_WRITABLE, SPTE_MMU_PRESENT];
if (ALL.reduce((a, b) => a + b) !== ALL.reduce((a, b) => a | b)) throw new Error('spte bits overlap');
if (((MMIO_GEN_LOW_MASK << MMIO_GEN_LOW_SHIFT) & (SPTE_P | SPTE_MMU_PRESENT | MMIO_ACCESS_MASK)) !== 0)
  throw new Error('the MMIO generation overlaps other bits');
if (((MMIO_GEN_HIGH_MASK << MMIO_GEN_HIGH_SHIFT_HI) & MMIO_SIGNATURE_HI) !== 0)
  throw new Error('the MMIO generation overlaps bit 51');
