/** SSE3, SSSE3, SSE4.1 and SSE4.2, AES and PCLMULQDQ. Rare ones are functions of TypeScript (`vector/`). */
import * as m from '../semantics/vector-more.ts';
import * as v from '../semantics/vector.ts';
import type { Semantics } from '../stage.ts';
import { type Row, row } from './row.ts';

/** Of SSSE3, in MMX's form as well. */
const both = (name: string, encoding: string, semantics: Semantics, operands = ''): Row[] =>
  [
    row(name, `66 ${encoding} /r`, `Vo,Wo${operands}`, semantics, 'aligned if:ssse3'),
    row(name, `np ${encoding} /r`, `Pq,Qq${operands}`, semantics, 'mmx if:ssse3'),
  ].flat();

const sse41 = (
  name: string,
  opcode: string,
  semantics: Semantics | string,
  operands = 'Vo,Wo',
  more = 'aligned',
): Row[] => row(name, `66 0f38 ${opcode} /r`, operands, semantics, `${more} if:sse4.1`.trim());

const immediate41 = (name: string, opcode: string, semantics: Semantics | string, more = 'aligned'): Row[] =>
  row(name, `66 0f3a ${opcode} /r`, 'Vo,Wo,Ib', semantics, `${more} if:sse4.1`);

/** PMOVSX and PMOVZX: `source` is as large as what is used. */
const widening = (name: string, opcode: number, source: string, opcodes: readonly [number[], number[]]): Row[] =>
  ['sx', 'zx'].flatMap((kind, i) =>
    sse41(`pmov${kind}${name}`, (opcode + 16 * i).toString(16), m.widened(...opcodes[i]), `Vo,${source}`, ''),
  );

const EXTREMES = 'minsb minsd minuw minud maxsb maxsd maxuw maxud'.split(' ');
const EXTREME_OPCODES = [0x76, 0xb6, 0x97, 0xb7, 0x78, 0xb8, 0x99, 0xb9];

