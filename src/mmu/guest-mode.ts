/**
 * The guest's paging mode, as roles, and what follows from it: which error codes a combination of rights faults with,
 * and which bits of a guest entry are reserved. Recomputed when the mode changes, read at each walk.
 *
 * Source: Linux 6.1 mmu.c kvm_calc_cpu_role, update_permission_bitmask, __reset_rsvds_bits_mask.
 */
import type { Mmu } from './mmu.ts';
import {
  EXT_CR4_LA57,
  EXT_CR4_PKE,
  EXT_CR4_PSE,
  EXT_CR4_SMAP,
  EXT_CR4_SMEP,
  EXT_EFER_LMA,
  EXT_VALID,
  ROLE_ACCESS,
  ROLE_AD_DISABLED,
  ROLE_CR0_WP,
  ROLE_DIRECT,
  ROLE_EFER_NX,
  ROLE_GUEST_MODE,
  ROLE_HAS_4_BYTE_GPTE,
  ROLE_PASSTHROUGH,
  ROLE_SMAP_ANDNOT_WP,
  ROLE_SMEP_ANDNOT_WP,
  roleLevel,
  withLevel,
} from './role.ts';
import { ACC_EXEC, ACC_USER, ACC_WRITE } from './spte.ts';
import { switchOwn } from './nested.ts';
import type { MmuVcpu } from './vcpu.ts';

export const PFERR_PRESENT = 1 << 0;
export const PFERR_WRITE = 1 << 1;
export const PFERR_USER = 1 << 2;
export const PFERR_RSVD = 1 << 3;
export const PFERR_FETCH = 1 << 4;
export const PFERR_PK = 1 << 5;
/** An access that the CPU makes on its own (descriptor tables, TSS): SMAP holds whatever EFLAGS.AC says. */
export const PFERR_IMPLICIT_ACCESS = 1 << 30;

const CR0_WP = 1 << 16;
const CR0_PG = 1 << 31;
const CR4_PSE = 1 << 4;
const CR4_PAE = 1 << 5;
const CR4_LA57 = 1 << 12;
const CR4_SMEP = 1 << 20;
const CR4_SMAP = 1 << 21;
const CR4_PKE = 1 << 22;
const EFER_LMA = 1 << 10;
const EFER_NX = 1 << 11;

/** Guest-physical address bits. */
export const GUEST_MAXPHYADDR = 40;

export function isCr0Wp(vcpu: MmuVcpu): boolean {
  return (vcpu.cpuRole & ROLE_CR0_WP) !== 0;
}
export function isEferNx(vcpu: MmuVcpu): boolean {
  return (vcpu.cpuRole & ROLE_EFER_NX) !== 0;
}
export function isCr4Smep(vcpu: MmuVcpu): boolean {
  return (vcpu.cpuRoleExt & EXT_CR4_SMEP) !== 0;
}
/** Levels of the guest's tables: 0 without paging, 2, 3 (PAE), 4. */
export function guestLevels(vcpu: MmuVcpu): number {
  return roleLevel(vcpu.cpuRole);
}
export function hasFourByteGptes(vcpu: MmuVcpu): boolean {
  return (vcpu.cpuRole & ROLE_HAS_4_BYTE_GPTE) !== 0;
}

/** @kvm kvm_calc_cpu_role */
function calcCpuRole(vcpu: MmuVcpu, cr0: number, cr4: number, efer: number): void {
  const mode = vcpu.isNested ? ROLE_GUEST_MODE : 0;
  vcpu.cpuRoleExt = EXT_VALID;
  if ((cr0 & CR0_PG) === 0) {
    vcpu.cpuRole = ROLE_ACCESS | ROLE_DIRECT | mode;
    return;
  }
  const wp = (cr0 & CR0_WP) !== 0;
  const pae = (cr4 & CR4_PAE) !== 0;
  const lma = (efer & EFER_LMA) !== 0;
  let role = ROLE_ACCESS | mode;
  if (efer & EFER_NX) role |= ROLE_EFER_NX;
  if (wp) role |= ROLE_CR0_WP;
  if ((cr4 & CR4_SMEP) !== 0 && !wp) role |= ROLE_SMEP_ANDNOT_WP;
  if ((cr4 & CR4_SMAP) !== 0 && !wp) role |= ROLE_SMAP_ANDNOT_WP;
  if (!pae) role |= ROLE_HAS_4_BYTE_GPTE;
  vcpu.cpuRole = withLevel(role, lma ? (cr4 & CR4_LA57 ? 5 : 4) : pae ? 3 : 2);

  if (cr4 & CR4_SMEP) vcpu.cpuRoleExt |= EXT_CR4_SMEP;
  if (cr4 & CR4_SMAP) vcpu.cpuRoleExt |= EXT_CR4_SMAP;
  if (cr4 & CR4_PSE) vcpu.cpuRoleExt |= EXT_CR4_PSE;
  if (lma && cr4 & CR4_PKE) vcpu.cpuRoleExt |= EXT_CR4_PKE;
  if (lma && cr4 & CR4_LA57) vcpu.cpuRoleExt |= EXT_CR4_LA57;
  if (lma) vcpu.cpuRoleExt |= EXT_EFER_LMA;
}

