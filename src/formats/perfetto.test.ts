/** Decoded by a decoder of its own, written from the wire format and the field numbers of Perfetto's .proto files. */
import { describe, expect, it } from 'vitest';
import { eachRecord, type EventLog, RECORD_NS } from '../trace/event-log.ts';
import { TRACEPOINT_BY_ID } from '../trace/tracepoints.ts';
import { RecordReader } from './kernel-events.ts';
import { perfettoTrace } from './perfetto.ts';
import { eventLog } from './testing/event-log.ts';

type Message = Map<number, (bigint | Uint8Array)[]>;

/** Fields by number, in order; fixed-size wire types don't occur in what we write. */
function decode(bytes: Uint8Array): Message {
  const message: Message = new Map();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      if (at >= bytes.length || shift > 63n) throw new Error('a varint does not end');
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    let value: bigint | Uint8Array;
    if ((tag & 7) === 0) value = varint();
    else if ((tag & 7) === 2) {
      const length = Number(varint());
      if (at + length > bytes.length) throw new Error('a message goes beyond the one around it');
      value = bytes.subarray(at, (at += length));
    } else throw new Error(`wire type ${tag & 7}`);
    const field = tag >>> 3;
    message.set(field, [...(message.get(field) ?? []), value]);
  }
  return message;
}

const number = (message: Message, field: number): number => Number(message.get(field)?.[0] ?? -1);
const sub = (message: Message, field: number): Message | undefined => {
  const values = message.get(field);
  expect(values?.length ?? 1).toBe(1);
  return values === undefined ? undefined : decode(values[0] as Uint8Array);
};
const text = (message: Message | undefined, field: number): string =>
  new TextDecoder('utf-8', { fatal: true }).decode((message?.get(field)?.[0] ?? new Uint8Array()) as Uint8Array);

interface Packet {
  readonly timeNs: number;
  readonly event: Message | undefined;
  readonly descriptor: Message | undefined;
}

function packetsOf(log: EventLog): Packet[] {
  const file = decode(Buffer.concat([...perfettoTrace(log)]));
  expect([...file.keys()]).toEqual([1]);
  return (file.get(1) ?? []).map((bytes) => {
    const packet = decode(bytes as Uint8Array);
    expect(number(packet, 10)).toBe(1);
    return { timeNs: number(packet, 8), event: sub(packet, 11), descriptor: sub(packet, 60) };
  });
}

const annotations = (event: Message): Map<string, bigint | Uint8Array | undefined> =>
  new Map(
    (event.get(4) ?? []).map((bytes) => {
      const annotation = decode(bytes as Uint8Array);
      return [text(annotation, 10), annotation.get(3)?.[0] ?? annotation.get(4)?.[0]];
    }),
  );

describe('a Perfetto trace', () => {
  const log = eventLog(7);
  const packets = packetsOf(log);
  const events = packets.flatMap(({ timeNs, event }) => (event === undefined ? [] : [{ timeNs, event }]));

  it('describes a process, a track for each vCPU and the ioctl thread, and the counters', () => {
    const tracks = packets.flatMap(({ descriptor }) => (descriptor === undefined ? [] : [descriptor]));
    expect(text(sub(tracks[0], 3), 6)).toBe('penumbra gäst');
    expect(tracks.slice(1, 4).map((track) => text(sub(track, 4), 5))).toEqual(['vcpu0', 'vcpu1', 'penumbra']);
    expect(tracks.slice(4).map((track) => [text(track, 2), track.has(8)])).toEqual([
      ['pages_2m', true],
      ['dirty pages of the round', true],
    ]);
    expect(new Set(tracks.slice(1).map((track) => number(track, 5)))).toEqual(new Set([1]));
  });

  it('opens and closes a slice for each group, never two on a track', () => {
    const open = new Set<number>();
    const wrong: number[] = [];
    const gfns: unknown[] = [];
    events.forEach(({ event }, i) => {
      const track = number(event, 11);
      const type = number(event, 9);
      // A begin must not find its track open, an end and an instant must.
      if (type !== 4 && open.has(track) === (type === 1)) wrong.push(i);
      if (type === 2) open.delete(track);
      if (type !== 1) return;
      open.add(track);
      gfns.push(annotations(event).get('gfn'));
    });
    expect(wrong).toEqual([]);
    expect(open.size).toBe(0);
    expect(gfns).toEqual(log.groups.map(({ gfn }) => BigInt(gfn)));
  });

  it('has an instant for each record, with its fields', () => {
    const instants = events.filter(({ event }) => number(event, 9) === 3);
    const reader = new RecordReader(log.tableBasePfn);
    let i = 0;
    for (const { at, timeNs } of eachRecord(log)) {
      const { event, timeNs: shown } = instants[i++];
      reader.load(log.tracer.words, at);
      const { name, system, fields } = TRACEPOINT_BY_ID.get(log.tracer.words[at]) ?? {
        name: '',
        system: '',
        fields: [],
      };
      expect([text(event, 23), text(event, 22), shown]).toEqual([name, system, timeNs]);
      const shownFields = annotations(event);
      for (const [field, kind] of fields) {
        if (kind === 'insn') continue;
        const [lo, hi] = reader.value(field);
        const signed = reader.event.fields.find((known) => known.name === field)?.signed === true;
        const expected = signed ? BigInt.asUintN(64, BigInt(lo)) : (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
        expect(shownFields.get(field), `${name}.${field}`).toBe(expected);
      }
    }
    expect(i).toBe(instants.length);
  });

  it('keeps time in order, and counters among the events', () => {
    const times = events.map(({ timeNs }) => timeNs);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    const counters = events.filter(({ event }) => number(event, 9) === 4);
    expect(counters.map(({ event }) => number(event, 30))).toEqual([5, 70000]);
    expect(RECORD_NS).toBeGreaterThan(0);
  });
});
