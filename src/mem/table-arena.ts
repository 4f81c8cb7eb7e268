/**
 * Where page tables live: one growing Int32Array of 4 KiB tables. It is a slice of host physical memory that the
 * MMU writes and the hardware walks, and the only thing the two share beside fault exits and flush commands.
 *
 *     table t            entry number e = t << 9 | i  ("sptep", 0 is none)
 *     +-------------+    words[2e]     lo, bits 0-31
 *     | 512 entries |    words[2e + 1] hi, bits 32-63
 *     +-------------+
 *
 * A table's frame number is TABLE_PFN_BASE + t; the host's frames for guest memory lie below TABLE_PFN_BASE.
 * `words` is replaced when the arena grows: don't keep it across `alloc`.
 */
export const TABLE_PFN_BASE = 1 << 29;
const WORDS_PER_TABLE = 1024;

export class TableArena {
  words: Int32Array;
  /** Tables ever handed out, table 0 included (it is never handed out). */
  private high = 1;
  private readonly freeList: number[] = [];
  /** Called with the new capacity, in tables, after the arena grew. */
  onGrow: ((tables: number) => void) | null = null;

  constructor(tables = 64) {
    this.words = new Int32Array(tables * WORDS_PER_TABLE);
  }

  get capacity(): number {
    return this.words.length / WORDS_PER_TABLE;
  }

  /** Tables in use. */
  get used(): number {
    return this.high - 1 - this.freeList.length;
  }

  /** A zeroed table: its number, from 1. */
  alloc(): number {
    const reused = this.freeList.pop();
    if (reused !== undefined) return reused;
    if (this.high === this.capacity) this.grow();
    return this.high++;
  }

  /** Gives a table back. It is zeroed now, so that `alloc` costs nothing. */
  free(table: number): void {
    this.words.fill(0, table * WORDS_PER_TABLE, (table + 1) * WORDS_PER_TABLE);
    this.freeList.push(table);
  }

  private grow(): void {
    const larger = new Int32Array(this.words.length * 2);
    larger.set(this.words);
    this.words = larger;
    this.onGrow?.(this.capacity);
  }
}
