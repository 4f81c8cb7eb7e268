/**
 * Syncing what is stale below a page: the guest flushed its TLB, or a page with stale children becomes reachable.
 * Source: Linux 6.1 mmu.c mmu_sync_children.
 */
import { type Mmu, vcpuSlot } from './mmu.ts';
import { prepareZapPage, remoteFlushOrZap } from './page-zap.ts';
import { RACE_SYNC_ROUND, race } from './race.ts';
import { syncPage } from './sync-page.ts';
import { UnsyncPages, unlinkUnsyncPage, unsyncWalk } from './unsync.ts';
import type { MmuVcpu } from './vcpu.ts';
import { slotGfnWriteProtect } from './write-protect.ts';

/** Re-reads a page's guest table; on failure the page is zapped. <0 zapped, >0 a flush is needed. @kvm kvm_sync_page */
export function syncOrZapPage(mmu: Mmu, vcpu: MmuVcpu, sp: number, invalid: number[]): number {
  const ret = syncPage(mmu, vcpu, sp);
  if (ret < 0) prepareZapPage(mmu, sp, invalid);
  return ret;
}

/**
 * Syncs everything unsync below `parent`: first all their gfns are write-protected (so that no page made writable on
 * the way is one of them), then each is re-read. @kvm mmu_sync_children
 */
export function syncChildren(mmu: Mmu, vcpu: MmuVcpu, parent: number): void {
  const found = new UnsyncPages();
  const invalid: number[] = [];
  let flush = false;
  while (unsyncWalk(mmu, parent, found)) {
    let isProtected = false;
    for (let i = found.first(mmu); i < found.nr; i = found.next(mmu, i)) {
      const gfn = mmu.pages.gfn[found.sp[i]];
      const slot = vcpuSlot(mmu, vcpu, gfn);
      if (slot !== null && slotGfnWriteProtect(mmu, slot, gfn, 1)) isProtected = true;
    }
    if (isProtected) {
      remoteFlushOrZap(mmu, invalid, true);
      flush = false;
    }
    for (let i = found.first(mmu); i < found.nr; i = found.next(mmu, i)) {
      const sp = found.sp[i];
      unlinkUnsyncPage(mmu, sp);
      if (syncOrZapPage(mmu, vcpu, sp, invalid) > 0) flush = true;
      found.clearParents(mmu);
    }
    race(RACE_SYNC_ROUND);
  }
  remoteFlushOrZap(mmu, invalid, flush);
}
