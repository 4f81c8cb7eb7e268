/**
 * Checks every invariant of the room over the whole state, and changes nothing. For tests and tools. Linear in tables and
 * slots: some microseconds for a machine of a few pages, so that a test can ask after each step.
 *
 *     I2   logged      no large leaf of a logged slot is writable (not before the first clear of an initially-set log)
 *     I4   rmap        each present leaf is in the list of (slot, gfn, level) and in no other; lists hold nothing else
 *     I4   parents     each present non-leaf is in its child's list of parents; lists hold nothing else
 *     I4   hash        each page is in its gfn's bucket, with no zapped page that nothing holds; of pages in use no two have
 *                      the same gfn and role
 *     I5   unsync      a sync level-1 page's frame has no writable or MMU-writable leaf; marks lead to every unsync page
 *     I6   tracked     the frame of an upper-level guest table is tracked, once a page, and no leaf of it is (MMU-)writable
 *     I7   lpage       disallow_lpage is what edges and shadowed tables add up to; a large leaf lies within its slot, and a
 *                      writable one over no shadowed table
 *     I8   writable    W implies MMU-writable implies host-writable
 *     I9   child       a child's level, role and frames are those of its place; it is in use
 *     I10  counters    pages_4k/2m/1g, mmu_unsync, nx_lpage_splits, used and indirect pages are what there is
 *     I12  roots       a page counts the vCPUs' roots that name it; a zapped root awaits the request that drops it
 *     I14  generation  pages on the active list are not invalid; obsolete ones are its oldest
 *          nx          no large leaf is executable under nx_huge_pages
 *          mmio        what is neither present nor empty is an MMIO entry
 *
 * Those of the TDP MMU stand in tdp-mmu/tdp-verifier.ts.
 *
 * The numbers are those of the reference's distilled invariants. I1, I3, I11 and I13 are not of a state but of a run:
 * the model-based tests of `vm` tell them (dirty, tlb, progress).
 */
import { pagesPerLevel } from '../base/page.ts';
import { gfnToIndex, type MemSlot } from '../mem/memslots.ts';
import { isObsolete, type Mmu } from './mmu.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS } from './requests.ts';
import {
  childRole,
  isDirectRole,
  isInvalidRole,
  ROLE_ACCESS,
  ROLE_DIRECT,
  roleAccess,
  roleAddressSpace,
  roleHasGptes,
  roleLevel,
} from './role.ts';
import { childOf, indexOf, spOf } from './shadow-pages.ts';
import {
  isLarge,
  isLast,
  isMmioSpte,
  isMmuWritable,
  isShadowPresent,
  isWritable,
  SPTE_HOST_WRITABLE,
  SPTE_MMU_PRESENT,
  SPTE_MMU_WRITABLE,
  SPTE_PSE,
  SPTE_W,
} from './spte.ts';
import type { SpteFormat } from './spte-format.ts';
import { TdpVerifier } from './tdp-mmu/tdp-verifier.ts';
import type { MmuVcpu } from './vcpu.ts';
import { isEdge, LeafRules } from './verify-leaf.ts';

const TABLE_WORDS = 1024;
const MAX_LEVEL = 3;
const WRITABLE = SPTE_MMU_PRESENT | SPTE_W | SPTE_MMU_WRITABLE | SPTE_HOST_WRITABLE;

/** Scratch space by VM, so that asking often costs no memory. */
const verifiers = new WeakMap<Mmu, Verifier>();

/** What does not hold, a line each: "INVARIANT name: what and where". Empty if all is well. */
export function verify(mmu: Mmu): string[] {
  let verifier = verifiers.get(mmu);
  if (verifier === undefined) verifiers.set(mmu, (verifier = new Verifier(mmu)));
  return verifier.run();
}

