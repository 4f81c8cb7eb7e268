/** SSE and SSE2, and MMX, which shares most of its operations. */
import * as f from '../semantics/float.ts';
import * as k from '../semantics/float-compare.ts';
import * as t from '../semantics/float-convert.ts';
import * as c from '../semantics/vector-moves.ts';
import * as v from '../semantics/vector.ts';
import type { Semantics } from '../stage.ts';
import { type Row, row } from './row.ts';

/** An operation in its four encodings: packed and scalar, float and double. `normal`: a zero may have lost something. */
function four(
  name: 'add' | 'mul' | 'sub' | 'div',
  opcode: string,
  opcodes: readonly [number, number, number, number],
  normal: boolean,
): Row[] {
  const [packedF32, packedF64, f32, f64] = opcodes;
  const scalar = f.arithmetic(name, f32, f64, normal);
  return [
    row(
      `${name}ps`,
      `np 0f ${opcode} /r`,
      'Vo,Wo',
      f.packedArithmetic(name, f.SINGLES, packedF32, normal),
      'aligned float',
    ),
    row(
      `${name}pd`,
      `66 0f ${opcode} /r`,
      'Vo,Wo',
      f.packedArithmetic(name, f.DOUBLES, packedF64, normal),
      'aligned float',
    ),
    row(`${name}ss`, `f3 0f ${opcode} /r`, 'Vd,Wd', scalar, 'float'),
    row(`${name}sd`, `f2 0f ${opcode} /r`, 'Vq,Wq', scalar, 'float'),
  ].flat();
}

function extremes(name: 'min' | 'max', opcode: string, opcodes: readonly [number, number, number, number]): Row[] {
  const [packedF32, packedF64, f32, f64] = opcodes;
  const scalar = f.extreme(name, f32, f64);
  return [
    row(`${name}ps`, `np 0f ${opcode} /r`, 'Vo,Wo', f.packedExtreme(name, f.SINGLES, packedF32), 'aligned float'),
    row(`${name}pd`, `66 0f ${opcode} /r`, 'Vo,Wo', f.packedExtreme(name, f.DOUBLES, packedF64), 'aligned float'),
    row(`${name}ss`, `f3 0f ${opcode} /r`, 'Vd,Wd', scalar, 'float'),
    row(`${name}sd`, `f2 0f ${opcode} /r`, 'Vq,Wq', scalar, 'float'),
  ].flat();
}

/** A packed integer operation. */
const wide = (name: string, opcode: string, semantics: Semantics): Row[] =>
  row(name, `66 0f ${opcode} /r`, 'Vo,Wo', semantics, 'aligned');

/** One that MMX has too. */
const integer = (name: string, opcode: string, semantics: Semantics, operands = 'Pq,Qq'): Row[] =>
  [wide(name, opcode, semantics), row(name, `np 0f ${opcode} /r`, operands, semantics, 'mmx')].flat();

/** Of memory MMX reads the half that it needs. */
const lower = (name: string, opcode: string, semantics: Semantics): Row[] => integer(name, opcode, semantics, 'Pq,Qd');

/** A logical operation, whose float and double forms are the same. */
const logic = (name: string, opcode: string, semantics: Semantics): Row[] =>
  ['np', '66'].flatMap((prefix) => row(name, `${prefix} 0f ${opcode} /r`, 'Vo,Wo', semantics, 'aligned'));

function laneShift(name: string, digit: number, group: string, opcode: string, simd: number, bits: number): Row[] {
  const immediate = v.shiftByImmediate(simd, bits);
  return [
    row(`${name}i`, `66 0f ${group} /${digit} reg`, 'Uo,Ib', immediate),
    row(`${name}i`, `np 0f ${group} /${digit} reg`, 'Nq,Ib', immediate, 'mmx'),
    integer(name, opcode, v.shiftByVector(simd, bits)),
  ].flat();
}

const AND = v.direct(0x4e);
const ANDNOT = v.swapped(0x4f);
const OR = v.direct(0x50);
const XOR = v.direct(0x51);
const UNPACK_32_LOW = v.unpack(4, false);
const UNPACK_32_HIGH = v.unpack(4, true);
const UNPACK_64_LOW = v.unpack(8, false);
const UNPACK_64_HIGH = v.unpack(8, true);

