/**
 * A CPU: its state, its caches, and the loop around generated code. Everything outside is behind the bus.
 *
 * Between two calls of `run` the state is exact: registers, flags and LINEAR_RIP are those at an instruction's boundary.
 */
import {
  ACCESS_FETCH,
  ACCESS_USER,
  type Bus,
  EXIT_BUDGET,
  EXIT_BUS,
  EXIT_EXCEPTION,
  RIGHT_FETCH,
  TRANSLATE_EXIT,
  TRANSLATE_FAULT,
  TRANSLATE_OK,
} from './bus.ts';
import { CodeCache } from './code-cache.ts';
import { CpuState } from './cpu-state.ts';
import { Decoder, MODE_16, MODE_32, MODE_64 } from './decoder.ts';
import { deliver } from './exceptions.ts';
import { H_CHAIN_LINK, spread } from './forms.ts';
import { type Environment, HELPER_FAULT, HELPER_LEAVE, interpreterModule } from './interpreter.ts';
import { MemoryPort } from './memory-port.ts';
import { R_HANDLER, R_IMMEDIATE, R_LINK, R_NEXT, R_OFFSET, R_SUB, RECORD_BYTES } from './record.ts';
import { divide } from './slow-arithmetic.ts';
import {
  CPL,
  CR2,
  CS,
  CS_BASE,
  DR6,
  EXECUTED,
  EXIT_RECORD,
  FETCH_SET,
  FETCH_SET_BYTES,
  FLAGS,
  INSTRUCTIONS,
  LINEAR_MASK,
  LIMIT,
  LINEAR_RIP,
  type Layout,
  NMI_BLOCKED,
  NO_EXCEPTION,
  PENDING_ERROR,
  PENDING_VECTOR,
  RIP_PAGE,
  RUN_BASE,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENTS,
  SHADOW_AT,
  SHADOW_BEGINS,
  SHADOW_ON,
  TLB_SET,
  TLB_SET_BYTES,
} from './state.ts';
import { helperFunctions } from './system/helpers.ts';
import { FAULT, type HelperFunction, LEAVE, NEXT } from './system/outcome.ts';
import { resetState } from './reset.ts';
import { INSTRUCTION_TABLE } from './table/table.ts';
import { SoftTlb } from './tlb.ts';

const RFLAGS_TF = 1 << 8;
const RFLAGS_IF = 1 << 9;
const VECTOR_DB = 1;
const VECTOR_NMI = 2;
const VECTOR_GP = 13;
const VECTOR_PF = 14;
const DESCRIPTOR_LONG = 1 << 21;
const DESCRIPTOR_BIG = 1 << 22;
/** Longest run of generated code: V8 does not swap a function for its optimised version while it runs. */
const SLICE = 200_000;

