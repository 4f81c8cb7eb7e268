/**
 * The memory side of the oracle's VMM: where the recorder puts the memory of its slots, and what its host operations do.
 *
 *     slot N:   0x100000000000 + N * 4 GiB
 *               |<- hvaoff ->|<------- slot ------->|<- rest to 2 MiB (1g: 1 GiB) ->|
 *               ^ base       ^ hva                                                   one mapping, without guards
 *
 * Offsets of operations are relative to the slot's first byte. A slot that is deleted keeps its region; only a slot
 * made with the same number unmaps it.
 */
import { EFAULT, ENOENT } from '../../base/errno.ts';
import { alignDown, alignUp, BLOCK, GIGA, PAGE } from './host-tables.ts';
import { type Backing, type HostMm, PROT_EXEC, PROT_NONE, PROT_READ, PROT_RWX } from './host-mm.ts';

export const REGIONS_BASE = 0x100000000000;
export const REGION_STRIDE = 0x100000000;

const PROTECTIONS: Record<string, number> = { none: PROT_NONE, r: PROT_READ, rx: PROT_READ | PROT_EXEC, rw: PROT_RWX };

/** What the oracle's VMM gives up on. */
export class VmmError extends Error {
  override readonly name = 'VmmError';
}

export interface SlotRequest {
  id: number;
  gpa: number;
  bytes: number;
  backing: Backing;
  /** Not populated at first. */
  nopop?: boolean;
  /** Offset of the slot in its region; by default what makes GPA and host address congruent modulo 2 MiB. */
  hvaoff?: number;
}

export interface VmmSlot {
  readonly id: number;
  gpa: number;
  readonly bytes: number;
  readonly backing: Backing;
  /** False: KVM knows it no more. */
  used: boolean;
  readonly base: number;
  readonly length: number;
  readonly hva: number;
}

export class VmmMemory {
  readonly mm: HostMm;
  private readonly slots = new Map<number, VmmSlot>();

  constructor(mm: HostMm) {
    this.mm = mm;
  }

  /**
   * The region of a new slot, mapped and populated; a region that the same number had before is unmapped first.
   * The caller tells KVM, and sets `used` to false if KVM refuses. Throws a `VmmError` if there can be no such region.
   */
  addSlot(request: SlotRequest): VmmSlot {
    const { id, gpa, bytes, backing } = request;
    const old = this.slots.get(id);
    if (old?.used) throw new VmmError(`slot ${id} is there already`);
    if (old) this.mm.munmap(old.base, old.length);
    const hvaoff = request.hvaoff ?? gpa % BLOCK;
    if (bytes + hvaoff > REGION_STRIDE) throw new VmmError(`slot ${id} reaches into the next one's memory`);
    const base = REGIONS_BASE + id * REGION_STRIDE;
    const length = alignUp(bytes + hvaoff, backing === '1g' ? GIGA : BLOCK);
    const slot: VmmSlot = { id, gpa, bytes, backing, used: true, base, length, hva: base + hvaoff };
    const error = this.mm.mmapRegion({ base, length, backing });
    if (error !== 0) throw new VmmError(`mmap of slot ${id}, ${length} bytes: ${error}`);
    this.slots.set(id, slot);
    if (request.nopop !== true) this.populateNew(slot);
    return slot;
  }

  /** The slot with this number; throws if there is none in use. */
  slot(id: number): VmmSlot {
    const slot = this.slots.get(id);
    if (!slot || !slot.used) throw new VmmError(`no slot ${id}`);
    return slot;
  }

  /** The slots in use, by number. */
  used(): VmmSlot[] {
    return [...this.slots.values()].filter((slot) => slot.used).sort((a, b) => a.id - b.id);
  }

  /** Host address of `count` bytes at `gpa`, or -ENOENT if no slot holds them all. */
  hvaOf(gpa: number, count: number): number {
    for (const slot of this.used()) {
      if (gpa >= slot.gpa && gpa + count <= slot.gpa + slot.bytes) return slot.hva + (gpa - slot.gpa);
    }
    return -ENOENT;
  }

  /** Host address of an offset in a slot. The VMM's own memory is not to be reached: it would not survive that. */
  private hostStart(id: number, offset: number, length: number): number {
    const { base, hva } = this.slot(id);
    if (hva + offset + length > base + REGION_STRIDE)
      throw new VmmError(`offset ${offset}, ${length} bytes: beyond the memory of slot ${id}`);
    return hva + offset;
  }

  dontneed(id: number, offset: number, length: number): number {
    return this.mm.madviseDontneed(this.hostStart(id, offset, length), length);
  }

  munmap(id: number, offset: number, length: number): number {
    return this.mm.munmap(this.hostStart(id, offset, length), length);
  }

  /** `protection`: none, r, rx; anything else is read, write and exec. */
  mprotect(id: number, offset: number, length: number, protection: string): number {
    return this.mm.mprotect(this.hostStart(id, offset, length), length, PROTECTIONS[protection] ?? PROT_RWX);
  }

  /** Writes a byte into each page; where nothing is mapped, maps anew before. */
  populate(id: number, offset: number, length: number): number {
    const slot = this.slot(id);
    this.hostStart(id, offset, length);
    const step = pageBytes(slot.backing);
    const zero = new Uint8Array(1);
    let result = 0;
    for (let hva = alignDown(slot.hva + offset, step); hva < slot.hva + offset + length; hva += step) {
      if (!this.mm.isMapped(hva)) this.mm.mmapRegion({ base: hva, length: step, backing: slot.backing });
      const error = this.mm.pinnedAccess(hva, zero, true);
      if (error !== 0) result = error;
    }
    return result;
  }

  fork(): number {
    return this.mm.fork();
  }

  /** The VMM writes 4 bytes at `gpa`: 0 or -EFAULT. */
  hostWrite(gpa: number, value: number): number {
    const hva = this.hvaOf(gpa, 4);
    if (hva < 0) return -EFAULT;
    return this.mm.pinnedAccess(hva, new Uint8Array([value, value >>> 8, value >>> 16, value >>> 24]), true);
  }

  /** The VMM reads 4 bytes at `gpa`: a uint32, or -EFAULT. */
  hostRead(gpa: number): number {
    const hva = this.hvaOf(gpa, 4);
    if (hva < 0) return -EFAULT;
    const bytes = new Uint8Array(4);
    const error = this.mm.pinnedAccess(hva, bytes, false);
    if (error !== 0) return error;
    return new DataView(bytes.buffer).getUint32(0, true);
  }

  /** Initial contents: an ordinary write of the VMM, of any length. 0 or -EFAULT. */
  poke(hva: number, bytes: Uint8Array): number {
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(PAGE - ((hva + at) % PAGE), bytes.length - at);
      const error = this.mm.writeUser(hva + at, bytes.subarray(at, at + count), count);
      if (error !== 0) return error;
      at += count;
    }
    return 0;
  }

  private populateNew(slot: VmmSlot): void {
    const step = pageBytes(slot.backing);
    for (let hva = alignDown(slot.hva, step); hva < slot.hva + slot.bytes; hva += step)
      if (this.mm.touchWrite(hva) !== 0) throw new VmmError(`no memory is left for slot ${slot.id}`);
  }
}

/** Step in which memory of this backing is populated: THP memory as small pages are. */
function pageBytes(backing: Backing): number {
  if (backing === '1g') return GIGA;
  return backing === '2m' ? BLOCK : PAGE;
}
