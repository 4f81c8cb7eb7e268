/**
 * The walk of the guest's page tables in software: for shadow paging's faults, for the emulator, for KVM_TRANSLATE.
 *
 *     mode       levels   entry      index bits    large at
 *     32-bit        2     4 bytes        10        2 (4 MiB, with CR4.PSE; bits 13-16 are address bits 32-35)
 *     PAE         2 + 4   8 bytes         9        2        the four PDPTEs are registers, read only for the walk
 *     4-level       4     8 bytes         9        2, 3
 *
 * A bits of all levels and D of the leaf are set if the walk succeeds and any A (on writes: the leaf's D) is missing,
 * top level first. A leaf whose D is clear loses WRITE on a read, so that the first write faults and sets D.
 *
 * Source: Linux 6.1 paging_tmpl.h walk_addr_generic.
 */
import {
  TP_PAGETABLE_WALK,
  TP_PAGING_ELEMENT,
  TP_SET_ACCESSED_BIT,
  TP_SET_DIRTY_BIT,
  TP_WALKER_ERROR,
} from '../trace/tracepoints.ts';
import { hvaOfGfn, markPageDirty } from './guest-memory.ts';
import {
  guestLevels,
  hasFourByteGptes,
  isCr4Smep,
  isEferNx,
  isReservedGpte,
  PFERR_FETCH,
  PFERR_PRESENT,
  PFERR_RSVD,
  PFERR_USER,
  PFERR_WRITE,
  permissionFault,
} from './guest-mode.ts';
import type { GuestWalk } from './guest-walk.ts';
import { type Mmu, vcpuSlot } from './mmu.ts';
import { switchOwn } from './nested.ts';
import { EXT_CR4_PSE } from './role.ts';
import type { MmuVcpu } from './vcpu.ts';

export const GPTE_P = 1 << 0;
export const GPTE_W = 1 << 1;
export const GPTE_A = 1 << 5;
export const GPTE_D = 1 << 6;
const GPTE_PS = 1 << 7;
const GPTE_RIGHTS = 7;

/** Rights that an entry grants: P stands for EXEC, taken away by NX. @kvm gpte_access */
export function gpteAccess(lo: number, hi: number): number {
  return (lo & GPTE_RIGHTS) ^ (hi >>> 31);
}

/** A clean leaf grants no writing. @kvm protect_clean_gpte */
export function protectCleanGpte(access: number, lo: number): number {
  return (lo & GPTE_D) === 0 ? access & ~GPTE_W : access;
}

/** Frame of an 8-byte entry at level 1, or of a table. @kvm gpte_to_gfn */
export function gpteGfn(lo: number, hi: number): number {
  return (lo >>> 12) + (hi & 0xfffff) * 0x100000;
}

/** The frame that a leaf at `level` maps, low bits of the address included. @kvm gpte_to_gfn_lvl, pse36_gfn_delta */
function leafGfn(lo: number, hi: number, level: number, fourByte: boolean, addrLo: number): number {
  const bitsPerLevel = fourByte ? 10 : 9;
  const mask = (1 << (bitsPerLevel * (level - 1))) - 1;
  let gfn = ((lo >>> 12) & ~mask) + (fourByte ? 0 : (hi & 0xfffff) * 0x100000);
  gfn += (addrLo >>> 12) & mask;
  if (fourByte && level > 1) gfn += (lo & 0x1e000) << 7;
  return gfn;
}

/** Index of an address in the guest's table of `level`. @kvm PT_INDEX */
function gpteIndex(lo: number, hi: number, level: number, fourByte: boolean): number {
  if (fourByte) return level === 1 ? (lo >>> 12) & 1023 : lo >>> 22;
  if (level === 1) return (lo >>> 12) & 511;
  if (level === 2) return (lo >>> 21) & 511;
  if (level === 3) return ((lo >>> 30) | (hi << 2)) & 511;
  return level === 4 ? (hi >>> 7) & 511 : (hi >>> 16) & 511;
}

/** @kvm is_last_gpte */
function isLastGpte(vcpu: MmuVcpu, lo: number, level: number, fourByte: boolean): boolean {
  if (level === 1) return true;
  if (fourByte && (vcpu.cpuRoleExt & EXT_CR4_PSE) === 0) return false;
  return (lo & GPTE_PS) !== 0;
}

const WALK_FAILED = 0;
const WALK_DONE = 1;
const WALK_RETRY = 2;

