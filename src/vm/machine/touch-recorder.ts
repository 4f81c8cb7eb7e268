/**
 * Which pages a guest touches: for each epoch of so many instructions, and for each vCPU, the first data read, the first data write and
 * the first instruction fetch of each page, in order. What the `.pntrace` format holds (`traces/README.md`), by that format's rules:
 * the CPU's own accesses (page walks, event frames) and devices' are not listed, an instruction that reads and writes is a write.
 *
 *     an epoch begins: the software TLBs are emptied
 *     an access misses --> bus --> MemoryUnit --> `translated`: a record, and the TLB gets the right to this kind of access only
 *     a second access of the kind hits, and costs what it always costs
 *
 * So every first touch misses once, whatever its address and whatever the TLB has room for. Without a recorder none of it is there but
 * one comparison with null on a miss.
 */
import {
  ACCESS_FETCH,
  ACCESS_WRITE,
  RIGHT_FETCH,
  RIGHT_READ,
  RIGHT_WRITE,
  TRANSLATE_EXIT,
  TRANSLATE_MMIO,
  TRANSLATE_OK,
  type Translation,
} from '../../cpu/bus.ts';
import type { Cpu } from '../../cpu/cpu.ts';
import type { Pc, TurnObserver } from './pc.ts';

/** Kinds of a record, as the format has them. */
const READ = 0;
const WRITE = 1;
const FETCH = 2;
const RIGHTS = [RIGHT_READ, RIGHT_WRITE, RIGHT_FETCH];

/** No-ops of 8 bytes: the displacement is `PNT` and the mark. */
const MARKER = Uint8Array.of(0x0f, 0x1f, 0x84, 0x00, 0x50, 0x4e, 0x54);
const MARK_START = 1;
const MARK_END = 2;

/** 640 KiB to 1 MiB: firmware's, where there is one. */
export const HOLE = [0xa0, 0x100] as const;

const PAGE = 4096;

/** Gets the recording, list by list: epoch by epoch, vCPU 0 first. */
export interface TouchSink {
  /** Before all else: pages that aren't all zeros. */
  populate(page: number): void;
  touch(page: number, kind: number): void;
  endList(insns: number, loads: number, stores: number): void;
}

export interface RecordingPlan {
  readonly epochInsns: number;
  /** `power-on`, the guest's mark 1, or the first instruction in the page of a guest-physical address. */
  readonly start: 'power-on' | 'marker' | number;
  /** Instructions after which it ends; mark 2 ends it, too. */
  readonly maxInsns: number;
}

/** One vCPU's part. */
export class CpuTouches {
  loads = 0;
  stores = 0;
  retired = 0;
  private readonly recorder: TouchRecorder;
  private readonly ramBase: number;
  /** The epoch in which a page was touched last, times 8, and a bit for each kind. */
  private readonly seen: Float64Array;
  private records = new Uint32Array(4096);
  private count = 0;

  constructor(recorder: TouchRecorder, ramBase: number, pages: number) {
    this.recorder = recorder;
    this.ramBase = ramBase;
    this.seen = new Float64Array(pages);
  }

  /** What becomes of a translation: notes the access, and keeps from the TLB what would hide others. */
  translated(cpu: Cpu, status: number, access: number, out: Translation): number {
    const { recorder } = this;
    if (status === TRANSLATE_MMIO && recorder.isOn) recorder.mmioAccesses++;
    if (status === TRANSLATE_OK) return this.touched(cpu, access, out);
    return status;
  }

  private touched(cpu: Cpu, access: number, out: Translation): number {
    const { recorder } = this;
    const page = (out.host - this.ramBase) >>> 12;
    const kind = access & ACCESS_FETCH ? FETCH : access & ACCESS_WRITE ? WRITE : READ;
    if (!recorder.isOn) {
      // The run ends before the instruction, and the recording begins with it.
      if (kind === FETCH && page === recorder.startPage) recorder.isDue = true;
      return recorder.isDue ? TRANSLATE_EXIT : TRANSLATE_OK;
    }
    if (page >= HOLE[0] && page < HOLE[1]) {
      if (kind !== FETCH) recorder.outsideRamAccesses++;
      out.rights = 0;
      return TRANSLATE_OK;
    }
    // The frame of an interrupt: no instruction's, and a TLB that has it would hide what the handler pushes.
    if (cpu.memory.delivering) {
      out.rights = 0;
      return TRANSLATE_OK;
    }
    out.rights &= RIGHTS[kind];
    const epoch = recorder.epoch * 8;
    const before = this.seen[page] >= epoch ? this.seen[page] - epoch : 0;
    if ((before >> kind) & 1) return TRANSLATE_OK;
    this.seen[page] = epoch + (before | (1 << kind));
    if (this.count === this.records.length) this.grow();
    this.records[this.count++] = page * 4 + kind;
    return TRANSLATE_OK;
  }

