/**
 * A host with one large region whose frames it can take away and replace. Between the start and the end of that it goes
 * on giving the old frame until it has changed its page table, and nothing may be written there from then on.
 */
import { EFAULT } from '../base/errno.ts';
import type { HostMemory, HostNotifier } from '../mem/host-memory.ts';
import type { PhysMemory } from '../mem/phys-memory.ts';

export const HOST_HVA = 2 ** 46;
export const REGION_PAGES = 512;
const FIRST_PFN = 2 ** 20;
const NO_CONTENTS: PhysMemory = { read32: () => 0, write32: () => {}, read8: () => 0, write8: () => {} };

export class ChangingHost implements HostMemory {
  readonly phys = NO_CONTENTS;
  notifier: HostNotifier | null = null;
  /** How often the frames were replaced. */
  epoch = 0;
  /** Level of the host's mapping. */
  level: number;

  constructor(level: number) {
    this.level = level;
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
    const page = Math.floor((hva - HOST_HVA) / 4096);
    return page < 0 || page >= REGION_PAGES ? -1 : FIRST_PFN + REGION_PAGES * this.epoch + page;
  }

  readUser(_hva: number, _bytes: Uint8Array, _count: number): number {
    return -EFAULT;
  }
  readUserAtomic(_hva: number, _bytes: Uint8Array, _count: number): number {
    return -EFAULT;
  }
  writeUser(_hva: number, _bytes: Uint8Array, _count: number): number {
    return -EFAULT;
  }
}
