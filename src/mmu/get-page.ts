/**
 * Finding or making the shadow page for (gfn, role), and linking it below an entry.
 * Source: Linux 6.1 mmu.c kvm_mmu_get_shadow_page, __link_shadow_page.
 */
import { flushRemoteTlbs, flushRemoteTlbsRange, type Mmu, isObsolete } from './mmu.ts';
import { accountShadowed } from './page-track.ts';
import { commitZapPages, dropParentPte, prepareZapPage, remoteFlushOrZap, zapPte } from './page-zap.ts';
import { mmuSpteSet, spteHi, spteLo } from './rmap.ts';
import { childRole, hasRoleNoAd, isDirectRole, ROLE_ACCESS, roleAccess, roleHasGptes, roleLevel } from './role.ts';
import { childOf, indexOf, spOf, tablePfn } from './shadow-pages.ts';
import { isLarge, isShadowPresent, nonleafHi, nonleafLo } from './spte.ts';
import { traceGetPage } from './tracing.ts';
import { syncOrZapPage } from './sync-children.ts';
import { markUnsync } from './unsync.ts';
import type { MmuVcpu } from './vcpu.ts';

/** The child is there already. @kvm ERR_PTR(-EEXIST) */
export const CHILD_EXISTS = 0;

/** A valid page for (gfn, role), synced if it was stale, or 0. @kvm kvm_mmu_find_shadow_page */
function findShadowPage(mmu: Mmu, vcpu: MmuVcpu | null, gfn: number, role: number): number {
  const pages = mmu.pages;
  const invalid: number[] = [];
  let collisions = 0;
  let found = 0;
  for (let sp = pages.bucketFirst(gfn); sp !== 0; sp = pages.bucketNext(sp)) {
    if (isObsolete(mmu, sp)) continue;
    if (pages.gfn[sp] !== gfn) {
      collisions++;
      continue;
    }
    if (pages.role[sp] !== role) {
      // The table is used at another level now: its unsync page there would never be synced.
      if (roleLevel(role) > 1 && pages.unsync[sp] !== 0) prepareZapPage(mmu, sp, invalid);
      continue;
    }
    if (!isDirectRole(role)) {
      if (pages.unsync[sp] !== 0 && vcpu !== null) {
        // It stays unsync and unprotected; it only must not be linked stale.
        const ret = syncOrZapPage(mmu, vcpu, sp, invalid);
        if (ret < 0) break;
        if (ret > 0) flushRemoteTlbs(mmu);
      }
      pages.writeFlooding[sp] = 0;
    }
    found = sp;
    break;
  }
  if (found === 0) mmu.stats.mmu_cache_miss++;
  commitZapPages(mmu, invalid);
  if (collisions > mmu.stats.max_mmu_page_hash_collisions) mmu.stats.max_mmu_page_hash_collisions = collisions;
  return found;
}

/** The page for (gfn, role), made if there is none; its table comes out of `table()`. @kvm __kvm_mmu_get_shadow_page */
export function getShadowPage(mmu: Mmu, vcpu: MmuVcpu | null, gfn: number, role: number): number {
  let sp = findShadowPage(mmu, vcpu, gfn, role);
  const created = sp === 0;
  if (created) {
    sp = vcpu !== null ? vcpu.takeTable() : mmu.arena.alloc();
    mmu.pages.add(sp, gfn, role, mmu.validGen);
    mmu.nUsedPages++;
    if (roleHasGptes(role)) accountShadowed(mmu, sp);
  }
  traceGetPage(mmu, sp, created);
  return sp;
}

/**
 * The page to link below `sptep`, or CHILD_EXISTS if just that page is linked there: same gfn, same role word. A child
 * with another is never accepted. @kvm kvm_mmu_get_child_sp
 */
export function getChildPage(
  mmu: Mmu,
  vcpu: MmuVcpu,
  sptep: number,
  gfn: number,
  direct: boolean,
  access: number,
): number {
  const role = childRole(mmu.pages.role[spOf(sptep)], indexOf(sptep), direct, access);
  const lo = spteLo(mmu, sptep);
  if (isShadowPresent(lo) && !isLarge(lo)) {
    const child = childOf(lo, spteHi(mmu, sptep));
    if (mmu.pages.gfn[child] === gfn && mmu.pages.role[child] === role) return CHILD_EXISTS;
    if (wasOnceTaken(mmu, child, gfn, role)) return CHILD_EXISTS;
  }
  return getShadowPage(mmu, vcpu, gfn, role);
}

/** A child of another gfn or role, as KVM took it for the right one before it compared them. */
function wasOnceTaken(mmu: Mmu, child: number, gfn: number, role: number): boolean {
  const { bugs, pages } = mmu;
  const difference = pages.role[child] ^ role;
  if (pages.gfn[child] !== gfn) return bugs.childGfnUnchecked && difference === 0;
  if (bugs.childRoleUnchecked) return true;
  return bugs.directRightsUnchecked && isDirectRole(role) && (difference & ~ROLE_ACCESS) === 0;
}

/**
 * Points `sptep` at page `sp`. What was there goes first, with a flush: this is where a large read-only entry is
 * dropped at last, because a write needs a smaller mapping. @kvm __link_shadow_page
 */
export function linkShadowPage(mmu: Mmu, sptep: number, sp: number): void {
  dropPresent(mmu, sptep);
  const pfn = tablePfn(sp);
  const adDisabled = hasRoleNoAd(mmu.pages.role[sp]);
  mmuSpteSet(mmu, sptep, nonleafLo(mmu.format, pfn, adDisabled), nonleafHi(mmu.format, pfn, adDisabled));
  mmu.lists.add(mmu.pages.parents, sp, sptep);
  if (mmu.pages.unsyncChildren[sp] !== 0 || mmu.pages.unsync[sp] !== 0) markUnsync(mmu, sptep);
}

/** What an entry maps goes, with a flush; an empty one stays. */
export function dropPresent(mmu: Mmu, sptep: number): void {
  if (!isShadowPresent(spteLo(mmu, sptep))) return;
  const invalid: number[] = [];
  zapPte(mmu, sptep, invalid);
  remoteFlushOrZap(mmu, invalid, true);
}

/** Unlinks a direct child made for other rights than the guest's leaf has now. @kvm validate_direct_spte */
export function validateDirectSpte(mmu: Mmu, sptep: number, access: number): void {
  const lo = spteLo(mmu, sptep);
  if (!isShadowPresent(lo) || isLarge(lo)) return;
  const child = childOf(lo, spteHi(mmu, sptep));
  if (roleAccess(mmu.pages.role[child]) === access || mmu.bugs.directRightsUnchecked) return;
  dropParentPte(mmu, child, sptep);
  flushRemoteTlbsRange(mmu, mmu.pages.gfn[child], 1);
}
