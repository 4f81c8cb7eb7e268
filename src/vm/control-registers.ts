/**
 * Loads of control registers as KVM does them, when it emulates the instruction or user space sets them: checks, then
 * what the MMU must forget. Each returns false for #GP.
 *
 * Source: Linux 6.1 x86.c kvm_set_cr0, kvm_set_cr3, kvm_set_cr4, load_pdptrs.
 */
import { readGuest } from '../mmu/guest-memory.ts';
import { GUEST_MAXPHYADDR, initMmu } from '../mmu/guest-mode.ts';
import { invpcidGva } from '../mmu/inject.ts';
import type { Mmu } from '../mmu/mmu.ts';
import { REQ_LOAD_MMU_PGD, REQ_MMU_SYNC, REQ_TLB_FLUSH_CURRENT, REQ_TLB_FLUSH_GUEST } from '../mmu/requests.ts';
import { freeCurrentRoot, freePrevRoots, newPgd, resetMmuContext, unloadMmu } from '../mmu/roots.ts';
import type { MmuVcpu } from '../mmu/vcpu.ts';
import {
  CR0_CD,
  CR0_ET,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR0_WP,
  CR4_LA57,
  CR4_PAE,
  CR4_PCIDE,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  type CpuState,
  EFER_LMA,
  EFER_LME,
  EFER_NX,
  isLongMode,
  isPaePaging,
  isPaging,
} from './cpu-state.ts';

/** Bits of CR0 that exist. @kvm CR0_RESERVED_BITS */
const CR0_BITS = CR0_PE | 0x3e | CR0_WP | (1 << 18) | CR0_NW | CR0_CD | CR0_PG;
const CR0_PDPTR_BITS = CR0_CD | CR0_NW | CR0_PG;
const CR4_PDPTR_BITS = CR4_PGE | CR4_PSE | CR4_PAE | CR4_SMEP;
const CR0_ROLE_BITS = CR0_PG | CR0_WP;
const CR4_ROLE_BITS = CR4_PSE | CR4_PAE | CR4_LA57 | CR4_SMEP | CR4_SMAP | CR4_PKE;
/** Reserved bits of a PDPTE besides the frame's: 1, 2, 5 to 8. @kvm pdptr_rsvd_bits */
const PDPTE_RESERVED_LO = 0x1e6;
const PDPTE_RESERVED_HI = -(1 << (GUEST_MAXPHYADDR - 32)) | 0;
const PCID_MASK = 0xfff;

/** Reads PAE's four top-level entries. Roots made for others go. @kvm load_pdptrs */
export function loadPdptrs(mmu: Mmu, vcpu: MmuVcpu, cr3Lo: number): boolean {
  if (!readGuest(mmu, vcpu, cr3Lo >>> 12, cr3Lo & 0xfe0, 32)) return false;
  const { pdptrs } = vcpu.regs;
  const loaded = mmu.words.slice(0, 8);
  for (let i = 0; i < 8; i += 2)
    if (loaded[i] & 1 && (loaded[i] & PDPTE_RESERVED_LO || loaded[i + 1] & PDPTE_RESERVED_HI)) return false;
  if (!mmu.tdp && loaded.some((word, i) => word !== pdptrs[i])) freeCurrentRoot(mmu, vcpu);
  pdptrs.set(loaded);
  vcpu.requests |= REQ_LOAD_MMU_PGD;
  return true;
}

/** @kvm kvm_set_cr0 */
export function setCr0(mmu: Mmu, vcpu: MmuVcpu, s: CpuState, value: number, valueHi = 0): boolean {
  const old = s.cr0;
  if (valueHi !== 0) return false;
  if (value & CR0_NW && !(value & CR0_CD)) return false;
  if (value & CR0_PG && !(value & CR0_PE)) return false;
  const cr0 = (value | CR0_ET) & CR0_BITS;
  const changed = cr0 ^ old;
  if (s.efer & EFER_LME && !isPaging(s) && cr0 & CR0_PG && !(s.cr4 & CR4_PAE)) return false;
  if (!(s.efer & EFER_LME) && cr0 & CR0_PG && s.cr4 & CR4_PAE && changed & CR0_PDPTR_BITS)
    if (!loadPdptrs(mmu, vcpu, s.cr3Lo)) return false;
  if (!(cr0 & CR0_PG) && ((isLongMode(s) && s.csLong) || s.cr4 & CR4_PCIDE)) return false;
  s.cr0 = cr0;
  if (changed & CR0_PG && s.efer & EFER_LME) s.efer = cr0 & CR0_PG ? s.efer | EFER_LMA : s.efer & ~EFER_LMA;
  postSetCr0(mmu, vcpu, changed, cr0);
  return true;
}

