/**
 * The walk of Intel's extended page tables: guest-physical to host-physical addresses, through tables that the MMU wrote
 * into the TableArena.
 *
 *     each entry    none of R, W, X   --> EPT violation: nothing is there
 *                   misconfigured     --> EPT misconfiguration, whatever the access
 *                   leads on          --> A, if EPTP says so
 *     leaf          R, W, X of all entries, combined, lack what the access needs   --> EPT violation
 *                   a write would set D, and the log of pages has no room          --> PML full
 *                   else A; D and a line of the log for a write
 *
 * An access is what an EPT violation reports of it: EPTQ_READ, EPTQ_WRITE, EPTQ_FETCH, or several. A refused access leaves the
 * leaf as it was.
 *
 * Source: Intel SDM vol. 3, 29.3 (28.3 in older editions).
 */
import { tableIndex } from '../arch/paging-mode.ts';
import {
  EPTE_1G_RSVD_LO,
  EPTE_2M_RSVD_LO,
  EPTE_A_LO,
  EPTE_D_LO,
  EPTE_FRAME_HI,
  EPTE_MT_LO,
  EPTE_MT_SHIFT,
  EPTE_MT_VALID,
  EPTE_PS_LO,
  EPTE_R_LO,
  EPTE_RWX_LO,
  EPTE_TABLE_RSVD_LO,
  EPTE_W_LO,
  EPTE_X_LO,
  EPTQ_RIGHTS_SHIFT,
  EPTQ_WRITE,
} from '../arch/ept.ts';
import { hex64 } from '../base/u64.ts';
import { TABLE_PFN_BASE, type TableArena } from '../mem/table-arena.ts';
import type { CpuModel } from './cpu-model.ts';
import type { PmlBuffer } from './pml-buffer.ts';
import { ATTR_D, ATTR_HOST_ALL, ATTR_NX, ATTR_PAGE_SHIFT_AT, ATTR_U, ATTR_W, WALK_OK } from './rights.ts';

/** The walk met a misconfigured entry. */
export const EPT_MISCONFIG = -5;
/** The page-modification log has no room for the page that the access would make dirty. */
export const EPT_PML_FULL = -6;

/** What the CPU can do, and EPTP turns on. */
export interface EptMode {
  /** A and D; EPTP bit 6. */
  readonly ad: boolean;
  /** X without R. */
  readonly executeOnly: boolean;
}

export class EptWalker {
  /** Frame of the accessed 4 KiB page, also inside a large entry. Valid after WALK_OK. */
  pfn = 0;
  /** Level of the entry that the walk ended at. */
  level = 0;
  /** That entry's number in the arena. */
  sptep = 0;
  /** Rights for the TLB: ATTR_W, ATTR_NX, ATTR_D; ATTR_U if it may be read. D is set where none is kept. Valid after WALK_OK. */
  attr = 0;
  /** The CPU's log of dirty pages. */
  readonly pml: PmlBuffer;
  readonly ad: boolean;

  private readonly arena: TableArena;
  private readonly executeOnly: boolean;
  private readonly gigabytePages: boolean;
  private readonly reservedHi: number;

  /** `model`: the host's. */
  constructor(arena: TableArena, model: CpuModel, mode: EptMode, pml: PmlBuffer) {
    this.arena = arena;
    this.ad = mode.ad;
    this.executeOnly = mode.executeOnly;
    this.gigabytePages = model.gigabytePages;
    this.reservedHi = model.maxphyaddr >= 52 ? 0 : EPTE_FRAME_HI & ~((1 << (model.maxphyaddr - 32)) - 1);
    this.pml = pml;
  }

