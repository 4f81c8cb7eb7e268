/**
 * MMIO: entries that fault on purpose to remember that a frame has no slot, and a vCPU's cache of the last one used.
 * Source: Linux 6.1 mmu.c, x86.h.
 */
import { TP_CHECK_MMIO_SPTE, TP_HANDLE_MMIO_PAGE_FAULT } from '../trace/tracepoints.ts';
import type { Mmu } from './mmu.ts';
import { RET_PF_EMULATE, RET_PF_INVALID, RET_PF_RETRY } from './page-fault.ts';
import { mmuSpteClearNoTrack, mmuSpteSet, spteHi, spteLo } from './rmap.ts';
import {
  isMmioSpte,
  MMIO_GEN_MASK,
  MMIO_GEN_OVERLAPPING_SHIFT_HI,
  mmioAccess,
  mmioGeneration,
  mmioGfn,
  mmioSpteHi,
  mmioSpteLo,
} from './spte.ts';
import { traceMarkMmioSpte } from './tracing.ts';
import type { MmuVcpu } from './vcpu.ts';

/** @kvm vcpu_cache_mmio_info */
export function cacheMmioInfo(
  mmu: Mmu,
  vcpu: MmuVcpu,
  gvaLo: number,
  gvaHi: number,
  gfn: number,
  access: number,
): void {
  const slots = mmu.slots[0];
  if (slots.updateInProgress) return;
  // A nested guest's address is none of the guest.
  vcpu.mmioGvaLo = vcpu.isNested ? 0 : gvaLo & ~0xfff;
  vcpu.mmioGvaHi = vcpu.isNested ? 0 : gvaHi;
  vcpu.mmioAccess = access;
  vcpu.mmioGfn = gfn;
  vcpu.mmioGen = slots.generation;
}

/** Forgets the cached address. @kvm vcpu_clear_mmio_info(MMIO_GVA_ANY) */
export function clearMmioInfo(vcpu: MmuVcpu): void {
  vcpu.mmioGvaLo = 0;
  vcpu.mmioGvaHi = 0;
}

/** Forgets it if it is of this gva's page. @kvm vcpu_clear_mmio_info */
export function clearMmioInfoOf(vcpu: MmuVcpu, lo: number, hi: number): void {
  if (vcpu.mmioGvaLo === (lo & ~0xfff) && vcpu.mmioGvaHi === hi) clearMmioInfo(vcpu);
}

/** @kvm vcpu_match_mmio_gva */
export function matchMmioGva(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number): boolean {
  if (vcpu.mmioGen !== mmu.slots[0].generation) return false;
  if (vcpu.mmioGvaLo === 0 && vcpu.mmioGvaHi === 0) return false;
  return vcpu.mmioGvaLo === (lo & ~0xfff) && vcpu.mmioGvaHi === hi;
}

/** @kvm vcpu_match_mmio_gpa */
export function matchMmioGpa(mmu: Mmu, vcpu: MmuVcpu, gfn: number): boolean {
  return vcpu.mmioGen === mmu.slots[0].generation && vcpu.mmioGfn !== 0 && vcpu.mmioGfn === gfn;
}

/** @kvm mmio_info_in_cache */
export function mmioInfoInCache(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number): boolean {
  if (vcpu.isNested) return false;
  if (vcpu.isDirect) return matchMmioGpa(mmu, vcpu, (lo >>> 12) + hi * 0x100000);
  return matchMmioGva(mmu, vcpu, lo, hi);
}

function generationShift(mmu: Mmu): number | undefined {
  return mmu.bugs.mmioGenerationOverlaps ? MMIO_GEN_OVERLAPPING_SHIFT_HI : undefined;
}

/** Stores an MMIO entry over one that isn't present. @kvm mark_mmio_spte */
export function markMmioSpte(mmu: Mmu, sptep: number, gfn: number, access: number): void {
  const generation = mmu.slots[0].generation & MMIO_GEN_MASK;
  const lo = mmioSpteLo(mmu.format, gfn, access, generation);
  const hi = mmioSpteHi(mmu.format, gfn, generation, generationShift(mmu));
  traceMarkMmioSpte(mmu, sptep, gfn, lo, hi);
  mmuSpteSet(mmu, sptep, lo, hi);
}

/** Refreshes or removes an entry if it is an MMIO one; false if it is not. @kvm sync_mmio_spte */
export function syncMmioSpte(mmu: Mmu, sptep: number, gfn: number, access: number): boolean {
  const lo = spteLo(mmu, sptep);
  const hi = spteHi(mmu, sptep);
  if (!isMmioSpte(mmu.format, lo, hi)) return false;
  if (gfn !== mmioGfn(lo, hi)) mmuSpteClearNoTrack(mmu, sptep);
  else markMmioSpte(mmu, sptep, gfn, access);
  return true;
}

/** True if the entry was made with the slots as they are. @kvm check_mmio_spte */
function checkMmioSpte(mmu: Mmu, lo: number, hi: number): boolean {
  const slots = mmu.slots[0];
  if (slots.updateInProgress) return false;
  const kvmGen = slots.generation & MMIO_GEN_MASK;
  const spteGen = mmioGeneration(mmu.format, lo, hi, generationShift(mmu));
  if (mmu.trace.on) mmu.trace.emit(TP_CHECK_MMIO_SPTE, kvmGen, spteGen, lo, hi);
  return kvmGen === spteGen;
}

/**
 * A fault with the reserved bit set: EMULATE (it is MMIO), INVALID (the entry is of an older generation: handle the
 * fault anew), RETRY (somebody changed the entry). @kvm handle_mmio_page_fault
 */
export function handleMmioPageFault(mmu: Mmu, vcpu: MmuVcpu, lo: number, hi: number): number {
  if (mmioInfoInCache(mmu, vcpu, lo, hi)) return RET_PF_EMULATE;
  const walk = vcpu.walk;
  let leafLo = 0;
  let leafHi = 0;
  for (walk.init(vcpu, lo, hi); walk.ok(); walk.step(leafLo, leafHi)) {
    leafLo = spteLo(mmu, walk.sptep);
    leafHi = spteHi(mmu, walk.sptep);
  }
  if (!isMmioSpte(mmu.format, leafLo, leafHi)) return RET_PF_RETRY;
  const gfn = mmioGfn(leafLo, leafHi);
  const access = mmioAccess(mmu.format, leafLo);
  if (!checkMmioSpte(mmu, leafLo, leafHi)) return RET_PF_INVALID;
  const addrLo = vcpu.isDirect ? 0 : lo;
  const addrHi = vcpu.isDirect ? 0 : hi;
  if (mmu.trace.on) mmu.trace.emit(TP_HANDLE_MMIO_PAGE_FAULT, addrLo, addrHi, gfn, access);
  cacheMmioInfo(mmu, vcpu, addrLo, addrHi, gfn, access);
  return RET_PF_EMULATE;
}
