/**
 * Rows of the instruction table, in the manuals' notation.
 *
 *     encoding   [vex] [66|f3|f2|np] [0f|0f38|0f3a] opcode[+r] [/r|/0../7] [reg|mem]
 *                a prefix named makes the opcode's other meaning; np: none of the three may be there
 *                vex: behind a VEX prefix with L = 0, which has the prefix and the map, too
 *     operands   E, M: general register or memory, memory only      G: register of ModRM     B: register of VEX.vvvv
 *                with three of them E comes last: a register there lies where else the base of an address would
 *                Z: register of the opcode     A: rAX     C: CL     D: rDX     1: the constant
 *                O: memory at an absolute offset                    J: relative target
 *                V, W, U: XMM register, XMM or memory, the W that must be a register
 *                P, Q, N: the same for MMX     S, X: a number of ModRM's register field (segment, control register)
 *                R: the register of ModRM.rm, whatever mod says     Ip: far pointer   Ie: ENTER's numbers   F: x87's ModRM
 *                I: immediate, as large as operand 0 or 4 bytes; Is: one byte, sign-extended; Ib, Iw: zero-extended;
 *                Iv: as large as operand 0
 *     sizes      b 1   w 2   d 4   q 8   o 16   v 2, 4 or 8 by prefixes   y 4 or 8   s: the stack's width
 */
import type { Semantics } from '../stage.ts';

export interface Row {
  readonly name: string;
  readonly vex: boolean;
  readonly map: number;
  readonly opcode: number;
  /** '' for any. */
  readonly prefix: '' | 'np' | '66' | 'f3' | 'f2';
  readonly modrm: boolean;
  /** /0 to /7, or -1. */
  readonly digit: number;
  readonly form: '' | 'reg' | 'mem';
  /** Required ModRM.rm (flag `rm0` to `rm7`), or -1. */
  readonly rm: number;
  readonly operands: readonly string[];
  /** What it does, or the name of the TypeScript function that does it. */
  readonly semantics: Semantics | string;
  readonly flags: ReadonlySet<string>;
}

/**
 * Flags: `lock` may have LOCK (with memory); `hot` belongs into the main function; `d64` 8 bytes by default in 64-bit
 * mode, `f64` whatever the prefixes say; `o64` 64-bit mode only, `i64` never in it; `end` ends a run of records;
 * `w0`, `w1` need REX.W clear, set; `main` belongs into the main function whatever its size;
 * `w` also with operands of 2 bytes; `half`: a prefix 66 that it needs makes its operands smaller too; `sse` and `mmx` need that unit; `if:` and a feature of `features.ts`.
 */
export function row(
  name: string,
  encoding: string,
  operands: string,
  semantics: Semantics | string,
  flags = '',
): Row[] {
  const words = encoding.split(' ');
  let prefix: Row['prefix'] = '';
  let map = 0;
  let digit = -1;
  let modrm = false;
  let form: Row['form'] = '';
  const vex = words[0] === 'vex';
  if (vex) words.shift();
  if (['66', 'f3', 'f2', 'np'].includes(words[0]) && words.length > 1) prefix = words.shift() as Row['prefix'];
  if (words[0] === '0f' && words.length > 1) {
    words.shift();
    map = 1;
  } else if (words[0] === '0f38' || words[0] === '0f3a') {
    map = words.shift() === '0f38' ? 2 : 3;
  }
  const opcode = words.shift() ?? '';
  for (const word of words) {
    if (word === 'reg' || word === 'mem') form = word;
    else if (word === '/r') modrm = true;
    else if (/^\/[0-7]$/.test(word)) {
      modrm = true;
      digit = Number(word[1]);
    } else throw new Error(`${name}: ${encoding}`);
  }
  const rm = /\brm([0-7])\b/.exec(flags);
  const count = opcode.endsWith('+r') ? 8 : 1;
  const first = Number.parseInt(opcode, 16);
  return Array.from({ length: count }, (_, i) => ({
    name,
    vex,
    map,
    opcode: first + i,
    prefix,
    modrm,
    digit,
    form,
    rm: rm ? Number(rm[1]) : -1,
    operands: operands === '' ? [] : operands.split(','),
    semantics,
    flags: new Set(flags === '' ? [] : flags.split(' ')),
  }));
}
