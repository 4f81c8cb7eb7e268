/**
 * The dirty ring: a vCPU's list of pages that it has written, in place of a bitmap for each slot. Shared with user space:
 *
 *          reset_index            dirty_index
 *     ----------|----------------------|-----------------       an entry: flags, slot, offset (low, high)
 *               | DIRTY|RESET   DIRTY  | 0                       flags 0        free
 *               | harvested     to be  | free                          DIRTY   written by KVM
 *                               harvested                              RESET   user space has taken it
 *
 * KVM writes at dirty_index; user space takes an entry and marks it; a reset goes from reset_index over what is marked,
 * and re-arms those pages. A vCPU whose ring is full but for the reserve leaves the guest until user space has reset it.
 *
 * INVARIANT ring: dirty_index - reset_index never exceeds the ring's size; the reserve serves what one exit can add.
 *
 * Source: Linux 6.1 dirty_ring.c, struct kvm_dirty_gfn.
 */
export const DIRTY_GFN_F_DIRTY = 1 << 0;
export const DIRTY_GFN_F_RESET = 1 << 1;
export const DIRTY_GFN_BYTES = 16;
/** A CPU's own log adds its size. @kvm KVM_DIRTY_RING_RSVD_ENTRIES */
export const DIRTY_RING_RESERVED = 64;
/** @kvm KVM_DIRTY_RING_MAX_ENTRIES */
export const DIRTY_RING_MAX_ENTRIES = 65536;

export class DirtyRing {
  /** The vCPU's number. */
  readonly index: number;
  /** Entries, a power of two. */
  readonly size: number;
  readonly softLimit: number;
  /** Four words an entry. User space sees and changes these. */
  readonly words: Int32Array;
  dirtyIndex = 0;
  resetIndex = 0;
  /** Where user space goes on. */
  private fetchIndex = 0;

  /** `reserved`: entries that one exit may add. @kvm kvm_dirty_ring_get_rsvd_entries */
  constructor(index: number, bytes: number, reserved = DIRTY_RING_RESERVED) {
    this.index = index;
    this.size = bytes / DIRTY_GFN_BYTES;
    this.softLimit = this.size - reserved;
    this.words = new Int32Array(this.size * 4);
  }

  /** @kvm kvm_dirty_ring_used */
  get used(): number {
    return (this.dirtyIndex - this.resetIndex) >>> 0;
  }

  /** @kvm kvm_dirty_ring_soft_full */
  get isSoftFull(): boolean {
    return this.used >= this.softLimit;
  }

  /** `slot`: its id, and its address space from bit 16 on; `offset` in pages. @kvm kvm_dirty_ring_push */
  push(slot: number, offset: number): void {
    if (this.used >= this.size) throw new Error(`INVARIANT ring: vCPU ${this.index}'s dirty ring is full`);
    const at = this.at(this.dirtyIndex);
    this.words[at + 1] = slot;
    this.words[at + 2] = offset;
    this.words[at + 3] = 0;
    this.words[at] = DIRTY_GFN_F_DIRTY;
    this.dirtyIndex = (this.dirtyIndex + 1) >>> 0;
  }

  /** Offset in `words` of an entry by its running number. */
  at(index: number): number {
    return (index & (this.size - 1)) << 2;
  }

  /**
   * User space: takes each new entry and marks it, as QEMU and the kernel's selftests do. How many there were.
   */
  harvest(take: (slot: number, offset: number) => void, most = Infinity): number {
    const { words } = this;
    let count = 0;
    for (;;) {
      const at = this.at(this.fetchIndex);
      if (count >= most || words[at] !== DIRTY_GFN_F_DIRTY) return count;
      take(words[at + 1], words[at + 2]);
      words[at] |= DIRTY_GFN_F_RESET;
      this.fetchIndex = (this.fetchIndex + 1) >>> 0;
      count++;
    }
  }
}
