/**
 * One replay with its tracepoints on: every record of the epochs that are asked for, with the virtual time at which it came
 * and the vCPU that ran. What `penumbra trace` writes to a file.
 */
import type { PageTrace } from '../formats/pntrace.ts';
import { KIND_FETCH, KIND_WRITE } from '../formats/pntrace.ts';
import { TABLE_PFN_BASE } from '../mem/table-arena.ts';
import { type CounterSample, type EventGroup, type EventLog, RECORD_NS, VMM } from '../trace/event-log.ts';
import { Tracer } from '../trace/tracer.ts';
import { type ReplayMachine, type ReplayObserver, type ReplayOptions, replay } from './replay.ts';
import type { StoryPolicy } from './story.ts';

export interface TraceRunOptions extends Omit<ReplayOptions, 'observer'> {
  /** The first epoch that is traced, and the first one that isn't. The start of the log belongs to epoch 0. */
  readonly from: number;
  readonly to: number;
}

/** Runs the recording to its end, tracing a part of it. */
export function traceRun(trace: PageTrace, policy: StoryPolicy, options: TraceRunOptions): EventLog {
  const tracer = new Tracer({ keepAll: true });
  const { memBytes, vcpus, name } = trace.header;
  const clerk = new Clerk(trace, tracer, policy.makeMachine(memBytes, vcpus, tracer), options.from, options.to);
  replay(trace, clerk.machine, { ...options, observer: clerk });
  const { groups, counters } = clerk;
  return { name, vcpus, tracer, groups, counters, tableBasePfn: TABLE_PFN_BASE };
}

/** Notes when records come and who ran: stands between the replay and the machine. */
class Clerk implements ReplayObserver {
  readonly machine: ReplayMachine;
  readonly groups: EventGroup[] = [];
  readonly counters: CounterSample[] = [];
  private readonly trace: PageTrace;
  private readonly tracer: Tracer;
  private readonly inner: ReplayMachine;
  private readonly from: number;
  private readonly to: number;
  private epoch = 0;
  /** Instructions before this epoch and in it, those of the vCPU that ran most. */
  private insnsBefore = 0;
  private insns = 0;
  private touches = 0;
  private touchesOfEpoch = 0;

  constructor(trace: PageTrace, tracer: Tracer, inner: ReplayMachine, from: number, to: number) {
    this.trace = trace;
    this.tracer = tracer;
    this.inner = inner;
    this.from = from;
    this.to = to;
    this.machine = {
      ...inner,
      touch: (vcpu, page, kind) => this.touch(vcpu, page, kind),
      log: {
        start: () => this.ioctl('start the log', () => inner.log.start()),
        collect: () => this.ioctl('get the dirty log', () => inner.log.collect()),
      },
      stopLog: () => {
        // The migration is over, and with it the trace.
        tracer.on = false;
        inner.stopLog();
      },
    };
  }

  beforeLog(): void {
    this.setOn();
  }

  epochBegins(epoch: number): void {
    const { header, insns, listStart } = this.trace;
    this.epoch = epoch;
    this.setOn();
    this.insnsBefore += this.insns;
    this.insns = 0;
    const first = epoch * header.vcpus;
    for (let list = first; list < first + header.vcpus; list++) this.insns = Math.max(this.insns, insns[list]);
    this.touches = 0;
    this.touchesOfEpoch = Math.max(1, listStart[first + header.vcpus] - listStart[first]);
  }

  epochEnds(): void {
    this.touches = this.touchesOfEpoch;
  }

  roundEnds(bitmap: Int32Array): void {
    if (!this.tracer.on) return;
    const { pages_2m, pages_4k, tables } = this.inner.counters();
    let dirty = 0;
    for (const word of bitmap) for (let rest = word; rest !== 0; rest &= rest - 1) dirty++;
    const values = { 'dirty pages of the round': dirty, pages_2m, pages_4k, 'page tables': tables };
    this.counters.push({ timeNs: this.now(this.tracer.count), values });
  }

  private setOn(): void {
    this.tracer.on = this.epoch >= this.from && this.epoch < this.to;
  }

  private touch(vcpu: number, page: number, kind: number): number {
    const first = this.tracer.count;
    const faults = this.inner.touch(vcpu, page, kind);
    this.touches++;
    if (this.tracer.count !== first) {
      const name = kind === KIND_WRITE ? 'write fault' : kind === KIND_FETCH ? 'fetch fault' : 'read fault';
      this.note(first, vcpu, name, page);
    }
    return faults;
  }

  private ioctl<T>(name: string, call: () => T): T {
    const first = this.tracer.count;
    const result = call();
    if (this.tracer.on) this.note(first, VMM, name, -1);
    return result;
  }

  private note(first: number, vcpu: number, name: string, gfn: number): void {
    this.groups.push({ first, timeNs: this.now(first), vcpu, name, gfn });
  }

  /** Before record `records`: touches are spread evenly over their epoch's instructions. */
  private now(records: number): number {
    const inEpoch = Math.floor((this.insns * this.touches) / Math.max(1, this.touchesOfEpoch));
    return this.insnsBefore + inEpoch + RECORD_NS * records;
  }
}
