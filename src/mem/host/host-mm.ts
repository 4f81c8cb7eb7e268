/**
 * The host's memory management as KVM sees it (Linux 6.1, private anonymous and hugetlb memory of one process): the
 * system calls of the VMM, the pages KVM asks for, and the notifier events that both cause.
 *
 *     mmap  munmap  mprotect  madvise  fork            gupFast  gupSlow  readUser  writeUser
 *          \      \     |     /       /                    \       |        |      /
 *         vmas (cut, merge)  zap  protect                      fault, hugetlb, split
 *                          \     |                               |
 *                           host-tables  <---- frames, lru ------+          ---> notifier
 *
 * Calls answer 0 or -errno as the system calls do. While an event starts the tables are still unchanged; its end
 * follows the change. Specification: reference/host-mm.md, whose section numbers the tests cite.
 */
import { EEXIST, EFAULT, EINVAL, ENOMEM } from '../../base/errno.ts';
import type { HostMemory, HostNotifier } from '../host-memory.ts';
import { type HostContext, type HostOptions, rangeEnd, rangeStart } from './context.ts';
import { Frames, type FramesState } from './frames.ts';
import { gupFast, gupSlow, mappingLevel, pfnAt, presentPage, userPage } from './gup.ts';
import { alignDown, alignUp, BLOCK, GIGA, HostTables, type HostTablesState, PAGE } from './host-tables.ts';
import { Lru, type LruState } from './lru.ts';
import { protectRange, shareVma } from './protect.ts';
import { splitForCut } from './split.ts';
import {
  hugetlbSize,
  VM_ACCESS,
  VM_EXEC,
  VM_HUGEPAGE,
  VM_HUGETLB_1G,
  VM_HUGETLB_2M,
  VM_NOHUGEPAGE,
  VM_READ,
  VM_WRITE,
  type Vma,
  Vmas,
  type VmasState,
} from './vmas.ts';
import { freeTables, zapRange } from './zap.ts';

export type Backing = '4k' | 'thp' | '2m' | '1g';
export const PROT_NONE = 0;
export const PROT_READ = VM_READ;
export const PROT_WRITE = VM_WRITE;
export const PROT_EXEC = VM_EXEC;
export const PROT_RWX = VM_ACCESS;

export interface Region {
  base: number;
  length: number;
  backing: Backing;
}

export interface HostMmState {
  frames: FramesState;
  lru: LruState;
  vmas: VmasState;
  tables: HostTablesState;
  free2m: number;
  free1g: number;
}

/** End of user addresses. @kvm TASK_SIZE_MAX */
const TASK_SIZE = 2 ** 47 - PAGE;

/** What a system call could be given: no fraction, nothing negative. */
function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

const DEFAULTS: HostOptions = { kernel: '6.1', huge2m: 256, huge1g: 1 };

export class HostMm implements HostMemory, HostContext {
  readonly options: HostOptions;
  readonly frames: Frames;
  readonly lru: Lru;
  readonly vmas: Vmas;
  readonly tables: HostTables;
  readonly pool: { free2m: number; free1g: number };
  notifier: HostNotifier | null = null;

  constructor(options: Partial<HostOptions> = {}) {
    this.options = { ...DEFAULTS, ...options };
    this.frames = new Frames();
    this.lru = new Lru(this.frames, this.options.kernel === '6.1');
    this.vmas = new Vmas();
    this.tables = new HostTables();
    this.pool = { free2m: this.options.huge2m, free1g: this.options.huge1g };
    this.vmas.onCut = (vma, at) => splitForCut(this, vma, at);
  }

  get phys(): Frames {
    return this.frames;
  }

  // ---- system calls of the VMM

  /**
   * mmap of private anonymous memory, read-write-exec, at a fixed address where nothing is mapped (else -EEXIST), and
   * the madvise that goes with the backing. Populates nothing.
   */
  mmapRegion(region: Region): number {
    const { base, length, backing } = region;
    const size = backing === '1g' ? GIGA : backing === '2m' ? BLOCK : PAGE;
    if (!isCount(base) || !isCount(length) || base % size !== 0 || length === 0) return -EINVAL;
    const end = base + alignUp(length, size);
    if (end > TASK_SIZE) return -ENOMEM;
    if (this.vmas.overlaps(base, end)) return -EEXIST;
    const hugetlb = backing === '1g' ? VM_HUGETLB_1G : backing === '2m' ? VM_HUGETLB_2M : 0;
    this.vmas.add(base, end, VM_ACCESS | hugetlb);
    return this.madviseHugepage(base, end - base, backing === 'thp');
  }

