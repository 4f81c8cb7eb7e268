/**
 * Checks every invariant of the room over the whole state. For tests and tools: slow, changes nothing.
 *
 *     writable    W implies MMU-writable implies host-writable
 *     rmap        each present leaf is in the list of (slot, gfn, level) and in no other; lists hold nothing else
 *     parents     each present non-leaf is in its child's list of parents; lists hold nothing else
 *     child       a child's level is one less than its parent's, its frames are those of its place
 *     logged      no large leaf of a logged slot is writable (not before the first clear of an initially-set log)
 *     unsync      a sync level-1 page's frame has no writable or MMU-writable leaf; marks lead to every unsync page
 *     tracked     the frame of an upper-level guest table is tracked, and no leaf of it is (MMU-)writable
 *     lpage       disallow_lpage is what edges and shadowed tables add up to; no large leaf stands over a shadowed table
 *     counters    pages_4k/2m/1g, mmu_unsync, nx_lpage_splits, used and indirect pages are what there is
 *     generation  pages on the active list are not invalid; obsolete ones are its oldest
 *
 * Source: the distilled invariants of the reference (I2, I4 to I10, I14).
 */
import { gfnToIndex, type MemSlot, makeLpageInfo } from '../mem/memslots.ts';
import { type Mmu, isObsolete } from './mmu.ts';

import { spteHi, spteLo } from './rmap.ts';
import { isDirectRole, isInvalidRole, roleAddressSpace, roleHasGptes } from './role.ts';
import { childOf, indexOf, spOf, sptepAt } from './shadow-pages.ts';
import { isLarge, isLast, isMmuWritable, isShadowPresent, isWritable, SPTE_HOST_WRITABLE } from './spte.ts';

/** What does not hold, a line each: "INVARIANT name: what and where". Empty if all is well. */
export function verify(mmu: Mmu): string[] {
  return new Verifier(mmu).run();
}

class Verifier {
  private readonly mmu: Mmu;
  private readonly broken: string[] = [];
  /** Pages with a table: on the active list, or zapped but still some vCPU's root. */
  private readonly pages = new Set<number>();
  private readonly leaves = [0, 0, 0, 0];
  private listedLeaves = 0;
  private readonly parentsSeen = new Map<number, number>();

  constructor(mmu: Mmu) {
    this.mmu = mmu;
  }

  run(): string[] {
    const { mmu } = this;
    this.collectPages();
    for (const sp of this.pages) this.checkPage(sp);
    for (const set of mmu.slots) for (const slot of set.slots) this.checkSlot(slot);
    for (const sp of this.pages) this.checkParents(sp);
    this.checkCounters();
    return this.broken;
  }

  private report(name: string, what: string): void {
    this.broken.push(`INVARIANT ${name}: ${what}`);
  }

  private collectPages(): void {
    const { mmu } = this;
    let sawCurrent = false;
    for (let sp = mmu.pages.oldest; sp !== 0; sp = mmu.pages.newerOf(sp)) {
      this.pages.add(sp);
      if (isInvalidRole(mmu.pages.role[sp])) this.report('generation', `page ${sp} is listed and invalid`);
      const obsolete = isObsolete(mmu, sp);
      if (obsolete && sawCurrent) this.report('generation', `obsolete page ${sp} is younger than a current one`);
      if (!obsolete) sawCurrent = true;
    }
    for (const vcpu of mmu.vcpus)
      for (const sp of [vcpu.root.sp, ...vcpu.prevRoots.map((root) => root.sp), ...vcpu.paeRoots])
        if (sp > 0) this.pages.add(sp);
  }

  // ---- pages and their entries -------------------------------------------------------------------------------------

  private checkPage(sp: number): void {
    const { mmu } = this;
    const level = mmu.pages.level(sp);
    for (let i = 0; i < 512; i++) {
      const sptep = sptepAt(sp, i);
      const lo = spteLo(mmu, sptep);
      if (!isShadowPresent(lo)) continue;
      if (isLast(lo, level)) this.checkLeaf(sp, sptep, lo, level);
      else this.checkNonLeaf(sp, sptep, lo, level);
    }
    if (isInvalidRole(mmu.pages.role[sp])) return;
    this.checkMarks(sp);
    if (roleHasGptes(mmu.pages.role[sp])) this.checkShadowed(sp, level);
  }

