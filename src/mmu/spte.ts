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
 * The picture is the format of shadow paging and NPT (x86-64). EPT's has some bits elsewhere, so functions that look at them
 * take a SpteFormat. Source: Linux 6.1 spte.h, spte.c; AMD APM vol. 2, 5.4; Intel SDM vol. 3, 29.3.2.
 */
import { eptFormat, type SpteFormat, X86_64_FORMAT } from './spte-format.ts';

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

/** A/D types, in the high word. @kvm SPTE_TDP_AD_MASK, SPTE_TDP_AD_DISABLED_MASK, SPTE_TDP_AD_WRPROT_ONLY_MASK */
export const SPTE_AD_TYPE_HI = 3 << (52 - 32);
export const SPTE_AD_DISABLED_HI = 1 << (52 - 32);
export const SPTE_AD_WRPROT_ONLY_HI = 2 << (52 - 32);
/** Where R and X of an access-tracked entry are kept. @kvm SHADOW_ACC_TRACK_SAVED_BITS_MASK */
const SAVED_SHIFT_HI = 54 - 32;
const SAVED_BITS = 5;

/** @kvm is_mmu_writable_spte */
export function isMmuWritable(f: SpteFormat, lo: number, hi: number): boolean {
  return ((lo & f.mmuWritableLo) | (hi & f.mmuWritableHi)) !== 0;
}

/** @kvm shadow_host_writable_mask */
export function isHostWritable(f: SpteFormat, lo: number, hi: number): boolean {
  return ((lo & f.hostWritableLo) | (hi & f.hostWritableHi)) !== 0;
}

/** Does the CPU keep A and D in the entry? @kvm spte_ad_enabled */
export function hasAccessedDirty(hi: number): boolean {
  return (hi & SPTE_AD_TYPE_HI) !== SPTE_AD_DISABLED_HI;
}

/** Are writes to be logged by taking W away rather than D? @kvm spte_ad_need_write_protect */
export function needsWriteProtect(hi: number): boolean {
  return (hi & SPTE_AD_TYPE_HI) !== 0;
}

/** Nobody used it since it was aged: R, W and X are gone until somebody does. @kvm is_access_track_spte */
export function isAccessTracked(f: SpteFormat, lo: number, hi: number): boolean {
  return !hasAccessedDirty(hi) && (lo & f.accTrackLo) === 0;
}

/** @kvm is_accessed_spte */
export function isAccessed(f: SpteFormat, lo: number, hi: number): boolean {
  return hasAccessedDirty(hi) ? (lo & f.accessedLo) !== 0 : (lo & f.accTrackLo) !== 0;
}

/** Without D: writable. @kvm is_dirty_spte */
export function isDirty(f: SpteFormat, lo: number, hi: number): boolean {
  return (lo & (hasAccessedDirty(hi) ? f.dirtyLo : SPTE_W)) !== 0;
}

/** @kvm is_executable_pte */
export function isExecutable(f: SpteFormat, lo: number, hi: number): boolean {
  return (lo & f.xLo) === f.xLo && (hi & f.nxHi) === 0;
}

/**
 * May the CPU or the lockless fast fault change the entry behind our back? Then it must be replaced atomically.
 * @kvm spte_has_volatile_bits
 */
export function hasVolatileBits(f: SpteFormat, lo: number, hi: number): boolean {
  if (!isWritable(lo) && isMmuWritable(f, lo, hi)) return true;
  if (!hasAccessedDirty(hi)) return (lo & f.accTrackLo) === 0;
  return (lo & f.accessedLo) === 0 || (isWritable(lo) && (lo & f.dirtyLo) === 0);
}

/**
 * An entry as if nobody had used it: A goes, or (access tracking) R, W and X do. W isn't kept: the next write must be seen.
 * The two words of `mark_spte_for_access_track`. @kvm mark_spte_for_access_track
 */
export function unaccessedLo(f: SpteFormat, lo: number, hi: number): number {
  return hasAccessedDirty(hi) ? lo & ~f.accessedLo : lo & ~f.accTrackLo;
}
export function unaccessedHi(f: SpteFormat, lo: number, hi: number): number {
  return hasAccessedDirty(hi) ? hi : hi | ((lo & f.accTrackLo & SAVED_BITS) << SAVED_SHIFT_HI);
}

/** An access-tracked entry gets R and X back. @kvm restore_acc_track_spte */
export function restoredLo(f: SpteFormat, lo: number, hi: number): number {
  return (lo & ~f.accTrackLo) | ((hi >>> SAVED_SHIFT_HI) & SAVED_BITS);
}
export function restoredHi(hi: number): number {
  return hi & ~(SAVED_BITS << SAVED_SHIFT_HI);
}

/** The high word's share of the frame. @kvm SPTE_BASE_ADDR_MASK */
const FRAME_HI = 0xfffff;

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

/**
 * An entry that points at the table with frame number `pfn`: full rights, as rights are enforced at the leaf only.
 * `adDisabled`: of the table's role. @kvm make_nonleaf_spte
 */
export function nonleafLo(f: SpteFormat, pfn: number, adDisabled: boolean): number {
  const rights = f.presentLo | SPTE_W | f.userLo | f.xLo;
  return pfnLo(pfn) | SPTE_MMU_PRESENT | rights | (adDisabled ? 0 : f.accessedLo);
}
export function nonleafHi(f: SpteFormat, pfn: number, adDisabled: boolean): number {
  return pfnHi(pfn) | f.presentHi | (adDisabled ? SPTE_AD_DISABLED_HI : 0);
}