  /**
   * Translates a guest-physical address. WALK_OK; EPT_MISCONFIG; EPT_PML_FULL; or an EPT violation: the access and the rights,
   * bits 0 to 5 of the exit qualification.
   */
  walk(root: number, rootLevel: number, lo: number, hi: number, access: number): number {
    const { words } = this.arena;
    let table = root;
    let rights = EPTE_RWX_LO;
    for (let level = rootLevel; ; level--) {
      const sptep = (table << 9) | tableIndex(level, lo, hi);
      const entryLo = words[sptep << 1];
      const entryHi = words[(sptep << 1) | 1];
      this.sptep = sptep;
      this.level = level;
      if ((entryLo & EPTE_RWX_LO) === 0) return access;
      const leaf = level === 1 || (level <= 3 && (entryLo & EPTE_PS_LO) !== 0);
      if (this.isMisconfigured(entryLo, entryHi, level, leaf)) return EPT_MISCONFIG;
      rights &= entryLo;
      if (leaf) return this.leaf(sptep, entryLo, entryHi, level, rights, lo, hi, access);
      if (this.ad && !(entryLo & EPTE_A_LO)) words[sptep << 1] = entryLo | EPTE_A_LO;
      table = tableOf(entryLo, entryHi, words.length, sptep);
    }
  }

  private isMisconfigured(lo: number, hi: number, level: number, leaf: boolean): boolean {
    if (!(lo & EPTE_R_LO) && (lo & EPTE_W_LO || !this.executeOnly)) return true;
    if (hi & this.reservedHi) return true;
    if (!leaf) return (lo & (level > 3 ? EPTE_TABLE_RSVD_LO | EPTE_PS_LO : EPTE_TABLE_RSVD_LO)) !== 0;
    if (!((EPTE_MT_VALID >>> ((lo & EPTE_MT_LO) >>> EPTE_MT_SHIFT)) & 1)) return true;
    if (level === 1) return false;
    if (level === 3 && !this.gigabytePages) return true;
    return (lo & (level === 2 ? EPTE_2M_RSVD_LO : EPTE_1G_RSVD_LO)) !== 0;
  }

  private leaf(
    sptep: number,
    entryLo: number,
    entryHi: number,
    level: number,
    rights: number,
    lo: number,
    hi: number,
    access: number,
  ): number {
    // Both have R, W, X at bits 0 to 2: read, write, fetch.
    if (access & ~rights) return access | (rights << EPTQ_RIGHTS_SHIFT);
    let entry = entryLo;
    if (this.ad) {
      const set = access & EPTQ_WRITE ? EPTE_A_LO | EPTE_D_LO : EPTE_A_LO;
      if (set & ~entry & EPTE_D_LO && this.pml.enabled) {
        if (this.pml.isFull) return EPT_PML_FULL;
        this.pml.push(lo, hi);
      }
      if ((entry & set) !== set) this.arena.words[sptep << 1] = entry |= set;
    }
    this.attr =
      (rights & EPTE_W_LO ? ATTR_W : 0) |
      (rights & EPTE_X_LO ? 0 : ATTR_NX) |
      (rights & EPTE_R_LO ? ATTR_U : 0) |
      (!this.ad || entry & EPTE_D_LO ? ATTR_D : 0) |
      ATTR_HOST_ALL |
      ((3 + 9 * level) << ATTR_PAGE_SHIFT_AT);
    const inside = level === 1 ? 0 : level === 2 ? 511 : 0x3ffff;
    const frameHi = entryHi & EPTE_FRAME_HI;
    const frameLo = (entryLo >>> 12) | ((lo >>> 12) & inside);
    this.pfn = frameHi < 0x400 ? (frameHi << 20) | frameLo : frameHi * 0x100000 + frameLo;
    return WALK_OK;
  }
}

/** The table that an entry leads to. Hardware would walk any frame; one that is no table is the MMU's bug. */
function tableOf(entryLo: number, entryHi: number, words: number, sptep: number): number {
  const table = ((entryLo >>> 12) | (entryHi << 20)) - TABLE_PFN_BASE;
  if (table <= 0 || table << 10 >= words || entryHi & (EPTE_FRAME_HI & ~0x3ff))
    throw new Error(`entry ${sptep}, ${hex64(entryLo, entryHi)}, leads to no table`);
  return table;
}
