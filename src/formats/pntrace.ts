/**
 * Page-touch recordings of real guests (`.pntrace`, PNTRACE1): the form in memory and the strict reader. The file format
 * is described in traces/FORMAT.md.
 *
 *     +----------+---+-------------+------------------------------------------------------+
 *     | PNTRACE1 | H | header JSON | gzip( populated | lists | tokens | literals )          |
 *     +----------+---+-------------+------------------------------------------------------+
 *      8 bytes    u32  H bytes       "payload"; offsets in errors count from its start
 *
 * What was read is sound: every length and total has been compared with the header, every record names a page of RAM and
 * a kind that the file has, and no list has a record twice. Anything else is a `TraceError` that says what and where.
 * Nothing is allocated for a record: a recording is a handful of typed arrays.
 *
 * Reading takes 15 to 40 ns a record, decompression included.
 */
import { PAGE_BYTES } from '../base/page.ts';
import { checkHeader, type PntraceHeader, TraceError } from './pntrace-header.ts';

export { KIND_FETCH, KIND_NAMES, KIND_READ, KIND_WRITE, type PntraceHeader, TraceError } from './pntrace-header.ts';

/** A recording in memory, read from a file or made by a generator. */
export interface PageTrace {
  readonly header: PntraceHeader;
  /** Page `n`'s bit is bit `n & 7` of byte `n >> 3`: not all zeros when the recording starts. */
  readonly populated: Uint8Array;
  /** `page * 4 + kind`, all lists one after another. */
  readonly records: Uint32Array;
  /** List `epoch * vcpus + vcpu` is `records[listStart[i]]` up to, not including, `records[listStart[i + 1]]`. */
  readonly listStart: Uint32Array;
  /** Instructions, loads and stores of each list. */
  readonly insns: Float64Array;
  readonly loads: Float64Array;
  readonly stores: Float64Array;
}

/** One vCPU's part of an epoch. */
export interface TraceList {
  readonly vcpu: number;
  readonly insns: number;
  readonly loads: number;
  readonly stores: number;
  /** A view, in order of occurrence. */
  readonly records: Uint32Array;
}

/**
 * Unpacks one gzip member, which may not give more than `maxBytes`; throws if it is damaged. The caller brings it,
 * because node and browsers have different ones.
 */
export type Gunzip = (packed: Uint8Array, maxBytes: number) => Uint8Array;

export const MAGIC = 'PNTRACE1';
const HEADER_AT = 12;

/** The recording in the bytes of a whole file. */
export function readPntrace(file: Uint8Array, gunzip: Gunzip): PageTrace {
  const { header, packed } = splitPntrace(file);
  let payload: Uint8Array;
  try {
    payload = gunzip(packed, header.payloadBytes);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TraceError(`byte ${file.length - packed.length}`, `the payload does not unpack: ${reason}`);
  }
  return decodePayload(header, payload);
}

/** The checked header and the payload as it lies in the file, packed. */
export function splitPntrace(file: Uint8Array): { header: PntraceHeader; packed: Uint8Array } {
  for (let i = 0; i < MAGIC.length; i++) {
    if (file[i] !== MAGIC.charCodeAt(i)) throw new TraceError(`byte ${i}`, 'this is not a PNTRACE1 file');
  }
  if (file.length < HEADER_AT) throw new TraceError(`byte ${file.length}`, "the file ends within the header's length");
  const headerBytes = new DataView(file.buffer, file.byteOffset, file.byteLength).getUint32(MAGIC.length, true);
  const payloadAt = HEADER_AT + headerBytes;
  if (payloadAt > file.length) {
    throw new TraceError(`byte ${file.length}`, `the file ends within its header of ${headerBytes} bytes`);
  }
  const header = checkHeader(parseJson(file.subarray(HEADER_AT, payloadAt)));
  const packed = file.subarray(payloadAt);
  if (packed.length !== header.gzipBytes) {
    throw new TraceError(
      `byte ${file.length}`,
      `the file has ${packed.length} bytes after its header, which says ${header.gzipBytes}`,
    );
  }
  return { header, packed };
}

