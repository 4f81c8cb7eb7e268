/**
 * Event logs as a Perfetto trace (protobuf): a track for each vCPU and for the thread that calls ioctls, on which each
 * fault is a slice with its tracepoints as instants, their fields as debug annotations; and counters.
 *
 *     Trace { repeated TracePacket packet = 1 }
 *     TracePacket { timestamp 8, trusted_packet_sequence_id 10, track_event 11, track_descriptor 60 }
 *     TrackDescriptor { uuid 1, name 2, process 3, thread 4, parent_uuid 5, counter 8 }
 *     TrackEvent { debug_annotations 4, type 9, track_uuid 11, categories 22, name 23, counter_value 30 }
 *
 * A slice's length is the number of its records, not a time that was measured (`trace/event-log.ts`). Source of the
 * numbers: perfetto/protos/perfetto/trace/.
 */
import { type EventLog, RECORD_NS, recordsEnd, VMM } from '../trace/event-log.ts';
import { taskOf } from './ftrace.ts';
import { RecordReader } from './kernel-events.ts';

const SEQUENCE = 1;
const TYPE_BEGIN = 1;
const TYPE_END = 2;
const TYPE_INSTANT = 3;
const TYPE_COUNTER = 4;
const PROCESS_UUID = 1;
const FIRST_THREAD_UUID = 100;
const FIRST_COUNTER_UUID = 10_000;
const CHUNK_BYTES = 1 << 16;
/** First byte of a character that has so many more. */
const UTF8_LEAD = [0, 0xc0, 0xe0, 0xf0];

/** The whole file, in pieces. */
export function* perfettoTrace(log: EventLog): Generator<Uint8Array> {
  const out = new ProtoWriter();
  const counters = Array.from(new Set(log.counters.flatMap(({ values }) => Object.keys(values))));
  writeDescriptors(out, log, counters);
  const reader = new RecordReader(log.tableBasePfn);
  const samples = log.counters.toSorted((a, b) => a.timeNs - b.timeNs);
  let nextSample = 0;
  for (let i = 0; i < log.groups.length; i++) {
    const { first, timeNs, vcpu, name, gfn } = log.groups[i];
    for (; nextSample < samples.length && samples[nextSample].timeNs <= timeNs; nextSample++) {
      writeCounters(out, samples[nextSample], counters);
    }
    const track = trackOf(vcpu, log.vcpus);
    const end = recordsEnd(log, i);
    packet(out, timeNs, () => slice(out, TYPE_BEGIN, track, name, gfn));
    for (let n = first; n < end; n++) {
      reader.load(log.tracer.words, log.tracer.offsetOf(n));
      packet(out, timeNs + (n - first) * RECORD_NS, () => writeRecord(out, reader, track));
    }
    packet(out, timeNs + (end - first) * RECORD_NS, () => slice(out, TYPE_END, track));
    if (out.length > CHUNK_BYTES) yield out.take();
  }
  for (; nextSample < samples.length; nextSample++) writeCounters(out, samples[nextSample], counters);
  yield out.take();
}

function trackOf(vcpu: number, vcpus: number): number {
  return FIRST_THREAD_UUID + (vcpu === VMM ? vcpus : vcpu);
}

function writeDescriptors(out: ProtoWriter, log: EventLog, counters: readonly string[]): void {
  const { pid } = taskOf(VMM, log.vcpus);
  packet(out, 0, () =>
    out.message(60, () => {
      out.varint(1, PROCESS_UUID);
      out.message(3, () => {
        out.varint(1, pid);
        out.string(6, `penumbra ${log.name}`);
      });
    }),
  );
  for (let i = 0; i <= log.vcpus; i++) {
    const vcpu = i === log.vcpus ? VMM : i;
    const task = taskOf(vcpu, log.vcpus);
    packet(out, 0, () =>
      out.message(60, () => {
        out.varint(1, trackOf(vcpu, log.vcpus));
        out.varint(5, PROCESS_UUID);
        out.message(4, () => {
          out.varint(1, pid);
          out.varint(2, task.pid);
          out.string(5, task.comm);
        });
      }),
    );
  }
  counters.forEach((name, i) =>
    packet(out, 0, () =>
      out.message(60, () => {
        out.varint(1, FIRST_COUNTER_UUID + i);
        out.string(2, name);
        out.varint(5, PROCESS_UUID);
        out.message(8, () => {});
      }),
    ),
  );
}

