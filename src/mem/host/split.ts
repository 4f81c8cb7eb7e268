/**
 * Splitting a block: one 2 MiB entry becomes a table of 512 entries for the same pages.
 *
 *     THP W E        ->  512 x page W E (clean: the dirty bit is not carried over in 6.1)
 *     huge zero      ->  512 x zero page
 *     table or none  ->  as it was, but the event comes all the same
 */
import { type HostContext, rangeEnd, rangeStart } from './context.ts';
import { CHUNK_FRAMES, HUGE_ZERO_PFN, ZERO_PFN } from './frames.ts';
import {
  alignDown,
  alignUp,
  BLOCK,
  blockIndex,
  newTable,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_LEAF,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_TABLE,
  PTE_WRITE,
  type Pud,
} from './host-tables.ts';
import { type Vma } from './vmas.ts';

/** The block's event, and the split inside it (Linux's __split_huge_pmd). */
export function splitBlock(mm: HostContext, pud: Pud, hva: number): void {
  const start = alignDown(hva, BLOCK);
  rangeStart(mm, start, start + BLOCK);
  if (pud.blockFlags[blockIndex(start)] & PTE_LEAF) splitEntry(mm, pud, blockIndex(start));
  rangeEnd(mm, start, start + BLOCK);
}

/**
 * A boundary is about to be placed at `at` inside `vma`. The event comes if the block of `at` lies wholly inside the
 * VMA and something near it was ever mapped, whatever the block itself holds (vma_adjust_trans_huge, mm_find_pmd).
 */
export function splitForCut(mm: HostContext, vma: Vma, at: number): void {
  if (at % BLOCK === 0 || alignDown(at, BLOCK) < vma.start || alignUp(at, BLOCK) > vma.end) return;
  const pud = mm.tables.pud(at);
  if (pud !== null) splitBlock(mm, pud, at);
}

function splitEntry(mm: HostContext, pud: Pud, block: number): void {
  const head = pud.blockPfn[block];
  const flags = pud.blockFlags[block];
  const table = newTable();
  if (head === HUGE_ZERO_PFN) {
    table.pfn.fill(ZERO_PFN);
    table.flags.fill(PTE_PRESENT | (flags & PTE_PROTNONE));
  } else {
    const dirty = mm.options.kernel === '6.1' ? 0 : PTE_DIRTY;
    for (let i = 0; i < CHUNK_FRAMES; i++) table.pfn[i] = head + i;
    table.flags.fill(flags & (PTE_PRESENT | PTE_WRITE | PTE_EXCLUSIVE | PTE_PROTNONE | dirty));
    mm.frames.get(head, CHUNK_FRAMES - 1);
  }
  pud.tables[block] = table;
  pud.blockPfn[block] = 0;
  pud.blockFlags[block] = PTE_PRESENT | PTE_TABLE;
}