/**
 * One leaf of the next smaller size out of a large one: frame and size change, every right and state bit is
 * inherited. `pfnOffset` in pages. `executable`: made so, where the mitigation kept only the large one from it.
 * @kvm make_huge_page_split_spte, make_spte_executable
 */
export function splitChildLo(
  f: SpteFormat,
  hugeLo: number,
  hugeHi: number,
  pfnOffset: number,
  childLevel: number,
  executable: boolean,
): number {
  const flags = hugeLo & 0xfff & (childLevel === 1 ? ~SPTE_PSE : ~0);
  const x = executable && !isAccessTracked(f, hugeLo, hugeHi) ? f.xLo : 0;
  return pfnLo(pfnOf(hugeLo, hugeHi) + pfnOffset) | flags | x;
}
export function splitChildHi(
  f: SpteFormat,
  hugeLo: number,
  hugeHi: number,
  pfnOffset: number,
  executable: boolean,
): number {
  const flags = hugeHi & ~FRAME_HI;
  const hi = pfnHi(pfnOf(hugeLo, hugeHi) + pfnOffset);
  if (!executable) return hi | flags;
  const saved = isAccessTracked(f, hugeLo, hugeHi) ? f.xLo << SAVED_SHIFT_HI : 0;
  return hi | (flags & ~f.nxHi) | saved;
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
//     the format's value under its mask     x86-64: bit 51 (reserved on this CPU) + P; EPT: W and X without R
//     bits 1, 2                             x86-64: W and U of the access
//     bits 3-10, 52-62                      generation, 8 low and 11 high bits
//     bits 12-                              gfn

/** @kvm MMIO_SPTE_GEN_MASK */
export const MMIO_GEN_MASK = (1 << 19) - 1;
const MMIO_GEN_LOW_SHIFT = 3;
const MMIO_GEN_LOW_MASK = 0xff;
const MMIO_GEN_HIGH_SHIFT_HI = 52 - 32;
/** One too low: the first bit would fall on the signature of x86-64. */
export const MMIO_GEN_OVERLAPPING_SHIFT_HI = 51 - 32;
const MMIO_GEN_HIGH_MASK = 0x7ff;

/** @kvm is_mmio_spte */
export function isMmioSpte(f: SpteFormat, lo: number, hi: number): boolean {
  return (lo & f.mmioMaskLo) === f.mmioValueLo && (hi & f.mmioMaskHi) === f.mmioValueHi;
}

/** @kvm make_mmio_spte */
export function mmioSpteLo(f: SpteFormat, gfn: number, access: number, generation: number): number {
  const gen = generation & MMIO_GEN_LOW_MASK;
  return pfnLo(gfn) | (gen << MMIO_GEN_LOW_SHIFT) | (access & f.mmioAccess) | f.mmioValueLo;
}
export function mmioSpteHi(f: SpteFormat, gfn: number, generation: number, highShift = MMIO_GEN_HIGH_SHIFT_HI): number {
  const gen = (generation & MMIO_GEN_MASK) >>> 8;
  return pfnHi(gfn) | f.mmioValueHi | (gen << highShift);
}

/** @kvm get_mmio_spte_generation */
export function mmioGeneration(f: SpteFormat, lo: number, hi: number, highShift = MMIO_GEN_HIGH_SHIFT_HI): number {
  const low = (lo >>> MMIO_GEN_LOW_SHIFT) & MMIO_GEN_LOW_MASK;
  return low | ((((hi & ~f.mmioValueHi) >>> highShift) & MMIO_GEN_HIGH_MASK) << 8);
}

/** @kvm get_mmio_spte_gfn */
export function mmioGfn(lo: number, hi: number): number {
  return pfnOf(lo, hi & 0x7ff);
}

/** @kvm get_mmio_spte_access */
export function mmioAccess(f: SpteFormat, lo: number): number {
  return lo & f.mmioAccess;
}

// Checks at import: a frozen entry means nothing else, no two masks of a present leaf overlap, and the generation of an MMIO
// entry stays clear of what tells it.
const LOW = [SPTE_MMU_PRESENT, SPTE_PSE, SPTE_W];
const GEN_LO = MMIO_GEN_LOW_MASK << MMIO_GEN_LOW_SHIFT;
const GEN_HI = MMIO_GEN_HIGH_MASK << MMIO_GEN_HIGH_SHIFT_HI;

/** Throws unless a format's bits are apart from each other and from those of every format. */
export function checkFormat(f: SpteFormat): void {
  const low = [...LOW, f.userLo, f.xLo, f.accessedLo, f.dirtyLo, f.hostWritableLo, f.mmuWritableLo, f.memtypeLo];
  if (f.presentLo !== f.userLo) low.push(f.presentLo);
  const high = [f.presentHi, f.nxHi, f.hostWritableHi, f.mmuWritableHi, SPTE_AD_TYPE_HI, SAVED_BITS << SAVED_SHIFT_HI];
  for (const masks of [low, high])
    if (masks.reduce((a, b) => a + (b >>> 0), 0) !== masks.reduce((a, b) => a | b) >>> 0)
      throw new Error(`${f.name}: bits of an entry overlap`);
  if (GEN_LO & (f.mmioMaskLo | f.mmioAccess | SPTE_MMU_PRESENT) || GEN_HI & f.mmioMaskHi)
    throw new Error(`${f.name}: the MMIO generation overlaps other bits`);
  if (isShadowPresent(REMOVED_SPTE_LO) || isMmioSpte(f, REMOVED_SPTE_LO, 0))
    throw new Error(`${f.name}: a frozen entry means something`);
}

checkFormat(X86_64_FORMAT);
for (const ad of [false, true])
  for (const suppressVe of [false, true]) checkFormat(eptFormat({ ad, executeOnly: ad, pml: ad }, suppressVe));