  /** madvise HUGEPAGE or NOHUGEPAGE. */
  madviseHugepage(start: number, length: number, huge: boolean): number {
    const add = huge ? VM_HUGEPAGE : VM_NOHUGEPAGE;
    return this.eachVma(start, length, (vma, from, to) => {
      const flags = (vma.flags & ~(VM_HUGEPAGE | VM_NOHUGEPAGE)) | add;
      if (flags === vma.flags) return 0;
      const changed = this.vmas.change(vma, from, to, flags);
      return typeof changed === 'number' ? changed : 0;
    });
  }

  munmap(start: number, length: number): number {
    if (!isCount(start) || !isCount(length) || start % PAGE !== 0 || length === 0) return -EINVAL;
    const end = start + alignUp(length, PAGE);
    if (end > TASK_SIZE) return -EINVAL;
    const { vmas } = this;
    let from = vmas.indexAbove(start);
    const first = vmas.list[from];
    if (first === undefined || first.start >= end) return 0;
    if (start > first.start) {
      const error = vmas.cut(from, start);
      if (error !== 0) return error;
      from++;
    }
    const to = vmas.indexAbove(end - 1);
    const last = vmas.list[to];
    const cutsLast = last !== undefined && last.start < end;
    if (cutsLast && last.end > end) {
      const error = vmas.cut(to, end);
      if (error !== 0) return error;
    }
    const gone = vmas.remove(from, cutsLast ? to + 1 : to);
    this.lru.drain();
    rangeStart(this, start, end);
    let freed = false;
    for (const vma of gone) if (zapRange(this, vma, vma.start, vma.end)) freed = true;
    rangeEnd(this, start, end);
    freeTables(this, gone);
    if (freed) this.lru.drain();
    return 0;
  }

  mprotect(start: number, length: number, prot: number): number {
    if (!isCount(start) || !isCount(length) || start % PAGE !== 0 || (prot & ~PROT_RWX) !== 0) return -EINVAL;
    if (length === 0) return 0;
    const end = start + alignUp(length, PAGE);
    let vma = this.vmas.at(start);
    for (let from = start; from < end; ) {
      if (vma === null) return -ENOMEM;
      const to = Math.min(vma.end, end);
      const changed = this.protectPart(vma, from, to, prot);
      if (typeof changed === 'number') return changed;
      from = Math.max(to, changed.end);
      vma = this.vmas.at(from);
    }
    return 0;
  }

  madviseDontneed(start: number, length: number): number {
    return this.eachVma(start, length, (vma, from, to) => {
      const size = hugetlbSize(vma);
      if (size !== 0 && from % size !== 0) return -EINVAL;
      const end = size === 0 ? to : alignDown(to, size);
      if (end <= from) return 0;
      this.lru.drain();
      rangeStart(this, from, end);
      const freed = zapRange(this, vma, from, end);
      rangeEnd(this, from, end);
      if (freed) this.lru.drain();
      return 0;
    });
  }

  /** fork, and the child's exit: VMAs that were never written (or faulted, with huge pages) are left out. */
  fork(): number {
    for (const vma of this.vmas.list) if (vma.anonVma !== 0) shareVma(this, vma);
    this.lru.drain();
    return 0;
  }

  /** Is a page mapped by some VMA here? (mincore gives ENOMEM where not.) */
  isMapped(hva: number): boolean {
    return this.vmas.at(hva) !== null;
  }

  /** The VMM's own write of a zero byte, to populate a page; 0 or -EFAULT. */
  touchWrite(hva: number): number {
    const pfn = userPage(this, hva, true);
    if (pfn < 0) return pfn;
    this.frames.write8(pfn, hva % PAGE, 0);
    return 0;
  }

