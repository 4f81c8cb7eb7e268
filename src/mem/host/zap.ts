/**
 * Taking mappings away: madvise DONTNEED and munmap.
 *
 *     block            covered whole           covered in part
 *     THP, huge zero   none                    [split event], then as a table
 *     table            all entries none        those entries none
 *     hugetlb          none                    (cannot be)
 *
 * Page tables go only with the last VMA over their span (`freeTables`).
 */
import { type HostContext } from './context.ts';
import { HUGE_ZERO_PFN, ZERO_PFN } from './frames.ts';
import { alignDown, BLOCK, eachBlock, GIGA, PAGE, PTE_LEAF, pteIndex, type PteTable, type Pud } from './host-tables.ts';
import { zapHugetlb } from './hugetlb.ts';
import { splitBlock } from './split.ts';
import { VM_HUGETLB, type Vma } from './vmas.ts';

/**
 * Clears what is mapped in [start, end), which lies in `vma`. The caller makes the range's own event, and drains the
 * LRU batches once more if this was true: some page was given back (free_pages_and_swap_cache does so).
 */
export function zapRange(mm: HostContext, vma: Vma, start: number, end: number): boolean {
  if ((vma.flags & VM_HUGETLB) !== 0) return zapHugetlb(mm, vma, start, end);
  let freed = false;
  mm.tables.eachPud(start, end, (pud, from, to) => {
    eachBlock(from, to, (block, first, last) => {
      if (zapBlock(mm, pud, block, first, last)) freed = true;
    });
  });
  return freed;
}

function zapBlock(mm: HostContext, pud: Pud, block: number, from: number, to: number): boolean {
  if ((pud.blockFlags[block] & PTE_LEAF) !== 0) {
    if (to - from === BLOCK) {
      const pfn = pud.blockPfn[block];
      mm.tables.clearBlock(pud, block);
      if (pfn === HUGE_ZERO_PFN) return false;
      mm.frames.put(pfn);
      return true;
    }
    splitBlock(mm, pud, from);
  }
  const table = pud.tables[block];
  return table ? zapPages(mm, table, pteIndex(from), (to - from) / PAGE) : false;
}

function zapPages(mm: HostContext, table: PteTable, first: number, count: number): boolean {
  let freed = false;
  for (let i = first; i < first + count; i++) {
    if (table.flags[i] === 0) continue;
    const pfn = table.pfn[i];
    table.pfn[i] = 0;
    table.flags[i] = 0;
    if (pfn === ZERO_PFN) continue;
    mm.frames.put(pfn);
    freed = true;
  }
  return freed;
}

/** The VMAs `gone` are out of the list: tables whose span no VMA overlaps any more go too (free_pgtables). */
export function freeTables(mm: HostContext, gone: readonly Vma[]): void {
  for (const vma of gone) {
    mm.tables.eachPud(vma.start, vma.end, (pud, from, to) => {
      const giga = alignDown(from, GIGA);
      if (!mm.vmas.overlaps(giga, giga + GIGA)) {
        mm.tables.dropPud(from);
        return;
      }
      eachBlock(from, to, (block, first) => {
        const start = alignDown(first, BLOCK);
        if (pud.tables[block] && !mm.vmas.overlaps(start, start + BLOCK)) mm.tables.clearBlock(pud, block);
      });
    });
  }
}
