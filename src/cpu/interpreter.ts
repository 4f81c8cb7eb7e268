/**
 * The interpreter as a WebAssembly module: one function, `loop { br_table }` over decoded records, and a function for each
 * group of rarer handlers.
 *
 * `run(record)` begins at a record and ends when LIMIT bytes of records have been retired and a jump is taken, when
 * an instruction faults, or when a helper asks for it. It leaves EXIT_RECORD, where it stands (0: at LINEAR_RIP), and
 * EXECUTED, the instructions retired times the size of a record.
 *
 * Instructions aren't counted one by one. Along a run of records the record pointer counts; `base` is what it would have
 * been at the start if everything so far had been one run. A jump from `pc` to `to` moves it by the distance.
 */
import {
  add,
  add32,
  and,
  and32,
  eq32,
  geU32,
  isZero32,
  k32,
  k64,
  ltU,
  shl32,
  shrU,
  sub32,
  type Value,
  widen,
  wrap,
  xor,
} from './expression.ts';
import { type Forms, H_FIRST, type Handler } from './forms.ts';
import { call, FunctionBuilder, loadFrom, storeTo } from './function-builder.ts';
import type { Exits, Imports } from './handler-contract.ts';
import { InterpreterStage } from './interpreter-stage.ts';
import { R_HANDLER, R_IMMEDIATE, R_LINK, R_OFFSET, R_SUB, RECORD_BYTES } from './record.ts';
import {
  CODE_MASK,
  EXECUTED,
  EXIT_RECORD,
  FETCH_ENTRIES,
  FETCH_ENTRY_BYTES,
  FETCH_MAP,
  FETCH_SET,
  FETCH_TAG,
  type Layout,
  LIMIT,
  MAP_GENERATION,
  RIP_PAGE,
  RUN_BASE,
  TLB_SET,
} from './state.ts';
import { I32, I64, WasmModule } from './wasm-encoder.ts';

/** What generated code calls. Addresses come as two words. */
export interface Environment {
  /** A data access that the TLB doesn't serve. Its address in memory, or 0: the instruction ends with a fault or an exit. */
  slow(record: number, lo: number, hi: number, how: number): number;
  /** The value in SCRATCH_STORE is complete. */
  commit(record: number): number;
  /** Division of 128 bits by 64: 0 for #DE. */
  divide(signed: number, lo: number, hi: number): number;
  /** Floating point that generated code isn't sure of, by its form: 0 for a fault. */
  assist(record: number, form: number): number;
  /** Steps of REP MOVS (`copies`) or REP STOS that were done at once; perhaps none. */
  bulk(record: number, bytes: number, copies: number): number;
  /** The record at a linear address, or 0 after setting LINEAR_RIP. */
  find(lo: number, hi: number): number;
  /** The record that the link of `record` should lead to, or 0 after setting LINEAR_RIP. */
  link(record: number): number;
  /** The record of an instruction whose second page is no longer what it was. */
  guard(record: number): number;
  /** A TypeScript instruction: the next record, HELPER_FAULT or HELPER_LEAVE. */
  helper(record: number): number;
}

/** The instruction didn't happen. */
export const HELPER_FAULT = 0;
/** It did, LINEAR_RIP is set, and the run has to end. */
export const HELPER_LEAVE = -1;

const RECORD_SHIFT = Math.log2(RECORD_BYTES);

const BASE = 1;
const TLB = 2;
const TO = 3;
const TARGET = 4;

interface Indexes extends Imports {
  readonly find: number;
  readonly link: number;
  readonly guard: number;
  readonly helper: number;
}

/** The module's bytes for one layout. `counts`: it counts loads and stores (LOADS, STORES), which costs time. */
export function interpreterModule(forms: Forms, layout: Layout, counts = false): Uint8Array {
  const module = new WasmModule();
  module.importMemory('e', 'memory');
  const imports: Indexes = {
    slow: module.importFunction('e', 'slow', [I32, I32, I32, I32], [I32]),
    commit: module.importFunction('e', 'commit', [I32], [I32]),
    divide: module.importFunction('e', 'divide', [I32, I32, I32], [I32]),
    assist: module.importFunction('e', 'assist', [I32, I32], [I32]),
    bulk: module.importFunction('e', 'bulk', [I32, I32, I32], [I32]),
    find: module.importFunction('e', 'find', [I32, I32], [I32]),
    link: module.importFunction('e', 'link', [I32], [I32]),
    guard: module.importFunction('e', 'guard', [I32], [I32]),
    helper: module.importFunction('e', 'helper', [I32], [I32]),
  };
  const groups = forms.groups.map((group) => addGroup(module, group, layout, imports, counts));
  new MainFunction(forms, layout, imports, groups, counts).addTo(module);
  return module.bytes();
}

