/**
 * The TLB: translations that the CPU found by walking, kept until they are flushed or replaced.
 *
 *     set-associative, one bank for each page size           an entry: six words
 *      bank 4K  64 sets x 8 ways                             0  generation; valid if it is the TLB's
 *      bank 2M  16 x 8                                       1  space: ASID << 12 | PCID
 *      bank 1G   2 x 8                                       2  address, low word, aligned to the page
 *                                                            3  address, high word
 *      hints    1024: where the last search              4  pfn of the page's first frame
 *               for such an address ended                5  attr, see rights.ts
 *
 * A search looks at the smaller pages first, and at the ways of a set in order. Hints save it nearly always: 8 ns a hit in
 * place of 18 (npm run bench -- TLB). INVARIANT tlb-hint: an entry that matches where the hint of its address points is the
 * one that the search would find. So a 4K entry takes the hint when it is filled, as it goes before larger ones; one of 1G
 * never has it, since its hint could be that of another page of it; and a larger global one, which may come to stand
 * before others that match, takes all.
 *
 * INVARIANT tlb-rights: a cached translation serves an access only if its attributes and the control bits of the moment
 *   allow it. If they don't, that is a miss: the CPU walks again before it faults. So a translation that gained rights
 *   needs no flush, and one that lost rights does.
 * INVARIANT tlb-dirty: no write is served by an entry that was cached with D clear; the walk is what sets D.
 *
 * A global entry (ATTR_G) serves every PCID of its ASID. ASIDs are 0 to 2^19 - 1, PCIDs 0 to 4095. An address is 57 bits
 * or fewer; outside long mode its high word is 0.
 */
import { ATTR_G, ATTR_PAGE_SHIFT, ATTR_PAGE_SHIFT_AT, cachedRightsSuffice } from './rights.ts';

/** For flushes: whatever the PCID (AMD's INVLPGA names only an ASID). */
export const ANY_PCID = -1;

/** Which translations an access or a flush means: address space and process context in one word. */
export function tlbSpace(asid: number, pcid: number): number {
  return (asid << 12) | pcid;
}

/** What the vCPU needs of a TLB; see SetAssociativeTlb for the contract of each method. */
export interface Tlb {
  pfn: number;
  level: number;
  attr: number;
  hits: number;
  misses: number;
  fills: number;
  evictions: number;
  /** Flushes of any kind so far: what else is cached of translations goes with them. */
  flushes: number;
  lookup(space: number, lo: number, hi: number, access: number, controls: number, pkru: number): boolean;
  insert(space: number, lo: number, hi: number, pfn: number, level: number, attr: number): void;
  flushAll(): void;
  flushAsid(asid: number): void;
  flushNonGlobal(asid: number): void;
  flushPcid(asid: number, pcid: number): void;
  flushGva(asid: number, pcid: number, lo: number, hi: number): void;
  flushSingle(asid: number, pcid: number, lo: number, hi: number): void;
  /** Entries that could serve an access. For tests and tools; takes time. */
  count(): number;
}

const ENTRY_WORDS = 6;
const WAYS = 8;
const SET_WORDS = ENTRY_WORDS * WAYS;
const SETS_4K = 64;
const SETS_2M = 16;
const SETS_1G = 2;
const BANK_2M = SETS_4K * SET_WORDS;
const BANK_1G = BANK_2M + SETS_2M * SET_WORDS;
const WORDS = BANK_1G + SETS_1G * SET_WORDS;
const HINTS = 1024;

export class SetAssociativeTlb implements Tlb {
  /** Frame of the accessed 4 KiB page, level of the entry (1-3) and its attributes. Valid after a hit. */
  pfn = 0;
  level = 0;
  attr = 0;
  hits = 0;
  misses = 0;
  fills = 0;
  evictions = 0;
  flushes = 0;

  private readonly words = new Int32Array(WORDS);
  /** By the low bits of the page number: an entry of the 4K or 2M bank. */
  private readonly hints = new Uint16Array(HINTS);
  /** The way of each set that is replaced next. */
  private readonly victims = new Uint8Array(WORDS / SET_WORDS);
  private generation = 1;
  /** Was anything filled since the last full flush, in each of the larger banks; and any part of a larger guest page? */
  private used2m = false;
  private used1g = false;
  private fractured = false;

