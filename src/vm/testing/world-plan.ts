/** What kind of machine a world of the model-based tests is, and what can be done to it. */
import type { TlbPreference } from '../../hw/adversarial-tlb.ts';
import type { KernelVersion } from '../../mmu/kernel-version.ts';
import type { EptFeatures } from '../../mmu/spte-format.ts';
import type { Policy } from '../../mmu/policy.ts';

export interface WorldPlan {
  readonly policy: Policy;
  /** Linux 6.1 if absent. */
  readonly kernel?: KernelVersion;
  /** `tdp`: nested paging by the rmap-based engine. */
  readonly paging: 'tdp' | 'tdp-mmu' | 'shadow';
  /** Nested paging in EPT's format; with `pml` the CPU logs writes. */
  readonly ept?: EptFeatures;
  /** Of nested tables; 4 if absent. */
  readonly levels?: 4 | 5;
  /** `touch`: no tables of its own, guest-physical accesses; nested paging only. */
  readonly guest: 'touch' | 'tables';
  /** Flat memory of 4 KiB or 2 MiB pages, or the model of Linux's memory management with THP. */
  readonly host: 'flat-4k' | 'flat-2m' | 'linux';
  readonly log: 'legacy' | 'manual' | 'initially-set';
  readonly tlb: TlbPreference;
  /** Count pages that the log misses, instead of ending there. */
  readonly mayLose: boolean;
  /**
   * The VMM edits the guest's tables behind KVM's back. What the guest sees then is its own trouble; the MMU's state has to
   * stay sound all the same (CVE-2026-46113, CVE-2026-53359, CVE-2026-23401).
   */
  readonly hostile: boolean;
}

/** Kind and three arguments. */
export type Op = readonly [kind: number, a: number, b: number, c: number];

export const OP_NAMES = [
  'access',
  'edit',
  'invlpg',
  'cr3',
  'cr0',
  'cr4',
  'log',
  'get',
  'clear',
  'slot',
  'move',
  'host',
  'vmm-write',
  'limit',
  'nx',
  'age',
  'capability',
] as const;

/** What the step at hand does, in words; kept only while somebody wants to read it. */
export class Narrator {
  verbose = false;
  note = '';

  say(text: () => string): void {
    if (this.verbose) this.note = text();
  }
}

/** Ends the run. */
export function fail(what: string): never {
  throw new Error(what);
}

export function hex(word: number): string {
  return (word >>> 0).toString(16);
}
