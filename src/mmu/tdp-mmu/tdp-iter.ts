/**
 * Walk of one root's tables in the order of guest frames, each table before what hangs below it.
 *
 *     const it = new TdpIter();
 *     for (it.start(mmu, root, minLevel, startGfn); it.valid && it.gfn < endGfn; it.next(mmu)) { it.sptep, it.oldLo ... }
 *
 * At each step there is a snapshot of the entry, `oldLo` and `oldHi`, which compare-and-exchange holds against. Before
 * it goes down the entry is read again, so that no table is entered that was unlinked meanwhile.
 *
 * A walk may give way to others (`condResched` in set-spte.ts). Then the tables it stood in may be gone, and the next
 * step begins again at the root, towards the frame that it had come to.
 *
 * Source: Linux 6.1 tdp_iter.c.
 */
import type { Mmu } from '../mmu.ts';
import { roleAddressSpace, roleLevel } from '../role.ts';
import { childOf, sptepAt } from '../shadow-pages.ts';
import { isLast, isShadowPresent } from '../spte.ts';

const MAX_LEVELS = 5;
const LAST_INDEX = 511;

// Frames lie below 2^31, so a fifth level's first entry leads to all of them. All is done in ints: pagesPerLevel(5) is none.

/** @kvm round_gfn_for_level */
function roundGfn(gfn: number, level: number): number {
  return level === MAX_LEVELS ? 0 : gfn & -pagesBelow(level);
}

function indexOfGfn(gfn: number, level: number): number {
  return level === MAX_LEVELS ? 0 : (gfn >>> (9 * (level - 1))) & LAST_INDEX;
}

/** Pages that an entry maps, below level 5. */
function pagesBelow(level: number): number {
  return 1 << (9 * (level - 1));
}

/** The table of 4 KiB entries that `gfn` has under a root; 0: none. */
export function smallTable(mmu: Mmu, root: number, gfn: number): number {
  const { words } = mmu.arena;
  let table = root;
  for (let level = roleLevel(mmu.pages.role[root]); level > 1; level--) {
    const at = sptepAt(table, indexOfGfn(gfn, level)) << 1;
    if (!isShadowPresent(words[at]) || isLast(words[at], level)) return 0;
    table = childOf(words[at], words[at + 1]);
  }
  return table;
}

export class TdpIter {
  /** First frame that the entry at hand maps. */
  gfn = 0;
  level = 0;
  sptep = 0;
  asId = 0;
  /** The entry, as it was when the walk came here or when a compare-and-exchange failed last. */
  oldLo = 0;
  oldHi = 0;
  /** False once the walk has left the tables at their end. */
  valid = false;
  /** Others ran in between: nothing but `next` may be called. */
  yielded = false;
  /** Where the walk is going to. */
  nextLastLevelGfn = 0;
  /** Where it was when it last yielded; it doesn't yield twice at one place, so that it comes on. */
  yieldedGfn = 0;
  private rootLevel = 0;
  private minLevel = 1;
  /** Table by level. */
  private readonly path = new Int32Array(MAX_LEVELS + 1);

  /** At one entry, without a walk. */
  at(mmu: Mmu, sptep: number, gfn: number, level: number, asId: number): void {
    this.sptep = sptep;
    this.gfn = gfn;
    this.level = level;
    this.asId = asId;
    this.valid = true;
    this.yielded = false;
    this.reread(mmu);
  }

  /** From the entry of `gfn` in `root` on; levels below `minLevel` are not entered. @kvm tdp_iter_start */
  start(mmu: Mmu, root: number, minLevel: number, gfn: number): void {
    const role = mmu.pages.role[root];
    this.rootLevel = roleLevel(role);
    this.asId = roleAddressSpace(role);
    this.minLevel = minLevel;
    this.nextLastLevelGfn = gfn;
    this.path[this.rootLevel] = root;
    this.restart(mmu);
  }

  /** @kvm tdp_iter_restart */
  private restart(mmu: Mmu): void {
    this.yielded = false;
    this.yieldedGfn = this.nextLastLevelGfn;
    this.level = this.rootLevel;
    this.gfn = roundGfn(this.nextLastLevelGfn, this.level);
    this.refresh(mmu);
    this.valid = true;
  }

  /** To the next entry. @kvm tdp_iter_next */
  next(mmu: Mmu): void {
    if (this.yielded) {
      this.restart(mmu);
      return;
    }
    if (this.stepDown(mmu)) return;
    for (;;) {
      if (this.stepSide(mmu)) return;
      if (this.level === this.rootLevel) break;
      this.stepUp();
    }
    this.valid = false;
  }

  /** To another entry of the table at hand. */
  goTo(mmu: Mmu, gfn: number): void {
    this.gfn = gfn;
    this.nextLastLevelGfn = gfn;
    this.refresh(mmu);
  }

  /** Reads the entry at hand anew. */
  reread(mmu: Mmu): void {
    const { words } = mmu.arena;
    this.oldLo = words[this.sptep << 1];
    this.oldHi = words[(this.sptep << 1) + 1];
  }

  /** @kvm tdp_iter_refresh_sptep */
  private refresh(mmu: Mmu): void {
    const index = indexOfGfn(this.gfn, this.level);
    this.sptep = (this.path[this.level] << 9) | index;
    this.reread(mmu);
  }

  /** @kvm try_step_down */
  private stepDown(mmu: Mmu): boolean {
    if (this.level === this.minLevel) return false;
    this.reread(mmu);
    if (!isShadowPresent(this.oldLo) || isLast(this.oldLo, this.level)) return false;
    const child = childOf(this.oldLo, this.oldHi);
    this.level--;
    this.path[this.level] = child;
    this.gfn = roundGfn(this.nextLastLevelGfn, this.level);
    this.refresh(mmu);
    return true;
  }

  /** @kvm try_step_side */
  private stepSide(mmu: Mmu): boolean {
    if ((this.sptep & LAST_INDEX) === LAST_INDEX || this.level === MAX_LEVELS) return false;
    this.gfn = (this.gfn + pagesBelow(this.level)) | 0;
    this.nextLastLevelGfn = this.gfn;
    this.sptep++;
    this.reread(mmu);
    return true;
  }

  /** Back to the entry that led here; it was visited, and the next step goes aside. @kvm try_step_up */
  private stepUp(): void {
    this.level++;
    this.gfn = roundGfn(this.gfn, this.level);
    const index = indexOfGfn(this.gfn, this.level);
    this.sptep = (this.path[this.level] << 9) | index;
  }
}