  private checkLeaf(sp: number, sptep: number, lo: number, level: number): void {
    const { mmu } = this;
    this.leaves[level]++;
    if (isWritable(lo) && !isMmuWritable(lo)) this.report('writable', `entry ${sptep}: W without MMU-writable`);
    if (isMmuWritable(lo) && !(lo & SPTE_HOST_WRITABLE))
      this.report('writable', `entry ${sptep}: MMU-writable without host-writable`);
    const gfn = mmu.pages.entryGfn(sp, indexOf(sptep));
    const slot = mmu.slots[roleAddressSpace(mmu.pages.role[sp])].find(gfn);
    if (slot === null) {
      this.report('rmap', `entry ${sptep} maps gfn ${gfn}, which is in no slot`);
      return;
    }
    const found = this.occurrences(slot.rmap[level - 1], gfnToIndex(gfn, slot.baseGfn, level), sptep);
    if (found !== 1) this.report('rmap', `entry ${sptep} is ${found} times in the list of gfn ${gfn}, level ${level}`);
    if (level === 1) return;
    const mayBeWritable = mmu.manualProtect && mmu.initiallySet;
    if (slot.logsDirty && isWritable(lo) && !mayBeWritable && mmu.policy.fastFaultLarge === 'guarded')
      this.report('logged', `large entry ${sptep} of gfn ${gfn} is writable`);
  }

  private checkNonLeaf(sp: number, sptep: number, lo: number, level: number): void {
    const { mmu } = this;
    const child = childOf(lo, spteHi(mmu, sptep));
    if (!this.pages.has(child)) {
      this.report('child', `entry ${sptep} points at page ${child}, which isn't in use`);
      return;
    }
    const { pages } = mmu;
    this.parentsSeen.set(child, (this.parentsSeen.get(child) ?? 0) + 1);
    if (this.occurrences(pages.parents, child, sptep) !== 1)
      this.report('parents', `entry ${sptep} is not once among the parents of page ${child}`);
    if (pages.level(child) !== level - 1) this.report('child', `page ${child} is linked at level ${level - 1}`);
    if (!isDirectRole(pages.role[child]) || !isDirectRole(pages.role[sp])) return;
    if (pages.gfn[child] !== pages.entryGfn(sp, indexOf(sptep)))
      this.report('child', `page ${child} of gfn ${pages.gfn[child]} stands where another gfn belongs`);
  }

  private occurrences(heads: Int32Array, at: number, sptep: number): number {
    let n = 0;
    for (const entry of this.entries(heads, at)) if (entry === sptep) n++;
    return n;
  }

  private *entries(heads: Int32Array, at: number): Generator<number> {
    const { lists } = this.mmu;
    const first = lists.first(heads, at);
    if (first === 0) return;
    yield first;
    for (let c = lists.next(lists.firstCursor(heads, at)); c !== 0; c = lists.next(c)) yield lists.at(c);
  }

  private checkParents(sp: number): void {
    const count = this.mmu.lists.count(this.mmu.pages.parents, sp);
    const seen = this.parentsSeen.get(sp) ?? 0;
    if (count !== seen) this.report('parents', `page ${sp} has ${count} parents in its list, ${seen} point at it`);
  }

  // ---- unsync ------------------------------------------------------------------------------------------------------

  private checkMarks(sp: number): void {
    const { pages } = this.mmu;
    let marks = 0;
    for (let i = pages.nextUnsyncBit(sp, 0); i >= 0; i = pages.nextUnsyncBit(sp, i + 1)) marks++;
    if (marks !== pages.unsyncChildren[sp])
      this.report('unsync', `page ${sp} counts ${pages.unsyncChildren[sp]} marks and has ${marks}`);
    if (pages.unsync[sp] && (pages.level(sp) !== 1 || !roleHasGptes(pages.role[sp])))
      this.report('unsync', `page ${sp} must not be unsync`);
    if (!pages.unsync[sp] && !pages.unsyncChildren[sp]) return;
    for (const parent of this.entries(pages.parents, sp))
      if (pages.nextUnsyncBit(spOf(parent), indexOf(parent)) !== indexOf(parent))
        this.report('unsync', `entry ${parent} is not marked though page ${sp} below it has something unsync`);
  }

