/**
 * Shadow pages: what KVM knows of each table it owns. A page's number (SpId) is its table's number in the arena, so
 * that an entry's page is `sptep >>> 9` and a non-leaf entry's child is its frame number less TABLE_PFN_BASE.
 *
 * One typed array a field, indexed by SpId; 0 is none. Pages hang in a list by age (`active`, newest first) and in a
 * hash by gfn (newest first in each bucket). A zapped page leaves the list at once, the hash when it is freed.
 *
 * Source: Linux 6.1 struct kvm_mmu_page, mmu_page_hash, active_mmu_pages.
 */
import { TABLE_PFN_BASE, type TableArena } from '../mem/table-arena.ts';
import { isDirectRole, roleLevel } from './role.ts';

/** @kvm KVM_MMU_HASH_SHIFT */
const HASH_SHIFT = 12;
const ENTRIES = 512;
const BITMAP_WORDS = ENTRIES / 32;

/** Bucket of a gfn: the top 12 bits of gfn times the golden ratio, modulo 2^64. @kvm kvm_page_table_hashfn, hash_64 */
export function hashBucket(gfn: number): number {
  const multLo = 0x80b583eb;
  const multHi = 0x61c88646;
  const lowPart = multLo * (gfn & 0x3fff);
  const highPart = multLo * (gfn >>> 14);
  const highOfHigh = Math.floor(highPart / 0x40000);
  const carry = Math.floor(((highPart - highOfHigh * 0x40000) * 0x4000 + lowPart) / 0x100000000);
  const top = (Math.imul(multHi, gfn) + highOfHigh + carry) >>> 0;
  return top >>> (32 - HASH_SHIFT);
}

export class ShadowPages {
  gfn!: Int32Array;
  role!: Int32Array;
  rootCount!: Int32Array;
  /** 1: the guest may write the table that this page mirrors, so the page may be stale. */
  unsync!: Uint8Array;
  /** Upper bound of the entries below which something is unsync: the bits set in the bitmap. */
  unsyncChildren!: Int32Array;
  unsyncBitmap!: Int32Array;
  validGen!: Uint8Array;
  writeFlooding!: Int32Array;
  /** The page exists only because huge pages must not be executable. */
  lpageDisallowed!: Uint8Array;
  /** 1: a page of the TDP MMU. It is in no list and no hash, and `parents` holds the one entry that points at it. */
  tdp!: Uint8Array;
  /** 1: an invalidated root of the TDP MMU that is still to be zapped. @kvm tdp_mmu_scheduled_root_to_zap */
  zapScheduled!: Uint8Array;
  parents!: Int32Array;
  /** Index into `translations`, or 0 for a direct page. */
  private translation!: Int32Array;
  private hashNext!: Int32Array;
  private newer!: Int32Array;
  private older!: Int32Array;
  /** 1 while on the active list. */
  private listed!: Uint8Array;
  private readonly buckets = new Int32Array(1 << HASH_SHIFT);
  /** For each entry of a page that mirrors a guest table: gfn << 3 | access. 512 words a page. */
  private translations = new Int32Array(16 * ENTRIES);
  private freeTranslations: number[] = [];
  private highTranslation = 1;
  newest = 0;
  oldest = 0;

  constructor(arena: TableArena) {
    this.resize(arena.capacity);
    arena.onGrow = (tables) => this.resize(tables);
  }

  private resize(n: number): void {
    const i32 = (old: Int32Array | undefined, per = 1): Int32Array => {
      const a = new Int32Array(n * per);
      if (old) a.set(old);
      return a;
    };
    const u8 = (old: Uint8Array | undefined): Uint8Array => {
      const a = new Uint8Array(n);
      if (old) a.set(old);
      return a;
    };
    this.gfn = i32(this.gfn);
    this.role = i32(this.role);
    this.rootCount = i32(this.rootCount);
    this.unsync = u8(this.unsync);
    this.unsyncChildren = i32(this.unsyncChildren);
    this.unsyncBitmap = i32(this.unsyncBitmap, BITMAP_WORDS);
    this.validGen = u8(this.validGen);
    this.writeFlooding = i32(this.writeFlooding);
    this.lpageDisallowed = u8(this.lpageDisallowed);
    this.tdp = u8(this.tdp);
    this.zapScheduled = u8(this.zapScheduled);
    this.parents = i32(this.parents);
    this.translation = i32(this.translation);
    this.hashNext = i32(this.hashNext);
    this.newer = i32(this.newer);
    this.older = i32(this.older);
    this.listed = u8(this.listed);
  }

  /** Makes `sp`, a fresh table, a shadow page: newest of the list, first of its bucket. @kvm kvm_mmu_alloc_shadow_page */
  add(sp: number, gfn: number, role: number, validGen: number): void {
    this.gfn[sp] = gfn;
    this.role[sp] = role;
    this.rootCount[sp] = 0;
    this.unsync[sp] = 0;
    this.unsyncChildren[sp] = 0;
    this.unsyncBitmap.fill(0, sp * BITMAP_WORDS, (sp + 1) * BITMAP_WORDS);
    this.validGen[sp] = validGen;
    this.writeFlooding[sp] = 0;
    this.lpageDisallowed[sp] = 0;
    this.parents[sp] = 0;
    this.translation[sp] = isDirectRole(role) ? 0 : this.allocTranslation();
    const bucket = hashBucket(gfn);
    this.hashNext[sp] = this.buckets[bucket];
    this.buckets[bucket] = sp;
    this.older[sp] = this.newest;
    this.newer[sp] = 0;
    if (this.newest !== 0) this.newer[this.newest] = sp;
    else this.oldest = sp;
    this.newest = sp;
    this.listed[sp] = 1;
  }

