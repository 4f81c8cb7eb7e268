/**
 * Makes a recording in memory, list by list: for generators of synthetic guests, and for whatever records a guest.
 * What comes out keeps the promises of a file that was read: totals agree, and no list has a record twice.
 */
import { PAGE_BYTES } from '../base/page.ts';
import type { PageTrace } from './pntrace.ts';
import { checkHeader, MAX_RECORDS, type PntraceHeader, TraceError } from './pntrace-header.ts';

/** What a recording says of itself beyond what can be counted. */
export interface TraceDescription {
  readonly name: string;
  readonly title: string;
  readonly epochInsns: number;
  readonly memBytes: number;
  /** All of memory if absent. */
  readonly ram?: readonly (readonly [start: number, end: number])[];
  readonly vcpus: number;
  readonly marks?: readonly { readonly id: number; readonly epoch: number }[];
  /** Further header fields, e.g. where the recording comes from. */
  readonly more?: Readonly<Record<string, unknown>>;
}

export class TraceBuilder {
  private readonly about: TraceDescription;
  private readonly populated: Uint8Array;
  private records = new Uint32Array(1024);
  private count = 0;
  private readonly listStart: number[] = [0];
  private readonly insns: number[] = [];
  private readonly loads: number[] = [];
  private readonly stores: number[] = [];
  /** For each page the list that named it last (from 1), times 8, and a bit for each kind. */
  private readonly seen: Float64Array;

  constructor(about: TraceDescription) {
    const pages = about.memBytes / PAGE_BYTES;
    this.about = about;
    this.populated = new Uint8Array(Math.ceil(pages / 8));
    this.seen = new Float64Array(pages);
  }

  /** Says that a page is not all zeros at the start. */
  populate(page: number): void {
    this.populated[page >> 3] |= 1 << (page & 7);
  }

  /** Adds a touch to the list in the making, unless the list has one of that page and kind. */
  touch(page: number, kind: number): void {
    const stamp = this.listStart.length * 8;
    const before = this.seen[page] >= stamp ? this.seen[page] - stamp : 0;
    if ((before >> kind) & 1) return;
    this.seen[page] = stamp + (before | (1 << kind));
    if (this.count === this.records.length) this.grow();
    this.records[this.count++] = page * 4 + kind;
  }

  /** Ends the list of one vCPU; lists come epoch by epoch, vCPU 0 first. */
  endList(insns: number, loads: number, stores: number): void {
    this.listStart.push(this.count);
    this.insns.push(insns);
    this.loads.push(loads);
    this.stores.push(stores);
  }

  /** The recording. The builder is used up. Throws a `TraceError` if the description makes no sense. */
  finish(): PageTrace {
    const { about, populated } = this;
    const lists = this.insns.length;
    if (lists % about.vcpus !== 0) throw new TraceError(`list ${lists}`, 'the last epoch lacks a vCPU');
    const records = this.records.slice(0, this.count);
    const byKind = [0, 0, 0];
    for (const record of records) byKind[record & 3]++;
    const header = {
      ...about.more,
      format: 'PNTRACE1',
      version: 1,
      name: about.name,
      title: about.title,
      epochInsns: about.epochInsns,
      pageBytes: PAGE_BYTES,
      memBytes: about.memBytes,
      ram: about.ram ?? [[0, about.memBytes]],
      vcpus: about.vcpus,
      kinds: byKind[2] > 0 ? ['r', 'w', 'x'] : ['r', 'w'],
      epochs: lists / about.vcpus,
      insns: sum(this.insns),
      loads: sum(this.loads),
      stores: sum(this.stores),
      records: records.length,
      recordsByKind: { r: byKind[0], w: byKind[1], x: byKind[2] },
      populatedPagesAtStart: populated.reduce((bits, byte) => bits + bitsOf(byte), 0),
      marks: about.marks ?? [],
      // Lengths belong to a file; `encodePntrace` puts its own here. These are the least that a reader accepts.
      sections: { populated: populated.length, lists: 4 * lists, tokens: 0, literals: 0 },
      payloadBytes: populated.length + 4 * lists,
      gzipBytes: 0,
    };
    return {
      header: checkHeader(header) satisfies PntraceHeader,
      populated,
      records,
      listStart: Uint32Array.from(this.listStart),
      insns: Float64Array.from(this.insns),
      loads: Float64Array.from(this.loads),
      stores: Float64Array.from(this.stores),
    };
  }

  private grow(): void {
    if (this.count >= MAX_RECORDS) throw new TraceError(`record ${this.count}`, 'a recording cannot have more');
    const larger = new Uint32Array(this.records.length * 2);
    larger.set(this.records);
    this.records = larger;
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function bitsOf(byte: number): number {
  let bits = 0;
  for (let rest = byte; rest !== 0; rest &= rest - 1) bits++;
  return bits;
}
