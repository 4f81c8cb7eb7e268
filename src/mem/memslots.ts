/**
 * Memory slots: which guest frames there are and which host addresses back them, with the tables that KVM keeps for
 * each of a slot's frames. Two address spaces (0 normal, 1 SMM), each with a generation.
 *
 *     gfn   base_gfn                               base_gfn + npages
 *           |-----------------------------------------|
 *     hva   userspaceAddr                              level 1: one entry a frame, 2: one for 2 MiB, 3: one for 1 GiB
 *
 * Source: Linux 6.1 kvm_main.c, x86.c kvm_alloc_memslot_metadata.
 */
import { pagesPerLevel } from '../base/page.ts';

export const MEM_LOG_DIRTY_PAGES = 1 << 0;
export const MEM_READONLY = 1 << 1;
/** The slot is being deleted or moved: faults on it retry. @kvm KVM_MEMSLOT_INVALID */
export const MEMSLOT_INVALID = 1 << 16;
export const ADDRESS_SPACES = 2;

/** log2 of the heads that a byte of `rmapUsed` stands for: at level 1, those of 2 MiB. */
export const RMAP_CHUNK_SHIFT = 9;

/** Where dirty pages go that no bitmap takes. */
export interface DirtySink {
  /** `offset`: in pages from the slot's first. */
  push(slot: MemSlot, offset: number): void;
}

export class MemSlot {
  readonly id: number;
  readonly asId: number;
  baseGfn: number;
  readonly npages: number;
  flags: number;
  /** hva of the slot's first byte. */
  readonly userspaceAddr: number;
  /** One bit a frame, words of 32; null while not logging. */
  dirtyBitmap: Int32Array | null = null;
  /** The rings, while logging into them. */
  dirtySink: DirtySink | null = null;
  /** Reverse map heads by level - 1; null until some engine needs them. @kvm kvm_rmap_head */
  rmap: readonly Int32Array[] = [];
  /** By level - 1, a byte for each RMAP_CHUNK heads: 0 if all of them are empty, so that a walk skips them. */
  rmapUsed: readonly Uint8Array[] = [];
  /** Counts that forbid a large mapping, by level - 2. @kvm kvm_lpage_info.disallow_lpage */
  lpageInfo: readonly Int32Array[] = [];
  /** Counts that forbid a writable mapping. @kvm gfn_track[KVM_PAGE_TRACK_WRITE] */
  gfnTrack: Uint16Array | null = null;

  constructor(id: number, asId: number, baseGfn: number, npages: number, flags: number, userspaceAddr: number) {
    this.id = id;
    this.asId = asId;
    this.baseGfn = baseGfn;
    this.npages = npages;
    this.flags = flags;
    this.userspaceAddr = userspaceAddr;
  }

  contains(gfn: number): boolean {
    return gfn >= this.baseGfn && gfn < this.baseGfn + this.npages;
  }

  /** @kvm __gfn_to_hva_memslot */
  hvaOf(gfn: number): number {
    return this.userspaceAddr + (gfn - this.baseGfn) * 4096;
  }

  get logsDirty(): boolean {
    return (this.flags & MEM_LOG_DIRTY_PAGES) !== 0;
  }

  get isReadonly(): boolean {
    return (this.flags & MEM_READONLY) !== 0;
  }

  get isInvalid(): boolean {
    return (this.flags & MEMSLOT_INVALID) !== 0;
  }
}

/**
 * Index of gfn's entry in a table of `level` that starts with the slot's base. Right for frames of any size: what is
 * cut off above 32 bits is cut off the difference, which is small. @kvm gfn_to_index
 */
export function gfnToIndex(gfn: number, baseGfn: number, level: number): number {
  const shift = 9 * (level - 1);
  return ((gfn >>> shift) - (baseGfn >>> shift)) & (0xffffffff >>> shift);
}

/** Entries that a table of `level` needs for a slot. @kvm __kvm_mmu_slot_lpages */
export function entriesForLevel(baseGfn: number, npages: number, level: number): number {
  return gfnToIndex(baseGfn + npages - 1, baseGfn, level) + 1;
}

/** Reverse map heads of a slot, empty, and the marks of what is used of them. */
export function allocRmap(slot: MemSlot): void {
  slot.rmap = [1, 2, 3].map((level) => new Int32Array(entriesForLevel(slot.baseGfn, slot.npages, level)));
  slot.rmapUsed = slot.rmap.map((heads) => new Uint8Array((heads.length >>> RMAP_CHUNK_SHIFT) + 1));
}

/**
 * Large mappings are forbidden where the slot's start or end cuts a large page, and everywhere if guest and host
 * address differ within one. @kvm kvm_alloc_memslot_metadata
 */
export function makeLpageInfo(baseGfn: number, npages: number, userspaceAddr: number): Int32Array[] {
  const tables: Int32Array[] = [];
  for (let level = 2; level <= 3; level++) {
    const table = new Int32Array(entriesForLevel(baseGfn, npages, level));
    const mask = pagesPerLevel(level) - 1;
    if (baseGfn & mask) table[0] = 1;
    if ((baseGfn + npages) & mask) table[table.length - 1] = 1;
    const hostFrame = Math.floor(userspaceAddr / 4096);
    if ((baseGfn & mask) !== hostFrame % (mask + 1)) table.fill(1);
    tables.push(table);
  }
  return tables;
}

/** The slots of one address space, by guest address. */
export class Memslots {
  readonly asId: number;
  /** Sorted by base_gfn; slots never overlap. */
  slots: MemSlot[] = [];
  /** Advances by 2 with each change; spaces start at their own number, so that they never share one. */
  generation: number;
  /** A change is under way: bit 63 of the kernel's generation. */
  updateInProgress = false;
  private last: MemSlot | null = null;

  constructor(asId: number) {
    this.asId = asId;
    this.generation = asId;
  }

  /** @kvm __gfn_to_memslot */
  find(gfn: number): MemSlot | null {
    const last = this.last;
    if (last !== null && gfn >= last.baseGfn && gfn < last.baseGfn + last.npages) return last;
    return this.search(gfn);
  }

  private search(gfn: number): MemSlot | null {
    let low = 0;
    let high = this.slots.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.slots[middle].baseGfn <= gfn) low = middle + 1;
      else high = middle;
    }
    const slot = low > 0 ? this.slots[low - 1] : null;
    if (slot === null || !slot.contains(gfn)) return null;
    this.last = slot;
    return slot;
  }

  byId(id: number): MemSlot | null {
    return this.slots.find((s) => s.id === id) ?? null;
  }

  /** Another slot overlaps [baseGfn, baseGfn + npages). @kvm kvm_check_memslot_overlap */
  overlaps(baseGfn: number, npages: number, exceptId: number): boolean {
    return this.slots.some((s) => s.id !== exceptId && s.baseGfn < baseGfn + npages && baseGfn < s.baseGfn + s.npages);
  }

  /** Replaces `old` (or nothing) by `next` (or nothing). @kvm kvm_replace_memslot */
  replace(old: MemSlot | null, next: MemSlot | null): void {
    this.last = null;
    const rest = this.slots.filter((s) => s !== old);
    if (next !== null) rest.push(next);
    this.slots = rest.sort((a, b) => a.baseGfn - b.baseGfn);
  }
}

/** Marks a frame dirty in its slot's bitmap; `rel` is relative to the slot. */
export function setDirtyBit(bitmap: Int32Array, rel: number): void {
  bitmap[rel >>> 5] = bitmap[rel >>> 5] | (1 << (rel & 31));
}
