/** Write protection of one frame, by whichever engine maps it. Source: Linux 6.1 mmu.c. */
import type { MemSlot } from '../mem/memslots.ts';
import type { Mmu } from './mmu.ts';
import { rmapsGfnWriteProtect } from './rmap.ts';
import { writeProtectGfn } from './tdp-mmu/tdp-dirty.ts';

/**
 * Write-protects whatever maps one gfn, at `minLevel` and above, so that the fast fault can't undo it.
 * True if a flush is needed. @kvm kvm_mmu_slot_gfn_write_protect
 */
export function slotGfnWriteProtect(mmu: Mmu, slot: MemSlot, gfn: number, minLevel: number): boolean {
  let flush = rmapsGfnWriteProtect(mmu, slot, gfn, minLevel);
  if (mmu.tdpMmu && writeProtectGfn(mmu, slot, gfn, minLevel)) flush = true;
  return flush;
}
