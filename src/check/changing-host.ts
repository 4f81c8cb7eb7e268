/**
 * A host with one large region whose frames it can take away and replace. Between the start and the end of that it goes
 * on giving the old frame until it has changed its page table, and nothing may be written there from then on.
 */
import { PAGE_BYTES } from '../base/page.ts';
import { FlatHost } from '../mem/flat-host.ts';

export const REGION_PAGES = 512;

export class ChangingHost extends FlatHost {
  /** How often the frames were replaced. */
  epoch = 0;

  constructor() {
    super({ bytes: REGION_PAGES * PAGE_BYTES, level: 2, sparse: true });
  }

  override pfnAt(hva: number): number {
    const pfn = super.pfnAt(hva);
    return pfn < 0 ? pfn : pfn + REGION_PAGES * this.epoch;
  }
}
