/**
 * The header of a `.pntrace` file: its fields, and the check that a parsed JSON value is one. Everything that can be
 * said without looking at the payload is checked here, so that no later step works with a length that makes no sense.
 */
import { PAGE_BYTES } from '../base/page.ts';

/** Kinds of a record, by code. */
export const KIND_READ = 0;
export const KIND_WRITE = 1;
export const KIND_FETCH = 2;
export const KIND_NAMES = ['r', 'w', 'x'] as const;

/** Records are `page * 4 + kind` in 32 bits; frame numbers of a guest stay below 2^28 (MAXPHYADDR 40). */
export const MAX_PAGES = 2 ** 28;
/** What this reader takes in one file: 1 GiB as a Uint32Array. */
export const MAX_RECORDS = 2 ** 28;
export const MAX_VCPUS = 4096;

export interface PntraceHeader {
  readonly format: 'PNTRACE1';
  readonly version: 1;
  readonly name: string;
  readonly title: string;
  /** Nominal guest instructions an epoch, all vCPUs together. */
  readonly epochInsns: number;
  readonly pageBytes: 4096;
  readonly memBytes: number;
  /** `[start, end)` guest-physical ranges that records may name: ascending, page-aligned, disjoint. */
  readonly ram: readonly (readonly [start: number, end: number])[];
  readonly vcpus: number;
  /** The kinds that the file has, by code. */
  readonly kinds: readonly string[];
  readonly epochs: number;
  readonly insns: number;
  readonly loads: number;
  readonly stores: number;
  readonly records: number;
  readonly recordsByKind: { readonly r: number; readonly w: number; readonly x: number };
  readonly populatedPagesAtStart: number;
  readonly marks: readonly { readonly id: number; readonly epoch: number }[];
  readonly sections: PntraceSections;
  readonly payloadBytes: number;
  readonly gzipBytes: number;
  /** Where the recording comes from and the like: carried along, not interpreted. */
  readonly [more: string]: unknown;
}

export interface PntraceSections {
  readonly populated: number;
  readonly lists: number;
  readonly tokens: number;
  readonly literals: number;
}

/** A file that is not a sound recording: `where` is a byte offset, a record or a header field. */
export class TraceError extends Error {
  override readonly name = 'TraceError';
  readonly where: string;
  constructor(where: string, what: string) {
    super(`${where}: ${what}`);
    this.where = where;
  }
}

/** The header, once every field has been checked. Throws a `TraceError` that names the first bad field. */
export function checkHeader(value: unknown): PntraceHeader {
  if (!isRecord(value)) throw new TraceError('header', 'is not a JSON object');
  const text = (field: string): void => {
    if (typeof value[field] !== 'string') throw bad(field, 'is not a string', value[field]);
  };
  const count = (field: string, min: number, max: number): number => checkCount(value, field, min, max);

  if (value['format'] !== 'PNTRACE1') throw bad('format', "is not 'PNTRACE1'", value['format']);
  if (value['version'] !== 1) throw bad('version', 'is not 1', value['version']);
  text('name');
  text('title');
  count('epochInsns', 1, Number.MAX_SAFE_INTEGER);
  if (value['pageBytes'] !== PAGE_BYTES) throw bad('pageBytes', 'is not 4096', value['pageBytes']);
  const memBytes = count('memBytes', PAGE_BYTES, MAX_PAGES * PAGE_BYTES);
  if (memBytes % PAGE_BYTES !== 0) throw bad('memBytes', 'is not a multiple of 4096', memBytes);
  checkRam(value['ram'], memBytes);
  const vcpus = count('vcpus', 1, MAX_VCPUS);
  checkKinds(value['kinds']);
  const epochs = count('epochs', 0, Number.MAX_SAFE_INTEGER);
  for (const field of ['insns', 'loads', 'stores']) count(field, 0, Number.MAX_SAFE_INTEGER);
  const records = count('records', 0, MAX_RECORDS);
  checkRecordsByKind(value['recordsByKind'], records);
  count('populatedPagesAtStart', 0, memBytes / PAGE_BYTES);
  checkMarks(value['marks'], epochs);
  checkSections(value, memBytes / PAGE_BYTES, epochs * vcpus);
  count('gzipBytes', 0, Number.MAX_SAFE_INTEGER);
  return value as unknown as PntraceHeader;
}

