/**
 * The little of KVM that the host sees: how it takes pages, and a log of what it is told.
 *
 * Places are `sN+x`: byte x (hexadecimal) of slot N's region; an event is `s2+0..1000` (unmap) or `s2+0!` (change_pte).
 */
import type { HostMm } from '../host-mm.ts';
import { REGION_STRIDE, REGIONS_BASE } from '../vmm-memory.ts';

export interface Taken {
  /** Negative: errno. */
  pfn: number;
  writable: boolean;
  level: number;
  /** Times that the host changed under the fault, so that it was taken anew. */
  retries: number;
}

export function hvaOf(place: string): number {
  const [, slot, offset] = /^s(\d+)\+([0-9a-f]+)$/.exec(place) ?? [];
  if (slot === undefined) throw new Error(`not a place: ${place}`);
  return REGIONS_BASE + Number(slot) * REGION_STRIDE + Number.parseInt(offset, 16);
}

export class FakeKvm {
  readonly events: string[] = [];
  /** Called in every range start, after it was logged; `nesting` counts the ranges that are open then. */
  onStart: ((start: number, end: number) => void) | null = null;
  nesting = 0;
  private readonly mm: HostMm;

  constructor(mm: HostMm) {
    this.mm = mm;
    mm.notifier = {
      invalidateRangeStart: (start, end) => {
        this.nesting++;
        this.events.push(`${place(start)}..${offset(end).toString(16)}`);
        this.onStart?.(start, end);
      },
      invalidateRangeEnd: () => {
        this.nesting--;
      },
      changePte: (hva) => {
        if (this.nesting === 0) throw new Error('change_pte outside of a range');
        this.events.push(`${place(hva)}!`);
      },
    };
  }

  /** The events since the last call. */
  take(): string[] {
    return this.events.splice(0);
  }

  /** A guest fault: takes the page as hva_to_pfn does, again while the host changes under it. */
  fault(hva: number, write: boolean): Taken {
    for (let retries = 0; ; retries++) {
      const before = this.events.length;
      const taken = this.once(hva, write);
      if (taken.pfn < 0) return { ...taken, retries };
      this.mm.markAccessed(taken.pfn);
      if (this.events.length === before) return { ...taken, retries };
    }
  }

  private once(hva: number, write: boolean): Taken {
    const { mm } = this;
    const fast = mm.gupFast(hva);
    if (fast >= 0) return { pfn: fast, writable: true, level: mm.mappingLevel(hva), retries: 0 };
    const slow = mm.gupSlow(hva, write);
    if (slow < 0) return { pfn: slow, writable: false, level: 0, retries: 0 };
    const again = write ? slow : mm.gupFast(hva);
    const writable = again >= 0;
    return { pfn: writable ? again : slow, writable, level: mm.mappingLevel(hva), retries: 0 };
  }
}

function offset(hva: number): number {
  return (hva - REGIONS_BASE) % REGION_STRIDE;
}

function place(hva: number): string {
  return `s${Math.floor((hva - REGIONS_BASE) / REGION_STRIDE)}+${offset(hva).toString(16)}`;
}
