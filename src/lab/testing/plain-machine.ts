/**
 * What the four policies do to guest memory, written down as plainly as it can be: a state for each region and each page,
 * no tables, no TLB, no rmap. The experiment is tested on it, and the real engine is held against it.
 */
import { KIND_WRITE } from '../../formats/pntrace.ts';
import type { DirtyLog } from '../../migrate/precopy.ts';
import { REGION_PAGES } from '../profile.ts';
import type { MachineCounters, ReplayMachine } from '../replay.ts';
import type { StoryPolicy } from '../story.ts';

export type PlainPolicy = 'zap' | 'lazy+bug' | 'lazy' | 'eager';

export const PLAIN_POLICIES: readonly StoryPolicy[] = (['zap', 'lazy+bug', 'lazy', 'eager'] as const).map((name) => ({
  name,
  idea: name,
  kernel: false,
  about: '',
  loses: name === 'lazy+bug',
  makeMachine: (memBytes) => new PlainMachine(name, memBytes / 4096),
}));

const NONE = 0;
const READ_ONLY = 1;
const WRITABLE = 2;

export class PlainMachine implements ReplayMachine {
  private readonly policy: PlainPolicy;
  /** Large entry of each region, small entry of each page: NONE, READ_ONLY, WRITABLE. */
  private readonly large: Uint8Array;
  private readonly small: Uint8Array;
  /** Whether a region has a table of small entries. */
  private readonly hasTable: Uint8Array;
  private readonly dirty: Int32Array;
  private logging = false;
  private fast = 0;
  private faults = 0;
  private requests = 0;

  constructor(policy: PlainPolicy, pages: number) {
    this.policy = policy;
    this.large = new Uint8Array(Math.ceil(pages / REGION_PAGES));
    this.small = new Uint8Array(pages);
    this.hasTable = new Uint8Array(this.large.length);
    this.dirty = new Int32Array(Math.ceil(pages / 32));
  }

  touch(_vcpu: number, page: number, kind: number): number {
    const region = Math.floor(page / REGION_PAGES);
    const write = kind === KIND_WRITE;
    const have = this.large[region] === NONE ? this.small[page] : this.large[region];
    if (have === WRITABLE || (have === READ_ONLY && !write)) return 0;
    this.faults++;
    if (this.large[region] === READ_ONLY) this.writeToLarge(region, page);
    else if (!this.logging) this.large[region] = WRITABLE;
    else {
      if (have === READ_ONLY) this.fast++;
      this.mapSmall(region, page);
    }
    return 1;
  }

  private writeToLarge(region: number, page: number): void {
    if (this.logging && this.policy !== 'lazy+bug') {
      this.large[region] = NONE;
      this.requests++;
      this.mapSmall(region, page);
      return;
    }
    this.fast++;
    this.large[region] = WRITABLE;
    if (this.logging) this.setDirty(region * REGION_PAGES);
  }

  private mapSmall(region: number, page: number): void {
    this.hasTable[region] = 1;
    this.small[page] = WRITABLE;
    this.setDirty(page);
  }

  private setDirty(page: number): void {
    this.dirty[page >> 5] |= 1 << (page & 31);
  }

  readonly log: DirtyLog = {
    start: () => {
      this.logging = true;
      this.requests++;
      const { policy } = this;
      this.large.forEach((_, region) => (this.large[region] = policy.startsWith('lazy') ? READ_ONLY : NONE));
      if (policy !== 'eager') return;
      this.small.fill(READ_ONLY);
      this.hasTable.fill(1);
    },
    collect: () => {
      const bitmap = this.dirty.slice();
      this.dirty.fill(0);
      if (bitmap.some((word) => word !== 0)) this.requests++;
      for (let page = 0; page < this.small.length; page++) {
        const named = (bitmap[page >> 5] >>> (page & 31)) & 1;
        if (named !== 0 && this.small[page] === WRITABLE) this.small[page] = READ_ONLY;
      }
      return bitmap;
    },
  };

  stopLog(): void {
    this.logging = false;
    this.small.fill(NONE);
  }

  counters(): MachineCounters {
    return {
      pf_taken: this.faults,
      pf_fixed: this.faults,
      pf_fast: this.fast,
      pf_spurious: 0,
      tlb_flush: this.requests,
      remote_tlb_flush: 0,
      remote_tlb_flush_requests: this.requests,
      pages_4k: this.small.reduce((count, have) => count + (have === NONE ? 0 : 1), 0),
      pages_2m: this.large.reduce((count, have) => count + (have === NONE ? 0 : 1), 0),
      tables: 3 + this.hasTable.reduce((count, has) => count + has, 0),
    };
  }

  /** As if each region had one table after the other: its large entry, then its small ones. */
  tableWords(): Int32Array {
    const words = new Int32Array(2 * (this.large.length + this.small.length));
    this.large.forEach((have, region) => (words[2 * region] = have === NONE ? 0 : have + 4));
    this.small.forEach((have, page) => (words[2 * (this.large.length + page)] = have));
    // A large entry that was split now points to a table.
    this.hasTable.forEach((has, region) => (words[2 * region] |= has << 3));
    return words;
  }

  verify(): readonly string[] {
    return [];
  }
}