/** `group(record)`: does the one instruction; 0 when it faults. */
function addGroup(
  module: WasmModule,
  group: readonly Handler[],
  layout: Layout,
  imports: Indexes,
  counts: boolean,
): number {
  const f = new FunctionBuilder([I32], [I32, I64]);
  const tlb = 1;
  const exits: Exits = {
    next: () => f.return(k32(1)),
    fault: () => f.return(k32(0)),
    jump: misplaced,
    link: misplaced,
    repeat: misplaced,
    repeatMany: misplaced,
  };
  f.set(tlb, loadFrom(I32, 4, k32(0), layout.state + TLB_SET));
  const sub = loadFrom(I32, 2, f.get(I32, 0), R_SUB);
  f.table(
    sub,
    group.map((handler) => () => {
      handler.semantics(
        new InterpreterStage(f, layout, imports, exits, handler.operands, { tlb, target: 2, base: -1, counts }),
      );
      exits.next();
    }),
  );
  f.emit([0x00]);
  return module.addFunction([I32], [I32], f.locals, f.code);
}

function misplaced(): never {
  throw new Error('only handlers of the main function can jump');
}

class MainFunction {
  readonly forms: Forms;
  readonly layout: Layout;
  readonly imports: Indexes;
  readonly groups: readonly number[];
  readonly #counts: boolean;
  readonly #f = new FunctionBuilder([I32], [I32, I32, I32, I64]);
  readonly #exitLabel = 1;
  readonly #loopLabel = 2;
  readonly #jumpLabel = 3;
  readonly #linkLabel = 4;
  /** Labels of the ends that several handlers share; see `#body`. */
  readonly #exits: Exits = {
    next: () => {
      this.#f.set(0, add32(this.#pc, k32(RECORD_BYTES)));
      this.#f.branch(this.#loopLabel);
    },
    fault: () => this.#f.branch(this.#exitLabel),
    jump: () => this.#f.branch(this.#jumpLabel),
    link: () => this.#f.branch(this.#linkLabel),
    repeat: () => this.#repeat(k32(1)),
    repeatMany: (steps) => this.#repeat(this.#f.get(I32, steps)),
  };

  constructor(forms: Forms, layout: Layout, imports: Indexes, groups: readonly number[], counts: boolean) {
    this.forms = forms;
    this.layout = layout;
    this.imports = imports;
    this.groups = groups;
    this.#counts = counts;
  }

  addTo(module: WasmModule): void {
    const f = this.#f;
    f.set(BASE, this.#pc);
    this.#reloadTlb();
    f.block(() => {
      f.loop(() => this.#body());
    });
    f.emit(storeTo(this.#pc, 4, k32(0), this.layout.state + EXIT_RECORD));
    f.emit(storeTo(sub32(this.#pc, this.#get(BASE)), 4, k32(0), this.layout.state + EXECUTED));
    module.addFunction(f.parameters, [], f.locals, f.code, 'run');
  }

  get #pc(): Value {
    return this.#get(0);
  }

  #get(local: number): Value {
    return this.#f.get(local === TARGET ? I64 : I32, local);
  }

  #reloadTlb(): void {
    this.#f.set(TLB, loadFrom(I32, 4, k32(0), this.layout.state + TLB_SET));
  }

  /** Bytes of records retired once the instruction at `pc` is. */
  #retired(): Value {
    return sub32(add32(this.#pc, k32(RECORD_BYTES)), this.#get(BASE));
  }

  /** Goes on at record `TO`; what comes before has been retired. */
  #goTo(): void {
    const f = this.#f;
    const retired = f.keep(this.#retired());
    f.set(BASE, sub32(this.#get(TO), retired));
    f.set(0, this.#get(TO));
    f.branchIf(geU32(retired, this.#limit()), this.#exitLabel);
    f.branch(this.#loopLabel);
  }

  #limit(): Value {
    return loadFrom(I32, 4, k32(0), this.layout.state + LIMIT);
  }

  /** Leaves at LINEAR_RIP, the instruction at `pc` being retired. */
  #leave(): void {
    const f = this.#f;
    f.set(BASE, sub32(k32(0), this.#retired()));
    f.set(0, k32(0));
    f.branch(this.#exitLabel);
  }

  /** Takes back that the record at `pc`, which isn't an instruction, will be counted. */
  #uncount(): void {
    this.#f.set(BASE, add32(this.#get(BASE), k32(RECORD_BYTES)));
  }

  /** Begins the same instruction again, `steps` having been retired. */
  #repeat(steps: Value): void {
    const f = this.#f;
    f.set(BASE, sub32(this.#get(BASE), shl32(steps, k32(RECORD_SHIFT))));
    f.branchIf(geU32(sub32(this.#pc, this.#get(BASE)), this.#limit()), this.#exitLabel);
    f.branch(this.#loopLabel);
  }

  #body(): void {
    const f = this.#f;
    f.block(() => {
      f.block(() => {
        const handler = loadFrom(I32, 2, this.#pc, R_HANDLER);
        f.table(handler, [
          ...this.#specials(),
          ...this.groups.map((g) => () => this.#group(g)),
          ...this.#instructions(),
        ]);
        f.emit([0x00]);
      });
      this.#followLink();
    });
    this.#jump();
  }

  #instructions(): (() => void)[] {
    return this.forms.hot.map((handler) => () => {
      const frame = { tlb: TLB, target: TARGET, base: BASE, counts: this.#counts };
      handler.semantics(new InterpreterStage(this.#f, this.layout, this.imports, this.#exits, handler.operands, frame));
      this.#exits.next();
    });
  }

  #specials(): (() => void)[] {
    const list = [
      () => this.#helper(),
      () => {
        this.#uncount();
        this.#f.branch(this.#linkLabel);
      },
      () => this.#chain(),
      () => this.#chain(),
      () => this.#guard(),
      () => this.#f.branch(this.#exitLabel),
    ];
    if (list.length !== H_FIRST) throw new Error('a special handler is missing');
    return list;
  }

  #helper(): void {
    const f = this.#f;
    this.#storeBase();
    f.set(TO, call(I32, this.imports.helper, this.#pc));
    this.#reloadTlb();
    f.branchIf(isZero32(this.#get(TO)), this.#exitLabel);
    f.if(eq32(this.#get(TO), k32(HELPER_LEAVE)), () => this.#leave());
    this.#goTo();
  }

  #storeBase(): void {
    this.#f.emit(storeTo(this.#get(BASE), 4, k32(0), this.layout.state + RUN_BASE));
  }

  #group(target: number): void {
    const f = this.#f;
    this.#storeBase();
    f.branchIf(isZero32(call(I32, target, this.#pc)), this.#exitLabel);
    this.#exits.next();
  }

  #chain(): void {
    const f = this.#f;
    this.#uncount();
    const linear = add(this.#ripPage(), widen(loadFrom(I32, 2, this.#pc, R_OFFSET)));
    f.set(TARGET, and(linear, loadFrom(I64, 8, k32(0), this.layout.state + CODE_MASK)));
    f.branch(this.#jumpLabel);
  }

  /** The record's immediate is the generation that the second page's map must have. */
  #guard(): void {
    const f = this.#f;
    const behind = add(this.#ripPage(), k64(4096));
    const next = f.keep(and(behind, loadFrom(I64, 8, k32(0), this.layout.state + CODE_MASK)));
    const entry = this.#fetchEntry(next);
    const good = f.local(I32);
    f.set(good, k32(0));
    f.if(ltU(xor(loadFrom(I64, 8, entry, FETCH_TAG), next), k64(4096)), () => {
      const generation = loadFrom(I32, 4, loadFrom(I32, 4, entry, FETCH_MAP), MAP_GENERATION);
      f.set(good, eq32(generation, loadFrom(I32, 4, this.#pc, R_IMMEDIATE)));
    });
    f.if(this.#f.get(I32, good), () => {
      this.#uncount();
      this.#exits.next();
    });
    f.set(TO, call(I32, this.imports.guard, this.#pc));
    this.#uncount();
    this.#arrive();
  }

  #ripPage(): Value {
    return loadFrom(I64, 8, k32(0), this.layout.state + RIP_PAGE);
  }

  #fetchEntry(linear: Value): Value {
    const shift = Math.log2(FETCH_ENTRY_BYTES);
    const index = and32(wrap(shrU(linear, k64(12 - shift))), k32((FETCH_ENTRIES - 1) << shift));
    return this.#f.keep(add32(loadFrom(I32, 4, k32(0), this.layout.state + FETCH_SET), index));
  }

  /** Goes on at `TO`, which is 0 when there is nothing to go on with. */
  #arrive(): void {
    this.#f.if(isZero32(this.#get(TO)), () => this.#leave());
    this.#goTo();
  }

  #followLink(): void {
    const f = this.#f;
    f.set(TO, loadFrom(I32, 4, this.#pc, R_LINK));
    f.if(isZero32(this.#get(TO)), () => f.set(TO, call(I32, this.imports.link, this.#pc)));
    this.#arrive();
  }

  #jump(): void {
    const f = this.#f;
    const target = this.#get(TARGET);
    const entry = this.#fetchEntry(target);
    const offset = f.keep(xor(loadFrom(I64, 8, entry, FETCH_TAG), target));
    f.set(TO, k32(0));
    f.if(ltU(offset, k64(4096)), () => {
      const map = loadFrom(I32, 4, entry, FETCH_MAP);
      f.set(TO, loadFrom(I32, 4, add32(map, shl32(wrap(offset), k32(2)))));
    });
    f.if(isZero32(this.#get(TO)), () => {
      f.set(TO, call(I32, this.imports.find, wrap(target), wrap(shrU(target, k64(32)))));
      f.if(isZero32(this.#get(TO)), () => this.#leave());
    });
    f.emit(storeTo(and(target, k64(~4095)), 8, k32(0), this.layout.state + RIP_PAGE));
    this.#goTo();
  }
}
