/** Random encodings of a row of the instruction table, with the register contents that make their addresses good. */
import type { Row } from '../src/cpu/table/row.ts';
import { CS, DS, SS } from '../src/cpu/state.ts';
import type { Random } from './random.ts';
import * as segmented from './segmented.ts';
import { DATA } from './segmented.ts';

export const CODE = 0x700000;
export const WINDOW = 256;
/** How far behind the instruction a taken jump leads. */
export const JUMP = 16;

/** Places in a case. */
export const GPR_AT = 24;
export const WINDOW_AT = 424;

/** Of the mode that the code is for. */
export type Bits = 16 | 32 | 64;

const RCX = 1;
const RSP = 4;

const ALL = [0, 1, 2, 3, 4, 5, 6, 7];
/** Digits of ModRM with memory, by opcode: without stores of environments, which have addresses. */
const X87_MEMORY = [ALL, [0, 2, 3, 4, 5, 7], ALL, [0, 1, 2, 3, 5, 7], ALL, [0, 1, 2, 3, 4, 7], ALL, ALL];
const FBLD = 4;
/** ModRM with registers: from, to. */
const X87_REGISTERS: readonly (readonly [number, number][])[] = [
  [[0xc0, 0x100]],
  [[0xc0, 0xd1], [0xe0, 0xe2], [0xe4, 0xe6], [0xe8, 0xef], [0xf0, 0x100]],
  [[0xc0, 0xe0], [0xe9, 0xea]],
  [[0xc0, 0xe0], [0xe2, 0xe4], [0xe8, 0xf8]],
  [[0xc0, 0xd0], [0xe0, 0x100]],
  [[0xc0, 0xc8], [0xd0, 0xf0]],
  [[0xc0, 0xd0], [0xd9, 0xda], [0xe0, 0x100]],
  [[0xe0, 0xe1], [0xe8, 0xf8]],
];

export class Encoding {
  readonly #random: Random;
  readonly #row: Row;
  readonly #view: DataView;
  readonly #bits: Bits;
  /** Not 64-bit code. */
  readonly #narrow: boolean;
  readonly #jump: number;
  #rex = 0;
  #vvvv = 0;
  /** Of its addresses. */
  #addressBytes = 8;
  /** The segment that a prefix of 16-bit code names, or -1. */
  #override = -1;
  /** The segments of 16-bit code, as `segmented.ts` has them; 0 otherwise. With 32-bit code among them that is what it is. */
  readonly segments: number;
  readonly #defaultBytes: number;
  /** Where the instruction is: its offset in the code segment. */
  ip = CODE;
  /** Where a jump's target has to be written once the length is known: a register's number, or an address. */
  #targetRegister = -1;
  #targetAddress = 0;

  constructor(random: Random, row: Row, view: DataView, bits: Bits, segments: number) {
    this.#random = random;
    this.#row = row;
    this.#view = view;
    this.#bits = bits;
    this.#narrow = bits !== 64;
    this.segments = segments;
    this.#defaultBytes = segmented.isCode32(segments) ? 4 : bits / 8;
    this.#jump = random.chance(2) ? JUMP : 0;
  }