  /** Makes `sp`, a fresh table, a page of the TDP MMU. */
  addTdp(sp: number, sptep: number, gfn: number, role: number): void {
    this.gfn[sp] = gfn;
    this.role[sp] = role;
    this.rootCount[sp] = 0;
    this.validGen[sp] = 0;
    this.lpageDisallowed[sp] = 0;
    this.parents[sp] = sptep;
    this.tdp[sp] = 1;
    this.zapScheduled[sp] = 0;
  }

  removeTdp(sp: number): void {
    this.role[sp] = 0;
    this.parents[sp] = 0;
    this.tdp[sp] = 0;
  }

  /** First page of gfn's bucket; pages of other gfns may follow. */
  bucketFirst(gfn: number): number {
    return this.buckets[hashBucket(gfn)];
  }
  bucketNext(sp: number): number {
    return this.hashNext[sp];
  }
  /** Next younger on the active list, 0 at the end. */
  newerOf(sp: number): number {
    return this.newer[sp];
  }
  olderOf(sp: number): number {
    return this.older[sp];
  }
  isListed(sp: number): boolean {
    return this.listed[sp] !== 0;
  }

  /** Takes the page off the active list. */
  unlist(sp: number): void {
    if (this.listed[sp] === 0) return;
    const newer = this.newer[sp];
    const older = this.older[sp];
    if (newer !== 0) this.older[newer] = older;
    else this.newest = older;
    if (older !== 0) this.newer[older] = newer;
    else this.oldest = newer;
    this.listed[sp] = 0;
  }

  /** Takes the page out of the hash and forgets its translations. @kvm kvm_mmu_free_shadow_page */
  remove(sp: number): void {
    this.unlist(sp);
    const bucket = hashBucket(this.gfn[sp]);
    if (this.buckets[bucket] === sp) this.buckets[bucket] = this.hashNext[sp];
    else {
      let at = this.buckets[bucket];
      while (this.hashNext[at] !== sp) at = this.hashNext[at];
      this.hashNext[at] = this.hashNext[sp];
    }
    const t = this.translation[sp];
    if (t !== 0) {
      this.translations.fill(0, t * ENTRIES, (t + 1) * ENTRIES);
      this.freeTranslations.push(t);
      this.translation[sp] = 0;
    }
    this.role[sp] = 0;
  }

  level(sp: number): number {
    return roleLevel(this.role[sp]);
  }

  /** Frame that entry `index` maps. @kvm kvm_mmu_page_get_gfn */
  entryGfn(sp: number, index: number): number {
    const t = this.translation[sp];
    if (t !== 0) return this.translations[t * ENTRIES + index] >>> 3;
    return this.gfn[sp] + (index << (9 * (this.level(sp) - 1)));
  }

  /** Rights that entry `index` was made with. @kvm kvm_mmu_page_get_access */
  entryAccess(sp: number, index: number): number {
    const t = this.translation[sp];
    if (t !== 0) return this.translations[t * ENTRIES + index] & 7;
    return (this.role[sp] >>> 8) & 7;
  }

  /** @kvm kvm_mmu_page_set_translation */
  setTranslation(sp: number, index: number, gfn: number, access: number): void {
    const t = this.translation[sp];
    if (t !== 0) this.translations[t * ENTRIES + index] = (gfn << 3) | access;
  }

  /** @kvm kvm_mmu_page_set_access */
  setEntryAccess(sp: number, index: number, access: number): void {
    const t = this.translation[sp];
    if (t === 0) return;
    const at = t * ENTRIES + index;
    this.translations[at] = (this.translations[at] & ~7) | access;
  }

  /** Sets the bit of `index`; true if it was clear. */
  setUnsyncBit(sp: number, index: number): boolean {
    const at = sp * BITMAP_WORDS + (index >>> 5);
    const bit = 1 << (index & 31);
    if ((this.unsyncBitmap[at] & bit) !== 0) return false;
    this.unsyncBitmap[at] |= bit;
    return true;
  }
  clearUnsyncBit(sp: number, index: number): void {
    this.unsyncBitmap[sp * BITMAP_WORDS + (index >>> 5)] &= ~(1 << (index & 31));
  }
  /** The first set bit at or after `from`, or -1. */
  nextUnsyncBit(sp: number, from: number): number {
    for (let i = from; i < ENTRIES; ) {
      const word = this.unsyncBitmap[sp * BITMAP_WORDS + (i >>> 5)] & (-1 << (i & 31));
      if (word !== 0) return (i & ~31) + (31 - Math.clz32(word & -word));
      i = (i & ~31) + 32;
    }
    return -1;
  }

  private allocTranslation(): number {
    const reused = this.freeTranslations.pop();
    if (reused !== undefined) return reused;
    if ((this.highTranslation + 1) * ENTRIES > this.translations.length) {
      const larger = new Int32Array(this.translations.length * 2);
      larger.set(this.translations);
      this.translations = larger;
    }
    return this.highTranslation++;
  }
}

/** Page that an entry belongs to. @kvm sptep_to_sp */
export function spOf(sptep: number): number {
  return sptep >>> 9;
}
/** Place of an entry in its table. @kvm spte_index */
export function indexOf(sptep: number): number {
  return sptep & 511;
}
/** The entry at `index` of page `sp`. */
export function sptepAt(sp: number, index: number): number {
  return (sp << 9) | index;
}
/** Frame number of a page's table. */
export function tablePfn(sp: number): number {
  return TABLE_PFN_BASE + sp;
}
/** Page that a non-leaf entry points at. @kvm spte_to_child_sp */
export function childOf(lo: number, hi: number): number {
  return ((lo >>> 12) | ((hi & 0x7ff) << 20)) - TABLE_PFN_BASE;
}
