/**
 * Roots of the TDP MMU. All vCPUs in the same mode share one. A root has a reference for each vCPU that has it as
 * current or previous root, one of the TDP MMU's own until it is invalidated and zapped, and one of whoever walks it.
 * With the last reference it is freed.
 *
 *     get (a vCPU)  -->  valid, counted  --invalidate-->  invalid, to be zapped  --zap, put-->  invalid, held by vCPUs
 *                                                                                                    | last put
 *                                                                                                    v freed
 *
 * The list has the newest first, invalid ones included. Source: Linux 6.1 tdp_mmu.c.
 */
import type { Mmu } from '../mmu.ts';
import { isInvalidRole, ROLE_INVALID, roleAddressSpace } from '../role.ts';
import type { MmuVcpu } from '../vcpu.ts';
import { freePageLater } from './rcu.ts';
import { initPage } from './tdp-pages.ts';

/** The root for a vCPU's mode, with a reference for it. @kvm kvm_tdp_mmu_get_vcpu_root_hpa */
export function getVcpuRoot(mmu: Mmu, vcpu: MmuVcpu): number {
  const { pages, tdpRoots } = mmu;
  for (const root of tdpRoots) {
    if (pages.role[root] !== vcpu.rootRole) continue;
    pages.rootCount[root]++;
    return root;
  }
  const root = vcpu.takeTable();
  initPage(mmu, root, 0, 0, vcpu.rootRole);
  pages.rootCount[root] = 2;
  tdpRoots.unshift(root);
  return root;
}

/** Gives a reference back. @kvm kvm_tdp_mmu_put_root */
export function putRoot(mmu: Mmu, root: number): void {
  const { pages, tdpRoots } = mmu;
  if (--pages.rootCount[root] !== 0) return;
  if (!isInvalidRole(pages.role[root])) throw new Error(`INVARIANT roots: the last reference to valid root ${root}`);
  tdpRoots.splice(tdpRoots.indexOf(root), 1);
  freePageLater(mmu, root);
}

/**
 * The root after `previous` (0: the first), with a reference; that to `previous` is given back. 0 at the end. So the
 * list may change while somebody walks it and yields. @kvm tdp_mmu_next_root
 */
export function nextRoot(mmu: Mmu, previous: number, onlyValid: boolean): number {
  const { pages, tdpRoots } = mmu;
  let at = previous === 0 ? 0 : tdpRoots.indexOf(previous) + 1;
  while (at < tdpRoots.length && onlyValid && isInvalidRole(pages.role[tdpRoots[at]])) at++;
  const root = at < tdpRoots.length ? tdpRoots[at] : 0;
  if (root !== 0) pages.rootCount[root]++;
  if (previous !== 0) putRoot(mmu, previous);
  return root;
}

/** The address space that a root belongs to. */
export function rootAddressSpace(mmu: Mmu, root: number): number {
  return roleAddressSpace(mmu.pages.role[root]);
}

/**
 * No vCPU takes these roots any more; those that have them are asked to drop them by the caller. Each is to be zapped,
 * and who does so gets the TDP MMU's own reference. @kvm kvm_tdp_mmu_invalidate_all_roots
 */
export function invalidateAllRoots(mmu: Mmu): void {
  const { pages } = mmu;
  for (const root of mmu.tdpRoots) {
    if (isInvalidRole(pages.role[root])) continue;
    pages.zapScheduled[root] = 1;
    pages.role[root] |= ROLE_INVALID;
  }
}
