/**
 * Bytes to records. Works on any bytes: a page of memory, or a copy when an instruction crosses into the next page.
 */
import { AddressForm } from './address-form.ts';
import { ByteReader } from './byte-reader.ts';
import { ALL_INSTRUCTIONS } from './features.ts';
import { type DecodedRow, H_HELPER, tokenBytes, VARIANT_KINDS } from './forms.ts';
import {
  META_MEMORY,
  META_REP,
  META_REPNE,
  META_STACK,
  META_WIDE,
  R_ADDRESS_SHIFT,
  R_BASE,
  R_DISPLACEMENT,
  R_HANDLER,
  R_IMMEDIATE,
  R_INDEX,
  R_META,
  R_NEXT,
  R_OFFSET,
  R_OPERAND,
  R_SCALE,
  R_SEGMENT,
  R_SUB,
} from './record.ts';
import { CS, CS_DATA_BASE, DS, FS, RAX, RCX, RDX, SEGMENT_BASE, SS, ZERO } from './state.ts';

export const MODE_16 = 0;
export const MODE_32 = 1;
export const MODE_64 = 2;
/** The first two where segments are addresses (real mode, virtual-8086 mode): there is no VEX. */
export const MODE_REAL = 3;
export const MODES = 5;

/**
 * What CR0 and CR4 leave of MMX and SSE is a part of the mode that instructions are decoded in (`mode + MODES * level`): so
 * the check costs nothing where they are available.
 */
export const FPU_ALL = 0;
/** CR4.OSFXSR is clear. */
export const FPU_NO_SSE = 1;
/** CR0 has EM or TS. */
export const FPU_OFF = 2;
export const DECODE_MODES = MODES * 3;

/** More bytes than there were. */
export const NEED_MORE = -1;
/** Longer than 15 bytes: #GP. */
export const TOO_LONG = -2;
const LONGEST = 15;

const PREFIX_66 = 1;
const PREFIX_F3 = 2;
const PREFIX_F2 = 4;
const PREFIX_LOCK = 8;

/** Maps of opcodes: the legacy ones, those behind VEX with L = 0, those with L = 1. Its map 0 is nobody's. */
const VEX_MAPS = 4;
const MAPS = 12;
const NO_OPCODE = VEX_MAPS * 256;
/** By VEX.pp. */
const VEX_PREFIXES = [0, PREFIX_66, PREFIX_F3, PREFIX_F2];

/** Helpers that stand for instructions. */
export interface StandIns {
  /** Raises #UD. */
  readonly invalid: number;
  /** Raises #UD or #NM, as CR0 and CR4 have it. */
  readonly unavailable: number;
}

export class Decoder {
  readonly #all: readonly DecodedRow[];
  #rows: (readonly DecodedRow[])[] = [];
  readonly #standIns: StandIns;
  readonly #reader = new ByteReader();
  readonly #form = new AddressForm();
  #start = 0;
  #mode = MODE_64;
  #fpu = FPU_ALL;
  #real = false;
  #out: DataView;
  #record = 0;
  #offset = 0;
  #prefixes = 0;
  #segment = -1;
  /** The REX prefix, or what VEX has of it. */
  #rex = 0;
  /** VEX.vvvv, not inverted: 0 without VEX, and where it has to be 1111. */
  #vvvv = 0;
  #wideAddress = 8;
  #modrm = 0;
  #kind = 0;
  /** The row of the instruction decoded last; null when there was none (#UD). */
  row: DecodedRow | null = null;
  /** Target of the jump decoded last, as an offset from its page. */
  target = 0;

  constructor(rows: readonly DecodedRow[], standIns: StandIns, buffer: ArrayBuffer) {
    this.#all = rows;
    this.#standIns = standIns;
    this.#out = new DataView(buffer);
    this.useFeatures(ALL_INSTRUCTIONS);
  }

  /** Rows whose feature isn't among these don't exist from now on. What was decoded before stays. */
  useFeatures(features: ReadonlySet<string>): void {
    const byOpcode: DecodedRow[][] = Array.from({ length: MAPS * 256 }, () => []);
    for (const row of this.#all) {
      const map = row.vex ? VEX_MAPS + row.map : row.map;
      if (row.feature === '' || features.has(row.feature)) byOpcode[map * 256 + row.opcode].push(row);
    }
    this.#rows = byOpcode;
  }

