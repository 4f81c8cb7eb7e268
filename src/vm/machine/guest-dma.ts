/**
 * The devices' way to the guest's memory: through the memslots, as a VMM's own, with KVM's note of each page that is written. Decoded
 * code in such a page is stale at once. What a guest's tables say has no part in it: there is no IOMMU.
 *
 * A VMM marks what it writes itself in a log of its own; here it goes into KVM's, as KVM's own writes do (`markPageDirty`), so that
 * there is one log. As a vCPU does, a device lets user space empty a dirty ring that is full but for its reserve, before it writes.
 *
 * INVARIANT ring room: a view has fewer pages than the reserve, so all of them have room, and a page is marked, written and only then
 * harvested: user space that copies it at once misses nothing.
 */
import { hvaOfGfn, markPageDirty } from '../../mmu/guest-memory.ts';
import { type GuestMemory, MAX_VIEW_BYTES } from '../../dev/guest-memory.ts';
import { FLAT_HVA } from '../../mem/flat-host.ts';
import { DIRTY_RING_RESERVED } from '../../mem/dirty-ring.ts';
import type { MemSlot } from '../../mem/memslots.ts';
import type { Mmu } from '../../mmu/mmu.ts';

const PAGE = 4096;

export interface DmaOwner {
  /** The guest's memory, as the flat host has it. */
  readonly ram: Uint8Array;
  readonly mmu: Mmu;
  /** Makes room in the dirty ring that the next write goes to, if it has one that is full but for its reserve. */
  makeRoomInRing(): void;
  /** What any CPU has decoded of the page at this offset of `ram` is stale. */
  invalidateCode(offset: number): void;
}

export class GuestDma implements GuestMemory {
  private readonly owner: DmaOwner;
  /** Of the last range that was found. */
  private slot: MemSlot | null = null;

  constructor(owner: DmaOwner) {
    this.owner = owner;
  }

  readable(gpa: number, bytes: number): Uint8Array | null {
    const offset = this.find(gpa, bytes, false);
    return offset < 0 ? null : this.owner.ram.subarray(offset, offset + bytes);
  }

  isWritable(gpa: number, bytes: number): boolean {
    return this.find(gpa, bytes, true) >= 0;
  }

  writable(gpa: number, bytes: number): Uint8Array | null {
    const { owner } = this;
    if (bytes > MAX_VIEW_BYTES) throw new RangeError(`a view of ${bytes} bytes`);
    const offset = this.find(gpa, bytes, true);
    if (offset < 0) return null;
    owner.makeRoomInRing();
    for (let gfn = Math.floor(gpa / PAGE); gfn * PAGE < gpa + bytes; gfn++) {
      markPageDirty(this.slot, gfn);
      owner.invalidateCode(offset + Math.max(0, gfn * PAGE - gpa));
    }
    return owner.ram.subarray(offset, offset + bytes);
  }

  /** As MADV_DONTNEED does: the notifier first, then the frame is another, empty one. */
  discard(gpa: number, bytes: number): void {
    const { owner } = this;
    for (let at = gpa; at < gpa + bytes; at += PAGE) {
      const offset = this.find(at, PAGE, true);
      if (offset < 0) continue;
      owner.makeRoomInRing();
      const { notifier } = owner.mmu.host;
      const hva = FLAT_HVA + offset;
      notifier?.invalidateRangeStart(hva, hva + PAGE);
      owner.invalidateCode(offset);
      // The contents change without a fault: to the log it is a write.
      markPageDirty(this.slot, Math.floor(at / PAGE));
      owner.ram.fill(0, offset, offset + PAGE);
      notifier?.invalidateRangeEnd(hva, hva + PAGE);
    }
  }

  /** Offset in `ram`, or -1; sets `slot`. The range lies in one slot. */
  private find(gpa: number, bytes: number, write: boolean): number {
    const gfn = Math.floor(gpa / PAGE);
    const { ram, mmu } = this.owner;
    const slot = mmu.slots[0].find(gfn);
    const hva = hvaOfGfn(slot, gfn);
    if (slot === null || hva < 0 || (write && slot.isReadonly)) return -1;
    if (gpa + bytes > (slot.baseGfn + slot.npages) * PAGE) return -1;
    this.slot = slot;
    const offset = hva - FLAT_HVA + (gpa % PAGE);
    return offset >= 0 && offset + bytes <= ram.length ? offset : -1;
  }
}

if (MAX_VIEW_BYTES / PAGE + 1 > DIRTY_RING_RESERVED) throw new Error("a view is larger than a dirty ring's reserve");
