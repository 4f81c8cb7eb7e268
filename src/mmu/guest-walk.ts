/** What a walk of the guest's page tables in software found. Source: Linux 6.1 struct guest_walker. */

/** Entries read ahead around the last-level one. @kvm PTE_PREFETCH_NUM */
export const PTE_PREFETCH_NUM = 8;

export class GuestWalk {
  /** Level of the guest's leaf. */
  level = 0;
  maxLevel = 0;
  /** By level - 1: gfn of the table, the entry's offset in it and value, its host address, whether that may be written. */
  readonly tableGfn = new Int32Array(5);
  readonly offset = new Int32Array(5);
  readonly pteLo = new Int32Array(5);
  readonly pteHi = new Int32Array(5);
  readonly pteHva = new Float64Array(5);
  readonly pteWritable = new Uint8Array(5);
  /** By level - 1: rights granted by the levels above. */
  readonly ptAccess = new Int32Array(5);
  /** Rights of the mapping as a whole. */
  pteAccess = 0;
  gfn = 0;
  /** The aligned group of entries around the last-level one, as read for the last comparison. */
  readonly prefetchLo = new Int32Array(PTE_PREFETCH_NUM);
  readonly prefetchHi = new Int32Array(PTE_PREFETCH_NUM);

  /** A nested guest's walk ended in a nested page fault. */
  isNestedFault = false;
  /** Of a failed walk: the #PF's error code and address. */
  errorCode = 0;
  addrLo = 0;
  addrHi = 0;
}
