/**
 * The instruction table, spread out into handlers: one for each combination of description, operand kinds and sizes. Rows
 * that come to the same combination share a handler.
 *
 * The main function has the hot ones. All others live in groups, functions of their own behind one handler each: a function
 * of some hundred handlers is compiled fast and runs fast, one of thousands isn't.
 */
import type { OperandKind } from './handler-contract.ts';
import type { Semantics } from './stage.ts';
import type { Row } from './table/row.ts';

/** Handlers that aren't instructions of the table. */
export const H_HELPER = 0;
/** Goes on at the record's own offset: by way of its link, or by looking the address up. */
export const H_CHAIN_LINK = 1;
export const H_CHAIN = 2;
/** The record is stale: looks its address up again. */
export const H_STALE = 3;
/** Before an instruction that crosses into the next page: is that still the page it was decoded from? */
export const H_GUARD = 4;
/** Leaves the generated code. */
export const H_STOP = 5;
export const H_FIRST = 6;

const GROUP_SIZE = 256;

export interface Handler {
  readonly name: string;
  readonly semantics: Semantics;
  readonly operands: readonly OperandKind[];
}

/** Which variant of a row: index of the operand size, then of the memory kind. */
export const VARIANT_KINDS = 4;
/** Kinds of memory operands by their index in a variant; 0 is a register. Jumps have their own: near, far, checked. */
export const MEMORY_KINDS = ['r', 'm', 'n', 'x'];

export interface DecodedRow extends Row {
  /** `handler | sub << 16` by `size index * 4 + kind`; -1 where there is none. */
  readonly variants: Int32Array;
  /** Its size follows from prefixes. */
  readonly sized: boolean;
  readonly jump: boolean;
  /** It is a function of TypeScript. */
  readonly function: boolean;
  /** ModRM names registers only, whatever its mod. */
  readonly registerOnly: boolean;
  readonly end: boolean;
  readonly lockable: boolean;
  readonly only64: boolean;
  readonly never64: boolean;
  readonly default64: boolean;
  readonly fixed64: boolean;
  /** 66 makes its operands smaller, and not another instruction of it. */
  readonly takes66: boolean;
  /** REX.W that it needs: 0, 1, or -1 for any. */
  readonly wide: number;
  /** VEX.vvvv names one of its operands. */
  readonly vvvv: boolean;
  /** 0: it isn't of the FPU. 1: MMX. 2: SSE. */
  readonly fpu: number;
  /** The CPUID feature it needs, or ''. */
  readonly feature: string;
}

export interface Forms {
  readonly rows: readonly DecodedRow[];
  readonly hot: readonly Handler[];
  readonly groups: readonly (readonly Handler[])[];
  readonly helpers: readonly string[];
  readonly firstHot: number;
}

/** Size of an operand token when the operand size is `v`; 0: as operand 0. */
export function tokenBytes(token: string, v: number): number {
  const letter = token[0];
  if (letter === 'C' || letter === '1') return 1;
  const suffix = token.at(-1) ?? '';
  if (letter === 'I') {
    if (token === 'Ib') return 1;
    if (token === 'Iw') return 2;
    return token.length > 1 && suffix === 'v' ? v : 0;
  }
  switch (suffix) {
    case 'b':
      return 1;
    case 'w':
      return 2;
    case 'd':
      return 4;
    case 'q':
      return 8;
    case 'o':
      return 16;
    case 'y':
      return v === 8 ? 8 : 4;
    default:
      return letter === 'J' || suffix === 'v' || suffix === 'z' ? v : 0;
  }
}

function operandKinds(row: Row, v: number, memory: string, jump: string): OperandKind[] {
  const first = tokenBytes(row.operands[0] ?? '', v);
  return row.operands.map((token) => {
    const bytes = tokenBytes(token, v) || first;
    switch (token[0]) {
      case 'E':
        return { kind: memory, bytes };
      case 'W':
        return { kind: memory === 'r' ? 'v' : memory, bytes };
      case 'Q':
        return { kind: memory === 'r' ? 'p' : memory, bytes };
      case 'P':
      case 'N':
        return { kind: 'p', bytes };
      case 'M':
        return { kind: memory, bytes };
      case 'O':
        return { kind: 'x', bytes };
      case 'V':
      case 'U':
        return { kind: 'v', bytes };
      case 'C':
        return { kind: 'c', bytes };
      case 'I':
      case '1':
        return { kind: 'i', bytes };
      case 'J':
        // Even of one byte, its target is as wide as the others'.
        return { kind: jump, bytes: v };
      default:
        return { kind: 'r', bytes };
    }
  });
}

function isSized(row: Row): boolean {
  return (
    row.operands.some((t) => 'vyz'.includes(t.at(-1) ?? '') && t[0] !== 'Q') || row.operands.some((t) => t[0] === 'J')
  );
}

