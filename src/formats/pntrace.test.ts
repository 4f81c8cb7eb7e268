import { readFileSync } from 'node:fs';
import { gunzipSync, gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { openTrace } from '../../traces/read.mjs';
import { epochs, KIND_FETCH, KIND_READ, KIND_WRITE, listOf, type PageTrace, readPntrace } from './pntrace.ts';
import { TraceBuilder } from './pntrace-builder.ts';
import { encodePntrace } from './pntrace-encode.ts';
import { TraceError } from './pntrace-header.ts';

const gunzip = (packed: Uint8Array, maxBytes: number): Uint8Array =>
  gunzipSync(packed, { maxOutputLength: Math.max(1, maxBytes) });
const gzip = (bytes: Uint8Array): Uint8Array => gzipSync(bytes, { level: 9, memLevel: 9 });
const read = (file: Uint8Array): PageTrace => readPntrace(file, gunzip);

/** Two vCPUs, three epochs, one of the lists empty, and a run that repeats. */
function smallTrace(): PageTrace {
  const builder = new TraceBuilder({
    name: 'small',
    title: 'a small one, written by hand: ü',
    epochInsns: 1000,
    memBytes: 100 * 4096,
    ram: [
      [0, 40 * 4096],
      [50 * 4096, 100 * 4096],
    ],
    vcpus: 2,
    marks: [{ id: 1, epoch: 0 }],
  });
  builder.populate(3);
  builder.populate(99);
  for (let epoch = 0; epoch < 3; epoch++) {
    for (const page of [0, 7, 3, 99, 50]) {
      builder.touch(page, KIND_READ);
      builder.touch(page, KIND_WRITE);
    }
    builder.endList(600, 10 + epoch, 5);
    if (epoch !== 1) builder.touch(20 + epoch, KIND_FETCH);
    builder.endList(400, 0, 0);
  }
  return builder.finish();
}

/** A file in parts, to be spoilt and put together again; lengths in the header follow unless `header` says otherwise. */
interface Parts {
  header: Record<string, unknown>;
  populated: number[];
  lists: number[];
  tokens: number[];
  literals: number[];
}

function takeApart(file: Uint8Array): Parts {
  const view = new DataView(file.buffer, file.byteOffset);
  const end = 12 + view.getUint32(8, true);
  const header = JSON.parse(Buffer.from(file.subarray(12, end)).toString('utf8'));
  const payload = [...gunzipSync(file.subarray(end))];
  const take = (bytes: number): number[] => payload.splice(0, bytes);
  const { populated, lists, tokens, literals } = header.sections;
  return { header, populated: take(populated), lists: take(lists), tokens: take(tokens), literals: take(literals) };
}

function putTogether(parts: Parts, overrides: Record<string, unknown> = {}): Uint8Array {
  const sections = {
    populated: parts.populated.length,
    lists: parts.lists.length,
    tokens: parts.tokens.length,
    literals: parts.literals.length,
  };
  const payload = Uint8Array.from([...parts.populated, ...parts.lists, ...parts.tokens, ...parts.literals]);
  const packed = gzip(payload);
  const header = { ...parts.header, sections, payloadBytes: payload.length, gzipBytes: packed.length, ...overrides };
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  return Buffer.concat([Buffer.from('PNTRACE1'), length, json, packed]);
}

/** The error that reading gives; anything but a `TraceError` fails the test. */
function errorOf(file: Uint8Array): TraceError {
  try {
    read(file);
  } catch (error) {
    if (error instanceof TraceError) return error;
    throw error;
  }
  throw new Error('the file was accepted');
}

describe.each(['redis-small', 'grep'])('the embedded recording %s', (name) => {
  const file = readFileSync(new URL(`../../traces/${name}.pntrace`, import.meta.url));
  const trace = read(file);

  it('is read as the reference reader reads it', () => {
    const reference = openTrace(file);
    expect(trace.header).toEqual(reference.header);
    expect(Buffer.compare(trace.populated, reference.populated)).toBe(0);
    expect(Buffer.compare(new Uint8Array(trace.records.buffer), new Uint8Array(reference.records.buffer))).toBe(0);
    const ours: number[][] = [];
    const theirs: number[][] = [];
    for (const { epoch, vcpus } of reference.epochs()) {
      for (const [vcpu, { insns, loads, stores, records }] of vcpus.entries()) {
        const list = listOf(trace, epoch, vcpu);
        ours.push([list.insns, list.loads, list.stores, list.records.length, list.records.byteOffset]);
        theirs.push([insns, loads, stores, records.length, records.byteOffset]);
      }
    }
    expect(JSON.stringify(ours)).toBe(JSON.stringify(theirs));
  });

  it('is written back byte for byte, but for what gzip makes of it', () => {
    const written = takeApart(encodePntrace(trace, gzip));
    const original = takeApart(file);
    const { gzipBytes: _written, ...writtenHeader } = written.header;
    const { gzipBytes: _original, ...originalHeader } = original.header;
    expect(writtenHeader).toEqual(originalHeader);
    for (const part of ['populated', 'lists', 'tokens', 'literals'] as const) {
      expect(Buffer.compare(Uint8Array.from(written[part]), Uint8Array.from(original[part]))).toBe(0);
    }
  });
});

describe('a recording made by hand', () => {
  const trace = smallTrace();
  const file = encodePntrace(trace, gzip);

  it('reads back as it was', () => {
    const again = read(file);
    expect(again.records).toEqual(trace.records);
    expect(again.listStart).toEqual(trace.listStart);
    expect(again.populated).toEqual(trace.populated);
    expect(again.header.title).toBe('a small one, written by hand: ü');
    expect(again.header.recordsByKind).toEqual({ r: 15, w: 15, x: 2 });
    // The second and third time, the run is a copy: few tokens, few literals.
    expect(again.header.sections.literals).toBeLessThan(20);
  });

  it('gives its epochs with a list for each vCPU', () => {
    const all = [...epochs(read(file))];
    expect(all.map(({ lists }) => lists.map((list) => list.records.length))).toEqual([
      [10, 1],
      [10, 0],
      [10, 1],
    ]);
    expect(all[2].lists[1]).toMatchObject({ vcpu: 1, insns: 400, loads: 0, stores: 0 });
    expect([...all[2].lists[1].records]).toEqual([22 * 4 + KIND_FETCH]);
  });

  it('may have no epochs at all', () => {
    const empty = new TraceBuilder({ name: 'e', title: '', epochInsns: 1, memBytes: 4096, vcpus: 1 }).finish();
    const again = read(encodePntrace(empty, gzip));
    expect([again.records.length, again.header.epochs, [...epochs(again)].length]).toEqual([0, 0, 0]);
  });

  it('is refused wherever it is cut', () => {
    for (let length = 0; length < file.length; length++) {
      expect(errorOf(file.subarray(0, length)).where, `cut at ${length}`).toMatch(/byte/);
    }
  });

  it('is refused with bytes after its end', () => {
    expect(errorOf(Buffer.concat([file, Buffer.of(0)])).message).toContain('bytes after its header');
  });

  it('is never taken for another when a bit of its header or payload flips', () => {
    const known = JSON.stringify([...trace.records]);
    const outcome = (bytes: Uint8Array): string => {
      try {
        return JSON.stringify([...read(bytes).records]);
      } catch (error) {
        return error instanceof TraceError ? 'refused' : String(error);
      }
    };
    for (let at = 0; at < file.length; at++) {
      const spoilt = Uint8Array.from(file);
      spoilt[at] ^= 1 << (at % 8);
      // A flip in a name or a title changes no record.
      expect(['refused', known], `byte ${at}`).toContain(outcome(spoilt));
    }
  });
});

describe('a payload that does not keep its promises is refused:', () => {
  const parts = (): Parts => takeApart(encodePntrace(smallTrace(), gzip));
  const spoil = (change: (parts: Parts) => void): Parts => {
    const spoilt = parts();
    change(spoilt);
    return spoilt;
  };

  // biome-ignore format: a table
  it.each<[string, (parts: Parts) => void, string]>([
    ['populated cut',               (p) => void p.populated.pop(),       "header field 'sections.populated'"],
    ['populated names no page',     (p) => void (p.populated[12] |= 16), "'populated' names a page beyond the last of 100"],
    ['populated has a bit more',    (p) => void (p.populated[0] |= 1),   "'populated' has 3 bits set, and the header says 2"],
    ['lists cut',                   (p) => void p.lists.pop(),           '(lists): the section ends within a number'],
    ['lists too long',              (p) => void p.lists.push(0),         '(lists): 1 bytes are left over'],
    ['a list too long',             (p) => void (p.lists[4] = 100),      'list 0 (epoch 0) goes beyond the 32 records'],
    ['a list too short',            (p) => void (p.lists[4] = 9),        'the lists hold 31 records, and the header says 32'],
    ['loads that add up to others', (p) => void (p.lists[2] ^= 1),       "the lists' loads add up to 34, and the header says 33"],
    ['tokens cut',                  (p) => void p.tokens.pop(),          '(tokens): the section ends within a number'],
    ['tokens too long',             (p) => void p.tokens.push(0),        '(tokens): 1 bytes are left over'],
    ['too many literals',           (p) => void (p.tokens[0] = 99),      'record 0: 99 literals go beyond the 32 records'],
    ['a copy of nothing',           (p) => void (p.tokens[1] = 0),       'a copy of 0 of 32 records'],
    ['a copy that is too long',     (p) => void (p.tokens[1] = 90),      'a copy of 90 of 32 records'],
    ['a copy from here',            (p) => void (p.tokens[2] = 0),       'a copy from 0 records back'],
    ['a copy from before the start',(p) => void (p.tokens[2] = 60),      'a copy from 60 records back'],
    ['literals cut',                (p) => void p.literals.pop(),        '(literals): the section ends within a number'],
    ['literals too long',           (p) => void p.literals.push(0),      '(literals): 1 bytes are left over'],
    ['a kind that there is not',    (p) => void (p.literals[0] = 3),     'record 0 has kind 3, which the file does not have'],
    ['a page before the first',     (p) => void (p.literals[0] = 4),     "record 0 names page -1, which lies outside 'ram'"],
    ['a page in a hole',            (p) => void p.literals.splice(0, 1, 0xe8, 2), "record 0 names page 45, which lies outside 'ram'"],
    ['a number without an end',     (p) => void p.literals.splice(0, 1, ...Array(12).fill(0x80)), 'a number is too large'],
    ['a record twice in a list',    (p) => void (p.literals[1] = 0),     'is there twice with kind 0 in epoch 0'],
  ])('%s', (_what, change, message) => {
    expect(errorOf(putTogether(spoil(change))).message).toContain(message);
  });

  it('gzip that unpacks to more or less than the header says', () => {
    const p = parts();
    const payloadBytes = p.header['payloadBytes'] as number;
    const sections = { ...(p.header['sections'] as Record<string, number>) };
    sections['literals'] += 5;
    expect(errorOf(putTogether(p, { sections, payloadBytes: payloadBytes + 5 })).message).toContain('the payload ends');
    sections['literals'] -= 10;
    expect(errorOf(putTogether(p, { sections, payloadBytes: payloadBytes - 5 })).message).toContain('does not unpack');
  });
});

describe('a header that makes no sense is refused, by the name of its field:', () => {
  const whole = takeApart(encodePntrace(smallTrace(), gzip));

  // biome-ignore format: a table
  it.each<[string, string, unknown]>([
    ['another format',            'format',               'PNTRACE2'],
    ['another version',           'version',              2],
    ['no name',                   'name',                 undefined],
    ['a title that is a number',  'title',                7],
    ['no instructions an epoch',  'epochInsns',           0],
    ['other pages',               'pageBytes',            16384],
    ['no memory',                 'memBytes',             0],
    ['half a page',               'memBytes',             409600 + 2048],
    ['memory beyond 40 bits',     'memBytes',             2 ** 41],
    ['no ranges',                 'ram',                  []],
    ['a range backwards',         'ram',                  [[4096, 0]]],
    ['ranges that overlap',       'ram',                  [[0, 8192], [4096, 12288]]],
    ['a range beyond memory',     'ram',                  [[0, 409600 + 4096]]],
    ['a range within a page',     'ram',                  [[0, 100]]],
    ['no vCPUs',                  'vcpus',                0],
    ['vCPUs in halves',           'vcpus',                1.5],
    ['kinds in another order',    'kinds',                ['w', 'r']],
    ['an unknown kind',           'kinds',                ['r', 'w', 'z']],
    ['epochs below zero',         'epochs',               -1],
    ['more epochs than lists',    'sections.lists',       undefined],
    ['a total as text',           'insns',                '3000'],
    ['other totals by kind',      'recordsByKind',        { r: 1, w: 1, x: 1 }],
    ['too many records',          'records',              2 ** 29],
    ['a mark beyond the end',     'marks',                [{ id: 1, epoch: 3 }]],
    ['another payload',           'payloadBytes',         1],
    ['no sections',               'sections',             null],
  ])('%s', (_what, field, value) => {
    const overrides = field === 'sections.lists' ? { epochs: 1000 } : { [field]: value };
    expect(errorOf(putTogether(whole, overrides)).where).toBe(`header field '${field}'`);
  });

  it('totals by kind that add up, but are not those of the file', () => {
    const file = putTogether(whole, { recordsByKind: { r: 16, w: 14, x: 2 } });
    expect(errorOf(file).message).toContain('says 16, 14, 2, and the file has 15, 15, 2');
  });

  it('text that is not UTF-8, or not JSON, or not an object', () => {
    const withHeader = (bytes: number[]): Uint8Array =>
      Buffer.from([...Buffer.from('PNTRACE1'), bytes.length, 0, 0, 0, ...bytes]);
    expect(errorOf(withHeader([0x22, 0xff, 0x22])).message).toContain('is not UTF-8');
    expect(errorOf(withHeader([0x7b])).message).toContain('is not JSON');
    expect(errorOf(withHeader([0x5b, 0x5d])).message).toContain('is not a JSON object');
  });
});

describe('the builder', () => {
  it('lists a page and kind once in a list', () => {
    const builder = new TraceBuilder({ name: 'b', title: '', epochInsns: 1, memBytes: 8192, vcpus: 1 });
    builder.touch(1, KIND_READ);
    builder.touch(1, KIND_READ);
    builder.touch(1, KIND_WRITE);
    builder.endList(1, 2, 1);
    builder.touch(1, KIND_READ);
    builder.endList(1, 1, 0);
    expect([...builder.finish().records]).toEqual([4, 5, 4]);
  });

  it('refuses an epoch that lacks a vCPU', () => {
    const builder = new TraceBuilder({ name: 'b', title: '', epochInsns: 1, memBytes: 8192, vcpus: 2 });
    builder.endList(1, 0, 0);
    expect(() => builder.finish()).toThrow(TraceError);
  });
});
