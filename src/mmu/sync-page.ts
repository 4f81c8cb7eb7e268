/**
 * Bringing a stale page up to the guest table it mirrors, entry by entry; and reading single guest entries ahead.
 * Source: Linux 6.1 paging_tmpl.h sync_page, prefetch_gpte.
 */
import { readGuestAtomic } from './guest-memory.ts';
import { guestLevels, hasFourByteGptes, isReservedGpte } from './guest-mode.ts';
import { GPTE_A, GPTE_P, gpteAccess, gpteGfn, protectCleanGpte } from './guest-walker.ts';
import { PTE_PREFETCH_NUM } from './guest-walk.ts';
import { flushRemoteTlbsRange, type Mmu, vcpuSlot } from './mmu.ts';
import { makeSpte } from './make-spte.ts';
import { syncMmioSpte } from './mmio-cache.ts';
import { zapPte } from './page-zap.ts';
import { directPtePrefetch, mmuSetSpte, prefetchSlot } from './set-spte.ts';
import { dropSpte, mmuSpteUpdate, spteHi, spteLo } from './rmap.ts';
import { isDirectRole, ROLE_SYNC_IGNORED, roleAccess, roleQuadrant } from './role.ts';
import { indexOf, spOf, sptepAt } from './shadow-pages.ts';
import { ACC_WRITE, isHostWritable, isShadowPresent, pfnOf } from './spte.ts';
import type { MmuVcpu } from './vcpu.ts';

/** Offset in the guest's table of the first entry that a level-1 page mirrors. @kvm FNAME(get_level1_sp_gpa) */
function firstGpteOffset(mmu: Mmu, vcpu: MmuVcpu, sp: number): number {
  return hasFourByteGptes(vcpu) ? roleQuadrant(mmu.pages.role[sp]) * 512 * 4 : 0;
}

/** Drops an entry whose guest entry maps nothing (yet): not present, not accessed, malformed. @kvm prefetch_invalid_gpte */
function dropIfInvalidGpte(mmu: Mmu, vcpu: MmuVcpu, sptep: number, lo: number, hi: number): boolean {
  if ((lo & (GPTE_P | GPTE_A)) === (GPTE_P | GPTE_A) && !isReservedGpte(vcpu, lo, hi, 1)) return false;
  dropSpte(mmu, sptep);
  return true;
}

/** Maps one guest entry ahead of time; false if that is not to be. @kvm FNAME(prefetch_gpte) */
export function prefetchGpte(
  mmu: Mmu,
  vcpu: MmuVcpu,
  sptep: number,
  lo: number,
  hi: number,
  noDirtyLog: boolean,
): boolean {
  if (dropIfInvalidGpte(mmu, vcpu, sptep, lo, hi)) return false;
  const gfn = gpteGfn(lo, hi);
  const access = protectCleanGpte(roleAccess(mmu.pages.role[spOf(sptep)]) & gpteAccess(lo, hi), lo);
  const slot = prefetchSlot(mmu, vcpu, gfn, noDirtyLog && (access & ACC_WRITE) !== 0);
  if (slot === null || slot.isReadonly) return false;
  const pfn = mmu.host.gupFast(slot.hvaOf(gfn));
  if (pfn < 0) return false;
  mmuSetSpte(mmu, vcpu, slot, sptep, access, gfn, pfn, null);
  mmu.host.markAccessed(pfn);
  return true;
}

/**
 * Maps the neighbours of a shadow-paging fault's entry: of a direct page by frame, else by the guest entries that
 * were read for the last comparison. @kvm FNAME(pte_prefetch)
 */
export function ptePrefetch(mmu: Mmu, vcpu: MmuVcpu, sptep: number): void {
  const sp = spOf(sptep);
  if (mmu.pages.level(sp) > 1 || mmu.invalidateInProgress !== 0) return;
  if (isDirectRole(mmu.pages.role[sp])) {
    directPtePrefetch(mmu, vcpu, sptep);
    return;
  }
  const first = indexOf(sptep) & ~(PTE_PREFETCH_NUM - 1);
  for (let i = 0; i < PTE_PREFETCH_NUM; i++) {
    const at = sptepAt(sp, first + i);
    if (at === sptep || isShadowPresent(spteLo(mmu, at))) continue;
    if (!prefetchGpte(mmu, vcpu, at, vcpu.guestWalk.prefetchLo[i], vcpu.guestWalk.prefetchHi[i], true)) break;
  }
}

/**
 * Re-reads every entry of a level-1 page from the guest's table. In Linux 6.1 all are made anew, writable ones marked
 * dirty in their slots though nothing was written; since 6.4 only those whose rights changed. Negative: the page can't be synced and must go; 1: a flush is needed.
 * @kvm FNAME(sync_page)
 */