  /**
   * process_vm_readv or process_vm_writev of the process on itself: pins the pages first, as far as they are there.
   * 0, or -EFAULT if not all bytes could be had.
   */
  pinnedAccess(hva: number, bytes: Uint8Array, write: boolean): number {
    const [pfns, first] = [[] as number[], alignDown(hva, PAGE)];
    for (let at = first; at < hva + bytes.length; at += PAGE) {
      const pfn = gupSlow(this, at, write, true);
      if (pfn < 0) break;
      pfns.push(pfn);
    }
    for (let at = 0; at < bytes.length; ) {
      const pfn = pfns[(alignDown(hva + at, PAGE) - first) / PAGE];
      if (pfn === undefined) return -EFAULT;
      const offset = (hva + at) % PAGE;
      const count = Math.min(PAGE - offset, bytes.length - at);
      if (write) this.frames.writeBytes(pfn, offset, bytes, at, count);
      else this.frames.readBytes(pfn, offset, bytes, at, count);
      at += count;
    }
    return 0;
  }

  // ---- what KVM asks

  gupFast(hva: number): number {
    return gupFast(this, hva);
  }

  gupSlow(hva: number, write: boolean): number {
    return gupSlow(this, hva, write, false);
  }

  mappingLevel(hva: number): number {
    return mappingLevel(this, hva);
  }

  markAccessed(pfn: number): void {
    this.lru.markAccessed(pfn);
  }

  /** A dirty page matters for swap and files only; neither is here. */
  markDirty(_pfn: number): void {}

  pfnAt(hva: number): number {
    return pfnAt(this, hva);
  }

  readUser(hva: number, bytes: Uint8Array, count: number): number {
    const pfn = userPage(this, hva, false);
    if (pfn < 0) return pfn;
    this.frames.readBytes(pfn, hva % PAGE, bytes, 0, count);
    return 0;
  }

  writeUser(hva: number, bytes: Uint8Array, count: number): number {
    const pfn = userPage(this, hva, true);
    if (pfn < 0) return pfn;
    this.frames.writeBytes(pfn, hva % PAGE, bytes, 0, count);
    return 0;
  }

  readUserAtomic(hva: number, bytes: Uint8Array, count: number): number {
    const pfn = presentPage(this, hva);
    if (pfn < 0) return -EFAULT;
    this.frames.readBytes(pfn, hva % PAGE, bytes, 0, count);
    return 0;
  }

  // ---- state

  /** A deep copy of everything but the notifier. */
  save(): HostMmState {
    return {
      frames: this.frames.save(),
      lru: this.lru.save(),
      vmas: this.vmas.save(),
      tables: this.tables.save(),
      free2m: this.pool.free2m,
      free1g: this.pool.free1g,
    };
  }

  load(state: HostMmState): void {
    this.frames.load(state.frames);
    this.lru.load(state.lru);
    this.vmas.load(state.vmas);
    this.tables.load(state.tables);
    this.pool.free2m = state.free2m;
    this.pool.free1g = state.free1g;
  }

  // ---- parts

  /** mprotect of [from, to) in one VMA: the VMA that has the range then, or -errno. Nothing at all if it fits already. */
  private protectPart(vma: Vma, from: number, to: number, prot: number): Vma | number {
    const flags = (vma.flags & ~VM_ACCESS) | prot;
    if (flags === vma.flags) return vma;
    const changed = this.vmas.change(vma, from, to, flags);
    if (typeof changed !== 'number') protectRange(this, changed, from, to);
    return changed;
  }

  /** madvise's walk: a hole makes it -ENOMEM, but what is mapped is done; an error of `visit` ends it. */
  private eachVma(start: number, length: number, visit: (vma: Vma, from: number, to: number) => number): number {
    if (!isCount(start) || !isCount(length) || start % PAGE !== 0) return -EINVAL;
    const end = start + alignUp(length, PAGE);
    let result = 0;
    for (let from = start; from < end; ) {
      const vma = this.vmas.list[this.vmas.indexAbove(from)];
      if (vma === undefined) return -ENOMEM;
      if (from < vma.start) {
        result = -ENOMEM;
        from = vma.start;
        continue;
      }
      const to = Math.min(vma.end, end);
      const error = visit(vma, from, to);
      if (error !== 0) return error;
      from = to;
    }
    return result;
  }
}
