/**
 * Writes a recording as a `.pntrace` file. Guests repeat runs of hundreds of records that lie further apart than gzip's
 * window, so runs that have been there before are written as copies: greedily, the longest of the latest `CHAIN`
 * places that begin with the same three records.
 */
import { MAGIC, type PageTrace } from './pntrace.ts';

/** Packs bytes as one gzip member; the caller brings it, because node and browsers have different ones. */
export type Gzip = (bytes: Uint8Array) => Uint8Array;

/** A shorter copy costs as much as what it replaces. */
const MIN_COPY = 3;
/** A longer one is good enough to stop looking. */
const LONG_COPY = 4096;
const CHAIN = 256;
const HASH_BITS = 20;

/** The bytes of a file that `readPntrace` reads back as the same recording. */
export function encodePntrace(trace: PageTrace, gzip: Gzip): Uint8Array {
  const lists = encodeLists(trace);
  const { tokens, literals } = encodeRecords(trace.records);
  const payload = concat([trace.populated, lists, tokens, literals]);
  const packed = gzip(payload);
  const header = {
    ...trace.header,
    sections: {
      populated: trace.populated.length,
      lists: lists.length,
      tokens: tokens.length,
      literals: literals.length,
    },
    payloadBytes: payload.length,
    gzipBytes: packed.length,
  };
  const json = utf8(JSON.stringify(header));
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, json.length, true);
  return concat([utf8(MAGIC), length, json, packed]);
}

function encodeLists({ listStart, insns, loads, stores }: PageTrace): Uint8Array {
  const out = new VarintWriter();
  for (let i = 0; i < insns.length; i++) {
    out.varint(insns[i]);
    out.varint(loads[i]);
    out.varint(stores[i]);
    out.varint(listStart[i + 1] - listStart[i]);
  }
  return out.bytes();
}

function encodeRecords(records: Uint32Array): { tokens: Uint8Array; literals: Uint8Array } {
  const tokens = new VarintWriter();
  const literals = new VarintWriter();
  const earlier = new EarlierRuns(records);
  let literalFrom = 0;
  const flushLiterals = (to: number): void => {
    tokens.varint(to - literalFrom);
    for (let i = literalFrom; i < to; i++) writeLiteral(literals, records, i);
  };
  for (let at = 0; at < records.length; ) {
    const length = earlier.find(at);
    if (length < MIN_COPY) {
      earlier.insert(at++);
      continue;
    }
    flushLiterals(at);
    tokens.varint(length);
    tokens.varint(earlier.distance);
    for (const end = at + length; at < end; at++) earlier.insert(at);
    literalFrom = at;
  }
  if (literalFrom < records.length) flushLiterals(records.length);
  return { tokens: tokens.bytes(), literals: literals.bytes() };
}

function writeLiteral(out: VarintWriter, records: Uint32Array, at: number): void {
  const previous = at === 0 ? 0 : records[at - 1] >>> 2;
  const delta = (records[at] >>> 2) - previous;
  const zigzag = delta < 0 ? -2 * delta - 1 : 2 * delta;
  out.varint(zigzag * 4 + (records[at] & 3));
}

/** Finds the place before a position that repeats the most of what follows: hash chains over three records. */
class EarlierRuns {
  /** Of the run that `find` found. */
  distance = 0;
  private readonly records: Uint32Array;
  private readonly head = new Int32Array(1 << HASH_BITS).fill(-1);
  private readonly previous: Int32Array;

  constructor(records: Uint32Array) {
    this.records = records;
    this.previous = new Int32Array(records.length).fill(-1);
  }

  /** Length of the longest run, 0 for none; its distance is in `distance`. */
  find(at: number): number {
    const { records, previous } = this;
    if (at + MIN_COPY > records.length) return 0;
    let best = 0;
    let from = this.head[this.hash(at)];
    for (let looked = 0; from >= 0 && looked < CHAIN; from = previous[from], looked++) {
      if (records[from + best] !== records[at + best]) continue;
      let length = 0;
      while (at + length < records.length && records[from + length] === records[at + length]) length++;
      if (length > best) {
        best = length;
        this.distance = at - from;
        if (length > LONG_COPY) break;
      }
    }
    return best;
  }

  insert(at: number): void {
    if (at + MIN_COPY > this.records.length) return;
    const slot = this.hash(at);
    this.previous[at] = this.head[slot];
    this.head[slot] = at;
  }

  private hash(at: number): number {
    const { records } = this;
    const mixed =
      Math.imul(records[at], 2654435761) ^
      Math.imul(records[at + 1], 2246822519) ^
      Math.imul(records[at + 2], 3266489917);
    return mixed >>> (32 - HASH_BITS);
  }
}

class VarintWriter {
  private buffer = new Uint8Array(1024);
  private length = 0;

  varint(value: number): void {
    if (this.length + 10 > this.buffer.length) {
      const larger = new Uint8Array(this.buffer.length * 2);
      larger.set(this.buffer);
      this.buffer = larger;
    }
    let rest = value;
    while (rest > 127) {
      this.buffer[this.length++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.buffer[this.length++] = rest;
  }

  bytes(): Uint8Array {
    return this.buffer.subarray(0, this.length);
  }
}

/** UTF-8; percent-encoding is the encoder that the language itself has. */
function utf8(text: string): Uint8Array {
  const bytes: number[] = [];
  const encoded = encodeURIComponent(text);
  for (let i = 0; i < encoded.length; i++) {
    if (encoded[i] === '%') {
      bytes.push(Number.parseInt(encoded.slice(i + 1, i + 3), 16));
      i += 2;
    } else bytes.push(encoded.charCodeAt(i));
  }
  return Uint8Array.from(bytes);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
