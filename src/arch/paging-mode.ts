/**
 * The paging modes of an x86 CPU. A mode's number is its number of levels, which is also the level of its root.
 *
 *     mode       levels  entry    index bits of the address     root
 *     none         -       -      -                             -
 *     32-bit       2     4 bytes  31:22 21:12                   CR3[31:12]
 *     PAE          3     8 bytes  31:30 29:21 20:12             CR3[31:5], four entries
 *     4-level      4     8 bytes  47:39 38:30 29:21 20:12       CR3[M-1:12]
 *     5-level      5     8 bytes  56:48 and as 4-level          CR3[M-1:12]
 */
import { CR0_PG, CR4_LA57, CR4_PAE, EFER_LMA } from './control.ts';

export const PAGING_NONE = 0;
export const PAGING_32 = 2;
export const PAGING_PAE = 3;
export const PAGING_4LEVEL = 4;
export const PAGING_5LEVEL = 5;

/** The mode that the control registers (low words) select. */
export function pagingMode(cr0: number, cr4: number, efer: number): number {
  if (!(cr0 & CR0_PG)) return PAGING_NONE;
  if (efer & EFER_LMA) return cr4 & CR4_LA57 ? PAGING_5LEVEL : PAGING_4LEVEL;
  return cr4 & CR4_PAE ? PAGING_PAE : PAGING_32;
}

/** Index of an address in a table of 8-byte entries at `level` (1 to 5). In PAE the top level uses two bits of it. */
export function tableIndex(level: number, lo: number, hi: number): number {
  switch (level) {
    case 1:
      return (lo >>> 12) & 511;
    case 2:
      return (lo >>> 21) & 511;
    case 3:
      return (lo >>> 30) | ((hi & 0x7f) << 2);
    case 4:
      return (hi >>> 7) & 511;
    default:
      return (hi >>> 16) & 511;
  }
}

/** Are all bits above the mode's highest index bit copies of it? Always so outside long mode. */
export function isCanonical(mode: number, hi: number): boolean {
  if (mode < PAGING_4LEVEL) return true;
  const sign = mode === PAGING_5LEVEL ? hi >> 24 : hi >> 15;
  return sign === 0 || sign === -1;
}
