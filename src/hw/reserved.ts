/**
 * Reserved bits of a paging mode. They change only when the mode or EFER.NX does, and most are the same at all levels:
 *
 *              63        52 51      M  M-1                                                  0
 *     all     [NX?| PAE: yes |  yes  ]                                                              -> hi
 *     5, 4                                                                      [ AMD: G, PS]       -> upperLo
 *     3 large                           [ 29..13 ]                  (all: PS, if 1 GiB is missing)  -> large3Lo
 *     2 large                           [ 20..13 ]                           (32-bit: see PSE-36)   -> large2Lo
 *     PAE's 3 [NX | yes      |  yes  ]                              [ 8..5, 2..1 ]                  -> pdpteHi, pdpteLo
 */
import { PAGING_32, PAGING_PAE } from '../arch/paging-mode.ts';
import {
  PDPTE_PAE_RSVD_LO,
  PSE36_FRAME_HIGH_LO,
  PSE36_FRAME_HIGH_SHIFT,
  PSE36_RSVD_LO,
  PTE_1G_RSVD_LO,
  PTE_2M_RSVD_LO,
  PTE_AVL_HI,
  PTE_FRAME_HI,
  PTE_G_LO,
  PTE_NX_HI,
  PTE_PK_HI,
  PTE_PS_LO,
} from '../arch/pte.ts';
import type { CpuModel } from './cpu-model.ts';

/** Masks of one word each; an entry is malformed if it is present and has a bit of its mask. */
export interface ReservedBits {
  hi: number;
  upperLo: number;
  large3Lo: number;
  large2Lo: number;
  pdpteLo: number;
  pdpteHi: number;
}

/** Nothing reserved, to be filled in. */
export function newReservedBits(): ReservedBits {
  return { hi: 0, upperLo: 0, large3Lo: 0, large2Lo: 0, pdpteLo: 0, pdpteHi: 0 };
}

/** The masks of a mode, written into `out`. */
export function fillReserved(out: ReservedBits, mode: number, nx: boolean, model: CpuModel): void {
  if (mode === PAGING_32) {
    out.hi = 0;
    out.large2Lo = pse36Reserved(model.maxphyaddr);
    return;
  }
  out.hi = frameReservedHi(model.maxphyaddr);
  if (!nx) out.hi |= PTE_NX_HI;
  if (mode === PAGING_PAE) out.hi |= PTE_AVL_HI | PTE_PK_HI;
  out.upperLo = model.upperGlobalReserved ? PTE_PS_LO | PTE_G_LO : PTE_PS_LO;
  out.large3Lo = model.gigabytePages ? PTE_1G_RSVD_LO : PTE_PS_LO;
  out.large2Lo = PTE_2M_RSVD_LO;
  out.pdpteHi = out.hi | PTE_NX_HI;
  out.pdpteLo = model.pdptes === 'memory-accessed' ? 0 : PDPTE_PAE_RSVD_LO;
}

/** Frame bits from MAXPHYADDR (32 to 52) to 51. */
function frameReservedHi(maxphyaddr: number): number {
  return maxphyaddr >= 52 ? 0 : PTE_FRAME_HI & ~((1 << (maxphyaddr - 32)) - 1);
}

/** Address bits 39:32 stand in 20:13 of a 4 MiB entry; those the CPU lacks are reserved, and bit 21 always is. */
function pse36Reserved(maxphyaddr: number): number {
  if (maxphyaddr >= 40) return PSE36_RSVD_LO;
  return PSE36_RSVD_LO | (PSE36_FRAME_HIGH_LO & ~((1 << (maxphyaddr - 32 + PSE36_FRAME_HIGH_SHIFT)) - 1));
}
