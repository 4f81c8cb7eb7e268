/**
 * Bytes to records. Works on any bytes: a page of memory, or a copy when an instruction crosses into the next page.
 */
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
import { DS, FS, RAX, RBP, RBX, RCX, RDI, RDX, RIP_PAGE, RSI, SEGMENT_BASE, SS, ZERO } from './state.ts';

export const MODE_16 = 0;
export const MODE_32 = 1;
export const MODE_64 = 2;

/** More bytes than there were. */
export const NEED_MORE = -1;
/** Longer than 15 bytes: #GP. */
export const TOO_LONG = -2;
const LONGEST = 15;

const PREFIX_66 = 1;
const PREFIX_F3 = 2;
const PREFIX_F2 = 4;
const PREFIX_LOCK = 8;

/** A general register, in 16-bit addresses, by ModRM.rm: base, then index. */
const BASES_16 = [RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX];
const INDEXES_16 = [RSI, RDI, RSI, RDI, ZERO, ZERO, ZERO, ZERO];

export class Decoder {
  readonly #rows: (readonly DecodedRow[])[];
  readonly #invalid: number;
  #bytes: Uint8Array = new Uint8Array(0);
  #start = 0;
  #at = 0;
  #end = 0;
  #mode = MODE_64;
  #out: DataView;
  #record = 0;
  #offset = 0;
  #prefixes = 0;
  #segment = -1;
  #rex = 0;
  #wideAddress = 8;
  #modrm = 0;
  #kind = 0;
  #base = ZERO;
  #index = ZERO;
  #scale = 0;
  #displacement = 0;
  #stack = false;
  #relative = false;
  /** The row of the instruction decoded last; null when there was none (#UD). */
  row: DecodedRow | null = null;
  /** Target of the jump decoded last, as an offset from its page. */
  target = 0;

  /** `invalidHelper`: the helper that raises #UD. */
  constructor(rows: readonly DecodedRow[], invalidHelper: number, buffer: ArrayBuffer) {
    const byOpcode: DecodedRow[][] = Array.from({ length: 4 * 256 }, () => []);
    for (const row of rows) byOpcode[row.map * 256 + row.opcode].push(row);
    this.#rows = byOpcode;
    this.#invalid = invalidHelper;
    this.#out = new DataView(buffer);
  }

  /**
   * Decodes the instruction at `bytes[at]` into the record at address `record`. `offset`: its place in its page. Returns its
   * length, NEED_MORE when it doesn't end before `end`, or TOO_LONG.
   */
  decode(bytes: Uint8Array, at: number, end: number, mode: number, record: number, offset: number): number {
    this.#bytes = bytes;
    this.#start = at;
    this.#at = at;
    this.#end = Math.min(end, at + LONGEST + 1);
    this.#mode = mode;
    this.#record = record;
    this.#offset = offset;
    const found = this.#instruction();
    const length = this.#at - at;
    if (length > LONGEST) return TOO_LONG;
    if (this.#at > end) return NEED_MORE;
    if (!found) {
      this.row = null;
      this.#finish(H_HELPER, this.#invalid, 0, 4, length);
    }
    return length;
  }

  #byte(): number {
    const at = this.#at++;
    return at < this.#end ? this.#bytes[at] : 0;
  }

  #signedByte(): number {
    return (this.#byte() << 24) >> 24;
  }

  #word(): number {
    const low = this.#byte();
    return low | (this.#byte() << 8);
  }

  #int(): number {
    const low = this.#word();
    return low | (this.#word() << 16);
  }

