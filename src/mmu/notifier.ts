/**
 * The host changes its mappings: KVM's entries for them go, before the change. A fault that looked its frame up
 * before and has not installed it yet is stale, told by a sequence number.
 *
 * Source: Linux 6.1 kvm_main.c kvm_mmu_notifier_*, mmu.c kvm_unmap_gfn_range.
 */
import { hiOfNumber, loOfNumber } from '../base/u64.ts';
import { MAX_HUGEPAGE_LEVEL } from '../base/page.ts';
import type { HostNotifier } from '../mem/host-memory.ts';
import type { MemSlot } from '../mem/memslots.ts';
import { TP_AGE_HVA, TP_SET_SPTE_HVA, TP_TEST_AGE_HVA, TP_UNMAP_HVA_RANGE } from '../trace/tracepoints.ts';
import { LOCK_MMU, LOCK_NOTIFIER, LOCK_SRCU, lock, unlock } from './lock.ts';
import { flushRemoteTlbs, type Mmu } from './mmu.ts';
import { RACE_BEFORE_FLUSH, race } from './race.ts';
import { spteAge, spteHi, spteLo, zapRmap } from './rmap.ts';
import { type RmapHandler, walkSlotRmaps } from './slot-walk.ts';
import { isAccessed } from './spte.ts';
import { ageGfnRange, setSpteGfn, testAgeGfn, unmapGfnRange } from './tdp-mmu/tdp-notifier.ts';

function zapHead(mmu: Mmu, _slot: MemSlot, heads: Int32Array, at: number): boolean {
  return zapRmap(mmu, heads, at);
}

function ageHead(mmu: Mmu, _slot: MemSlot, heads: Int32Array, at: number): boolean {
  const lists = mmu.lists;
  let young = spteAge(mmu, lists.first(heads, at));
  for (let c = lists.next(lists.firstCursor(heads, at)); c !== 0; c = lists.next(c))
    if (spteAge(mmu, lists.at(c))) young = true;
  return young;
}

function isUsed(mmu: Mmu, sptep: number): boolean {
  return isAccessed(mmu.format, spteLo(mmu, sptep), spteHi(mmu, sptep));
}

function testAgeHead(mmu: Mmu, _slot: MemSlot, heads: Int32Array, at: number): boolean {
  const lists = mmu.lists;
  if (isUsed(mmu, lists.first(heads, at))) return true;
  for (let c = lists.next(lists.firstCursor(heads, at)); c !== 0; c = lists.next(c))
    if (isUsed(mmu, lists.at(c))) return true;
  return false;
}

/** The TDP MMU's part, for frames [start, end) of a slot; `before`: what was said so far. What is said with it. */
type TdpHandler = (mmu: Mmu, slot: MemSlot, start: number, end: number, before: boolean) => boolean;

export class MmuNotifier implements HostNotifier {
  private readonly mmu: Mmu;
  constructor(mmu: Mmu) {
    this.mmu = mmu;
  }

  /** Some slot overlaps the range. The lock is taken, and the sequence touched, only then. */
  private overlaps(start: number, end: number): boolean {
    return this.mmu.slots.some((set) =>
      set.slots.some((s) => s.userspaceAddr < end && start < s.userspaceAddr + s.npages * 4096),
    );
  }

  /** Calls the engines' handlers for the part of each slot in the range; true if any said so. @kvm __kvm_handle_hva_range */
  private handle(start: number, end: number, handler: RmapHandler, tdp: TdpHandler): boolean {
    const mmu = this.mmu;
    let result = false;
    for (const set of mmu.slots)
      for (const slot of set.slots) {
        const from = Math.max(start, slot.userspaceAddr);
        const to = Math.min(end, slot.userspaceAddr + slot.npages * 4096);
        if (from >= to) continue;
        const first = slot.baseGfn + Math.floor((from - slot.userspaceAddr) / 4096);
        const last = slot.baseGfn + Math.ceil((to - slot.userspaceAddr) / 4096);
        const said = walkSlotRmaps(mmu, slot, 1, MAX_HUGEPAGE_LEVEL, first, last, handler);
        if (said) result = true;
        if (mmu.tdpMmu && tdp(mmu, slot, first, last, said)) result = true;
      }
    return result;
  }

  /** @kvm kvm_mmu_notifier_invalidate_range_start */
  invalidateRangeStart(start: number, end: number): void {
    const mmu = this.mmu;
    this.trace(TP_UNMAP_HVA_RANGE, start, end);
    lock(LOCK_NOTIFIER);
    if (!this.overlaps(start, end)) return;
    lock(LOCK_SRCU);
    lock(LOCK_MMU);
    if (mmu.invalidateInProgress++ === 0) {
      mmu.invalidateRangeStart = start;
      mmu.invalidateRangeEnd = end;
    } else {
      mmu.invalidateRangeStart = Math.min(mmu.invalidateRangeStart, start);
      mmu.invalidateRangeEnd = Math.max(mmu.invalidateRangeEnd, end);
    }
    if (this.handle(start, end, zapHead, unmapGfnRange)) {
      race(RACE_BEFORE_FLUSH);
      flushRemoteTlbs(mmu);
    }
    unlock(LOCK_MMU);
    unlock(LOCK_SRCU);
  }

  /** @kvm kvm_mmu_notifier_invalidate_range_end */
  invalidateRangeEnd(start: number, end: number): void {
    if (this.overlaps(start, end)) {
      lock(LOCK_MMU);
      this.mmu.invalidateSeq++;
      this.mmu.invalidateInProgress--;
      unlock(LOCK_MMU);
    }
    unlock(LOCK_NOTIFIER);
  }

  /** A new writable frame: what is mapped of the old one goes. @kvm kvm_mmu_notifier_change_pte, kvm_set_pte_rmap */
  changePte(hva: number): void {
    const mmu = this.mmu;
    if (mmu.trace.on) mmu.trace.emit(TP_SET_SPTE_HVA, loOfNumber(hva), hiOfNumber(hva));
    if (mmu.invalidateInProgress === 0) return;
    if (this.handle(hva, hva + 1, zapHead, setSpteGfn)) flushRemoteTlbs(mmu);
  }

  /** Clears A bits; true if one was set. @kvm kvm_mmu_notifier_clear_flush_young */
  clearFlushYoung(start: number, end: number): boolean {
    this.trace(TP_AGE_HVA, start, end);
    const young = this.handle(start, end, ageHead, ageGfnRange);
    if (young) flushRemoteTlbs(this.mmu);
    return young;
  }

  /** The same without a flush: a TLB may go on without setting A. @kvm kvm_mmu_notifier_clear_young */
  clearYoung(start: number, end: number): boolean {
    this.trace(TP_AGE_HVA, start, end);
    return this.handle(start, end, ageHead, ageGfnRange);
  }

  /** @kvm kvm_mmu_notifier_test_young */
  testYoung(hva: number): boolean {
    if (this.mmu.trace.on) this.mmu.trace.emit(TP_TEST_AGE_HVA, loOfNumber(hva), hiOfNumber(hva));
    return this.handle(hva, hva + 1, testAgeHead, testAgeGfn);
  }

  private trace(id: number, start: number, end: number): void {
    if (!this.mmu.trace.on) return;
    this.mmu.trace.emit(id, loOfNumber(start), hiOfNumber(start), loOfNumber(end), hiOfNumber(end));
  }
}
