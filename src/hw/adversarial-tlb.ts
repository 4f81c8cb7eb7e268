/**
 * The TLB that tests run with: it keeps every translation that it may legally keep, and uses the worst of them.
 *
 * It never evicts, and a fill never replaces an older entry: while no flush says otherwise, a CPU may go on using any
 * translation it once found. So if the MMU takes a right away and doesn't flush, the access that should have faulted
 * succeeds here, at the old frame, and the test sees it. What an entry doesn't allow is still a miss, not a fault, as in
 * any TLB of ours: only rights that were *taken* without a flush show.
 */
import {
  ATTR_D,
  ATTR_G,
  ATTR_HOST_D,
  ATTR_HOST_NX,
  ATTR_HOST_W,
  ATTR_NX,
  ATTR_U,
  ATTR_W,
  cachedRightsSuffice,
} from './rights.ts';
import { alignLo, flushCovers, pageMask, pageShiftOf, samePage, type Tlb, tlbSpace } from './tlb.ts';

/** Which of several entries that all allow an access is used. */
export type TlbPreference = 'stalest' | 'permissive' | 'newest';

interface Entry {
  readonly space: number;
  readonly lo: number;
  readonly hi: number;
  readonly pfn: number;
  readonly level: number;
  readonly attr: number;
  readonly serial: number;
}

export class AdversarialTlb implements Tlb {
  pfn = 0;
  level = 0;
  attr = 0;
  hits = 0;
  misses = 0;
  fills = 0;
  /** Always 0: nothing is evicted. */
  evictions = 0;
  flushes = 0;

  private readonly preference: TlbPreference;
  /** Entries by page number, one map for each level (1-3; 0 is unused). Oldest first. */
  private readonly banks: readonly Map<number, Entry[]>[] = [new Map(), new Map(), new Map(), new Map()];
  private fractured = false;

  constructor(preference: TlbPreference = 'stalest') {
    this.preference = preference;
  }

  lookup(space: number, lo: number, hi: number, access: number, controls: number, pkru: number): boolean {
    let best: Entry | null = null;
    for (let level = 1; level <= 3; level++) {
      const bank = this.banks[level];
      if (bank.size === 0) continue;
      const list = bank.get(pageKey(level, lo, hi));
      if (list === undefined) continue;
      for (const entry of list) {
        const other = entry.space ^ space;
        if (other !== 0 && (other >>> 12 !== 0 || !(entry.attr & ATTR_G))) continue;
        if (!cachedRightsSuffice(entry.attr, access, controls, pkru)) continue;
        if (best === null || this.prefers(entry, best)) best = entry;
      }
    }
    if (best === null) {
      this.misses++;
      return false;
    }
    this.hits++;
    this.attr = best.attr;
    this.level = best.level;
    this.pfn = best.pfn + ((lo >>> 12) & pageMask(best.level));
    return true;
  }

  private prefers(a: Entry, b: Entry): boolean {
    if (this.preference === 'newest') return a.serial > b.serial;
    if (this.preference === 'permissive') {
      const more = generosity(a.attr) - generosity(b.attr);
      if (more !== 0) return more > 0;
    }
    return a.serial < b.serial;
  }

  insert(space: number, lo: number, hi: number, pfn: number, level: number, attr: number): void {
    const bank = this.banks[level];
    const key = pageKey(level, lo, hi);
    const first = pfn - (pfn & pageMask(level));
    let list = bank.get(key);
    if (list === undefined) bank.set(key, (list = []));
    this.fills++;
    // An identical entry adds nothing, and would let the list grow without bound.
    if (list.some((e) => e.space === space && e.pfn === first && e.attr === attr)) return;
    if (pageShiftOf(attr) > 3 + 9 * level) this.fractured = true;
    list.push({ space, lo: alignLo(level, lo), hi, pfn: first, level, attr, serial: this.fills });
  }

  flushAll(): void {
    this.flushes++;
    for (const bank of this.banks) bank.clear();
    this.fractured = false;
  }

  flushAsid(asid: number): void {
    this.flushes++;
    this.drop((e) => e.space >>> 12 === asid);
  }

  flushNonGlobal(asid: number): void {
    this.flushes++;
    this.drop((e) => e.space >>> 12 === asid && !(e.attr & ATTR_G));
  }

  flushPcid(asid: number, pcid: number): void {
    this.flushes++;
    const space = tlbSpace(asid, pcid);
    this.drop((e) => e.space === space && !(e.attr & ATTR_G));
  }

  flushGva(asid: number, pcid: number, lo: number, hi: number): void {
    this.dropPage(asid, pcid, lo, hi, true);
  }

  flushSingle(asid: number, pcid: number, lo: number, hi: number): void {
    this.dropPage(asid, pcid, lo, hi, false);
  }

  private dropPage(asid: number, pcid: number, lo: number, hi: number, global: boolean): void {
    this.flushes++;
    const covered = (e: Entry): boolean =>
      samePage(e.attr, e.lo, e.hi, lo, hi) && flushCovers(e.space, e.attr, asid, pcid, global);
    if (this.fractured) {
      this.drop(covered);
      return;
    }
    for (let level = 1; level <= 3; level++) {
      this.dropIn(this.banks[level], pageKey(level, lo, hi), covered);
    }
  }

  private drop(covered: (e: Entry) => boolean): void {
    for (const bank of this.banks) for (const key of bank.keys()) this.dropIn(bank, key, covered);
  }

  private dropIn(bank: Map<number, Entry[]>, key: number, covered: (e: Entry) => boolean): void {
    const list = bank.get(key);
    if (list === undefined) return;
    const kept = list.filter((e) => !covered(e));
    if (kept.length === 0) bank.delete(key);
    else if (kept.length < list.length) bank.set(key, kept);
  }

  /** Every entry that could serve an access: its page, first frame, level and rights. */
  forEach(visit: (lo: number, hi: number, pfn: number, level: number, attr: number) => void): void {
    for (const bank of this.banks)
      for (const list of bank.values()) for (const e of list) visit(e.lo, e.hi, e.pfn, e.level, e.attr);
  }

  count(): number {
    let n = 0;
    for (const bank of this.banks) for (const list of bank.values()) n += list.length;
    return n;
  }
}

/** The page number of an address at a level. */
function pageKey(level: number, lo: number, hi: number): number {
  const shift = 3 + 9 * level;
  return (lo >>> shift) + (hi >>> 0) * 2 ** (32 - shift);
}

/** How much an entry allows, to compare entries by. */
function generosity(attr: number): number {
  const granted = attr & (ATTR_W | ATTR_U | ATTR_D | ATTR_HOST_W | ATTR_HOST_D);
  const denied = attr & (ATTR_NX | ATTR_HOST_NX);
  return bitCount(granted) - bitCount(denied);
}

function bitCount(bits: number): number {
  let n = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) n++;
  return n;
}
