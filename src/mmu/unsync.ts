/**
 * Out-of-sync pages. Write-protecting every last-level guest table would make each guest page-table write an exit. So
 * a level-1 page may be *unsync*: the guest writes its table freely, the page may be stale, and it is synced when the
 * guest flushes its TLB, as a real TLB would be.
 *
 * To find unsync pages below a root, each page counts the entries under which there are some and marks them in a
 * bitmap. Both are upper bounds: unlinking a child clears nothing, the walk does it when it passes by.
 *
 * INVARIANT unsync: only level-1 pages with guest entries are unsync; a sync page's frame has no writable and no
 * MMU-writable entry anywhere.
 *
 * Source: Linux 6.1 mmu.c.
 */
import type { MemSlot } from '../mem/memslots.ts';
import { isObsolete, type Mmu } from './mmu.ts';
import { isTracked } from './page-track.ts';
import { spteHi, spteLo } from './rmap.ts';
import { roleHasGptes } from './role.ts';
import { childOf, indexOf, spOf, sptepAt } from './shadow-pages.ts';
import { isLarge, isShadowPresent } from './spte.ts';
import { traceSyncPage, traceUnsyncPage } from './tracing.ts';

/** Pages, and nodes on the way to them, that one round collects. @kvm KVM_PAGE_ARRAY_NR */
const PAGE_ARRAY = 16;
const NO_INDEX = -1;
const FULL = -1;

/** Unsync pages found below a parent, in preorder with the inner nodes that lead to them. @kvm kvm_mmu_pages */
export class UnsyncPages {
  readonly sp = new Int32Array(PAGE_ARRAY);
  readonly idx = new Int32Array(PAGE_ARRAY);
  nr = 0;
  /** Path to the page at hand: parent by level - 1 of the child, index of the entry in it. @kvm mmu_page_path */
  private readonly parent = new Int32Array(6);
  private readonly parentIdx = new Int32Array(6);

  /** True when full. @kvm mmu_pages_add */
  add(mmu: Mmu, sp: number, idx: number): boolean {
    if (mmu.pages.unsync[sp] !== 0) for (let i = 0; i < this.nr; i++) if (this.sp[i] === sp) return false;
    this.sp[this.nr] = sp;
    this.idx[this.nr] = idx;
    this.nr++;
    return this.nr === PAGE_ARRAY;
  }

  /** Position of the first unsync page; `nr` if there is none. @kvm mmu_pages_first */
  first(mmu: Mmu): number {
    if (this.nr === 0) return 0;
    const level = mmu.pages.level(this.sp[0]);
    this.parent[level - 2] = this.sp[0];
    this.parent[level - 1] = 0;
    return this.next(mmu, 0);
  }

  /** @kvm mmu_pages_next */
  next(mmu: Mmu, i: number): number {
    let n = i + 1;
    for (; n < this.nr; n++) {
      const level = mmu.pages.level(this.sp[n]);
      this.parentIdx[level - 1] = this.idx[n];
      if (level === 1) break;
      this.parent[level - 2] = this.sp[n];
    }
    return n;
  }

  /** Clears the bits on the path upward, as long as a page's last one went. @kvm mmu_pages_clear_parents */
  clearParents(mmu: Mmu): void {
    let level = 0;
    let sp: number;
    do {
      sp = this.parent[level];
      if (sp === 0) return;
      clearUnsyncChildBit(mmu, sp, this.parentIdx[level]);
      level++;
    } while (mmu.pages.unsyncChildren[sp] === 0);
  }
}

/** @kvm clear_unsync_child_bit */
function clearUnsyncChildBit(mmu: Mmu, sp: number, idx: number): void {
  mmu.pages.unsyncChildren[sp]--;
  mmu.pages.clearUnsyncBit(sp, idx);
}

