/**
 * Compares our CPU with the machine's own on random instructions: `compare(native, seed, count)`. Needs the harness that
 * gcc builds from `native.c`.
 */
import { spawnSync } from 'node:child_process';
import { EXIT_EXCEPTION, EXIT_HALT } from '../src/cpu/bus.ts';
import {
  CS,
  CS_BASE,
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
  loadsEnvironment,
  RESULT_BYTES,
  RESULT_EDGES_AT,
  RESULT_FPU_AT,
  undefinedFlags,
  USER_ROWS,
  writeCase,
} from './cases.ts';
import { type Bits, CODE, JUMP, WINDOW, WINDOW_AT } from './encode.ts';
import { Random } from './random.ts';
import { CODE_SEGMENTS, DATA, EDGE, EDGES, END_BYTES, END_CODE, loadSegments, useSegments } from './segmented.ts';
import { distanceOf } from './transcendental.ts';

export interface Mismatch {
  readonly row: Row;
  readonly bits: Bits;
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

const NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
const BATCH = 5000;
/** What is mapped on both sides of the window's beginning. */
const REACH = 0x10000;
const STATUS_C1 = 0x200;
const HLT = 0xf4;

/** A machine in which nothing is mapped but what the harness has; but for 64-bit code in compatibility mode. */
function machineFor(bits: Bits): BareMachine {
  const machine = bareMachine(16, 0);
  const { cpu, bus } = machine;
  cpu.interceptExceptions = -1;
  for (let page = 0; page < 4096; page++) {
    const address = page << 12;
    const data = address >= DATA - REACH && address < DATA + REACH;
    const code = address === CODE || (address >= END_CODE && address < END_CODE + END_BYTES);
    if (!data && !code) bus.absent.add(page);
  }
  if (bits === 16) loadSegments(machine);
  if (bits === 32) {
    cpu.state.set(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES, 0x00c09b00);
    cpu.state.set(EFER, 0xd01);
    cpu.modeChanged();
  }
  return machine;
}

/** Why this system can't run 16-bit code, or ''. */
export function refusal(native: string): string {
  const { status, stdout } = spawnSync(native, ['16']);
  return status === 0 ? '' : String(stdout).trim() || 'the harness stopped';
}

/** The cases are of all `modes`, as many of each: 64-bit code and 32-bit code; 16-bit code is for systems without a `refusal`. */
export function compare(
  native: string,
  seed: number,
  count: number,
  filter: (row: Row) => boolean = () => true,
  modes: readonly Bits[] = [64, 32],
): Outcome {
  const mismatches: Mismatch[] = [];
  const seen = new Set<string>();
  let compared = 0;
  let lastPlaces = 0;
  for (const [i, bits] of modes.entries()) {
    const rows = USER_ROWS[bits].filter(filter);
    if (rows.length === 0) continue;
    const machine = machineFor(bits);
    const wanted = Math.floor((count - i + modes.length - 1) / modes.length);
    for (let done = 0; done < wanted; done += BATCH) {
      const size = Math.min(BATCH, wanted - done);
      lastPlaces += compareBatch(machine, native, new Random(seed + done), rows, done, size, bits, seen, mismatches);
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
  bits: Bits,
  seen: Set<string>,
  mismatches: Mismatch[],
): number {
  let lastPlaces = 0;
  const cases = new Uint8Array(size * CASE_BYTES);
  const chosen: Row[] = [];
  // A new process finds no more.
  machine.ram.fill(0, DATA - REACH, DATA + REACH);
  machine.ram.fill(0, END_CODE, END_CODE + END_BYTES);
  machine.cpu.code.drop();
  for (let i = 0; i < size; i++) {
    chosen.push(rows[(first + i) % rows.length]);
    writeCase(random, chosen[i], cases, i * CASE_BYTES, bits);
  }
  const run = spawnSync(native, { input: cases, maxBuffer: 1 << 30 });
  if (run.stdout.length !== size * RESULT_BYTES) throw new Error(`the harness stopped: ${run.signal} ${run.stderr}`);
  for (let i = 0; i < size; i++) {
    const row = chosen[i];
    const one = cases.subarray(i * CASE_BYTES, (i + 1) * CASE_BYTES);
    const expected = run.stdout.subarray(i * RESULT_BYTES, (i + 1) * RESULT_BYTES);
    const what = runCase(machine, one, expected, row, bits);
    const code = Buffer.from(one.subarray(0, one[16])).toString('hex');
    seen.add(formOf(row, one, bits));
    if (what === LAST_PLACE) lastPlaces++;
    else if (what && !isUndefined(row, one)) mismatches.push({ row, bits, code, what });
  }
  return lastPlaces;
}

/** Mode, row, what its operands are, and the prefixes (or VEX.W) that choose among them. */
function formOf(row: Row, one: Uint8Array, bits: Bits): string {
  const code = one.subarray(0, one[16]);
  if (row.vex) {
    const vex = code.indexOf(0xc4);
    const place = code[vex + 4] >= 0xc0 ? 'register' : 'memory';
    return `${bits} vex ${row.map} ${row.opcode} ${row.digit} ${row.prefix} ${code[vex + 2] >> 7} ${place}`;
  }
  const size = code.indexOf(0x66) >= 0 ? 2 : 0;
  const map = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][row.map];
  const at = code.findIndex((_, i) => [...map, row.opcode].every((byte, k) => code[i + k] === byte)) + map.length + 1;
  const place = row.modrm ? (code[at] >= 0xc0 ? 'register' : 'memory') : '';
  return `${bits} ${row.map} ${row.opcode} ${row.digit} ${row.prefix} ${row.operands.join()} ${size} ${place}`;
}

/** '' when the results are equal. */
function runCase(machine: BareMachine, one: Uint8Array, expected: Uint8Array, row: Row, bits: Bits): string {
  const { cpu, ram } = machine;
  const { state } = cpu;
  const at = cpu.layout.state;
  const input = new DataView(one.buffer, one.byteOffset);
  const placed = placeCode(machine, one, bits);
  cpu.code.invalidate(ram.byteOffset + DATA);
  ram.set(one.subarray(WINDOW_AT, WINDOW_AT + WINDOW), DATA);
  for (const edge of EDGES) ram.fill(0, edge, edge + EDGE);
  state.bytes.set(one.subarray(24, 24 + 128), at);
  state.rflags = input.getUint32(24 + 128, true);
  state.set(MXCSR, input.getUint32(24 + 136, true));
  state.bytes.set(one.subarray(24 + 144, 24 + 400), at + XMM);
  loadFpu(machine, input);
  state.setPair(LINEAR_RIP, placed.start, 0);
  const why = cpu.run(1000);
  const view = new DataView(expected.buffer, expected.byteOffset);
  const vector = Number(view.getBigInt64(RESULT_BYTES - 16, true));
  const exit = placed.exits[view.getInt32(RESULT_BYTES - 8, true) ? 1 : 0] + 1;
  if (why === EXIT_EXCEPTION) {
    if (vector !== cpu.intercepted.vector) return `vector ${cpu.intercepted.vector}, expected ${vector}${inputs(one)}`;
    const [ip, theirIp] = [state.get(LINEAR_RIP) - (bits === 16 ? state.get(CS_BASE) : 0), view.getUint32(140, true)];
    if (ip !== theirIp) return `faults at ${ip.toString(16)}, expected ${theirIp.toString(16)}`;
  } else if (why !== EXIT_HALT) {
    return `exit ${why} ${cpu.unsupported}`;
  } else if (vector !== -1) {
    return `no fault, expected vector ${vector}${inputs(one)}`;
  } else if (state.get(LINEAR_RIP) !== exit) {
    return `ends at ${state.get(LINEAR_RIP).toString(16)}, expected ${exit.toString(16)}`;
  }
  for (let i = 0; i < (bits === 64 ? 16 : 8); i++) {
    const ours = BigInt.asUintN(bits === 64 ? 64 : 32, state.big(i * 8));
    const theirs = BigInt.asUintN(bits === 64 ? 64 : 32, view.getBigUint64(i * 8, true));
    if (ours !== theirs) return `${NAMES[i]} ${ours.toString(16)}, expected ${theirs.toString(16)}${inputs(one)}`;
  }
  const mask = 0xcd5 & ~(vector >= 0 ? 0 : undefinedFlags(row));
  const flags = state.rflags & mask;
  const theirFlags = view.getUint32(128, true) & mask;
  if (flags !== theirFlags) return `flags ${flags.toString(16)}, expected ${theirFlags.toString(16)}${inputs(one)}`;
  const mxcsr = view.getUint32(136, true);
  if (state.get(MXCSR) !== mxcsr) {
    const before = input.getUint32(24 + 136, true);
    return `mxcsr ${state.get(MXCSR).toString(16)}, expected ${mxcsr.toString(16)}, was ${before.toString(16)} ${operands(one)}`;
  }
  for (let i = 0; i < (bits === 64 ? 256 : 128); i++) {
    if (state.bytes[at + XMM + i] !== expected[144 + i]) {
      const from = (i >> 4) * 16;
      const hex = (b: Uint8Array, o: number) => Buffer.from(b.subarray(o, o + 16)).toString('hex');
      return `xmm${i >> 4} ${hex(state.bytes, at + XMM + from)}, expected ${hex(expected, 144 + from)}, was ${hex(one, 168 + from)}`;
    }
  }
  for (let i = 0; i < WINDOW; i++) {
    if (ram[DATA + i] !== expected[400 + i]) return `memory at ${i}: ${ram[DATA + i]}, expected ${expected[400 + i]}`;
  }
  for (const [i, edge] of EDGES.entries()) {
    const theirs = expected.subarray(RESULT_EDGES_AT + i * EDGE, RESULT_EDGES_AT + (i + 1) * EDGE);
    const differs = theirs.findIndex((byte, k) => byte !== ram[edge + k]);
    if (differs >= 0) return `memory at an end of the stack segment: ${ram[edge + differs]}, expected ${theirs[differs]}`;
  }
  if (vector >= 0 && loadsEnvironment(row, one)) return '';
  return compareFpu(machine, row, one, view);
}

/** Writes code and HLT at both exits; linear addresses of all three. */
function placeCode(machine: BareMachine, one: Uint8Array, bits: Bits): { start: number; exits: readonly number[] } {
  const { cpu, ram } = machine;
  const length = one[16];
  let [base, ip, mask] = [0, CODE, -1];
  if (bits === 16) {
    useSegments(machine, one[21]);
    [base, ip, mask] = [CODE_SEGMENTS[one[21] & 3], one[22] | (one[23] << 8), 0xffff];
  }
  const place = (distance: number, byte: number): number => {
    const linear = base + ((ip + distance) & mask);
    cpu.code.invalidate(ram.byteOffset + (linear & ~4095));
    ram[linear] = byte;
    return linear;
  };
  for (let i = 0; i < length; i++) place(i, one[i]);
  return { start: base + ip, exits: [length, length + JUMP].map((distance) => place(distance, HLT)) };
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

function inputs(one: Uint8Array): string {
  const view = new DataView(one.buffer, one.byteOffset);
  const registers = NAMES.slice(0, 8).map((name, i) => `${name}=${view.getBigUint64(24 + i * 8, true).toString(16)}`);
  return ` (${registers.join(' ')} flags=${view.getUint32(24 + 128, true).toString(16)})`;
}