  /**
   * Decodes the instruction at `bytes[at]` into the record at address `record`. `offset`: its place in its page. Returns its
   * length, NEED_MORE when it doesn't end before `end`, or TOO_LONG. `mode`: MODE_*, MODE_REAL and FPU_*.
   */
  decode(bytes: Uint8Array, at: number, end: number, mode: number, record: number, offset: number): number {
    const reader = this.#reader;
    reader.start(bytes, at, Math.min(end, at + LONGEST + 1));
    this.#start = at;
    const kind = mode % MODES;
    this.#real = kind >= MODE_REAL;
    this.#mode = this.#real ? kind - MODE_REAL : kind;
    this.#fpu = (mode - kind) / MODES;
    this.#record = record;
    this.#offset = offset;
    const found = this.#instruction();
    const length = reader.at - at;
    if (length > LONGEST) return TOO_LONG;
    if (reader.at > end) return NEED_MORE;
    if (!found) {
      this.row = null;
      this.#finish(H_HELPER, this.#standIns.invalid, 4, length);
    } else if (this.row !== null && this.row.fpu + this.#fpu > FPU_OFF) {
      this.#finish(H_HELPER, this.#standIns.unavailable, this.row.fpu, length);
    }
    return length;
  }

  /** False: no such instruction. */
  #instruction(): boolean {
    const opcode = this.#prefixesAndOpcode();
    const candidates = this.#rows[opcode];
    if (candidates.length === 0) return false;
    if (candidates[0].modrm) this.#modrm = this.#reader.byte();
    const row = this.#choose(candidates);
    this.row = row;
    if (!row) return false;
    this.#kind = 0;
    this.#form.clear();
    // Control and debug registers take their general register from rm whatever mod says.
    if (row.modrm && this.#modrm < 0xc0 && !row.registerOnly) {
      this.#kind = 1;
      this.#form.read(this.#reader, this.#modrm, this.#wideAddress, this.#mode === MODE_64, this.#rex);
    }
    if (this.#prefixes & PREFIX_LOCK && !(row.lockable && this.#kind !== 0)) return false;
    if (this.#vvvv !== 0 && !row.vvvv) return false;
    this.#operands(row);
    return true;
  }

  #prefixesAndOpcode(): number {
    const long = this.#mode === MODE_64;
    this.#prefixes = 0;
    this.#segment = -1;
    this.#rex = 0;
    this.#vvvv = 0;
    this.#wideAddress = long ? 8 : this.#mode === MODE_32 ? 4 : 2;
    for (;;) {
      const byte = this.#reader.byte();
      // Beyond the end the answer no longer matters.
      if (this.#reader.passed) return 0;
      switch (byte) {
        case 0x66:
          this.#prefixes |= PREFIX_66;
          break;
        case 0x67:
          this.#wideAddress = long ? 4 : this.#mode === MODE_32 ? 2 : 4;
          break;
        case 0xf0:
          this.#prefixes |= PREFIX_LOCK;
          break;
        case 0xf2:
          this.#prefixes = (this.#prefixes & ~PREFIX_F3) | PREFIX_F2;
          break;
        case 0xf3:
          this.#prefixes = (this.#prefixes & ~PREFIX_F2) | PREFIX_F3;
          break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
          if (!long) this.#segment = (byte >> 3) & 3;
          break;
        case 0x64:
        case 0x65:
          this.#segment = byte & 7;
          break;
        case 0xc4:
        case 0xc5:
          return this.#vexOpcode(byte);
        case 0x0f: {
          const second = this.#reader.byte();
          if (second === 0x38) return 512 + this.#reader.byte();
          if (second === 0x3a) return 768 + this.#reader.byte();
          return 256 + second;
        }
        default:
          if (!long || (byte & 0xf0) !== 0x40) return byte;
          this.#rex = byte;
          continue;
      }
      // Only the prefix right before the opcode is a REX prefix.
      this.#rex = 0;
    }
  }

  /** Outside of 64-bit mode C4 and C5 are LES and LDS unless their ModRM would name a register, which these don't take. */
  #vexOpcode(first: number): number {
    const reader = this.#reader;
    const long = this.#mode === MODE_64;
    if (!long && (this.#real || reader.peek() < 0xc0)) return first;
    if (this.#prefixes !== 0 || this.#rex !== 0) return NO_OPCODE;
    const second = reader.byte();
    const last = first === 0xc4 ? reader.byte() : second;
    const map = first === 0xc4 ? second & 31 : 1;
    const wide = first === 0xc4 ? (last >> 4) & 8 : 0;
    // R, X and B are inverted, in the order that REX has them.
    const extensions = first === 0xc4 ? (second >> 5) ^ 7 : ((second >> 5) & 4) ^ 4;
    if (long) this.#rex = 0x40 | wide | extensions;
    this.#vvvv = (~last >> 3) & 15;
    this.#prefixes = VEX_PREFIXES[last & 3];
    return map < VEX_MAPS ? (VEX_MAPS + (last & 4) + map) * 256 + reader.byte() : NO_OPCODE;
  }

  #choose(candidates: readonly DecodedRow[]): DecodedRow | null {
    const p = this.#prefixes;
    const mandatory = p & PREFIX_F3 ? 'f3' : p & PREFIX_F2 ? 'f2' : p & PREFIX_66 ? '66' : 'np';
    let any: DecodedRow | null = null;
    for (const row of candidates) {
      if (row.digit >= 0 && row.digit !== ((this.#modrm >> 3) & 7)) continue;
      if (row.form === 'reg' && this.#modrm < 0xc0) continue;
      if (row.form === 'mem' && this.#modrm >= 0xc0) continue;
      if (this.#mode === MODE_64 ? row.never64 : row.only64) continue;
      if (row.rm >= 0 && row.rm !== (this.#modrm & 7)) continue;
      if (row.wide >= 0 && row.wide !== ((this.#rex >> 3) & 1)) continue;
      // 90 with REX.B is an exchange with r8.
      if (row.opcode === 0x90 && row.map === 0 && (row.name !== 'xchg') === ((this.#rex & 1) !== 0)) continue;
      if (row.prefix === mandatory) return row;
      if (row.prefix === '' && !any) any = row;
    }
    return any;
  }

  #operandSize(row: DecodedRow): number {
    const half = (this.#prefixes & PREFIX_66) !== 0;
    if (this.#mode === MODE_64) {
      if (row.fixed64) return 8;
      if (this.#rex & 8) return 8;
      if (half && row.takes66) return 2;
      return row.default64 ? 8 : 4;
    }
    return half !== (this.#mode === MODE_16) ? 2 : 4;
  }

  /** Operand fields, the immediate, then the record as a whole. */
  #operands(row: DecodedRow): void {
    const size = this.#operandSize(row);
    const out = this.#out;
    const record = this.#record;
    let displacementHigh = this.#form.displacement >> 31;
    let immediate = 0;
    let immediateHigh = 0;
    let slot = 0;
    for (let i = 0; i < row.operands.length; i++) {
      const token = row.operands[i];
      switch (token[0]) {
        case 'I':
          immediate = this.#immediate(token, row, size);
          immediateHigh = immediate >> 31;
          if (token === 'Iv' && size === 8) immediateHigh = this.#reader.int();
          if (token === 'Ip') immediateHigh = this.#reader.word();
          if (token === 'Ie') immediate |= this.#reader.byte() << 16;
          break;
        case 'F':
          immediate = ((row.opcode & 7) << 8) | this.#modrm;
          break;
        case '1':
          immediate = 1;
          break;
        case 'J':
          immediate =
            token === 'Jb' ? this.#reader.signedByte() : size === 2 ? this.#reader.signedWord() : this.#reader.int();
          break;
        case 'O':
          this.#kind = 3;
          this.#form.displacement = this.#wideAddress === 2 ? this.#reader.word() : this.#reader.int();
          displacementHigh = this.#wideAddress === 8 ? this.#reader.int() : 0;
          break;
        default:
          if (slot < 2) out.setUint8(record + R_OPERAND + i, this.#registerField(token));
          else if (token[0] === 'E' && this.#kind === 0) this.#form.base = this.#registerField(token);
      }
      slot++;
    }
    const length = this.#reader.at - this.#start;
    const next = this.#offset + length;
    if (this.#form.relative) {
      const sum = this.#form.displacement + next;
      this.#form.displacement = sum | 0;
      displacementHigh = Math.floor(sum / 4294967296);
    }
    let variant = this.#addressKind();
    if (row.jump) {
      this.target = immediate + next;
      variant = size === 4 && this.#mode === MODE_16 ? 2 : this.target >= 0 && this.target < 4096 ? 0 : 1;
      immediate = this.target | 0;
      immediateHigh = Math.floor(this.target / 4294967296);
    }
    const index = row.sized ? (size === 8 ? 2 : size === 4 ? 1 : 0) : 1;
    const handler = row.variants[index * VARIANT_KINDS + variant];
    out.setInt32(record + R_IMMEDIATE, immediate, true);
    out.setInt32(record + R_IMMEDIATE + 4, immediateHigh, true);
    out.setInt32(record + R_DISPLACEMENT, row.jump ? 0 : this.#form.displacement, true);
    out.setInt32(record + R_DISPLACEMENT + 4, displacementHigh, true);
    this.#finish(handler & 0xffff, handler >>> 16, size, length);
  }

  #finish(handler: number, sub: number, size: number, length: number): void {
    const out = this.#out;
    const record = this.#record;
    const segment = this.#effectiveSegment();
    out.setUint16(record + R_HANDLER, handler, true);
    out.setUint16(record + R_SUB, sub, true);
    out.setUint8(record + R_BASE, this.#form.base);
    out.setUint8(record + R_INDEX, this.#form.index);
    out.setUint8(record + R_SCALE, this.#form.scale);
    out.setUint8(record + R_SEGMENT, segment === CS ? CS_DATA_BASE : SEGMENT_BASE + segment * 8);
    out.setUint16(record + R_OFFSET, this.#offset, true);
    out.setUint16(record + R_NEXT, this.#offset + length, true);
    out.setUint8(record + R_ADDRESS_SHIFT, 64 - this.#wideAddress * 8);
    out.setUint8(
      record + R_META,
      (size === 8 ? 3 : size === 4 ? 2 : size === 2 ? 1 : 0) |
        (segment === SS ? META_STACK : 0) |
        (this.#kind !== 0 ? META_MEMORY : 0) |
        (this.#prefixes & PREFIX_F3 ? META_REP : 0) |
        (this.#prefixes & PREFIX_F2 ? META_REPNE : 0) |
        (this.#rex & 8 ? META_WIDE : 0),
    );
  }

  #effectiveSegment(): number {
    if (this.#segment >= 0) return this.#segment;
    return this.#form.stack ? SS : DS;
  }

  /** 0 register, 1 flat base + displacement, 2 with index, 3 general. */
  #addressKind(): number {
    if (this.#kind === 0) return 0;
    if (this.#kind === 3 || this.#mode !== MODE_64 || this.#wideAddress !== 8 || this.#segment >= FS) return 3;
    return this.#form.index === ZERO ? 1 : 2;
  }

  #immediate(token: string, row: DecodedRow, size: number): number {
    if (token === 'Ib') return this.#reader.byte();
    if (token === 'Is' || token === 'Isv') return this.#reader.signedByte();
    if (token === 'Iw' || token === 'Ie') return this.#reader.word();
    if (token === 'Ip') return size === 2 ? this.#reader.word() : this.#reader.int();
    const bytes = tokenBytes(token, size) || tokenBytes(row.operands[0], size);
    return bytes === 1 ? this.#reader.signedByte() : bytes === 2 ? this.#reader.signedWord() : this.#reader.int();
  }

  /** A register operand as offset in the state, or whatever else the token makes of the number. */
  #registerField(token: string): number {
    const byte = token.endsWith('b');
    switch (token[0]) {
      case 'G':
        return this.#register(((this.#modrm >> 3) & 7) | ((this.#rex & 4) << 1), byte);
      case 'E':
      case 'R':
        return this.#register((this.#modrm & 7) | ((this.#rex & 1) << 3), byte);
      case 'Z':
        return this.#register((this.#opcodeByte() & 7) | ((this.#rex & 1) << 3), byte);
      case 'B':
        return (this.#mode === MODE_64 ? this.#vvvv : this.#vvvv & 7) * 8;
      case 'A':
        return RAX;
      case 'C':
        return RCX;
      case 'D':
        return RDX;
      case 'V':
        return (((this.#modrm >> 3) & 7) | ((this.#rex & 4) << 1)) * 16;
      case 'W':
      case 'U':
        return ((this.#modrm & 7) | ((this.#rex & 1) << 3)) * 16;
      case 'P':
        return ((this.#modrm >> 3) & 7) * 16;
      case 'Q':
      case 'N':
        return (this.#modrm & 7) * 16;
      case 'X':
        return ((this.#modrm >> 3) & 7) | ((this.#rex & 4) << 1);
      case 'S':
        return (this.#modrm >> 3) & 7;
      default:
        return 0;
    }
  }

  #opcodeByte(): number {
    return this.row?.opcode ?? 0;
  }

  /** Without REX the byte registers 4 to 7 are AH, CH, DH, BH. */
  #register(number: number, byte: boolean): number {
    if (byte && this.#rex === 0 && number >= 4) return (number - 4) * 8 + 1;
    return number * 8;
  }
}
