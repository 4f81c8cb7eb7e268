/**
 * The emulator wrote to guest memory: if that is a shadowed table, the entries that mirror the written one go. A table
 * written again and again without being walked is none any more, nor is one written at odd places: its page goes.
 *
 * Source: Linux 6.1 mmu.c kvm_mmu_pte_write.
 */
import { flushRemoteTlbs, type Mmu, isObsolete } from './mmu.ts';
import { readGuestAtomic } from './guest-memory.ts';
import { commitZapPages, prepareZapPage, zapPte } from './page-zap.ts';
import { spteLo } from './rmap.ts';
import { ROLE_HAS_4_BYTE_GPTE, roleHasGptes, roleLevel, roleQuadrant } from './role.ts';
import { sptepAt } from './shadow-pages.ts';
import { isShadowPresent } from './spte.ts';
import type { MmuVcpu } from './vcpu.ts';

/** Writes to an upper-level table without use that make it be dropped. */
const FLOODING = 3;
const CR4_PAE = 1 << 5;

/** After the write hit memory, `bytes` long, within one page. @kvm kvm_mmu_pte_write */
export function mmuPteWrite(mmu: Mmu, vcpu: MmuVcpu, gfn: number, writtenOffset: number, written: number): void {
  if (mmu.indirectShadowPages === 0) return;
  const pages = mmu.pages;
  const invalid: number[] = [];
  let flush = false;
  let offset = writtenOffset;
  let bytes = written;
  // The guest writes its 8-byte entry in two halves.
  if ((vcpu.regs.cr4 & CR4_PAE) !== 0 && bytes === 4) {
    offset &= ~7;
    bytes = 8;
  }
  const hasNewEntry = readsNonZero(mmu, vcpu, gfn, offset, bytes);
  mmu.stats.mmu_pte_write++;
  for (let sp = pages.bucketFirst(gfn); sp !== 0; sp = pages.bucketNext(sp)) {
    const role = pages.role[sp];
    if (pages.gfn[sp] !== gfn || isObsolete(mmu, sp) || !roleHasGptes(role)) continue;
    if (isMisaligned(role, offset, bytes) || isFlooded(mmu, sp)) {
      prepareZapPage(mmu, sp, invalid);
      mmu.stats.mmu_flooded++;
      continue;
    }
    const first = firstWrittenIndex(role, offset);
    if (first < 0) continue;
    const count = coversTwoEntries(role) ? 2 : 1;
    for (let i = first; i < first + count; i++) {
      const sptep = sptepAt(sp, i);
      const wasPresent = isShadowPresent(spteLo(mmu, sptep));
      zapPte(mmu, sptep, null);
      if (hasNewEntry && roleLevel(role) !== 1) mmu.stats.mmu_pde_zapped++;
      if (wasPresent) flush = true;
    }
  }
  if (invalid.length !== 0) commitZapPages(mmu, invalid);
  else if (flush) flushRemoteTlbs(mmu);
}

/** @kvm mmu_pte_write_fetch_gpte */
function readsNonZero(mmu: Mmu, vcpu: MmuVcpu, gfn: number, offset: number, bytes: number): boolean {
  if (bytes !== 4 && bytes !== 8) return false;
  if (!readGuestAtomic(mmu, vcpu, gfn, offset, bytes)) return false;
  return mmu.words[0] !== 0 || (bytes === 8 && mmu.words[1] !== 0);
}

/** @kvm detect_write_misaligned */
function isMisaligned(role: number, offset: number, bytes: number): boolean {
  const size = role & ROLE_HAS_4_BYTE_GPTE ? 4 : 8;
  // A guest may set bits of an entry's low byte alone.
  if ((offset & (size - 1)) === 0 && bytes === 1) return false;
  return ((offset ^ (offset + bytes - 1)) & ~(size - 1)) !== 0 || bytes < 4;
}

/** @kvm detect_write_flooding */
function isFlooded(mmu: Mmu, sp: number): boolean {
  if (mmu.pages.level(sp) === 1) return false;
  return ++mmu.pages.writeFlooding[sp] >= FLOODING;
}

/** A 4 MiB entry of a 32-bit guest is two of ours. */
function coversTwoEntries(role: number): boolean {
  return (role & ROLE_HAS_4_BYTE_GPTE) !== 0 && roleLevel(role) === 2;
}

/** Index of the (first) entry that mirrors the written one, or -1: not in this page's part. @kvm get_written_sptes */
function firstWrittenIndex(role: number, offset: number): number {
  if ((role & ROLE_HAS_4_BYTE_GPTE) === 0) return offset >>> 3;
  const doubled = coversTwoEntries(role) ? ((offset << 1) & ~7) << 1 : offset << 1;
  return doubled >>> 12 === roleQuadrant(role) ? (doubled & 0xfff) >>> 3 : -1;
}
