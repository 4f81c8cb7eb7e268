/** The tracepoints of shadow pages and entries, each fired where the kernel fires it. */
import {
  TP_GET_PAGE,
  TP_MARK_MMIO_SPTE,
  TP_PREPARE_ZAP_PAGE,
  TP_SET_SPTE,
  TP_SYNC_PAGE,
  TP_UNSYNC_PAGE,
} from '../trace/tracepoints.ts';
import type { Mmu } from './mmu.ts';
import { spteHi, spteLo } from './rmap.ts';
import { ACC_ALL, isExecutable, mmioGeneration, SPTE_P } from './spte.ts';

function page(mmu: Mmu, id: number, sp: number, created: number): void {
  const p = mmu.pages;
  mmu.trace.emit(id, p.validGen[sp], p.gfn[sp], p.role[sp], p.rootCount[sp], p.unsync[sp], created);
}

export function traceGetPage(mmu: Mmu, sp: number, created: boolean): void {
  if (mmu.trace.on) page(mmu, TP_GET_PAGE, sp, created ? 1 : 0);
}
export function traceSyncPage(mmu: Mmu, sp: number): void {
  if (mmu.trace.on) page(mmu, TP_SYNC_PAGE, sp, 0);
}
export function traceUnsyncPage(mmu: Mmu, sp: number): void {
  if (mmu.trace.on) page(mmu, TP_UNSYNC_PAGE, sp, 0);
}
export function tracePrepareZapPage(mmu: Mmu, sp: number): void {
  if (mmu.trace.on) page(mmu, TP_PREPARE_ZAP_PAGE, sp, 0);
}

/** Reads the entry back, as the kernel does. */
export function traceSetSpte(mmu: Mmu, level: number, gfn: number, sptep: number): void {
  if (!mmu.trace.on) return;
  const lo = spteLo(mmu, sptep);
  const hi = spteHi(mmu, sptep);
  const r = lo & SPTE_P ? 1 : 0;
  const u = lo & mmu.format.userLo ? 1 : 0;
  mmu.trace.emit(TP_SET_SPTE, gfn, lo, hi, sptep, level, r, isExecutable(mmu.format, lo, hi) ? 1 : 0, u);
}

/** The access field is the entry's low three bits, P included. */
export function traceMarkMmioSpte(mmu: Mmu, sptep: number, gfn: number, lo: number, hi: number): void {
  if (mmu.trace.on) mmu.trace.emit(TP_MARK_MMIO_SPTE, sptep, gfn, lo & ACC_ALL, mmioGeneration(mmu.format, lo, hi));
}
