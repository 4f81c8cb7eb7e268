/**
 * Compares our CPU with the machine's own on random instructions: `compare(native, seed, count)`. Needs the harness that
 * gcc builds from `native.c`.
 */
import { spawnSync } from 'node:child_process';
import { EXIT_EXCEPTION, EXIT_HALT } from '../src/cpu/bus.ts';
import {
  CS,
  EFER,
  FCW,
  FPR,
  FSW,
  FTAGS,
  FTOP,
  LINEAR_RIP,
  MXCSR,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENTS,
  XMM,
} from '../src/cpu/state.ts';
import { type BareMachine, bareMachine } from '../src/cpu/testing/bare-machine.ts';
import type { Row } from '../src/cpu/table/row.ts';
import {
  CASE_BYTES,
  FPU_AT,
  isTranscendental,
  isUndefined,
  RESULT_BYTES,
  RESULT_FPU_AT,
  undefinedFlags,
  USER_ROWS_32,
  USER_ROWS_64,
  writeCase,
} from './cases.ts';
import { CODE, DATA, JUMP, WINDOW, WINDOW_AT } from './encode.ts';
import { Random } from './random.ts';
import { distanceOf } from './transcendental.ts';

export interface Mismatch {
  readonly row: Row;
  readonly narrow: boolean;
  readonly code: string;
  readonly what: string;
}

export interface Outcome {
  readonly compared: number;
  /** Encoding forms (row, register or memory, operand size) that were compared. */
  readonly forms: number;
  readonly seen: ReadonlySet<string>;
  readonly mismatches: Mismatch[];
  /** Transcendental functions that were off by one unit in the last place, or said otherwise in C1: no mismatches. */
  readonly lastPlaces: number;
}

/** What a comparison says of these. */
const LAST_PLACE = 'last place';

const BATCH = 5000;
const STATUS_C1 = 0x200;

/** A machine in which nothing is mapped but what the harness has; `narrow`: in compatibility mode. */
function machineFor(narrow: boolean): BareMachine {
  const machine = bareMachine(16, 0);
  const { cpu, bus } = machine;
  cpu.interceptExceptions = -1;
  for (let page = 0; page < 4096; page++) {
    const address = page << 12;
    const data = address >= DATA - 0x10000 && address < DATA + 0x10000;
    if (!data && address !== CODE) bus.absent.add(page);
  }
  if (narrow) {
    cpu.state.set(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES, 0x00c09b00);
    cpu.state.set(EFER, 0xd01);
    cpu.modeChanged();
  }
  return machine;
}

/** Half of the cases are 64-bit code, half 32-bit code. */
export function compare(native: string, seed: number, count: number, filter: (row: Row) => boolean = () => true): Outcome {
  const mismatches: Mismatch[] = [];
  const seen = new Set<string>();
  let compared = 0;
  let lastPlaces = 0;
  for (const narrow of [false, true]) {
    const rows = (narrow ? USER_ROWS_32 : USER_ROWS_64).filter(filter);
    if (rows.length === 0) continue;
    const machine = machineFor(narrow);
    const wanted = narrow ? count >> 1 : count - (count >> 1);
    for (let done = 0; done < wanted; done += BATCH) {
      const size = Math.min(BATCH, wanted - done);
      lastPlaces += compareBatch(machine, native, new Random(seed + done), rows, done, size, narrow, seen, mismatches);
    }
    compared += wanted;
  }
  return { compared, forms: seen.size, seen, mismatches, lastPlaces };
}

/** Returns how many were off in the last place only. */
function compareBatch(
  machine: BareMachine,
  native: string,
  random: Random,
  rows: readonly Row[],
  first: number,
  size: number,
  narrow: boolean,
  seen: Set<string>,
  mismatches: Mismatch[],
): number {
  let lastPlaces = 0;
  const cases = new Uint8Array(size * CASE_BYTES);
  const chosen: Row[] = [];
  for (let i = 0; i < size; i++) {
    chosen.push(rows[(first + i) % rows.length]);
    writeCase(random, chosen[i], cases, i * CASE_BYTES, narrow);
  }
  const run = spawnSync(native, { input: cases, maxBuffer: 1 << 30 });
  if (run.stdout.length !== size * RESULT_BYTES) throw new Error(`the harness stopped: ${run.signal} ${run.stderr}`);
  for (let i = 0; i < size; i++) {
    const row = chosen[i];
    const one = cases.subarray(i * CASE_BYTES, (i + 1) * CASE_BYTES);
    const expected = run.stdout.subarray(i * RESULT_BYTES, (i + 1) * RESULT_BYTES);
    const what = runCase(machine, one, expected, row, narrow);
    const code = Buffer.from(one.subarray(0, one[16])).toString('hex');
    seen.add(formOf(row, one, narrow));
    if (what === LAST_PLACE) lastPlaces++;
    else if (what && !isUndefined(row, one)) mismatches.push({ row, narrow, code, what });
  }
  return lastPlaces;
}

