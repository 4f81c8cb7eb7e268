/**
 * Event logs as ftrace's text, as `/sys/kernel/tracing/trace` of Linux 6.1 has it: what Perfetto opens, and what scripts
 * for kernel traces read.
 *
 *            TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
 *           vcpu0-1001    [000] .....     0.000812: kvm_page_fault: vcpu 0 rip 0x0 address 0x00000000001fb000 ...
 *
 * Time is virtual (`trace/event-log.ts`). Each vCPU is a task on a CPU of its own, and so is the thread that calls ioctls.
 */
import { type EventLog, eachRecord, VMM } from '../trace/event-log.ts';
import { RecordReader } from './kernel-events.ts';

const LEGEND = [
  '                                _-----=> irqs-off/BH-disabled',
  '                               / _----=> need-resched',
  '                              | / _---=> hardirq/softirq',
  '                              || / _--=> preempt-depth',
  '                              ||| / _-=> migrate-disable',
  '                              |||| /     delay',
  '           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION',
  '              | |         |   |||||     |         |',
];
const LINES_PER_CHUNK = 4096;
const FIRST_PID = 1000;

export interface Task {
  readonly comm: string;
  readonly pid: number;
  readonly cpu: number;
}

/** What the kernel would call the thread of a vCPU, or of the VMM; its CPU comes after those of the vCPUs. */
export function taskOf(vcpu: number, vcpus: number): Task {
  if (vcpu === VMM) return { comm: 'penumbra', pid: FIRST_PID, cpu: vcpus };
  return { comm: `vcpu${vcpu}`, pid: FIRST_PID + 1 + vcpu, cpu: vcpu };
}

/** The whole file, in pieces of many lines. */
export function* ftraceText(log: EventLog): Generator<string> {
  const { count } = log.tracer;
  const head = ['tracer: nop', '', `entries-in-buffer/entries-written: ${count}/${count}   #P:${log.vcpus + 1}`, ''];
  yield [...head.map((line) => ` ${line}`.trimEnd()), ...LEGEND]
    .map(
      (line) => `#${line}
`,
    )
    .join('');
  const reader = new RecordReader(log.tableBasePfn);
  let lines: string[] = [];
  for (const { at, timeNs, group } of eachRecord(log)) {
    const { event } = reader.load(log.tracer.words, at);
    const { comm, pid, cpu } = taskOf(group.vcpu, log.vcpus);
    const task = `${comm.padStart(16)}-${String(pid).padEnd(7)} [${String(cpu).padStart(3, '0')}] .....`;
    lines.push(`${task} ${timeText(timeNs)}: ${event.tracepoint.name}: ${event.print(reader)}\n`);
    if (lines.length < LINES_PER_CHUNK) continue;
    yield lines.join('');
    lines = [];
  }
  yield lines.join('');
}

/** Seconds and microseconds, rounded to the nearest as the kernel does. */
function timeText(timeNs: number): string {
  const micros = Math.floor((timeNs + 500) / 1000);
  return `${String(Math.floor(micros / 1e6)).padStart(5)}.${String(micros % 1e6).padStart(6, '0')}`;
}
