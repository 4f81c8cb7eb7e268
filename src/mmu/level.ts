/**
 * How large a mapping may be. Source: Linux 6.1 mmu.c kvm_mmu_hugepage_adjust.
 */
import { LEVEL_4K, MAX_HUGEPAGE_LEVEL, pagesPerLevel } from '../base/page.ts';
import { gfnToIndex, type MemSlot } from '../mem/memslots.ts';
import type { Mmu } from './mmu.ts';
import type { PageFault } from './page-fault.ts';
import { spteHi, spteLo } from './rmap.ts';
import { childOf } from './shadow-pages.ts';
import { isLarge, isShadowPresent } from './spte.ts';

/**
 * The largest level at most `maxLevel` that neither a shadowed table nor the slot's edges forbid and that the host
 * maps as one. @kvm kvm_mmu_max_mapping_level
 */
export function maxMappingLevel(mmu: Mmu, slot: MemSlot, gfn: number, maxLevel: number): number {
  let level = Math.min(maxLevel, MAX_HUGEPAGE_LEVEL);
  for (; level > LEVEL_4K; level--) if (slot.lpageInfo[level - 2][gfnToIndex(gfn, slot.baseGfn, level)] === 0) break;
  if (level === LEVEL_4K) return level;
  return Math.min(level, mmu.host.mappingLevel(slot.hvaOf(gfn)));
}

/**
 * Decides the level of a fault's mapping: 4 KiB in logged slots, for MMIO, and for fetches under the NX huge page
 * mitigation, which still records what level would have been right. @kvm kvm_mmu_hugepage_adjust
 */
export function hugepageAdjust(mmu: Mmu, fault: PageFault): void {
  fault.hugePageDisallowed = fault.exec && fault.nxHugePageWorkaround;
  if (fault.maxLevel === LEVEL_4K || fault.pfn < 0 || fault.slot === null || fault.slot.logsDirty) return;
  fault.reqLevel = maxMappingLevel(mmu, fault.slot, fault.gfn, fault.maxLevel);
  if (fault.reqLevel === LEVEL_4K || fault.hugePageDisallowed) return;
  fault.goalLevel = fault.reqLevel;
  fault.pfn &= ~(pagesPerLevel(fault.goalLevel) - 1);
}

/**
 * Under the mitigation a table that stands where the huge page would go stays; since 6.2 only one that the mitigation
 * made. @kvm disallowed_hugepage_adjust
 */
export function disallowedHugepageAdjust(mmu: Mmu, fault: PageFault, sptep: number, level: number): void {
  const lo = spteLo(mmu, sptep);
  if (level === LEVEL_4K || level !== fault.goalLevel || !isShadowPresent(lo) || isLarge(lo)) return;
  if (mmu.kernel.nxMarksEveryTable && mmu.pages.lpageDisallowed[childOf(lo, spteHi(mmu, sptep))] === 0) return;
  fault.pfn |= fault.gfn & (pagesPerLevel(level) - pagesPerLevel(level - 1));
  fault.goalLevel--;
}