/** Collects unsync pages below `sp`: how many, or FULL. @kvm __mmu_unsync_walk */
function unsyncWalkBelow(mmu: Mmu, sp: number, out: UnsyncPages): number {
  let leaves = 0;
  for (let i = mmu.pages.nextUnsyncBit(sp, 0); i >= 0; i = mmu.pages.nextUnsyncBit(sp, i + 1)) {
    const sptep = sptepAt(sp, i);
    const lo = spteLo(mmu, sptep);
    if (!isShadowPresent(lo) || isLarge(lo)) {
      clearUnsyncChildBit(mmu, sp, i);
      continue;
    }
    const child = childOf(lo, spteHi(mmu, sptep));
    if (mmu.pages.unsyncChildren[child] !== 0) {
      if (out.add(mmu, child, i)) return FULL;
      const found = unsyncWalkBelow(mmu, child, out);
      if (found < 0) return found;
      if (found === 0) clearUnsyncChildBit(mmu, sp, i);
      leaves += found;
    } else if (mmu.pages.unsync[child] !== 0) {
      leaves++;
      if (out.add(mmu, child, i)) return FULL;
    } else clearUnsyncChildBit(mmu, sp, i);
  }
  return leaves;
}

/** True if there was something below `sp`; `out` holds (the first part of) it. @kvm mmu_unsync_walk */
export function unsyncWalk(mmu: Mmu, sp: number, out: UnsyncPages): boolean {
  out.nr = 0;
  if (mmu.pages.unsyncChildren[sp] === 0) return false;
  out.add(mmu, sp, NO_INDEX);
  return unsyncWalkBelow(mmu, sp, out) !== 0;
}

/** Marks the entry's page, and on a first mark its parents, as having something unsync below. @kvm mark_unsync */
export function markUnsync(mmu: Mmu, sptep: number): void {
  const sp = spOf(sptep);
  if (!mmu.pages.setUnsyncBit(sp, indexOf(sptep))) return;
  if (mmu.pages.unsyncChildren[sp]++ !== 0) return;
  markParentsUnsync(mmu, sp);
}

/** @kvm kvm_mmu_mark_parents_unsync */
function markParentsUnsync(mmu: Mmu, sp: number): void {
  const lists = mmu.lists;
  const heads = mmu.pages.parents;
  const first = lists.first(heads, sp);
  if (first === 0) return;
  markUnsync(mmu, first);
  for (let c = lists.next(lists.firstCursor(heads, sp)); c !== 0; c = lists.next(c)) markUnsync(mmu, lists.at(c));
}

/** @kvm kvm_unsync_page */
function unsyncPage(mmu: Mmu, sp: number): void {
  traceUnsyncPage(mmu, sp);
  mmu.stats.mmu_unsync++;
  mmu.pages.unsync[sp] = 1;
  markParentsUnsync(mmu, sp);
}

/** The page leaves the unsync state. @kvm kvm_unlink_unsync_page */
export function unlinkUnsyncPage(mmu: Mmu, sp: number): void {
  traceSyncPage(mmu, sp);
  mmu.pages.unsync[sp] = 0;
  mmu.stats.mmu_unsync--;
}

/**
 * Makes way for a writable mapping of gfn: every page that mirrors it becomes unsync. True if that must not be (the
 * gfn is tracked, or `canUnsync` is false, or this is a mere prefetch), and then the mapping stays read-only; pages
 * before the one that refused are unsync all the same. @kvm mmu_try_to_unsync_pages
 */
export function tryToUnsyncPages(mmu: Mmu, slot: MemSlot, gfn: number, canUnsync: boolean, prefetch: boolean): boolean {
  if (isTracked(mmu, slot, gfn)) return true;
  const pages = mmu.pages;
  for (let sp = pages.bucketFirst(gfn); sp !== 0; sp = pages.bucketNext(sp)) {
    if (pages.gfn[sp] !== gfn || isObsolete(mmu, sp) || !roleHasGptes(pages.role[sp])) continue;
    if (!canUnsync) return true;
    if (pages.unsync[sp] !== 0) continue;
    if (prefetch) return true;
    if (pages.level(sp) !== 1) throw new Error('INVARIANT unsync: a page above level 1 would become unsync');
    unsyncPage(mmu, sp);
  }
  return false;
}

/** @kvm is_unsync_root */
export function isUnsyncRoot(mmu: Mmu, root: number): boolean {
  return root > 0 && (mmu.pages.unsync[root] !== 0 || mmu.pages.unsyncChildren[root] !== 0);
}