class Verifier {
  private readonly mmu: Mmu;
  private readonly leafRules: LeafRules;
  private readonly tdpVerifier: TdpVerifier;
  private broken: string[] = [];
  /** Pages with a table: on the active list, or zapped but still some vCPU's root. */
  private readonly pages: number[] = [];
  /** By page: is it one of them, how many entries point at it, how many roots name it. */
  private inUse = new Uint8Array(0);
  private parentsSeen = new Int32Array(0);
  private rootsSeen = new Int32Array(0);
  private readonly leaves = new Int32Array(MAX_LEVEL + 1);
  private listedLeaves = 0;
  /** By entry of a slot's lpageInfo: shadowed tables. */
  private shadowed = new Int32Array(16);
  /** Slot of the last leaf looked at. */
  private slot: MemSlot | null = null;

  constructor(mmu: Mmu) {
    this.mmu = mmu;
    const report = (name: string, what: string): void => this.report(name, what);
    this.leafRules = new LeafRules(mmu, report);
    this.tdpVerifier = new TdpVerifier(mmu, this.leafRules, report);
  }

  run(): string[] {
    const { mmu, pages } = this;
    this.begin();
    this.collectPages();
    for (const vcpu of mmu.vcpus) this.collectRoots(vcpu);
    for (const sp of pages) this.checkPage(sp);
    for (const set of mmu.slots) for (const slot of set.slots) this.checkSlot(slot);
    for (const sp of pages) this.checkLinks(sp);
    if (mmu.tdpMmu) this.tdpVerifier.run();
    this.checkCounters();
    return this.broken;
  }

  private begin(): void {
    const { capacity } = this.mmu.arena;
    if (this.inUse.length !== capacity) {
      this.inUse = new Uint8Array(capacity);
      this.parentsSeen = new Int32Array(capacity);
      this.rootsSeen = new Int32Array(capacity);
    } else {
      this.inUse.fill(0);
      this.parentsSeen.fill(0);
      this.rootsSeen.fill(0);
    }
    this.broken = [];
    this.pages.length = 0;
    this.leaves.fill(0);
    this.listedLeaves = 0;
    this.slot = null;
  }

  private report(name: string, what: string): void {
    this.broken.push(`INVARIANT ${name}: ${what}`);
  }

  // ---- which pages there are ---------------------------------------------------------------------------------------

  private collectPages(): void {
    const { mmu } = this;
    let sawCurrent = false;
    for (let sp = mmu.pages.oldest; sp !== 0; sp = mmu.pages.newerOf(sp)) {
      if (this.inUse[sp] !== 0) {
        this.report('generation', `page ${sp} is listed twice`);
        return;
      }
      this.usePage(sp);
      if (isInvalidRole(mmu.pages.role[sp])) this.report('generation', `page ${sp} is listed and invalid`);
      const obsolete = isObsolete(mmu, sp);
      if (obsolete && sawCurrent) this.report('generation', `obsolete page ${sp} is younger than a current one`);
      if (!obsolete) sawCurrent = true;
    }
  }

  private usePage(sp: number): void {
    if (this.inUse[sp] !== 0) return;
    this.inUse[sp] = 1;
    this.pages.push(sp);
  }

  private collectRoots(vcpu: MmuVcpu): void {
    this.useRoot(vcpu, vcpu.root.sp);
    for (const root of vcpu.prevRoots) this.useRoot(vcpu, root.sp);
    for (const root of [vcpu.idle.root, ...vcpu.idle.prevRoots]) this.useRoot(vcpu, root.sp);
    for (let i = 0; i < 4; i++) this.useRoot(vcpu, vcpu.paeRoots[i]);
  }

  private useRoot(vcpu: MmuVcpu, sp: number): void {
    if (sp <= 0 || this.mmu.pages.tdp[sp] !== 0) return;
    this.usePage(sp);
    this.rootsSeen[sp]++;
    if (isObsolete(this.mmu, sp) && (vcpu.requests & REQ_MMU_FREE_OBSOLETE_ROOTS) === 0)
      this.report('roots', `vCPU ${vcpu.id} keeps root ${sp}, which was zapped, and isn't asked to drop it`);
  }

  // ---- pages and their entries -------------------------------------------------------------------------------------

