/** Installing one leaf, and its neighbours ahead of time. Source: Linux 6.1 mmu.c, paging_tmpl.h. */
import { pagesPerLevel } from '../base/page.ts';
import type { MemSlot } from '../mem/memslots.ts';
import { PTE_PREFETCH_NUM } from './guest-walk.ts';
import { flushRemoteTlbsRange, type Mmu, vcpuSlot } from './mmu.ts';
import { makeSpte } from './make-spte.ts';
import { markMmioSpte } from './mmio-cache.ts';
import { type PageFault, PFN_NOSLOT, RET_PF_EMULATE, RET_PF_FIXED, RET_PF_SPURIOUS } from './page-fault.ts';
import { dropParentPte } from './page-zap.ts';
import { dropSpte, mmuSpteClearNoTrack, mmuSpteUpdate, rmapAdd, spteHi, spteLo } from './rmap.ts';
import { hasRoleNoAd, roleAccess } from './role.ts';
import { childOf, indexOf, spOf, sptepAt } from './shadow-pages.ts';
import { ACC_WRITE, isLarge, isShadowPresent, pfnOf } from './spte.ts';
import { traceSetSpte } from './tracing.ts';
import type { MmuVcpu } from './vcpu.ts';

/**
 * Installs a leaf at `sptep` for gfn; `fault` null: a prefetch. Whatever else was there goes first: a table (its page
 * stays, without this parent), another frame, and also if the new entry is an MMIO one, so that no list keeps it.
 * @kvm mmu_set_spte
 */
export function mmuSetSpte(
  mmu: Mmu,
  vcpu: MmuVcpu,
  slot: MemSlot | null,
  sptep: number,
  access: number,
  gfn: number,
  pfn: number,
  fault: PageFault | null,
): number {
  const sp = spOf(sptep);
  const level = mmu.pages.level(sp);
  const oldLo = spteLo(mmu, sptep);
  let wasRmapped = false;
  let flush = false;
  if (isShadowPresent(oldLo)) {
    const oldHi = spteHi(mmu, sptep);
    if (level > 1 && !isLarge(oldLo)) {
      dropParentPte(mmu, childOf(oldLo, oldHi), sptep);
      flush = true;
    } else if (pfn !== pfnOf(oldLo, oldHi)) flush = takeOut(mmu, sptep, pfn);
    else wasRmapped = true;
  }

  if (pfn === PFN_NOSLOT) {
    vcpu.stats.pf_mmio_spte_created++;
    markMmioSpte(mmu, sptep, gfn, access);
    if (flush) flushRemoteTlbsRange(mmu, gfn, pagesPerLevel(level));
    return RET_PF_EMULATE;
  }

  const hostWritable = fault === null || fault.mapWritable;
  const nowLo = spteLo(mmu, sptep);
  const prefetch = fault === null || fault.prefetch;
  const wrprot = makeSpte(mmu, sp, level, slot!, access, gfn, pfn, nowLo, prefetch, true, hostWritable);
  let ret = RET_PF_FIXED;
  if (nowLo === mmu.spteLo && spteHi(mmu, sptep) === mmu.spteHi) ret = RET_PF_SPURIOUS;
  else {
    if (mmuSpteUpdate(mmu, sptep, mmu.spteLo, mmu.spteHi)) flush = true;
    traceSetSpte(mmu, level, gfn, sptep);
  }
  if (wrprot && fault?.write) ret = RET_PF_EMULATE;
  if (flush) flushRemoteTlbsRange(mmu, gfn, pagesPerLevel(level));
  if (wasRmapped) mmu.pages.setEntryAccess(sp, indexOf(sptep), access);
  else rmapAdd(mmu, slot!, sptep, gfn, access);
  return ret;
}

/** A leaf of another frame than the new one goes; true: with a flush. */
function takeOut(mmu: Mmu, sptep: number, pfn: number): boolean {
  if (pfn === PFN_NOSLOT && mmu.bugs.mmioOverPresent) {
    // What was there before is overwritten: the kernel warned, and that was all.
    mmuSpteClearNoTrack(mmu, sptep);
    return false;
  }
  dropSpte(mmu, sptep);
  return true;
}

/** A slot that may be prefetched from: not going away, nor (if `noDirtyLog`) logged. @kvm gfn_to_memslot_dirty_bitmap */
export function prefetchSlot(mmu: Mmu, vcpu: MmuVcpu, gfn: number, noDirtyLog: boolean): MemSlot | null {
  const slot = vcpuSlot(mmu, vcpu, gfn);
  if (slot === null || slot.isInvalid) return null;
  return noDirtyLog && slot.logsDirty ? null : slot;
}

/** Entries [from, to) of a page, all empty, as far as the host maps them writable. @kvm direct_pte_prefetch_many */
function prefetchRun(mmu: Mmu, vcpu: MmuVcpu, sp: number, from: number, to: number): boolean {
  const access = roleAccess(mmu.pages.role[sp]);
  const gfn = mmu.pages.entryGfn(sp, from);
  const slot = prefetchSlot(mmu, vcpu, gfn, (access & ACC_WRITE) !== 0);
  if (slot === null || slot.isReadonly || gfn + (to - from) > slot.baseGfn + slot.npages) return false;
  // All frames first, then all entries: that is the order in which the host sees them used.
  const pfns = mmu.prefetchPfns;
  let n = 0;
  while (n < to - from) {
    const pfn = mmu.host.gupFast(slot.hvaOf(gfn + n));
    if (pfn < 0) break;
    pfns[n++] = pfn;
  }
  for (let i = 0; i < n; i++) mmuSetSpte(mmu, vcpu, slot, sptepAt(sp, from + i), access, gfn + i, pfns[i], null);
  return n > 0;
}

/**
 * Fills the empty entries of the aligned group of eight around `sptep`, in runs; the first run that yields nothing
 * ends it. Not for logged slots that may be written. @kvm __direct_pte_prefetch
 */
export function directPtePrefetch(mmu: Mmu, vcpu: MmuVcpu, sptep: number): void {
  const sp = spOf(sptep);
  if (mmu.pages.level(sp) > 1 || mmu.invalidateInProgress !== 0) return;
  // Without A nobody could tell which of them were used.
  if (hasRoleNoAd(mmu.pages.role[sp])) return;
  const first = indexOf(sptep) & ~(PTE_PREFETCH_NUM - 1);
  let run = -1;
  for (let i = first; i < first + PTE_PREFETCH_NUM; i++) {
    const at = sptepAt(sp, i);
    if (isShadowPresent(spteLo(mmu, at)) || at === sptep) {
      if (run >= 0 && !prefetchRun(mmu, vcpu, sp, run, i)) return;
      run = -1;
    } else if (run < 0) run = i;
  }
  if (run >= 0) prefetchRun(mmu, vcpu, sp, run, first + PTE_PREFETCH_NUM);
}