/** Kinds that the row's memory operand can have: register only, memory only, both, none. */
function kindsOf(row: Row): readonly number[] {
  const token = row.operands.find((t) => 'EWQM'.includes(t[0]));
  if (row.operands.some((t) => t[0] === 'O')) return [3];
  if (!token) return [0];
  if (token[0] === 'M' || row.form === 'mem') return [1, 2, 3];
  return row.form === 'reg' ? [0] : [0, 1, 2, 3];
}

class Builder {
  readonly hot: Handler[] = [];
  readonly cold: Handler[] = [];
  /** The first ones stand for encodings that no row has, for those that are too long, for an FPU that is off. */
  readonly helpers: string[] = ['ud', 'gp', 'unavailable'];
  readonly #known = new Map<string, { hot: boolean; index: number }>();
  readonly #named = new Map<string, Semantics>();

  place(row: Row, operands: readonly OperandKind[]): { hot: boolean; index: number } {
    const semantics = row.semantics as Semantics;
    const named = this.#named.get(row.name);
    if (named && named !== semantics) throw new Error(`two meanings of ${row.name}`);
    this.#named.set(row.name, semantics);
    const hot = isHot(row, operands);
    const key = `${row.name} ${operands.map((o) => o.kind + o.bytes).join()} ${hot}`;
    const known = this.#known.get(key);
    if (known) return known;
    const list = hot ? this.hot : this.cold;
    const made = { hot, index: list.push({ name: row.name, semantics, operands }) - 1 };
    this.#known.set(key, made);
    return made;
  }

  helper(name: string): number {
    const at = this.helpers.indexOf(name);
    return at >= 0 ? at : this.helpers.push(name) - 1;
  }
}

function isHot(row: Row, operands: readonly OperandKind[]): boolean {
  // What ends elsewhere than behind itself can't be in a group.
  if (row.flags.has('f64') || row.flags.has('main')) return true;
  if (!row.flags.has('hot') || operands.some((o) => o.kind === 'x')) return false;
  return operands[0]?.bytes !== 2 || row.flags.has('w') || row.flags.has('d64');
}

export const SIZES = [2, 4, 8];

export function spread(table: readonly Row[]): Forms {
  const builder = new Builder();
  const placed = table.map((row) => SIZES.map((v) => placeVariants(builder, row, v)));
  const groupCount = Math.ceil(builder.cold.length / GROUP_SIZE);
  const firstHot = H_FIRST + groupCount;
  const encode = (p: { hot: boolean; index: number } | null): number => {
    if (!p) return -1;
    if (p.hot) return firstHot + p.index;
    return (H_FIRST + Math.floor(p.index / GROUP_SIZE)) | ((p.index % GROUP_SIZE) << 16);
  };
  const rows = table.map((row, r): DecodedRow => {
    const variants = new Int32Array(SIZES.length * VARIANT_KINDS).fill(-1);
    for (let s = 0; s < SIZES.length; s++) {
      for (let k = 0; k < VARIANT_KINDS; k++) {
        variants[s * VARIANT_KINDS + k] =
          typeof row.semantics === 'string'
            ? H_HELPER | (builder.helper(row.semantics) << 16)
            : encode(placed[r][s][k]);
      }
    }
    return {
      ...row,
      variants,
      sized: isSized(row),
      jump: row.operands[0]?.[0] === 'J',
      function: typeof row.semantics === 'string',
      registerOnly: row.operands.includes('R'),
      end: row.flags.has('end'),
      lockable: row.flags.has('lock'),
      only64: row.flags.has('o64'),
      never64: row.flags.has('i64'),
      default64: row.flags.has('d64'),
      fixed64: row.flags.has('f64'),
      takes66: row.prefix !== '66' || row.flags.has('half'),
      wide: row.flags.has('w1') ? 1 : row.flags.has('w0') ? 0 : -1,
      vvvv: row.operands.some((token) => token[0] === 'B'),
      fpu: row.flags.has('sse') ? 2 : row.flags.has('mmx') ? 1 : 0,
      feature: [...row.flags].find((flag) => flag.startsWith('if:'))?.slice(3) ?? '',
    };
  });
  const groups = Array.from({ length: groupCount }, (_, g) => builder.cold.slice(g * GROUP_SIZE, (g + 1) * GROUP_SIZE));
  return { rows, hot: builder.hot, groups, helpers: builder.helpers, firstHot };
}

function placeVariants(builder: Builder, row: Row, v: number): ({ hot: boolean; index: number } | null)[] {
  const none = [null, null, null, null];
  if (typeof row.semantics === 'string') return none;
  if (row.operands[0]?.[0] === 'J') {
    const [near, far] = ['j', 'k'].map((jump) => builder.place(row, operandKinds(row, v, 'r', jump)));
    return [near, far, v === 4 ? builder.place(row, operandKinds(row, v, 'r', 'l')) : null, null];
  }
  const kinds = kindsOf(row);
  const hot = row.flags.has('hot');
  return none.map((_, k) => {
    if (!kinds.includes(k)) return null;
    const kind = (k === 1 || k === 2) && !hot ? 3 : k;
    return builder.place(row, operandKinds(row, v, MEMORY_KINDS[kind], 'j'));
  });
}
