/** From a linear address to its record: by the fetch TLB, by the code cache, or by decoding. */
import {
  ACCESS_FETCH,
  ACCESS_USER,
  type Bus,
  RIGHT_FETCH,
  TRANSLATE_EXIT,
  TRANSLATE_FAULT,
  TRANSLATE_OK,
} from './bus.ts';
import type { CodeCache } from './code-cache.ts';
import type { CpuState } from './cpu-state.ts';
import { H_CHAIN_LINK } from './forms.ts';
import type { MemoryPort } from './memory-port.ts';
import { R_HANDLER, R_IMMEDIATE, R_LINK, R_NEXT, R_OFFSET } from './record.ts';
import { CODE_MASK, CPL, CR2, LINEAR_RIP, RIP_PAGE } from './state.ts';
import type { SoftTlb } from './tlb.ts';

const VECTOR_GP = 13;
const VECTOR_PF = 14;

export class CodeFinder {
  readonly #state: CpuState;
  readonly #memory: MemoryPort;
  readonly #tlb: SoftTlb;
  readonly #code: CodeCache;
  readonly #bus: Bus;
  /** The records from here on are for single steps: they are used for other instructions later. */
  readonly #stepRecord: number;
  /** Mode that instructions are decoded in; see `decoder.ts`. */
  mode = 0;

  constructor(state: CpuState, memory: MemoryPort, tlb: SoftTlb, code: CodeCache, bus: Bus, stepRecord: number) {
    this.#state = state;
    this.#memory = memory;
    this.#tlb = tlb;
    this.#code = code;
    this.#bus = bus;
    this.#stepRecord = stepRecord;
  }

  get #set(): number {
    return this.#state.get(CPL) === 3 ? 1 : 0;
  }

  /** Host page for a fetch, or -1 after an exception or a request to leave. */
  fetchPage(lo: number, hi: number): number {
    const state = this.#state;
    const memory = this.#memory;
    if (!memory.isCanonical(hi)) {
      state.raise(VECTOR_GP, 0);
      return -1;
    }
    const t = memory.translation;
    t.bytes = 1;
    const status = this.#bus.translate(lo, hi, ACCESS_FETCH | (state.get(CPL) === 3 ? ACCESS_USER : 0), t);
    if (status === TRANSLATE_OK) {
      const page = t.host & ~4095;
      if (memory.breakpoints.hasCode) this.#markStops(lo, hi, page);
      return page;
    }
    if (status === TRANSLATE_FAULT) {
      state.setPair(CR2, lo, hi);
      state.raise(VECTOR_PF, t.errorCode);
    } else {
      memory.exitRequested = true;
      memory.fetchedFromDevice = status !== TRANSLATE_EXIT;
    }
    return -1;
  }

  /** As soon as the CPU uses the page: records that come from here on know of its breakpoints. */
  #markStops(lo: number, hi: number, page: number): void {
    for (const offset of this.#memory.breakpoints.codeOffsets(lo, hi)) this.#code.stopAt((page | offset) >>> 0);
  }

  /** The record at a linear address; 0 after an exception or a request to leave, LINEAR_RIP being set. */
  find(lo: number, hi: number): number {
    const set = this.#set;
    const offset = lo & 4095;
    let map = this.#tlb.lookupFetch(set, lo, hi);
    if (map !== 0) {
      const known = this.#code.record(map, offset);
      if (known !== 0) return known;
    }
    this.#state.setPair(LINEAR_RIP, lo, hi);
    const host = this.fetchPage(lo, hi);
    if (host < 0) return 0;
    const cached = (this.#memory.translation.rights & RIGHT_FETCH) !== 0;
    const drops = this.#code.drops;
    this.#code.reserve();
    map = this.#code.mapOf(host, this.mode);
    if (this.#code.drops !== drops) this.#tlb.flushFetches();
    if (cached) this.#tlb.fillFetch(set, lo, hi, map);
    const known = this.#code.record(map, offset);
    if (known !== 0) return known;
    const record = this.#code.decodeRun(map, host, this.mode, offset);
    return record !== 0 ? record : this.#findCrossing(map, host, lo, hi, drops);
  }

  /** The instruction at `lo`, `hi` ends in the next page. */
  #findCrossing(map: number, host: number, lo: number, hi: number, drops: number): number {
    const nextLo = ((lo & ~4095) + 4096) | 0;
    const nextHi = this.#highBehind(nextLo, hi);
    const nextHost = this.fetchPage(nextLo, nextHi);
    if (nextHost < 0) return 0;
    const nextMap = this.#code.mapOf(nextHost, this.mode);
    if (this.#code.drops !== drops) {
      // Making the second map dropped the first.
      this.#tlb.flushFetches();
      return this.find(lo, hi);
    }
    if (this.#memory.translation.rights & RIGHT_FETCH) this.#tlb.fillFetch(this.#set, nextLo, nextHi, nextMap);
    return this.#code.decodeCrossing(map, host, nextHost, this.mode, lo & 4095);
  }

  /** The high word of the address of the page behind one: 32-bit code goes on at 0 behind 4 GiB, with and without long mode. */
  #highBehind(nextLo: number, hi: number): number {
    return nextLo === 0 ? (hi + 1) & this.#state.high(CODE_MASK) : hi;
  }

  /** See `Environment.link`. */
  link(record: number): number {
    const state = this.#state;
    const { view } = state;
    const chain = view.getUint16(record + R_HANDLER, true) === H_CHAIN_LINK;
    const offset = chain ? view.getUint16(record + R_OFFSET, true) : view.getInt32(record + R_IMMEDIATE, true);
    const drops = this.#code.drops;
    const found = this.find(state.get(RIP_PAGE) | offset, state.high(RIP_PAGE));
    if (found !== 0 && this.#code.drops === drops && record < this.#stepRecord) {
      view.setInt32(record + R_LINK, found, true);
    }
    return found;
  }

  /** See `Environment.guard`. */
  guard(record: number): number {
    const state = this.#state;
    const offset = state.view.getUint16(record + R_OFFSET, true);
    const lo = state.get(RIP_PAGE) | offset;
    const hi = state.high(RIP_PAGE);
    const map = this.#tlb.lookupFetch(this.#set, lo, hi);
    if (map !== 0) this.#code.forget(map, offset);
    return this.find(lo, hi);
  }

  /** Decodes the instruction at a linear address into the step record, a stop behind it; false after an exception. */
  prepareStep(lo: number, hi: number): boolean {
    const host = this.fetchPage(lo, hi);
    if (host < 0) return false;
    const { view } = this.#state;
    const offset = lo & 4095;
    const record = this.#stepRecord;
    let nextHost = 0;
    for (;;) {
      const bytes = this.#code.bytesAt(host, nextHost, offset);
      this.#code.decodeOne(bytes, this.mode, record, offset);
      if (nextHost !== 0 || view.getUint16(record + R_NEXT, true) <= 4096) return true;
      const page = ((lo & ~4095) + 4096) | 0;
      nextHost = this.fetchPage(page, this.#highBehind(page, hi));
      if (nextHost < 0) return false;
    }
  }
}
