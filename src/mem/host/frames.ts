/**
 * Host frames: their numbers, who holds them, and what is in them.
 *
 *     pfn 0        never handed out
 *     512..1023    the huge zero page          (shared, never written)
 *     1024         the zero page               (shared, never written)
 *     1025...      chunks of 512 frames, upwards: either 512 small pages or one 2 MiB folio
 *     ...2^29      1 GiB folios, downwards
 *
 * A *folio* is what Linux counts references of: a small page, or a 2 MiB page as a whole, also when a page table maps
 * its 512 parts one by one. A folio is freed when its last reference goes. References here are the mappings of the one
 * process and the LRU batches (lru.ts); 1 GiB folios have exactly one mapping.
 *
 * Contents are sparse: a page that holds zeros only costs nothing. A write to a free frame throws: only a translation
 * that should have been flushed leads there.
 *
 * INVARIANT refs: a folio in use has at least one reference, a free one has none and no contents.
 */
import type { PhysMemory } from '../phys-memory.ts';

export const CHUNK_FRAMES = 512;
const GIGA_FRAMES = 1 << 18;
export const MAX_FRAMES = 1 << 29;
export const HUGE_ZERO_PFN = 512;
export const ZERO_PFN = 1024;
const FIRST_CHUNK = 3;
const WORDS = 1024;

export const CHUNK_SMALL = 0;
export const CHUNK_FOLIO = 1;
/** Part of a 1 GiB folio; exists only once something was written there. */
export const CHUNK_PART = 2;

/** 512 frames. `refs` and `lru` are for the chunk as one folio, `smallRefs` and `smallLru` for its small pages. */
export interface Chunk {
  kind: number;
  refs: number;
  lru: number;
  smallRefs: Uint8Array | null;
  smallLru: Uint8Array | null;
  pages: (Int32Array | null)[] | null;
}

/** What is copied when the frames are saved; plain data. */
export interface FramesState {
  chunks: [number, Chunk][];
  nextChunk: number;
  nextSmall: number;
  lowGiga: number;
  freeSmall: number[];
  freeChunks: number[];
  freeGigas: number[];
}

export class Frames implements PhysMemory {
  /** chunks[pfn >> 18][(pfn >> 9) & 511] */
  private readonly chunks: ((Chunk | null)[] | null)[] = new Array(MAX_FRAMES / GIGA_FRAMES).fill(null);
  private nextChunk = FIRST_CHUNK;
  /** Next never used frame of the chunk that small pages are taken from. */
  private nextSmall = ZERO_PFN + 1;
  private lowGiga = MAX_FRAMES / GIGA_FRAMES;
  private freeSmall: number[] = [];
  private freeChunks: number[] = [];
  private freeGigas: number[] = [];

  constructor() {
    this.addChunk(ZERO_PFN >> 9, CHUNK_SMALL);
  }

  // ---- who holds them

  /** A small page of zeros with one reference. */
  allocSmall(): number {
    const pfn = this.freeSmall.pop() ?? this.freshSmall();
    this.get(pfn, 1);
    return pfn;
  }

  /** A 2 MiB folio of zeros with one reference: its first frame. */
  allocFolio(): number {
    const index = this.freeChunks.pop() ?? this.freshChunk();
    this.addChunk(index, CHUNK_FOLIO).refs = 1;
    return index * CHUNK_FRAMES;
  }

  /** A 1 GiB folio of zeros: its first frame. */
  allocGiga(): number {
    const giga = this.freeGigas.pop() ?? this.lowGiga - 1;
    if (giga < this.lowGiga) {
      if (giga * 512 < this.nextChunk) throw new Error('host frames exhausted');
      this.lowGiga = giga;
    }
    return giga * GIGA_FRAMES;
  }

  freeGiga(pfn: number): void {
    this.chunks[pfn >>> 18] = null;
    this.freeGigas.push(pfn >>> 18);
  }

  /** True if `pfn` is part of a folio with references and LRU flags: not a zero page, not of a 1 GiB page, not free. */
  isCounted(pfn: number): boolean {
    if (pfn <= ZERO_PFN) return false;
    const chunk = this.chunkAt(pfn);
    if (chunk === null || chunk.kind === CHUNK_PART) return false;
    return chunk.smallRefs === null || chunk.smallRefs[pfn & 511] > 0;
  }