const FORMS = spread(INSTRUCTION_TABLE);

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
  #pendingInterrupt = -1;
  #interruptLine = false;
  /** The record at which generated code called TypeScript last. */
  #calledAt = 0;
  #pendingNmi = false;
  /** A helper's reason to end the run, or -1. */
  exitReason = -1;
  /** A bit for each vector whose exceptions end the run instead of being delivered. */
  interceptExceptions = 0;
  readonly intercepted = { vector: 0, error: 0 };
  /** What EXIT_UNSUPPORTED was about. */
  unsupported = '';

  /** `memory` must be at its final size: generated code and all views use its buffer of now. */
  constructor(memory: WebAssembly.Memory, layout: Layout, bus: Bus) {
    const buffer = memory.buffer;
    this.layout = layout;
    this.bus = bus;
    this.state = new CpuState(buffer, layout);
    const helper = (name: string) => {
      const at = FORMS.helpers.indexOf(name);
      if (at < 0) throw new Error(`no instruction uses ${name}`);
      return at;
    };
    const decoder = new Decoder(FORMS.rows, helper('ud'), buffer);
    this.tlb = new SoftTlb(buffer, layout);
    // The last records are for single steps.
    this.#stepRecord = layout.recordsEnd - 4 * RECORD_BYTES;
    const cacheLayout = { ...layout, recordsEnd: this.#stepRecord };
    this.code = new CodeCache(buffer, cacheLayout, decoder, helper('gp'), (host, has) => {
      if (has) this.tlb.withholdWrites(host);
      bus.codePage(host, has);
    });
    this.memory = new MemoryPort(this.state, this.tlb, this.code, bus);
    this.#helpers = FORMS.helpers.map((name) => {
      const f = helperFunctions[name];
      if (!f) throw new Error(`no function for ${name}`);
      return f;
    });
    const environment: Environment = {
      slow: (record, lo, hi, how) => {
        this.#calledAt = record;
        return this.memory.slow(record, lo, hi, how);
      },
      commit: () => this.memory.commit(),
      divide: (signed, lo, hi) => divide(this.state, signed !== 0, lo, hi),
      find: (lo, hi) => this.#find(lo, hi),
      link: (record) => this.#link(record),
      guard: (record) => this.#guard(record),
      helper: (record) => this.#helper(record),
    };
    const module = new WebAssembly.Module(interpreterModule(FORMS, layout));
    const instance = new WebAssembly.Instance(module, { e: { memory, ...environment } });
    this.#run = instance.exports['run'] as (record: number) => void;
    resetState(this.state);
    this.modeChanged();
  }

  /** Mode that instructions are decoded in. */
  get mode(): number {
    const attributes = this.state.get(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES);
    if (this.state.longMode && attributes & DESCRIPTOR_LONG) return MODE_64;
    return attributes & DESCRIPTOR_BIG ? MODE_32 : MODE_16;
  }

  #lastMode = -1;

  /** To be called when CPL, CS, paging or AC changed: chooses TLB sets and masks. */
  modeChanged(): void {
    const { state, layout } = this;
    const mode = this.mode;
    state.set(TLB_SET, layout.tlb + this.memory.dataSet * TLB_SET_BYTES);
    state.set(FETCH_SET, layout.fetchTlb + (state.get(CPL) === 3 ? FETCH_SET_BYTES : 0));
    state.setPair(LINEAR_MASK, -1, mode === MODE_64 ? -1 : 0);
    state.setPair(LINEAR_MASK + 8, -1, mode === MODE_64 ? -1 : 0);
    if (mode !== this.#lastMode) {
      this.#lastMode = mode;
      this.tlb.flushFetches();
    }
  }

  /** Runs about `budget` instructions. Why it ended: EXIT_*. */
  run(budget: number): number {
    const { state, memory } = this;
    let left = budget;
    this.exitReason = -1;
    memory.exitRequested = false;
    while (left > 0) {
      if (state.raised && !this.#deliverPending()) return this.exitReason;
      this.#takeInterrupt();
      if (this.exitReason >= 0) return this.exitReason;
      const before = state.get(INSTRUCTIONS);
      if (this.#mustStep) this.#step();
      else this.#execute(Math.min(left, SLICE));
      left -= (state.get(INSTRUCTIONS) - before) >>> 0;
      if (state.raised && !this.#deliverPending()) return this.exitReason;
      if (this.exitReason >= 0) return this.exitReason;
      if (memory.exitRequested) return EXIT_BUS;
    }
    return EXIT_BUDGET;
  }

  /** Instructions are to be done one by one: TF, or an event that waits for the end of an interrupt shadow. */
  get #mustStep(): boolean {
    if (this.state.get(FLAGS) & RFLAGS_TF) return true;
    return this.shadowed && (this.#interruptLine || this.#pendingInterrupt >= 0 || this.#pendingNmi);
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
    const record = this.#find(state.get(LINEAR_RIP), state.high(LINEAR_RIP));
    if (record === 0) return;
    state.setPair(RIP_PAGE, state.get(LINEAR_RIP) & ~4095, state.high(LINEAR_RIP));
    this.#enter(record, budget * RECORD_BYTES);
  }

  #enter(record: number, limit: number): void {
    const { state } = this;
    state.set(LIMIT, limit);
    this.#run(record);
    this.#calledAt = 0;
    const stopped = state.get(EXIT_RECORD);
    this.#count(state.get(EXECUTED) >>> 5);
    if (stopped !== 0) this.#setRipFrom(stopped, R_OFFSET);
    if (state.get(SHADOW_ON) === SHADOW_BEGINS) {
      state.set(SHADOW_ON, 1);
      state.set(SHADOW_AT, state.get(INSTRUCTIONS));
    }
  }

  #count(instructions: number): void {
    const { state } = this;
    const lo = state.get(INSTRUCTIONS);
    const sum = (lo + instructions) | 0;
    state.set(INSTRUCTIONS, sum);
    if (sum >>> 0 < lo >>> 0) state.set(INSTRUCTIONS + 4, state.get(INSTRUCTIONS + 4) + 1);
  }

  /** LINEAR_RIP of the record, or (R_NEXT) of the one behind it. */
  #setRipFrom(record: number, field: number): void {
    const { state } = this;
    const offset = state.view.getUint16(record + field, true);
    const lo = state.get(RIP_PAGE) + offset;
    const hi = state.high(RIP_PAGE) + (lo >= 0 && state.get(RIP_PAGE) < 0 ? 1 : 0);
    state.setPair(LINEAR_RIP, lo & state.get(LINEAR_MASK), hi & state.high(LINEAR_MASK));
  }

  /** One instruction, then the trap that TF asks for. */
  #step(): void {
    const { state } = this;
    const trap = (state.get(FLAGS) & RFLAGS_TF) !== 0;
    const before = state.get(INSTRUCTIONS);
    const lo = state.get(LINEAR_RIP);
    const hi = state.high(LINEAR_RIP);
    const host = this.#fetchPage(lo, hi);
    if (host < 0) return;
    const offset = lo & 4095;
    const record = this.#stepRecord;
    let nextHost = 0;
    for (;;) {
      const bytes = this.code.bytesAt(host, nextHost, offset);
      this.code.decodeOne(bytes, this.mode, record, offset);
      if (nextHost !== 0 || state.view.getUint16(record + R_NEXT, true) <= 4096) break;
      const page = ((lo & ~4095) + 4096) | 0;
      nextHost = this.#fetchPage(page, page === 0 ? hi + 1 : hi);
      if (nextHost < 0) return;
    }
    this.code.stop(record + RECORD_BYTES, state.view.getUint16(record + R_NEXT, true));
    state.setPair(RIP_PAGE, lo & ~4095, hi);
    this.#enter(record, 1);
    const stepped = state.get(INSTRUCTIONS) !== before;
    if (trap && stepped && !state.raised) this.#singleStepTrap();
  }

  #singleStepTrap(): void {
    const { state } = this;
    state.set(DR6, state.get(DR6) | (1 << 14));
    state.raise(VECTOR_DB, 0);
  }

  /** Delivers the exception that was raised; false when the CPU shut down. */
  #deliverPending(): boolean {
    const { state } = this;
    const vector = state.get(PENDING_VECTOR);
    const error = state.get(PENDING_ERROR);
    state.set(PENDING_VECTOR, NO_EXCEPTION);
    if ((this.interceptExceptions >>> vector) & 1) {
      this.intercepted.vector = vector;
      this.intercepted.error = error;
      this.exitReason = EXIT_EXCEPTION;
      return false;
    }
    return deliver(this, vector, error, 'fault');
  }

  #takeInterrupt(): void {
    const { state } = this;
    if (this.#pendingNmi && !this.shadowed && !state.get(NMI_BLOCKED)) {
      this.#pendingNmi = false;
      state.set(NMI_BLOCKED, 1);
      deliver(this, VECTOR_NMI, 0, 'external');
      return;
    }
    if (this.#pendingInterrupt >= 0 && this.interruptible) {
      const vector = this.#pendingInterrupt;
      this.#pendingInterrupt = -1;
      deliver(this, vector, 0, 'external');
    } else if (this.#interruptLine && this.interruptible) {
      const vector = this.bus.acknowledgeInterrupt();
      if (vector >= 0) deliver(this, vector, 0, 'external');
    }
  }

  /** SYSENTER works in long mode, as on Intel. */
  sysenterInLongMode = false;

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
    this.#pendingInterrupt = vector;
    this.yield();
  }

  /** The interrupt line: as long as it is high, the CPU asks the bus for a vector whenever it can take one. */
  setInterruptLine(high: boolean): void {
    if (high && !this.#interruptLine) this.yield();
    this.#interruptLine = high;
  }

  /** The vector that `injectInterrupt` gave and that was not delivered yet, taken back; -1 if there is none. */
  withdrawInterrupt(): number {
    const vector = this.#pendingInterrupt;
    this.#pendingInterrupt = -1;
    return vector;
  }

  injectNmi(): void {
    this.#pendingNmi = true;
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

  /** Delivers an exception at the next run. */
  raise(vector: number, error = 0): void {
    this.state.raise(vector, error);
  }

  /** Host page for a fetch, or -1 after an exception or a request to leave. */
  #fetchPage(lo: number, hi: number): number {
    const { state, memory } = this;
    if (!memory.isCanonical(hi)) {
      state.raise(VECTOR_GP, 0);
      return -1;
    }
    const t = memory.translation;
    const status = this.bus.translate(lo, hi, ACCESS_FETCH | (state.get(CPL) === 3 ? ACCESS_USER : 0), t);
    if (status === TRANSLATE_OK) return t.host & ~4095;
    if (status === TRANSLATE_FAULT) {
      state.setPair(CR2, lo, hi);
      state.raise(VECTOR_PF, t.errorCode);
    } else {
      memory.exitRequested = true;
      if (status !== TRANSLATE_EXIT) this.unsupported = 'fetch from a device';
    }
    return -1;
  }

  /** Retired instructions, also in the middle of a run: for the instruction at `record`. */
  now(record: number): number {
    const { state } = this;
    return this.retired + ((record - state.get(RUN_BASE)) >>> 5);
  }

  /** Retired instructions, while the bus is called. */
  get nowInCall(): number {
    return this.#calledAt !== 0 ? this.now(this.#calledAt) : this.retired;
  }

  /** Retired instructions, while no generated code runs. */
  get retired(): number {
    const { state } = this;
    return (state.get(INSTRUCTIONS + 4) >>> 0) * 4294967296 + (state.get(INSTRUCTIONS) >>> 0);
  }

  /** See `Environment.find`. Decodes if need be. */
  #find(lo: number, hi: number): number {
    const set = this.state.get(CPL) === 3 ? 1 : 0;
    const offset = lo & 4095;
    let map = this.tlb.lookupFetch(set, lo, hi);
    if (map !== 0) {
      const known = this.code.record(map, offset);
      if (known !== 0) return known;
    }
    this.state.setPair(LINEAR_RIP, lo, hi);
    const host = this.#fetchPage(lo, hi);
    if (host < 0) return 0;
    const cached = (this.memory.translation.rights & RIGHT_FETCH) !== 0;
    const drops = this.code.drops;
    this.code.reserve();
    map = this.code.mapOf(host, this.mode);
    if (this.code.drops !== drops) this.tlb.flushFetches();
    if (cached) this.tlb.fillFetch(set, lo, hi, map);
    const known = this.code.record(map, offset);
    if (known !== 0) return known;
    const record = this.code.decodeRun(map, host, this.mode, offset);
    return record !== 0 ? record : this.#findCrossing(map, host, lo, hi, drops);
  }

  /** The instruction at `lo`, `hi` ends in the next page. */
  #findCrossing(map: number, host: number, lo: number, hi: number, drops: number): number {
    const nextLo = ((lo & ~4095) + 4096) | 0;
    const nextHi = nextLo === 0 && this.state.longMode ? (hi + 1) | 0 : hi;
    const nextHost = this.#fetchPage(nextLo, nextHi);
    if (nextHost < 0) return 0;
    const nextMap = this.code.mapOf(nextHost, this.mode);
    if (this.code.drops !== drops) {
      // Making the second map dropped the first.
      this.tlb.flushFetches();
      return this.#find(lo, hi);
    }
    if (this.memory.translation.rights & RIGHT_FETCH) {
      this.tlb.fillFetch(this.state.get(CPL) === 3 ? 1 : 0, nextLo, nextHi, nextMap);
    }
    return this.code.decodeCrossing(map, host, nextHost, this.mode, lo & 4095);
  }

  #link(record: number): number {
    const { state } = this;
    const { view } = state;
    const chain = view.getUint16(record + R_HANDLER, true) === H_CHAIN_LINK;
    const offset = chain ? view.getUint16(record + R_OFFSET, true) : view.getInt32(record + R_IMMEDIATE, true);
    const drops = this.code.drops;
    const found = this.#find(state.get(RIP_PAGE) | offset, state.high(RIP_PAGE));
    // The records of single steps are used for other instructions later.
    if (found !== 0 && this.code.drops === drops && record < this.#stepRecord) {
      view.setInt32(record + R_LINK, found, true);
    }
    return found;
  }

  #guard(record: number): number {
    const { state } = this;
    const offset = state.view.getUint16(record + R_OFFSET, true);
    const lo = state.get(RIP_PAGE) | offset;
    const hi = state.high(RIP_PAGE);
    const map = this.tlb.lookupFetch(state.get(CPL) === 3 ? 1 : 0, lo, hi);
    if (map !== 0) this.code.forget(map, offset);
    return this.#find(lo, hi);
  }

  /** See `Environment.helper`. LINEAR_RIP is that of the next instruction while the function runs. */
  #helper(record: number): number {
    const { state } = this;
    this.#calledAt = record;
    this.#setRipFrom(record, R_NEXT);
    const outcome = this.#helpers[state.view.getUint16(record + R_SUB, true)](this, record);
    if (outcome === NEXT) return record + RECORD_BYTES;
    if (outcome === FAULT) {
      this.#setRipFrom(record, R_OFFSET);
      return HELPER_FAULT;
    }
    if (outcome === LEAVE || record >= this.#stepRecord || this.#interruptLine || this.#pendingInterrupt >= 0) return HELPER_LEAVE;
    const lo = state.get(LINEAR_RIP);
    const hi = state.high(LINEAR_RIP);
    const found = this.#find(lo, hi);
    if (found === 0) return HELPER_LEAVE;
    state.setPair(RIP_PAGE, lo & ~4095, hi);
    return found;
  }
}
