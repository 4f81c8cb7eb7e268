/**
 * A vCPU that runs a nested guest under its hypervisor's nested tables. KVM mirrors those, as it mirrors a guest's page
 * tables under shadow paging: what is walked in software starts at nCR3, an address is the nested guest's physical one, and
 * what the walk doesn't allow is the hypervisor's nested page fault. The nested guest's own tables are the CPU's business,
 * unless one of its instructions is emulated.
 *
 *     fields of MmuVcpu   guest's tables   --enter-->  nested guest's
 *     vcpu.idle           nested guest's  <--leave--   guest's
 *     vcpu.own            the nested guest's own mode, for walks of its tables in software
 *
 * Source: Linux 6.1 mmu.c kvm_init_shadow_npt_mmu, svm/nested.c nested_svm_init_mmu_context.
 */
import type { MmuContext, MmuVcpu } from './vcpu.ts';

/** The nested guest's tables are now what the CPU walks, or no longer. @kvm nested_svm_uninit_mmu_context */
export function switchContext(vcpu: MmuVcpu): void {
  exchange(vcpu, vcpu.idle);
  vcpu.isNested = !vcpu.isNested;
}

/** Does something to the guest's roots, then to a nested guest's. */
export function withEachContext(vcpu: MmuVcpu, work: () => void): void {
  if (!vcpu.isNested) work();
  exchange(vcpu, vcpu.idle);
  work();
  exchange(vcpu, vcpu.idle);
  if (vcpu.isNested) work();
}

/** A walk of the nested guest's own tables begins, or ends; in between it stops for each step to translate. */
export function switchOwn(vcpu: MmuVcpu): void {
  exchange(vcpu, vcpu.own);
  vcpu.walksOwn = !vcpu.walksOwn;
}

function exchange(a: MmuContext, b: MmuContext): void {
  const { root, prevRoots, rootRole, cpuRole, cpuRoleExt, permissions, pkruMask, rsvdLo, rsvdHi } = a;
  a.root = b.root;
  a.prevRoots = b.prevRoots;
  a.rootRole = b.rootRole;
  a.cpuRole = b.cpuRole;
  a.cpuRoleExt = b.cpuRoleExt;
  a.permissions = b.permissions;
  a.pkruMask = b.pkruMask;
  a.rsvdLo = b.rsvdLo;
  a.rsvdHi = b.rsvdHi;
  b.root = root;
  b.prevRoots = prevRoots;
  b.rootRole = rootRole;
  b.cpuRole = cpuRole;
  b.cpuRoleExt = cpuRoleExt;
  b.permissions = permissions;
  b.pkruMask = pkruMask;
  b.rsvdLo = rsvdLo;
  b.rsvdHi = rsvdHi;
}
