/**
 * Roots: the table that a vCPU's CR3 or nCR3 points at, and the three used before it.
 *
 * A root is usable again if its role word is the one wanted now and (shadow paging) the guest's CR3 is the one it
 * mirrors; a zapped root's role has `invalid` set and so never matches. A guest that uses PAE or no paging has no
 * single root page but four, in a table of the vCPU's own; those are not kept.
 *
 * Source: Linux 6.1 mmu.c kvm_mmu_load, kvm_mmu_new_pgd, kvm_mmu_free_roots.
 */
import { ENOSPC } from '../base/errno.ts';
import { allocRmap, MEMSLOT_INVALID } from '../mem/memslots.ts';
import { getShadowPage } from './get-page.ts';
import { guestLevels, initMmu } from './guest-mode.ts';
import { LOCK_MMU, LOCK_SHARED, lock, unlock } from './lock.ts';
import { type Mmu, vcpuSlot, isObsolete } from './mmu.ts';
import { clearMmioInfo } from './mmio-cache.ts';
import { commitZapPages, makePagesAvailable, prepareZapPage } from './page-zap.ts';
import { REQ_LOAD_MMU_PGD, REQ_TRIPLE_FAULT } from './requests.ts';
import { isDirectRole, roleLevel, withLevel, withQuadrant } from './role.ts';
import { tablePfn } from './shadow-pages.ts';
import { pfnHi, pfnLo, SPTE_P } from './spte.ts';
import { syncChildren } from './sync-children.ts';
import { getVcpuRoot, putRoot } from './tdp-mmu/tdp-roots.ts';
import { isUnsyncRoot } from './unsync.ts';
import { withEachContext } from './nested.ts';
import { type MmuVcpu, NUM_PREV_ROOTS, PAE_ROOT, type RootInfo } from './vcpu.ts';

const PAE_LEVELS = 3;
const ROOT_CURRENT = 1;
/** Bit for previous root i. @kvm KVM_MMU_ROOT_PREVIOUS */
function rootPrevious(i: number): number {
  return 2 << i;
}
const ROOTS_ALL = ROOT_CURRENT | rootPrevious(0) | rootPrevious(1) | rootPrevious(2);

// ---- freeing -------------------------------------------------------------------------------------------------------

/** @kvm mmu_free_root_page */
function putRootPage(mmu: Mmu, sp: number, invalid: number[]): void {
  const pages = mmu.pages;
  if (pages.tdp[sp] !== 0) {
    putRoot(mmu, sp);
    return;
  }
  pages.rootCount[sp]--;
  // A zapped page that was kept for its users. One that is still valid stays in the hash for reuse.
  if (pages.rootCount[sp] === 0 && (pages.role[sp] & 0x800) !== 0) prepareZapPage(mmu, sp, invalid);
}

/** @kvm kvm_mmu_free_roots */
function freeRoots(mmu: Mmu, vcpu: MmuVcpu, which: number): void {
  const invalid: number[] = [];
  const held = rootsLock(mmu);
  lock(held);
  for (let i = 0; i < NUM_PREV_ROOTS; i++) {
    const root = vcpu.prevRoots[i];
    if ((which & rootPrevious(i)) === 0 || root.sp === 0) continue;
    putRootPage(mmu, root.sp, invalid);
    root.sp = 0;
  }
  if ((which & ROOT_CURRENT) !== 0 && vcpu.root.sp !== 0) {
    if (vcpu.root.sp === PAE_ROOT) freePaeRoots(mmu, vcpu, invalid);
    else putRootPage(mmu, vcpu.root.sp, invalid);
    vcpu.root.sp = 0;
    vcpu.root.pgdLo = 0;
    vcpu.root.pgdHi = 0;
  }
  commitZapPages(mmu, invalid);
  unlock(held);
}

/** How mmu_lock is held when roots are made and given back. */
function rootsLock(mmu: Mmu): number {
  return mmu.tdpMmu && mmu.kernel.tdpRootsShared ? LOCK_SHARED : LOCK_MMU;
}