  /** False: no such instruction. */
  #instruction(): boolean {
    const opcode = this.#prefixesAndOpcode();
    const candidates = this.#rows[opcode];
    if (candidates.length === 0) return false;
    if (candidates[0].modrm) this.#modrm = this.#byte();
    const row = this.#choose(candidates);
    this.row = row;
    if (!row) return false;
    this.#kind = 0;
    this.#base = ZERO;
    this.#index = ZERO;
    this.#scale = 0;
    this.#displacement = 0;
    this.#stack = false;
    this.#relative = false;
    // Control and debug registers take their general register from rm whatever mod says.
    if (row.modrm && this.#modrm < 0xc0 && !row.operands.includes('R')) this.#memory();
    if (this.#prefixes & PREFIX_LOCK && !(row.flags.has('lock') && this.#kind !== 0)) return false;
    this.#operands(row);
    return true;
  }

  #prefixesAndOpcode(): number {
    const long = this.#mode === MODE_64;
    this.#prefixes = 0;
    this.#segment = -1;
    this.#rex = 0;
    this.#wideAddress = long ? 8 : this.#mode === MODE_32 ? 4 : 2;
    for (;;) {
      const byte = this.#byte();
      // Beyond the end the answer no longer matters.
      if (this.#at > this.#end) return 0x0f * 256;
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
        case 0x0f: {
          const second = this.#byte();
          if (second === 0x38) return 512 + this.#byte();
          if (second === 0x3a) return 768 + this.#byte();
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

  #choose(candidates: readonly DecodedRow[]): DecodedRow | null {
    const p = this.#prefixes;
    const mandatory = p & PREFIX_F3 ? 'f3' : p & PREFIX_F2 ? 'f2' : p & PREFIX_66 ? '66' : 'np';
    let any: DecodedRow | null = null;
    for (const row of candidates) {
      if (row.digit >= 0 && row.digit !== ((this.#modrm >> 3) & 7)) continue;
      if (row.form === 'reg' && this.#modrm < 0xc0) continue;
      if (row.form === 'mem' && this.#modrm >= 0xc0) continue;
      if (row.flags.has(this.#mode === MODE_64 ? 'i64' : 'o64')) continue;
      if (row.rm >= 0 && row.rm !== (this.#modrm & 7)) continue;
      if (row.flags.has(this.#rex & 8 ? 'w0' : 'w1')) continue;
      // 90 with REX.B is an exchange with r8.
      if (row.opcode === 0x90 && row.map === 0 && (row.name === 'nop') === ((this.#rex & 1) !== 0)) continue;
      if (row.prefix === mandatory) return row;
      if (row.prefix === '' && !any) any = row;
    }
    return any;
  }

  #operandSize(row: DecodedRow): number {
    const half = (this.#prefixes & PREFIX_66) !== 0;
    if (this.#mode === MODE_64) {
      if (row.flags.has('f64')) return half && row.flags.has('rip16') ? 2 : 8;
      if (this.#rex & 8) return 8;
      if (half && row.prefix !== '66') return 2;
      return row.flags.has('d64') ? 8 : 4;
    }
    return half !== (this.#mode === MODE_16) ? 2 : 4;
  }

  #memory(): void {
    this.#kind = 1;
    const mod = this.#modrm >> 6;
    const rm = this.#modrm & 7;
    if (this.#wideAddress === 2) {
      this.#memory16(mod, rm);
      return;
    }
    if (rm === 4) {
      this.#scaled(mod);
    } else if (rm === 5 && mod === 0) {
      this.#displacement = this.#int();
      if (this.#mode === MODE_64) {
        this.#base = RIP_PAGE;
        this.#relative = true;
      }
      return;
    } else {
      this.#base = (rm | ((this.#rex & 1) << 3)) * 8;
      this.#stack = rm === 5 && !(this.#rex & 1);
    }
    if (mod === 1) this.#displacement += this.#signedByte();
    else if (mod === 2) this.#displacement += this.#int();
  }

  #scaled(mod: number): void {
    const sib = this.#byte();
    const index = ((sib >> 3) & 7) | ((this.#rex & 2) << 2);
    if (index !== 4) {
      this.#index = index * 8;
      this.#scale = sib >> 6;
    }
    if ((sib & 7) === 5 && mod === 0) {
      this.#displacement = this.#int();
      return;
    }
    const base = (sib & 7) | ((this.#rex & 1) << 3);
    this.#base = base * 8;
    this.#stack = base === 4 || base === 5;
  }

  #memory16(mod: number, rm: number): void {
    if (rm === 6 && mod === 0) {
      this.#displacement = this.#word();
      return;
    }
    this.#base = BASES_16[rm];
    this.#index = INDEXES_16[rm];
    this.#stack = this.#base === RBP;
    if (mod === 1) this.#displacement = this.#signedByte();
    else if (mod === 2) this.#displacement = (this.#word() << 16) >> 16;
  }

  /** Operand fields, the immediate, then the record as a whole. */
  #operands(row: DecodedRow): void {
    const size = this.#operandSize(row);
    const out = this.#out;
    const record = this.#record;
    let displacementHigh = this.#displacement >> 31;
    let immediate = 0;
    let immediateHigh = 0;
    let slot = 0;
    for (let i = 0; i < row.operands.length; i++) {
      const token = row.operands[i];
      switch (token[0]) {
        case 'I':
          immediate = this.#immediate(token, row, size);
          immediateHigh = immediate >> 31;
          if (token === 'Iv' && size === 8) immediateHigh = this.#int();
          if (token === 'Ip') immediateHigh = this.#word();
          if (token === 'Ie') immediate |= this.#byte() << 16;
          break;
        case 'F':
          immediate = ((row.opcode & 7) << 8) | this.#modrm;
          break;
        case '1':
          immediate = 1;
          break;
        case 'J':
          immediate = token === 'Jb' ? this.#signedByte() : size === 2 ? (this.#word() << 16) >> 16 : this.#int();
          break;
        case 'O':
          this.#kind = 3;
          this.#displacement = this.#wideAddress === 2 ? this.#word() : this.#int();
          displacementHigh = this.#wideAddress === 8 ? this.#int() : 0;
          break;
        default:
          if (slot < 2) out.setUint8(record + R_OPERAND + i, this.#registerField(token));
      }
      slot++;
    }
    const length = this.#at - this.#start;
    const next = this.#offset + length;
    if (this.#relative) {
      const sum = this.#displacement + next;
      this.#displacement = sum | 0;
      displacementHigh = Math.floor(sum / 4294967296);
    }
    let variant = this.#addressKind();
    if (row.jump) {
      this.target = immediate + next;
      variant = this.target >= 0 && this.target < 4096 ? 0 : 1;
      immediate = this.target | 0;
      immediateHigh = Math.floor(this.target / 4294967296);
    }
    const index = row.sized ? (size === 8 ? 2 : size === 4 ? 1 : 0) : 1;
    const handler = row.variants[index * VARIANT_KINDS + variant];
    out.setInt32(record + R_IMMEDIATE, immediate, true);
    out.setInt32(record + R_IMMEDIATE + 4, immediateHigh, true);
    out.setInt32(record + R_DISPLACEMENT, row.jump ? 0 : this.#displacement, true);
    out.setInt32(record + R_DISPLACEMENT + 4, displacementHigh, true);
    this.#finish(handler & 0xffff, handler >>> 16, variant, size, length);
  }

  #finish(handler: number, sub: number, _variant: number, size: number, length: number): void {
    const out = this.#out;
    const record = this.#record;
    const segment = this.#effectiveSegment();
    out.setUint16(record + R_HANDLER, handler, true);
    out.setUint16(record + R_SUB, sub, true);
    out.setUint8(record + R_BASE, this.#base);
    out.setUint8(record + R_INDEX, this.#index);
    out.setUint8(record + R_SCALE, this.#scale);
    out.setUint8(record + R_SEGMENT, SEGMENT_BASE + segment * 8);
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
    return this.#stack ? SS : DS;
  }

  /** 0 register, 1 flat base + displacement, 2 with index, 3 general. */
  #addressKind(): number {
    if (this.#kind === 0) return 0;
    if (this.#kind === 3 || this.#mode !== MODE_64 || this.#wideAddress !== 8 || this.#segment >= FS) return 3;
    return this.#index === ZERO ? 1 : 2;
  }

  #immediate(token: string, row: DecodedRow, size: number): number {
    if (token === 'Ib') return this.#byte();
    if (token === 'Is' || token === 'Isv') return this.#signedByte();
    if (token === 'Iw' || token === 'Ie') return this.#word();
    if (token === 'Ip') return size === 2 ? this.#word() : this.#int();
    const bytes = tokenBytes(token, size) || tokenBytes(row.operands[0], size);
    return bytes === 1 ? this.#signedByte() : bytes === 2 ? (this.#word() << 16) >> 16 : this.#int();
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
