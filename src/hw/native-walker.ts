/**
 * The one-dimensional walk: the CPU's way through tables that the MMU wrote into the TableArena. Under shadow paging it
 * translates guest-virtual addresses; the two-dimensional walk uses one for guest-physical addresses.
 *
 *     root (level 4)      level 3           level 2           level 1
 *     +--------+         +--------+        +--------+        +--------+
 *     | P W U A|-------->| P W U A|------->| P W U A|------->|P W U A D| -> pfn
 *     +--------+         +--------+        +--------+        +--------+
 *      A set as the walk passes            leaf: rights of all levels combined, checked, then A, and D for a write
 *
 * Each entry is checked for P first, then for reserved bits, then A is set in it. A leaf's A waits for the check of
 * rights (but see CpuModel.gigabyteAccessedEarly), so a refused access leaves the leaf as it was.
 *
 * With a PAE root (level 3) the table's first four entries are the PDPTEs: no rights, no A. They are read at each walk,
 * which is what a CPU does that reloads them whenever the root changes.
 *
 * Nearly every walk of four levels passes entries that grant everything and have A set. `pass` tells them by one comparison
 * a word; the first entry that is anything else is `descend`'s, which starts there. 20 ns a walk over 16 Ki pages, at
 * random, and 35 without (npm run bench -- one-dimensional).
 */
import { isCanonical, tableIndex } from '../arch/paging-mode.ts';
import { PFERR_FETCH_LO, PFERR_P_LO, PFERR_RSVD_LO } from '../arch/pferr.ts';
import { PTE_A_LO, PTE_D_LO, PTE_FRAME_HI, PTE_NX_HI, PTE_P_LO, PTE_PS_LO, PTE_U_LO, PTE_W_LO } from '../arch/pte.ts';
import { hex64 } from '../base/u64.ts';
import { TABLE_PFN_BASE, type TableArena } from '../mem/table-arena.ts';
import type { CpuModel } from './cpu-model.ts';
import { fillReserved, newReservedBits, type ReservedBits } from './reserved.ts';
import {
  ACCESS_ERROR_BITS,
  ACCESS_USER,
  ACCESS_WRITE,
  ATTR_D,
  ATTR_G,
  ATTR_HOST_ALL,
  ATTR_PAGE_SHIFT_AT,
  ATTR_PK,
  ATTR_U,
  ATTR_W,
  CTL_NX,
  CTL_PGE,
  CTL_PKE,
  CTL_SMEP,
  rightsFault,
  WALK_NONCANONICAL,
  WALK_OK,
} from './rights.ts';

/** An entry above a leaf that takes no right away and has been passed before. */
const PASSED = PTE_P_LO | PTE_W_LO | PTE_U_LO | PTE_A_LO;
/** The high word of an entry that leads to a table and has no other bit: the arena holds less than 2^20 tables. */
const TABLE_HI = TABLE_PFN_BASE >>> 20;

const LEAF_TO_READ = PTE_P_LO | PTE_U_LO | PTE_A_LO;
const LEAF_TO_WRITE = LEAF_TO_READ | PTE_W_LO | PTE_D_LO;
const ATTR_LEAF = ATTR_HOST_ALL | (12 << ATTR_PAGE_SHIFT_AT);

export class NativeWalker {
  /** Frame of the accessed 4 KiB page, also inside a large entry. Valid after WALK_OK. */
  pfn = 0;
  /** Level of the entry that the walk ended at, be it a leaf or the entry that made it fault. */
  level = 0;
  /** That entry's number in the arena. */
  sptep = 0;
  /** Combined rights for the TLB, see rights.ts. Valid after WALK_OK. */
  attr = 0;
  /** Did this walk set D? */
  setDirty = false;
  /** Protection key rights; only looked at with CTL_PKE. */
  pkru = 0;

  private readonly arena: TableArena;
  private readonly model: CpuModel;
  private readonly rsvdError: number;
  private readonly gigabyteAccessedEarly: boolean;
  private readonly pdpteAccessed: boolean;
  private controls = 0;
  /** Reserved bits of long mode and of PAE, which a PAE root selects. */
  private readonly longReserved = newReservedBits();
  private readonly paeReserved = newReservedBits();
  /** Of an entry that `pass` lets through: the bits that it looks at, and those of them that are set. */
  private passMask = 0;
  private passBits = 0;
  /** Bits of a leaf's high word that `leaf` leaves to `descend`: NX, a key, what is reserved, frames beyond 2^30. */
  private notPlainHi = 0;

