/**
 * The page lists of Linux as far as they show: what decides in 6.1 whether a small page that a fork made
 * non-exclusive is reused or copied is whether one of the CPU's batches holds a reference to it.
 *
 *      new page                                  mark: accessed again
 *         |                                            |
 *         v            15 pages, a large              v           15 pages, a large
 *     [add batch] ------- folio, drain -----> on the LRU --> [activate batch] -- folio, drain --> active
 *      +1 reference            -1                             +1 reference           -1
 *
 * A mark on a page that was not referenced only makes it referenced. The next one activates it; a page still in the
 * add batch is only flagged. Large folios never stay in a batch, but empty it.
 *
 * With the multi-generation LRU (Debian's 6.12) marks only count, and no batch matters: `enabled` is false then.
 */
import { type Frames } from './frames.ts';

export const LRU_REFERENCED = 1;
export const LRU_ACTIVE = 2;
export const LRU_LISTED = 4;
const BATCH = 15;

export interface LruState {
  adding: number[];
  activating: number[];
}

export class Lru {
  private readonly frames: Frames;
  private readonly enabled: boolean;
  /** First frames of folios; one may stand twice in `activating`. */
  private adding: number[] = [];
  private activating: number[] = [];

  constructor(frames: Frames, enabled: boolean) {
    this.frames = frames;
    this.enabled = enabled;
  }

  /** A new folio joins the add batch. */
  add(pfn: number): void {
    if (!this.enabled) return;
    this.frames.get(pfn, 1);
    this.adding.push(pfn);
    if (this.adding.length === BATCH || this.frames.isLarge(pfn)) this.drainAdding();
  }

  /** What lockless gup does to a page that it takes. */
  setReferenced(pfn: number): void {
    if (!this.enabled || !this.frames.isCounted(pfn)) return;
    this.frames.setLru(pfn, this.frames.lru(pfn) | LRU_REFERENCED);
  }

  /** The page was used: unreferenced -> referenced -> active. */
  markAccessed(pfn: number): void {
    if (!this.enabled || !this.frames.isCounted(pfn)) return;
    const head = this.frames.isLarge(pfn) ? pfn & ~511 : pfn;
    const flags = this.frames.lru(head);
    if ((flags & LRU_REFERENCED) === 0) {
      this.frames.setLru(head, flags | LRU_REFERENCED);
    } else if ((flags & LRU_ACTIVE) === 0) {
      this.frames.setLru(head, flags & ~LRU_REFERENCED);
      this.activate(head);
    }
  }

  isListed(pfn: number): boolean {
    return (this.frames.lru(pfn) & LRU_LISTED) !== 0;
  }

  /** Empties both batches (lru_add_drain). */
  drain(): void {
    this.drainAdding();
    this.drainActivating();
  }

  save(): LruState {
    return { adding: [...this.adding], activating: [...this.activating] };
  }

  load(state: LruState): void {
    this.adding = [...state.adding];
    this.activating = [...state.activating];
  }

  private activate(head: number): void {
    const flags = this.frames.lru(head);
    if ((flags & LRU_LISTED) === 0) {
      // hugetlb pages are on no list and in no batch
      if (this.adding.includes(head)) this.frames.setLru(head, flags | LRU_ACTIVE);
      return;
    }
    this.frames.get(head, 1);
    this.activating.push(head);
    if (this.activating.length === BATCH || this.frames.isLarge(head)) this.drainActivating();
  }

  private drainAdding(): void {
    const batch = this.adding;
    this.adding = [];
    for (const pfn of batch) {
      this.frames.setLru(pfn, this.frames.lru(pfn) | LRU_LISTED);
      this.frames.put(pfn);
    }
  }

  private drainActivating(): void {
    const batch = this.activating;
    this.activating = [];
    for (const pfn of batch) {
      this.frames.setLru(pfn, this.frames.lru(pfn) | LRU_ACTIVE);
      this.frames.put(pfn);
    }
  }
}