  isLarge(pfn: number): boolean {
    return this.chunkAt(pfn)?.kind === CHUNK_FOLIO;
  }

  refs(pfn: number): number {
    const chunk = this.known(pfn);
    return chunk.smallRefs === null ? chunk.refs : chunk.smallRefs[pfn & 511];
  }

  get(pfn: number, count: number): void {
    const chunk = this.known(pfn);
    if (chunk.smallRefs === null) chunk.refs += count;
    else chunk.smallRefs[pfn & 511] += count;
  }

  /** Gives a reference back; the last one frees the folio. */
  put(pfn: number): void {
    const chunk = this.known(pfn);
    if (chunk.smallRefs === null) {
      if (--chunk.refs > 0) return;
      this.dropChunk(pfn >>> 9);
      this.freeChunks.push(pfn >>> 9);
      return;
    }
    const left = chunk.smallRefs[pfn & 511] - 1;
    chunk.smallRefs[pfn & 511] = left;
    if (left > 0) return;
    if (left < 0) throw new Error(`INVARIANT refs: frame ${pfn} put once too often`);
    (chunk.smallLru as Uint8Array)[pfn & 511] = 0;
    if (chunk.pages !== null) chunk.pages[pfn & 511] = null;
    this.freeSmall.push(pfn);
  }

  /** LRU flags of the folio (see lru.ts). */
  lru(pfn: number): number {
    const chunk = this.known(pfn);
    return chunk.smallLru === null ? chunk.lru : chunk.smallLru[pfn & 511];
  }

  setLru(pfn: number, flags: number): void {
    const chunk = this.known(pfn);
    if (chunk.smallLru === null) chunk.lru = flags;
    else chunk.smallLru[pfn & 511] = flags;
  }

  /** Calls `visit` for every folio that has references, with its first frame and their number. For checks. */
  eachCounted(visit: (pfn: number, refs: number) => void): void {
    this.chunks.forEach((row, giga) => {
      row?.forEach((chunk, i) => {
        const first = giga * GIGA_FRAMES + i * CHUNK_FRAMES;
        if (chunk?.smallRefs) chunk.smallRefs.forEach((refs, k) => refs > 0 && visit(first + k, refs));
        else if (chunk !== null && chunk.kind === CHUNK_FOLIO) visit(first, chunk.refs);
      });
    });
  }

  // ---- what is in them

  read32(pfn: number, offset: number): number {
    const page = this.page(pfn);
    return page === null ? 0 : page[offset >> 2];
  }

  write32(pfn: number, offset: number, value: number): void {
    const page = this.page(pfn);
    if (page !== null) page[offset >> 2] = value;
    else if ((value | 0) !== 0) this.makePage(pfn)[offset >> 2] = value;
  }

  read8(pfn: number, offset: number): number {
    return (this.read32(pfn, offset) >>> ((offset & 3) << 3)) & 0xff;
  }

  write8(pfn: number, offset: number, value: number): void {
    const shift = (offset & 3) << 3;
    const word = this.read32(pfn, offset);
    this.write32(pfn, offset, (word & ~(0xff << shift)) | ((value & 0xff) << shift));
  }

  /** `count` bytes from `offset` on, into `bytes[at]`.. */
  readBytes(pfn: number, offset: number, bytes: Uint8Array, at: number, count: number): void {
    if (this.page(pfn) === null) bytes.fill(0, at, at + count);
    else for (let i = 0; i < count; i++) bytes[at + i] = this.read8(pfn, offset + i);
  }

  writeBytes(pfn: number, offset: number, bytes: Uint8Array, at: number, count: number): void {
    for (let i = 0; i < count; i++) this.write8(pfn, offset + i, bytes[at + i]);
  }

  copyPage(to: number, from: number): void {
    const page = this.page(from);
    if (page !== null) this.makePage(to).set(page);
  }

