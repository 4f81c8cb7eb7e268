/** The integer instructions. */
import * as a from '../semantics/arithmetic.ts';
import * as b from '../semantics/bits.ts';
import * as c from '../semantics/control.ts';
import * as m from '../semantics/move.ts';
import * as p from '../semantics/multiply.ts';
import * as h from '../semantics/shift.ts';
import * as t from '../semantics/string.ts';
import type { Semantics } from '../stage.ts';
import { type Row, row } from './row.ts';

const hex = (n: number) => n.toString(16).padStart(2, '0');
const CONDITIONS = 'o no b ae e ne be a s ns p np l ge le g'.split(' ');

/** The eight operations that share the opcodes 00 to 3f and 80 to 83. */
function alu(index: number, name: string, semantics: Semantics): Row[] {
  const at = index * 8;
  const plain = name === 'adc' || name === 'sbb' ? '' : 'hot';
  const flags = name === 'cmp' ? plain : `lock ${plain}`.trim();
  return [
    row(name, `${hex(at)} /r`, 'Eb,Gb', semantics, flags),
    row(name, `${hex(at + 1)} /r`, 'Ev,Gv', semantics, flags),
    row(name, `${hex(at + 2)} /r`, 'Gb,Eb', semantics, plain),
    row(name, `${hex(at + 3)} /r`, 'Gv,Ev', semantics, plain),
    row(name, hex(at + 4), 'Ab,Is', semantics, plain),
    row(name, hex(at + 5), 'Av,I', semantics, plain),
    row(name, `80 /${index}`, 'Eb,Is', semantics, flags),
    row(name, `81 /${index}`, 'Ev,I', semantics, flags),
    row(name, `82 /${index}`, 'Eb,Is', semantics, `${flags} i64`.trim()),
    row(name, `83 /${index}`, 'Ev,Is', semantics, flags),
  ].flat();
}

function shifts(digit: number, name: string, semantics: Semantics): Row[] {
  const flags = name[0] === 's' ? 'hot' : '';
  return [
    row(name, `c0 /${digit}`, 'Eb,Ib', semantics, flags),
    row(name, `c1 /${digit}`, 'Ev,Ib', semantics, flags),
    row(name, `d0 /${digit}`, 'Eb,1', semantics, flags),
    row(name, `d1 /${digit}`, 'Ev,1', semantics, flags),
    row(name, `d2 /${digit}`, 'Eb,C', semantics, flags),
    row(name, `d3 /${digit}`, 'Ev,C', semantics, flags),
  ].flat();
}

function bitTest(digit: number, opcode: string, name: string, semantics: Semantics, flags: string): Row[] {
  return [
    row(name, `0f ${opcode} /r`, 'Ev,Gv', semantics, flags),
    row(name, `0f ba /${digit}`, 'Ev,Ib', semantics, flags),
  ].flat();
}

function strings(opcode: number, name: string, plain: Semantics, rep: Semantics, repne: Semantics): Row[] {
  return [0, 1].flatMap((wide) => {
    const operand = wide ? 'Av' : 'Ab';
    const code = hex(opcode + wide);
    return [
      row(name, code, operand, plain, 'hot main'),
      row(`rep.${name}`, `f3 ${code}`, operand, rep, 'hot main'),
      row(`repne.${name}`, `f2 ${code}`, operand, repne, 'hot main'),
    ].flat();
  });
}

function conditional(name: string, code: number): Row[] {
  const jump = c.JCC(code);
  return [
    row(`j${name}`, hex(0x70 + code), 'Jb', jump, 'hot f64'),
    row(`j${name}`, `0f ${hex(0x80 + code)}`, 'Jz', jump, 'hot f64'),
    row(`set${name}`, `0f ${hex(0x90 + code)} /r`, 'Eb', m.SETCC(code), 'hot'),
    row(`cmov${name}`, `0f ${hex(0x40 + code)} /r`, 'Gv,Ev', m.CMOV(code), 'hot'),
  ].flat();
}

