/**
 * Random single instructions for comparisons with a real CPU: every row of the instruction table that a program may
 * execute, with random prefixes, operands and register contents. Memory operands lie in a window of 256 bytes.
 */
import { INSTRUCTION_TABLE } from '../src/cpu/table/table.ts';
import type { Row } from '../src/cpu/table/row.ts';

export const CODE = 0x700000;
export const DATA = 0x800000;
export const WINDOW = 256;
export const CASE_BYTES = 16 + 8 + 400 + WINDOW;
export const RESULT_BYTES = 400 + WINDOW + 16;

/** A small generator, the same everywhere. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 1) >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
  below(n: number): number {
    return this.next() % n;
  }
  chance(n: number): boolean {
    return this.next() % n === 0;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

/** Rows that a harness in user mode can run: no jumps, nothing of the system. */
export const USER_ROWS = INSTRUCTION_TABLE.filter((row) => {
  if (row.flags.has('f64') || row.flags.has('end') || row.flags.has('i64')) return false;
  if (row.flags.has('inexact')) return false;
  if (row.operands.some((t) => t[0] === 'J' || t[0] === 'O')) return false;
  if (typeof row.semantics === 'string') return ['cmpxchg16b', 'enter', 'stmxcsr'].includes(row.semantics);
  return !['popf', 'xlat'].includes(row.name);
});

export interface Case {
  readonly row: Row;
  readonly code: Uint8Array;
  readonly length: number;
}

const INTERESTING = [0n, 1n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0x8000n, 0x7fffffffn, 0x80000000n, 0xffffffffn, -1n, 1n << 63n];

function value(random: Random): bigint {
  const kind = random.below(4);
  if (kind === 0) return BigInt.asUintN(64, random.pick(INTERESTING));
  if (kind === 1) return BigInt(random.below(256));
  return (BigInt(random.next()) << 32n) | BigInt(random.next());
}

/** Doubles and floats that matter, among random bits. */
function lane(random: Random, view: DataView, at: number): void {
  const kind = random.below(6);
  const specials = [0, -0, 1, -1, 0.5, 1.5, 2.5, 1e10, -1e10, 1e-310, 5e-324, -2.5e-308, 2 ** -1022, 1e-40, 2 ** -126, 1.7e308, 3e38, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 3e9, -3e9, 1e19, 123.456];
  if (kind === 0) {
    view.setFloat64(at, random.pick(specials), true);
  } else if (kind === 1) {
    view.setFloat32(at, random.pick(specials), true);
    view.setFloat32(at + 4, random.pick(specials), true);
  } else if (kind === 2) {
    view.setFloat64(at, (random.next() - 2147483648) / 1000, true);
  } else {
    view.setBigUint64(at, value(random), true);
  }
}

/** MXCSR: mostly as it is by default, but also other rounding, flags that are set, exceptions that aren't masked. */
function controlWord(random: Random): number {
  const kind = random.below(4);
  if (kind === 0) return 0x1f80;
  if (kind === 1) return 0x1fa0;
  const masks = random.chance(4) ? random.below(64) << 7 : 0x1f80;
  return masks | random.below(64) | (random.below(4) << 13) | (random.chance(3) ? 0x40 : 0) | (random.chance(3) ? 0x8000 : 0);
}

/** Writes one case; `out` has CASE_BYTES at `at`. */
export function writeCase(random: Random, row: Row, out: Uint8Array, at: number): void {
  const view = new DataView(out.buffer, out.byteOffset + at, CASE_BYTES);
  const gpr = 24;
  for (let i = 0; i < 16; i++) view.setBigUint64(gpr + i * 8, value(random), true);
  view.setBigUint64(gpr + 32, BigInt(DATA + 128), true);
  view.setBigUint64(gpr + 128, BigInt((random.next() & 0x8d5) | 0x202 | (random.chance(4) ? 0x400 : 0)), true);
  view.setUint32(gpr + 136, row.flags.has('float') ? controlWord(random) : 0x1f80, true);
  for (let i = 0; i < 32; i++) lane(random, view, gpr + 144 + i * 8);
  for (let i = 0; i < WINDOW; i += 8) lane(random, view, 424 + i);
  const bytes = encode(random, row, view, gpr);
  out.set(bytes, at);
  view.setBigUint64(16, BigInt(bytes.length), true);
  if (/movs|stos|lods|cmps|scas/.test(row.name) && !row.modrm) {
    view.setBigUint64(gpr + 48, BigInt(DATA + 96 + random.below(32)), true);
    view.setBigUint64(gpr + 56, BigInt(DATA + 96 + random.below(32)), true);
    view.setBigUint64(gpr + 8, BigInt(random.below(9)), true);
  }
  if (row.name === 'leave' || row.name === 'enter') view.setBigUint64(gpr + 40, BigInt(DATA + 64), true);
}

