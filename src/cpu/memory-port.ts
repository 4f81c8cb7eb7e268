/**
 * Accesses to memory that the TLB doesn't serve at once, and those of TypeScript instructions. Everything ends in one
 * question to the bus.
 *
 * Generated code gets an address to load from or to store to. When there is none (devices, two pages at once) it gets that
 * of a scratch place: a load finds its value there, and what was stored is taken on by `commit`. A store has been found
 * possible by then, so nothing can fault any more.
 */
import { isCanonical, PAGING_4LEVEL, PAGING_5LEVEL, pagingMode } from '../arch/paging-mode.ts';
import { Breakpoints } from './breakpoints.ts';
import {
  ACCESS_IMPLICIT,
  ACCESS_USER,
  ACCESS_WRITE,
  type Bus,
  RIGHT_READ,
  RIGHT_WRITE,
  TRANSLATE_EXIT,
  TRANSLATE_FAULT,
  TRANSLATE_MMIO,
  type Translation,
} from './bus.ts';
import type { CodeCache } from './code-cache.ts';
import type { CpuState } from './cpu-state.ts';
import { SLOW_MODIFY, SLOW_STACK, SLOW_WRITE } from './handler-contract.ts';
import { META_MEMORY, META_STACK, R_META } from './record.ts';
import { segmentAllows } from './segments.ts';
import {
  ALIGNED_SET,
  CHECKED,
  CHECKED_SEGMENT_SHIFT,
  CPL,
  CR0,
  CR2,
  CR4,
  EFER,
  FLAGS,
  HIDDEN_BASE,
  SCRATCH_LOAD,
  SCRATCH_STORE,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENT_LIMIT,
  SEGMENTS,
  SS,
} from './state.ts';
import type { SoftTlb } from './tlb.ts';

const VECTOR_SS = 12;
const VECTOR_GP = 13;
const VECTOR_PF = 14;
const VECTOR_AC = 17;
const CR0_AM = 1 << 18;
const SMAP = 1 << 21;
const AC = 1 << 18;

const CHECKED_SEGMENTS = 7 << CHECKED_SEGMENT_SHIFT;

const NOT_MAPPED = 0;

/** One page's share of an access that went to the scratch place. */
interface Part {
  host: number;
  gpaLo: number;
  gpaHi: number;
  bytes: number;
  at: number;
}

const newPart = (): Part => ({ host: 0, gpaLo: 0, gpaHi: 0, bytes: 0, at: 0 });

export class MemoryPort {
  readonly #state: CpuState;
  readonly #tlb: SoftTlb;
  readonly #code: CodeCache;
  readonly #bus: Bus;
  readonly translation: Translation = { bytes: 0, host: 0, rights: 0, errorCode: 0, gpaLo: 0, gpaHi: 0 };
  readonly #parts = [newPart(), newPart()];
  #partCount = 0;
  /** The bus asked for the end of the run. */
  exitRequested = false;
  /** The reason is that code lies in a device. */
  fetchedFromDevice = false;
  readonly breakpoints = new Breakpoints();
  /** Breakpoints on data that were hit, as bits of DR6, while `notesHits`: during a single step, or a delivery. */
  hits = 0;
  notesHits = false;
  /** The next instruction hits a breakpoint on data: it has to be a single step. */
  stepNext = false;
  /** An event is being delivered: its accesses are the CPU's, no instruction's. */
  delivering = false;
  /** Accesses of instructions by `load` and `store`. */
  loads = 0;
  stores = 0;
  /** What the last `load` found: low and high word. */
  lo = 0;
  hi = 0;

  constructor(state: CpuState, tlb: SoftTlb, code: CodeCache, bus: Bus) {
    this.#state = state;
    this.#tlb = tlb;
    this.#code = code;
    this.#bus = bus;
  }

  /** The set of the data TLB that the CPU's own accesses use now. */
  get dataSet(): number {
    const s = this.#state;
    if (s.get(CPL) === 3) return s.get(FLAGS) & AC && s.get(CR0) & CR0_AM ? ALIGNED_SET : 1;
    return s.get(CR4) & SMAP && s.get(FLAGS) & AC ? 2 : 0;
  }

  /** The CPU knows five levels. */
  la57 = false;

  isCanonical(hi: number): boolean {
    return isCanonical(this.#mode(), hi);
  }

  /** Of an address that a register is loaded with (bases, MSRs, INVPCID): what counts is what the CPU knows, not the mode. */
  mayBeCanonical(hi: number): boolean {
    return isCanonical(this.la57 ? PAGING_5LEVEL : PAGING_4LEVEL, hi);
  }

  #mode(): number {
    const s = this.#state;
    return pagingMode(s.get(CR0), s.get(CR4), s.get(EFER));
  }

