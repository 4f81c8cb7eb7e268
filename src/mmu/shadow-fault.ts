/**
 * The shadow engine: tables that mirror the guest's own. A fault walks the guest's tables in software; either the
 * guest sees the fault, or the path to the entry is mirrored and the entry installed.
 *
 *     guest tables   cr3 -> L4 -> L3 -> L2 -> L1 -> page     level of the guest's leaf: gw.level
 *     shadow pages   root -> .. -> ..  indirect, one for each guest table of (gfn, role)
 *                                  \-> direct pages below a large guest leaf that must be mapped smaller
 *
 * Source: Linux 6.1 paging_tmpl.h page_fault, fetch.
 */
import { EFAULT, ENOSPC } from '../base/errno.ts';
import { pagesPerLevel } from '../base/page.ts';
import { faultinPfn, handleAbnormalPfn, isPageFaultStale, isTrackedWrite, traceSpteRequested } from './fault-steps.ts';
import { CHILD_EXISTS, getChildPage, linkShadowPage, validateDirectSpte } from './get-page.ts';
import { readGuestAtomic } from './guest-memory.ts';
import { guestLevels, hasFourByteGptes, isCr0Wp, isCr4Smep, PFERR_RSVD } from './guest-mode.ts';
import { type GuestWalk, PTE_PREFETCH_NUM } from './guest-walk.ts';
import { walkAddr } from './guest-walker.ts';
import { injectPageFault } from './inject.ts';
import { disallowedHugepageAdjust, hugepageAdjust } from './level.ts';
import { LOCK_MMU, lock, unlock } from './lock.ts';
import { type Mmu, vcpuSlot } from './mmu.ts';
import { type PageFault, RET_PF_CONTINUE, RET_PF_EMULATE, RET_PF_RETRY, RET_PF_SPURIOUS } from './page-fault.ts';
import { accountHugeNxPage } from './nx-huge-page.ts';
import { makePagesAvailable } from './page-zap.ts';
import { RACE_FAULT_BEFORE_LOCK, race } from './race.ts';
import { REQ_MMU_SYNC, REQ_TLB_FLUSH_CURRENT } from './requests.ts';
import { spteHi, spteLo } from './rmap.ts';
import { mmuSetSpte } from './set-spte.ts';
import { spOf } from './shadow-pages.ts';
import { ACC_ALL, ACC_EXEC, ACC_USER, ACC_WRITE } from './spte.ts';
import { ptePrefetch } from './sync-page.ts';
import { syncChildren } from './sync-children.ts';
import type { MmuVcpu } from './vcpu.ts';

/** RET_PF_* (RETRY also when the guest gets the fault), or a negative errno. @kvm FNAME(page_fault) */
export function shadowPageFault(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault): number {
  const gw = vcpu.guestWalk;
  if (!walkAddr(mmu, vcpu, gw, fault.addrLo, fault.addrHi, fault.errorCode & ~PFERR_RSVD)) {
    injectPageFault(mmu, vcpu, gw);
    return RET_PF_RETRY;
  }
  fault.gfn = gw.gfn;
  fault.slot = vcpuSlot(mmu, vcpu, fault.gfn);
  if (isTrackedWrite(mmu, fault)) {
    clearFlooding(mmu, vcpu, fault.addrLo, fault.addrHi);
    return RET_PF_EMULATE;
  }
  vcpu.topUp(mmu.arena);
  fault.maxLevel = isSelfChangeMapping(vcpu, gw, fault) ? 1 : gw.level;
  let ret = faultinPfn(mmu, fault);
  if (ret !== RET_PF_CONTINUE) return ret;
  ret = handleAbnormalPfn(mmu, vcpu, fault, gw.pteAccess);
  if (ret !== RET_PF_CONTINUE) return ret;
  if (fault.write && !(gw.pteAccess & ACC_WRITE) && !isCr0Wp(vcpu) && !fault.user && fault.slot !== null) {
    // A supervisor write that CR0.WP lets through: writable, so no longer for the user, nor (SMEP) executable.
    gw.pteAccess = (gw.pteAccess | ACC_WRITE) & ~ACC_USER;
    if (isCr4Smep(vcpu)) gw.pteAccess &= ~ACC_EXEC;
  }

  race(RACE_FAULT_BEFORE_LOCK);
  lock(LOCK_MMU);
  const pfn = fault.pfn;
  if (!makePagesAvailable(mmu)) ret = -ENOSPC;
  else if (isPageFaultStale(mmu, vcpu, fault)) ret = RET_PF_RETRY;
  else ret = fetch(mmu, vcpu, fault, gw);
  unlock(LOCK_MMU);
  if (pfn >= 0) mmu.host.markAccessed(pfn);
  return ret;
}