function freePaeRoots(mmu: Mmu, vcpu: MmuVcpu, invalid: number[]): void {
  for (let i = 0; i < 4; i++) {
    if (vcpu.paeRoots[i] === 0) continue;
    putRootPage(mmu, vcpu.paeRoots[i], invalid);
    setPaeRoot(mmu, vcpu, i, 0);
  }
}

/** The vCPU goes on without any root; the next entry makes one. @kvm kvm_mmu_unload */
export function unloadMmu(mmu: Mmu, vcpu: MmuVcpu): void {
  withEachContext(vcpu, () => freeRoots(mmu, vcpu, ROOTS_ALL));
  clearMmioInfo(vcpu);
}

/** The current root goes, the previous ones stay. @kvm kvm_mmu_free_roots */
export function freeCurrentRoot(mmu: Mmu, vcpu: MmuVcpu): void {
  freeRoots(mmu, vcpu, ROOT_CURRENT);
}

/** The guest's mode changed: other tables. @kvm kvm_mmu_reset_context */
export function resetMmuContext(mmu: Mmu, vcpu: MmuVcpu): void {
  unloadMmu(mmu, vcpu);
  initMmu(mmu, vcpu);
}

/** @kvm is_obsolete_root */
function isObsoleteRoot(mmu: Mmu, root: RootInfo): boolean {
  if (root.sp === 0) return false;
  return root.sp === PAE_ROOT || isObsolete(mmu, root.sp);
}

/** Serves the request of that name. @kvm kvm_mmu_free_obsolete_roots */
export function freeObsoleteRoots(mmu: Mmu, vcpu: MmuVcpu): void {
  withEachContext(vcpu, () => freeObsoleteOfContext(mmu, vcpu));
}

function freeObsoleteOfContext(mmu: Mmu, vcpu: MmuVcpu): void {
  let which = isObsoleteRoot(mmu, vcpu.root) ? ROOT_CURRENT : 0;
  for (let i = 0; i < NUM_PREV_ROOTS; i++) {
    const root = mmu.bugs.previousRootsUnchecked ? vcpu.root : vcpu.prevRoots[i];
    if (isObsoleteRoot(mmu, root)) which |= rootPrevious(i);
  }
  if (which !== 0) freeRoots(mmu, vcpu, which);
}

/** Stale roots used before are freed rather than synced. @kvm kvm_mmu_sync_prev_roots */
export function syncPrevRoots(mmu: Mmu, vcpu: MmuVcpu): void {
  let which = 0;
  for (let i = 0; i < NUM_PREV_ROOTS; i++) if (isUnsyncRoot(mmu, vcpu.prevRoots[i].sp)) which |= rootPrevious(i);
  freeRoots(mmu, vcpu, which);
}

/** Frees the previous roots for which `test` holds. @kvm kvm_invalidate_pcid */
export function freePrevRoots(mmu: Mmu, vcpu: MmuVcpu, test: (root: RootInfo) => boolean): void {
  let which = 0;
  for (let i = 0; i < NUM_PREV_ROOTS; i++) if (test(vcpu.prevRoots[i])) which |= rootPrevious(i);
  freeRoots(mmu, vcpu, which);
}

// ---- making --------------------------------------------------------------------------------------------------------

/** @kvm mmu_alloc_root */
function allocRoot(mmu: Mmu, vcpu: MmuVcpu, gfn: number, quadrant: number, level: number): number {
  const sp = getShadowPage(mmu, vcpu, gfn, withQuadrant(withLevel(vcpu.rootRole, level), quadrant));
  mmu.pages.rootCount[sp]++;
  return sp;
}

