/** Guest memory for tests of devices: flat, with a note of what was written. */
import type { GuestMemory } from '../../guest-memory.ts';

export class FlatGuestMemory implements GuestMemory {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Pages that `writable` has given out. */
  readonly dirty = new Set<number>();
  readonly discarded: number[] = [];

  constructor(bytes: number) {
    // What lies behind the guest's memory must stay as it is.
    const all = new Uint8Array(bytes + 4096).fill(0xa5);
    this.bytes = all.subarray(0, bytes).fill(0);
    this.view = new DataView(all.buffer, 0, bytes);
  }

  /** Whether somebody has written behind the end. */
  get isOverrun(): boolean {
    return new Uint8Array(this.bytes.buffer, this.bytes.length).some((byte) => byte !== 0xa5);
  }

  readable(gpa: number, bytes: number): Uint8Array | null {
    return gpa + bytes <= this.bytes.length ? this.bytes.subarray(gpa, gpa + bytes) : null;
  }

  writable(gpa: number, bytes: number): Uint8Array | null {
    const view = this.readable(gpa, bytes);
    if (view !== null) for (let page = gpa >>> 12; page <= (gpa + bytes - 1) >>> 12; page++) this.dirty.add(page);
    return view;
  }

  isWritable(gpa: number, bytes: number): boolean {
    return this.readable(gpa, bytes) !== null;
  }

  discard(gpa: number, bytes: number): void {
    const view = this.readable(gpa, bytes);
    if (view === null) return;
    view.fill(0);
    this.discarded.push(gpa);
  }
}
