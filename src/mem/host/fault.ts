/**
 * Page faults on anonymous memory: what Linux puts where nothing is, and what a write makes of a read-only entry.
 *
 *     block none, THP allowed    read -> huge zero page         write -> THP (writable, exclusive)
 *     pte none                   read -> zero page              write -> new page
 *     huge zero page             write -> split, then as the zero page
 *     zero page                  write -> copy                  [unmap, change_pte]
 *     exclusive                  write -> writable
 *     not exclusive              write -> writable if nobody else holds a reference, else copy [unmap, change_pte]
 *
 * The caller has checked the VMA's rights. Events arise in `copyPage` and in `splitBlock` only.
 */
import { changePte, type HostContext, rangeEnd, rangeStart } from './context.ts';
import { HUGE_ZERO_PFN, ZERO_PFN } from './frames.ts';
import {
  alignDown,
  alignUp,
  BLOCK,
  blockIndex,
  PAGE,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_LEAF,
  PTE_PRESENT,
  PTE_WRITE,
  pteIndex,
  type PteTable,
  type Pud,
} from './host-tables.ts';
import { hugetlbFault } from './hugetlb.ts';
import { splitBlock } from './split.ts';
import { VM_HUGEPAGE, VM_HUGETLB, type Vma } from './vmas.ts';

export const FAULT_READ = 0;
export const FAULT_WRITE = 1;
/** A page that is to be pinned for reading must be exclusive. */
export const FAULT_UNSHARE = 2;

/** 0, or -errno (-EFAULT where a process would get SIGBUS). Not more than one step; the caller looks again. */
export function handleFault(mm: HostContext, vma: Vma, hva: number, kind: number): number {
  if ((vma.flags & VM_HUGETLB) !== 0) return hugetlbFault(mm, vma, hva, kind);
  const pud = mm.tables.ensurePud(hva);
  const block = blockIndex(hva);
  const flags = pud.blockFlags[block];
  if (flags === 0) {
    if (faultBlock(mm, vma, pud, hva, kind)) return 0;
  } else if ((flags & PTE_LEAF) !== 0) {
    if (kind === FAULT_READ || (flags & PTE_WRITE) !== 0) {
      if (kind === FAULT_WRITE) pud.blockFlags[block] = flags | PTE_DIRTY;
      return 0;
    }
    if (writeBlock(pud, block, kind)) return 0;
    splitBlock(mm, pud, hva);
  }
  faultPage(mm, vma, mm.tables.ensureTable(pud, block), hva, kind);
  return 0;
}

/** First fault in an empty block, where a huge page may go: true if it did (do_huge_pmd_anonymous_page). */
function faultBlock(mm: HostContext, vma: Vma, pud: Pud, hva: number, kind: number): boolean {
  if ((vma.flags & VM_HUGEPAGE) === 0) return false;
  if (alignDown(hva, BLOCK) < vma.start || alignUp(hva + 1, BLOCK) > vma.end) return false;
  mm.vmas.prepareAnonVma(vma);
  const block = blockIndex(hva);
  if (kind !== FAULT_WRITE) {
    pud.blockPfn[block] = HUGE_ZERO_PFN;
    pud.blockFlags[block] = PTE_PRESENT | PTE_LEAF;
    return true;
  }
  const pfn = mm.frames.allocFolio();
  pud.blockPfn[block] = pfn;
  pud.blockFlags[block] = PTE_PRESENT | PTE_LEAF | PTE_EXCLUSIVE | PTE_WRITE | PTE_DIRTY;
  mm.lru.add(pfn);
  return true;
}

/**
 * Write to a read-only THP: it is ours alone, now that every child is gone, and becomes writable as a whole.
 * False for the huge zero page: it has to be split (do_huge_pmd_wp_page).
 */
function writeBlock(pud: Pud, block: number, kind: number): boolean {
  if (pud.blockPfn[block] === HUGE_ZERO_PFN) return false;
  const rights = kind === FAULT_WRITE ? PTE_WRITE | PTE_DIRTY : 0;
  pud.blockFlags[block] = pud.blockFlags[block] | PTE_EXCLUSIVE | rights;
  return true;
}

function faultPage(mm: HostContext, vma: Vma, table: PteTable, hva: number, kind: number): void {
  const index = pteIndex(hva);
  const flags = table.flags[index];
  if (flags === 0) newPage(mm, vma, table, index, kind);
  else if (kind !== FAULT_READ && (flags & PTE_WRITE) === 0) writePage(mm, vma, table, hva, kind);
  else if (kind === FAULT_WRITE) table.flags[index] = flags | PTE_DIRTY;
}

/** Nothing was mapped (do_anonymous_page): no event. A read alone gives the VMA no anonVma. */
function newPage(mm: HostContext, vma: Vma, table: PteTable, index: number, kind: number): void {
  if (kind !== FAULT_WRITE) {
    table.pfn[index] = ZERO_PFN;
    table.flags[index] = PTE_PRESENT;
    return;
  }
  mm.vmas.prepareAnonVma(vma);
  const pfn = mm.frames.allocSmall();
  table.pfn[index] = pfn;
  table.flags[index] = PTE_PRESENT | PTE_EXCLUSIVE | PTE_WRITE | PTE_DIRTY;
  mm.lru.add(pfn);
}

/** A write (or unshare) of a present, read-only page: made writable, or copied (do_wp_page). */
function writePage(mm: HostContext, vma: Vma, table: PteTable, hva: number, kind: number): void {
  const index = pteIndex(hva);
  const flags = table.flags[index];
  const pfn = table.pfn[index];
  if (pfn === ZERO_PFN) {
    if (kind === FAULT_WRITE) copyPage(mm, vma, table, hva, kind);
    return;
  }
  if ((flags & PTE_EXCLUSIVE) === 0 && !isOurs(mm, pfn)) {
    copyPage(mm, vma, table, hva, kind);
    return;
  }
  const rights = kind === FAULT_WRITE ? PTE_WRITE | PTE_DIRTY : 0;
  table.flags[index] = flags | PTE_EXCLUSIVE | rights;
}

/** Does nobody but this one entry hold a reference? A page still in the add batch empties the batches first. */
function isOurs(mm: HostContext, pfn: number): boolean {
  if (mm.options.kernel === '6.12') return !mm.frames.isLarge(pfn);
  if (mm.frames.refs(pfn) > 3) return false;
  if (!mm.lru.isListed(pfn)) mm.lru.drain();
  return mm.frames.refs(pfn) === 1;
}

/** The page is replaced by a copy of its own (wp_page_copy). */
function copyPage(mm: HostContext, vma: Vma, table: PteTable, hva: number, kind: number): void {
  const start = alignDown(hva, PAGE);
  const index = pteIndex(hva);
  const old = table.pfn[index];
  mm.vmas.prepareAnonVma(vma);
  const pfn = mm.frames.allocSmall();
  if (old !== ZERO_PFN) mm.frames.copyPage(pfn, old);
  rangeStart(mm, start, start + PAGE);
  const rights = kind === FAULT_WRITE ? PTE_WRITE | PTE_DIRTY : 0;
  mm.lru.add(pfn);
  table.pfn[index] = pfn;
  table.flags[index] = PTE_PRESENT | PTE_EXCLUSIVE | rights;
  changePte(mm, start);
  if (old !== ZERO_PFN) mm.frames.put(old);
  rangeEnd(mm, start, start + PAGE);
}