export function syncPage(mmu: Mmu, vcpu: MmuVcpu, sp: number): number {
  const role = mmu.pages.role[sp];
  if (guestLevels(vcpu) === 0 || isDirectRole(role)) return -1;
  if (((role ^ vcpu.rootRole) & ~ROLE_SYNC_IGNORED) !== 0) return -1;
  const bytes = hasFourByteGptes(vcpu) ? 4 : 8;
  const offset = firstGpteOffset(mmu, vcpu, sp);
  const gfn = mmu.pages.gfn[sp];
  let flush = false;
  for (let i = 0; i < 512; i++) {
    const sptep = sptepAt(sp, i);
    if (spteLo(mmu, sptep) === 0 && spteHi(mmu, sptep) === 0) continue;
    if (!readGuestAtomic(mmu, vcpu, gfn, offset + i * bytes, bytes)) return -1;
    if (syncEntry(mmu, vcpu, sp, sptep, mmu.words[0], bytes === 8 ? mmu.words[1] : 0)) flush = true;
  }
  return flush ? 1 : 0;
}

/** One entry; true if a flush is needed. */
function syncEntry(mmu: Mmu, vcpu: MmuVcpu, sp: number, sptep: number, gpteLo: number, gpteHi: number): boolean {
  if (dropIfInvalidGpte(mmu, vcpu, sptep, gpteLo, gpteHi)) return true;
  const gfn = gpteGfn(gpteLo, gpteHi);
  const index = indexOf(sptep);
  const access = protectCleanGpte(roleAccess(mmu.pages.role[sp]) & gpteAccess(gpteLo, gpteHi), gpteLo);
  if (syncMmioSpte(mmu, sptep, gfn, access)) return false;
  if (gfn !== mmu.pages.entryGfn(sp, index)) {
    dropSpte(mmu, sptep);
    return true;
  }
  if (mmu.kernel.syncsByEntry && mmu.pages.entryAccess(sp, index) === access) return false;
  mmu.pages.setEntryAccess(sp, index, access);
  const lo = spteLo(mmu, sptep);
  const hi = spteHi(mmu, sptep);
  const slot = vcpuSlot(mmu, vcpu, gfn)!;
  const pfn = pfnOf(lo, hi);
  const hostWritable = isHostWritable(mmu.format, lo, hi);
  makeSpte(mmu, sp, 1, slot, access, gfn, pfn, lo, true, mmu.bugs.syncMayUnsync, hostWritable);
  return mmuSpteUpdate(mmu, sptep, mmu.spteLo, mmu.spteHi);
}

/**
 * INVLPG for one root: an unsync leaf is dropped and read anew, or (since 6.4) synced.
 * @kvm FNAME(invlpg), __kvm_mmu_invalidate_addr
 */
export function invlpgRoot(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number, root: number): void {
  const walk = vcpu.walk;
  for (walk.initUsingRoot(vcpu, root, lo, hi); walk.ok(); walk.next(mmu)) {
    const sp = spOf(walk.sptep);
    const oldLo = spteLo(mmu, walk.sptep);
    const level = walk.level;
    if (mmu.kernel.syncsByEntry) {
      if (mmu.pages.unsync[sp] !== 0) syncLeaf(mmu, vcpu, sp, walk.sptep);
    } else if (level === 1 || (oldLo & 0x80) !== 0) {
      if (mmu.pages.unsync[sp] === 0) break;
      if (!invlpgLeaf(mmu, vcpu, sp, walk.sptep, isShadowPresent(oldLo))) break;
    }
    if (mmu.pages.unsyncChildren[sp] === 0) break;
  }
}

/** @kvm kvm_sync_spte */
function syncLeaf(mmu: Mmu, vcpu: MmuVcpu, sp: number, sptep: number): void {
  if (spteLo(mmu, sptep) === 0 && spteHi(mmu, sptep) === 0) return;
  const bytes = hasFourByteGptes(vcpu) ? 4 : 8;
  const offset = firstGpteOffset(mmu, vcpu, sp) + indexOf(sptep) * bytes;
  const { gfn } = mmu.pages;
  if (!readGuestAtomic(mmu, vcpu, gfn[sp], offset, bytes)) zapPte(mmu, sptep, null);
  else if (!syncEntry(mmu, vcpu, sp, sptep, mmu.words[0], bytes === 8 ? mmu.words[1] : 0)) return;
  flushRemoteTlbsRange(mmu, gfn[sp], 1);
}

function invlpgLeaf(mmu: Mmu, vcpu: MmuVcpu, sp: number, sptep: number, wasPresent: boolean): boolean {
  zapPte(mmu, sptep, null);
  if (wasPresent) flushRemoteTlbsRange(mmu, mmu.pages.gfn[sp], 1);
  const bytes = hasFourByteGptes(vcpu) ? 4 : 8;
  const offset = firstGpteOffset(mmu, vcpu, sp) + indexOf(sptep) * bytes;
  if (!readGuestAtomic(mmu, vcpu, mmu.pages.gfn[sp], offset, bytes)) return false;
  prefetchGpte(mmu, vcpu, sptep, mmu.words[0], bytes === 8 ? mmu.words[1] : 0, false);
  return true;
}