const BYTE_MASK = v.mask(0x64);
const UCOMIS = k.order(true);
const COMIS = k.order(false);

export const SSE: readonly Row[] = [
  // Moves
  ['np', '66'].flatMap((p) =>
    [
      row('movups', `${p} 0f 10 /r`, 'Vo,Wo', v.MOVE),
      row('movups', `${p} 0f 11 /r`, 'Wo,Vo', v.MOVE),
      row('movaps', `${p} 0f 28 /r`, 'Vo,Wo', v.MOVE_ALIGNED, 'aligned'),
      row('movaps', `${p} 0f 29 /r`, 'Wo,Vo', v.MOVE_ALIGNED, 'aligned'),
      row('movnt', `${p} 0f 2b /r mem`, 'Mo,Vo', v.MOVE_ALIGNED, 'aligned'),
      row('movlps', `${p} 0f 12 /r mem`, 'Vq,Mq', c.STORE_LOW),
      row('movlps', `${p} 0f 13 /r mem`, 'Mq,Vq', c.STORE_LOW),
      row('movhps', `${p} 0f 16 /r mem`, 'Vo,Mq', c.LOAD_HIGH),
      row('movhps-store', `${p} 0f 17 /r mem`, 'Mq,Vo', c.STORE_HIGH),
    ].flat(),
  ),
  row('unpcklps', 'np 0f 14 /r', 'Vo,Wo', UNPACK_32_LOW, 'aligned'),
  row('unpcklpd', '66 0f 14 /r', 'Vo,Wo', UNPACK_64_LOW, 'aligned'),
  row('unpckhps', 'np 0f 15 /r', 'Vo,Wo', UNPACK_32_HIGH, 'aligned'),
  row('unpckhpd', '66 0f 15 /r', 'Vo,Wo', UNPACK_64_HIGH, 'aligned'),
  row('movhlps', 'np 0f 12 /r reg', 'Vo,Uo', c.MOVHLPS),
  row('movlhps', 'np 0f 16 /r reg', 'Vo,Uo', c.MOVLHPS),
  row('movss', 'f3 0f 10 /r', 'Vo,Wd', c.MOVE_SCALAR),
  row('movsd.f', 'f2 0f 10 /r', 'Vo,Wq', c.MOVE_SCALAR),
  row('movss-store', 'f3 0f 11 /r', 'Wd,Vd', c.STORE_LOW),
  row('movsd-store', 'f2 0f 11 /r', 'Wq,Vq', c.STORE_LOW),
  row('movdqa', '66 0f 6f /r', 'Vo,Wo', v.MOVE_ALIGNED, 'aligned'),
  row('movdqa', '66 0f 7f /r', 'Wo,Vo', v.MOVE_ALIGNED, 'aligned'),
  row('movdqu', 'f3 0f 6f /r', 'Vo,Wo', v.MOVE),
  row('movdqu', 'f3 0f 7f /r', 'Wo,Vo', v.MOVE),
  row('movntdq', '66 0f e7 /r mem', 'Mo,Vo', v.MOVE_ALIGNED, 'aligned'),
  row('movnti', 'np 0f c3 /r mem', 'My,Gy', c.STORE_LOW, 'nofpu'),
  row('movd', '66 0f 6e /r', 'Vo,Ey', c.MOVE_CLEAR),
  row('movd-store', '66 0f 7e /r', 'Ey,Vy', c.STORE_LOW),
  row('movq', 'f3 0f 7e /r', 'Vo,Wq', c.MOVE_CLEAR),
  row('movq-store', '66 0f d6 /r mem', 'Mq,Vq', c.STORE_LOW),
  row('movq', '66 0f d6 /r reg', 'Uo,Vq', c.MOVE_CLEAR),
  row('movmskps', 'np 0f 50 /r reg', 'Gd,Uo', v.mask(0xa4)),
  row('movmskpd', '66 0f 50 /r reg', 'Gd,Uo', v.mask(0xc4)),
  row('pmovmskb', '66 0f d7 /r reg', 'Gd,Uo', BYTE_MASK),
  row('pmovmskb', 'np 0f d7 /r reg', 'Gd,Nq', BYTE_MASK, 'mmx'),
  row('movd.mmx', 'np 0f 6e /r', 'Pq,Ey', c.MOVE_MMX, 'mmx'),
  row('movd.mmx', 'np 0f 7e /r', 'Ey,Py', c.MOVE_MMX, 'mmx'),
  row('movq.mmx', 'np 0f 6f /r', 'Pq,Qq', c.MOVE_MMX, 'mmx'),
  row('movq.mmx', 'np 0f 7f /r', 'Qq,Pq', c.MOVE_MMX, 'mmx'),
  row('movntq', 'np 0f e7 /r mem', 'Mq,Pq', c.MOVE_MMX, 'mmx'),
  row('movdq2q', 'f2 0f d6 /r reg', 'Pq,Uq', c.MOVE_MMX, 'mmx sse'),
  row('movq2dq', 'f3 0f d6 /r reg', 'Vo,Nq', c.MMX_TO_XMM, 'mmx sse'),
  row('maskmovq', 'np 0f f7 /r reg', 'Pq,Nq', 'maskmovq', 'mmx'),
  row('maskmovdqu', '66 0f f7 /r reg', 'Vo,Uo', 'maskmovdqu'),

  // Floating point
  four('add', '58', [0xe4, 0xf0, 0x92, 0xa0], false),
  four('mul', '59', [0xe6, 0xf2, 0x94, 0xa2], true),
  four('sub', '5c', [0xe5, 0xf1, 0x93, 0xa1], false),
  four('div', '5e', [0xe7, 0xf3, 0x95, 0xa3], true),
  extremes('min', '5d', [0xea, 0xf6, 0x5d, 0x63]),
  extremes('max', '5f', [0xeb, 0xf7, 0x5e, 0x64]),
  row('sqrtps', 'np 0f 51 /r', 'Vo,Wo', f.packedSquareRoot(f.SINGLES, 0xe3), 'aligned float'),
  row('sqrtpd', '66 0f 51 /r', 'Vo,Wo', f.packedSquareRoot(f.DOUBLES, 0xef), 'aligned float'),
  row('sqrtss', 'f3 0f 51 /r', 'Vd,Wd', f.SQRT, 'float'),
  row('sqrtsd', 'f2 0f 51 /r', 'Vq,Wq', f.SQRT, 'float'),
  row('rcpss', 'f3 0f 53 /r', 'Vd,Wd', 'rcpss', 'float'),
  row('rsqrtss', 'f3 0f 52 /r', 'Vd,Wd', 'rsqrtss', 'float'),
  row('rcpps', 'np 0f 53 /r', 'Vo,Wo', 'rcpps', 'aligned float'),
  row('rsqrtps', 'np 0f 52 /r', 'Vo,Wo', 'rsqrtps', 'aligned float'),
  logic('andps', '54', AND),
  logic('andnps', '55', ANDNOT),
  logic('orps', '56', OR),
  logic('xorps', '57', XOR),
  row('cmpps', 'np 0f c2 /r', 'Vo,Wo,Ib', k.comparePacked(f.SINGLES), 'aligned float'),
  row('cmppd', '66 0f c2 /r', 'Vo,Wo,Ib', k.comparePacked(f.DOUBLES), 'aligned float'),
  row('cmpss', 'f3 0f c2 /r', 'Vd,Wd,Ib', k.compareScalar, 'float'),
  row('cmpsd.f', 'f2 0f c2 /r', 'Vq,Wq,Ib', k.compareScalar, 'float'),
  row('ucomiss', 'np 0f 2e /r', 'Vd,Wd', UCOMIS, 'float'),
  row('ucomisd', '66 0f 2e /r', 'Vq,Wq', UCOMIS, 'float'),
  row('comiss', 'np 0f 2f /r', 'Vd,Wd', COMIS, 'float'),
  row('comisd', '66 0f 2f /r', 'Vq,Wq', COMIS, 'float'),
  row('cvtsi2ss', 'f3 0f 2a /r', 'Vd,Ey', t.FROM_INTEGER, 'float'),
  row('cvtsi2sd', 'f2 0f 2a /r', 'Vq,Ey', t.FROM_INTEGER, 'float'),
  row('cvttss2si', 'f3 0f 2c /r', 'Gy,Wd', t.toInteger(true), 'float'),
  row('cvttsd2si', 'f2 0f 2c /r', 'Gy,Wq', t.toInteger(true), 'float'),
  row('cvtss2si', 'f3 0f 2d /r', 'Gy,Wd', t.toInteger(false), 'float'),
  row('cvtsd2si', 'f2 0f 2d /r', 'Gy,Wq', t.toInteger(false), 'float'),
  row('cvtps2pd', 'np 0f 5a /r', 'Vo,Wq', t.CVTPS2PD, 'float'),
  row('cvtpd2ps', '66 0f 5a /r', 'Vo,Wo', t.CVTPD2PS, 'aligned float'),
  row('cvtss2sd', 'f3 0f 5a /r', 'Vq,Wd', t.CVTSS2SD, 'float'),
  row('cvtsd2ss', 'f2 0f 5a /r', 'Vd,Wq', t.CVTSD2SS, 'float'),
  row('cvtdq2ps', 'np 0f 5b /r', 'Vo,Wo', t.CVTDQ2PS, 'aligned float'),
  row('cvtps2dq', '66 0f 5b /r', 'Vo,Wo', t.toIntegers(false), 'aligned float'),
  row('cvttps2dq', 'f3 0f 5b /r', 'Vo,Wo', t.toIntegers(true), 'aligned float'),
  row('cvttpd2dq', '66 0f e6 /r', 'Vo,Wo', t.doublesToIntegers(true), 'aligned float'),
  row('cvtdq2pd', 'f3 0f e6 /r', 'Vo,Wq', t.CVTDQ2PD, 'float'),
  row('cvtpd2dq', 'f2 0f e6 /r', 'Vo,Wo', t.doublesToIntegers(false), 'aligned float'),
  row('cvtpi2ps', 'np 0f 2a /r', 'Vq,Qq', t.throughMmx('convert', 'i', 's'), 'mmx sse float'),
  row('cvtpi2pd', '66 0f 2a /r', 'Vo,Qq', t.throughMmx('convert', 'i', 'd'), 'mmx sse float'),
  row('cvttps2pi', 'np 0f 2c /r', 'Pq,Wq', t.throughMmx('truncate', 's', 'i'), 'mmx sse float'),
  row('cvttpd2pi', '66 0f 2c /r', 'Pq,Wo', t.throughMmx('truncate', 'd', 'i'), 'mmx sse float aligned'),
  row('cvtps2pi', 'np 0f 2d /r', 'Pq,Wq', t.throughMmx('convert', 's', 'i'), 'mmx sse float'),
  row('cvtpd2pi', '66 0f 2d /r', 'Pq,Wo', t.throughMmx('convert', 'd', 'i'), 'mmx sse float aligned'),
  row('shufps', 'np 0f c6 /r', 'Vo,Wo,Ib', v.SHUFPS, 'aligned'),
  row('shufpd', '66 0f c6 /r', 'Vo,Wo,Ib', v.SHUFPD, 'aligned'),

  // Integers
  lower('punpcklbw', '60', v.unpack(1, false)),
  lower('punpcklwd', '61', v.unpack(2, false)),
  lower('punpckldq', '62', UNPACK_32_LOW),
  integer('packsswb', '63', v.narrow(0x65)),
  integer('pcmpgtb', '64', v.direct(0x27)),
  integer('pcmpgtw', '65', v.direct(0x31)),
  integer('pcmpgtd', '66', v.direct(0x3b)),
  integer('packuswb', '67', v.narrow(0x66)),
  integer('punpckhbw', '68', v.unpack(1, true)),
  integer('punpckhwd', '69', v.unpack(2, true)),
  integer('punpckhdq', '6a', UNPACK_32_HIGH),
  integer('packssdw', '6b', v.narrow(0x85)),
  wide('punpcklqdq', '6c', UNPACK_64_LOW),
  wide('punpckhqdq', '6d', UNPACK_64_HIGH),
  row('pshufd', '66 0f 70 /r', 'Vo,Wo,Ib', v.PSHUFD, 'aligned'),
  row('pshufhw', 'f3 0f 70 /r', 'Vo,Wo,Ib', v.shuffleWords(true), 'aligned'),
  row('pshuflw', 'f2 0f 70 /r', 'Vo,Wo,Ib', v.shuffleWords(false), 'aligned'),
  integer('pcmpeqb', '74', v.direct(0x23)),
  integer('pcmpeqw', '75', v.direct(0x2d)),
  integer('pcmpeqd', '76', v.direct(0x37)),
  row('pshufw', 'np 0f 70 /r', 'Pq,Qq,Ib', v.shuffleWords(false), 'mmx'),
  row('pinsrw', 'np 0f c4 /r reg', 'Pq,Ed,Ib', v.PINSRW, 'mmx'),
  row('pinsrw', 'np 0f c4 /r mem', 'Pq,Mw,Ib', v.PINSRW, 'mmx'),
  row('pextrw', 'np 0f c5 /r reg', 'Gd,Nq,Ib', v.PEXTRW, 'mmx'),
  row('pinsrw', '66 0f c4 /r reg', 'Vo,Ed,Ib', v.PINSRW),
  row('pinsrw', '66 0f c4 /r mem', 'Vo,Mw,Ib', v.PINSRW),
  row('pextrw', '66 0f c5 /r reg', 'Gd,Uo,Ib', v.PEXTRW),
  laneShift('psrlw', 2, '71', 'd1', 0x8d, 16),
  laneShift('psraw', 4, '71', 'e1', 0x8c, 16),
  laneShift('psllw', 6, '71', 'f1', 0x8b, 16),
  laneShift('psrld', 2, '72', 'd2', 0xad, 32),
  laneShift('psrad', 4, '72', 'e2', 0xac, 32),
  laneShift('pslld', 6, '72', 'f2', 0xab, 32),
  laneShift('psrlq', 2, '73', 'd3', 0xcd, 64),
  laneShift('psllq', 6, '73', 'f3', 0xcb, 64),
  row('psrldq', '66 0f 73 /3 reg', 'Uo,Ib', v.shiftBytes(false)),
  row('pslldq', '66 0f 73 /7 reg', 'Uo,Ib', v.shiftBytes(true)),
  integer('paddq', 'd4', v.direct(0xce)),
  integer('pmullw', 'd5', v.direct(0x95)),
  integer('psubusb', 'd8', v.direct(0x73)),
  integer('psubusw', 'd9', v.direct(0x93)),
  integer('pminub', 'da', v.direct(0x77)),
  integer('pand', 'db', AND),
  integer('paddusb', 'dc', v.direct(0x70)),
  integer('paddusw', 'dd', v.direct(0x90)),
  integer('pmaxub', 'de', v.direct(0x79)),
  integer('pandn', 'df', ANDNOT),
  integer('pavgb', 'e0', v.direct(0x7b)),
  integer('pavgw', 'e3', v.direct(0x9b)),
  integer('pmulhuw', 'e4', v.highProducts(0xbe, 0xbf)),
  integer('pmulhw', 'e5', v.highProducts(0xbc, 0xbd)),
  integer('psubsb', 'e8', v.direct(0x72)),
  integer('psubsw', 'e9', v.direct(0x92)),
  integer('pminsw', 'ea', v.direct(0x96)),
  integer('por', 'eb', OR),
  integer('paddsb', 'ec', v.direct(0x6f)),
  integer('paddsw', 'ed', v.direct(0x8f)),
  integer('pmaxsw', 'ee', v.direct(0x98)),
  integer('pxor', 'ef', XOR),
  integer('pmuludq', 'f4', v.PMULUDQ),
  integer('pmaddwd', 'f5', v.direct(0xba)),
  integer('psadbw', 'f6', v.PSADBW),
  integer('psubb', 'f8', v.direct(0x71)),
  integer('psubw', 'f9', v.direct(0x91)),
  integer('psubd', 'fa', v.direct(0xb1)),
  integer('psubq', 'fb', v.direct(0xd1)),
  integer('paddb', 'fc', v.direct(0x6e)),
  integer('paddw', 'fd', v.direct(0x8e)),
  integer('paddd', 'fe', v.direct(0xae)),
].flat();
