/**
 * A trace ring's records with what they lack to be shown: when each came, and who ran. The ring keeps neither, since the
 * MMU knows neither; whoever drives the vCPUs writes down a *group* for each stretch of records that belong together.
 *
 * Time is virtual: one nanosecond for each instruction that the guest has run, and RECORD_NS for each record. It orders
 * and spaces events; it is no measurement.
 */
import type { Tracer } from './tracer.ts';

export const RECORD_NS = 100;
/** A group of the thread that calls ioctls, not of a vCPU. */
export const VMM = -1;

/** Records `first` up to the next group's. */
export interface EventGroup {
  readonly first: number;
  readonly timeNs: number;
  /** Who ran: a vCPU's number or VMM. */
  readonly vcpu: number;
  /** What for: 'read fault', 'start the log', ... */
  readonly name: string;
  /** Of the access that faulted, or -1. */
  readonly gfn: number;
}

/** Amounts at a moment. */
export interface CounterSample {
  readonly timeNs: number;
  readonly values: Readonly<Record<string, number>>;
}

export interface EventLog {
  /** Of the guest. */
  readonly name: string;
  readonly vcpus: number;
  /** Must have kept all its records. */
  readonly tracer: Tracer;
  /** By time; the first one starts with record 0. */
  readonly groups: readonly EventGroup[];
  readonly counters: readonly CounterSample[];
  /** Frame number of table 0: an entry's address is made of it. */
  readonly tableBasePfn: number;
}

/** Each record with its time and group, oldest first. `at` is its place in the ring's words. */
export function* eachRecord(log: EventLog): Generator<{ at: number; timeNs: number; group: EventGroup }> {
  const { tracer, groups } = log;
  if (tracer.first !== 0) throw new Error(`the ring has lost ${tracer.first} records`);
  for (let i = 0; i < groups.length; i++) {
    const group = groups[i];
    for (let n = group.first; n < recordsEnd(log, i); n++) {
      yield { at: tracer.offsetOf(n), timeNs: group.timeNs + (n - group.first) * RECORD_NS, group };
    }
  }
}

/** Where group `i` ends: the number of the record after its last. */
export function recordsEnd({ tracer, groups }: EventLog, i: number): number {
  return i + 1 < groups.length ? groups[i + 1].first : tracer.count;
}