  /** The 1024 words of a frame, or null if it holds zeros only. Not for writing. */
  page(pfn: number): Int32Array | null {
    const chunk = this.chunkAt(pfn);
    if (chunk === null || chunk.pages === null) return null;
    return chunk.pages[pfn & 511];
  }

  // ---- state

  save(): FramesState {
    const chunks: [number, Chunk][] = [];
    this.chunks.forEach((list, giga) => {
      list?.forEach((chunk, i) => {
        if (chunk) chunks.push([giga * 512 + i, copyChunk(chunk)]);
      });
    });
    const { nextChunk, nextSmall, lowGiga } = this;
    const [freeSmall, freeChunks, freeGigas] = [[...this.freeSmall], [...this.freeChunks], [...this.freeGigas]];
    return { chunks, nextChunk, nextSmall, lowGiga, freeSmall, freeChunks, freeGigas };
  }

  load(state: FramesState): void {
    this.chunks.fill(null);
    for (const [index, chunk] of state.chunks) this.row(index >>> 9)[index & 511] = copyChunk(chunk);
    this.nextChunk = state.nextChunk;
    this.nextSmall = state.nextSmall;
    this.lowGiga = state.lowGiga;
    this.freeSmall = [...state.freeSmall];
    this.freeChunks = [...state.freeChunks];
    this.freeGigas = [...state.freeGigas];
  }

  // ---- chunks

  private chunkAt(pfn: number): Chunk | null {
    const row = this.chunks[pfn >>> 18];
    return row ? (row[(pfn >>> 9) & 511] ?? null) : null;
  }

  private known(pfn: number): Chunk {
    const chunk = this.chunkAt(pfn);
    if (chunk === null || pfn <= ZERO_PFN) throw new Error(`frame ${pfn} is not one that is counted`);
    return chunk;
  }

  private row(giga: number): (Chunk | null)[] {
    let row = this.chunks[giga];
    if (!row) {
      row = new Array(512).fill(null);
      this.chunks[giga] = row;
    }
    return row;
  }

  private addChunk(index: number, kind: number): Chunk {
    const small = kind === CHUNK_SMALL;
    const smallRefs = small ? new Uint8Array(CHUNK_FRAMES) : null;
    const smallLru = small ? new Uint8Array(CHUNK_FRAMES) : null;
    const chunk: Chunk = { kind, refs: 0, lru: 0, smallRefs, smallLru, pages: null };
    this.row(index >>> 9)[index & 511] = chunk;
    return chunk;
  }

  private dropChunk(index: number): void {
    this.row(index >>> 9)[index & 511] = null;
  }

  private freshChunk(): number {
    if (this.nextChunk >= this.lowGiga * 512) throw new Error('host frames exhausted');
    return this.nextChunk++;
  }

  private freshSmall(): number {
    if ((this.nextSmall & 511) === 0) {
      const index = this.freeChunks.pop() ?? this.freshChunk();
      this.addChunk(index, CHUNK_SMALL);
      this.nextSmall = index * CHUNK_FRAMES;
    }
    return this.nextSmall++;
  }

  private makePage(pfn: number): Int32Array {
    if (pfn <= ZERO_PFN) throw new Error('INVARIANT zero: write to a zero page');
    if (pfn >>> 18 < this.lowGiga && !this.isCounted(pfn))
      throw new Error(`INVARIANT refs: write to free frame ${pfn}`);
    const chunk = this.chunkAt(pfn) ?? this.addChunk(pfn >>> 9, CHUNK_PART);
    if (chunk.pages === null) chunk.pages = new Array(CHUNK_FRAMES).fill(null);
    const index = pfn & 511;
    let page = chunk.pages[index];
    if (!page) {
      page = new Int32Array(WORDS);
      chunk.pages[index] = page;
    }
    return page;
  }
}

function copyChunk(chunk: Chunk): Chunk {
  const { kind, refs, lru, smallRefs, smallLru, pages } = chunk;
  return {
    kind,
    refs,
    lru,
    smallRefs: smallRefs && smallRefs.slice(),
    smallLru: smallLru && smallLru.slice(),
    pages: pages && pages.map((page) => page && page.slice()),
  };
}