/** Mode, row, what its operands are, and the prefixes (or VEX.W) that choose among them. */
function formOf(row: Row, one: Uint8Array, narrow: boolean): string {
  const code = one.subarray(0, one[16]);
  if (row.vex) {
    const vex = code.indexOf(0xc4);
    const place = code[vex + 4] >= 0xc0 ? 'register' : 'memory';
    return `${narrow} vex ${row.map} ${row.opcode} ${row.digit} ${row.prefix} ${code[vex + 2] >> 7} ${place}`;
  }
  const size = code.indexOf(0x66) >= 0 ? 2 : 0;
  const map = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][row.map];
  const at = code.findIndex((_, i) => [...map, row.opcode].every((byte, k) => code[i + k] === byte)) + map.length + 1;
  const place = row.modrm ? (code[at] >= 0xc0 ? 'register' : 'memory') : '';
  return `${narrow} ${row.map} ${row.opcode} ${row.digit} ${row.prefix} ${row.operands.join()} ${size} ${place}`;
}

/** '' when the results are equal. */
function runCase(machine: BareMachine, one: Uint8Array, expected: Uint8Array, row: Row, narrow: boolean): string {
  const { cpu, ram } = machine;
  const { state } = cpu;
  const at = cpu.layout.state;
  const length = one[16];
  cpu.code.invalidate(ram.byteOffset + CODE);
  ram.set(one.subarray(0, length), CODE);
  ram[CODE + length] = 0xf4;
  ram[CODE + length + JUMP] = 0xf4;
  cpu.code.invalidate(ram.byteOffset + DATA);
  ram.set(one.subarray(WINDOW_AT, WINDOW_AT + WINDOW), DATA);
  state.bytes.set(one.subarray(24, 24 + 128), at);
  const input = new DataView(one.buffer, one.byteOffset);
  state.rflags = input.getUint32(24 + 128, true);
  state.set(MXCSR, input.getUint32(24 + 136, true));
  state.bytes.set(one.subarray(24 + 144, 24 + 400), at + XMM);
  loadFpu(machine, input);
  state.setPair(LINEAR_RIP, CODE, 0);
  const why = cpu.run(1000);
  const view = new DataView(expected.buffer, expected.byteOffset);
  const vector = Number(view.getBigInt64(RESULT_BYTES - 16, true));
  const exit = CODE + length + 1 + (view.getInt32(RESULT_BYTES - 8, true) ? JUMP : 0);
  if (why === EXIT_EXCEPTION) {
    if (vector !== cpu.intercepted.vector) return `vector ${cpu.intercepted.vector}, expected ${vector}`;
  } else if (why !== EXIT_HALT) {
    return `exit ${why} ${cpu.unsupported}`;
  } else if (vector !== -1) {
    return `no fault, expected vector ${vector}`;
  } else if (state.get(LINEAR_RIP) !== exit) {
    return `ends at ${state.get(LINEAR_RIP).toString(16)}, expected ${exit.toString(16)}`;
  }
  const names = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
  for (let i = 0; i < (narrow ? 8 : 16); i++) {
    const ours = BigInt.asUintN(narrow ? 32 : 64, state.big(i * 8));
    const theirs = BigInt.asUintN(narrow ? 32 : 64, view.getBigUint64(i * 8, true));
    if (ours !== theirs) return `${names[i]} ${ours.toString(16)}, expected ${theirs.toString(16)}${inputs(one, names)}`;
  }
  const mask = 0xcd5 & ~(vector >= 0 ? 0 : undefinedFlags(row));
  const flags = state.rflags & mask;
  const theirFlags = view.getUint32(128, true) & mask;
  if (flags !== theirFlags) return `flags ${flags.toString(16)}, expected ${theirFlags.toString(16)}${inputs(one, names)}`;
  const mxcsr = view.getUint32(136, true);
  if (state.get(MXCSR) !== mxcsr) {
    const before = input.getUint32(24 + 136, true);
    return `mxcsr ${state.get(MXCSR).toString(16)}, expected ${mxcsr.toString(16)}, was ${before.toString(16)} ${operands(one)}`;
  }
  for (let i = 0; i < (narrow ? 128 : 256); i++) {
    if (state.bytes[at + XMM + i] !== expected[144 + i]) {
      const from = (i >> 4) * 16;
      const hex = (b: Uint8Array, o: number) => Buffer.from(b.subarray(o, o + 16)).toString('hex');
      return `xmm${i >> 4} ${hex(state.bytes, at + XMM + from)}, expected ${hex(expected, 144 + from)}, was ${hex(one, 168 + from)}`;
    }
  }
  for (let i = 0; i < WINDOW; i++) {
    if (ram[DATA + i] !== expected[400 + i]) return `memory at ${i}: ${ram[DATA + i]}, expected ${expected[400 + i]}`;
  }
  return compareFpu(machine, row, one, view);
}