  /** See `Environment.slow`. */
  slow(record: number, lo: number, hi: number, how: number): number {
    const meta = this.#state.bytes[record + R_META];
    const stack = (how & SLOW_STACK) !== 0 || ((meta & META_MEMORY) !== 0 && (meta & META_STACK) !== 0);
    const access = (this.#state.get(CPL) === 3 ? ACCESS_USER : 0) | (how & SLOW_WRITE ? ACCESS_WRITE : 0);
    return this.access(lo, hi, how & 0xff, access, (how & SLOW_MODIFY) !== 0, stack);
  }

  /** An address for the access, perhaps that of the scratch place; 0 after an exception or a request to leave. */
  access(lo: number, hi: number, bytes: number, access: number, modify: boolean, stack: boolean): number {
    const write = (access & ACCESS_WRITE) !== 0;
    if (hi < 0 && (hi & ~CHECKED_SEGMENTS) === CHECKED && !this.#state.code64) {
      if (!this.#segmentAllows(lo, hi, bytes, write)) return NOT_MAPPED;
      return this.access(lo, 0, bytes, access, modify, stack);
    }
    if (this.breakpoints.hasData && !(access & ACCESS_IMPLICIT) && !this.#watched(lo, hi, bytes, write)) {
      return NOT_MAPPED;
    }
    const cached = (access & ACCESS_IMPLICIT) === 0 && ((access & ACCESS_USER) !== 0) === (this.#state.get(CPL) === 3);
    const offset = lo & 4095;
    const first = Math.min(bytes, 4096 - offset);
    if (!this.isCanonical(hi)) return this.#refuse(stack);
    if (access & ACCESS_USER && this.#misaligned(lo, bytes)) {
      this.#state.raise(VECTOR_AC, 0);
      return NOT_MAPPED;
    }
    if (first === bytes) {
      const host = cached ? this.#tlb.lookup(this.dataSet, lo, hi, write) : 0;
      if (host !== 0) return host;
    }
    if (!this.#part(this.#parts[0], lo, hi, access, first, 0)) return NOT_MAPPED;
    if (first === bytes && this.#parts[0].host !== 0) return this.#parts[0].host;
    this.#partCount = 1;
    if (first < bytes) {
      const nextLo = (lo + first) | 0;
      const nextHi = nextLo === 0 && this.#state.longMode ? (hi + 1) | 0 : hi;
      if (!this.isCanonical(nextHi)) return this.#refuse(stack);
      if (!this.#part(this.#parts[1], nextLo, nextHi, access, bytes - first, first)) return NOT_MAPPED;
      this.#partCount = 2;
    }
    if (!write || modify) this.#gather(write ? SCRATCH_STORE : SCRATCH_LOAD);
    return this.#state.layout.state + (write ? SCRATCH_STORE : SCRATCH_LOAD);
  }

  /** Notes a hit of a breakpoint; false: the instruction is to be done again, as a single step, which ends in a trap. */
  #watched(lo: number, hi: number, bytes: number, write: boolean): boolean {
    const bits = this.breakpoints.atData(lo, hi, bytes, write);
    if (bits === 0) return true;
    if (this.notesHits) this.hits |= bits;
    else this.stepNext = true;
    return this.notesHits;
  }

  /** The checks of an address that came with CHECKED. */
  #segmentAllows(lo: number, hi: number, bytes: number, write: boolean): boolean {
    const s = this.#state;
    const index = (hi >>> CHECKED_SEGMENT_SHIFT) & 7;
    const at = SEGMENTS + index * SEGMENT_BYTES;
    const offset = (lo - s.get(HIDDEN_BASE + index * 8)) | 0;
    const attributes = s.get(at + SEGMENT_ATTRIBUTES);
    if (segmentAllows(attributes, s.get(at + SEGMENT_LIMIT), !s.realSegments, offset, bytes, write)) return true;
    s.raise(index === SS ? VECTOR_SS : VECTOR_GP, 0);
    return false;
  }

  /** Alignment is checked in ring 3 only, and then its accesses are never served by the software TLB. */
  #misaligned(lo: number, bytes: number): boolean {
    if (this.dataSet !== ALIGNED_SET) return false;
    return (lo & ((bytes & -bytes) - 1)) !== 0;
  }

  #refuse(stack: boolean): number {
    this.#state.raise(stack ? VECTOR_SS : VECTOR_GP, 0);
    return NOT_MAPPED;
  }

  /** Translates one page's share. */
  #part(part: Part, lo: number, hi: number, access: number, bytes: number, at: number): boolean {
    const t = this.translation;
    t.bytes = bytes;
    const status = this.#bus.translate(lo, hi, access, t);
    part.bytes = bytes;
    part.at = at;
    part.host = 0;
    if (status === TRANSLATE_FAULT) {
      this.#state.setPair(CR2, lo, hi);
      this.#state.raise(VECTOR_PF, t.errorCode);
      return false;
    }
    if (status === TRANSLATE_EXIT) {
      this.exitRequested = true;
      return false;
    }
    if (status === TRANSLATE_MMIO) {
      part.gpaLo = t.gpaLo | (lo & 4095);
      part.gpaHi = t.gpaHi;
      return true;
    }
    const page = t.host & ~4095;
    if (access & ACCESS_WRITE) this.#code.invalidate(page);
    part.host = (page | (lo & 4095)) >>> 0;
    if (!(access & ACCESS_IMPLICIT) && ((access & ACCESS_USER) !== 0) === (this.#state.get(CPL) === 3)) {
      const rights = this.#code.isCode(page) ? t.rights & ~RIGHT_WRITE : t.rights;
      const watched = this.breakpoints.hasData && this.breakpoints.watchesPage(lo, hi);
      if (rights & (RIGHT_READ | RIGHT_WRITE) && this.dataSet !== ALIGNED_SET && !watched)
        this.#tlb.fill(this.dataSet, lo, hi, page, rights);
    }
    return true;
  }

  /** Reads the parts into a scratch place. */
  #gather(scratch: number): void {
    const { bytes, view, layout } = this.#state;
    const to = layout.state + scratch;
    for (let i = 0; i < this.#partCount; i++) {
      const part = this.#parts[i];
      if (part.host) {
        bytes.copyWithin(to + part.at, part.host, part.host + part.bytes);
      } else {
        for (let done = 0; done < part.bytes; ) {
          const size = naturalSize(part.bytes - done);
          const value = this.#bus.mmioRead((part.gpaLo + done) | 0, part.gpaHi, size);
          view.setBigUint64(to + 16, BigInt.asUintN(64, value), true);
          bytes.copyWithin(to + part.at + done, to + 16, to + 16 + size);
          done += size;
        }
      }
    }
  }

  /** Takes what was stored in the scratch place to where it belongs. */
  commit(): number {
    const { bytes, view, layout } = this.#state;
    const from = layout.state + SCRATCH_STORE;
    for (let i = 0; i < this.#partCount; i++) {
      const part = this.#parts[i];
      if (part.host) {
        bytes.copyWithin(part.host, from + part.at, from + part.at + part.bytes);
        continue;
      }
      for (let done = 0; done < part.bytes; ) {
        const size = naturalSize(part.bytes - done);
        bytes.fill(0, from + 16, from + 24);
        bytes.copyWithin(from + 16, from + part.at + done, from + part.at + done + size);
        this.#bus.mmioWrite((part.gpaLo + done) | 0, part.gpaHi, size, view.getBigUint64(from + 16, true));
        done += size;
      }
    }
    return 1;
  }

  /** As `load`, at a small distance from an address. */
  loadAt(lo: number, hi: number, distance: number, bytes: number, access: number, stack = false): boolean {
    const at = (lo + distance) | 0;
    return this.load(at, carryInto(lo, hi, distance), bytes, access, stack);
  }

  /** Loads 1 to 8 bytes into `lo` and `hi`; false after an exception. `access`: ACCESS_USER or _IMPLICIT or neither. */
  load(lo: number, hi: number, bytes: number, access: number, stack = false): boolean {
    const host = this.access(lo, hi, bytes, access, false, stack);
    if (host === 0) return false;
    if (!this.delivering) this.loads++;
    const view = this.#state.view;
    this.hi = 0;
    if (bytes === 1) this.lo = view.getUint8(host);
    else if (bytes === 2) this.lo = view.getUint16(host, true);
    else this.lo = view.getInt32(host, true);
    if (bytes === 8) this.hi = view.getInt32(host + 4, true);
    return true;
  }

  store(lo: number, hi: number, bytes: number, access: number, valueLo: number, valueHi = 0, stack = false): boolean {
    const host = this.access(lo, hi, bytes, access | ACCESS_WRITE, false, stack);
    if (host === 0) return false;
    if (!this.delivering) this.stores++;
    const view = this.#state.view;
    if (bytes === 1) view.setUint8(host, valueLo);
    else if (bytes === 2) view.setUint16(host, valueLo, true);
    else view.setInt32(host, valueLo, true);
    if (bytes === 8) view.setInt32(host + 4, valueHi, true);
    this.finish(host);
    return true;
  }

  /** After a store to an address that `access` gave. */
  finish(host: number): void {
    if (host === this.#state.layout.state + SCRATCH_STORE) this.commit();
  }
}

/** High word of `(lo, hi) + distance`, a distance of less than 2^31 in size. */
export function carryInto(lo: number, hi: number, distance: number): number {
  const sum = (lo >>> 0) + distance;
  return sum < 0 ? (hi - 1) | 0 : sum >= 4294967296 ? (hi + 1) | 0 : hi;
}

/** Devices see accesses of 1, 2, 4 or 8 bytes. */
function naturalSize(bytes: number): number {
  return bytes >= 8 ? 8 : bytes >= 4 ? 4 : bytes >= 2 ? 2 : 1;
}
