/**
 * A CPU: its state, its caches, and the loop around generated code. Everything outside is behind the bus.
 *
 * Between two calls of `run` the state is exact: registers, flags and LINEAR_RIP are those at an instruction's boundary.
 */
import { type Bus, EXIT_BUDGET, EXIT_BUS, EXIT_DEBUG, EXIT_EXCEPTION, EXIT_HALT, EXIT_UNSUPPORTED } from './bus.ts';
import { type Breakpoints, HOST_HIT } from './breakpoints.ts';
import { BulkStrings } from './bulk-strings.ts';
import { CodeCache } from './code-cache.ts';
import { CodeFinder } from './code-finder.ts';
import { CpuState } from './cpu-state.ts';
import { Decoder, MODE_64 } from './decoder.ts';
import { PendingEvents } from './events.ts';
import { deliver, type EventKind } from './exceptions.ts';
import { CR4_BUILT, EFER_BUILT, type Features, readFeatures } from './features.ts';
import { floatAssist } from './float/assist.ts';
import { type DebugCause, HostDebug } from './host-debug.ts';
import { InstructionClock } from './instruction-clock.ts';
import { type Environment, HELPER_FAULT, HELPER_LEAVE } from './interpreter.ts';
import { FORMS, interpreterFor } from './interpreter-module.ts';
import { MemoryPort } from './memory-port.ts';
import { decodeModeOf, modeOf } from './mode.ts';
import { R_NEXT, R_OFFSET, R_SUB, RECORD_BYTES } from './record.ts';
import { resetState } from './reset.ts';
import { divide } from './slow-arithmetic.ts';
import {
  CANONICAL_HALF,
  CHECKED,
  CHECKED_SEGMENT_SHIFT,
  CODE_MASK,
  CPL,
  CR4,
  CS_BASE,
  DR6,
  EXECUTED,
  EXIT_RECORD,
  FETCH_SET,
  FETCH_SET_BYTES,
  FLAGS,
  INSTRUCTIONS,
  type Layout,
  LIMIT,
  LINEAR_MASK,
  LINEAR_RIP,
  LOADS,
  NMI_BLOCKED,
  NO_EXCEPTION,
  PENDING_ERROR,
  PENDING_VECTOR,
  RIP_PAGE,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENT_LIMIT,
  SEGMENTS,
  SHADOW_AT,
  SHADOW_BEGINS,
  SHADOW_ON,
  SS,
  STACK_MASK,
  STORES,
  TLB_SET,
  TLB_SET_BYTES,
} from './state.ts';
import { helperFunctions } from './system/helpers.ts';
import { FAULT, type HelperFunction, LEAVE, NEXT } from './system/outcome.ts';
import { SoftTlb } from './tlb.ts';

const RFLAGS_TF = 1 << 8;
const RFLAGS_IF = 1 << 9;
const RFLAGS_RF = 1 << 16;
const VECTOR_DB = 1;
const VECTOR_NMI = 2;
const DR6_HITS = 15;
const DR6_BS = 1 << 14;
const DR6_BT = 1 << 15;
const DESCRIPTOR_BIG = 1 << 22;
const STACK_ATTRIBUTES = SEGMENTS + SS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES;
const CR4_LA57 = 1 << 12;
const CHECKED_BITS = CHECKED | (7 << CHECKED_SEGMENT_SHIFT);
/** Longest run of generated code: V8 does not swap a function for its optimised version while it runs. */
const SLICE = 200_000;