  #set(register: number, value: bigint): void {
    this.#view.setBigUint64(GPR_AT + register * 8, BigInt.asUintN(64, value), true);
  }

  bytes(): number[] {
    const bytes = this.#row.vex ? this.#behindVex() : this.#legacy();
    if (this.#bits === 16) this.ip = this.#atEnd ? segmented.LAST_END - bytes.length : segmented.USUAL_IP;
    const end = this.ip + bytes.length + this.#jump;
    this.#aim(BigInt(this.#bits === 16 ? end & 0xffff : end));
    return bytes;
  }

  get #atEnd(): boolean {
    return (this.segments & 3) === segmented.AT_END;
  }

  /** The effective segment of an operand that isn't on the stack by default. */
  get sourceSegment(): number {
    return this.#override >= 0 ? this.#override : DS;
  }

  get addressBytes(): number {
    return this.#addressBytes;
  }

  /** Segment prefixes; and the address size, which the prefix returned changes. */
  #addressPrefixes(): number[] {
    const random = this.#random;
    const bits = this.#bits;
    const prefixes: number[] = [];
    if (random.chance(8)) {
      if (bits === 16) {
        const [segment, prefix] = random.pick(segmented.OVERRIDES.slice(0, this.#atEnd ? 4 : 5));
        this.#override = segment;
        prefixes.push(prefix);
      } else {
        prefixes.push(random.pick(bits === 32 ? [0x3e, 0x26, 0x36] : [0x3e, 0x26, 0x2e, 0x36]));
      }
    }
    this.#addressBytes = this.#defaultBytes;
    if (bits === 32 || !random.chance(bits === 16 ? 3 : 6)) return prefixes;
    this.#addressBytes = this.#defaultBytes === 4 ? 2 : 4;
    return [0x67, ...prefixes];
  }

  #legacy(): number[] {
    const random = this.#random;
    const row = this.#row;
    const branch = row.flags.has('f64');
    const prefixes: number[] = [];
    const sized = row.operands.some((t) => 'vyz'.includes(t.at(-1) ?? '')) && (!branch || this.#bits === 16);
    if (row.prefix === '66' || (sized && row.prefix !== 'np' && random.chance(3))) prefixes.push(0x66);
    if (row.prefix === 'f2') prefixes.push(0xf2);
    if (row.prefix === 'f3') prefixes.push(0xf3);
    // Elsewhere they mean nothing.
    if (row.prefix === '' && row.map === 0 && !/^(rep|movs|stos|lods|cmps|scas)/.test(row.name) && row.opcode !== 0x90 && (row.opcode | 1) !== 0xe1 && random.chance(16)) {
      prefixes.push(random.pick([0xf2, 0xf3]));
    }
    prefixes.unshift(...this.#addressPrefixes());
    if (!this.#narrow) this.#rex = random.chance(2) ? 0x40 | random.below(16) : 0;
    if (row.flags.has('w1')) this.#rex |= 0x48;
    if (row.flags.has('w0')) this.#rex &= ~8;
    if (row.opcode === 0x90 && row.map === 0) this.#rex = row.name === 'nop' ? this.#rex & ~1 : this.#rex | 0x41;
    if (row.opcode === 0x90 && row.map === 0 && this.#narrow) this.#rex = 0;
    const escape = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]][row.map];
    const tail: number[] = [];
    const memory = row.modrm && this.#modrm(tail);
    if (memory && row.flags.has('lock') ? random.chance(4) : random.chance(40)) prefixes.unshift(0xf0);
    this.#rest(tail, prefixes.includes(0x66) !== (this.#defaultBytes === 2));
    return [...prefixes, ...(this.#rex ? [this.#rex] : []), ...escape, row.opcode, ...tail];
  }

  /** Segment, address size, VEX in three bytes. One in twelve is spoilt, and must be #UD. */
  #behindVex(): number[] {
    const random = this.#random;
    const row = this.#row;
    const narrow = this.#narrow;
    const used = row.operands.some((token) => token[0] === 'B');
    const spoilt = random.chance(12) ? random.below(4) : -1;
    this.#rex = narrow ? 0 : random.below(16);
    this.#vvvv = used || spoilt === 0 ? random.below(16) : 0;
    const before = this.#addressPrefixes();
    if (/^(bextr|bzhi)$/.test(row.name)) this.#fieldControl();
    const tail: number[] = [];
    this.#modrm(tail);
    this.#rest(tail, false);
    // Outside of 64-bit mode B and W mean nothing, R and X tell VEX from LES.
    const bits = narrow ? random.pick([0, 1, 8, 9]) : this.#rex;
    const map = spoilt === 1 ? random.pick([0, 4, 31]) : row.map;
    const length = spoilt === 2 ? 4 : 0;
    const vex = [0xc4, ((bits & 7) << 5) ^ 0xe0 | map, ((bits & 8) << 4) | ((this.#vvvv ^ 15) << 3) | length | ['np', '66', 'f3', 'f2'].indexOf(row.prefix)];
    if (spoilt === 3) before.push(random.pick([0x66, 0xf0, 0xf2, 0xf3, ...(narrow ? [] : [0x40, 0x48])]));
    return [...before, ...vex, row.opcode, ...tail];
  }

  /** Starts, lengths and indexes that are mostly in the operand; the register may still become an address. */
  #fieldControl(): void {
    const random = this.#random;
    const above = random.chance(2) ? random.value() << 16n : 0n;
    this.#set(this.#narrow ? this.#vvvv & 7 : this.#vvvv, BigInt(random.below(72) | (random.below(72) << 8)) | above);
  }

  /** ModRM and what belongs to it; true when it is memory. */
  #modrm(tail: number[]): boolean {
    const random = this.#random;
    const row = this.#row;
    if (row.operands.includes('F')) return this.#x87(tail);
    const reg = row.digit >= 0 ? row.digit : random.below(8);
    const token = row.operands.find((t) => 'EWQM'.includes(t[0]));
    const memory = row.form === 'mem' || token?.[0] === 'M' || (row.form !== 'reg' && random.chance(2));
    if (memory) {
      tail.push(...this.#memoryOperand(reg));
      return true;
    }
    let rm = row.rm >= 0 ? row.rm : random.below(8);
    if (row.flags.has('f64') && rm === RSP) rm = 0;
    if (row.flags.has('f64')) this.#targetRegister = rm | (this.#rex & 1 ? 8 : 0);
    tail.push(0xc0 | (reg << 3) | rm);
    return false;
  }

  /** Forms of x87 that keep no addresses. */
  #x87(tail: number[]): boolean {
    const random = this.#random;
    const group = this.#row.opcode & 7;
    if (random.chance(2)) {
      const digit = random.pick(X87_MEMORY[group]);
      if (group === 7 && digit === FBLD) this.#fillWithDecimals();
      tail.push(...this.#memoryOperand(digit));
      return true;
    }
    const [from, to] = random.pick(X87_REGISTERS[group]);
    tail.push(from + random.below(to - from));
    return false;
  }

  /** What FBLD makes of anything else is undefined. */
  #fillWithDecimals(): void {
    for (let i = 0; i < WINDOW; i++) {
      this.#view.setUint8(WINDOW_AT + i, (this.#random.below(10) << 4) | this.#random.below(10));
    }
  }

  /** Immediates, jumps, absolute addresses. */
  #rest(tail: number[], half: boolean): void {
    const random = this.#random;
    const row = this.#row;
    const wide = (this.#rex & 8) !== 0;
    for (const token of row.operands) {
      if (token[0] === 'J') {
        tail.push(this.#jump);
        if (token !== 'Jb') tail.push(...(half && this.#bits === 16 ? [0] : [0, 0, 0]));
      } else if (token[0] === 'O') {
        const place = this.#offset(DATA + 64 + random.below(100), DS);
        for (let i = 0; i < this.#addressBytes; i++) tail.push(i < 4 ? (place >>> (i * 8)) & 255 : 0);
      } else if (token[0] === 'I') {
        const first = row.operands[0];
        const byte = ['Ib', 'Is', 'Isv'].includes(token) || (token === 'I' && first.endsWith('b'));
        const small = half && !wide;
        const count = byte ? 1 : token === 'Iw' ? 2 : token === 'Ie' ? 3 : token === 'Iv' && wide ? 8 : small ? 2 : 4;
        for (let i = 0; i < count; i++) tail.push(random.chance(3) ? random.pick([0, 1, 0xff, 0x80, 0x7f]) : random.below(256));
        if (token === 'Ie') tail.splice(-3, 3, random.below(16) * 8, 0, random.below(4));
      }
    }
  }

  #aim(target: bigint): void {
    const row = this.#row;
    if (this.#targetRegister >= 0) this.#set(this.#targetRegister, target);
    if (this.#targetAddress !== 0) this.#view.setBigUint64(WINDOW_AT + this.#targetAddress - DATA, target, true);
    if (/^retn?$/.test(row.name)) this.#view.setBigUint64(WINDOW_AT + 128, target, true);
    if (/^loop|^jrcxz/.test(row.name)) this.#set(RCX, BigInt(this.#random.below(3)) | (this.#addressBytes === 2 ? this.#random.value() << 16n : 0n));
  }

  /** Of a linear address in the effective segment. */
  #offset(linear: number, byDefault: number): number {
    if (this.#bits !== 16) return linear;
    return segmented.offsetIn(this.#override >= 0 ? this.#override : byDefault, linear);
  }

  /**
   * Mostly in the window, sometimes near the end of the effective segment or anywhere: not where a jump's target is, nor where what is
   * undefined would stay in memory that isn't compared.
   */
  #operand16(reg: number, place: number): number[] {
    const random = this.#random;
    const plain = this.#row.flags.has('f64') || /^sh[lr]d$/.test(this.#row.name);
    const atEnd = !plain && random.chance(16);
    const { bytes, registers } = segmented.address16(random, reg, place, this.#override, atEnd);
    if (!plain && this.#override !== CS && random.chance(12)) return [...bytes];
    for (const [register, low] of registers) this.#set(register, (random.value() << 16n) | BigInt(low));
    this.#nearBit(reg, ...registers.map(([register]) => register));
    return [...bytes];
  }

  /** [base + disp8], [base + index * scale + disp8], or an absolute address, in the window. */
  #memoryOperand(reg: number): number[] {
    const random = this.#random;
    const row = this.#row;
    const rex = this.#rex;
    const aligned = row.flags.has('aligned') || row.name === 'cmpxchg16b';
    const place = aligned && !random.chance(8) ? DATA + 16 * random.below(12) : DATA + 64 + random.below(100);
    if (row.flags.has('f64')) this.#targetAddress = place;
    if (this.#addressBytes === 2) return this.#operand16(reg, place);
    // What 32 bits of address don't see.
    const above = this.#bits === 64 && this.#addressBytes === 4 ? BigInt(random.below(1 << 30)) << 32n : 0n;
    if (!(rex & 2) && random.chance(6)) {
      const at = this.#offset(place, DS);
      return [(reg << 3) | 4, 0x25, at & 255, (at >> 8) & 255, (at >> 16) & 255, (at >> 24) & 255];
    }
    if (this.#bits === 16 && !row.flags.has('f64') && random.chance(10)) return [...segmented.onStack(random, reg)];
    const displacement = random.below(64) - 32;
    let base = random.below(8);
    if (base === 4) base = 3;
    const baseNumber = base | (rex & 1 ? 8 : 0);
    const at = this.#offset(place, base === 5 ? SS : DS);
    let index = random.below(8);
    if (index === 4 && !(rex & 2)) index = 5;
    const indexNumber = index | (rex & 2 ? 8 : 0);
    if (random.chance(2) || indexNumber === baseNumber || indexNumber === 4) {
      this.#set(baseNumber, BigInt(at - displacement) | above);
      this.#nearBit(reg, baseNumber);
      return [0x40 | (reg << 3) | base, displacement & 255];
    }
    const scale = random.below(4);
    const distance = random.below(8);
    this.#set(indexNumber, BigInt(distance) | above);
    this.#set(baseNumber, BigInt(at - displacement - (distance << scale)) | above);
    this.#nearBit(reg, baseNumber, indexNumber);
    return [0x44 | (reg << 3), (scale << 6) | (index << 3) | base, displacement & 255];
  }

  /** BT with a register reaches far: keep its bit number small, unless the register makes the address. */
  #nearBit(reg: number, ...taken: readonly number[]): void {
    const row = this.#row;
    if (!/^bt[src]?$/.test(row.name) || row.digit >= 0) return;
    const number = reg | (this.#rex & 4 ? 8 : 0);
    if (!taken.includes(number)) this.#set(number, BigInt(this.#random.below(400) - 200));
  }
}
