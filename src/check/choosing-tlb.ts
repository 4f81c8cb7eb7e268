/**
 * The TLB of a CPU that does whatever a CPU may do: it may keep each translation until it is flushed, it may forget it at
 * any time, and it may hold several of one page and use any. So an access is served by any entry that allows it, or by
 * a walk; which is chosen by `choose`.
 *
 * Entries stand in a fixed order, so that what the TLB holds doesn't depend on when it came.
 */
import { cachedRightsSuffice } from '../hw/rights.ts';
import type { Tlb } from '../hw/tlb.ts';
import { choose } from './choose.ts';

export interface CachedPage {
  readonly page: number;
  readonly level: number;
  readonly pfn: number;
  readonly attr: number;
}

const order = (a: CachedPage, b: CachedPage): number =>
  a.page - b.page || a.level - b.level || a.pfn - b.pfn || a.attr - b.attr;

export class ChoosingTlb implements Tlb {
  entries: CachedPage[] = [];
  /** Frame of the last translation, found or filled. */
  pfn = 0;
  level = 0;
  attr = 0;
  hits = 0;
  misses = 0;
  fills = 0;
  evictions = 0;
  flushes = 0;

  lookup(_space: number, lo: number, hi: number, access: number, controls: number, pkru: number): boolean {
    const found = this.frames((lo >>> 12) + hi * 0x100000, access, controls, pkru);
    if (found.length === 0) return false;
    const chosen = choose(found.length + 1);
    if (chosen === found.length) return false;
    this.pfn = found[chosen];
    return true;
  }

  /** Frames that an access may reach through what is cached. */
  private frames(page: number, access: number, controls: number, pkru: number): number[] {
    const frames: number[] = [];
    for (const entry of this.entries) {
      const offset = page - entry.page;
      if (offset < 0 || offset >= 1 << (9 * (entry.level - 1))) continue;
      if (!cachedRightsSuffice(entry.attr, access, controls, pkru)) continue;
      if (!frames.includes(entry.pfn + offset)) frames.push(entry.pfn + offset);
    }
    return frames;
  }

  insert(_space: number, lo: number, hi: number, pfn: number, level: number, attr: number): void {
    const mask = (1 << (9 * (level - 1))) - 1;
    const page = (lo >>> 12) + hi * 0x100000;
    const entry = { page: page - (page & mask), level, pfn: pfn - (pfn & mask), attr };
    this.pfn = pfn;
    if (this.entries.some((other) => order(other, entry) === 0)) return;
    this.entries = [...this.entries, entry].sort(order);
  }

  flushAll(): void {
    this.entries = [];
  }
  flushAsid(_asid: number): void {
    this.entries = [];
  }
  flushNonGlobal(_asid: number): void {
    this.entries = [];
  }
  flushPcid(_asid: number, _pcid: number): void {
    this.entries = [];
  }
  flushGva(_asid: number, _pcid: number, _lo: number, _hi: number): void {
    this.entries = [];
  }
  flushSingle(_asid: number, _pcid: number, _lo: number, _hi: number): void {
    this.entries = [];
  }

  count(): number {
    return this.entries.length;
  }
}
