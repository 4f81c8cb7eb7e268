/**
 * The dirty rings of a VM: who is told of a dirty page, and the reset that re-arms what user space has taken.
 * Source: Linux 6.1 dirty_ring.c, kvm_main.c mark_page_dirty_in_slot.
 */
import { DIRTY_GFN_F_RESET, DIRTY_RING_RESERVED, DirtyRing } from '../mem/dirty-ring.ts';
import { ADDRESS_SPACES, type DirtySink, type MemSlot } from '../mem/memslots.ts';
import { TP_DIRTY_RING_PUSH, TP_DIRTY_RING_RESET } from '../trace/tracepoints.ts';
import { enableLogDirtyMasked } from './dirty-log.ts';
import type { Mmu } from './mmu.ts';

/** Pages of one step of the reset: the bits of a long. */
const STEP = 64;

export class DirtyRings implements DirtySink {
  /** Of each ring, in bytes. @kvm dirty_ring_size */
  readonly bytes: number;
  /** Of the vCPU that runs now; null: none does, and what is written then is not logged. @kvm kvm_get_running_vcpu */
  running: DirtyRing | null = null;
  /** One for each vCPU. */
  readonly rings: DirtyRing[] = [];
  private readonly mmu: Mmu;

  constructor(mmu: Mmu, bytes: number) {
    this.mmu = mmu;
    this.bytes = bytes;
  }

  /** @kvm kvm_dirty_ring_alloc */
  add(vcpu: number): DirtyRing {
    const ring = new DirtyRing(vcpu, this.bytes, DIRTY_RING_RESERVED + this.mmu.cpuDirtyLogSize);
    this.rings.push(ring);
    return ring;
  }

  push(slot: MemSlot, offset: number): void {
    const ring = this.running;
    if (ring === null) return;
    const id = slot.id | (slot.asId << 16);
    ring.push(id, offset);
    const { trace } = this.mmu;
    if (trace.on) trace.emit(TP_DIRTY_RING_PUSH, ring.index, ring.dirtyIndex | 0, ring.resetIndex | 0, id, offset, 0);
  }

  /**
   * Entries that were reset. The caller flushes if there were any. Pages of one slot that follow each other at most 63
   * apart are re-armed together; one may also come before the first, if no page falls off the end.
   * @kvm kvm_dirty_ring_reset
   */
  reset(ring: DirtyRing, maxSlots: number): number {
    const { words } = ring;
    const start = ring.resetIndex;
    let slot = 0;
    let first = 0;
    // Bit i of (hi, lo): the page at first + i. 0: no group is open.
    let lo = 0;
    let hi = 0;
    for (;;) {
      const at = ring.at(ring.resetIndex);
      if ((words[at] & DIRTY_GFN_F_RESET) === 0) break;
      const offset = offsetOf(words[at + 2], words[at + 3]);
      const delta = offset - first;
      const fits = words[at + 1] === slot && (lo | hi) !== 0;
      words[at] = 0;
      ring.resetIndex = (ring.resetIndex + 1) >>> 0;
      if (fits && delta >= 0 && delta < STEP) {
        if (delta < 32) lo |= 1 << delta;
        else hi |= 1 << (delta - 32);
      } else if (fits && delta < 0 && highestBit(lo, hi) - delta < STEP) {
        hi = delta > -32 ? (hi << -delta) | (lo >>> (32 + delta)) : lo << (-delta - 32);
        lo = (delta > -32 ? lo << -delta : 0) | 1;
        first = offset;
      } else {
        this.rearm(maxSlots, slot, first, lo, hi);
        slot = words[at + 1];
        first = offset;
        lo = 1;
        hi = 0;
      }
    }
    this.rearm(maxSlots, slot, first, lo, hi);
    const { trace } = this.mmu;
    if (trace.on) trace.emit(TP_DIRTY_RING_RESET, ring.index, ring.dirtyIndex | 0, ring.resetIndex | 0);
    return (ring.resetIndex - start) >>> 0;
  }

  /** What user space has written there is not to be trusted. @kvm kvm_reset_dirty_gfn */
  private rearm(maxSlots: number, slot: number, first: number, lo: number, hi: number): void {
    if ((lo | hi) === 0) return;
    const asId = slot >>> 16;
    const id = slot & 0xffff;
    if (asId >= ADDRESS_SPACES || id >= maxSlots) return;
    const memslot = this.mmu.slots[asId].byId(id);
    if (memslot === null || first >= memslot.npages || first + highestBit(lo, hi) >= memslot.npages) return;
    enableLogDirtyMasked(this.mmu, memslot, first, lo, hi);
  }
}

/** Of (hi, lo), which is not 0. */
function highestBit(lo: number, hi: number): number {
  return hi !== 0 ? 63 - Math.clz32(hi) : 31 - Math.clz32(lo);
}

/** An int if it is one, so that the sums over it are. */
function offsetOf(lo: number, hi: number): number {
  return hi === 0 && lo >= 0 ? lo : (hi >>> 0) * 2 ** 32 + (lo >>> 0);
}
