/**
 * The plainest host there is: one range of memory, resident, writable, mapped by entries of one level, for ever.
 *
 *     hva   FLAT_HVA                          FLAT_HVA + bytes
 *           |------------------------------------|
 *     pfn   FLAT_PFN                          FLAT_PFN + bytes / 4096      (both starts lie on a 1 GiB boundary)
 *
 * Nothing ever faults, moves or is taken away, so the notifier is never called. For experiments on the MMU above it in
 * which the host's memory management must not play a part.
 */
import { EFAULT } from '../base/errno.ts';
import { PAGE_BYTES } from '../base/page.ts';
import type { HostMemory, HostNotifier } from './host-memory.ts';
import type { PhysMemory } from './phys-memory.ts';

/** Where the memory begins in the host's address space. */
export const FLAT_HVA = 2 ** 46;
/** Its first frame. Not 0, so that a gfn taken for a pfn shows. */
export const FLAT_PFN = 2 ** 20;

export interface FlatHostOptions {
  readonly bytes: number;
  /** Of the entries in the host's page tables: 4 KiB, 2 MiB or 1 GiB. */
  readonly level: 1 | 2 | 3;
  /** Keeps no contents: reads give zeros, writes go nowhere. For guests of which only the addresses matter. */
  readonly sparse?: boolean;
  /** The memory itself, of `bytes` bytes, where it is to lie somewhere special; it is made if absent. */
  readonly contents?: Uint8Array;
}

export class FlatHost implements HostMemory {
  readonly phys: PhysMemory;
  notifier: HostNotifier | null = null;
  private readonly bytes: number;
  private readonly level: number;
  private readonly contents: Uint8Array;

  constructor({ bytes, level, sparse = false, contents }: FlatHostOptions) {
    if (bytes <= 0 || bytes % PAGE_BYTES !== 0) throw new RangeError(`${bytes} bytes are not a number of pages`);
    this.bytes = bytes;
    this.level = level;
    this.contents = contents ?? new Uint8Array(sparse ? 0 : bytes);
    this.phys = sparse ? NO_CONTENTS : new FlatMemory(this.contents);
  }

  gupFast(hva: number): number {
    return this.pfnAt(hva);
  }

  gupSlow(hva: number, _write: boolean): number {
    const pfn = this.pfnAt(hva);
    return pfn < 0 ? -EFAULT : pfn;
  }

  mappingLevel(_hva: number): number {
    return this.level;
  }

  markAccessed(_pfn: number): void {}

  markDirty(_pfn: number): void {}

  pfnAt(hva: number): number {
    const offset = hva - FLAT_HVA;
    if (offset < 0 || offset >= this.bytes) return -1;
    return FLAT_PFN + Math.floor(offset / PAGE_BYTES);
  }

  readUser(hva: number, bytes: Uint8Array, count: number): number {
    const offset = hva - FLAT_HVA;
    if (offset < 0 || offset + count > this.bytes) return -EFAULT;
    for (let i = 0; i < count; i++) bytes[i] = this.contents[offset + i] ?? 0;
    return 0;
  }

  readUserAtomic(hva: number, bytes: Uint8Array, count: number): number {
    return this.readUser(hva, bytes, count);
  }

  writeUser(hva: number, bytes: Uint8Array, count: number): number {
    const offset = hva - FLAT_HVA;
    if (offset < 0 || offset + count > this.bytes) return -EFAULT;
    // A write beyond the end of a typed array goes nowhere, which is what a sparse host wants.
    for (let i = 0; i < count; i++) this.contents[offset + i] = bytes[i];
    return 0;
  }
}

class FlatMemory implements PhysMemory {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  read32(pfn: number, offset: number): number {
    return this.view.getInt32((pfn - FLAT_PFN) * PAGE_BYTES + offset, true);
  }

  write32(pfn: number, offset: number, value: number): void {
    this.view.setInt32((pfn - FLAT_PFN) * PAGE_BYTES + offset, value, true);
  }

  read8(pfn: number, offset: number): number {
    return this.bytes[(pfn - FLAT_PFN) * PAGE_BYTES + offset];
  }

  write8(pfn: number, offset: number, value: number): void {
    this.bytes[(pfn - FLAT_PFN) * PAGE_BYTES + offset] = value;
  }
}

const NO_CONTENTS: PhysMemory = { read32: () => 0, write32: () => {}, read8: () => 0, write8: () => {} };
