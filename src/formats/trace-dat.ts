/**
 * Event logs as trace-cmd's `trace.dat`, version 6, for `trace-cmd report` and KernelShark.
 *
 *     magic, "6", endianness, word and page size
 *     header_page, header_event                 how a ring buffer page and an event's head look
 *     formats of ftrace's own events: none; formats of ours, by system
 *     kallsyms: none; printk formats: none; names of tasks; number of CPUs
 *     "options  ", end of options; "flyrecord", where each CPU's pages are
 *     pages of 4096 bytes: time of the first event, bytes in use, events
 *
 * An event is a word with its length (5 bits, in words) and the time since the one before (27 bits), then the record as
 * the kernel's structure has it. Source: trace-cmd.dat.v6(5); Linux 6.1 ring_buffer.c, which says the same.
 */
import { type EventLog, eachRecord, VMM } from '../trace/event-log.ts';
import { taskOf } from './ftrace.ts';
import { KERNEL_EVENTS, type KernelEvent, type KernelField, RecordReader } from './kernel-events.ts';

const PAGE_BYTES = 4096;
const PAGE_HEADER_BYTES = 16;
/** An event's head of one word leaves 27 bits for time. */
const MOST_DELTA_NS = 2 ** 27;
const TYPE_TIME_EXTEND = 30;
/** Numbers of events below are ftrace's own. */
const FIRST_EVENT_ID = 300;

const COMMON_FIELDS = [
  'field:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;',
  'field:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;',
  'field:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;',
  'field:int common_pid;\toffset:4;\tsize:4;\tsigned:1;',
];
const HEADER_PAGE =
  '\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n' +
  '\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n' +
  '\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n' +
  '\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;\n';
const HEADER_EVENT =
  '# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n' +
  '\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n\tdata max type_len  == 28\n';

/** The whole file, in pieces. */
export function* traceDat(log: EventLog): Generator<Uint8Array> {
  const cpus = Array.from({ length: log.vcpus + 1 }, () => new CpuPages());
  const reader = new RecordReader(log.tableBasePfn);
  for (const { at, timeNs, group } of eachRecord(log)) {
    const { cpu, pid } = taskOf(group.vcpu, log.vcpus);
    cpus[cpu].add(timeNs, recordBytes(reader.load(log.tracer.words, at), pid));
  }
  const pages = cpus.map((cpu) => cpu.finish());
  const head = headBytes(log);
  const tableBytes = 'flyrecord\0'.length + 16 * cpus.length;
  let offset = Math.ceil((head.length + tableBytes) / PAGE_BYTES) * PAGE_BYTES;
  const table = new ByteList();
  table.text('flyrecord\0');
  for (const ofCpu of pages) {
    table.u64(offset);
    table.u64(ofCpu.length * PAGE_BYTES);
    offset += ofCpu.length * PAGE_BYTES;
  }
  yield head;
  yield table.take();
  yield new Uint8Array((PAGE_BYTES - ((head.length + tableBytes) % PAGE_BYTES)) % PAGE_BYTES);
  for (const ofCpu of pages) yield* ofCpu;
}

function headBytes({ vcpus }: EventLog): Uint8Array {
  const out = new ByteList();
  out.raw([0x17, 0x08, 0x44]);
  out.text('tracing6\0');
  // Little-endian, longs of 8 bytes.
  out.raw([0, 8]);
  out.u32(PAGE_BYTES);
  out.text('header_page\0');
  out.sized64(HEADER_PAGE);
  out.text('header_event\0');
  out.sized64(HEADER_EVENT);
  out.u32(0);
  const systems = ['kvm', 'kvmmmu'] as const;
  out.u32(systems.length);
  for (const system of systems) {
    const events = KERNEL_EVENTS.filter((event) => event.tracepoint.system === system);
    out.text(`${system}\0`);
    out.u32(events.length);
    for (const event of events) out.sized64(formatText(event));
  }
  out.u32(0);
  out.u32(0);
  const tasks = Array.from({ length: vcpus + 1 }, (_, i) => taskOf(i === vcpus ? VMM : i, vcpus));
  out.sized64(tasks.map(({ pid, comm }) => `${pid} ${comm}\n`).join(''));
  out.u32(vcpus + 1);
  out.text('options  \0');
  out.raw([0, 0]);
  return out.take();
}