  private checkPage(sp: number): void {
    const { mmu } = this;
    this.checkEntries(sp);
    const level = mmu.pages.level(sp);
    const role = mmu.pages.role[sp];
    if (mmu.pages.rootCount[sp] !== this.rootsSeen[sp])
      this.report('roots', `page ${sp} counts ${mmu.pages.rootCount[sp]} roots and is ${this.rootsSeen[sp]}`);
    if (isInvalidRole(role)) return;
    this.checkHash(sp);
    this.checkMarks(sp, level);
    if (roleHasGptes(role)) this.checkShadowed(sp, level);
  }

  /** Most entries of most tables are empty: eight at a time. */
  private checkEntries(sp: number): void {
    const { mmu } = this;
    const { words } = mmu.arena;
    const role = mmu.pages.role[sp];
    const isPlain = isDirectRole(role) && roleLevel(role) === 1;
    const end = (sp + 1) * TABLE_WORDS;
    for (let at = sp * TABLE_WORDS; at < end; at += 16) {
      const some =
        words[at] |
        words[at + 2] |
        words[at + 4] |
        words[at + 6] |
        words[at + 8] |
        words[at + 10] |
        words[at + 12] |
        words[at + 14];
      if (some === 0) continue;
      if (isPlain) this.checkLeaves(sp, at);
      else for (let i = at; i < at + 16; i += 2) this.checkEntry(sp, i);
    }
  }

  private checkEntry(sp: number, at: number): void {
    const { words } = this.mmu.arena;
    const lo = words[at];
    const level = this.mmu.pages.level(sp);
    if (!isShadowPresent(lo)) {
      if (lo !== 0) this.checkMmio(at >>> 1, lo, words[at + 1]);
    } else if (isLast(lo, level)) this.checkLeaf(sp, at >>> 1, lo, level);
    else this.checkNonLeaf(sp, at >>> 1, lo, words[at + 1]);
  }

  /** Eight entries of a direct page of level 1: what is plainly right is only counted, all else (any of EPT's) gets the full check. */
  private checkLeaves(sp: number, start: number): void {
    const { mmu } = this;
    const { words } = mmu.arena;
    const slot = this.slotAt(mmu.pages.role[sp], mmu.pages.gfn[sp] + ((start >>> 1) & 511));
    if (slot === null) {
      for (let at = start; at < start + 16; at += 2) this.checkEntry(sp, at);
      return;
    }
    const heads = slot.rmap[0];
    const offset = mmu.pages.gfn[sp] - (sp << 9) - slot.baseGfn;
    for (let at = start; at < start + 16; at += 2) {
      const lo = words[at];
      if (lo === 0) continue;
      const rights = lo & (WRITABLE | SPTE_PSE);
      const isUsual = rights === WRITABLE || rights === (WRITABLE & ~SPTE_W);
      if (isUsual && heads[(at >>> 1) + offset] === at >>> 1) this.leaves[1]++;
      else this.checkEntry(sp, at);
    }
  }

  private checkMmio(sptep: number, lo: number, hi: number): void {
    if (!isMmioSpte(this.mmu.format, lo, hi))
      this.report('mmio', `entry ${sptep} is neither present nor MMIO nor empty`);
  }

  private checkLeaf(sp: number, sptep: number, lo: number, level: number): void {
    const { pages } = this.mmu;
    this.leaves[level]++;
    const gfn = pages.entryGfn(sp, indexOf(sptep));
    const slot = this.slotAt(pages.role[sp], gfn);
    if (slot === null) {
      this.report('rmap', `entry ${sptep} maps gfn ${gfn}, which is in no slot`);
      return;
    }
    const heads = slot.rmap[level - 1];
    const at = gfnToIndex(gfn, slot.baseGfn, level);
    // Together with the count of all that is listed this makes it once and nothing else.
    if (heads[at] !== sptep && !this.isListed(heads, at, sptep))
      this.report('rmap', `entry ${sptep} is not in the list of gfn ${gfn}, level ${level}`);
    this.leafRules.check(slot, sptep, gfn, level);
  }