const TDP_ROOT_ROLE = ROLE_ACCESS | ROLE_DIRECT | ROLE_CR0_WP | ROLE_EFER_NX;
const PAE_LEVELS = 3;

/** Two-dimensional paging: one kind of table whatever the guest does. @kvm kvm_calc_tdp_mmu_root_page_role */
function tdpRootRole(mmu: Mmu): number {
  return withLevel(TDP_ROOT_ROLE | (mmu.adDisabled ? ROLE_AD_DISABLED : 0), mmu.tdpLevel);
}

/**
 * Brings the roles and what follows from them up to the guest's registers. A nested guest's say nothing about the tables that
 * KVM makes for it, only how its own are read. @kvm kvm_init_mmu, init_kvm_nested_mmu
 */
export function initMmu(mmu: Mmu, vcpu: MmuVcpu): void {
  const { cr0, cr4, efer } = vcpu.regs;
  if (vcpu.isNested) {
    switchOwn(vcpu);
    calcCpuRole(vcpu, cr0, cr4, efer);
    followCpuRole(mmu, vcpu);
    switchOwn(vcpu);
    return;
  }
  calcCpuRole(vcpu, cr0, cr4, efer);
  if (mmu.tdp) vcpu.rootRole = tdpRootRole(mmu);
  else {
    const level = Math.max(roleLevel(vcpu.cpuRole), PAE_LEVELS);
    // NX is always on in shadow tables: the guest may leave it off, the huge page mitigation may not.
    vcpu.rootRole = withLevel(vcpu.cpuRole, level) | ROLE_EFER_NX;
  }
  followCpuRole(mmu, vcpu);
}

/**
 * The same for a nested guest's tables, which have the format of the page tables of the hypervisor that made them. What
 * the guest under it sees as its root is a table of the host's depth: where the hypervisor's are less deep, what is above them has
 * no table to mirror. @kvm kvm_init_shadow_npt_mmu
 */
export function initShadowNpt(mmu: Mmu, vcpu: MmuVcpu, cr4: number, efer: number): void {
  calcCpuRole(vcpu, CR0_PG, cr4 & ~CR4_PKE, efer);
  const isDeeper = mmu.tdpLevel === 5 && roleLevel(vcpu.cpuRole) === 4;
  vcpu.rootRole = withLevel(vcpu.cpuRole, mmu.tdpLevel) | (isDeeper ? ROLE_PASSTHROUGH : 0);
  followCpuRole(mmu, vcpu);
}

function followCpuRole(mmu: Mmu, vcpu: MmuVcpu): void {
  if (roleLevel(vcpu.cpuRole) === 0) return;
  resetReservedBits(vcpu);
  updatePermissions(vcpu);
  updatePkruMask(mmu, vcpu);
}

// ---- permissions ---------------------------------------------------------------------------------------------------

/** A byte with a bit for each combination of rights (0 to 7) that includes one of `access`. @kvm BYTE_MASK */
function byteMask(access: number): number {
  let mask = 0;
  for (let rights = 1; rights < 8; rights++) if (rights & access) mask |= 1 << rights;
  return mask;
}
const X_RIGHTS = byteMask(ACC_EXEC);
const W_RIGHTS = byteMask(ACC_WRITE);
const U_RIGHTS = byteMask(ACC_USER);

/** @kvm update_permission_bitmask */
function updatePermissions(vcpu: MmuVcpu): void {
  const smep = isCr4Smep(vcpu);
  const smap = (vcpu.cpuRoleExt & EXT_CR4_SMAP) !== 0;
  for (let i = 0; i < vcpu.permissions.length; i++) {
    const pfec = i << 1;
    const user = (pfec & PFERR_USER) !== 0;
    const fetch = (pfec & PFERR_FETCH) !== 0;
    const kernelOnUserPage = user ? 0 : U_RIGHTS;
    let faults = 0;
    if (fetch && isEferNx(vcpu)) faults |= ~X_RIGHTS;
    if (user) faults |= ~U_RIGHTS;
    if ((pfec & PFERR_WRITE) !== 0 && (user || isCr0Wp(vcpu))) faults |= ~W_RIGHTS;
    if (smep && fetch) faults |= kernelOnUserPage;
    // In place of RSVD, which is never set here: SMAP checks are off (EFLAGS.AC).
    if (smap && (pfec & (PFERR_RSVD | PFERR_FETCH)) === 0) faults |= kernelOnUserPage;
    vcpu.permissions[i] = faults;
  }
}