export class Cpu {
  readonly state: CpuState;
  readonly bus: Bus;
  readonly tlb: SoftTlb;
  readonly code: CodeCache;
  readonly memory: MemoryPort;
  readonly layout: Layout;
  readonly #run: (record: number) => void;
  readonly #helpers: readonly HelperFunction[];
  readonly #stepRecord: number;
  readonly decoder: Decoder;
  readonly #finder: CodeFinder;
  readonly #clock: InstructionClock;
  readonly #events = new PendingEvents();
  #sharers = 1;
  #sharedFrom = 0;
  /** What the pending exception is, if it isn't an ordinary fault. */
  #pendingKind: EventKind = 'fault';
  /** The event or instruction of the moment has switched tasks: it can't be done again. */
  taskSwitched = false;
  /** The interrupt shadow is that of a load of SS. */
  shadowOfStack = false;
  /** Set by an instruction that must not be followed by a single-step trap. */
  trapHeld = false;
  /** `code.drops` when the fetch TLB was last known to be of today. */
  #drops = 0;
  /** A helper's reason to end the run, or -1. */
  exitReason = -1;
  /** PAUSE ends the run, with EXIT_PAUSE. */
  exitsAtPause = false;
  /** A bit for each vector whose exceptions end the run instead of being delivered. */
  interceptExceptions = 0;
  readonly intercepted = { vector: 0, error: 0 };
  readonly hostDebug = new HostDebug();
  /** The guest is about to do the no-op that `CodeCache.marker` begins. */
  onMark: (mark: number) => void = () => {};
  /** What EXIT_UNSUPPORTED was about. */
  unsupported = '';

