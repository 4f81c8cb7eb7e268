/**
 * The process's own page tables, as entries in typed arrays.
 *
 *     1 GiB (pud)      none | leaf (hugetlb 1G) | 512 blocks
 *     2 MiB (block)    none | leaf (THP, huge zero page, hugetlb 2M) | table
 *     4 KiB (pte)      none | page | zero page
 *
 * An entry is a frame number and a byte of flags:
 *
 *     7 6 5       4     3      2          1      0
 *     - - TABLE   LEAF  DIRTY  EXCLUSIVE  WRITE  PRESENT        PROTNONE: present, but for nobody
 *
 * EXCLUSIVE says that the page is this process's alone. It belongs to the page in Linux; here each page is mapped once.
 *
 * INVARIANT exclusive: a writable entry maps an exclusive page, never a zero page.
 * INVARIANT table: a block becomes a table when it is cut or written small, and none again only when all its VMAs go.
 */

export const PTE_PRESENT = 1;
export const PTE_WRITE = 2;
export const PTE_EXCLUSIVE = 4;
export const PTE_DIRTY = 8;
export const PTE_LEAF = 16;
export const PTE_TABLE = 32;
export const PTE_PROTNONE = 64;

export const PAGE = 4096;
export const BLOCK = 0x200000;
export const GIGA = 0x40000000;
const ENTRIES = 512;

export interface PteTable {
  pfn: Int32Array;
  flags: Uint8Array;
}

/** One present PUD entry. */
export interface Pud {
  leafPfn: number;
  leafFlags: number;
  blockPfn: Int32Array;
  blockFlags: Uint8Array;
  tables: (PteTable | null)[];
}

export function newTable(): PteTable {
  return { pfn: new Int32Array(ENTRIES), flags: new Uint8Array(ENTRIES) };
}

/** Index of the block of `hva` in its PUD. */
export function blockIndex(hva: number): number {
  return Math.floor(hva / BLOCK) % ENTRIES;
}

/** Index of the page of `hva` in its block. */
export function pteIndex(hva: number): number {
  return Math.floor(hva / PAGE) % ENTRIES;
}

export function alignDown(hva: number, size: number): number {
  return hva - (hva % size);
}

export function alignUp(hva: number, size: number): number {
  return alignDown(hva + size - 1, size);
}

export type HostTablesState = [number, Pud][];

export class HostTables {
  /** By hva / 1 GiB. */
  private puds = new Map<number, Pud>();

  pud(hva: number): Pud | null {
    return this.puds.get(Math.floor(hva / GIGA)) ?? null;
  }

  /** The PUD entry of `hva`, made if it was none. */
  ensurePud(hva: number): Pud {
    const key = Math.floor(hva / GIGA);
    let pud = this.puds.get(key);
    if (!pud) {
      const tables: (PteTable | null)[] = new Array(ENTRIES).fill(null);
      const [blockPfn, blockFlags] = [new Int32Array(ENTRIES), new Uint8Array(ENTRIES)];
      pud = { leafPfn: 0, leafFlags: 0, blockPfn, blockFlags, tables };
      this.puds.set(key, pud);
    }
    return pud;
  }

  dropPud(hva: number): void {
    this.puds.delete(Math.floor(hva / GIGA));
  }

  /** The table of the block, made if the block was none. */
  ensureTable(pud: Pud, block: number): PteTable {
    let table = pud.tables[block];
    if (!table) {
      table = newTable();
      pud.tables[block] = table;
      pud.blockFlags[block] = PTE_PRESENT | PTE_TABLE;
      pud.blockPfn[block] = 0;
    }
    return table;
  }

  clearBlock(pud: Pud, block: number): void {
    pud.blockFlags[block] = 0;
    pud.blockPfn[block] = 0;
    pud.tables[block] = null;
  }

  /** Calls `visit` for every present PUD entry in [start, end), ascending, with its part of the range. */
  eachPud(start: number, end: number, visit: (pud: Pud, from: number, to: number) => void): void {
    for (let from = start; from < end; ) {
      const to = Math.min(alignDown(from, GIGA) + GIGA, end);
      const pud = this.pud(from);
      if (pud) visit(pud, from, to);
      from = to;
    }
  }

  /** All PUD entries with their number (hva / 1 GiB), ascending. For checks. */
  all(): [number, Pud][] {
    return [...this.puds].sort((a, b) => a[0] - b[0]);
  }

  save(): HostTablesState {
    return this.all().map(([key, pud]) => [key, copyPud(pud)]);
  }

  load(state: HostTablesState): void {
    this.puds = new Map(state.map(([key, pud]) => [key, copyPud(pud)]));
  }
}

/** Calls `visit` for every block of [start, end), which lies in one PUD, with its part of the range. */
export function eachBlock(start: number, end: number, visit: (block: number, from: number, to: number) => void): void {
  for (let from = start; from < end; ) {
    const to = Math.min(alignDown(from, BLOCK) + BLOCK, end);
    visit(blockIndex(from), from, to);
    from = to;
  }
}

function copyPud(pud: Pud): Pud {
  return {
    leafPfn: pud.leafPfn,
    leafFlags: pud.leafFlags,
    blockPfn: pud.blockPfn.slice(),
    blockFlags: pud.blockFlags.slice(),
    tables: pud.tables.map((t) => t && { pfn: t.pfn.slice(), flags: t.flags.slice() }),
  };
}
