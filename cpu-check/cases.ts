/**
 * Random single instructions for comparisons with a real CPU: every row of the instruction table that a program may
 * execute, with random prefixes, operands and register contents. Memory operands lie in a window of 256 bytes.
 */
import { cpus } from 'node:os';
import { INSTRUCTION_TABLE } from '../src/cpu/table/table.ts';
import type { Row } from '../src/cpu/table/row.ts';
import { ES, SS } from '../src/cpu/state.ts';
import { type Bits, Encoding, GPR_AT, WINDOW, WINDOW_AT } from './encode.ts';
import type { Random } from './random.ts';
import { chooseSegments, DATA, EDGE, isCode32, isStack32, offsetIn } from './segmented.ts';

export const FPU_BYTES = 160;
export const FPU_AT = WINDOW_AT + WINDOW;
export const CASE_BYTES = FPU_AT + FPU_BYTES;
export const RESULT_EDGES_AT = 400 + WINDOW;
export const RESULT_FPU_AT = RESULT_EDGES_AT + 2 * EDGE;
export const RESULT_BYTES = RESULT_FPU_AT + FPU_BYTES + 16;

/** Functions of TypeScript that a program may call and that aren't of the system. */
const FUNCTIONS = (
  'aesimc aesenc aesenclast aesdec aesdeclast aeskeygenassist pclmulqdq pcmpestrm pcmpestri pcmpistrm pcmpistri crc32Byte ' +
  'crc32Wide phminposuw mpsadbw addsubps addsubpd haddps haddpd hsubps hsubpd dpps dppd roundps roundpd roundss roundsd rcpps rcpss rsqrtps rsqrtss ' +
  'cmpxchg16b enter stmxcsr daa das aaa aas aam aad salc bound arpl pusha popa emms escape maskmovq maskmovdqu'
).split(' ');

/** Estimates, of which each maker has its own. Ours are AMD's. */
const AMD_ONLY = /^r(cp|sqrt)[ps]s$/;
const isAmd = cpus().some(({ model }) => model.includes('AMD'));

/** Of segment registers, which have the same contents on both sides in 16-bit code only. */
const SEGMENT_READS = ['push0', 'push1', 'push2', 'push3', 'push4', 'push5', 'moveFromSegment'];

/** Rows that a harness in user mode can run, and whose results this processor shares. */
function isUserRow(row: Row): boolean {
  if (AMD_ONLY.test(row.name) && !isAmd) return false;
  if (row.flags.has('end') && !row.flags.has('f64')) return false;
  // No processor has PCOMMIT.
  if (row.name === 'pcommit') return false;
  if (typeof row.semantics === 'string') return FUNCTIONS.includes(row.semantics);
  return true;
}

export const USER_ROWS_64 = INSTRUCTION_TABLE.filter((row) => isUserRow(row) && !row.flags.has('i64'));
export const USER_ROWS_32 = INSTRUCTION_TABLE.filter(
  (row) => isUserRow(row) && !row.flags.has('o64') && !row.flags.has('w1'),
);

export const USER_ROWS_16 = [...USER_ROWS_32, ...INSTRUCTION_TABLE.filter(({ semantics }) => SEGMENT_READS.includes(String(semantics)))];

/** By the mode that the code is for. */
export const USER_ROWS: Readonly<Record<Bits, readonly Row[]>> = { 16: USER_ROWS_16, 32: USER_ROWS_32, 64: USER_ROWS_64 };
const MODES: Readonly<Record<Bits, number>> = { 64: 0, 32: 1, 16: 2 };

