/**
 * Builders for tests of the walkers: host memory of a few frames, and page tables in it or in a TableArena.
 */
import { tableIndex } from '../../arch/paging-mode.ts';
import { PTE_A_LO, PTE_P_LO, PTE_PS_LO, PTE_U_LO, PTE_W_LO } from '../../arch/pte.ts';
import type { PhysMemory } from '../../mem/phys-memory.ts';
import { TABLE_PFN_BASE, type TableArena } from '../../mem/table-arena.ts';

/** What KVM writes into entries that lead to tables. */
export const NON_LEAF_LO = PTE_P_LO | PTE_W_LO | PTE_U_LO;

/** Host frames 0 to `frames` - 1. Counts writes, so that a test can see that a walk made none. */
export class FlatMemory implements PhysMemory {
  readonly words: Int32Array;
  writes = 0;

  constructor(frames: number) {
    this.words = new Int32Array(frames << 10);
  }

  private at(pfn: number, offset: number): number {
    const at = (pfn << 10) | (offset >> 2);
    if (pfn < 0 || at >= this.words.length) throw new Error(`frame ${pfn} is outside of the test's memory`);
    return at;
  }

  read32(pfn: number, offset: number): number {
    return this.words[this.at(pfn, offset)];
  }

  write32(pfn: number, offset: number, value: number): void {
    this.writes++;
    this.words[this.at(pfn, offset)] = value;
  }

  read8(pfn: number, offset: number): number {
    return (this.read32(pfn, offset) >>> (8 * (offset & 3))) & 0xff;
  }

  write8(pfn: number, offset: number, value: number): void {
    const shift = 8 * (offset & 3);
    this.write32(pfn, offset, (this.read32(pfn, offset) & ~(0xff << shift)) | (value << shift));
  }
}

/** Writes a table entry in the arena: `flagsLo`, `flagsHi` and a frame number. */
export function setEntry(arena: TableArena, sptep: number, pfn: number, flagsLo: number, flagsHi = 0): void {
  arena.words[2 * sptep] = (pfn << 12) | flagsLo;
  arena.words[2 * sptep + 1] = (pfn >>> 20) | flagsHi;
}

/**
 * Maps an address in the arena's tables with a leaf at `level` (1-3), making the tables above as they are needed.
 * `rootLevel` 3 is a PAE root. Returns the leaf's entry number. PS is added by itself.
 */
export function mapInArena(
  arena: TableArena,
  root: number,
  rootLevel: number,
  lo: number,
  hi: number,
  level: number,
  pfn: number,
  flagsLo: number,
  flagsHi = 0,
): number {
  let table = root;
  for (let at = rootLevel; at > level; at--) {
    const index = rootLevel === 3 && at === 3 ? lo >>> 30 : tableIndex(at, lo, hi);
    const sptep = (table << 9) | index;
    if (!(arena.words[2 * sptep] & PTE_P_LO)) {
      const child = arena.alloc();
      setEntry(arena, sptep, TABLE_PFN_BASE + child, rootLevel === 3 && at === 3 ? PTE_P_LO : NON_LEAF_LO);
    }
    table = ((arena.words[2 * sptep] >>> 12) | ((arena.words[2 * sptep + 1] & 0xfffff) << 20)) - TABLE_PFN_BASE;
  }
  const sptep = (table << 9) | tableIndex(level, lo, hi);
  setEntry(arena, sptep, pfn, flagsLo | (level > 1 ? PTE_PS_LO : 0), flagsHi);
  return sptep;
}

/** The entries that lead to `lo`, `hi` from the root, root first, as entry numbers. */
export function pathInArena(arena: TableArena, root: number, rootLevel: number, lo: number, hi: number): number[] {
  const path: number[] = [];
  let table = root;
  for (let level = rootLevel; level >= 1; level--) {
    const sptep = (table << 9) | (rootLevel === 3 && level === 3 ? lo >>> 30 : tableIndex(level, lo, hi));
    path.push(sptep);
    const entry = arena.words[2 * sptep];
    if (!(entry & PTE_P_LO) || level === 1 || (level <= 3 && entry & PTE_PS_LO)) break;
    table = ((entry >>> 12) | ((arena.words[2 * sptep + 1] & 0xfffff) << 20)) - TABLE_PFN_BASE;
  }
  return path;
}

/** Writes an 8-byte guest entry: frame `gfn` and flags, into table frame `table`. */
export function setGuestEntry(
  memory: FlatMemory,
  table: number,
  index: number,
  gfn: number,
  flagsLo: number,
  flagsHi = 0,
): void {
  memory.words[(table << 10) | (2 * index)] = (gfn << 12) | flagsLo;
  memory.words[(table << 10) | (2 * index + 1)] = (gfn >>> 20) | flagsHi;
}

/** Is A set? */
export function accessed(entryLo: number): boolean {
  return (entryLo & PTE_A_LO) !== 0;
}
