/**
 * Getting user pages, and a process's own accesses: the ways in which a frame is found for a host address.
 *
 *     gupFast     no fault; present and writable; the page becomes referenced
 *     gupSlow     faults; the page is marked accessed (only one that a table maps: FOLL_TOUCH of follow_page_pte)
 *     pinPage     process_vm_readv/writev: as gupSlow, and a page pinned for reading must be exclusive
 *     userPage    the CPU's access, or the kernel's through copy_to_user: faults, no mark, sets the dirty bit
 */
import { EFAULT } from '../../base/errno.ts';
import { type HostContext } from './context.ts';
import { FAULT_READ, FAULT_UNSHARE, FAULT_WRITE, handleFault } from './fault.ts';
import { ZERO_PFN } from './frames.ts';
import {
  BLOCK,
  blockIndex,
  GIGA,
  PAGE,
  PTE_DIRTY,
  PTE_EXCLUSIVE,
  PTE_LEAF,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_WRITE,
  pteIndex,
} from './host-tables.ts';
import { VM_ACCESS, VM_READ, VM_WRITE } from './vmas.ts';

/** The leaf that maps an address. `level` 0: none. */
interface Leaf {
  level: number;
  pfn: number;
  flags: number;
}

/** Filled by `findLeaf`; one for all calls, so that an access allocates nothing. */
const leaf: Leaf = { level: 0, pfn: 0, flags: 0 };

/** Looks up the leaf of `hva` in the host's tables: its level, the frame of `hva` itself, its flags. */
function findLeaf(mm: HostContext, hva: number): Leaf {
  leaf.level = 0;
  leaf.flags = 0;
  const pud = mm.tables.pud(hva);
  if (pud === null) return leaf;
  if (pud.leafFlags !== 0) return setLeaf(3, pud.leafPfn + Math.floor((hva % GIGA) / PAGE), pud.leafFlags);
  const block = blockIndex(hva);
  const flags = pud.blockFlags[block];
  if ((flags & PTE_LEAF) !== 0) {
    return setLeaf(2, pud.blockPfn[block] + Math.floor((hva % BLOCK) / PAGE), flags);
  }
  const table = pud.tables[block];
  if (!table) return leaf;
  const index = pteIndex(hva);
  const pte = table.flags[index];
  return pte === 0 ? leaf : setLeaf(1, table.pfn[index], pte);
}

function setLeaf(level: number, pfn: number, flags: number): Leaf {
  leaf.level = level;
  leaf.pfn = pfn;
  leaf.flags = flags;
  return leaf;
}

function allows(flags: number, write: boolean): boolean {
  if ((flags & PTE_PRESENT) === 0 || (flags & PTE_PROTNONE) !== 0) return false;
  return !write || (flags & PTE_WRITE) !== 0;
}

/** Sets the dirty bit in the leaf of `hva`. */
function setDirty(mm: HostContext, hva: number): void {
  const pud = mm.tables.pud(hva);
  if (pud === null) return;
  const block = blockIndex(hva);
  const table = pud.tables[block];
  if (pud.leafFlags !== 0) pud.leafFlags |= PTE_DIRTY;
  else if (!table) pud.blockFlags[block] = pud.blockFlags[block] | PTE_DIRTY;
  else table.flags[pteIndex(hva)] = table.flags[pteIndex(hva)] | PTE_DIRTY;
}

/** The frame, or -1. @kvm hva_to_pfn_fast, gfn_to_page_many_atomic */
export function gupFast(mm: HostContext, hva: number): number {
  const found = findLeaf(mm, hva);
  if (found.level === 0 || !allows(found.flags, true)) return -1;
  mm.lru.setReferenced(found.pfn);
  return found.pfn;
}

/** The frame, or -errno. @kvm hva_to_pfn_slow */
export function gupSlow(mm: HostContext, hva: number, write: boolean, pin: boolean): number {
  for (;;) {
    const vma = mm.vmas.at(hva);
    if (vma === null || (vma.flags & (write ? VM_WRITE : VM_READ)) === 0) return -EFAULT;
    const { level, pfn, flags } = findLeaf(mm, hva);
    if (level !== 0 && allows(flags, write)) {
      const shared = pin && (flags & (PTE_WRITE | PTE_EXCLUSIVE)) === 0 && mm.frames.isCounted(pfn);
      if (!shared) {
        if (level === 1 && pfn !== ZERO_PFN) mm.lru.markAccessed(pfn);
        if (level > 1 && write) setDirty(mm, hva);
        return pfn;
      }
      const error = handleFault(mm, vma, hva, FAULT_UNSHARE);
      if (error !== 0) return error;
      continue;
    }
    const error = handleFault(mm, vma, hva, write ? FAULT_WRITE : FAULT_READ);
    if (error !== 0) return error;
  }
}

/** The frame that a process's access reaches, or -EFAULT. */
export function userPage(mm: HostContext, hva: number, write: boolean): number {
  for (;;) {
    const vma = mm.vmas.at(hva);
    if (vma === null || (vma.flags & (write ? VM_WRITE : VM_ACCESS)) === 0) return -EFAULT;
    const { level, pfn, flags } = findLeaf(mm, hva);
    if (level !== 0 && allows(flags, write)) {
      if (write && (flags & PTE_DIRTY) === 0) setDirty(mm, hva);
      return pfn;
    }
    const error = handleFault(mm, vma, hva, write ? FAULT_WRITE : FAULT_READ);
    if (error !== 0) return error;
  }
}

/** The frame that a read reaches without a fault, or -1. */
export function presentPage(mm: HostContext, hva: number): number {
  const found = findLeaf(mm, hva);
  return found.level !== 0 && allows(found.flags, false) ? found.pfn : -1;
}

/** @kvm host_pfn_mapping_level */
export function mappingLevel(mm: HostContext, hva: number): number {
  return Math.max(findLeaf(mm, hva).level, 1);
}

/** The frame that is mapped, whatever its rights, or -1. */
export function pfnAt(mm: HostContext, hva: number): number {
  const found = findLeaf(mm, hva);
  return found.level === 0 ? -1 : found.pfn;
}
