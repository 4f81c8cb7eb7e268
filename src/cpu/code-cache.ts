/**
 * Decoded records, by page of memory and mode. A map has a record for each offset that was decoded; records of a run lie
 * one behind the other, and each offset has at most one.
 *
 * A page with records is a *code page*: its write tags are withheld, and a write makes all its records stale. They stay
 * where they are until the whole cache is dropped, so the one that is executing can finish; its successors look their
 * address up again.
 *
 * The CPUs of a machine share one cache: what one decodes the others needn't, and what one writes is stale for all.
 */
import { type Decoder, DECODE_MODES as MODES, NEED_MORE, TOO_LONG } from './decoder.ts';
import { H_CHAIN, H_CHAIN_LINK, H_GUARD, H_HELPER, H_STALE, H_STOP } from './forms.ts';
import { R_HANDLER, R_IMMEDIATE, R_LINK, R_NEXT, R_OFFSET, R_SUB, RECORD_BYTES } from './record.ts';
import { type Layout, MAP_BYTES, MAP_GENERATION } from './state.ts';

const LONGEST_RUN = 64;

export class CodeCache {
  readonly #layout: Layout;
  readonly #decoder: Decoder;
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;
  readonly #halves: Uint16Array;
  /** Address of the map of a page in a mode, by page and mode. */
  readonly #maps: Int32Array;
  readonly #owners: Int32Array;
  readonly #hasCode: Uint8Array;
  readonly #tooLongHelper: number;
  readonly #listeners: ((host: number, has: boolean) => void)[] = [];
  readonly #copy = new Uint8Array(32);
  /**
   * The beginning of a no-op of 8 bytes by which a guest marks where it is; its last byte says which mark. Generated code is left
   * before it. Null: nobody asks. One that crosses pages isn't noticed.
   */
  marker: Uint8Array | null = null;
  /** Addresses in memory of instructions that generated code is left before. */
  readonly #stops = new Set<number>();
  #mapCount = 0;
  #next: number;
  #generation = 1;
  /** Counts how often everything was dropped, or stops were. */
  drops = 0;
  /** Instructions decoded. */
  decoded = 0;

  constructor(buffer: ArrayBuffer, layout: Layout, decoder: Decoder, tooLongHelper: number) {
    this.#layout = layout;
    this.#decoder = decoder;
    this.#bytes = new Uint8Array(buffer);
    this.#words = new Int32Array(buffer);
    this.#halves = new Uint16Array(buffer);
    const pages = Math.ceil(buffer.byteLength / 4096);
    this.#maps = new Int32Array(pages * MODES);
    this.#owners = new Int32Array(layout.mapCount);
    this.#hasCode = new Uint8Array(pages);
    this.#next = layout.records;
    this.#tooLongHelper = tooLongHelper;
  }

  /** `changed` is called when a page becomes a code page, or no longer is one. */
  onChange(changed: (host: number, has: boolean) => void): void {
    this.#listeners.push(changed);
  }

  #changed(host: number, has: boolean): void {
    for (const changed of this.#listeners) changed(host, has);
  }

  isCode(host: number): boolean {
    return this.#hasCode[host >>> 12] !== 0;
  }