function encode(random: Random, row: Row, view: DataView, gpr: number): number[] {
  const prefixes: number[] = [];
  const sized = row.operands.some((t) => 'vyz'.includes(t.at(-1) ?? ''));
  if (row.prefix === '66' || (sized && row.prefix !== 'np' && random.chance(3))) prefixes.push(0x66);
  if (row.prefix === 'f2') prefixes.push(0xf2);
  if (row.prefix === 'f3') prefixes.push(0xf3);
  let rex = random.chance(2) ? 0x40 | random.below(16) : 0;
  if (row.flags.has('w1')) rex |= 0x48;
  if (row.flags.has('w0')) rex &= ~8;
  if (row.opcode === 0x90 && row.map === 0) rex = row.name === 'nop' ? rex & ~1 : rex | 0x41;
  const escape = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][row.map];
  const tail: number[] = [];
  let memory = false;
  if (row.modrm) {
    const reg = row.digit >= 0 ? row.digit : random.below(8);
    const token = row.operands.find((t) => 'EWQM'.includes(t[0]));
    memory = row.form === 'mem' || token?.[0] === 'M' || (row.form !== 'reg' && random.chance(2));
    if (!memory) {
      tail.push(0xc0 | (reg << 3) | (row.rm >= 0 ? row.rm : random.below(8)));
    } else {
      tail.push(...memoryOperand(random, row, reg, rex, view, gpr));
    }
  }
  if (memory && row.flags.has('lock') && random.chance(4)) prefixes.unshift(0xf0);
  for (const token of row.operands) {
    if (token[0] !== 'I') continue;
    const wide = (rex & 8) !== 0;
    const half = prefixes.includes(0x66) && !wide;
    const first = row.operands[0];
    const byte = ['Ib', 'Is', 'Isv'].includes(token) || (token === 'I' && first.endsWith('b'));
    const count = byte ? 1 : token === 'Iw' ? 2 : token === 'Ie' ? 3 : token === 'Iv' && wide ? 8 : half ? 2 : 4;
    for (let i = 0; i < count; i++) tail.push(random.chance(3) ? random.pick([0, 1, 0xff, 0x80, 0x7f]) : random.below(256));
    if (token === 'Ie') tail.splice(-3, 3, random.below(16) * 8, 0, random.below(4));
  }
  return [...prefixes, ...(rex ? [rex] : []), ...escape, row.opcode, ...tail];
}

/** [base + disp8], [base + index * scale + disp8], or [rip + disp32], the base pointing into the window. */
function memoryOperand(random: Random, row: Row, reg: number, rex: number, view: DataView, gpr: number): number[] {
  const aligned = row.flags.has('aligned') || row.name === 'cmpxchg16b';
  const place = aligned && !random.chance(8) ? DATA + 16 * random.below(12) : DATA + 64 + random.below(100);
  if (!(rex & 2) && random.chance(6)) {
    // An absolute address.
    return [(reg << 3) | 4, 0x25, place & 255, (place >> 8) & 255, (place >> 16) & 255, (place >> 24) & 255];
  }
  const displacement = random.below(64) - 32;
  let base = random.below(8);
  if (base === 4) base = 3;
  const baseNumber = base | (rex & 1 ? 8 : 0);
  if (random.chance(2)) {
    view.setBigUint64(gpr + baseNumber * 8, BigInt(place - displacement), true);
    if (base === 4) return [];
    fixBitOffset(random, row, reg, rex, view, gpr, baseNumber);
    return [0x40 | (reg << 3) | base, displacement & 255];
  }
  let index = random.below(8);
  if (index === 4 && !(rex & 2)) index = 5;
  const indexNumber = index | (rex & 2 ? 8 : 0);
  if (indexNumber === baseNumber || indexNumber === 4) {
    view.setBigUint64(gpr + baseNumber * 8, BigInt(place - displacement), true);
    fixBitOffset(random, row, reg, rex, view, gpr, baseNumber);
    return [0x40 | (reg << 3) | base, displacement & 255];
  }
  const scale = random.below(4);
  const distance = random.below(8);
  view.setBigUint64(gpr + indexNumber * 8, BigInt(distance), true);
  view.setBigUint64(gpr + baseNumber * 8, BigInt(place - displacement - (distance << scale)), true);
  fixBitOffset(random, row, reg, rex, view, gpr, baseNumber, indexNumber);
  return [0x44 | (reg << 3), (scale << 6) | (index << 3) | base, displacement & 255];
}

/** BT with a register reaches far: keep its bit number small, unless the register makes the address. */
function fixBitOffset(
  random: Random,
  row: Row,
  reg: number,
  rex: number,
  view: DataView,
  gpr: number,
  ...taken: readonly number[]
): void {
  if (!/^bt[src]?$/.test(row.name) || row.digit >= 0) return;
  const number = reg | (rex & 4 ? 8 : 0);
  if (!taken.includes(number)) view.setBigInt64(gpr + number * 8, BigInt(random.below(400) - 200), true);
}

/** SHLD and SHRD of 16 bits by more than 16: the result is undefined. */
export function isUndefined(row: Row, one: Uint8Array): boolean {
  if (!/^sh[lr]d$/.test(row.name)) return false;
  const length = one[16];
  const half = one.subarray(0, length).indexOf(0x66) >= 0 && one.subarray(0, length).indexOf(0x66) < one.subarray(0, length).indexOf(0x0f);
  const count = row.operands[2] === 'C' ? one[24 + 8] : one[length - 1];
  return half && (count & 31) > 16;
}

/** Flags that an instruction leaves undefined. */
export function undefinedFlags(row: Row): number {
  const OF = 0x800;
  const AF = 0x10;
  const SZP = 0xc4;
  if (/^(mul|imul)/.test(row.name)) return SZP | AF;
  if (/^i?div/.test(row.name)) return 0x8d5;
  if (/^(and|or|xor|test)$/.test(row.name)) return AF;
  if (/^(shl|shr|sar|shld|shrd)$/.test(row.name)) return OF | AF | (/^sh[lr]d$/.test(row.name) ? 1 | SZP : 1);
  if (/^(rol|ror|rcl|rcr)$/.test(row.name)) return OF;
  if (row.name.startsWith('bt')) return OF | SZP & ~0x40 | AF;
  if (/^bs[fr]/.test(row.name)) return 0x8d5 & ~0x40;
  if (/^[lt]zcnt$/.test(row.name)) return 0x894;
  return 0;
}