  /** A hit only if the entry also allows the access (INVARIANT tlb-rights, tlb-dirty); then pfn, level, attr are set. */
  lookup(space: number, lo: number, hi: number, access: number, controls: number, pkru: number): boolean {
    const words = this.words;
    const at = this.hints[(lo >>> 12) & (HINTS - 1)];
    const small = at < BANK_2M;
    if (
      words[at + 2] !== (lo & (small ? ~0xfff : ~0x1fffff)) ||
      words[at + 3] !== hi ||
      words[at + 1] !== space ||
      words[at] !== this.generation
    )
      return this.search(space, lo, hi, access, controls, pkru);
    const attr = words[at + 5];
    if (!cachedRightsSuffice(attr, access, controls, pkru)) return this.search(space, lo, hi, access, controls, pkru);
    this.attr = attr;
    this.level = small ? 1 : 2;
    this.pfn = small ? words[at + 4] : words[at + 4] + ((lo >>> 12) & 511);
    this.hits++;
    return true;
  }

  private search(space: number, lo: number, hi: number, access: number, controls: number, pkru: number): boolean {
    const hint = (lo >>> 12) & (HINTS - 1);
    const small = this.find(((lo >>> 12) & (SETS_4K - 1)) * SET_WORDS, space, lo & ~0xfff, hi);
    let at = small;
    if (at >= 0) {
      this.hints[hint] = at;
      if (this.serve(at, 1, lo, access, controls, pkru)) return true;
    }
    if (this.used2m) {
      at = this.find(BANK_2M + ((lo >>> 21) & (SETS_2M - 1)) * SET_WORDS, space, lo & ~0x1fffff, hi);
      if (at >= 0) {
        if (small < 0) this.hints[hint] = at;
        if (this.serve(at, 2, lo, access, controls, pkru)) return true;
      }
    }
    if (this.used1g) {
      at = this.find(BANK_1G + ((lo >>> 30) & (SETS_1G - 1)) * SET_WORDS, space, lo & ~0x3fffffff, hi);
      if (at >= 0 && this.serve(at, 3, lo, access, controls, pkru)) return true;
    }
    this.misses++;
    return false;
  }

  private find(set: number, space: number, lo: number, hi: number): number {
    const words = this.words;
    const generation = this.generation;
    for (let at = set; at < set + SET_WORDS; at += ENTRY_WORDS) {
      if (words[at + 2] !== lo || words[at + 3] !== hi || words[at] !== generation) continue;
      const other = words[at + 1] ^ space;
      if (other === 0 || (other >>> 12 === 0 && words[at + 5] & ATTR_G)) return at;
    }
    return -1;
  }

  private serve(at: number, level: number, lo: number, access: number, controls: number, pkru: number): boolean {
    const attr = this.words[at + 5];
    if (!cachedRightsSuffice(attr, access, controls, pkru)) return false;
    this.attr = attr;
    this.level = level;
    this.pfn = this.words[at + 4] + ((lo >>> 12) & pageMask(level));
    this.hits++;
    return true;
  }

  /** Caches what a walk found: `pfn` is the accessed 4 KiB page's, `level` the page size (1-3) to cache it at. */
  insert(space: number, lo: number, hi: number, pfn: number, level: number, attr: number): void {
    let set = ((lo >>> 12) & (SETS_4K - 1)) * SET_WORDS;
    if (level === 2) {
      set = BANK_2M + ((lo >>> 21) & (SETS_2M - 1)) * SET_WORDS;
      this.used2m = true;
    } else if (level === 3) {
      set = BANK_1G + ((lo >>> 30) & (SETS_1G - 1)) * SET_WORDS;
      this.used1g = true;
    }
    if (pageShiftOf(attr) > 3 + 9 * level) this.fractured = true;
    const page = alignLo(level, lo);
    const words = this.words;
    const at = this.wayFor(set, space, page, hi);
    if (level === 1) this.hints[(lo >>> 12) & (HINTS - 1)] = at;
    else if (attr & ATTR_G) this.hints.fill(0);
    words[at] = this.generation;
    words[at + 1] = space;
    words[at + 2] = page;
    words[at + 3] = hi;
    words[at + 4] = pfn - (pfn & pageMask(level));
    words[at + 5] = attr;
    this.fills++;
  }

  /** The way that `find` finds; else the first unused one, else the next in turn. */
  private wayFor(set: number, space: number, lo: number, hi: number): number {
    const words = this.words;
    const generation = this.generation;
    let unused = -1;
    for (let at = set; at < set + SET_WORDS; at += ENTRY_WORDS) {
      if (words[at] !== generation) {
        if (unused < 0) unused = at;
        continue;
      }
      if (words[at + 2] !== lo || words[at + 3] !== hi) continue;
      const other = words[at + 1] ^ space;
      if (other === 0 || (other >>> 12 === 0 && words[at + 5] & ATTR_G)) return at;
    }
    if (unused >= 0) return unused;
    this.evictions++;
    const index = set / SET_WORDS;
    const way = this.victims[index];
    this.victims[index] = (way + 1) % WAYS;
    return set + way * ENTRY_WORDS;
  }

