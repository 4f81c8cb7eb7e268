/**
 * Compares our CPU with the machine's own on random instructions: `compare(native, seed, count)`. Needs the harness that
 * gcc builds from `native.c`.
 */
import { spawnSync } from 'node:child_process';
import { EXIT_EXCEPTION, EXIT_HALT } from '../src/cpu/bus.ts';
import { FLAGS, LINEAR_RIP, MXCSR, XMM } from '../src/cpu/state.ts';
import { type BareMachine, bareMachine } from '../src/cpu/testing/bare-machine.ts';
import type { Row } from '../src/cpu/table/row.ts';
import { CASE_BYTES, CODE, DATA, isUndefined, Random, RESULT_BYTES, undefinedFlags, USER_ROWS, WINDOW, writeCase } from './cases.ts';

export interface Mismatch {
  readonly row: Row;
  readonly code: string;
  readonly what: string;
}

export interface Outcome {
  readonly compared: number;
  readonly forms: number;
  readonly mismatches: Mismatch[];
}

export function compare(native: string, seed: number, count: number, filter?: (row: Row) => boolean): Outcome {
  const rows = filter ? USER_ROWS.filter(filter) : USER_ROWS;
  const machine = bareMachine(16, 0);
  machine.cpu.interceptExceptions = -1;
  // What the harness has mapped, and nothing else.
  for (let page = 0; page < 4096; page++) {
    const address = page << 12;
    const data = address >= DATA - 0x10000 && address < DATA + 0x10000;
    if (!data && address !== CODE) machine.bus.absent.add(page);
  }
  const mismatches: Mismatch[] = [];
  const seen = new Set<string>();
  const batch = 5000;
  for (let done = 0; done < count; done += batch) {
    const size = Math.min(batch, count - done);
    const random = new Random(seed + done);
    const cases = new Uint8Array(size * CASE_BYTES);
    const chosen: Row[] = [];
    for (let i = 0; i < size; i++) {
      const row = rows[(done + i) % rows.length];
      chosen.push(row);
      writeCase(random, row, cases, i * CASE_BYTES);
    }
    const run = spawnSync(native, { input: cases, maxBuffer: 1 << 30 });
    if (run.stdout.length !== size * RESULT_BYTES) throw new Error(`the harness stopped: ${run.signal} ${run.stderr}`);
    for (let i = 0; i < size; i++) {
      const one = cases.subarray(i * CASE_BYTES, (i + 1) * CASE_BYTES);
      const expected = run.stdout.subarray(i * RESULT_BYTES, (i + 1) * RESULT_BYTES);
      const what = runCase(machine, one, expected, chosen[i]);
      const length = one[16];
      const code = Buffer.from(one.subarray(0, length)).toString('hex');
      seen.add(`${chosen[i].name} ${chosen[i].operands.join()}`);
      if (what && !isUndefined(chosen[i], one)) mismatches.push({ row: chosen[i], code, what });
    }
  }
  return { compared: count, forms: seen.size, mismatches };
}

/** '' when the results are equal. */
function runCase(machine: BareMachine, one: Uint8Array, expected: Uint8Array, row: Row): string {
  const { cpu, ram } = machine;
  const { state } = cpu;
  const at = cpu.layout.state;
  const length = one[16];
  cpu.code.invalidate(ram.byteOffset + CODE);
  ram.set(one.subarray(0, length), CODE);
  ram[CODE + length] = 0xf4;
  cpu.code.invalidate(ram.byteOffset + DATA);
  ram.set(one.subarray(424, 424 + WINDOW), DATA);
  state.bytes.set(one.subarray(24, 24 + 128), at);
  const input = new DataView(one.buffer, one.byteOffset);
  state.rflags = input.getUint32(24 + 128, true);
  state.set(MXCSR, input.getUint32(24 + 136, true));
  state.bytes.set(one.subarray(24 + 144, 24 + 400), at + XMM);
  state.setPair(LINEAR_RIP, CODE, 0);
  const why = cpu.run(1000);
  const view = new DataView(expected.buffer, expected.byteOffset);
  const vector = Number(view.getBigInt64(400 + WINDOW, true));
  if (why === EXIT_EXCEPTION) {
    if (vector !== cpu.intercepted.vector) return `vector ${cpu.intercepted.vector}, expected ${vector}`;
  } else if (why !== EXIT_HALT) {
    return `exit ${why} ${cpu.unsupported}`;
  } else if (vector !== -1) {
    return `no fault, expected vector ${vector}`;
  } else if (state.get(LINEAR_RIP) !== CODE + length + 1) {
    return `ends at ${state.get(LINEAR_RIP).toString(16)}, length ${length}`;
  }
  const names = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
  for (let i = 0; i < 16; i++) {
    const ours = state.big(i * 8);
    const theirs = view.getBigUint64(i * 8, true);
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
  for (let i = 0; i < 256; i++) {
    if (state.bytes[at + XMM + i] !== expected[144 + i]) {
      const from = (i >> 4) * 16;
      const hex = (b: Uint8Array, o: number) => Buffer.from(b.subarray(o, o + 16)).toString('hex');
      return `xmm${i >> 4} ${hex(state.bytes, at + XMM + from)}, expected ${hex(expected, 144 + from)}, was ${hex(one, 168 + from)}`;
    }
  }
  for (let i = 0; i < WINDOW; i++) {
    if (ram[DATA + i] !== expected[400 + i]) return `memory at ${i}: ${ram[DATA + i]}, expected ${expected[400 + i]}`;
  }
  return '';
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

void FLAGS;