/** The recording in an unpacked payload. */
export function decodePayload(header: PntraceHeader, payload: Uint8Array): PageTrace {
  if (payload.length !== header.payloadBytes) {
    throw new TraceError(
      `payload byte ${payload.length}`,
      `the payload ends, and the header says ${header.payloadBytes} bytes`,
    );
  }
  const { sections } = header;
  const listsAt = sections.populated;
  const tokensAt = listsAt + sections.lists;
  const populated = new Uint8Array(payload.subarray(0, listsAt));
  checkPopulated(header, populated);
  const lists = decodeLists(header, new Varints(payload, listsAt, tokensAt, 'lists'));
  const records = decodeRecords(header, payload, tokensAt);
  const trace = { header, populated, records, ...lists };
  checkRecords(trace);
  return trace;
}

/** Each epoch with its lists, one for each vCPU. */
export function* epochs(trace: PageTrace): Generator<{ epoch: number; lists: TraceList[] }, void, undefined> {
  const { vcpus, epochs: count } = trace.header;
  for (let epoch = 0; epoch < count; epoch++) {
    const lists: TraceList[] = [];
    for (let vcpu = 0; vcpu < vcpus; vcpu++) lists.push(listOf(trace, epoch, vcpu));
    yield { epoch, lists };
  }
}

/** What one vCPU did in one epoch. */
export function listOf(trace: PageTrace, epoch: number, vcpu: number): TraceList {
  const i = epoch * trace.header.vcpus + vcpu;
  return {
    vcpu,
    insns: trace.insns[i],
    loads: trace.loads[i],
    stores: trace.stores[i],
    records: trace.records.subarray(trace.listStart[i], trace.listStart[i + 1]),
  };
}

/** Strict UTF-8 and JSON. Percent-decoding is the strict UTF-8 decoder that the language itself has. */
function parseJson(bytes: Uint8Array): unknown {
  let text = '';
  for (const byte of bytes) {
    text += byte >= 0x80 || byte === 0x25 ? `%${byte.toString(16).padStart(2, '0')}` : String.fromCharCode(byte);
  }
  try {
    return JSON.parse(decodeURIComponent(text));
  } catch (error) {
    const what = error instanceof URIError ? 'is not UTF-8' : 'is not JSON';
    throw new TraceError(`bytes ${HEADER_AT} to ${HEADER_AT + bytes.length}`, `the header ${what}`);
  }
}

function checkPopulated(header: PntraceHeader, populated: Uint8Array): void {
  const pages = header.memBytes / PAGE_BYTES;
  let bits = 0;
  for (const byte of populated) {
    for (let rest = byte; rest !== 0; rest &= rest - 1) bits++;
  }
  if (pages % 8 !== 0 && populated[populated.length - 1] >>> (pages % 8) !== 0) {
    throw new TraceError(
      `payload byte ${populated.length - 1}`,
      `'populated' names a page beyond the last of ${pages}`,
    );
  }
  if (bits !== header.populatedPagesAtStart) {
    throw new TraceError(
      'payload byte 0',
      `'populated' has ${bits} bits set, and the header says ${header.populatedPagesAtStart}`,
    );
  }
}

function decodeLists(header: PntraceHeader, next: Varints): Omit<PageTrace, 'header' | 'populated' | 'records'> {
  const count = header.epochs * header.vcpus;
  const listStart = new Uint32Array(count + 1);
  const insns = new Float64Array(count);
  const loads = new Float64Array(count);
  const stores = new Float64Array(count);
  let start = 0;
  for (let i = 0; i < count; i++) {
    insns[i] = next.varint();
    loads[i] = next.varint();
    stores[i] = next.varint();
    start += next.varint();
    if (start > header.records) {
      throw next.error(`list ${i} (epoch ${Math.floor(i / header.vcpus)}) goes beyond the ${header.records} records`);
    }
    listStart[i + 1] = start;
  }
  next.finish();
  if (start !== header.records) {
    throw next.error(`the lists hold ${start} records, and the header says ${header.records}`);
  }
  checkTotal(next, 'insns', insns, header.insns);
  checkTotal(next, 'loads', loads, header.loads);
  checkTotal(next, 'stores', stores, header.stores);
  return { listStart, insns, loads, stores };
}

function checkTotal(next: Varints, name: string, values: Float64Array, expected: number): void {
  let sum = 0;
  for (const value of values) sum += value;
  if (sum !== expected) throw next.error(`the lists' ${name} add up to ${sum}, and the header says ${expected}`);
}

