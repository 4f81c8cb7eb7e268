/**
 * The fast page fault: gives a write-protected leaf its write bit back without mmu_lock. This is what keeps a guest
 * running while its writes are logged, and what lost data when it did so for a large leaf: see `unguarded`. Where the CPU
 * keeps no A, it also gives an entry back the rights that access tracking took away.
 *
 * Source: Linux 6.1 mmu.c fast_page_fault.
 */
import { TP_FAST_PAGE_FAULT } from '../trace/tracepoints.ts';
import { markPageDirty } from './guest-memory.ts';
import type { Mmu } from './mmu.ts';
import { type PageFault, RET_PF_FIXED, RET_PF_INVALID, RET_PF_SPURIOUS } from './page-fault.ts';
import { RACE_FAST_FAULT_CMPXCHG, RACE_FAST_FAULT_MARK, race } from './race.ts';
import { spteHi, spteLo } from './rmap.ts';
import { indexOf, spOf } from './shadow-pages.ts';
import {
  isAccessTracked,
  isExecutable,
  isMmuWritable,
  isShadowPresent,
  isWritable,
  restoredHi,
  restoredLo,
  SPTE_P,
  SPTE_W,
} from './spte.ts';
import type { SpteFormat } from './spte-format.ts';
import { rcuReadLock, rcuReadUnlock } from './tdp-mmu/rcu.ts';
import type { MmuVcpu } from './vcpu.ts';

/** Tries before giving up. */
const MAX_TRIES = 5;

/** Writes over a present entry; without A, what may be access-tracked. @kvm page_fault_can_be_fast */
function canBeFast(mmu: Mmu, fault: PageFault): boolean {
  return !fault.rsvd && (fault.present ? fault.write : mmu.adDisabled);
}

/** @kvm is_access_allowed */
function isAccessAllowed(f: SpteFormat, fault: PageFault, lo: number, hi: number): boolean {
  if (fault.exec) return isExecutable(f, lo, hi);
  if (fault.write) return isWritable(lo);
  return (lo & SPTE_P) !== 0;
}

/**
 * FIXED: the write bit is back and the page marked dirty, or the entry is no longer access-tracked. SPURIOUS: it was there. INVALID: not for the fast path.
 * Never flushes, sets neither A nor D. @kvm fast_page_fault
 */
export function fastPageFault(mmu: Mmu, vcpu: MmuVcpu, fault: PageFault): number {
  if (!canBeFast(mmu, fault)) return RET_PF_INVALID;
  const walk = vcpu.walk;
  const { format } = mmu;
  let ret = RET_PF_INVALID;
  let sptep = 0;
  let lo = 0;
  let hi = 0;
  rcuReadLock(mmu);
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    if (!walk.toLast(mmu, vcpu, fault.addrLo, fault.addrHi)) break;
    sptep = walk.sptep;
    lo = walk.lo;
    hi = walk.hi;
    if (!isShadowPresent(lo)) break;
    if (isAccessAllowed(format, fault, lo, hi)) {
      ret = RET_PF_SPURIOUS;
      break;
    }
    let newLo = lo;
    let newHi = hi;
    if (mmu.adDisabled && isAccessTracked(format, lo, hi)) {
      newLo = restoredLo(format, lo, hi);
      newHi = restoredHi(hi);
    }
    if (fault.write && isMmuWritable(format, lo, hi)) {
      newLo |= SPTE_W;
      if (isGuardedLarge(mmu, fault, walk.level)) break;
    }
    if (newLo === lo || (mmu.adDisabled && !isAccessAllowed(format, fault, newLo, newHi))) break;
    race(RACE_FAST_FAULT_CMPXCHG);
    if (fixSpte(mmu, fault, sptep, lo, hi, newLo, newHi)) {
      ret = RET_PF_FIXED;
      break;
    }
  }
  if (mmu.trace.on) traceFastPageFault(mmu, vcpu, fault, sptep, lo, hi, ret);
  rcuReadUnlock(mmu);
  if (ret !== RET_PF_INVALID) vcpu.stats.pf_fast++;
  return ret;
}

/** The guard: a writable large leaf of a logged slot would let 511 pages be written unseen (6b73a96065e8). */
function isGuardedLarge(mmu: Mmu, fault: PageFault, level: number): boolean {
  if (level === 1 || mmu.policy.fastFaultLarge === 'unguarded') return false;
  return fault.slot !== null && fault.slot.logsDirty;
}

/** Compare-and-exchange; false if the entry changed meanwhile. @kvm fast_pf_fix_direct_spte */
function fixSpte(
  mmu: Mmu,
  fault: PageFault,
  sptep: number,
  lo: number,
  hi: number,
  newLo: number,
  newHi: number,
): boolean {
  const words = mmu.arena.words;
  if (words[sptep << 1] !== lo || words[(sptep << 1) + 1] !== hi) return false;
  words[sptep << 1] = newLo;
  if (newHi !== hi) words[(sptep << 1) + 1] = newHi;
  race(RACE_FAST_FAULT_MARK);
  if (isWritable(newLo) && !isWritable(lo)) markPageDirty(fault.slot, dirtyGfn(mmu, fault, sptep));
  return true;
}

/** The page that was faulted on; as first merged (2013), the first one that the entry maps, whatever its size. */
function dirtyGfn(mmu: Mmu, fault: PageFault, sptep: number): number {
  if (mmu.policy.fastFaultLarge === 'guarded') return fault.gfn;
  return mmu.pages.entryGfn(spOf(sptep), indexOf(sptep));
}

function traceFastPageFault(
  mmu: Mmu,
  vcpu: MmuVcpu,
  fault: PageFault,
  sptep: number,
  lo: number,
  hi: number,
  ret: number,
): void {
  const nowLo = spteLo(mmu, sptep);
  const nowHi = spteHi(mmu, sptep);
  const { addrLo, addrHi, errorCode, errorCodeHi } = fault;
  mmu.trace.emit(TP_FAST_PAGE_FAULT, vcpu.id, addrLo, addrHi, errorCode, errorCodeHi, sptep, lo, hi, nowLo, nowHi, ret);
}