/** Entry i of the vCPU's own table of four: hardware's CR3 points at that table. Only P: PDPTEs hold no rights. */
function setPaeRoot(mmu: Mmu, vcpu: MmuVcpu, i: number, sp: number): void {
  vcpu.paeRoots[i] = sp;
  const at = (vcpu.paeRootTable << 10) | (2 * i);
  const pfn = tablePfn(sp);
  mmu.arena.words[at] = sp === 0 ? 0 : pfnLo(pfn) | SPTE_P;
  mmu.arena.words[at + 1] = sp === 0 ? 0 : pfnHi(pfn);
}

/** @kvm mmu_alloc_direct_roots */
function allocDirectRoots(mmu: Mmu, vcpu: MmuVcpu): number {
  if (!makePagesAvailable(mmu)) return -ENOSPC;
  const level = roleLevel(vcpu.rootRole);
  const { root } = vcpu;
  if (mmu.tdpMmu) root.sp = getVcpuRoot(mmu, vcpu);
  else if (level > PAE_LEVELS) root.sp = allocRoot(mmu, vcpu, 0, 0, level);
  else {
    for (let i = 0; i < 4; i++) setPaeRoot(mmu, vcpu, i, allocRoot(mmu, vcpu, i << 18, 0, 2));
    root.sp = PAE_ROOT;
  }
  root.pgdLo = 0;
  root.pgdHi = 0;
  return 0;
}

/** A guest whose table lies outside of all slots can't run. @kvm mmu_check_root */
function isRootVisible(mmu: Mmu, vcpu: MmuVcpu, gfn: number): boolean {
  const slot = vcpuSlot(mmu, vcpu, gfn);
  if (slot !== null && (slot.flags & MEMSLOT_INVALID) === 0) return true;
  vcpu.requests |= REQ_TRIPLE_FAULT;
  return false;
}

function gfnOfCr3(lo: number, hi: number): number {
  return (lo >>> 12) + (hi & 0xfffff) * 0x100000;
}

/** From now on the TDP MMU needs reverse maps too: for what it doesn't map. @kvm mmu_first_shadow_root_alloc */
function firstShadowRoot(mmu: Mmu): void {
  mmu.shadowRootAllocated = true;
  if (mmu.tdpMmu) for (const { slots } of mmu.slots) for (const slot of slots) allocRmap(slot);
}

/** 0, 1 (the guest can't run: triple fault), or -ENOSPC. @kvm mmu_alloc_shadow_roots */
function allocShadowRoots(mmu: Mmu, vcpu: MmuVcpu): number {
  const { pdptrs } = vcpu.regs;
  const { pgdLo: cr3Lo, pgdHi: cr3Hi } = vcpu;
  const levels = guestLevels(vcpu);
  const rootGfn = gfnOfCr3(cr3Lo, cr3Hi);
  if (!isRootVisible(mmu, vcpu, rootGfn)) return 1;
  if (levels === PAE_LEVELS)
    for (let i = 0; i < 4; i++)
      if (pdptrs[2 * i] & SPTE_P && !isRootVisible(mmu, vcpu, gfnOfCr3(pdptrs[2 * i], pdptrs[2 * i + 1]))) return 1;
  if (!mmu.shadowRootAllocated) firstShadowRoot(mmu);
  if (!makePagesAvailable(mmu)) return -ENOSPC;
  const { root } = vcpu;
  if (levels > PAE_LEVELS) root.sp = allocRoot(mmu, vcpu, rootGfn, 0, roleLevel(vcpu.rootRole));
  else {
    for (let i = 0; i < 4; i++) {
      const gfn = levels === PAE_LEVELS ? gfnOfCr3(pdptrs[2 * i], pdptrs[2 * i + 1]) : rootGfn;
      const absent = levels === PAE_LEVELS && (pdptrs[2 * i] & SPTE_P) === 0;
      setPaeRoot(mmu, vcpu, i, absent ? 0 : allocRoot(mmu, vcpu, gfn, levels === 2 ? i : 0, 2));
    }
    root.sp = PAE_ROOT;
  }
  root.pgdLo = cr3Lo;
  root.pgdHi = cr3Hi;
  return 0;
}