/** @kvm kvm_post_set_cr0 */
function postSetCr0(mmu: Mmu, vcpu: MmuVcpu, changed: number, cr0: number): void {
  if (changed === CR0_WP && mmu.kernel.ignoresIdleWp && !(cr0 & CR0_PG)) return;
  if (mmu.tdp && changed === CR0_WP) {
    initMmu(mmu, vcpu);
    return;
  }
  if (changed & CR0_PG && !(cr0 & CR0_PG)) vcpu.requests |= REQ_TLB_FLUSH_GUEST;
  if (changed & CR0_ROLE_BITS) resetMmuContext(mmu, vcpu);
}

/** @kvm kvm_set_cr4 */
export function setCr4(mmu: Mmu, vcpu: MmuVcpu, s: CpuState, value: number, valueHi = 0): boolean {
  const old = s.cr4;
  const changed = value ^ old;
  if (valueHi !== 0 || value & ~s.cr4Allowed) return false;
  if (isLongMode(s)) {
    if (!(value & CR4_PAE) || changed & CR4_LA57) return false;
  } else if (isPaging(s) && value & CR4_PAE && changed & CR4_PDPTR_BITS && !loadPdptrs(mmu, vcpu, s.cr3Lo))
    return false;
  if (value & CR4_PCIDE && !(old & CR4_PCIDE) && (s.cr3Lo & PCID_MASK || !isLongMode(s))) return false;
  s.cr4 = value;
  if (changed & CR4_ROLE_BITS) resetMmuContext(mmu, vcpu);
  if (!mmu.tdp && value & CR4_PCIDE && !(old & CR4_PCIDE)) unloadMmu(mmu, vcpu);
  if (changed & CR4_PGE || (!(value & CR4_PCIDE) && old & CR4_PCIDE)) vcpu.requests |= REQ_TLB_FLUSH_GUEST;
  else if (changed & CR4_PAE || (value & CR4_SMEP && !(old & CR4_SMEP))) vcpu.requests |= REQ_TLB_FLUSH_CURRENT;
  return true;
}

/** @kvm kvm_set_cr3 */
export function setCr3(mmu: Mmu, vcpu: MmuVcpu, s: CpuState, lo: number, hi: number): boolean {
  let skipFlush = false;
  let pcid = 0;
  let high = hi;
  if (s.cr4 & CR4_PCIDE) {
    skipFlush = hi < 0;
    high = hi & 0x7fffffff;
    pcid = lo & PCID_MASK;
  }
  const same = lo === s.cr3Lo && high === s.cr3Hi;
  if (!same || isPaePaging(s)) {
    if (high >>> (GUEST_MAXPHYADDR - 32) !== 0) return false;
    if (isPaePaging(s) && !loadPdptrs(mmu, vcpu, lo)) return false;
    if (!same) newPgd(mmu, vcpu, lo, high);
    s.cr3Lo = lo;
    s.cr3Hi = high;
  }
  if (!skipFlush) invalidatePcid(mmu, vcpu, s, pcid);
  return true;
}

/** EFER as the guest writes it; LMA follows CR0.PG. @kvm set_efer */
export function setEfer(mmu: Mmu, vcpu: MmuVcpu, s: CpuState, value: number): void {
  const changed = s.efer ^ value;
  s.efer = value;
  if (changed & EFER_NX) resetMmuContext(mmu, vcpu);
}

/** INVPCID, its operands checked. Types: one address, one PCID, everything, everything but what is global. @kvm kvm_handle_invpcid */
export function invpcid(
  mmu: Mmu,
  vcpu: MmuVcpu,
  s: CpuState,
  type: number,
  pcid: number,
  lo: number,
  hi: number,
): void {
  if (type === 0) invpcidGva(mmu, vcpu, lo, hi, pcid);
  else if (type === 1) invalidatePcid(mmu, vcpu, s, pcid);
  else vcpu.requests |= REQ_TLB_FLUSH_GUEST;
}

/** @kvm kvm_invalidate_pcid */
function invalidatePcid(mmu: Mmu, vcpu: MmuVcpu, s: CpuState, pcid: number): void {
  if (mmu.tdp && !mmu.bugs.invpcidFlushesCurrent) {
    vcpu.requests |= REQ_TLB_FLUSH_GUEST;
    return;
  }
  const pcidOf = (lo: number): number => (s.cr4 & CR4_PCIDE ? lo & PCID_MASK : 0);
  if (pcidOf(s.cr3Lo) === pcid) vcpu.requests |= REQ_MMU_SYNC | REQ_TLB_FLUSH_CURRENT;
  if (s.cr4 & CR4_PCIDE) freePrevRoots(mmu, vcpu, (root) => pcidOf(root.pgdLo) === pcid);
}