/**
 * Walks to the leaf of an address for an access (PFERR bits). True: `w` holds it. False: `w.errorCode` is the #PF's.
 * @kvm FNAME(walk_addr_generic)
 */
export function walkAddr(mmu: Mmu, vcpu: MmuVcpu, w: GuestWalk, lo: number, hi: number, access: number): boolean {
  if (mmu.trace.on) mmu.trace.emit(TP_PAGETABLE_WALK, lo, hi, access);
  for (;;) {
    const result = walkOnce(mmu, vcpu, w, lo, hi, access);
    if (result !== WALK_RETRY) return result === WALK_DONE;
  }
}

/**
 * The same for an address of a nested guest, through its own tables and its hypervisor's nested ones. False: `w` has the
 * #PF, or `vcpu.translation` the nested page fault, by `w.isNestedFault`.
 */
export function walkNestedGuest(
  mmu: Mmu,
  vcpu: MmuVcpu,
  w: GuestWalk,
  lo: number,
  hi: number,
  access: number,
): boolean {
  w.isNestedFault = false;
  switchOwn(vcpu);
  const walked =
    guestLevels(vcpu) === 0 ? isTranslated(mmu, vcpu, w, lo, hi, access) : walkAddr(mmu, vcpu, w, lo, hi, access);
  switchOwn(vcpu);
  return walked;
}

/** Without paging. @kvm nonpaging_gva_to_gpa */
function isTranslated(mmu: Mmu, vcpu: MmuVcpu, w: GuestWalk, lo: number, hi: number, access: number): boolean {
  w.gfn = hypervisorGfn(mmu, vcpu, w, (lo >>> 12) + hi * 0x100000, access);
  return w.gfn >= 0;
}

/** The hypervisor's frame of a nested guest's; negative: a nested page fault. @kvm translate_nested_gpa */
function hypervisorGfn(mmu: Mmu, vcpu: MmuVcpu, w: GuestWalk, gfn: number, access: number): number {
  const { translation } = vcpu;
  switchOwn(vcpu);
  const found = walkAddr(mmu, vcpu, translation, gfn << 12, gfn >>> 20, access | PFERR_USER);
  switchOwn(vcpu);
  if (found) return translation.gfn;
  w.isNestedFault = true;
  return -1;
}

function walkOnce(mmu: Mmu, vcpu: MmuVcpu, w: GuestWalk, lo: number, hi: number, access: number): number {
  const fourByte = hasFourByteGptes(vcpu);
  const nxMask = fourByte ? 0 : 1 << 31;
  w.level = guestLevels(vcpu);
  let pteLo = vcpu.pgdLo;
  let pteHi = fourByte ? 0 : vcpu.pgdHi;
  if (w.level === 3) {
    const i = lo >>> 30;
    vcpu.port.refreshPdptrs();
    pteLo = vcpu.regs.pdptrs[2 * i];
    pteHi = vcpu.regs.pdptrs[2 * i + 1];
    if (mmu.trace.on) mmu.trace.emit(TP_PAGING_ELEMENT, pteLo, pteHi, w.level);
    if ((pteLo & GPTE_P) === 0) return walkError(mmu, vcpu, w, lo, hi, access, 0);
    w.level--;
  }
  w.maxLevel = w.level;
  let accLo = -1;
  let accHi = -1;
  for (w.level++; ; ) {
    w.level--;
    const at = w.level - 1;
    w.ptAccess[at] = gpteAccess(accLo, accHi ^ nxMask);
    w.tableGfn[at] = gpteGfn(pteLo, pteHi);
    let gfn = w.tableGfn[at];
    if (vcpu.walksOwn) {
      gfn = hypervisorGfn(mmu, vcpu, w, gfn, PFERR_WRITE);
      if (gfn < 0) return WALK_FAILED;
    }
    if (!readGpte(mmu, vcpu, w, gfn, gpteIndex(lo, hi, w.level, fourByte), fourByte))
      return walkError(mmu, vcpu, w, lo, hi, access, 0);
    pteLo = w.pteLo[at];
    pteHi = w.pteHi[at];
    if (mmu.trace.on) mmu.trace.emit(TP_PAGING_ELEMENT, pteLo, pteHi, w.level);
    accLo &= pteLo;
    accHi &= pteHi ^ nxMask;
    if ((pteLo & GPTE_P) === 0) return walkError(mmu, vcpu, w, lo, hi, access, 0);
    if (isReservedGpte(vcpu, pteLo, pteHi, w.level))
      return walkError(mmu, vcpu, w, lo, hi, access, PFERR_RSVD | PFERR_PRESENT);
    if (isLastGpte(vcpu, pteLo, w.level, fourByte)) break;
  }
  w.pteAccess = gpteAccess(accLo, accHi ^ nxMask);
  const pkey = fourByte ? 0 : (pteHi >>> 27) & 15;
  const errorCode = permissionFault(vcpu, w.pteAccess, pkey, access);
  if (errorCode !== 0) return walkError(mmu, vcpu, w, lo, hi, access, errorCode);

  w.gfn = leafGfn(pteLo, pteHi, w.level, fourByte, lo);
  if (vcpu.walksOwn) {
    w.gfn = hypervisorGfn(mmu, vcpu, w, w.gfn, access);
    if (w.gfn < 0) return WALK_FAILED;
  }
  let complete = (accLo & GPTE_A) !== 0;
  if ((access & PFERR_WRITE) === 0) w.pteAccess = protectCleanGpte(w.pteAccess, pteLo);
  else if ((pteLo & GPTE_D) === 0) complete = false;
  if (complete) return WALK_DONE;
  if (!updateAccessedDirty(mmu, vcpu, w, (access & PFERR_WRITE) !== 0, fourByte))
    return walkError(mmu, vcpu, w, lo, hi, access, 0);
  return WALK_DONE;
}

