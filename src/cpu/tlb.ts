/**
 * The software TLB: tables in memory that generated code looks into. `(tag ^ address) <=u 4096 - size` is a hit: a page
 * crossing never is. Writes have a tag of their own, which is withheld while a write must be seen by someone: pages that
 * are clean under dirty logging, write-protected, or hold decoded code.
 *
 * An empty entry has the tag of a page that belongs to another entry. Filled entries are listed, and a flush empties what
 * is in the list: what it costs was paid by the fills.
 */
import { RIGHT_READ, RIGHT_WRITE } from './bus.ts';
import {
  FETCH_ENTRIES,
  FETCH_ENTRY_BYTES,
  FETCH_MAP,
  FETCH_SET_BYTES,
  FETCH_SETS,
  FETCH_TAG,
  type Layout,
  TLB_ADDEND,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_READ_TAG,
  TLB_SET_BYTES,
  TLB_SETS,
  TLB_WRITE_TAG,
} from './state.ts';

const PAGE = ~4095;

export class SoftTlb {
  readonly #words: Int32Array;
  readonly #layout: Layout;
  /** Word indexes of the entries that may hold something. */
  readonly #filled = new Int32Array(TLB_SETS * TLB_ENTRIES);
  #count = 0;
  readonly #fetchFilled = new Int32Array(FETCH_SETS * FETCH_ENTRIES);
  #fetchCount = 0;

  constructor(buffer: ArrayBuffer, layout: Layout) {
    this.#words = new Int32Array(buffer);
    this.#layout = layout;
    for (let i = 0; i < TLB_SETS * TLB_ENTRIES; i++) this.#empty((layout.tlb + i * TLB_ENTRY_BYTES) >>> 2);
    for (let i = 0; i < FETCH_SETS * FETCH_ENTRIES; i++) {
      this.#emptyFetch((layout.fetchTlb + i * FETCH_ENTRY_BYTES) >>> 2);
    }
  }