/** Mirrors the path to the leaf and installs it. @kvm FNAME(fetch) */
function fetch(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault, gw: GuestWalk): number {
  const directAccess = directAccessOf(mmu, gw);
  const levels = guestLevels(vcpu);
  if (gpteChanged(mmu, vcpu, gw, levels === 3 ? 2 : levels)) return RET_PF_RETRY;

  const walk = vcpu.walk;
  for (walk.init(vcpu, fault.addrLo, fault.addrHi); walk.ok() && walk.level > gw.level; walk.next(mmu)) {
    const below = walk.level - 2;
    mmu.pages.writeFlooding[spOf(walk.sptep)] = 0;
    const access = gw.ptAccess[mmu.bugs.lowerRightsInherited ? gw.level - 1 : below];
    const child = getChildPage(mmu, vcpu, walk.sptep, gw.tableGfn[below], false, access);
    // What becomes reachable must not be stale: a non-present entry made present needs no flush by the guest.
    if (child !== CHILD_EXISTS && mmu.pages.unsyncChildren[child] !== 0) bringUpToDate(mmu, vcpu, child);
    // Only now is the table write-protected: was the entry changed before?
    if (gpteChanged(mmu, vcpu, gw, walk.level - 1)) return RET_PF_RETRY;
    if (child !== CHILD_EXISTS) linkShadowPage(mmu, walk.sptep, child);
  }

  hugepageAdjust(mmu, fault);
  traceSpteRequested(mmu, fault);
  let baseGfn = fault.gfn;
  for (; walk.ok(); walk.next(mmu)) {
    mmu.pages.writeFlooding[spOf(walk.sptep)] = 0;
    if (fault.nxHugePageWorkaround) disallowedHugepageAdjust(mmu, fault, walk.sptep, walk.level);
    baseGfn = fault.gfn & ~(pagesPerLevel(walk.level) - 1);
    if (walk.level === fault.goalLevel) break;
    validateDirectSpte(mmu, walk.sptep, directAccess);
    const child = getChildPage(mmu, vcpu, walk.sptep, baseGfn, true, directAccess);
    if (child === CHILD_EXISTS) continue;
    linkShadowPage(mmu, walk.sptep, child);
    if (fault.hugePageDisallowed) accountHugeNxPage(mmu, child, fault.reqLevel >= walk.level);
  }
  if (walk.level !== fault.goalLevel) return -EFAULT;
  const ret = mmuSetSpte(mmu, vcpu, fault.slot, walk.sptep, gw.pteAccess, baseGfn, fault.pfn, fault);
  if (ret !== RET_PF_SPURIOUS) ptePrefetch(mmu, vcpu, walk.sptep);
  return ret;
}

/** At once: a request would be served by this vCPU alone, and after others can use what is linked. */
function bringUpToDate(mmu: Mmu, vcpu: MmuVcpu, child: number): void {
  if (mmu.bugs.flushInsteadOfSync) vcpu.requests |= REQ_TLB_FLUSH_CURRENT;
  else if (mmu.bugs.linkedBeforeSynced) vcpu.requests |= REQ_MMU_SYNC;
  else syncChildren(mmu, vcpu, child);
}

/** Rights for small pages below the guest's leaf: the leaf's own. */
function directAccessOf(mmu: Mmu, gw: GuestWalk): number {
  if (mmu.bugs.directRightsNotInKey) return ACC_ALL;
  return mmu.bugs.directRightsFromAbove ? gw.ptAccess[gw.level - 1] : gw.pteAccess;
}

/**
 * Re-reads the guest's entry at `level`, at level 1 with its neighbours; true if it isn't what the walk saw.
 * @kvm FNAME(gpte_changed)
 */
function gpteChanged(mmu: Mmu, vcpu: MmuVcpu, gw: GuestWalk, level: number): boolean {
  const at = level - 1;
  const bytes = hasFourByteGptes(vcpu) ? 4 : 8;
  const words = bytes / 4;
  let offset = gw.offset[at];
  let index = 0;
  let count = 1;
  if (level === 1) {
    count = PTE_PREFETCH_NUM;
    index = (offset / bytes) % count;
    offset -= index * bytes;
  }
  if (!readGuestAtomic(mmu, vcpu, gw.tableGfn[at], offset, count * bytes)) return true;
  if (level === 1)
    for (let i = 0; i < count; i++) {
      gw.prefetchLo[i] = mmu.words[i * words];
      gw.prefetchHi[i] = words === 2 ? mmu.words[i * 2 + 1] : 0;
    }
  const lo = mmu.words[index * words];
  const hi = words === 2 ? mmu.words[index * 2 + 1] : 0;
  return (lo !== gw.pteLo[at] || hi !== gw.pteHi[at]) && !mmu.bugs.gpteNotReread;
}

/**
 * Is one of the tables that map the address inside what it maps? Then it must be mapped by small pages.
 * @kvm FNAME(is_self_change_mapping)
 */
function isSelfChangeMapping(vcpu: MmuVcpu, gw: GuestWalk, fault: PageFault): boolean {
  if (!(gw.pteAccess & ACC_WRITE) && (isCr0Wp(vcpu) || fault.user)) return false;
  const mask = ~(pagesPerLevel(gw.level) - 1);
  let selfChanged = false;
  for (let level = gw.level; level <= gw.maxLevel; level++) {
    const difference = gw.gfn ^ gw.tableGfn[level - 1];
    if ((difference & mask) === 0) selfChanged = true;
    if (difference === 0) fault.writeFaultToShadowPgtable = true;
  }
  return selfChanged;
}

/** @kvm shadow_page_table_clear_flood */
function clearFlooding(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number): void {
  const walk = vcpu.walk;
  for (walk.init(vcpu, lo, hi); walk.ok(); walk.step(spteLo(mmu, walk.sptep), spteHi(mmu, walk.sptep)))
    mmu.pages.writeFlooding[spOf(walk.sptep)] = 0;
}