  /** Everything, of every ASID. Constant time. */
  flushAll(): void {
    this.flushes++;
    this.used2m = this.used1g = this.fractured = false;
    this.generation = (this.generation + 1) | 0;
    // After 2^32 flushes old entries would come alive again.
    if (this.generation === 0) {
      this.words.fill(0);
      this.generation = 1;
    }
  }

  /** Everything of one ASID, global entries too. */
  flushAsid(asid: number): void {
    this.flushes++;
    const words = this.words;
    for (let at = 0; at < WORDS; at += ENTRY_WORDS) {
      if (words[at + 1] >>> 12 === asid) words[at] = 0;
    }
  }

  /** All PCIDs of an ASID, but not what is global. */
  flushNonGlobal(asid: number): void {
    this.flushes++;
    const words = this.words;
    for (let at = 0; at < WORDS; at += ENTRY_WORDS) {
      if (words[at + 1] >>> 12 === asid && !(words[at + 5] & ATTR_G)) words[at] = 0;
    }
  }

  /** One PCID, but not what is global: MOV to CR3. */
  flushPcid(asid: number, pcid: number): void {
    this.flushes++;
    const words = this.words;
    const space = tlbSpace(asid, pcid);
    for (let at = 0; at < WORDS; at += ENTRY_WORDS) {
      if (words[at + 1] === space && !(words[at + 5] & ATTR_G)) words[at] = 0;
    }
  }

  /**
   * INVLPG: the page of an address, in this PCID or global; with ANY_PCID in every one (INVLPGA). A large guest page that
   * was cached in pieces goes as a whole. A page fault does the same to the address that caused it.
   */
  flushGva(asid: number, pcid: number, lo: number, hi: number): void {
    this.dropPage(asid, pcid, lo, hi, true);
  }

  /** INVPCID of one address: as flushGva, but global entries may stay, and do. */
  flushSingle(asid: number, pcid: number, lo: number, hi: number): void {
    this.dropPage(asid, pcid, lo, hi, false);
  }

  private dropPage(asid: number, pcid: number, lo: number, hi: number, global: boolean): void {
    this.flushes++;
    if (this.fractured) {
      this.dropIn(0, WORDS, asid, pcid, lo, hi, global);
      return;
    }
    const set4k = ((lo >>> 12) & (SETS_4K - 1)) * SET_WORDS;
    this.dropIn(set4k, set4k + SET_WORDS, asid, pcid, lo, hi, global);
    if (this.used2m || this.used1g) this.dropIn(BANK_2M, WORDS, asid, pcid, lo, hi, global);
  }

  private dropIn(from: number, to: number, asid: number, pcid: number, lo: number, hi: number, global: boolean): void {
    const words = this.words;
    for (let at = from; at < to; at += ENTRY_WORDS) {
      if (words[at] !== this.generation) continue;
      const attr = words[at + 5];
      if (!samePage(attr, words[at + 2], words[at + 3], lo, hi)) continue;
      if (flushCovers(words[at + 1], attr, asid, pcid, global)) words[at] = 0;
    }
  }

  count(): number {
    let n = 0;
    for (let at = 0; at < WORDS; at += ENTRY_WORDS) if (this.words[at] === this.generation) n++;
    return n;
  }
}

/** Frames that an entry of a level covers, less one. */
export function pageMask(level: number): number {
  return level === 1 ? 0 : level === 2 ? 511 : 0x3ffff;
}

/** An address's low word, aligned to a page of `level`. */
export function alignLo(level: number, lo: number): number {
  return lo & (level === 1 ? ~0xfff : level === 2 ? ~0x1fffff : ~0x3fffffff);
}

/** log2 of the size of the page that software mapped, which an entry may be only a piece of. */
export function pageShiftOf(attr: number): number {
  return (attr & ATTR_PAGE_SHIFT) >>> ATTR_PAGE_SHIFT_AT;
}

/** Do an entry's address and another lie in the page that software mapped? */
export function samePage(attr: number, entryLo: number, entryHi: number, lo: number, hi: number): boolean {
  return entryHi === hi && (entryLo ^ lo) >>> pageShiftOf(attr) === 0;
}

/** Does a flush of one page in (asid, pcid) reach an entry of that page? `global`: global entries too. */
export function flushCovers(space: number, attr: number, asid: number, pcid: number, global: boolean): boolean {
  if (space >>> 12 !== asid) return false;
  if (attr & ATTR_G) return global;
  return pcid === ANY_PCID || (space & 0xfff) === pcid;
}
