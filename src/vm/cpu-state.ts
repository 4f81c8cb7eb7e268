/**
 * A vCPU's registers, as far as the memory part of KVM and the scripted guest use them. 64-bit ones are word pairs.
 */
import type { GuestRegs } from '../mmu/vcpu.ts';

export const CR0_PE = 1 << 0;
export const CR0_ET = 1 << 4;
export const CR0_WP = 1 << 16;
export const CR0_NW = 1 << 29;
export const CR0_CD = 1 << 30;
export const CR0_PG = 1 << 31;
export const CR4_PSE = 1 << 4;
export const CR4_PAE = 1 << 5;
export const CR4_PGE = 1 << 7;
export const CR4_LA57 = 1 << 12;
export const CR4_PCIDE = 1 << 17;
export const CR4_SMEP = 1 << 20;
export const CR4_SMAP = 1 << 21;
export const CR4_PKE = 1 << 22;
export const EFER_LME = 1 << 8;
export const EFER_LMA = 1 << 10;
export const EFER_NX = 1 << 11;
export const EFER_SVME = 1 << 12;

/** Bits of CR4 that the CPUID of the recordings' guests allows. */
const CR4_RECORDED = 0x3006ff | CR4_PCIDE | (1 << 18);

export const RAX = 0;
export const RCX = 1;
export const RBX = 3;
export const RSP = 4;

export class CpuState implements GuestRegs {
  ripLo = 0;
  ripHi = 0;
  /** General registers by their number in instructions: lo, hi each. */
  readonly gpr = new Int32Array(32);
  cr0 = CR0_ET | (0x60000000 | 0);
  cr2Lo = 0;
  cr2Hi = 0;
  cr3Lo = 0;
  cr3Hi = 0;
  cr4 = 0;
  /** Bits of CR4 that the guest's CPUID allows. */
  cr4Allowed = CR4_RECORDED;
  /** In long mode: the code segment is one of 64-bit code. */
  csLong = true;
  efer = 0;
  pkru = 0;
  cpl = 0;
  ac = false;
  rflags = 2;
  readonly pdptrs = new Int32Array(8);
  /** Linear bases of the descriptor tables and the task segment. */
  idtBase = 0;
  gdtBase = 0;
  tssBase = 0;
}

export function isPaging(s: GuestRegs): boolean {
  return (s.cr0 & CR0_PG) !== 0;
}
export function isLongMode(s: GuestRegs): boolean {
  return (s.efer & EFER_LMA) !== 0;
}
/** @kvm is_pae_paging */
export function isPaePaging(s: GuestRegs): boolean {
  return !isLongMode(s) && (s.cr4 & CR4_PAE) !== 0 && isPaging(s);
}