  private grow(): void {
    const larger = new Uint32Array(2 * this.records.length);
    larger.set(this.records);
    this.records = larger;
  }

  /** From here on it counts. */
  mark(cpu: Cpu): void {
    this.retired = cpu.retired;
    this.loads = cpu.loads;
    this.stores = cpu.stores;
  }

  endList(cpu: Cpu, sink: TouchSink): void {
    for (let i = 0; i < this.count; i++) sink.touch(this.records[i] >>> 2, this.records[i] & 3);
    sink.endList(cpu.retired - this.retired, cpu.loads - this.loads, cpu.stores - this.stores);
    this.count = 0;
    this.mark(cpu);
  }
}

export class TouchRecorder implements TurnObserver {
  /** Between its start and its end. */
  isOn = false;
  /** It begins as soon as the CPU has left the guest. */
  isDue = false;
  hasEnded = false;
  /** From 1. */
  epoch = 0;
  /** Instructions before the start, and since. */
  insnsBefore = 0;
  insns = 0;
  mmioAccesses = 0;
  outsideRamAccesses = 0;
  readonly marks: { readonly id: number; epoch: number }[] = [];
  /** Whose first instruction starts it; -1: none. */
  readonly startPage: number;

  private readonly pc: Pc;
  private readonly plan: RecordingPlan;
  private readonly sink: TouchSink;
  private epochEnds = 0;

  /** Before the machine has run; its CPUs count their accesses (`countsAccesses`). */
  constructor(pc: Pc, plan: RecordingPlan, sink: TouchSink) {
    this.pc = pc;
    this.plan = plan;
    this.sink = sink;
    this.startPage = typeof plan.start === 'number' ? Math.floor(plan.start / PAGE) : -1;
    pc.recorder = this;
    for (const one of pc.cpus) {
      one.touches = new CpuTouches(this, pc.ram.byteOffset, pc.ramBytes / PAGE);
      one.cpu.onMark = (id) => this.mark(id);
    }
    pc.cpu.code.marker = MARKER;
    if (plan.start === 'power-on') this.begin();
  }

  get left(): number {
    return this.isOn ? Math.max(1, this.epochEnds - this.pc.instructions) : Infinity;
  }

  look(): void {
    if (this.isDue) this.begin();
    if (!this.isOn || this.pc.instructions < this.epochEnds) return;
    this.endEpoch();
    if (this.insns >= this.plan.maxInsns) this.finish();
  }

  /** From this instruction on. */
  private begin(): void {
    if (this.isOn || this.hasEnded) return;
    const { pc } = this;
    this.isOn = true;
    this.isDue = false;
    this.epoch = 1;
    for (const { cpu, touches } of pc.cpus) touches?.mark(cpu);
    this.insnsBefore = pc.instructions;
    this.epochEnds = this.insnsBefore + this.plan.epochInsns;
    for (let page = 0; page < pc.ramBytes / PAGE; page++)
      if ((page < HOLE[0] || page >= HOLE[1]) && !isEmpty(pc, page)) this.sink.populate(page);
    this.emptyTlbs();
    // The run that a mark is in knows of no borders.
    pc.turns.active.cpu.requestExit();
  }

  /** The last epoch ends where the guest is. Nothing happens any more. */
  finish(): void {
    if (this.hasEnded) return;
    if (this.isOn && this.pc.instructions > this.insnsBefore + this.insns) this.endEpoch();
    this.isOn = false;
    this.hasEnded = true;
    // A mark behind the last instruction is in the last epoch that there is.
    for (const mark of this.marks) mark.epoch = Math.min(mark.epoch, this.epoch - 2);
    this.pc.recorder = null;
    for (const one of this.pc.cpus) one.touches = null;
    this.emptyTlbs();
  }

  private mark(id: number): void {
    if (id === MARK_START && this.plan.start === 'marker') this.begin();
    if (this.isOn) this.marks.push({ id, epoch: this.epoch - 1 });
    if (id === MARK_END && this.isOn) this.finish();
  }

  private endEpoch(): void {
    const { pc } = this;
    for (const { cpu, touches } of pc.cpus) touches?.endList(cpu, this.sink);
    const { instructions } = pc;
    this.insns = instructions - this.insnsBefore;
    this.epoch++;
    this.epochEnds = instructions + this.plan.epochInsns;
    this.emptyTlbs();
  }

  private emptyTlbs(): void {
    for (const { cpu } of this.pc.cpus) cpu.tlb.flush();
  }
}

function isEmpty({ ram }: Pc, page: number): boolean {
  const words = new Int32Array(ram.buffer, ram.byteOffset + page * PAGE, PAGE / 4);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
  return true;
}
