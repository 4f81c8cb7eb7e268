/** Page sizes and levels: level 1 maps 4 KiB, 2 maps 2 MiB, 3 maps 1 GiB. */
export const PAGE_SHIFT = 12;
export const PAGE_BYTES = 4096;
export const LEVEL_4K = 1;
export const LEVEL_2M = 2;
export const LEVEL_1G = 3;
/** Highest level at which a leaf may stand. @kvm KVM_MAX_HUGEPAGE_LEVEL */
export const MAX_HUGEPAGE_LEVEL = 3;

/** Pages that one entry of `level` maps: 1, 512, 2^18, 2^27. @kvm KVM_PAGES_PER_HPAGE */
export function pagesPerLevel(level: number): number {
  // An int as long as it fits; 2^36 as a mask of an int is that of none of its bits.
  return level < 5 ? 1 << (9 * (level - 1)) : 2 ** 36;
}
