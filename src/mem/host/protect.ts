/**
 * mprotect's and fork's passes over the entries.
 *
 *     mprotect    write goes from every entry; PROT_NONE hides it. To a writable VMA, exclusive and dirty small pages
 *                 get it back at once; a THP, a zero page, a clean page wait for the write fault
 *     fork        every entry read-only, no page exclusive any more
 */
import { type HostContext, rangeEnd, rangeStart } from './context.ts';
import { HUGE_ZERO_PFN } from './frames.ts';
import {
  alignDown,
  BLOCK,
  eachBlock,
  PAGE,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_LEAF,
  PTE_PROTNONE,
  PTE_WRITE,
  pteIndex,
  type PteTable,
  type Pud,
} from './host-tables.ts';
import { protectHugetlb, shareHugetlb } from './hugetlb.ts';
import { splitBlock } from './split.ts';
import { VM_ACCESS, VM_HUGETLB, VM_WRITE, type Vma } from './vmas.ts';

const TABLES_SPAN = 512 * 0x40000000;

/** The entries of [start, end) take on the rights of `vma`, which has its new flags already. */
export function protectRange(mm: HostContext, vma: Vma, start: number, end: number): void {
  if ((vma.flags & VM_HUGETLB) !== 0) protectHugetlb(mm, vma, start, end);
  else if (mm.options.kernel === '6.1') {
    mm.tables.eachPud(start, end, (pud, from, to) => protectPud(mm, vma, pud, from, to));
  } else protectFromPud(mm, vma, start, end);
}

/** One event for each 1 GiB, from the first block that has an entry to the end of the range there. */
function protectPud(mm: HostContext, vma: Vma, pud: Pud, start: number, end: number): void {
  let first = -1;
  eachBlock(start, end, (block, from, to) => {
    if (pud.blockFlags[block] === 0) return;
    if (first < 0) {
      first = from;
      rangeStart(mm, first, end);
    }
    protectBlock(mm, vma, pud, block, from, to);
  });
  if (first >= 0) rangeEnd(mm, first, end);
}

/** 6.12: one event from the first present PUD entry on, for each 512 GiB. */
function protectFromPud(mm: HostContext, vma: Vma, start: number, end: number): void {
  for (let from = start; from < end; ) {
    const to = Math.min(alignDown(from, TABLES_SPAN) + TABLES_SPAN, end);
    let first = -1;
    mm.tables.eachPud(from, to, (pud, low, high) => {
      if (first < 0) {
        first = low;
        rangeStart(mm, first, to);
      }
      eachBlock(low, high, (block, a, b) => {
        if (pud.blockFlags[block] !== 0) protectBlock(mm, vma, pud, block, a, b);
      });
    });
    if (first >= 0) rangeEnd(mm, first, to);
    from = to;
  }
}

function protectBlock(mm: HostContext, vma: Vma, pud: Pud, block: number, from: number, to: number): void {
  const flags = pud.blockFlags[block];
  if ((flags & PTE_LEAF) !== 0) {
    if (to - from === BLOCK) {
      const early = mm.options.kernel === '6.12' && pud.blockPfn[block] !== HUGE_ZERO_PFN;
      pud.blockFlags[block] = newFlags(vma, flags, early);
      return;
    }
    splitBlock(mm, pud, from);
  }
  const table = pud.tables[block] as PteTable;
  const first = pteIndex(from);
  for (let i = first; i < first + (to - from) / PAGE; i++) {
    const old = table.flags[i];
    if (old !== 0) table.flags[i] = newFlags(vma, old, true);
  }
}

/** `early`: write may come back without a fault (can_change_pte_writable). */
function newFlags(vma: Vma, old: number, early: boolean): number {
  const flags = old & ~(PTE_WRITE | PTE_PROTNONE);
  if ((vma.flags & VM_ACCESS) === 0) return flags | PTE_PROTNONE;
  const ready = PTE_EXCLUSIVE | PTE_DIRTY;
  return early && (vma.flags & VM_WRITE) !== 0 && (flags & ready) === ready ? flags | PTE_WRITE : flags;
}

/** fork, for one VMA that has an anonVma: its event, then its entries are shared with the child. */
export function shareVma(mm: HostContext, vma: Vma): void {
  rangeStart(mm, vma.start, vma.end);
  if ((vma.flags & VM_HUGETLB) !== 0) shareHugetlb(mm, vma);
  else {
    mm.tables.eachPud(vma.start, vma.end, (pud, from, to) => {
      eachBlock(from, to, (block, first, last) => shareBlock(pud, block, pteIndex(first), (last - first) / PAGE));
    });
  }
  rangeEnd(mm, vma.start, vma.end);
}

function shareBlock(pud: Pud, block: number, first: number, count: number): void {
  const shared = ~(PTE_WRITE | PTE_EXCLUSIVE);
  const flags = pud.blockFlags[block];
  if ((flags & PTE_LEAF) !== 0) pud.blockFlags[block] = flags & shared;
  const table = pud.tables[block];
  if (!table) return;
  for (let i = first; i < first + count; i++) table.flags[i] = table.flags[i] & shared;
}
