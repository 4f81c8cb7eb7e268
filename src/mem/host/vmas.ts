/**
 * The mappings (VMAs) of the process: sorted, never overlapping; cut and merged as Linux does it.
 *
 *     start             end           mprotect of a part          the protection is put back
 *     |------ rwx -------|     ->     |-- r --|--- rwx ----|  ->  |------ rwx -------|
 *
 * Pages are shared with children through an `anonVma`: 0 until something was written (or, with huge pages, faulted)
 * there. Two neighbours merge only if nothing tells them apart, their anonVma included; the halves of a cut share it,
 * so a cut can always be undone.
 *
 * INVARIANT sorted: list[i].end <= list[i + 1].start, and start < end.
 */
import { EINVAL } from '../../base/errno.ts';
import { BLOCK, GIGA } from './host-tables.ts';

export const VM_READ = 1;
export const VM_WRITE = 2;
export const VM_EXEC = 4;
export const VM_ACCESS = 7;
export const VM_HUGEPAGE = 8;
export const VM_NOHUGEPAGE = 16;
export const VM_HUGETLB_2M = 32;
export const VM_HUGETLB_1G = 64;
export const VM_HUGETLB = VM_HUGETLB_2M | VM_HUGETLB_1G;

export interface Vma {
  start: number;
  end: number;
  flags: number;
  /** 0 for anonymous memory; each hugetlb mapping has a file of its own. */
  file: number;
  anonVma: number;
}

export interface VmasState {
  list: Vma[];
  nextAnonVma: number;
  nextFile: number;
}

/** Page size of the VMA's entries, for hugetlb; 0 otherwise. */
export function hugetlbSize(vma: Vma): number {
  if ((vma.flags & VM_HUGETLB) === 0) return 0;
  return (vma.flags & VM_HUGETLB_1G) !== 0 ? GIGA : BLOCK;
}

export class Vmas {
  list: Vma[] = [];
  /** Told before a boundary is placed inside `vma`: the place of the split event. */
  onCut: ((vma: Vma, at: number) => void) | null = null;
  private nextAnonVma = 1;
  private nextFile = 1;
  private last = 0;

  /** Index of the first VMA that ends above `hva`, or the list's length. */
  indexAbove(hva: number): number {
    const { list } = this;
    let [low, high] = [0, list.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle].end > hva) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** The VMA that contains `hva`. */
  at(hva: number): Vma | null {
    const recent = this.list[this.last];
    if (recent !== undefined && recent.start <= hva && hva < recent.end) return recent;
    this.last = this.indexAbove(hva);
    const vma = this.list[this.last];
    return vma !== undefined && vma.start <= hva ? vma : null;
  }

  overlaps(start: number, end: number): boolean {
    const vma = this.list[this.indexAbove(start)];
    return vma !== undefined && vma.start < end;
  }

  /** Puts a mapping into a hole; it may grow out of a neighbour. */
  add(start: number, end: number, flags: number): void {
    const file = (flags & VM_HUGETLB) !== 0 ? this.nextFile++ : 0;
    const index = this.indexAbove(start);
    const [prev, next] = [this.list[index - 1], this.list[index]];
    const before = next !== undefined && next.start === end && canMerge(next, flags, file, 0) ? next : null;
    const anonVma = before === null ? 0 : before.anonVma;
    if (prev !== undefined && prev.end === start && canMerge(prev, flags, file, anonVma)) {
      prev.end = before === null ? end : before.end;
      if (prev.anonVma === 0) prev.anonVma = anonVma;
      if (before !== null) this.list.splice(index, 1);
    } else if (before !== null) before.start = start;
    else this.list.splice(index, 0, { start, end, flags, file, anonVma: 0 });
  }

  /**
   * Cuts the VMA at list[index] in two at `at`, which lies inside. 0, or -EINVAL: hugetlb is cut at its own pages'
   * boundaries only.
   */
  cut(index: number, at: number): number {
    const vma = this.list[index];
    const size = hugetlbSize(vma);
    if (size !== 0 && at % size !== 0) return -EINVAL;
    this.onCut?.(vma, at);
    this.list.splice(index + 1, 0, { ...vma, start: at });
    vma.end = at;
    return 0;
  }

  /** Takes out the VMAs in list[from..to). */
  remove(from: number, to: number): Vma[] {
    return this.list.splice(from, to - from);
  }