  private slotAt(role: number, gfn: number): MemSlot | null {
    const { slot } = this;
    const asId = roleAddressSpace(role);
    if (slot !== null && slot.asId === asId && slot.contains(gfn)) return slot;
    return (this.slot = this.mmu.slots[asId].find(gfn));
  }

  private checkNonLeaf(sp: number, sptep: number, lo: number, hi: number): void {
    const { pages } = this.mmu;
    const child = childOf(lo, hi);
    if (child <= 0 || child >= this.inUse.length || this.inUse[child] === 0 || isInvalidRole(pages.role[child])) {
      this.report('child', `entry ${sptep} points at page ${child}, which isn't in use`);
      return;
    }
    this.parentsSeen[child]++;
    if (pages.parents[child] !== sptep && !this.isListed(pages.parents, child, sptep))
      this.report('parents', `entry ${sptep} is not among the parents of page ${child}`);
    const role = pages.role[child];
    const above = pages.role[sp];
    const index = indexOf(sptep);
    if ((childRole(above, index, false, 0) ^ role) & ~(ROLE_ACCESS | ROLE_DIRECT))
      this.report('child', `page ${child} has role ${role.toString(16)} below one of role ${above.toString(16)}`);
    if (!isDirectRole(role)) {
      if (isDirectRole(above) || roleAccess(role) & ~roleAccess(above))
        this.report('child', `page ${child} mirrors a guest table with rights that page ${sp} has not`);
      return;
    }
    if (pages.gfn[child] & (pagesPerLevel(pages.level(sp)) - 1))
      this.report('child', `page ${child} starts with gfn ${pages.gfn[child]}`);
    if (isDirectRole(above) && pages.gfn[child] !== pages.entryGfn(sp, index))
      this.report('child', `page ${child} of gfn ${pages.gfn[child]} stands where another gfn belongs`);
  }

  private isListed(heads: Int32Array, at: number, sptep: number): boolean {
    const { lists } = this.mmu;
    if (lists.first(heads, at) === sptep) return true;
    for (let c = lists.next(lists.firstCursor(heads, at)); c !== 0; c = lists.next(c))
      if (lists.at(c) === sptep) return true;
    return false;
  }

  private entries(heads: Int32Array, at: number): number[] {
    const { lists } = this.mmu;
    const list: number[] = [];
    if (heads[at] !== 0) list.push(lists.first(heads, at));
    for (let c = lists.next(lists.firstCursor(heads, at)); c !== 0; c = lists.next(c)) list.push(lists.at(c));
    return list;
  }

  /** How pages are found: by their entries' lists of parents, and by gfn. */
  private checkLinks(sp: number): void {
    const { lists, pages } = this.mmu;
    const head = pages.parents[sp];
    const count = head > 0 ? 1 : lists.count(pages.parents, sp);
    const seen = this.parentsSeen[sp];
    if (count !== seen) this.report('parents', `page ${sp} has ${count} parents in its list, ${seen} point at it`);
  }

  private checkHash(sp: number): void {
    const { mmu } = this;
    const { pages } = mmu;
    const obsolete = isObsolete(mmu, sp);
    let found = false;
    for (let other = pages.bucketFirst(pages.gfn[sp]); other !== 0; other = pages.bucketNext(other)) {
      if (other === sp) found = true;
      else if (isInvalidRole(pages.role[other]) && pages.rootCount[other] === 0)
        this.report('hash', `page ${other} was zapped and never freed`);
      else if (
        pages.gfn[other] === pages.gfn[sp] &&
        pages.role[other] === pages.role[sp] &&
        !obsolete &&
        !isObsolete(mmu, other)
      )
        this.report('hash', `pages ${sp} and ${other} have the same gfn and role`);
    }
    if (!found) this.report('hash', `page ${sp} is not in the bucket of gfn ${pages.gfn[sp]}`);
  }

  // ---- guest tables ------------------------------------------------------------------------------------------------