/** Reads one entry through the host's mapping, faulting as a process does. */
function readGpte(mmu: Mmu, vcpu: MmuVcpu, w: GuestWalk, gfn: number, index: number, fourByte: boolean): boolean {
  const at = w.level - 1;
  const slot = vcpuSlot(mmu, vcpu, gfn);
  const hva = hvaOfGfn(slot, gfn);
  const bytes = fourByte ? 4 : 8;
  w.offset[at] = index * bytes;
  if (hva < 0) return false;
  w.pteHva[at] = hva + index * bytes;
  w.pteWritable[at] = slot?.isReadonly ? 0 : 1;
  if (mmu.host.readUser(hva + index * bytes, mmu.bytes, bytes) !== 0) return false;
  w.pteLo[at] = mmu.words[0];
  w.pteHi[at] = fourByte ? 0 : mmu.words[1];
  return true;
}

/** Sets what A bits are missing, and the leaf's D on a write, top level first. @kvm FNAME(update_accessed_dirty_bits) */
function updateAccessedDirty(mmu: Mmu, vcpu: MmuVcpu, w: GuestWalk, write: boolean, fourByte: boolean): boolean {
  for (let level = w.maxLevel; level >= w.level; level--) {
    const at = level - 1;
    const gfn = w.tableGfn[at];
    const old = w.pteLo[at];
    let pte = old;
    if ((pte & GPTE_A) === 0) {
      traceEntryGpa(mmu, TP_SET_ACCESSED_BIT, gfn, w.offset[at]);
      pte |= GPTE_A;
    }
    if (level === w.level && write && (pte & GPTE_D) === 0) {
      traceEntryGpa(mmu, TP_SET_DIRTY_BIT, gfn, w.offset[at]);
      pte |= GPTE_D;
    }
    if (pte === old || w.pteWritable[at] === 0) continue;
    mmu.words[0] = pte;
    mmu.words[1] = w.pteHi[at];
    if (mmu.host.writeUser(w.pteHva[at], mmu.bytes, fourByte ? 4 : 8) !== 0) return false;
    markPageDirty(vcpuSlot(mmu, vcpu, gfn), gfn);
    w.pteLo[at] = pte;
  }
  return true;
}

function traceEntryGpa(mmu: Mmu, id: number, gfn: number, offset: number): void {
  if (mmu.trace.on) mmu.trace.emit(id, (gfn << 12) | offset, gfn >>> 20);
}

function walkError(
  mmu: Mmu,
  vcpu: MmuVcpu,
  w: GuestWalk,
  lo: number,
  hi: number,
  access: number,
  code: number,
): number {
  let errorCode = code | (access & (PFERR_WRITE | PFERR_USER));
  if ((access & PFERR_FETCH) !== 0 && (isEferNx(vcpu) || isCr4Smep(vcpu))) errorCode |= PFERR_FETCH;
  w.errorCode = errorCode;
  w.addrLo = lo;
  w.addrHi = hi;
  if (mmu.trace.on) mmu.trace.emit(TP_WALKER_ERROR, errorCode);
  return WALK_FAILED;
}