function checkRam(ram: unknown, memBytes: number): void {
  if (!Array.isArray(ram) || ram.length === 0) throw bad('ram', 'is not a list of ranges', ram);
  let from = 0;
  for (const range of ram as unknown[]) {
    if (!Array.isArray(range) || range.length !== 2) throw bad('ram', 'has a range that is not [start, end]', range);
    const [start, end] = range as unknown[];
    if (!isCount(start) || !isCount(end) || start % PAGE_BYTES !== 0 || end % PAGE_BYTES !== 0) {
      throw bad('ram', 'has a range that is not page-aligned', range);
    }
    if (start < from || end <= start || end > memBytes) {
      throw bad('ram', 'has a range that is empty, out of order or beyond memBytes', range);
    }
    from = end;
  }
}

function checkKinds(kinds: unknown): void {
  const sound =
    Array.isArray(kinds) && kinds.length > 0 && kinds.length <= 3 && kinds.every((kind, i) => kind === KIND_NAMES[i]);
  if (!sound) throw bad('kinds', "does not begin 'r', 'w', 'x'", kinds);
}

function checkRecordsByKind(byKind: unknown, records: number): void {
  if (!isRecord(byKind)) throw bad('recordsByKind', 'is not an object', byKind);
  let sum = 0;
  for (const kind of KIND_NAMES) {
    const n = byKind[kind];
    if (!isCount(n)) throw bad(`recordsByKind.${kind}`, 'is not a count', n);
    sum += n;
  }
  if (sum !== records) throw bad('recordsByKind', `adds up to ${sum}, not to the ${records} of 'records'`, byKind);
}

function checkMarks(marks: unknown, epochs: number): void {
  if (!Array.isArray(marks)) throw bad('marks', 'is not a list', marks);
  for (const mark of marks as unknown[]) {
    if (!isRecord(mark) || !isCount(mark['id']) || !isCount(mark['epoch']) || mark['epoch'] >= epochs) {
      throw bad('marks', 'has one that is not { id, epoch } within the epochs', mark);
    }
  }
}

function checkSections(header: Record<string, unknown>, pages: number, lists: number): void {
  const sections = header['sections'];
  if (!isRecord(sections)) throw bad('sections', 'is not an object', sections);
  let sum = 0;
  for (const name of ['populated', 'lists', 'tokens', 'literals']) {
    const bytes = sections[name];
    if (!isCount(bytes)) throw bad(`sections.${name}`, 'is not a length', bytes);
    sum += bytes;
  }
  const populated = sections['populated'] as number;
  if (populated !== Math.ceil(pages / 8)) {
    throw bad('sections.populated', `is not one bit for each of ${pages} pages`, populated);
  }
  // A list is four varints of at least one byte: this bounds what `epochs` and `vcpus` can make a reader allocate.
  if ((sections['lists'] as number) < 4 * lists) {
    throw bad('sections.lists', `is too short for ${lists} lists`, sections['lists']);
  }
  const payload = checkCount(header, 'payloadBytes', 0, Number.MAX_SAFE_INTEGER);
  if (payload !== sum) throw bad('payloadBytes', `is not the sum of the sections, ${sum}`, payload);
}

function checkCount(record: Record<string, unknown>, field: string, min: number, max: number): number {
  const value = record[field];
  if (!isCount(value)) throw bad(field, 'is not a whole number', value);
  if (value < min || value > max) throw bad(field, `is not between ${min} and ${max}`, value);
  return value;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function bad(field: string, what: string, value: unknown): TraceError {
  const shown = value === undefined ? 'missing' : JSON.stringify(value).slice(0, 60);
  return new TraceError(`header field '${field}'`, `${what} (${shown})`);
}