  constructor(arena: TableArena, model: CpuModel, controls = CTL_NX) {
    this.arena = arena;
    this.model = model;
    this.rsvdError = model.rsvdReportsPresent ? PFERR_RSVD_LO | PFERR_P_LO : PFERR_RSVD_LO;
    this.gigabyteAccessedEarly = model.gigabyteAccessedEarly;
    this.pdpteAccessed = model.pdptes === 'memory-accessed';
    this.controls = controls;
    this.fill();
  }

  /** CTL_ bits; cheap unless NX changes. */
  setControls(controls: number): void {
    const nxChanged = (controls ^ this.controls) & CTL_NX;
    this.controls = controls;
    if (nxChanged) this.fill();
  }

  private fill(): void {
    const nx = (this.controls & CTL_NX) !== 0;
    fillReserved(this.longReserved, 4, nx, this.model);
    fillReserved(this.paeReserved, 3, nx, this.model);
    const { hi, upperLo } = this.longReserved;
    this.passMask = PASSED | PTE_PS_LO | upperLo;
    // A bit outside of the mask: where the frames of tables are beyond the CPU no entry passes.
    this.passBits = hi & TABLE_HI ? ~this.passMask : PASSED;
    this.notPlainHi = hi | ~0x3ff;
  }

  /**
   * Translates an address. WALK_OK, WALK_NONCANONICAL, or the page fault's error code.
   * `root` is a table number, `rootLevel` 5, 4 or 3 (PAE; the address's high word is ignored then).
   */
  walk(root: number, rootLevel: number, lo: number, hi: number, access: number): number {
    if (!isCanonical(rootLevel, hi)) return WALK_NONCANONICAL;
    this.setDirty = false;
    if (rootLevel === 4) {
      const { words } = this.arena;
      const level3 = this.pass(words, (root << 10) | ((hi >>> 6) & 0x3fe));
      if (level3 === 0) return this.descend(root, 4, this.longReserved, lo, hi, access);
      const level2 = this.pass(words, (level3 << 10) | ((hi & 0x7f) << 3) | ((lo >>> 29) & 6));
      if (level2 === 0) return this.descend(level3, 3, this.longReserved, lo, hi, access);
      const level1 = this.pass(words, (level2 << 10) | ((lo >>> 20) & 0x3fe));
      if (level1 === 0) return this.descend(level2, 2, this.longReserved, lo, hi, access);
      if (this.leaf(words, (level1 << 10) | ((lo >>> 11) & 0x3fe), access)) return WALK_OK;
      return this.descend(level1, 1, this.longReserved, lo, hi, access);
    }
    if (rootLevel === 5) return this.descend(root, 5, this.longReserved, lo, hi, access);

    const words = this.arena.words;
    const reserved = this.paeReserved;
    const sptep = (root << 9) | (lo >>> 30);
    const entryLo = words[sptep << 1];
    const entryHi = words[(sptep << 1) | 1];
    if (!(entryLo & PTE_P_LO)) return this.fault(0, access, 3, sptep);
    if ((entryLo & reserved.pdpteLo) | (entryHi & reserved.pdpteHi)) {
      return this.fault(this.rsvdError, access, 3, sptep);
    }
    if (this.pdpteAccessed) words[sptep << 1] = entryLo | PTE_A_LO;
    return this.descend(tableOf(entryLo, entryHi, words.length, sptep), 2, reserved, lo, 0, access);
  }

  /** The table below an entry that a walk passes without a trace; 0 if `descend` must look at it. `at`: its first word. */
  private pass(words: Int32Array, at: number): number {
    const entry = words[at];
    if ((entry & this.passMask) !== this.passBits || words[at + 1] !== TABLE_HI) return 0;
    const below = entry >>> 12;
    return below << 10 < words.length ? below : 0;
  }

  /**
   * The leaf of 4 KiB below entries that `pass` let through, if a user may do what is asked for and no bit is to be set.
   * False: `descend` must look at it.
   */
  private leaf(words: Int32Array, at: number, access: number): boolean {
    const { controls } = this;
    if (!(access & ACCESS_USER) || controls & CTL_PKE) return false;
    const entryLo = words[at];
    const entryHi = words[at + 1];
    const wanted = access & ACCESS_WRITE ? LEAF_TO_WRITE : LEAF_TO_READ;
    if ((entryLo & wanted) !== wanted || entryHi & this.notPlainHi) return false;
    const rights = ATTR_W | ATTR_U | ATTR_D | (controls & CTL_PGE ? ATTR_G : 0);
    this.attr = (entryLo & rights) | ATTR_LEAF;
    this.level = 1;
    this.sptep = at >>> 1;
    this.pfn = (entryLo >>> 12) | (entryHi << 20);
    return true;
  }