/** Two bits (access disable, write disable) for each error code: which of a key's bits count. @kvm update_pkru_bitmask */
function updatePkruMask(mmu: Mmu, vcpu: MmuVcpu): void {
  const isOn = (vcpu.cpuRoleExt & EXT_CR4_PKE) !== 0;
  if (!isOn || !mmu.bugs.pkruMaskNotReset) vcpu.pkruMask = 0;
  if (!isOn) return;
  for (let i = 0; i < vcpu.permissions.length; i++) {
    const pfec = i << 1;
    const onUserPage = (pfec & PFERR_RSVD) !== 0;
    const checkKey = (pfec & PFERR_FETCH) === 0 && onUserPage;
    const checkWrite = checkKey && (pfec & PFERR_WRITE) !== 0 && ((pfec & PFERR_USER) !== 0 || isCr0Wp(vcpu));
    vcpu.pkruMask |= ((checkKey ? 1 : 0) | (checkWrite ? 2 : 0)) << pfec;
  }
}

/**
 * The error code that an access faults with, 0 if it may. `access` as PFERR bits; `rights` and `pkey` of the mapping.
 * @kvm permission_fault
 */
export function permissionFault(vcpu: MmuVcpu, rights: number, pkey: number, access: number): number {
  const pfec = access & 0x1f;
  const noSmap = vcpu.regs.ac && (access & PFERR_IMPLICIT_ACCESS) === 0;
  const index = (pfec + (noSmap ? PFERR_RSVD : 0)) >> 1;
  let errorCode = PFERR_PRESENT;
  let fault = ((vcpu.permissions[index] >> rights) & 1) !== 0;
  if (vcpu.pkruMask !== 0) {
    const offset = (pfec & ~1) + (rights & ACC_USER ? PFERR_RSVD : 0);
    const bits = (vcpu.regs.pkru >>> (pkey * 2)) & 3 & (vcpu.pkruMask >>> offset);
    if (bits !== 0) {
      errorCode |= PFERR_PK;
      fault = true;
    }
  }
  return fault ? errorCode : 0;
}

// ---- reserved bits of guest entries --------------------------------------------------------------------------------

/** Index into the reserved-bit tables. */
function rsvdIndex(large: number, level: number): number {
  return large * 5 + level - 1;
}

function bits(low: number, high: number): bigint {
  return low > high ? 0n : ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);
}

/** @kvm __reset_rsvds_bits_mask */
function resetReservedBits(vcpu: MmuVcpu): void {
  const set = (large: number, level: number, mask: bigint): void => {
    vcpu.rsvdLo[rsvdIndex(large, level)] = Number(BigInt.asIntN(32, mask));
    vcpu.rsvdHi[rsvdIndex(large, level)] = Number(BigInt.asIntN(32, mask >> 32n));
  };
  const levels = guestLevels(vcpu);
  if (levels === 2) {
    const pse = (vcpu.cpuRoleExt & EXT_CR4_PSE) !== 0;
    for (const level of [1, 2]) set(0, level, 0n);
    set(1, 1, 0n);
    set(1, 2, pse ? bits(17, 21) : 0n);
    return;
  }
  const high = bits(GUEST_MAXPHYADDR, levels === 3 ? 62 : 51) | (isEferNx(vcpu) ? 0n : bits(63, 63));
  for (const level of [1, 2, 3]) set(0, level, high);
  for (const level of [4, 5]) {
    set(0, level, high | bits(7, 8));
    set(1, level, high | bits(7, 8));
  }
  set(1, 3, high | bits(13, 29));
  set(1, 2, high | bits(13, 20));
  set(1, 1, high);
}

/** @kvm __is_rsvd_bits_set */
export function isReservedGpte(vcpu: MmuVcpu, lo: number, hi: number, level: number): boolean {
  const at = rsvdIndex((lo >>> 7) & 1, level);
  return (lo & vcpu.rsvdLo[at]) !== 0 || (hi & vcpu.rsvdHi[at]) !== 0;
}