export const INTEGER: readonly Row[] = [
  alu(0, 'add', a.ADD),
  alu(1, 'or', a.OR),
  alu(2, 'adc', a.ADC),
  alu(3, 'sbb', a.SBB),
  alu(4, 'and', a.AND),
  alu(5, 'sub', a.SUB),
  alu(6, 'xor', a.XOR),
  alu(7, 'cmp', a.CMP),
  row('test', '84 /r', 'Eb,Gb', a.TEST, 'hot'),
  row('test', '85 /r', 'Ev,Gv', a.TEST, 'hot'),
  row('test', 'a8', 'Ab,Is', a.TEST, 'hot'),
  row('test', 'a9', 'Av,I', a.TEST, 'hot'),
  row('test', 'f6 /0', 'Eb,Is', a.TEST, 'hot'),
  row('test', 'f6 /1', 'Eb,Is', a.TEST, 'hot'),
  row('test', 'f7 /0', 'Ev,I', a.TEST, 'hot'),
  row('test', 'f7 /1', 'Ev,I', a.TEST, 'hot'),
  row('not', 'f6 /2', 'Eb', a.NOT, 'lock'),
  row('not', 'f7 /2', 'Ev', a.NOT, 'lock hot'),
  row('neg', 'f6 /3', 'Eb', a.NEG, 'lock'),
  row('neg', 'f7 /3', 'Ev', a.NEG, 'lock hot'),
  row('mul', 'f6 /4', 'Eb', p.MUL),
  row('mul', 'f7 /4', 'Ev', p.MUL),
  row('imul', 'f6 /5', 'Eb', p.IMUL_WIDE),
  row('imul', 'f7 /5', 'Ev', p.IMUL_WIDE),
  row('div', 'f6 /6', 'Eb', p.DIV),
  row('div', 'f7 /6', 'Ev', p.DIV),
  row('idiv', 'f6 /7', 'Eb', p.IDIV),
  row('idiv', 'f7 /7', 'Ev', p.IDIV),
  row('imul2', '0f af /r', 'Gv,Ev', p.IMUL2, 'hot'),
  row('imul3', '69 /r', 'Gv,Ev,I', p.IMUL3, 'hot'),
  row('imul3', '6b /r', 'Gv,Ev,Is', p.IMUL3, 'hot'),
  row('inc', 'fe /0', 'Eb', a.INC, 'lock'),
  row('dec', 'fe /1', 'Eb', a.DEC, 'lock'),
  row('inc', 'ff /0', 'Ev', a.INC, 'lock hot'),
  row('dec', 'ff /1', 'Ev', a.DEC, 'lock hot'),
  row('inc', '40+r', 'Zv', a.INC, 'i64'),
  row('dec', '48+r', 'Zv', a.DEC, 'i64'),
  row('xadd', '0f c0 /r', 'Eb,Gb', a.XADD, 'lock'),
  row('xadd', '0f c1 /r', 'Ev,Gv', a.XADD, 'lock'),
  row('cmpxchg', '0f b0 /r', 'Eb,Gb', a.CMPXCHG, 'lock'),
  row('cmpxchg', '0f b1 /r', 'Ev,Gv', a.CMPXCHG, 'lock'),

  row('mov', '88 /r', 'Eb,Gb', m.MOV, 'hot'),
  row('mov', '89 /r', 'Ev,Gv', m.MOV, 'hot w'),
  row('mov', '8a /r', 'Gb,Eb', m.MOV, 'hot'),
  row('mov', '8b /r', 'Gv,Ev', m.MOV, 'hot'),
  row('mov', 'a0', 'Ab,Ob', m.MOV),
  row('mov', 'a1', 'Av,Ov', m.MOV),
  row('mov', 'a2', 'Ob,Ab', m.MOV),
  row('mov', 'a3', 'Ov,Av', m.MOV),
  row('mov', 'b0+r', 'Zb,Ib', m.MOV, 'hot'),
  row('mov', 'b8+r', 'Zv,Iv', m.MOV, 'hot'),
  row('mov', 'c6 /0', 'Eb,Ib', m.MOV, 'hot'),
  row('mov', 'c7 /0', 'Ev,I', m.MOV, 'hot w'),
  row('movzx', '0f b6 /r', 'Gv,Eb', m.MOV, 'hot'),
  row('movzx', '0f b7 /r', 'Gv,Ew', m.MOV, 'hot'),
  row('movsx', '0f be /r', 'Gv,Eb', m.MOVSX, 'hot'),
  row('movsx', '0f bf /r', 'Gv,Ew', m.MOVSX, 'hot'),
  row('movsxd', '63 /r', 'Gv,Ed', m.MOVSX, 'hot o64'),
  row('lea', '8d /r mem', 'Gv,Mv', m.LEA, 'hot'),
  row('xchg', '86 /r', 'Eb,Gb', m.XCHG, 'lock'),
  row('xchg', '87 /r', 'Ev,Gv', m.XCHG, 'lock'),
  row('xchg', '90+r', 'Zv,Av', m.XCHG),
  row('push', '50+r', 'Zv', m.PUSH, 'hot d64'),
  row('push', '68', 'Izv', m.PUSH, 'd64'),
  row('push', '6a', 'Isv', m.PUSH, 'd64'),
  row('push', 'ff /6', 'Ev', m.PUSH, 'd64'),
  row('pop', '58+r', 'Zv', m.POP, 'hot d64'),
  row('pop', '8f /0', 'Ev', m.POP, 'd64'),
  row('leave', 'c9', 'Av', m.LEAVE, 'hot d64'),
  row('cbw', '98', 'Av', m.WIDEN_ACCUMULATOR, 'hot'),
  row('cwd', '99', 'Dv', m.SIGN_TO_D, 'hot'),
  row('bswap', '0f c8+r', 'Zv', m.BSWAP),
  row('lahf', '9f', '', m.LAHF),
  row('sahf', '9e', '', m.SAHF),
  row('cmc', 'f5', '', m.CMC),
  row('clc', 'f8', '', m.CLC),
  row('stc', 'f9', '', m.STC),
  row('nop', '90', '', m.NOP, 'hot'),
  row('nop', '0f 0d /r mem', 'Mv', m.NOP, 'hot'),
  ...Array.from({ length: 8 }, (_, i) => row('nop', `0f ${hex(0x18 + i)} /r`, 'Ev', m.NOP, 'hot')),

  shifts(0, 'rol', h.ROL),
  shifts(1, 'ror', h.ROR),
  shifts(2, 'rcl', h.RCL),
  shifts(3, 'rcr', h.RCR),
  shifts(4, 'shl', h.SHL),
  shifts(5, 'shr', h.SHR),
  shifts(6, 'shl', h.SHL),
  shifts(7, 'sar', h.SAR),
  row('shld', '0f a4 /r', 'Ev,Gv,Ib', h.SHLD),
  row('shld', '0f a5 /r', 'Ev,Gv,C', h.SHLD),
  row('shrd', '0f ac /r', 'Ev,Gv,Ib', h.SHRD),
  row('shrd', '0f ad /r', 'Ev,Gv,C', h.SHRD),
  bitTest(4, 'a3', 'bt', b.BT, ''),
  bitTest(5, 'ab', 'bts', b.BTS, 'lock'),
  bitTest(6, 'b3', 'btr', b.BTR, 'lock'),
  bitTest(7, 'bb', 'btc', b.BTC, 'lock'),
  row('bsf', '0f bc /r', 'Gv,Ev', b.BSF),
  row('bsr', '0f bd /r', 'Gv,Ev', b.BSR),
  row('popcnt', 'f3 0f b8 /r', 'Gv,Ev', b.POPCNT, 'if:popcnt'),
  row('tzcnt', 'f3 0f bc /r', 'Gv,Ev', b.TZCNT, 'if:bmi1'),
  row('lzcnt', 'f3 0f bd /r', 'Gv,Ev', b.LZCNT, 'if:lzcnt'),
  row('adcx', '66 0f38 f6 /r', 'Gy,Ey', a.addWithFlag(false), 'if:adx'),
  row('adox', 'f3 0f38 f6 /r', 'Gy,Ey', a.addWithFlag(true), 'if:adx'),
  row('movbe', 'np 0f38 f0 /r mem', 'Gv,Mv', m.MOVBE, 'if:movbe'),
  row('movbe', '66 0f38 f0 /r mem', 'Gv,Mv', m.MOVBE, 'if:movbe half'),
  row('movbe', 'np 0f38 f1 /r mem', 'Mv,Gv', m.MOVBE, 'if:movbe'),
  row('movbe', '66 0f38 f1 /r mem', 'Mv,Gv', m.MOVBE, 'if:movbe half'),

  row('jmp', 'eb', 'Jb', c.JMP, 'hot f64 end'),
  row('jmp', 'e9', 'Jz', c.JMP, 'hot f64 end'),
  row('jmpto', 'ff /4', 'Ev', c.JMP_TO, 'hot f64 end'),
  row('call', 'e8', 'Jz', c.CALL, 'hot f64 end'),
  row('callto', 'ff /2', 'Ev', c.CALL_TO, 'hot f64 end'),
  row('ret', 'c3', 'Av', c.RET, 'hot f64 end'),
  row('retn', 'c2', 'Av,Iw', c.RET_DROP, 'f64 end hot'),
  row('loopne', 'e0', 'Jb', c.LOOPNE, 'hot f64'),
  row('loope', 'e1', 'Jb', c.LOOPE, 'hot f64'),
  row('loop', 'e2', 'Jb', c.LOOP, 'hot f64'),
  row('jrcxz', 'e3', 'Jb', c.JRCXZ, 'hot f64'),
  ...CONDITIONS.map(conditional),

  strings(0xa4, 'movs', t.MOVS, t.REP_MOVS, t.REP_MOVS),
  strings(0xaa, 'stos', t.STOS, t.REP_STOS, t.REP_STOS),
  strings(0xac, 'lods', t.LODS, t.REP_LODS, t.REP_LODS),
  strings(0xa6, 'cmps', t.CMPS, t.REPE_CMPS, t.REPNE_CMPS),
  strings(0xae, 'scas', t.SCAS, t.REPE_SCAS, t.REPNE_SCAS),
].flat();