/** As `events/SYSTEM/NAME/format` has it. */
export function formatText({ tracepoint, fields, printFormat }: KernelEvent): string {
  const lines = fields.map(({ type, name, offset, bytes, signed, length }) => {
    const declaration = length > 0 ? `${type} ${name}[${length}]` : `${type} ${name}`;
    return `field:${declaration};\toffset:${offset};\tsize:${bytes};\tsigned:${signed ? 1 : 0};`;
  });
  const all = [...COMMON_FIELDS, '', ...lines].map((line) => (line === '' ? '' : `\t${line}`));
  return `name: ${tracepoint.name}\nID: ${FIRST_EVENT_ID + tracepoint.id}\nformat:\n${all.join('\n')}\n\nprint fmt: ${printFormat}\n`;
}

/** The kernel's structure, padded to whole words. */
function recordBytes(reader: RecordReader, pid: number): Uint8Array {
  const { event } = reader;
  const bytes = new Uint8Array(Math.ceil(event.bytes / 4) * 4);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, FIRST_EVENT_ID + event.tracepoint.id, true);
  view.setInt32(4, pid, true);
  for (const field of event.fields) writeField(view, field, reader);
  return bytes;
}

function writeField(view: DataView, { name, offset, bytes, length }: KernelField, reader: RecordReader): void {
  if (length > 0) {
    reader.bytes(name).forEach((byte, i) => view.setUint8(offset + i, byte));
    return;
  }
  const [lo, hi] = reader.value(name);
  if (bytes === 1) view.setUint8(offset, lo & 255);
  else view.setInt32(offset, lo, true);
  if (bytes === 8) view.setInt32(offset + 4, hi, true);
}

/** A CPU's ring buffer as pages, filled in order of time. */
class CpuPages {
  private readonly pages: Uint8Array[] = [];
  private page = new Uint8Array(0);
  private view = new DataView(this.page.buffer);
  private at = PAGE_BYTES;
  private lastNs = 0;

  add(timeNs: number, record: Uint8Array): void {
    const extend = this.at < PAGE_BYTES && timeNs - this.lastNs >= MOST_DELTA_NS ? 8 : 0;
    if (this.at + extend + 4 + record.length > PAGE_BYTES) this.begin(timeNs);
    let delta = timeNs - this.lastNs;
    if (delta >= MOST_DELTA_NS) {
      this.view.setUint32(this.at, (TYPE_TIME_EXTEND | ((delta % MOST_DELTA_NS) << 5)) >>> 0, true);
      this.view.setUint32(this.at + 4, Math.floor(delta / MOST_DELTA_NS), true);
      this.at += 8;
      delta = 0;
    }
    this.view.setUint32(this.at, ((record.length / 4) | (delta << 5)) >>> 0, true);
    this.page.set(record, this.at + 4);
    this.at += 4 + record.length;
    this.lastNs = timeNs;
  }

  finish(): Uint8Array[] {
    this.close();
    return this.pages;
  }

  private begin(timeNs: number): void {
    this.close();
    this.page = new Uint8Array(PAGE_BYTES);
    this.view = new DataView(this.page.buffer);
    this.view.setBigUint64(0, BigInt(timeNs), true);
    this.at = PAGE_HEADER_BYTES;
    this.lastNs = timeNs;
  }

  private close(): void {
    if (this.page.length === 0) return;
    this.view.setUint32(8, this.at - PAGE_HEADER_BYTES, true);
    this.pages.push(this.page);
  }
}

/** Bytes that grow; text is ASCII. */
class ByteList {
  private readonly bytes: number[] = [];

  raw(bytes: readonly number[]): void {
    for (const byte of bytes) this.bytes.push(byte);
  }

  text(text: string): void {
    for (let i = 0; i < text.length; i++) this.bytes.push(text.charCodeAt(i));
  }

  u32(value: number): void {
    for (let i = 0; i < 4; i++) this.bytes.push((value >>> (8 * i)) & 255);
  }

  u64(value: number): void {
    this.u32(value % 2 ** 32);
    this.u32(Math.floor(value / 2 ** 32));
  }

  /** The length as 64 bits, then the text. */
  sized64(text: string): void {
    this.u64(text.length);
    this.text(text);
  }

  take(): Uint8Array {
    return Uint8Array.from(this.bytes);
  }
}