  private checkMarks(sp: number, level: number): void {
    const { pages } = this.mmu;
    let marks = 0;
    for (let i = pages.nextUnsyncBit(sp, 0); i >= 0; i = pages.nextUnsyncBit(sp, i + 1)) marks++;
    if (marks !== pages.unsyncChildren[sp])
      this.report('unsync', `page ${sp} counts ${pages.unsyncChildren[sp]} marks and has ${marks}`);
    if (pages.unsync[sp] && (level !== 1 || !roleHasGptes(pages.role[sp])))
      this.report('unsync', `page ${sp} must not be unsync`);
    if (!pages.unsync[sp] && !pages.unsyncChildren[sp]) return;
    for (const parent of this.entries(pages.parents, sp))
      if (pages.nextUnsyncBit(spOf(parent), indexOf(parent)) !== indexOf(parent))
        this.report('unsync', `entry ${parent} is not marked though page ${sp} below it has something unsync`);
  }

  /** No entry anywhere may write the frame of a synced guest table, whichever address space it is in. */
  private checkShadowed(sp: number, level: number): void {
    const { mmu } = this;
    const { pages } = mmu;
    if (pages.unsync[sp] || isObsolete(mmu, sp)) return;
    const gfn = pages.gfn[sp];
    const name = level > 1 ? 'tracked' : 'unsync';
    const own = mmu.slots[roleAddressSpace(pages.role[sp])].find(gfn);
    if (own === null) {
      this.report(name, `page ${sp} mirrors gfn ${gfn}, which is in no slot`);
      return;
    }
    if (level > 1) this.checkTracked(sp, own);
    for (const set of mmu.slots) {
      const slot = set.find(gfn);
      if (slot !== null && slot.rmap.length !== 0) this.checkProtected(slot, gfn, name);
    }
  }

  private checkProtected(slot: MemSlot, gfn: number, name: string): void {
    const { mmu } = this;
    const { words } = mmu.arena;
    for (let level = 1; level <= MAX_LEVEL; level++) {
      const heads = slot.rmap[level - 1];
      const at = gfnToIndex(gfn, slot.baseGfn, level);
      if (heads[at] === 0) continue;
      for (const sptep of this.entries(heads, at))
        if (mayWrite(mmu.format, words[sptep << 1], words[(sptep << 1) + 1]))
          this.report(name, `entry ${sptep} may write the guest table at gfn ${gfn}`);
    }
  }

  private checkTracked(sp: number, slot: MemSlot): void {
    const { pages } = this.mmu;
    const gfn = pages.gfn[sp];
    let users = 0;
    for (let other = pages.bucketFirst(gfn); other !== 0; other = pages.bucketNext(other)) {
      const role = pages.role[other];
      if (pages.gfn[other] === gfn && !isInvalidRole(role) && roleHasGptes(role) && pages.level(other) > 1) users++;
    }
    const count = slot.gfnTrack?.[gfn - slot.baseGfn] ?? 0;
    if (count !== users) this.report('tracked', `gfn ${gfn} is tracked ${count} times for ${users} pages`);
  }

  // ---- slots and counters ------------------------------------------------------------------------------------------

  private checkSlot(slot: MemSlot): void {
    if (slot.rmap.length !== 0) this.checkRmap(slot);
    this.checkLpage(slot);
  }

  private checkRmap(slot: MemSlot): void {
    const { lists } = this.mmu;
    for (let level = 1; level <= MAX_LEVEL; level++) {
      const heads = slot.rmap[level - 1];
      const { length } = heads;
      for (let at = 0; at < length; at++) {
        if (heads[at] === 0) {
          // Most are empty: on by four.
          while (at + 4 < length && (heads[at + 1] | heads[at + 2] | heads[at + 3] | heads[at + 4]) === 0) at += 4;
          continue;
        }
        this.listedLeaves += heads[at] > 0 ? 1 : lists.count(heads, at);
        this.checkListed(heads, at, level);
      }
    }
  }

  private checkListed(heads: Int32Array, at: number, level: number): void {
    if (heads[at] > 0) this.checkListedEntry(heads[at], level);
    else for (const sptep of this.entries(heads, at)) this.checkListedEntry(sptep, level);
  }

