/**
 * A page fault on its way through the MMU: what the CPU said, what was found out. One per vCPU, reused.
 * Source: Linux 6.1 struct kvm_page_fault.
 */
import { LEVEL_4K, MAX_HUGEPAGE_LEVEL } from '../base/page.ts';
import type { MemSlot } from '../mem/memslots.ts';

/** Results of handling a fault; negative ones are errnos for user space. @kvm RET_PF_CONTINUE ... */
export const RET_PF_CONTINUE = 0;
export const RET_PF_RETRY = 1;
export const RET_PF_EMULATE = 2;
export const RET_PF_INVALID = 3;
export const RET_PF_FIXED = 4;
export const RET_PF_SPURIOUS = 5;
/** Names as tracepoints and recordings print them, by number. */
export const RET_PF_NAMES = ['continue', 'retry', 'emulate', 'invalid', 'fixed', 'spurious'] as const;

/** Frames that are none. @kvm KVM_PFN_NOSLOT, KVM_PFN_ERR_FAULT, KVM_PFN_ERR_RO_FAULT */
export const PFN_NOSLOT = -1;
export const PFN_ERR_FAULT = -2;
export const PFN_ERR_RO_FAULT = -3;

export class PageFault {
  addrLo = 0;
  addrHi = 0;
  errorCode = 0;
  errorCodeHi = 0;
  exec = false;
  write = false;
  present = false;
  rsvd = false;
  user = false;
  isTdp = false;
  /** Nobody has accessed it: the leaf gets no A. */
  prefetch = false;
  nxHugePageWorkaround = false;

  /** A fetch, and huge pages must not be executable: no large mapping for it. */
  hugePageDisallowed = false;
  /** The largest level that may be considered, the one that would be right, the one to map. */
  maxLevel = 0;
  reqLevel = 0;
  goalLevel = 0;
  gfn = 0;
  slot: MemSlot | null = null;
  /** Notifier sequence before the frame was looked up. */
  mmuSeq = 0;
  pfn = 0;
  hva = -1;
  /** The host maps the frame writable. */
  mapWritable = false;
  /** The write is to one of the tables that map it. */
  writeFaultToShadowPgtable = false;

  init(lo: number, hi: number, errorCode: number, errorCodeHi: number): void {
    this.addrLo = lo;
    this.addrHi = hi;
    this.errorCode = errorCode;
    this.errorCodeHi = errorCodeHi;
    this.present = (errorCode & 1) !== 0;
    this.write = (errorCode & 2) !== 0;
    this.user = (errorCode & 4) !== 0;
    this.rsvd = (errorCode & 8) !== 0;
    this.exec = (errorCode & 16) !== 0;
    this.prefetch = false;
    this.hugePageDisallowed = false;
    this.maxLevel = MAX_HUGEPAGE_LEVEL;
    this.reqLevel = LEVEL_4K;
    this.goalLevel = LEVEL_4K;
    this.slot = null;
    this.pfn = PFN_NOSLOT;
    this.hva = -1;
    this.mapWritable = false;
    this.writeFaultToShadowPgtable = false;
  }
}