function writeCounters(out: ProtoWriter, sample: EventLog['counters'][number], counters: readonly string[]): void {
  for (const [name, value] of Object.entries(sample.values)) {
    packet(out, sample.timeNs, () =>
      out.message(11, () => {
        out.varint(9, TYPE_COUNTER);
        out.varint(11, FIRST_COUNTER_UUID + counters.indexOf(name));
        out.varint(30, value);
      }),
    );
  }
}

function writeRecord(out: ProtoWriter, reader: RecordReader, track: number): void {
  const { tracepoint, fields } = reader.event;
  out.message(11, () => {
    out.varint(9, TYPE_INSTANT);
    out.varint(11, track);
    out.string(22, tracepoint.system);
    out.string(23, tracepoint.name);
    for (const { name, signed, length } of fields) {
      if (length > 0 || !tracepoint.fields.some(([own]) => own === name)) continue;
      const [lo, hi] = reader.value(name);
      if (signed) annotation(out, name, () => out.varintOf(4, lo, lo >> 31));
      else annotation(out, name, () => out.varintOf(3, lo, hi));
    }
  });
}

/** A slice's begin, with its name, or its end. */
function slice(out: ProtoWriter, type: number, track: number, name?: string, gfn = -1): void {
  out.message(11, () => {
    out.varint(9, type);
    out.varint(11, track);
    if (name !== undefined) out.string(23, name);
    if (gfn >= 0) annotation(out, 'gfn', () => out.varint(3, gfn));
  });
}

function annotation(out: ProtoWriter, name: string, value: () => void): void {
  out.message(4, () => {
    out.string(10, name);
    value();
  });
}

function packet(out: ProtoWriter, timeNs: number, body: () => void): void {
  out.message(1, () => {
    out.varint(8, timeNs);
    out.varint(10, SEQUENCE);
    body();
  });
}

/** Protobuf's wire format: varints, strings, and messages within messages. */
class ProtoWriter {
  length = 0;
  private bytes = new Uint8Array(2 * CHUNK_BYTES);

  /** A number from 0 to 2^53. */
  varint(field: number, value: number): void {
    this.tag(field, 0);
    this.number(value);
  }

  /** 64 bits in two words. */
  varintOf(field: number, lo: number, hi: number): void {
    this.tag(field, 0);
    if (hi >>> 21 === 0) this.number((hi >>> 0) * 2 ** 32 + (lo >>> 0));
    else this.wide((BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0));
  }

  string(field: number, text: string): void {
    this.message(field, () => {
      for (const char of text) this.utf8(char.codePointAt(0) ?? 0);
    });
  }

  /** The length goes before the body: two bytes are kept free for it, a varint that may end in a redundant zero. */
  message(field: number, body: () => void): void {
    this.tag(field, 2);
    this.reserve(2);
    const at = this.length;
    this.length += 2;
    body();
    const bytes = this.length - at - 2;
    if (bytes >= 1 << 14) throw new RangeError(`a message of ${bytes} bytes is too long`);
    this.bytes[at] = (bytes & 127) | 128;
    this.bytes[at + 1] = bytes >>> 7;
  }

  /** What was written since the last call. */
  take(): Uint8Array {
    const taken = this.bytes.slice(0, this.length);
    this.length = 0;
    return taken;
  }

  private tag(field: number, type: number): void {
    this.number(field * 8 + type);
  }

  private number(value: number): void {
    this.reserve(10);
    let rest = value;
    for (; rest >= 128; rest = Math.floor(rest / 128)) this.bytes[this.length++] = (rest % 128) | 128;
    this.bytes[this.length++] = rest;
  }

  private wide(value: bigint): void {
    this.reserve(10);
    let rest = value;
    for (; rest >= 128n; rest >>= 7n) this.bytes[this.length++] = Number(rest & 127n) | 128;
    this.bytes[this.length++] = Number(rest);
  }

  private utf8(code: number): void {
    this.reserve(4);
    if (code < 0x80) this.bytes[this.length++] = code;
    else {
      const more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
      this.bytes[this.length++] = UTF8_LEAD[more] | (code >>> (6 * more));
      for (let i = more - 1; i >= 0; i--) this.bytes[this.length++] = 0x80 | ((code >>> (6 * i)) & 63);
    }
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.bytes.length) return;
    const larger = new Uint8Array(this.bytes.length * 2);
    larger.set(this.bytes);
    this.bytes = larger;
  }
}
