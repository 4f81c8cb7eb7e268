/**
 * What a leaf looks like for given rights, frame and state. Source: Linux 6.1 spte.c make_spte.
 */
import type { MemSlot } from '../mem/memslots.ts';
import { markPageDirty } from './guest-memory.ts';
import type { Mmu } from './mmu.ts';
import {
  ACC_EXEC,
  ACC_USER,
  ACC_WRITE,
  isLast,
  isWritable,
  pfnHi,
  pfnLo,
  SPTE_A,
  SPTE_D,
  SPTE_HOST_WRITABLE,
  SPTE_MMU_PRESENT,
  SPTE_MMU_WRITABLE,
  SPTE_NX_HI,
  SPTE_P,
  SPTE_PSE,
  SPTE_U,
  SPTE_W,
} from './spte.ts';
import { tryToUnsyncPages } from './unsync.ts';

/**
 * Leaves the entry in `mmu.spteLo`, `mmu.spteHi`. True if it had to stay read-only because the frame holds a guest
 * page table ("wrprot"), which only a write fault turns into emulation.
 *
 * Two oddities of the kernel's are kept, as both can be seen: D is set even for a read if the page may be written, and
 * an old leaf that was writable already skips the search for shadowed tables *and* D. A writable entry of a logged
 * slot marks its page dirty here, whatever the access was.
 *
 * @kvm make_spte
 */
export function makeSpte(
  mmu: Mmu,
  level: number,
  slot: MemSlot,
  access: number,
  gfn: number,
  pfn: number,
  oldLo: number,
  prefetch: boolean,
  canUnsync: boolean,
  hostWritable: boolean,
): boolean {
  let lo = SPTE_MMU_PRESENT | SPTE_P | pfnLo(pfn);
  let hi = pfnHi(pfn);
  let rights = access;
  let wrprot = false;
  if (!prefetch) lo |= SPTE_A;
  if (level > 1 && (rights & ACC_EXEC) !== 0 && mmu.nxHugePages) rights &= ~ACC_EXEC;
  if ((rights & ACC_EXEC) === 0) hi |= SPTE_NX_HI;
  if (rights & ACC_USER) lo |= SPTE_U;
  if (level > 1) lo |= SPTE_PSE;
  if (hostWritable) lo |= SPTE_HOST_WRITABLE;
  else rights &= ~ACC_WRITE;

  if (rights & ACC_WRITE) {
    const wasWritableLeaf = isLast(oldLo, level) && isWritable(oldLo);
    if (wasWritableLeaf) lo |= SPTE_W | SPTE_MMU_WRITABLE;
    else if (tryToUnsyncPages(mmu, slot, gfn, canUnsync, prefetch)) wrprot = true;
    else lo |= SPTE_W | SPTE_MMU_WRITABLE | SPTE_D;
  }
  if ((lo & SPTE_W) !== 0 && slot.logsDirty) markPageDirty(slot, gfn);
  mmu.spteLo = lo;
  mmu.spteHi = hi;
  return wrprot;
}
