/**
 * How devices reach the guest's memory (DMA): by guest-physical address, through the machine's memory slots. An address is a
 * number; one beyond 2^53 has lost its low bits, and is beyond any memory anyhow.
 *
 * INVARIANT dma: what a device stores goes through `writable`, so that the pages are in the dirty log and what was decoded of them
 * is stale before anybody runs. A view is for the moment: it is done with when the next one is asked for.
 */
/** A view to be written has at most so many bytes. */
export const MAX_VIEW_BYTES = 128 * 1024;

export interface GuestMemory {
  /** The bytes of a range, to be read; null if not all of it is memory, or not in one piece. */
  readable(gpa: number, bytes: number): Uint8Array | null;
  /** The same to be written, all of it; null also if it is read-only. At most MAX_VIEW_BYTES. Marks the pages dirty. */
  writable(gpa: number, bytes: number): Uint8Array | null;
  /** Whether the range could be written, whatever its length; marks nothing. */
  isWritable(gpa: number, bytes: number): boolean;
  /** The host takes back whole pages, which read as zeros from now on; what isn't memory is left out. */
  discard(gpa: number, bytes: number): void;
}
