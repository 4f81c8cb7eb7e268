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

  /** Entries that were reset. The caller flushes if there were any. @kvm kvm_dirty_ring_reset */
  reset(ring: DirtyRing, maxSlots: number): number {
    const { words } = ring;
    const group = new ResetGroup(this.mmu, maxSlots);
    let count = 0;
    for (;;) {
      const at = ring.at(ring.resetIndex);
      if ((words[at] & DIRTY_GFN_F_RESET) === 0) break;
      const slot = words[at + 1];
      const offset = (words[at + 3] >>> 0) * 4294967296 + (words[at + 2] >>> 0);
      words[at] = 0;
      ring.resetIndex = (ring.resetIndex + 1) >>> 0;
      count++;
      if (!group.takes(slot, offset)) {
        group.reset();
        group.begin(slot, offset);
      }
    }
    group.reset();
    const { trace } = this.mmu;
    if (trace.on) trace.emit(TP_DIRTY_RING_RESET, ring.index, ring.dirtyIndex | 0, ring.resetIndex | 0);
    return count;
  }
}

/** Pages of one slot, at most 64 apart, which are re-armed together. */
class ResetGroup {
  private readonly mmu: Mmu;
  private readonly maxSlots: number;
  private slot = 0;
  private offset = 0;
  private mask = 0n;

  constructor(mmu: Mmu, maxSlots: number) {
    this.mmu = mmu;
    this.maxSlots = maxSlots;
  }

  begin(slot: number, offset: number): void {
    this.slot = slot;
    this.offset = offset;
    this.mask = 1n;
  }

  /** Does the page fit into the group? It may come before it, if no other page falls off its end. */
  takes(slot: number, offset: number): boolean {
    if (this.mask === 0n || slot !== this.slot) return false;
    const delta = offset - this.offset;
    if (delta >= 0 && delta < STEP) {
      this.mask |= 1n << BigInt(delta);
      return true;
    }
    if (delta >= 0 || delta <= -STEP) return false;
    const moved = this.mask << BigInt(-delta);
    if (moved >> BigInt(STEP) !== 0n) return false;
    this.offset = offset;
    this.mask = moved | 1n;
    return true;
  }

  /** What user space has written there is not to be trusted. @kvm kvm_reset_dirty_gfn */
  reset(): void {
    const { mmu, slot, offset, mask } = this;
    if (mask === 0n) return;
    const asId = slot >>> 16;
    const id = slot & 0xffff;
    if (asId >= ADDRESS_SPACES || id >= this.maxSlots) return;
    const memslot = mmu.slots[asId].byId(id);
    const highest = mask.toString(2).length - 1;
    if (memslot === null || offset >= memslot.npages || offset + highest >= memslot.npages) return;
    enableLogDirtyMasked(mmu, memslot, offset, Number(BigInt.asIntN(32, mask)), Number(BigInt.asIntN(32, mask >> 32n)));
  }
}