/** Writes one case; `out` has CASE_BYTES at `at`. */
export function writeCase(random: Random, row: Row, out: Uint8Array, at: number, bits: Bits): void {
  const view = new DataView(out.buffer, out.byteOffset + at, CASE_BYTES);
  const gpr = GPR_AT;
  for (let i = 0; i < 16; i++) view.setBigUint64(gpr + i * 8, random.value(), true);
  const stack = bits === 16 ? offsetIn(SS, DATA) : DATA;
  view.setBigUint64(gpr + 32, BigInt(stack + 128), true);
  const segments = bits === 16 ? chooseSegments(random) : 0;
  if (bits === 16) placeStack(random, row, view, isStack32(segments));
  view.setBigUint64(gpr + 128, BigInt((random.next() & 0x8d5) | 0x202 | (random.chance(4) ? 0x400 : 0)), true);
  view.setUint32(gpr + 136, row.flags.has('float') ? random.mxcsr() : 0x1f80, true);
  for (let i = 0; i < 32; i++) random.lane(view, gpr + 144 + i * 8);
  for (let i = 0; i < WINDOW; i += 8) random.lane(view, WINDOW_AT + i);
  writeFpu(random, row, view);
  const encoding = new Encoding(random, row, view, bits, segments);
  const bytes = encoding.bytes();
  out.set(bytes, at);
  view.setUint32(16, bytes.length, true);
  view.setUint8(20, MODES[bits]);
  view.setUint8(21, segments);
  if (bits === 16) view.setUint16(22, encoding.ip, true);
  const from = bits === 16 ? offsetIn(encoding.sourceSegment, DATA) : DATA;
  if (/movs|stos|lods|cmps|scas/.test(row.name) && !row.modrm) {
    const above = aboveAddress(random, encoding.addressBytes, bits);
    view.setBigUint64(gpr + 48, BigInt(placeImplicit(random, bits, from + 96 + random.below(32))) | above, true);
    const to = bits === 16 ? offsetIn(ES, DATA) : DATA;
    view.setBigUint64(gpr + 56, BigInt(placeImplicit(random, bits, to + 96 + random.below(32))) | above, true);
    view.setBigUint64(gpr + 8, BigInt(random.below(row.opcode & 1 ? 9 : 40)) | above, true);
  }
  if (row.name === 'leave' || row.name === 'enter') {
    view.setBigUint64(gpr + 40, BigInt(stack + 64 + random.below(80)), true);
    if (bits === 16 && random.chance(isStack32(segments) ? 20 : 2)) view.setUint16(gpr + 42, random.next(), true);
  }
  if (row.name.startsWith('maskmov')) view.setBigUint64(gpr + 56, BigInt(placeImplicit(random, bits, from + random.below(200))), true);
  if (row.name === 'xlat') view.setBigUint64(gpr + 24, BigInt(from), true);
  // Registers of 32-bit code have no more.
  if (bits !== 64) for (let i = 0; i < 16; i++) view.setUint32(gpr + i * 8 + 4, 0, true);
}

/** What addresses of 2 or 4 bytes don't see of their registers. */
function aboveAddress(random: Random, addressBytes: number, bits: Bits): bigint {
  if (addressBytes === 2) return BigInt(random.next() & 0xffff0000) & 0xffff0000n;
  return addressBytes === 4 && bits === 64 ? BigInt(random.below(1 << 30)) << 32n : 0n;
}

/** For an index register: mostly `place`, sometimes near either end of a segment of 16-bit code. */
function placeImplicit(random: Random, bits: Bits, place: number): number {
  return bits === 16 && random.chance(8) ? (random.below(32) - 16) & 0xffff : place;
}

/** SP only counts, unless the `whole` of ESP does: with anything above it, and sometimes where the stack wraps around. */
function placeStack(random: Random, row: Row, view: DataView, whole: boolean): void {
  if (random.chance(whole ? 20 : 2)) view.setUint16(GPR_AT + 34, random.next(), true);
  if (!row.flags.has('f64') && random.chance(10)) view.setUint16(GPR_AT + 32, random.below(40) - 20, true);
}

/** The FPU as after FNINIT; for MMX with eight registers in use. */
function writeFpu(random: Random, row: Row, view: DataView): void {
  view.setUint16(FPU_AT, 0x37f, true);
  if (row.operands.includes('F')) {
    writeX87(random, view);
    return;
  }
  if (!row.flags.has('mmx')) return;
  view.setUint8(FPU_AT + 4, 255);
  for (let i = 0; i < 8; i++) {
    random.lane(view, FPU_AT + 32 + i * 16);
    view.setUint16(FPU_AT + 40 + i * 16, 0xffff, true);
  }
}

/** Control, status, tags and registers of x87, no error waiting. */
function writeX87(random: Random, view: DataView): void {
  const masks = random.chance(6) ? random.below(64) : 63;
  const precision = random.chance(3) ? random.pick([0, 2, 3]) : 3;
  view.setUint16(FPU_AT, 0x40 | masks | (precision << 8) | (random.below(4) << 10), true);
  view.setUint16(FPU_AT + 2, (random.next() & 0x7f00) | (random.chance(3) ? random.below(64) & masks : 0), true);
  view.setUint8(FPU_AT + 4, random.chance(2) ? random.next() : random.chance(2) ? 0 : 255);
  for (let i = 0; i < 8; i++) writeExtended(random, view, FPU_AT + 32 + i * 16);
  // Two that are special meet seldom otherwise.
  if (random.chance(8)) for (let i = 0; i < 2; i++) writeSpecial(random, view, FPU_AT + 32 + i * 16);
}