export const SSE_LATER: readonly Row[] = [
  // SSE3
  row('addsubps', 'f2 0f d0 /r', 'Vo,Wo', 'addsubps', 'aligned float if:sse3'),
  row('addsubpd', '66 0f d0 /r', 'Vo,Wo', 'addsubpd', 'aligned float if:sse3'),
  row('haddps', 'f2 0f 7c /r', 'Vo,Wo', 'haddps', 'aligned float if:sse3'),
  row('haddpd', '66 0f 7c /r', 'Vo,Wo', 'haddpd', 'aligned float if:sse3'),
  row('hsubps', 'f2 0f 7d /r', 'Vo,Wo', 'hsubps', 'aligned float if:sse3'),
  row('hsubpd', '66 0f 7d /r', 'Vo,Wo', 'hsubpd', 'aligned float if:sse3'),
  row('movups', 'f2 0f f0 /r mem', 'Vo,Mo', v.MOVE, 'if:sse3'),
  row('movddup', 'f2 0f 12 /r', 'Vo,Wq', m.MOVDDUP, 'if:sse3'),
  row(
    'movsldup',
    'f3 0f 12 /r',
    'Vo,Wo',
    m.shuffled([0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11]),
    'aligned if:sse3',
  ),
  row(
    'movshdup',
    'f3 0f 16 /r',
    'Vo,Wo',
    m.shuffled([4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15]),
    'aligned if:sse3',
  ),

  // SSSE3
  both('pshufb', '0f38 00', m.PSHUFB),
  both('phaddw', '0f38 01', m.horizontal(0x8e, 2)),
  both('phaddd', '0f38 02', m.horizontal(0xae, 4)),
  both('phaddsw', '0f38 03', m.horizontal(0x8f, 2)),
  both('pmaddubsw', '0f38 04', m.PMADDUBSW),
  both('phsubw', '0f38 05', m.horizontal(0x91, 2)),
  both('phsubd', '0f38 06', m.horizontal(0xb1, 4)),
  both('phsubsw', '0f38 07', m.horizontal(0x92, 2)),
  both('psignb', '0f38 08', m.signed(0x6c, 0x71, 0x23, 8)),
  both('psignw', '0f38 09', m.signed(0x8c, 0x91, 0x2d, 16)),
  both('psignd', '0f38 0a', m.signed(0xac, 0xb1, 0x37, 32)),
  both('pmulhrsw', '0f38 0b', m.PMULHRSW),
  both('pabsb', '0f38 1c', m.absolute(0x60)),
  both('pabsw', '0f38 1d', m.absolute(0x80)),
  both('pabsd', '0f38 1e', m.absolute(0xa0)),
  both('palignr', '0f3a 0f', m.PALIGNR, ',Ib'),

  // SSE4.1
  sse41('pblendvb', '10', m.blendBySign(0x6c, 8)),
  sse41('blendvps', '14', m.blendBySign(0xac, 32)),
  sse41('blendvpd', '15', m.blendBySign(0xcc, 64)),
  sse41('ptest', '17', m.PTEST),
  widening('bw', 0x20, 'Wq', [[0x87], [0x89]]),
  widening('bd', 0x21, 'Wd', [
    [0x87, 0xa7],
    [0x89, 0xa9],
  ]),
  widening('bq', 0x22, 'Ww', [
    [0x87, 0xa7, 0xc7],
    [0x89, 0xa9, 0xc9],
  ]),
  widening('wd', 0x23, 'Wq', [[0xa7], [0xa9]]),
  widening('wq', 0x24, 'Wd', [
    [0xa7, 0xc7],
    [0xa9, 0xc9],
  ]),
  widening('dq', 0x25, 'Wq', [[0xc7], [0xc9]]),
  sse41('pmuldq', '28', m.PMULDQ),
  sse41('pcmpeqq', '29', v.direct(0xd6)),
  row('movdqa', '66 0f38 2a /r mem', 'Vo,Mo', v.MOVE_ALIGNED, 'aligned if:sse4.1'),
  sse41('packusdw', '2b', v.narrow(0x86)),
  EXTREMES.flatMap((name, i) => sse41(`p${name}`, (0x38 + i).toString(16), v.direct(EXTREME_OPCODES[i]))),
  sse41('pmulld', '40', v.direct(0xb5)),
  sse41('phminposuw', '41', 'phminposuw'),
  immediate41('roundps', '08', 'roundps', 'aligned float'),
  immediate41('roundpd', '09', 'roundpd', 'aligned float'),
  row('roundss', '66 0f3a 0a /r', 'Vd,Wd,Ib', 'roundss', 'float if:sse4.1'),
  row('roundsd', '66 0f3a 0b /r', 'Vq,Wq,Ib', 'roundsd', 'float if:sse4.1'),
  immediate41('blendps', '0c', m.blendByImmediate(4)),
  immediate41('blendpd', '0d', m.blendByImmediate(8)),
  immediate41('pblendw', '0e', m.blendByImmediate(2)),
  row('pextrb', '66 0f3a 14 /r reg', 'Ed,Vo,Ib', m.PEXTRB, 'if:sse4.1'),
  row('pextrb', '66 0f3a 14 /r mem', 'Mb,Vo,Ib', m.PEXTRB, 'if:sse4.1'),
  row('pextrw.m', '66 0f3a 15 /r reg', 'Ed,Vo,Ib', m.PEXTRW_MEMORY, 'if:sse4.1'),
  row('pextrw.m', '66 0f3a 15 /r mem', 'Mw,Vo,Ib', m.PEXTRW_MEMORY, 'if:sse4.1'),
  row('pextrd', '66 0f3a 16 /r', 'Ey,Vo,Ib', m.PEXTRD, 'if:sse4.1'),
  row('pextrd', '66 0f3a 17 /r', 'Ed,Vo,Ib', m.PEXTRD, 'if:sse4.1'),
  row('pinsrb', '66 0f3a 20 /r reg', 'Vo,Ed,Ib', m.PINSRB, 'if:sse4.1'),
  row('pinsrb', '66 0f3a 20 /r mem', 'Vo,Mb,Ib', m.PINSRB, 'if:sse4.1'),
  row('insertps', '66 0f3a 21 /r reg', 'Vo,Uo,Ib', m.INSERTPS, 'if:sse4.1'),
  row('insertps', '66 0f3a 21 /r mem', 'Vo,Md,Ib', m.INSERTPS, 'if:sse4.1'),
  row('pinsrd', '66 0f3a 22 /r', 'Vo,Ey,Ib', m.PINSRD, 'if:sse4.1'),
  immediate41('dpps', '40', 'dpps', 'aligned float'),
  immediate41('dppd', '41', 'dppd', 'aligned float'),
  immediate41('mpsadbw', '42', 'mpsadbw'),

  // SSE4.2
  row('pcmpgtq', '66 0f38 37 /r', 'Vo,Wo', v.direct(0xd9), 'aligned if:sse4.2'),
  row('pcmpestrm', '66 0f3a 60 /r', 'Vo,Wo,Ib', 'pcmpestrm', 'if:sse4.2'),
  row('pcmpestri', '66 0f3a 61 /r', 'Vo,Wo,Ib', 'pcmpestri', 'if:sse4.2'),
  row('pcmpistrm', '66 0f3a 62 /r', 'Vo,Wo,Ib', 'pcmpistrm', 'if:sse4.2'),
  row('pcmpistri', '66 0f3a 63 /r', 'Vo,Wo,Ib', 'pcmpistri', 'if:sse4.2'),
  row('crc32', 'f2 0f38 f0 /r', 'Gy,Eb', 'crc32Byte', 'nofpu if:sse4.2'),
  row('crc32', 'f2 0f38 f1 /r', 'Gy,Ev', 'crc32Wide', 'nofpu if:sse4.2'),

  // AES, PCLMULQDQ
  ...['aesimc', 'aesenc', 'aesenclast', 'aesdec', 'aesdeclast'].map((name, i) =>
    row(name, `66 0f38 ${(0xdb + i).toString(16)} /r`, 'Vo,Wo', name, 'aligned if:aes'),
  ),
  row('aeskeygenassist', '66 0f3a df /r', 'Vo,Wo,Ib', 'aeskeygenassist', 'aligned if:aes'),
  row('pclmulqdq', '66 0f3a 44 /r', 'Vo,Wo,Ib', 'pclmulqdq', 'aligned if:pclmulqdq'),
].flat();
