/**
 * Lists of table entries: the reverse map of a frame (which leaves map it) and the parents of a shadow page (which
 * entries point at it). Most hold one entry, so a head is one word:
 *
 *     head = 0         empty
 *     head > 0         the one entry itself (its number)
 *     head < 0         descriptor -head:   [more, count, entry 0 ... entry 13] -> more ...
 *
 * A list that shrank to one entry stays in a descriptor; an emptied descriptor is unlinked. The order of entries is
 * visible (zapping and aging follow it), so insertion and removal do as the kernel's: new ones go to the end of the
 * first descriptor with room, the last of a descriptor fills a gap in it.
 *
 * Heads live in Int32Arrays of their owners (slots, shadow pages) and are passed as (array, index).
 * Source: Linux 6.1 mmu.c pte_list_*.
 */
const DESC_WORDS = 16;
const MORE = 0;
const COUNT = 1;
const ENTRIES = 2;
/** Entries a descriptor holds. @kvm PTE_LIST_EXT */
export const PTE_LIST_EXT = 14;

export class PteLists {
  private words = new Int32Array(64 * DESC_WORDS);
  private free = 0;
  private high = 1;
  /** Descriptors in use. */
  used = 0;

  /** Adds an entry; how many were there before. @kvm pte_list_add */
  add(heads: Int32Array, at: number, sptep: number): number {
    const head = heads[at];
    if (head === 0) {
      heads[at] = sptep;
      return 0;
    }
    if (head > 0) {
      const desc = this.alloc();
      this.words[desc * DESC_WORDS + ENTRIES] = head;
      this.words[desc * DESC_WORDS + ENTRIES + 1] = sptep;
      this.words[desc * DESC_WORDS + COUNT] = 2;
      heads[at] = -desc;
      return 1;
    }
    return this.append(-head, sptep);
  }

  private append(first: number, sptep: number): number {
    let desc = first;
    let before = 0;
    while (this.words[desc * DESC_WORDS + COUNT] === PTE_LIST_EXT) {
      before += PTE_LIST_EXT;
      let more = this.words[desc * DESC_WORDS + MORE];
      if (more === 0) {
        more = this.alloc();
        this.words[desc * DESC_WORDS + MORE] = more;
      }
      desc = more;
    }
    const base = desc * DESC_WORDS;
    const count = this.words[base + COUNT];
    this.words[base + ENTRIES + count] = sptep;
    this.words[base + COUNT] = count + 1;
    return before + count;
  }

  /** Removes an entry that must be there. @kvm pte_list_remove */
  remove(heads: Int32Array, at: number, sptep: number): void {
    const head = heads[at];
    if (head === sptep && head > 0) {
      heads[at] = 0;
      return;
    }
    let previous = 0;
    for (let desc = head < 0 ? -head : 0; desc !== 0; desc = this.words[desc * DESC_WORDS + MORE]) {
      const base = desc * DESC_WORDS;
      const count = this.words[base + COUNT];
      for (let i = 0; i < count; i++) {
        if (this.words[base + ENTRIES + i] !== sptep) continue;
        this.words[base + ENTRIES + i] = this.words[base + ENTRIES + count - 1];
        this.words[base + ENTRIES + count - 1] = 0;
        this.words[base + COUNT] = count - 1;
        if (count === 1) this.unlink(heads, at, desc, previous);
        return;
      }
      previous = desc;
    }
    throw new Error(`INVARIANT rmap: entry ${sptep} is not in its list`);
  }

  private unlink(heads: Int32Array, at: number, desc: number, previous: number): void {
    const more = this.words[desc * DESC_WORDS + MORE];
    if (previous !== 0) this.words[previous * DESC_WORDS + MORE] = more;
    else heads[at] = -more | 0;
    this.release(desc);
  }

  /** Entries in the list. @kvm pte_list_count */
  count(heads: Int32Array, at: number): number {
    const head = heads[at];
    if (head >= 0) return head === 0 ? 0 : 1;
    let n = 0;
    for (let desc = -head; desc !== 0; desc = this.words[desc * DESC_WORDS + MORE])
      n += this.words[desc * DESC_WORDS + COUNT];
    return n;
  }

  /**
   * The first entry, or 0. Iterate with `next`, which takes a cursor: (descriptor << 4 | position), 0 for a single
   * entry. After removing an entry start anew. @kvm rmap_get_first
   */
  first(heads: Int32Array, at: number): number {
    const head = heads[at];
    return head >= 0 ? head : this.words[-head * DESC_WORDS + ENTRIES];
  }

  firstCursor(heads: Int32Array, at: number): number {
    const head = heads[at];
    return head >= 0 ? 0 : -head * DESC_WORDS + ENTRIES;
  }

  /** The cursor after `cursor`, 0 at the end. @kvm rmap_get_next */
  next(cursor: number): number {
    if (cursor === 0) return 0;
    const base = cursor & ~(DESC_WORDS - 1);
    if (cursor + 1 < base + ENTRIES + this.words[base + COUNT]) return cursor + 1;
    const more = this.words[base + MORE];
    return more === 0 ? 0 : more * DESC_WORDS + ENTRIES;
  }

  /** The entry under a cursor that is not 0. */
  at(cursor: number): number {
    return this.words[cursor];
  }

  /** Forgets all entries of a list. */
  clear(heads: Int32Array, at: number): void {
    let desc = heads[at] < 0 ? -heads[at] : 0;
    while (desc !== 0) {
      const more = this.words[desc * DESC_WORDS + MORE];
      this.release(desc);
      desc = more;
    }
    heads[at] = 0;
  }

  private alloc(): number {
    this.used++;
    if (this.free !== 0) {
      const desc = this.free;
      this.free = this.words[desc * DESC_WORDS + MORE];
      this.words[desc * DESC_WORDS + MORE] = 0;
      return desc;
    }
    if ((this.high + 1) * DESC_WORDS > this.words.length) {
      const larger = new Int32Array(this.words.length * 2);
      larger.set(this.words);
      this.words = larger;
    }
    return this.high++;
  }

  private release(desc: number): void {
    const base = desc * DESC_WORDS;
    this.words.fill(0, base, base + DESC_WORDS);
    this.words[base + MORE] = this.free;
    this.free = desc;
    this.used--;
  }
}
