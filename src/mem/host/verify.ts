/**
 * Checks every invariant of the host's memory management. For tests: slow, changes nothing.
 *
 *     sorted      VMAs are ordered, apart, page-aligned; hugetlb ones at multiples of their page
 *     inside      what is mapped lies in a VMA, a leaf wholly in one that allows its size
 *     exclusive   a writable entry maps an exclusive page, and never a zero page
 *     rights      entries have no right that their VMA has not
 *     anon        what is not a zero page is in a VMA with an anonVma
 *     refs        a folio has as many references as there are entries and batch places for it
 *     pool        huge pages mapped and free ones add up to the pool
 */
import { HUGE_ZERO_PFN, ZERO_PFN } from './frames.ts';
import type { HostMm } from './host-mm.ts';
import {
  BLOCK,
  GIGA,
  PAGE,
  PTE_EXCLUSIVE,
  PTE_LEAF,
  PTE_PRESENT,
  PTE_PROTNONE,
  PTE_TABLE,
  PTE_WRITE,
} from './host-tables.ts';
import { hugetlbSize, VM_ACCESS, VM_HUGEPAGE, VM_WRITE } from './vmas.ts';

/** What does not hold, a line each: "INVARIANT name: what and where". Empty if all is well. */
export function verifyHost(mm: HostMm): string[] {
  return new Verifier(mm).run();
}

class Verifier {
  private readonly mm: HostMm;
  private readonly broken: string[] = [];
  private readonly expected = new Map<number, number>();
  private mapped2m = 0;
  private mapped1g = 0;

  constructor(mm: HostMm) {
    this.mm = mm;
  }

  run(): string[] {
    this.checkVmas();
    this.checkTables();
    this.checkRefs();
    const { pool, options } = this.mm;
    this.require(pool.free2m + this.mapped2m === options.huge2m, 'pool', `2M: ${pool.free2m} + ${this.mapped2m}`);
    this.require(pool.free1g + this.mapped1g === options.huge1g, 'pool', `1G: ${pool.free1g} + ${this.mapped1g}`);
    return this.broken;
  }

  private require(holds: boolean, name: string, what: string): void {
    if (!holds) this.broken.push(`INVARIANT ${name}: ${what}`);
  }

  private checkVmas(): void {
    let end = 0;
    for (const vma of this.mm.vmas.list) {
      const size = hugetlbSize(vma) || PAGE;
      const fine = vma.start >= end && vma.start < vma.end && vma.start % size === 0 && vma.end % size === 0;
      this.require(fine, 'sorted', `${place(vma.start)}..${place(vma.end)}`);
      end = vma.end;
    }
  }

  private checkTables(): void {
    for (const [key, pud] of this.mm.tables.all()) {
      const base = key * GIGA;
      if (pud.leafFlags !== 0) this.checkLeaf(base, GIGA, pud.leafPfn, pud.leafFlags);
      pud.blockFlags.forEach((flags, block) => {
        const start = base + block * BLOCK;
        const table = pud.tables[block];
        this.require(((flags & PTE_TABLE) !== 0) === (table !== null), 'table', place(start));
        if ((flags & PTE_LEAF) !== 0) this.checkLeaf(start, BLOCK, pud.blockPfn[block], flags);
        table?.flags.forEach((pte, i) => {
          if (pte !== 0) this.checkLeaf(start + i * PAGE, PAGE, table.pfn[i], pte);
        });
      });
    }
  }

  private checkLeaf(hva: number, size: number, pfn: number, flags: number): void {
    const vma = this.mm.vmas.at(hva);
    const isZero = pfn === ZERO_PFN || pfn === HUGE_ZERO_PFN;
    if (vma === null || hva + size > vma.end) {
      this.require(false, 'inside', `${place(hva)} of ${size} bytes`);
      return;
    }
    const hugetlb = hugetlbSize(vma);
    const allowed =
      hugetlb === 0 ? size === PAGE || (size === BLOCK && (vma.flags & VM_HUGEPAGE) !== 0) : size === hugetlb;
    this.require(allowed && (flags & PTE_PRESENT) !== 0, 'inside', `${place(hva)} of ${size} bytes`);
    const writable = (flags & PTE_WRITE) !== 0;
    this.require(!writable || ((flags & PTE_EXCLUSIVE) !== 0 && !isZero), 'exclusive', place(hva));
    this.require(!writable || (vma.flags & VM_WRITE) !== 0, 'rights', `${place(hva)} is writable`);
    this.require(((flags & PTE_PROTNONE) !== 0) === ((vma.flags & VM_ACCESS) === 0), 'rights', place(hva));
    this.require(isZero || vma.anonVma !== 0, 'anon', place(hva));
    if (hugetlb === BLOCK) this.mapped2m++;
    if (hugetlb === GIGA) this.mapped1g++;
    if (!isZero && size !== GIGA) this.expect(pfn);
  }

  private expect(pfn: number): void {
    const head = this.mm.frames.isLarge(pfn) ? pfn & ~511 : pfn;
    this.expected.set(head, (this.expected.get(head) ?? 0) + 1);
  }

  private checkRefs(): void {
    const { adding, activating } = this.mm.lru.save();
    for (const pfn of [...adding, ...activating]) this.expect(pfn);
    this.mm.frames.eachCounted((pfn, refs) => {
      this.require(this.expected.get(pfn) === refs, 'refs', `frame ${pfn} has ${refs}, not ${this.expected.get(pfn)}`);
      this.expected.delete(pfn);
    });
    for (const pfn of this.expected.keys()) this.require(false, 'refs', `frame ${pfn} is mapped, but free`);
  }
}

function place(hva: number): string {
  return `0x${hva.toString(16)}`;
}