  /** The map of a page, made if need be. May drop everything. */
  mapOf(host: number, mode: number): number {
    const key = (host >>> 12) * MODES + mode;
    if (this.#maps[key] !== 0) return this.#maps[key];
    if (this.#mapCount === this.#layout.mapCount) this.drop();
    const map = this.#layout.maps + this.#mapCount * MAP_BYTES;
    this.#owners[this.#mapCount++] = key;
    this.#words.fill(0, map >>> 2, (map + MAP_BYTES) >>> 2);
    this.#words[(map + MAP_GENERATION) >>> 2] = this.#generation++;
    this.#maps[key] = map;
    return map;
  }

  generation(map: number): number {
    return this.#words[(map + MAP_GENERATION) >>> 2];
  }

  /** The record at an offset, or 0. */
  record(map: number, offset: number): number {
    return this.#words[(map >>> 2) + offset];
  }

  forget(map: number, offset: number): void {
    this.#words[(map >>> 2) + offset] = 0;
  }

  /** Room for a run; false when everything had to be dropped, maps too. */
  reserve(): boolean {
    if (this.#next + (LONGEST_RUN + 4) * RECORD_BYTES <= this.#layout.recordsEnd) return true;
    this.drop();
    return false;
  }

  /**
   * Decodes a run that begins at `offset` of the page of `map`. The first record, or 0 when the first instruction crosses
   * into the next page. Room must have been reserved.
   */
  decodeRun(map: number, host: number, mode: number, offset: number): number {
    const decoder = this.#decoder;
    const page = host & ~4095;
    const first = this.#next;
    let record = first;
    let at = offset;
    for (let count = 0; ; count++) {
      if (at >= 4096) {
        this.#special(record, H_CHAIN, at);
        break;
      }
      const known = this.#words[(map >>> 2) + at];
      if (known !== 0 || count === LONGEST_RUN) {
        this.#special(record, H_CHAIN_LINK, at, known);
        break;
      }
      const mark = this.marker === null ? 0 : this.#markAt(this.marker, page, at);
      if (mark !== 0 || (this.#stops.size !== 0 && this.#stops.has(page + at))) {
        this.stop(record, at);
        this.#words[(record + R_IMMEDIATE) >>> 2] = mark;
        this.#words[(map >>> 2) + at] = record;
        break;
      }
      const length = decoder.decode(this.#bytes, page + at, page + 4096, mode, record, at);
      if (length === NEED_MORE) {
        if (count === 0) return 0;
        this.#special(record, H_CHAIN, at);
        break;
      }
      this.decoded++;
      this.#words[(map >>> 2) + at] = record;
      if (length === TOO_LONG) {
        this.#special(record, H_HELPER, at);
        this.#halves[(record + R_SUB) >>> 1] = this.#tooLongHelper;
        record += RECORD_BYTES;
        break;
      }
      const row = decoder.row;
      if (row?.jump && decoder.target >= 0 && decoder.target < 4096) {
        this.#words[(record + R_LINK) >>> 2] = this.#words[(map >>> 2) + decoder.target];
      }
      record += RECORD_BYTES;
      at += length;
      if (row === null || row.end) {
        // A function of TypeScript can also go on behind its instruction.
        if (row !== null && row.function) this.#special(record, H_CHAIN, at);
        else record -= RECORD_BYTES;
        break;
      }
    }
    this.#next = record + RECORD_BYTES;
    this.#markCode(page);
    return first;
  }

  /** Decodes one instruction whose second part lies in the page at `nextHost`, behind a guard. */
  decodeCrossing(map: number, host: number, nextHost: number, mode: number, offset: number): number {
    const page = host & ~4095;
    const here = 4096 - offset;
    this.#copy.set(this.#bytes.subarray(page + offset, page + 4096));
    const next = nextHost & ~4095;
    this.#copy.set(this.#bytes.subarray(next, next + 32 - here), here);
    const nextMap = this.mapOf(next, mode);
    const guard = this.#next;
    const record = guard + RECORD_BYTES;
    this.#special(guard, H_GUARD, offset);
    this.#words[(guard + R_IMMEDIATE) >>> 2] = this.generation(nextMap);
    this.decodeOne(this.#copy, mode, record, offset);
    const after = this.#halves[(record + R_NEXT) >>> 1];
    this.#special(record + RECORD_BYTES, H_CHAIN, after);
    this.#next = record + 2 * RECORD_BYTES;
    this.#words[(map >>> 2) + offset] = guard;
    this.#markCode(page);
    this.#markCode(next);
    return guard;
  }

  /** One instruction from a copy of its bytes into any record. */
  decodeOne(bytes: Uint8Array, mode: number, record: number, offset: number): void {
    this.decoded++;
    const length = this.#decoder.decode(bytes, 0, bytes.length, mode, record, offset);
    if (length === TOO_LONG) {
      this.#special(record, H_HELPER, offset);
      this.#halves[(record + R_SUB) >>> 1] = this.#tooLongHelper;
    }
  }

  /** A copy of up to 16 bytes at `offset`, going on in the page at `nextHost` (or in zeros, if that is 0). */
  bytesAt(host: number, nextHost: number, offset: number): Uint8Array {
    const page = host & ~4095;
    const here = Math.min(16, 4096 - offset);
    this.#copy.fill(0);
    this.#copy.set(this.#bytes.subarray(page + offset, page + offset + here));
    if (here < 16 && nextHost)
      this.#copy.set(this.#bytes.subarray(nextHost & ~4095, (nextHost & ~4095) + 16 - here), here);
    return this.#copy;
  }

  /** Turns a record into one that isn't an instruction. */
  #special(record: number, handler: number, offset: number, link = 0): void {
    this.#halves[(record + R_HANDLER) >>> 1] = handler;
    this.#halves[(record + R_OFFSET) >>> 1] = offset;
    this.#halves[(record + R_NEXT) >>> 1] = offset;
    this.#words[(record + R_LINK) >>> 2] = link;
  }

  /** Generated code is left before the instruction at this address: there may be a breakpoint. */
  stopAt(address: number): void {
    if (this.#stops.has(address)) return;
    this.#stops.add(address);
    this.invalidate(address);
  }

  /** Breakpoints have changed: every CPU looks for its own again, as it flushes its fetch TLB. */
  clearStops(): void {
    if (this.#stops.size === 0) return;
    for (const address of this.#stops) this.invalidate(address);
    this.#stops.clear();
    this.drops++;
  }

  #markAt(marker: Uint8Array, page: number, at: number): number {
    if (at + marker.length >= 4096) return 0;
    for (let i = 0; i < marker.length; i++) if (this.#bytes[page + at + i] !== marker[i]) return 0;
    return this.#bytes[page + at + marker.length];
  }

  /** Of a stop: the guest's mark, or 0. */
  markOf(stop: number): number {
    return this.#words[(stop + R_IMMEDIATE) >>> 2];
  }

  isStop(record: number): boolean {
    return this.#halves[(record + R_HANDLER) >>> 1] === H_STOP;
  }

  /** Leaves the generated code: for a single step, or a breakpoint. */
  stop(record: number, offset: number): void {
    this.#special(record, H_STOP, offset);
  }

  #markCode(page: number): void {
    if (this.#hasCode[page >>> 12]) return;
    this.#hasCode[page >>> 12] = 1;
    this.#changed(page, true);
  }

  /** Someone writes to the page: its records are stale. */
  invalidate(host: number): void {
    const page = host >>> 12;
    if (!this.#hasCode[page]) return;
    this.#hasCode[page] = 0;
    for (let mode = 0; mode < MODES; mode++) {
      const map = this.#maps[page * MODES + mode];
      if (map !== 0) this.#makeStale(map);
    }
    this.#changed(host & ~4095, false);
  }

  #makeStale(map: number): void {
    const start = map >>> 2;
    for (let i = start; i < start + 4096; i++) {
      const record = this.#words[i];
      if (record !== 0) this.#halves[(record + R_HANDLER) >>> 1] = H_STALE;
    }
    this.#words.fill(0, start, start + 4096);
    this.#words[(map + MAP_GENERATION) >>> 2] = this.#generation++;
  }

  /** Forgets all records and maps. Every CPU flushes its fetch TLB: it sees `drops` change. */
  drop(): void {
    this.drops++;
    for (let i = 0; i < this.#mapCount; i++) {
      const key = this.#owners[i];
      const page = Math.floor(key / MODES);
      this.#maps[key] = 0;
      if (this.#hasCode[page]) {
        this.#hasCode[page] = 0;
        this.#changed(page << 12, false);
      }
    }
    this.#mapCount = 0;
    this.#next = this.#layout.records;
  }
}