/** Runs of literal records and of copies of earlier ones, until `header.records` are there. */
function decodeRecords(header: PntraceHeader, payload: Uint8Array, tokensAt: number): Uint32Array {
  const literalsAt = tokensAt + header.sections.tokens;
  const tokens = new Varints(payload, tokensAt, literalsAt, 'tokens');
  const literals = new Varints(payload, literalsAt, payload.length, 'literals');
  const isRam = ramPages(header);
  const pages = isRam.length;
  const kinds = header.kinds.length;
  const total = header.records;
  const records = new Uint32Array(total);

  let at = 0;
  let page = 0;
  while (at < total) {
    const run = tokens.varint();
    if (run > total - at) throw tokens.error(`record ${at}: ${run} literals go beyond the ${total} records`);
    for (const end = at + run; at < end; at++) {
      const value = literals.varint();
      const kind = value & 3;
      const zigzag = (value - kind) / 4;
      page += zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
      if (kind >= kinds) throw literals.error(`record ${at} has kind ${kind}, which the file does not have`);
      if (page < 0 || page >= pages || isRam[page] === 0) {
        throw literals.error(`record ${at} names page ${page}, which lies outside 'ram'`);
      }
      records[at] = page * 4 + kind;
    }
    if (at === total) break;
    const copies = tokens.varint();
    const distance = tokens.varint();
    if (copies === 0 || copies > total - at)
      throw tokens.error(`record ${at}: a copy of ${copies} of ${total} records`);
    if (distance === 0 || distance > at) throw tokens.error(`record ${at}: a copy from ${distance} records back`);
    for (const end = at + copies; at < end; at++) records[at] = records[at - distance];
    page = records[at - 1] >>> 2;
  }
  tokens.finish();
  literals.finish();
  return records;
}

/** A byte for each page: 1 if it lies in a range of `ram`. */
function ramPages(header: PntraceHeader): Uint8Array {
  const isRam = new Uint8Array(header.memBytes / PAGE_BYTES);
  for (const [start, end] of header.ram) isRam.fill(1, start / PAGE_BYTES, end / PAGE_BYTES);
  return isRam;
}

/** Totals by kind, and that no list names a page twice with one kind. */
function checkRecords({ header, records, listStart }: PageTrace): void {
  // For each page the last list that named it, times 8, and a bit for each kind.
  const seen = new Float64Array(header.memBytes / PAGE_BYTES);
  const byKind = [0, 0, 0];
  for (let list = 0; list + 1 < listStart.length; list++) {
    const stamp = (list + 1) * 8;
    for (let i = listStart[list]; i < listStart[list + 1]; i++) {
      const page = records[i] >>> 2;
      const kind = records[i] & 3;
      const kindsBefore = seen[page] >= stamp ? seen[page] - stamp : 0;
      if ((kindsBefore >> kind) & 1) {
        const epoch = Math.floor(list / header.vcpus);
        throw new TraceError(`record ${i}`, `page ${page} is there twice with kind ${kind} in epoch ${epoch}`);
      }
      seen[page] = stamp + (kindsBefore | (1 << kind));
      byKind[kind]++;
    }
  }
  const expected = header.recordsByKind;
  if (byKind[0] !== expected.r || byKind[1] !== expected.w || byKind[2] !== expected.x) {
    throw new TraceError(
      "header field 'recordsByKind'",
      `says ${expected.r}, ${expected.w}, ${expected.x}, and the file has ${byKind.join(', ')}`,
    );
  }
}

/** Reads the numbers of one section: 7 bits a byte, lowest first, top bit set on all but the last byte. */
class Varints {
  private readonly bytes: Uint8Array;
  private at: number;
  private readonly end: number;
  private readonly section: string;

  constructor(bytes: Uint8Array, start: number, end: number, section: string) {
    this.bytes = bytes;
    this.at = start;
    this.end = end;
    this.section = section;
  }

  varint(): number {
    const { bytes, end } = this;
    let at = this.at;
    let value = 0;
    let scale = 1;
    let byte: number;
    do {
      if (at === end) throw this.error(`the section ends within a number`);
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
      if (value > Number.MAX_SAFE_INTEGER || scale > 2 ** 63) throw this.error('a number is too large');
    } while (byte > 127);
    this.at = at;
    return value;
  }

  /** The section must have been read to its end. */
  finish(): void {
    if (this.at !== this.end) throw this.error(`${this.end - this.at} bytes are left over`);
  }

  error(what: string): TraceError {
    return new TraceError(`payload byte ${this.at} (${this.section})`, what);
  }
}
