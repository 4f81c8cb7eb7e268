/**
 * Walk of the tables that KVM wrote, from a root towards the entry of one address.
 *
 *     address   47 .. 39 | 38 .. 30 | 29 .. 21 | 20 .. 12 | 11 .. 0
 *     level        4          3          2          1       offset
 *
 *     for (w.init(mmu, vcpu, lo, hi); w.ok(); w.next(mmu)) { w.sptep, w.level }
 *
 * A PAE root is the vCPU's table of four: the walk starts below it, at level 2. Source: Linux 6.1
 * kvm_shadow_walk_iterator.
 */
import type { Mmu } from './mmu.ts';
import { childOf } from './shadow-pages.ts';
import { isLast, isShadowPresent } from './spte.ts';
import { type MmuVcpu, PAE_ROOT } from './vcpu.ts';

/** Index into the table of `level` for an address. @kvm SPTE_INDEX */
export function spteIndex(lo: number, hi: number, level: number): number {
  switch (level) {
    case 1:
      return (lo >>> 12) & 511;
    case 2:
      return (lo >>> 21) & 511;
    case 3:
      return ((lo >>> 30) | (hi << 2)) & 511;
    case 4:
      return (hi >>> 7) & 511;
    default:
      return (hi >>> 16) & 511;
  }
}

export class ShadowWalk {
  addrLo = 0;
  addrHi = 0;
  /** Table of the current level. */
  table = 0;
  level = 0;
  sptep = 0;
  /** What `toLast` found there. */
  lo = 0;
  hi = 0;

  init(vcpu: MmuVcpu, lo: number, hi: number): void {
    this.initUsingRoot(vcpu, vcpu.root.sp, lo, hi);
  }

  initUsingRoot(vcpu: MmuVcpu, root: number, lo: number, hi: number): void {
    this.addrLo = lo;
    this.addrHi = hi;
    this.level = vcpu.rootRole & 0xf;
    this.table = root;
    if (root === PAE_ROOT) {
      this.table = vcpu.paeRoots[(lo >>> 30) & 3];
      this.level = this.table === 0 ? 0 : this.level - 1;
    } else if (root === 0) this.level = 0;
  }

  /** True while there is an entry to look at; sets `sptep`. */
  ok(): boolean {
    if (this.level < 1) return false;
    this.sptep = (this.table << 9) | spteIndex(this.addrLo, this.addrHi, this.level);
    return true;
  }

  /**
   * To the last entry that there is for an address, present or not: `sptep`, `level`, and what it holds in `lo`, `hi`.
   * False without a root. One loop over locals, as every write fault in a logged slot comes this way.
   * @kvm fast_pf_get_last_sptep, kvm_tdp_mmu_fast_pf_get_last_sptep
   */
  toLast(mmu: Mmu, vcpu: MmuVcpu, addrLo: number, addrHi: number): boolean {
    this.init(vcpu, addrLo, addrHi);
    let { table, level } = this;
    if (level < 1) return false;
    const words = mmu.arena.words;
    for (;;) {
      const sptep = (table << 9) | spteIndex(addrLo, addrHi, level);
      const lo = words[sptep << 1];
      const hi = words[(sptep << 1) + 1];
      if (!isShadowPresent(lo) || isLast(lo, level)) {
        this.table = table;
        this.level = level;
        this.sptep = sptep;
        this.lo = lo;
        this.hi = hi;
        return true;
      }
      table = childOf(lo, hi);
      level--;
    }
  }

  next(mmu: Mmu): void {
    const words = mmu.arena.words;
    this.step(words[this.sptep << 1], words[(this.sptep << 1) + 1]);
  }

  /** As `next`, with the entry as it was read before. */
  step(lo: number, hi: number): void {
    if (!isShadowPresent(lo) || isLast(lo, this.level)) {
      this.level = 0;
      return;
    }
    this.table = childOf(lo, hi);
    this.level--;
  }
}
