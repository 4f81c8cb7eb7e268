/** What the parts of the host's memory management share, and the calls into the notifier. */
import type { HostNotifier } from '../host-memory.ts';
import type { Frames } from './frames.ts';
import type { HostTables } from './host-tables.ts';
import type { Lru } from './lru.ts';
import type { Vmas } from './vmas.ts';

export interface HostOptions {
  /** Which kernel's behaviour; they differ in what host-mm.md section 9 lists. */
  kernel: '6.1' | '6.12';
  /** Pool of huge pages: 2 MiB and 1 GiB ones. */
  huge2m: number;
  huge1g: number;
}

export interface HostContext {
  readonly options: HostOptions;
  readonly frames: Frames;
  readonly lru: Lru;
  readonly vmas: Vmas;
  readonly tables: HostTables;
  /** Free pages of the hugetlb pools. */
  readonly pool: { free2m: number; free1g: number };
  notifier: HostNotifier | null;
}

/** @kvm kvm_mmu_notifier_invalidate_range_start */
export function rangeStart(mm: HostContext, start: number, end: number): void {
  mm.notifier?.invalidateRangeStart(start, end);
}

/** @kvm kvm_mmu_notifier_invalidate_range_end */
export function rangeEnd(mm: HostContext, start: number, end: number): void {
  mm.notifier?.invalidateRangeEnd(start, end);
}

/** 6.12 has no such callback any more. @kvm kvm_mmu_notifier_change_pte */
export function changePte(mm: HostContext, hva: number): void {
  if (mm.options.kernel === '6.1') mm.notifier?.changePte(hva);
}