  /**
   * Gives [start, end) of `vma` the flags `flags`: merges with a neighbour that has them, or cuts.
   * The VMA that has the range now, or -EINVAL.
   */
  change(vma: Vma, start: number, end: number, flags: number): Vma | number {
    const index = this.list.indexOf(vma);
    const merged = this.merge(start > vma.start ? index : index - 1, start, end, flags, vma);
    if (merged !== null) {
      merged.flags = flags;
      return merged;
    }
    let at = index;
    if (start !== vma.start) {
      const error = this.cut(at, start);
      if (error !== 0) return error;
      at++;
    }
    const part = this.list[at];
    if (end !== part.end) {
      const error = this.cut(at, end);
      if (error !== 0) return error;
    }
    part.flags = flags;
    return part;
  }

  /** Makes sure that the VMA has an anonVma: a neighbour's that it could merge with one day, or a new one. */
  prepareAnonVma(vma: Vma): void {
    if (vma.anonVma !== 0) return;
    const index = this.list.indexOf(vma);
    const [prev, next] = [this.list[index - 1], this.list[index + 1]];
    if (next !== undefined && next.anonVma !== 0 && mayShareAnonVma(vma, next)) vma.anonVma = next.anonVma;
    else if (prev !== undefined && prev.anonVma !== 0 && mayShareAnonVma(prev, vma)) vma.anonVma = prev.anonVma;
    else vma.anonVma = this.nextAnonVma++;
  }

  save(): VmasState {
    return { list: this.list.map((v) => ({ ...v })), nextAnonVma: this.nextAnonVma, nextFile: this.nextFile };
  }

  load(state: VmasState): void {
    this.list = state.list.map((v) => ({ ...v }));
    this.nextAnonVma = state.nextAnonVma;
    this.nextFile = state.nextFile;
    this.last = 0;
  }

  /**
   * Tries to merge [start, end) of `vma`, whose flags are about to become `flags`, with its neighbours. list[prevIndex]
   * is `vma` itself if `start` lies inside it, else the one before. The four outcomes, with A the range:
   *
   *     P A N  ->  PPPPP      P A n  ->  PPP n      vma cut: P A v  ->  PPP v    p A N  ->  p NNN
   */
  private merge(prevIndex: number, start: number, end: number, flags: number, vma: Vma): Vma | null {
    const { list } = this;
    const prev = list[prevIndex];
    const mid = list[prevIndex + 1];
    const nextIndex = mid !== undefined && mid.end === end ? prevIndex + 2 : prevIndex + 1;
    const next = list[nextIndex];
    const withPrev = prev !== undefined && prev.end === start && canMerge(prev, flags, vma.file, vma.anonVma);
    const withNext = next !== undefined && next.start === end && canMerge(next, flags, vma.file, vma.anonVma);
    if (withPrev && withNext && anonVmasFit(prev.anonVma, next.anonVma, false)) {
      prev.end = next.end;
      adopt(prev, vma);
      adopt(prev, next);
      list.splice(prevIndex + 1, nextIndex - prevIndex);
      return prev;
    }
    if (withPrev) {
      if (vma.end === end) list.splice(prevIndex + 1, 1);
      else {
        this.onCut?.(vma, end);
        vma.start = end;
      }
      prev.end = end;
      adopt(prev, vma);
      return prev;
    }
    if (!withNext) return null;
    if (prev === vma) {
      this.onCut?.(vma, start);
      vma.end = start;
    } else list.splice(prevIndex + 1, 1);
    next.start = start;
    adopt(next, vma);
    return next;
  }
}

function adopt(into: Vma, from: Vma): void {
  if (into.anonVma === 0) into.anonVma = from.anonVma;
}

/** hugetlb mappings never merge (they have a close operation). */
function canMerge(vma: Vma, flags: number, file: number, anonVma: number): boolean {
  if (vma.flags !== flags || vma.file !== file || file !== 0) return false;
  return anonVmasFit(anonVma, vma.anonVma, vma.anonVma === 0);
}

/** `bare`: the VMA to grow has none; then only one without may join. */
function anonVmasFit(a: number, b: number, bare: boolean): boolean {
  if ((a === 0 || b === 0) && !bare) return true;
  return a === b;
}

function mayShareAnonVma(low: Vma, high: Vma): boolean {
  return low.end === high.start && low.file === high.file && ((low.flags ^ high.flags) & ~VM_ACCESS) === 0;
}
