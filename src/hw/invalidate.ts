/**
 * Flush commands as data. The MMU decides *that* translations must go; the vCPU to whom they are said queues commands here
 * and carries them out before it runs the guest again. With fault exits and the words in tables this is all that passes
 * between MMU and hardware.
 *
 *     a command, five words:   kind | asid | pcid | address lo | address hi
 *
 * The queue is short, as a long list costs more than a full flush: when it overflows it becomes one FLUSH_ALL.
 */
import type { Tlb } from './tlb.ts';

export const FLUSH_ALL = 0;
export const FLUSH_ASID = 1;
export const FLUSH_NON_GLOBAL = 2;
export const FLUSH_PCID = 3;
export const FLUSH_GVA = 4;
export const FLUSH_SINGLE = 5;
export const FLUSH_KINDS = 6;
/** Names of the kinds, by number, for reports. */
export const FLUSH_NAMES = ['all', 'asid', 'non-global', 'pcid', 'gva', 'single'] as const;

/** Carries out one command. Words that a kind doesn't use are ignored. */
export function flush(tlb: Tlb, kind: number, asid: number, pcid: number, lo: number, hi: number): void {
  switch (kind) {
    case FLUSH_ALL:
      return tlb.flushAll();
    case FLUSH_ASID:
      return tlb.flushAsid(asid);
    case FLUSH_NON_GLOBAL:
      return tlb.flushNonGlobal(asid);
    case FLUSH_PCID:
      return tlb.flushPcid(asid, pcid);
    case FLUSH_GVA:
      return tlb.flushGva(asid, pcid, lo, hi);
    case FLUSH_SINGLE:
      return tlb.flushSingle(asid, pcid, lo, hi);
    default:
      throw new Error(`no flush command ${kind}`);
  }
}

const COMMAND_WORDS = 5;

/** One vCPU's pending flushes, and counts of those carried out. */
export class FlushQueue {
  /** Commands carried out, by kind. */
  readonly done = new Float64Array(FLUSH_KINDS);
  /** Commands asked for, by kind; more than `done` where a full flush swallowed some. */
  readonly asked = new Float64Array(FLUSH_KINDS);

  private readonly words: Int32Array;
  private length = 0;

  constructor(capacity = 16) {
    this.words = new Int32Array(capacity * COMMAND_WORDS);
  }

  get pending(): number {
    return this.length / COMMAND_WORDS;
  }

  push(kind: number, asid = 0, pcid = 0, lo = 0, hi = 0): void {
    this.asked[kind]++;
    if (this.length > 0 && this.words[0] === FLUSH_ALL) return;
    let to = kind;
    if (kind === FLUSH_ALL || this.length === this.words.length) {
      this.length = 0;
      to = FLUSH_ALL;
    }
    const words = this.words;
    words[this.length++] = to;
    words[this.length++] = asid;
    words[this.length++] = pcid;
    words[this.length++] = lo;
    words[this.length++] = hi;
  }

  /** Carries out what is pending, in order, and empties the queue. */
  apply(tlb: Tlb): void {
    const words = this.words;
    for (let at = 0; at < this.length; at += COMMAND_WORDS) {
      const kind = words[at];
      const asid = words[at + 1];
      flush(tlb, kind, asid, words[at + 2], words[at + 3], words[at + 4]);
      this.done[kind]++;
    }
    this.length = 0;
  }
}