function writeExtended(random: Random, view: DataView, at: number): void {
  const kind = random.below(8);
  const sign = random.below(2) << 15;
  const any = random.value();
  const whole = 1n << 63n;
  if (kind === 0) {
    writeSpecial(random, view, at);
  } else if (kind < 3) {
    view.setBigUint64(at, any | whole, true);
    view.setUint16(at + 8, sign | random.below(0x7fff), true);
  } else if (kind === 3) {
    // Few bits, so that results are exact.
    view.setBigUint64(at, BigInt(128 + random.below(128)) << 56n, true);
    view.setUint16(at + 8, sign | (0x3fff - 8 + random.below(16)), true);
  } else {
    view.setBigUint64(at, any | whole, true);
    view.setUint16(at + 8, sign | (0x3fff - 40 + random.below(80)), true);
  }
}

/** Zeros, ones, infinities, NaNs, denormals, and encodings without a meaning. */
function writeSpecial(random: Random, view: DataView, at: number): void {
  const whole = 1n << 63n;
  view.setBigUint64(at, random.pick([0n, whole, 3n << 62n, 5n << 61n, 1n, random.value()]), true);
  view.setUint16(at + 8, (random.below(2) << 15) | random.pick([0, 0x7fff, 1, 0x3fff]), true);
}

/** F2XM1, FYL2X, FPTAN, FPATAN; FYL2XP1; FSINCOS; FSIN, FCOS: D9 and this. */
const TRANSCENDENTAL = [0xf0, 0xf1, 0xf2, 0xf3, 0xf9, 0xfb, 0xfe, 0xff];
const FPREM1 = 0xf5;
const FPREM = 0xf8;
const FYL2XP1 = 0xf9;

/** Do processors differ in the last place of its results (and so in C1, which says whether that was rounded up)? */
export const isTranscendental = (row: Row, one: Uint8Array): boolean =>
  row.name === 'escape1' && TRANSCENDENTAL.includes(one[one[16] - 1]);

/**
 * SHLD and SHRD of 16 bits by more than 16; conditions of a FPREM that is stopped; FYL2XP1 of a number that isn't near 0, as the
 * manuals have it (within 1 - sqrt(1/2); here 1/4). Flags of transcendental functions are each maker's own; ours are AMD's.
 */
export function isUndefined(row: Row, one: Uint8Array): boolean {
  if (row.name === 'escape1') {
    const modrm = one[one[16] - 1];
    if (isTranscendental(row, one) && !isAmd) return true;
    if (modrm === FYL2XP1) {
      const exponent = (one[FPU_AT + 40] | (one[FPU_AT + 41] << 8)) & 0x7fff;
      return exponent >= 0x3fff - 2 && exponent !== 0x7fff;
    }
    return (modrm === FPREM || modrm === FPREM1) && (one[FPU_AT] & 63) !== 63;
  }
  if (!/^sh[lr]d$/.test(row.name)) return false;
  const length = one[16];
  const code = one.subarray(0, length);
  const prefixed = code.indexOf(0x66) >= 0 && code.indexOf(0x66) < code.indexOf(0x0f);
  const half = prefixed !== (one[20] === MODES[16] && !isCode32(one[21]));
  const count = row.operands[2] === 'C' ? one[24 + 8] : one[length - 1];
  return half && (count & 31) > 16;
}

/** FLDENV and FRSTOR: how much of the FPU's state they have loaded when they fault in their middle is nowhere defined. */
export function loadsEnvironment(row: Row, one: Uint8Array): boolean {
  if (row.name !== 'escape1' && row.name !== 'escape5') return false;
  const modrm = one[one.indexOf(row.opcode) + 1];
  return modrm < 0xc0 && ((modrm >> 3) & 7) === 4;
}

/** Flags that an instruction leaves undefined. */
export function undefinedFlags(row: Row): number {
  const OF = 0x800;
  const AF = 0x10;
  const SZP = 0xc4;
  const PF = 4;
  if (/^(mul|imul)/.test(row.name)) return SZP | AF;
  if (/^i?div/.test(row.name)) return 0x8d5;
  if (/^(and|or|xor|test)$/.test(row.name)) return AF;
  if (/^(shl|shr|sar|shld|shrd)$/.test(row.name)) return OF | AF | (/^sh[lr]d$/.test(row.name) ? 1 | SZP : 1);
  if (/^(rol|ror|rcl|rcr)$/.test(row.name)) return OF;
  if (row.name.startsWith('bt')) return OF | (SZP & ~0x40) | AF;
  if (/^bs[fr]/.test(row.name)) return 0x8d5 & ~0x40;
  if (/^[lt]zcnt$/.test(row.name)) return 0x894;
  if (/^(andn|bzhi|blsr|blsmsk|blsi)$/.test(row.name)) return AF | PF;
  if (row.name === 'bextr') return AF | (SZP & ~0x40);
  if (/^aa[as]$/.test(row.name)) return OF | SZP;
  if (/^da[as]$/.test(row.name)) return OF;
  if (/^aa[md]$/.test(row.name)) return OF | AF | 1;
  return 0;
}