  /** No entry anywhere may write the frame of a synced guest table. */
  private checkShadowed(sp: number, level: number): void {
    const { mmu } = this;
    if (mmu.pages.unsync[sp] || isObsolete(mmu, sp)) return;
    const gfn = mmu.pages.gfn[sp];
    const slot = mmu.slots[roleAddressSpace(mmu.pages.role[sp])].find(gfn);
    const name = level > 1 ? 'tracked' : 'unsync';
    if (slot === null) {
      this.report(name, `page ${sp} mirrors gfn ${gfn}, which is in no slot`);
      return;
    }
    if (level > 1 && !slot.gfnTrack?.[gfn - slot.baseGfn]) this.report('tracked', `gfn ${gfn} of page ${sp} is not`);
    for (let l = 1; l <= 3; l++)
      for (const sptep of this.entries(slot.rmap[l - 1], gfnToIndex(gfn, slot.baseGfn, l))) {
        const lo = spteLo(mmu, sptep);
        if (isWritable(lo) || isMmuWritable(lo)) this.report(name, `entry ${sptep} may write gfn ${gfn}, page ${sp}`);
      }
  }

  // ---- slots and counters ------------------------------------------------------------------------------------------

  private checkSlot(slot: MemSlot): void {
    const { mmu } = this;
    for (let level = 1; level <= 3; level++) {
      const heads = slot.rmap[level - 1];
      for (let at = 0; at < heads.length; at++)
        if (heads[at] !== 0)
          for (const sptep of this.entries(heads, at)) {
            this.listedLeaves++;
            if (!isShadowPresent(spteLo(mmu, sptep))) this.report('rmap', `entry ${sptep} is listed and not present`);
            else if (level > 1 && !isLarge(spteLo(mmu, sptep)))
              this.report('rmap', `entry ${sptep} is listed at level ${level} and not large`);
          }
    }
    this.checkLpage(slot);
  }

  private checkLpage(slot: MemSlot): void {
    const { mmu } = this;
    const expected = makeLpageInfo(slot.baseGfn, slot.npages, slot.userspaceAddr);
    for (const sp of this.pages) {
      const role = mmu.pages.role[sp];
      const gfn = mmu.pages.gfn[sp];
      if (isInvalidRole(role) || !roleHasGptes(role) || !slot.contains(gfn)) continue;
      for (const level of [2, 3]) expected[level - 2][gfnToIndex(gfn, slot.baseGfn, level)]++;
    }
    for (const level of [2, 3])
      expected[level - 2].forEach((count, at) => {
        const now = slot.lpageInfo[level - 2][at];
        if (now !== count) this.report('lpage', `slot ${slot.id}, level ${level}, ${at}: ${now} instead of ${count}`);
      });
  }

  private checkCounters(): void {
    const { stats, pages } = this.mmu;
    const compare = (name: string, counter: number, actual: number): void => {
      if (counter !== actual) this.report('counters', `${name} is ${counter}, there are ${actual}`);
    };
    compare('pages_4k', stats.pages_4k, this.leaves[1]);
    compare('pages_2m', stats.pages_2m, this.leaves[2]);
    compare('pages_1g', stats.pages_1g, this.leaves[3]);
    compare('listed leaves', this.listedLeaves, this.leaves[1] + this.leaves[2] + this.leaves[3]);
    const all = [...this.pages];
    const valid = all.filter((sp) => !isInvalidRole(pages.role[sp]));
    compare('mmu_unsync', stats.mmu_unsync, valid.filter((sp) => pages.unsync[sp]).length);
    compare('nx_lpage_splits', stats.nx_lpage_splits, valid.filter((sp) => pages.lpageDisallowed[sp]).length);
    compare('indirect pages', this.mmu.indirectShadowPages, valid.filter((sp) => roleHasGptes(pages.role[sp])).length);
    compare('used pages', this.mmu.nUsedPages, all.length);
  }
}