  /**
   * `memory` must be at its final size: generated code and all views use its buffer of now. `sibling`: another CPU of the
   * same machine, whose decoded code this one shares (`layoutBeside`). `counts`: generated code counts its loads and stores.
   */
  constructor(memory: WebAssembly.Memory, layout: Layout, bus: Bus, sibling?: Cpu, counts = false) {
    const buffer = memory.buffer;
    this.layout = layout;
    this.bus = bus;
    this.state = new CpuState(buffer, layout);
    this.#clock = new InstructionClock(this.state);
    const helper = (name: string) => {
      const at = FORMS.helpers.indexOf(name);
      if (at < 0) throw new Error(`no instruction uses ${name}`);
      return at;
    };
    this.decoder =
      sibling?.decoder ??
      new Decoder(FORMS.rows, { invalid: helper('ud'), unavailable: helper('unavailable') }, buffer);
    this.tlb = new SoftTlb(buffer, layout);
    // The last records are for single steps.
    this.#stepRecord = layout.recordsEnd - 4 * RECORD_BYTES;
    const cacheLayout = { ...layout, recordsEnd: this.#stepRecord };
    this.code = sibling?.code ?? new CodeCache(buffer, cacheLayout, this.decoder, helper('gp'));
    this.code.onChange((host, has) => {
      if (has) this.tlb.withholdWrites(host);
      bus.codePage(host, has);
    });
    this.memory = new MemoryPort(this.state, this.tlb, this.code, bus);
    this.#finder = new CodeFinder(this.state, this.memory, this.tlb, this.code, bus, this.#stepRecord);
    this.#helpers = FORMS.helpers.map((name) => {
      const f = helperFunctions[name];
      if (!f) throw new Error(`no function for ${name}`);
      return f;
    });
    const bulk = new BulkStrings(this.state, this.tlb, this.memory);
    const environment: Environment = {
      slow: (record, lo, hi, how) => {
        this.#clock.calledAt = record;
        return this.memory.slow(record, lo, hi, how);
      },
      commit: () => this.memory.commit(),
      divide: (signed, lo, hi) => divide(this.state, signed !== 0, lo, hi),
      assist: (record, form) => {
        this.#clock.calledAt = record;
        return floatAssist(this, record, form);
      },
      // A single step is one step; and who counts accesses wants to end where he said.
      bulk: (record, bytes, copies) =>
        record < this.#stepRecord && !counts ? bulk.run(record, bytes, copies !== 0) : 0,
      find: (lo, hi) => this.#finder.find(lo, hi),
      link: (record) => this.#finder.link(record),
      guard: (record) => this.#finder.guard(record),
      helper: (record) => this.#helper(record),
    };
    const instance = new WebAssembly.Instance(interpreterFor(layout, counts), { e: { memory, ...environment } });
    this.#run = instance.exports['run'] as (record: number) => void;
    resetState(this.state);
    this.modeChanged();
  }

  /** Limit of a segment register, in bytes. */
  limitOf(index: number): number {
    return this.state.get(SEGMENTS + index * SEGMENT_BYTES + SEGMENT_LIMIT);
  }

  /** MODE_16, MODE_32 or MODE_64: that of the code segment. */
  get mode(): number {
    return modeOf(this.state);
  }

  /** To be called when CPL, CS, paging, AC, CR0 or CR4 changed: chooses TLB sets, masks, and what decoding depends on. */
  modeChanged(): void {
    const { state, layout } = this;
    const mode = this.mode;
    state.set(TLB_SET, layout.tlb + this.memory.dataSet * TLB_SET_BYTES);
    state.set(FETCH_SET, layout.fetchTlb + (state.get(CPL) === 3 ? FETCH_SET_BYTES : 0));
    state.setPair(CANONICAL_HALF, 0, state.get(CR4) & CR4_LA57 ? 1 << 24 : 1 << 15);
    state.setPair(CODE_MASK, -1, mode === MODE_64 ? -1 : 0);
    state.setPair(LINEAR_MASK, -1, mode === MODE_64 ? -1 : CHECKED_BITS);
    const narrow = mode !== MODE_64 && !(state.get(STACK_ATTRIBUTES) & DESCRIPTOR_BIG);
    state.setPair(STACK_MASK, narrow ? 0xffff : -1, mode === MODE_64 ? -1 : 0);
    const decodeMode = decodeModeOf(state);
    if (decodeMode !== this.#finder.mode) {
      this.#finder.mode = decodeMode;
      this.tlb.flushFetches();
    }
  }

  /** Runs about `budget` instructions. Why it ended: EXIT_*. */
  run(budget: number): number {
    const { state, memory } = this;
    let left = budget;
    this.exitReason = -1;
    memory.exitRequested = false;
    if (this.code.drops !== this.#drops) this.#forgetMaps();
    while (left > 0) {
      if (state.raised && !this.#deliverPending()) return this.#ended;
      this.#takeInterrupt();
      if (this.exitReason >= 0 || memory.exitRequested) return this.#ended;
      // The delivery has found another event: a fault on the way, or one that has to wait.
      if (state.raised) continue;
      const before = state.get(INSTRUCTIONS);
      if (this.#mustStep) this.#step();
      else this.#execute(Math.min(left, SLICE));
      if (memory.hits & HOST_HIT) this.#takeHostHit();
      // Of a port, or of a delivery.
      if (memory.hits !== 0 && !state.raised && !this.trapHeld) this.trap(memory.hits);
      // An exception costs something too, or a handler that faults at once would never use its budget up.
      left -= ((state.get(INSTRUCTIONS) - before) >>> 0) + (state.raised ? 1 : 0);
      if (this.exitReason >= 0) return this.exitReason;
      if (state.raised && !this.#deliverPending()) return this.#ended;
      if (this.exitReason >= 0 || memory.exitRequested) return this.#ended;
      if (this.hostDebug.singleStep) return this.#stopFor('step');
    }
    return EXIT_BUDGET;
  }

  /** The code cache was dropped, perhaps by another CPU. */
  #forgetMaps(): void {
    this.#drops = this.code.drops;
    this.tlb.flushFetches();
  }

  get #ended(): number {
    if (this.memory.fetchedFromDevice) {
      this.memory.fetchedFromDevice = false;
      this.unsupported = 'fetch from a device';
      return EXIT_UNSUPPORTED;
    }
    return this.exitReason >= 0 ? this.exitReason : EXIT_BUS;
  }

  /**
   * Instructions are to be done one by one: TF, RF, a breakpoint that may be hit, or an event that waits for the end of an interrupt
   * shadow.
   */
  get #mustStep(): boolean {
    const { state, memory } = this;
    if (state.get(FLAGS) & (RFLAGS_TF | RFLAGS_RF) || memory.stepNext || memory.hits !== 0) return true;
    if (this.hostDebug.singleStep) return true;
    if (this.breakpoints.hasCode && this.breakpoints.atCode(state.get(LINEAR_RIP), state.high(LINEAR_RIP))) return true;
    return this.shadowed && this.#eventWaits;
  }

  get breakpoints(): Breakpoints {
    return this.memory.breakpoints;
  }

  #stopFor(cause: DebugCause): number {
    this.hostDebug.cause = cause;
    this.exitReason = EXIT_DEBUG;
    return EXIT_DEBUG;
  }

  /** Data that the debugger watches: the run ends behind the instruction or the delivery, if nothing else ends it. */
  #takeHostHit(): void {
    this.memory.hits &= ~HOST_HIT;
    if (this.exitReason < 0) this.#stopFor('data');
  }

  /** To be called when a debug register, CR4.DE or what a debugger asks for changed. */
  debugChanged(): void {
    const { any } = this.breakpoints;
    this.breakpoints.update(this.state);
    if (!any && !this.breakpoints.any) return;
    this.code.clearStops();
    this.tlb.flush();
  }

  /** Right after STI or MOV SS. */
  get shadowed(): boolean {
    const { state } = this;
    return state.get(SHADOW_ON) !== 0 && state.get(SHADOW_AT) === state.get(INSTRUCTIONS);
  }

  /** Could an external interrupt be taken now? */
  get interruptible(): boolean {
    return (this.state.get(FLAGS) & RFLAGS_IF) !== 0 && !this.shadowed;
  }

  #execute(budget: number): void {
    const { state } = this;
    const record = this.#finder.find(state.get(LINEAR_RIP), state.high(LINEAR_RIP));
    if (record === 0) return;
    // Of a breakpoint that is another address's of the same memory, or another CPU's; or a mark.
    if (this.code.isStop(record)) {
      const mark = this.code.markOf(record);
      if (mark !== 0) this.onMark(mark);
      return this.#step();
    }
    state.setPair(RIP_PAGE, state.get(LINEAR_RIP) & ~4095, state.high(LINEAR_RIP));
    this.#enter(record, this.memory.exitRequested ? 1 : budget * RECORD_BYTES);
  }

  #enter(record: number, limit: number): void {
    const { state } = this;
    state.set(LIMIT, limit);
    this.#run(record);
    this.#clock.calledAt = 0;
    const stopped = state.get(EXIT_RECORD);
    this.#clock.count(state.get(EXECUTED) >>> 5);
    if (stopped !== 0) this.#setRipFrom(stopped, R_OFFSET);
    if (state.get(SHADOW_ON) === SHADOW_BEGINS) {
      state.set(SHADOW_ON, 1);
      state.set(SHADOW_AT, state.get(INSTRUCTIONS));
    }
  }

  /** LINEAR_RIP of the record, or (R_NEXT) of the one behind it. */
  #setRipFrom(record: number, field: number): void {
    const { state } = this;
    const offset = state.view.getUint16(record + field, true);
    const lo = state.get(RIP_PAGE) + offset;
    const hi = state.high(RIP_PAGE) + (lo >= 0 && state.get(RIP_PAGE) < 0 ? 1 : 0);
    state.setPair(LINEAR_RIP, lo & state.get(CODE_MASK), hi & state.high(CODE_MASK));
  }

  /** One instruction, then the trap that TF asks for: the TF of before, but SYSCALL and its like decide for themselves. */
  #step(): void {
    const { state, memory } = this;
    const flags = state.get(FLAGS);
    if (this.breakpoints.hasCode && this.#breaksHere(flags)) return;
    state.set(FLAGS, flags & ~RFLAGS_RF);
    const before = state.get(INSTRUCTIONS);
    const lo = state.get(LINEAR_RIP);
    const hi = state.high(LINEAR_RIP);
    if (!this.#finder.prepareStep(lo, hi)) return;
    const record = this.#stepRecord;
    this.code.stop(record + RECORD_BYTES, state.view.getUint16(record + R_NEXT, true));
    state.setPair(RIP_PAGE, lo & ~4095, hi);
    this.trapHeld = false;
    memory.stepNext = false;
    memory.notesHits = true;
    this.#enter(record, 1);
    memory.notesHits = false;
    const done = state.get(INSTRUCTIONS) !== before;
    if (state.raised && state.get(PENDING_VECTOR) === VECTOR_DB) {
      // INT1, which reports what was held back as well.
      state.set(DR6, state.get(DR6) | memory.hits);
      memory.hits = 0;
    }
    if (state.raised || !done) {
      // It will be done again, or something else will be.
      if (!state.raised) state.set(FLAGS, state.get(FLAGS) | (flags & RFLAGS_RF));
      if (!done) memory.hits = 0;
      return;
    }
    this.hostDebug.passed();
    if (memory.hits & HOST_HIT) this.#takeHostHit();
    const stepped = flags & RFLAGS_TF ? DR6_BS : 0;
    if (!this.trapHeld && (stepped | memory.hits) !== 0) this.trap(stepped | memory.hits);
  }

  /**
   * Raises #DB if a breakpoint is at LINEAR_RIP, or ends the run if it is the debugger's. On Intel none is right behind a load of SS;
   * elsewhere it reports what that load has held back as well, which must not follow the delivery, within the handler.
   */
  #breaksHere(flags: number): boolean {
    const { state } = this;
    const lo = state.get(LINEAR_RIP);
    const hi = state.high(LINEAR_RIP);
    const found = this.breakpoints.atCode(lo, hi);
    if (found & HOST_HIT && !this.hostDebug.passesAt(lo, hi)) {
      this.#stopFor('code');
      return true;
    }
    if (flags & RFLAGS_RF) return false;
    if (this.sysenterInLongMode && this.shadowOfStack && this.shadowed) return false;
    const bits = found & ~HOST_HIT;
    if (bits === 0) return false;
    this.debugFault(bits | this.memory.hits);
    this.memory.hits = 0;
    return true;
  }

  /** Raises #DB as a fault of the current instruction, with bits of DR6. */
  debugFault(bits: number): void {
    this.state.set(DR6, (this.state.get(DR6) & ~DR6_HITS) | bits);
    this.state.raise(VECTOR_DB, 0);
  }

  /** Raises the #DB of single-stepping or of a hit, by bits of DR6, to be delivered before the next instruction. */
  trap(bits = DR6_BS): void {
    this.memory.hits = 0;
    this.debugFault(bits);
    this.#pendingKind = 'trap';
    if (this.exitReason === EXIT_HALT) this.exitReason = -1;
  }

  /** A task whose T bit is set has begun. */
  taskTrap(): void {
    this.trap(DR6_BT);
  }

  /** Delivers the exception that was raised; false when the run has to end. */
  #deliverPending(): boolean {
    const { state } = this;
    const vector = state.get(PENDING_VECTOR);
    const error = state.get(PENDING_ERROR);
    const kind = this.#pendingKind;
    state.set(PENDING_VECTOR, NO_EXCEPTION);
    this.#pendingKind = 'fault';
    if (vector < 32 && (this.interceptExceptions >>> vector) & 1 && kind !== 'external') {
      this.intercepted.vector = vector;
      this.intercepted.error = error;
      this.exitReason = EXIT_EXCEPTION;
      return false;
    }
    return deliver(this, vector, error, kind);
  }

  #takeInterrupt(): void {
    const { state } = this;
    if (this.hostDebug.singleStep) return;
    if (this.#events.nmi && !this.shadowed && !state.get(NMI_BLOCKED)) {
      this.#events.nmi = false;
      state.set(NMI_BLOCKED, 1);
      deliver(this, VECTOR_NMI, 0, 'external');
      return;
    }
    if (!this.interruptible) return;
    if (this.#events.interrupt >= 0) {
      const vector = this.#events.takeInterrupt();
      deliver(this, vector, 0, 'external');
    } else if (this.#events.line) {
      const vector = this.bus.acknowledgeInterrupt();
      if (vector >= 0) deliver(this, vector, 0, 'external');
    }
  }

  /** Something may be waiting that an instruction has just let in. */
  get #eventWaits(): boolean {
    return this.#events.waits(this.state.get(NMI_BLOCKED) !== 0);
  }

  /** SYSENTER works in long mode, and SYSCALL in 64-bit mode only, as on Intel. */
  sysenterInLongMode = false;
  /** Bits that CR4 and EFER may have; others are #GP. All that is built, until `useCpuid` or the machine says otherwise. */
  cr4Allowed = CR4_BUILT;
  eferAllowed = EFER_BUILT;
  xcr0Allowed = 3;

  /** Takes from the bus's CPUID which instructions exist and which bits CR4 and EFER may have. */
  useCpuid(): void {
    const features = readFeatures(this.bus);
    this.cr4Allowed = features.cr4;
    this.memory.la57 = (features.cr4 & CR4_LA57) !== 0;
    this.eferAllowed = features.efer;
    this.xcr0Allowed = features.xcr0;
    this.sysenterInLongMode = features.intel;
    this.useFeatures(features);
  }

  /** Instructions whose feature isn't named become undefined. */
  useFeatures({ instructions }: Pick<Features, 'instructions'>): void {
    this.decoder.useFeatures(instructions);
    this.code.drop();
    this.tlb.flushFetches();
  }

  /** Goes on at the instruction of `record` once more: for a helper that isn't finished. */
  again(record: number): void {
    this.#setRipFrom(record, R_OFFSET);
  }

  /** Goes on at an offset in CS. */
  setRip(lo: number, hi: number): void {
    if (this.mode === MODE_64) this.state.setPair(LINEAR_RIP, lo, hi);
    else this.state.setPair(LINEAR_RIP, (lo + this.state.get(CS_BASE)) | 0, 0);
  }

  /** Delivers an external interrupt as soon as IF and the interrupt shadow allow it. One waits at a time. */
  injectInterrupt(vector: number): void {
    this.#events.interrupt = vector;
    this.yield();
  }

  /** The interrupt line: as long as it is high, the CPU asks the bus for a vector whenever it can take one. */
  setInterruptLine(high: boolean): void {
    if (high && !this.#events.line) this.yield();
    this.#events.line = high;
  }

  /** The vector that `injectInterrupt` gave and that was not delivered yet, taken back; -1 if there is none. */
  withdrawInterrupt(): number {
    return this.#events.takeInterrupt();
  }

  /** What waits is lost: INIT. */
  forgetEvents(): void {
    this.#events.interrupt = -1;
    this.#events.line = false;
    this.#events.nmi = false;
    this.#pendingKind = 'fault';
  }

  injectNmi(): void {
    this.#events.nmi = true;
    this.yield();
  }

  /** Ends the slice of generated code at the next jump, so that `run` looks for events. */
  yield(): void {
    this.state.set(LIMIT, 0);
  }

  /** Ends `run` with EXIT_BUS, soon. */
  requestExit(): void {
    this.memory.exitRequested = true;
    this.yield();
  }

  /** Delivers an event at the next run. */
  raise(vector: number, error = 0, kind: EventKind = 'fault'): void {
    this.state.raise(vector, error);
    this.#pendingKind = kind;
  }

  /** Retired instructions, also in the middle of a run: for the instruction at `record`. */
  now(record: number): number {
    return this.#clock.at(record);
  }

  /** Time runs slower from here on: a tick each `sharers` instructions, as so many CPUs run in turns. */
  shareTime(sharers: number): void {
    this.#sharedFrom = this.#clock.retired;
    this.#sharers = sharers;
  }

  /** Ticks that go with a number of retired instructions. */
  ticksAt(instructions: number): number {
    const from = this.#sharedFrom;
    return this.#sharers === 1 ? instructions : from + Math.floor((instructions - from) / this.#sharers);
  }

  /** Retired instructions, while the bus is called. */
  get nowInCall(): number {
    return this.#clock.inCall;
  }

  /** Loads and stores of at most 8 bytes, MMIO included, if this CPU counts them; while no generated code runs. */
  get loads(): number {
    return Number(this.state.big(LOADS)) + this.memory.loads;
  }

  get stores(): number {
    return Number(this.state.big(STORES)) + this.memory.stores;
  }

  /** Retired instructions, while no generated code runs. */
  get retired(): number {
    return this.#clock.retired;
  }

  /** See `Environment.helper`. LINEAR_RIP is that of the next instruction while the function runs. */
  #helper(record: number): number {
    const { state } = this;
    this.#clock.calledAt = record;
    this.#setRipFrom(record, R_NEXT);
    const outcome = this.#helpers[state.view.getUint16(record + R_SUB, true)](this, record);
    if (outcome === NEXT) return record + RECORD_BYTES;
    if (outcome === FAULT) {
      this.#setRipFrom(record, R_OFFSET);
      return HELPER_FAULT;
    }
    if (outcome === LEAVE || record >= this.#stepRecord || this.#eventWaits) return HELPER_LEAVE;
    const lo = state.get(LINEAR_RIP);
    const hi = state.high(LINEAR_RIP);
    const found = this.#finder.find(lo, hi);
    if (found === 0) return HELPER_LEAVE;
    state.setPair(RIP_PAGE, lo & ~4095, hi);
    return found;
  }
}