  private descend(root: number, top: number, reserved: ReservedBits, lo: number, hi: number, access: number): number {
    const words = this.arena.words;
    const limit = words.length;
    const rsvdHi = reserved.hi;
    let table = root;
    let level = top;
    let low = PTE_W_LO | PTE_U_LO;
    let high = 0;
    let sptep = 0;
    let entryLo = 0;
    let entryHi = 0;
    for (;;) {
      sptep = (table << 9) | tableIndex(level, lo, hi);
      entryLo = words[sptep << 1];
      entryHi = words[(sptep << 1) | 1];
      if (!(entryLo & PTE_P_LO)) return this.fault(0, access, level, sptep);
      low &= entryLo;
      high |= entryHi;
      if (entryHi & rsvdHi) return this.fault(this.rsvdError, access, level, sptep);
      if (level === 1) break;
      if (level > 3) {
        if (entryLo & reserved.upperLo) return this.fault(this.rsvdError, access, level, sptep);
      } else if (entryLo & PTE_PS_LO) {
        if (entryLo & (level === 2 ? reserved.large2Lo : reserved.large3Lo)) {
          return this.fault(this.rsvdError, access, level, sptep);
        }
        break;
      }
      if (!(entryLo & PTE_A_LO)) words[sptep << 1] = entryLo | PTE_A_LO;
      table = tableOf(entryLo, entryHi, limit, sptep);
      level--;
    }

    if (level === 3 && this.gigabyteAccessedEarly) words[sptep << 1] = entryLo |= PTE_A_LO;
    const controls = this.controls;
    let attr = (low & (ATTR_W | ATTR_U)) | (high & PTE_NX_HI) | (entryHi & ATTR_PK) | ATTR_HOST_ALL;
    const denied = rightsFault(attr, access, controls, this.pkru);
    if (denied !== WALK_OK) return this.fault(denied, access, level, sptep);
    const set = access & ACCESS_WRITE ? PTE_A_LO | PTE_D_LO : PTE_A_LO;
    if ((entryLo & set) !== set) {
      this.setDirty = (set & ~entryLo & PTE_D_LO) !== 0;
      words[sptep << 1] = entryLo |= set;
    }
    attr |= (entryLo & ATTR_D) | ((3 + 9 * level) << ATTR_PAGE_SHIFT_AT);
    if (controls & CTL_PGE) attr |= entryLo & ATTR_G;
    this.attr = attr;
    this.level = level;
    this.sptep = sptep;
    // Large frames' low bits are zero but for PAT, which isn't the frame's.
    const inside = pagesMask(level);
    const page = (lo >>> 12) & inside;
    const frameLo = (entryLo >>> 12) & ~inside;
    const frameHi = entryHi & PTE_FRAME_HI;
    // An int as long as it fits: the sum below is slow.
    this.pfn = frameHi < 0x400 ? (frameHi << 20) | frameLo | page : frameHi * 0x100000 + (frameLo | page);
    return WALK_OK;
  }

  private fault(bits: number, access: number, level: number, sptep: number): number {
    this.level = level;
    this.sptep = sptep;
    const reported = this.controls & (CTL_NX | CTL_SMEP) ? ACCESS_ERROR_BITS : ACCESS_ERROR_BITS & ~PFERR_FETCH_LO;
    return bits | (access & reported);
  }
}

/** Frames that a leaf of a level covers, less one. */
function pagesMask(level: number): number {
  return level === 1 ? 0 : level === 2 ? 511 : 0x3ffff;
}

/** The table that a non-leaf entry holds. Hardware would walk any frame; one that is no table is the MMU's bug. */
function tableOf(entryLo: number, entryHi: number, words: number, sptep: number): number {
  const table = ((entryLo >>> 12) | (entryHi << 20)) - TABLE_PFN_BASE;
  if (table <= 0 || table << 10 >= words || entryHi & (PTE_FRAME_HI & ~0x3ff)) {
    throw new Error(`entry ${sptep}, ${hex64(entryLo, entryHi)}, leads to no table`);
  }
  return table;
}
