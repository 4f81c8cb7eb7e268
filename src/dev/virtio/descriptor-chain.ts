/**
 * What a driver has put into one place of a queue: pieces of memory, first those that the device reads, then those that it writes.
 * One object serves for all chains of a queue, one after the other.
 *
 * INVARIANT chain: every piece is memory (the device-writable ones writable), was found so by `VirtQueue.pop`, and stays so while
 * the device works, as nobody else runs.
 */
import { type GuestMemory, MAX_VIEW_BYTES } from '../guest-memory.ts';

/** Pieces of a chain, as QEMU has it. */
export const MAX_PIECES = 1024;

export class DescriptorChain {
  /** Names the chain in the used ring. */
  head = 0;
  /** Pieces [0, readable) are for reading, the rest up to `count` for writing. */
  readable = 0;
  count = 0;
  readableBytes = 0;
  writableBytes = 0;
  private readonly gpas = new Float64Array(MAX_PIECES);
  private readonly lengths = new Float64Array(MAX_PIECES);
  private readonly memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.memory = memory;
  }

  clear(head: number): void {
    this.head = head;
    this.readable = 0;
    this.count = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
  }

  /** False if the piece may not come here: no memory, too many, or to be read behind one to be written. */
  add(gpa: number, bytes: number, write: boolean): boolean {
    const { memory, count } = this;
    if (count === MAX_PIECES || (!write && this.readable !== count)) return false;
    if (bytes > 0 && !(write ? memory.isWritable(gpa, bytes) : memory.readable(gpa, bytes) !== null)) return false;
    this.gpas[count] = gpa;
    this.lengths[count] = bytes;
    this.count++;
    if (write) this.writableBytes += bytes;
    else {
      this.readable++;
      this.readableBytes += bytes;
    }
    return true;
  }

  /** Copies from the readable part, from `at` on; how many bytes there were. */
  read(at: number, into: Uint8Array): number {
    return this.eachReadable(at, into.length, (piece, done) => into.set(piece, done));
  }

  /** Copies into the writable part, from `at` on; how many bytes had room. */
  write(at: number, from: Uint8Array): number {
    return this.eachWritable(at, from.length, (piece, done) => piece.set(from.subarray(done, done + piece.length)));
  }

  /** Calls `use` with views of `bytes` bytes of the readable part, from `at` on, and how many came before. How many there were. */
  eachReadable(at: number, bytes: number, use: (piece: Uint8Array, done: number) => void): number {
    return this.each(false, at, bytes, use);
  }

  eachWritable(at: number, bytes: number, use: (piece: Uint8Array, done: number) => void): number {
    return this.each(true, at, bytes, use);
  }

  private each(write: boolean, at: number, bytes: number, use: (piece: Uint8Array, done: number) => void): number {
    const end = write ? this.count : this.readable;
    let skip = at;
    let done = 0;
    for (let i = write ? this.readable : 0; i < end && done < bytes; ) {
      const length = this.lengths[i];
      if (skip >= length) {
        skip -= length;
        i++;
        continue;
      }
      const count = Math.min(length - skip, bytes - done, MAX_VIEW_BYTES);
      const gpa = this.gpas[i] + skip;
      const piece = write ? this.memory.writable(gpa, count) : this.memory.readable(gpa, count);
      if (piece === null) return done;
      use(piece, done);
      done += count;
      skip += count;
    }
    return done;
  }
}