  private checkListedEntry(sptep: number, level: number): void {
    const lo = this.mmu.arena.words[sptep << 1];
    if (!isShadowPresent(lo)) this.report('rmap', `entry ${sptep} is listed and not present`);
    else if (level > 1 && !isLarge(lo)) this.report('rmap', `entry ${sptep} is listed at level ${level} and not large`);
  }

  private checkLpage(slot: MemSlot): void {
    const { pages } = this.mmu;
    for (let level = 2; level <= MAX_LEVEL; level++) {
      const table = slot.lpageInfo[level - 2];
      if (this.shadowed.length < table.length) this.shadowed = new Int32Array(table.length);
      const { shadowed } = this;
      shadowed.fill(0, 0, table.length);
      for (const sp of this.pages) {
        const role = pages.role[sp];
        const gfn = pages.gfn[sp];
        if (isInvalidRole(role) || !roleHasGptes(role) || roleAddressSpace(role) !== slot.asId) continue;
        if (slot.contains(gfn)) shadowed[gfnToIndex(gfn, slot.baseGfn, level)]++;
      }
      for (let at = 0; at < table.length; at++) {
        const expected = shadowed[at] + (isEdge(slot, level, at) ? 1 : 0);
        if (table[at] !== expected)
          this.report('lpage', `slot ${slot.id}, level ${level}, ${at}: ${table[at]} instead of ${expected}`);
      }
    }
  }

  private compare(name: string, counter: number, actual: number): void {
    if (counter !== actual) this.report('counters', `${name} is ${counter}, there are ${actual}`);
  }

  private checkCounters(): void {
    const { mmu, leaves } = this;
    const { stats, pages } = mmu;
    const all = leaves[1] + leaves[2] + leaves[3];
    const tdp = this.tdpVerifier;
    this.compare('pages_4k', stats.pages_4k, leaves[1] + tdp.leaves[1]);
    this.compare('pages_2m', stats.pages_2m, leaves[2] + tdp.leaves[2]);
    this.compare('pages_1g', stats.pages_1g, leaves[3] + tdp.leaves[3]);
    if (this.listedLeaves !== all) this.report('rmap', `${this.listedLeaves} entries are listed, there are ${all}`);
    let unsync = 0;
    let splits = tdp.nxSplits;
    let indirect = 0;
    let upper = 0;
    for (const sp of this.pages) {
      const role = pages.role[sp];
      if (isInvalidRole(role)) continue;
      if (pages.unsync[sp] !== 0) unsync++;
      if (pages.possibleNx[sp] !== 0) splits++;
      if (!roleHasGptes(role)) continue;
      indirect++;
      if (pages.level(sp) > 1) upper++;
    }
    this.compare('mmu_unsync', stats.mmu_unsync, unsync);
    this.compare('nx_lpage_splits', stats.nx_lpage_splits, splits);
    this.compare('pages that the NX mitigation made', mmu.possibleNxPages.length, splits);
    this.compare('indirect pages', mmu.indirectShadowPages, indirect);
    this.compare('used pages', mmu.nUsedPages, this.pages.length);
    const tracked = this.countTracked();
    if (tracked !== upper) this.report('tracked', `${tracked} times in all, for ${upper} pages`);
  }

  private countTracked(): number {
    let sum = 0;
    for (const set of this.mmu.slots)
      for (const { gfnTrack } of set.slots) if (gfnTrack !== null) sum += sumOf(gfnTrack);
    return sum;
  }
}

function mayWrite(format: SpteFormat, lo: number, hi: number): boolean {
  return isWritable(lo) || isMmuWritable(format, lo, hi);
}

function sumOf(counts: Uint16Array): number {
  const { length } = counts;
  let sum = 0;
  let i = 0;
  for (; i + 4 <= length; i += 4) sum += counts[i] + counts[i + 1] + counts[i + 2] + counts[i + 3];
  for (; i < length; i++) sum += counts[i];
  return sum;
}
