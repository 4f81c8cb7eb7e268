/**
 * hugetlb memory: entries of 2 MiB or 1 GiB from a pool that was set aside at boot.
 *
 *     none    read  -> new page, read-only but exclusive
 *             write -> new page, writable
 *     page    write -> writable in place, no event (every child is gone)
 *
 * No LRU, no references to count: a page belongs to its one entry.
 */
import { EFAULT } from '../../base/errno.ts';
import { type HostContext, rangeEnd, rangeStart } from './context.ts';
import { FAULT_WRITE } from './fault.ts';
import {
  blockIndex,
  BLOCK,
  GIGA,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_LEAF,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_WRITE,
  type Pud,
} from './host-tables.ts';
import { hugetlbSize, VM_ACCESS, type Vma } from './vmas.ts';

/** 0, or -EFAULT when the pool is empty (SIGBUS for the process itself). */
export function hugetlbFault(mm: HostContext, vma: Vma, hva: number, kind: number): number {
  const size = hugetlbSize(vma);
  const existing = mm.tables.pud(hva);
  let flags = existing === null ? 0 : entryFlags(existing, hva, size);
  if (flags === 0) {
    mm.vmas.prepareAnonVma(vma);
    const pfn = takePage(mm, size);
    if (pfn < 0) return -EFAULT;
    flags = PTE_PRESENT | PTE_LEAF | PTE_EXCLUSIVE;
    setEntry(mm.tables.ensurePud(hva), hva, size, pfn, flags);
  }
  if (kind === 0 || (flags & PTE_WRITE) !== 0) return 0;
  const rights = kind === FAULT_WRITE ? PTE_WRITE | PTE_DIRTY : 0;
  setEntryFlags(mm.tables.ensurePud(hva), hva, size, flags | PTE_EXCLUSIVE | rights);
  return 0;
}

/** Clears what is mapped in [start, end); true if anything was. 6.1 has a second, nested event for it. */
export function zapHugetlb(mm: HostContext, vma: Vma, start: number, end: number): boolean {
  const size = hugetlbSize(vma);
  const event = mm.options.kernel === '6.1';
  let freed = false;
  if (event) rangeStart(mm, start, end);
  eachHugetlbEntry(mm, vma, start, end, (pud, hva) => {
    const pfn = size === GIGA ? pud.leafPfn : pud.blockPfn[blockIndex(hva)];
    if (size === GIGA) mm.tables.dropPud(hva);
    else mm.tables.clearBlock(pud, blockIndex(hva));
    givePage(mm, size, pfn);
    freed = true;
  });
  if (event) rangeEnd(mm, start, end);
  return freed;
}

/** mprotect: one event, also when nothing is mapped. Never gives write: that is left to the next fault. */
export function protectHugetlb(mm: HostContext, vma: Vma, start: number, end: number): void {
  const size = hugetlbSize(vma);
  const none = (vma.flags & VM_ACCESS) === 0 ? PTE_PROTNONE : 0;
  rangeStart(mm, start, end);
  eachHugetlbEntry(mm, vma, start, end, (pud, hva) => {
    setEntryFlags(pud, hva, size, (entryFlags(pud, hva, size) & ~(PTE_WRITE | PTE_PROTNONE)) | none);
  });
  rangeEnd(mm, start, end);
}

/** fork: read-only, and no longer this process's alone. The caller makes the event. */
export function shareHugetlb(mm: HostContext, vma: Vma): void {
  const size = hugetlbSize(vma);
  eachHugetlbEntry(mm, vma, vma.start, vma.end, (pud, hva) => {
    setEntryFlags(pud, hva, size, entryFlags(pud, hva, size) & ~(PTE_WRITE | PTE_EXCLUSIVE));
  });
}

function eachHugetlbEntry(
  mm: HostContext,
  vma: Vma,
  start: number,
  end: number,
  visit: (pud: Pud, hva: number) => void,
): void {
  const size = hugetlbSize(vma);
  mm.tables.eachPud(start, end, (pud, from, to) => {
    for (let hva = from; hva < to; hva += size) if (entryFlags(pud, hva, size) !== 0) visit(pud, hva);
  });
}

function entryFlags(pud: Pud, hva: number, size: number): number {
  return size === GIGA ? pud.leafFlags : pud.blockFlags[blockIndex(hva)];
}

function setEntryFlags(pud: Pud, hva: number, size: number, flags: number): void {
  if (size === GIGA) pud.leafFlags = flags;
  else pud.blockFlags[blockIndex(hva)] = flags;
}

function setEntry(pud: Pud, hva: number, size: number, pfn: number, flags: number): void {
  if (size === GIGA) pud.leafPfn = pfn;
  else pud.blockPfn[blockIndex(hva)] = pfn;
  setEntryFlags(pud, hva, size, flags);
}

/** A page of the pool, or -1. */
function takePage(mm: HostContext, size: number): number {
  if (size === BLOCK) {
    if (mm.pool.free2m === 0) return -1;
    mm.pool.free2m--;
    return mm.frames.allocFolio();
  }
  if (mm.pool.free1g === 0) return -1;
  mm.pool.free1g--;
  return mm.frames.allocGiga();
}

function givePage(mm: HostContext, size: number, pfn: number): void {
  if (size === BLOCK) {
    mm.pool.free2m++;
    mm.frames.put(pfn);
  } else {
    mm.pool.free1g++;
    mm.frames.freeGiga(pfn);
  }
}
