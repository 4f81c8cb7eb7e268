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
  hasAccessedDirty,
  isLast,
  isWritable,
  pfnHi,
  pfnLo,
  SPTE_AD_DISABLED_HI,
  SPTE_AD_WRPROT_ONLY_HI,
  SPTE_MMU_PRESENT,
  SPTE_PSE,
  SPTE_W,
  unaccessedHi,
  unaccessedLo,
} from './spte.ts';
import { hasRoleNoAd, ROLE_GUEST_MODE } from './role.ts';
import { tryToUnsyncPages } from './unsync.ts';

/**
 * Which A and D a page's entries have. Those of a nested guest don't log by D: the buffer would get its addresses, not ours.
 * @kvm kvm_mmu_page_ad_need_write_protect
 */
function adTypeHi(mmu: Mmu, role: number): number {
  if (hasRoleNoAd(role)) return SPTE_AD_DISABLED_HI;
  return mmu.cpuDirtyLogSize !== 0 && (role & ROLE_GUEST_MODE) !== 0 ? SPTE_AD_WRPROT_ONLY_HI : 0;
}

/**
 * An entry of page `sp`, at `level`. Leaves it in `mmu.spteLo`, `mmu.spteHi`. True if it had to stay read-only because the frame holds a guest
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
  sp: number,
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
  const f = mmu.format;
  let lo = SPTE_MMU_PRESENT | f.presentLo | f.memtypeLo | pfnLo(pfn);
  let hi = adTypeHi(mmu, mmu.pages.role[sp]) | f.presentHi | pfnHi(pfn);
  const ad = hasAccessedDirty(hi);
  let rights = access;
  let wrprot = false;
  if (!prefetch && ad) lo |= f.accessedLo;
  if (level > 1 && (rights & ACC_EXEC) !== 0 && mmu.nxHugePages) rights &= ~ACC_EXEC;
  if (rights & ACC_EXEC) lo |= f.xLo;
  else hi |= f.nxHi;
  if (rights & ACC_USER) lo |= f.userLo;
  if (level > 1) lo |= SPTE_PSE;
  if (hostWritable) {
    lo |= f.hostWritableLo;
    hi |= f.hostWritableHi;
  } else rights &= ~ACC_WRITE;

  if (rights & ACC_WRITE) {
    const wasWritableLeaf = isLast(oldLo, level) && isWritable(oldLo);
    if (!wasWritableLeaf && tryToUnsyncPages(mmu, slot, gfn, canUnsync, prefetch)) wrprot = true;
    else {
      lo |= SPTE_W | f.mmuWritableLo;
      hi |= f.mmuWritableHi;
      if (!wasWritableLeaf && ad) lo |= f.dirtyLo;
    }
  }
  if (prefetch) {
    const before = lo;
    lo = unaccessedLo(f, before, hi);
    hi = unaccessedHi(f, before, hi);
  }
  if ((lo & SPTE_W) !== 0 && slot.logsDirty) markPageDirty(slot, gfn);
  mmu.spteLo = lo;
  mmu.spteHi = hi;
  return wrprot;
}
