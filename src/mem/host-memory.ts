/**
 * What KVM asks of the host's memory management, and what it is told by it. The consumer owns this interface; behind
 * it stand `mem/host` (Linux's own behaviour: zero pages, copy on write, THP, hugetlb, VMAs, fork) and flat backings.
 *
 * `hva`: host virtual address in bytes, a plain number below 2^48. `pfn`: host frame number below 2^29.
 */
import type { PhysMemory } from './phys-memory.ts';

export interface HostMemory {
  readonly phys: PhysMemory;
  /** Told of every change that takes a mapping or a right away; set by the VM. */
  notifier: HostNotifier | null;

  /**
   * The lockless get-user-pages with FOLL_WRITE: the frame, or -1 unless the host's entry is present and writable.
   * No fault, no event. @kvm hva_to_pfn_fast, get_user_page_fast_only
   */
  gupFast(hva: number): number;
  /**
   * Faults the page in if need be; events arise here. The frame, or a negative errno (-EFAULT).
   * Marks the page accessed (FOLL_TOUCH). @kvm hva_to_pfn_slow
   */
  gupSlow(hva: number, write: boolean): number;
  /** Level of the leaf that the host's page tables have at `hva` now: 1, 2, 3. @kvm host_pfn_mapping_level */
  mappingLevel(hva: number): number;
  /** @kvm kvm_set_pfn_accessed */
  markAccessed(pfn: number): void;
  /** @kvm kvm_set_pfn_dirty */
  markDirty(pfn: number): void;

  /** The frame that the host maps at `hva` now, whatever its rights (as /proc/self/pagemap tells), or -1. */
  pfnAt(hva: number): number;

  /**
   * Software access of the host to its own mapping, faulting as a process does; 0 or -EFAULT. Must not cross a page.
   * @kvm kvm_read_guest_page, kvm_write_guest_page
   */
  readUser(hva: number, bytes: Uint8Array, count: number): number;
  writeUser(hva: number, bytes: Uint8Array, count: number): number;
  /**
   * As `readUser`, but with page faults disabled: -EFAULT unless the host's entry is present and readable now.
   * @kvm kvm_vcpu_read_guest_atomic
   */
  readUserAtomic(hva: number, bytes: Uint8Array, count: number): number;
}

/** MMU notifier callbacks; ranges are [start, end) in hva. */
export interface HostNotifier {
  invalidateRangeStart(start: number, end: number): void;
  invalidateRangeEnd(start: number, end: number): void;
  /** A page table entry is replaced in place; between a start and an end, always, in Linux 6.1. */
  changePte(hva: number): void;
}