  #emptyTag(index: number, entries: number): number {
    return ((index & (entries - 1)) ^ 1) << 12;
  }

  #empty(word: number): void {
    const words = this.#words;
    const index = (word - (this.#layout.tlb >>> 2)) / (TLB_ENTRY_BYTES >>> 2);
    const tag = this.#emptyTag(index, TLB_ENTRIES);
    words[word + (TLB_READ_TAG >>> 2)] = tag;
    words[word + (TLB_READ_TAG >>> 2) + 1] = 0;
    words[word + (TLB_WRITE_TAG >>> 2)] = tag;
    words[word + (TLB_WRITE_TAG >>> 2) + 1] = 0;
    words[word + (TLB_ADDEND >>> 2)] = 0;
  }

  #emptyFetch(word: number): void {
    const index = (word - (this.#layout.fetchTlb >>> 2)) / (FETCH_ENTRY_BYTES >>> 2);
    this.#words[word + (FETCH_TAG >>> 2)] = this.#emptyTag(index, FETCH_ENTRIES);
    this.#words[word + (FETCH_TAG >>> 2) + 1] = 0;
    this.#words[word + (FETCH_MAP >>> 2)] = 0;
  }

  #entry(set: number, lo: number): number {
    return (this.#layout.tlb + set * TLB_SET_BYTES + ((lo >>> 12) & (TLB_ENTRIES - 1)) * TLB_ENTRY_BYTES) >>> 2;
  }

  #fetchEntry(set: number, lo: number): number {
    const index = (lo >>> 12) & (FETCH_ENTRIES - 1);
    return (this.#layout.fetchTlb + set * FETCH_SET_BYTES + index * FETCH_ENTRY_BYTES) >>> 2;
  }

  /** Lets accesses of the kinds in `rights` to the page at `lo`, `hi` find it at `host` without asking. */
  fill(set: number, lo: number, hi: number, host: number, rights: number): void {
    const words = this.#words;
    const word = this.#entry(set, lo);
    const page = lo & PAGE;
    const addend = ((host & PAGE) - page) | 0;
    const readWord = word + (TLB_READ_TAG >>> 2);
    const writeWord = word + (TLB_WRITE_TAG >>> 2);
    const held = words[readWord] === page && words[readWord + 1] === hi;
    const heldWrite = words[writeWord] === page && words[writeWord + 1] === hi;
    if (!((held || heldWrite) && words[word + (TLB_ADDEND >>> 2)] === addend)) {
      this.#empty(word);
      if (this.#count === this.#filled.length) this.#compact();
      this.#filled[this.#count++] = word;
    }
    if (rights & RIGHT_READ) {
      words[readWord] = page;
      words[readWord + 1] = hi;
    }
    if (rights & RIGHT_WRITE) {
      words[writeWord] = page;
      words[writeWord + 1] = hi;
    }
    words[word + (TLB_ADDEND >>> 2)] = addend;
  }

  /** The list holds entries that were filled twice: keep each once. */
  #compact(): void {
    this.#filled.sort();
    let kept = 0;
    for (let i = 0; i < this.#count; i++) {
      if (kept === 0 || this.#filled[kept - 1] !== this.#filled[i]) this.#filled[kept++] = this.#filled[i];
    }
    this.#count = kept;
  }

  /** Address in memory for an access within a page, or 0. */
  lookup(set: number, lo: number, hi: number, write: boolean): number {
    const words = this.#words;
    const word = this.#entry(set, lo);
    const tag = word + ((write ? TLB_WRITE_TAG : TLB_READ_TAG) >>> 2);
    if (words[tag] !== (lo & PAGE) || words[tag + 1] !== hi) return 0;
    return (words[word + (TLB_ADDEND >>> 2)] + lo) >>> 0;
  }

  fillFetch(set: number, lo: number, hi: number, map: number): void {
    const words = this.#words;
    const word = this.#fetchEntry(set, lo);
    words[word + (FETCH_TAG >>> 2)] = lo & PAGE;
    words[word + (FETCH_TAG >>> 2) + 1] = hi;
    words[word + (FETCH_MAP >>> 2)] = map;
    if (this.#fetchCount === this.#fetchFilled.length) this.#emptyAllFetches(word);
    this.#fetchFilled[this.#fetchCount++] = word;
  }

  /** The map of the page, or 0. */
  lookupFetch(set: number, lo: number, hi: number): number {
    const words = this.#words;
    const word = this.#fetchEntry(set, lo);
    if (words[word + (FETCH_TAG >>> 2)] !== (lo & PAGE) || words[word + (FETCH_TAG >>> 2) + 1] !== hi) return 0;
    return words[word + (FETCH_MAP >>> 2)];
  }

  #emptyAllFetches(but: number): void {
    for (let i = 0; i < this.#fetchCount; i++) {
      if (this.#fetchFilled[i] !== but) this.#emptyFetch(this.#fetchFilled[i]);
    }
    this.#fetchCount = 0;
  }

  /** Forgets everything. Costs as much as filling did. */
  flush(): void {
    for (let i = 0; i < this.#count; i++) this.#empty(this.#filled[i]);
    this.#count = 0;
    this.flushFetches();
  }

  flushFetches(): void {
    this.#emptyAllFetches(-1);
  }

  /** Forgets one page. */
  flushPage(lo: number, hi: number): void {
    const page = lo & PAGE;
    const words = this.#words;
    for (let set = 0; set < TLB_SETS; set++) {
      const word = this.#entry(set, lo);
      for (const tag of [word + (TLB_READ_TAG >>> 2), word + (TLB_WRITE_TAG >>> 2)]) {
        if (words[tag] === page && words[tag + 1] === hi) {
          words[tag] = this.#emptyTag((lo >>> 12) & (TLB_ENTRIES - 1), TLB_ENTRIES);
          words[tag + 1] = 0;
        }
      }
    }
    for (let set = 0; set < FETCH_SETS; set++) {
      if (this.lookupFetch(set, lo, hi)) this.#emptyFetch(this.#fetchEntry(set, lo));
    }
  }

  /** Withholds the write tags of a page of memory: the next write asks. */
  withholdWrites(host: number): void {
    const words = this.#words;
    const page = host & PAGE;
    for (let i = 0; i < this.#count; i++) {
      const word = this.#filled[i];
      const tag = word + (TLB_WRITE_TAG >>> 2);
      const index = (word - (this.#layout.tlb >>> 2)) / (TLB_ENTRY_BYTES >>> 2);
      const empty = this.#emptyTag(index, TLB_ENTRIES);
      if (words[tag] === empty && words[tag + 1] === 0) continue;
      if (((words[tag] + words[word + (TLB_ADDEND >>> 2)]) & PAGE) === page) {
        words[tag] = empty;
        words[tag + 1] = 0;
      }
    }
  }

  /** Withholds all write tags: dirty logging begins, or starts another round. */
  withholdAllWrites(): void {
    for (let i = 0; i < this.#count; i++) {
      const word = this.#filled[i];
      const tag = word + (TLB_WRITE_TAG >>> 2);
      const index = (word - (this.#layout.tlb >>> 2)) / (TLB_ENTRY_BYTES >>> 2);
      this.#words[tag] = this.#emptyTag(index, TLB_ENTRIES);
      this.#words[tag + 1] = 0;
    }
  }
}