function loadFpu({ cpu }: BareMachine, input: DataView): void {
  const { state } = cpu;
  const status = input.getUint16(FPU_AT + 2, true);
  const top = (status >>> 11) & 7;
  state.set(FCW, input.getUint16(FPU_AT, true));
  state.set(FSW, status & ~0x3800);
  state.set(FTOP, top);
  state.set(FTAGS, input.getUint8(FPU_AT + 4));
  for (let i = 0; i < 8; i++) {
    const to = FPR + ((top + i) & 7) * 16;
    const from = FPU_AT + 32 + i * 16;
    state.setPair(to, input.getInt32(from, true), input.getInt32(from + 4, true));
    state.set(to + 8, input.getUint16(from + 8, true));
  }
}

function compareFpu({ cpu }: BareMachine, row: Row, one: Uint8Array, view: DataView): string {
  const { state } = cpu;
  const top = state.get(FTOP);
  const status = (state.get(FSW) & ~0x3800) | (top << 11);
  const theirs = view.getUint16(RESULT_FPU_AT + 2, true);
  const tags = view.getUint8(RESULT_FPU_AT + 4);
  const control = view.getUint16(RESULT_FPU_AT, true);
  if (state.get(FCW) !== control) return `fcw ${state.get(FCW).toString(16)}, expected ${control.toString(16)}`;
  const isLoose = isTranscendental(row, one);
  const was = () => fpuText(new DataView(one.buffer, one.byteOffset), FPU_AT);
  if ((status ^ theirs) & (isLoose ? ~STATUS_C1 : -1)) return `fsw ${status.toString(16)}, expected ${theirs.toString(16)} ${was()}`;
  if (state.get(FTAGS) !== tags) return `tags ${state.get(FTAGS).toString(16)}, expected ${tags.toString(16)} ${was()}`;
  let isOff = status !== theirs;
  for (let i = 0; i < 8; i++) {
    const from = FPR + ((top + i) & 7) * 16;
    if (!((tags >>> ((top + i) & 7)) & 1)) continue;
    const at = RESULT_FPU_AT + 32 + i * 16;
    const significand = view.getBigUint64(at, true);
    const head = view.getUint16(at + 8, true);
    if (state.big(from) !== significand || (state.get(from + 8) & 0xffff) !== head) {
      if (isLoose && distanceOf([state.big(from), state.get(from + 8) & 0xffff], [significand, head]) === 1) {
        isOff = true;
        continue;
      }
      const ours = `${(state.get(from + 8) & 0xffff).toString(16)}:${state.big(from).toString(16)}`;
      return `st${i} ${ours}, expected ${head.toString(16)}:${significand.toString(16)} ${was()}`;
    }
  }
  return isOff ? LAST_PLACE : '';
}

/** Control word and the first three registers. */
function fpuText(view: DataView, at: number): string {
  const registers = [0, 1, 2].map((i) => {
    const from = at + 32 + i * 16;
    return `${view.getUint16(from + 8, true).toString(16)}:${view.getBigUint64(from, true).toString(16)}`;
  });
  const status = view.getUint16(at + 2, true).toString(16);
  return `(fsw ${status} tags ${view.getUint8(at + 4).toString(16)} fcw ${view.getUint16(at, true).toString(16)} ${registers.join(' ')})`;
}

/** The first XMM registers and the window. */
function operands(one: Uint8Array): string {
  const hex = (from: number, bytes: number) => Buffer.from(one.subarray(from, from + bytes)).toString('hex');
  return `xmm ${[0, 1, 2, 3, 4, 5, 6, 7].map((i) => hex(168 + i * 16, 16)).join(' ')}`;
}

function inputs(one: Uint8Array, names: readonly string[]): string {
  const view = new DataView(one.buffer, one.byteOffset);
  const registers = names.slice(0, 4).map((name, i) => `${name}=${view.getBigUint64(24 + i * 8, true).toString(16)}`);
  return ` (${registers.join(' ')} flags=${view.getUint32(24 + 128, true).toString(16)})`;
}