/** Makes roots for the mode at hand and loads them. 0, 1 (triple fault requested), or -ENOSPC. @kvm kvm_mmu_load */
export function loadMmu(mmu: Mmu, vcpu: MmuVcpu): number {
  vcpu.topUp(mmu.arena);
  const held = rootsLock(mmu);
  if (vcpu.paeRootTable === 0 && !mmu.tdp) vcpu.paeRootTable = mmu.arena.alloc();
  lock(held);
  const ret = vcpu.isDirect ? allocDirectRoots(mmu, vcpu) : allocShadowRoots(mmu, vcpu);
  unlock(held);
  if (ret !== 0) return ret;
  syncRoots(mmu, vcpu);
  vcpu.port.flushTlbCurrent();
  return 0;
}

/** Brings every stale page below the current root up to date. @kvm kvm_mmu_sync_roots */
export function syncRoots(mmu: Mmu, vcpu: MmuVcpu): void {
  if (vcpu.isDirect || vcpu.root.sp === 0) return;
  clearMmioInfo(vcpu);
  if (vcpu.root.sp !== PAE_ROOT) {
    if (isUnsyncRoot(mmu, vcpu.root.sp)) syncChildren(mmu, vcpu, vcpu.root.sp);
    return;
  }
  for (let i = 0; i < 4; i++) if (vcpu.paeRoots[i] !== 0) syncChildren(mmu, vcpu, vcpu.paeRoots[i]);
}

// ---- switching -----------------------------------------------------------------------------------------------------

/** @kvm is_root_usable */
function isRootUsable(mmu: Mmu, root: RootInfo, lo: number, hi: number, role: number): boolean {
  if (root.sp <= 0 || mmu.pages.role[root.sp] !== role) return false;
  return isDirectRole(role) || (root.pgdLo === lo && root.pgdHi === hi);
}

function swap(a: RootInfo, b: RootInfo): void {
  const { sp, pgdLo, pgdHi } = a;
  a.sp = b.sp;
  a.pgdLo = b.pgdLo;
  a.pgdHi = b.pgdHi;
  b.sp = sp;
  b.pgdLo = pgdLo;
  b.pgdHi = pgdHi;
}

/** Rotates until a usable root is current; the old one becomes the first of the previous. @kvm cached_root_find_and_keep_current */
function findAndKeepCurrent(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number): boolean {
  if (isRootUsable(mmu, vcpu.root, lo, hi, vcpu.rootRole)) return true;
  for (const previous of vcpu.prevRoots) {
    swap(vcpu.root, previous);
    if (isRootUsable(mmu, vcpu.root, lo, hi, vcpu.rootRole)) return true;
  }
  freeRoots(mmu, vcpu, ROOT_CURRENT);
  return false;
}

/** @kvm cached_root_find_without_current */
function findWithoutCurrent(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number): boolean {
  let i = vcpu.prevRoots.findIndex((root) => isRootUsable(mmu, root, lo, hi, vcpu.rootRole));
  if (i < 0) return false;
  swap(vcpu.root, vcpu.prevRoots[i]);
  for (; i < NUM_PREV_ROOTS - 1; i++) swap(vcpu.prevRoots[i], vcpu.prevRoots[i + 1]);
  vcpu.prevRoots[i].sp = 0;
  return true;
}

/** The guest loads another CR3: a root kept from before is used at once, else the next entry makes one. @kvm kvm_mmu_new_pgd */
export function newPgd(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number): void {
  if (vcpu.root.sp === PAE_ROOT) freeRoots(mmu, vcpu, ROOT_CURRENT);
  const find = vcpu.root.sp !== 0 ? findAndKeepCurrent : findWithoutCurrent;
  if (!find(mmu, vcpu, lo, hi)) return;
  vcpu.requests |= REQ_LOAD_MMU_PGD;
  clearMmioInfo(vcpu);
  if (!isDirectRole(vcpu.rootRole)) mmu.pages.writeFlooding[vcpu.root.sp] = 0;
}
