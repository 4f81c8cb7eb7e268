/**
 * The recorder's scenario language: the text of an op as a typed record.
 *
 * A recording names each op by its text, and a replay must do what the recorder did with it. So a text is read exactly
 * as `recorder/src/main.c` reads it: numbers are `strtoull(s, 0)` with K, M or G behind (octal, sign and overflow
 * included), words it does not look at are ignored, an unknown backing counts as `4k`, anything but `on` is off. Where
 * the recorder gives up, a `ScenarioError` is thrown.
 *
 * This is an edge of the program: 64-bit values (addresses, lengths, register and entry values) are bigints below 2^64.
 * Small things (slot and vCPU numbers, levels, roots) are numbers.
 */

/** A scenario text that the recorder would refuse. */
export class ScenarioError extends Error {
  override readonly name = 'ScenarioError';
}

export type Backing = '4k' | '2m' | '1g' | 'thp';

/** Host protection of `mprotect`. As in the recorder, `rw` can be executed too. */
export type Protection = 'none' | 'r' | 'rx' | 'rw';

/** One step from a guest entry's old value to its new one; the steps are done in order. */
export type PteEdit =
  | { readonly kind: 'set'; readonly value: bigint }
  /** The entry of another address, in the same root and at the same level; 0 if it has none. */
  | { readonly kind: 'copy'; readonly va: bigint }
  /** A new frame: bits 12 to 51 are cleared, then `gpa` is or'ed in. */
  | { readonly kind: 'frame'; readonly gpa: bigint }
  | { readonly kind: 'add'; readonly bits: bigint }
  | { readonly kind: 'clear'; readonly bits: bigint };

/** What follows `slot`, in an op and in the settings before `run`. */
export interface SlotWords {
  readonly slot: number;
  readonly gpa: bigint;
  readonly size: bigint;
  readonly backing: Backing;
  readonly readOnly: boolean;
  readonly log: boolean;
  /** The recorder does not write the memory before the guest runs. */
  readonly nopop: boolean;
  /** Offset of the slot's start in its 2 MiB aligned host region; not given, it is `gpa` modulo 2 MiB. */
  readonly hvaOffset: bigint;
}

interface HostRange {
  readonly slot: number;
  readonly offset: bigint;
  readonly length: bigint;
}

export type Op =
  | { readonly kind: 'r'; readonly bytes: 1 | 4 | 8; readonly va: bigint; readonly user: boolean }
  | {
      readonly kind: 'w';
      readonly bytes: 1 | 4 | 8;
      readonly va: bigint;
      readonly value: bigint;
      readonly user: boolean;
    }
  | { readonly kind: 'xchg'; readonly va: bigint; readonly value: bigint; readonly user: boolean }
  | { readonly kind: 'x'; readonly va: bigint; readonly user: boolean }
  | { readonly kind: 'nop'; readonly user: boolean }
  | {
      readonly kind: 'wpte';
      readonly root: number;
      readonly va: bigint;
      readonly level: number;
      readonly edits: readonly PteEdit[];
      readonly user: boolean;
    }
  | { readonly kind: 'invlpg'; readonly va: bigint }
  /** `root` is the number of a root that the scenario made (then its address is meant), else an address. */
  | { readonly kind: 'cr3'; readonly root: bigint }
  /** Into a nested guest under the nested tables of that root; out of it. */
  | { readonly kind: 'l2'; readonly root: bigint }
  | { readonly kind: 'l1' }
  | { readonly kind: 'cr4'; readonly value: bigint }
  | { readonly kind: 'cr0'; readonly value: bigint }
  | { readonly kind: 'vcpu'; readonly vcpu: number }
  | ({ readonly kind: 'slot' } & SlotWords)
  | { readonly kind: 'log'; readonly slot: number; readonly on: boolean }
  | { readonly kind: 'ro'; readonly slot: number; readonly on: boolean }
  | { readonly kind: 'getlog'; readonly slot: number }
  /** `mask` is repeated for each 64 pages. */
  | {
      readonly kind: 'clearlog';
      readonly slot: number;
      readonly first: bigint;
      readonly count: bigint;
      readonly mask: bigint;
    }
  | { readonly kind: 'del'; readonly slot: number }
  | { readonly kind: 'move'; readonly slot: number; readonly gpa: bigint }
  | ({ readonly kind: 'dontneed' } & HostRange)
  | ({ readonly kind: 'munmap' } & HostRange)
  | ({ readonly kind: 'populate' } & HostRange)
  | ({ readonly kind: 'mprotect'; readonly prot: Protection } & HostRange)
  | { readonly kind: 'fork' }
  | { readonly kind: 'hw'; readonly gpa: bigint; readonly value: bigint }
  | { readonly kind: 'hr'; readonly gpa: bigint }
  | { readonly kind: 'mmupages'; readonly pages: bigint }
  | { readonly kind: 'getmmupages' }
  /** The raw calls: arguments as they stand, cut to the width of the struct's field. */
  | {
      readonly kind: 'region';
      readonly slot: number;
      readonly flags: number;
      readonly gpa: bigint;
      readonly size: bigint;
      readonly hva: bigint;
    }
  /** `fault`: the bitmap's address is none. */
  | { readonly kind: 'rawlog'; readonly slot: number; readonly fault: boolean }
  | {
      readonly kind: 'rawclear';
      readonly slot: number;
      readonly first: bigint;
      readonly count: number;
      readonly mask: bigint;
      readonly fault: boolean;
    }
  | { readonly kind: 'cap'; readonly cap: number; readonly flags: number; readonly argument: bigint }
  | { readonly kind: 'check'; readonly cap: bigint }
  | { readonly kind: 'translate'; readonly va: bigint }
  | { readonly kind: 'immediate' }
  | { readonly kind: 'prefault'; readonly gpa: bigint; readonly size: bigint; readonly flags: bigint }
  | { readonly kind: 'ringget'; readonly most: bigint }
  | { readonly kind: 'ringreset' }
  | { readonly kind: 'age'; readonly slot: number; readonly offset: bigint }
  /** One turn of the worker that recovers NX huge pages. */
  | { readonly kind: 'recover'; readonly ratio: bigint }
  | { readonly kind: 'rmaps' }
  | { readonly kind: 'param'; readonly name: string; readonly value: string };

export const MAX_SLOTS = 32;
export const MAX_VCPUS = 4;
const MAX_ROOTS = 16;
const U64_MAX = 0xffffffffffffffffn;
const HUGE_MASK = 0x1fffffn;

/** The words of a line; `#` starts a comment. */
export function splitWords(line: string): string[] {
  return line
    .replace(/#.*/s, '')
    .split(/[ \t\r\n]+/)
    .filter((word) => word !== '')
    .slice(0, 64);
}

/** `strtoull` with base 0, then K, M or G; nothing may follow. */
export function parseNumber(text: string): bigint {
  const match = /^(?:([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*))?([KMG]?)$/.exec(text);
  if (match === null) throw new ScenarioError(`bad number '${text}'`);
  const [, sign = '', digits = '0', suffix = ''] = match;
  let value = BigInt(/^0[0-7]/.test(digits) ? `0o${digits.slice(1)}` : digits);
  if (value > U64_MAX) value = U64_MAX;
  else if (sign === '-') value = BigInt.asUintN(64, -value);
  const shift = { '': 0n, K: 10n, M: 20n, G: 30n }[suffix] ?? 0n;
  return BigInt.asUintN(64, value << shift);
}

/** The arguments of one line, looked up as the recorder does. */
class Words {
  private readonly words: readonly string[];

  constructor(words: readonly string[]) {
    this.words = words;
  }

  text(index: number): string {
    const word = this.words[index];
    if (word === undefined) throw new ScenarioError(`${this.words[0]}: argument ${index} is missing`);
    return word;
  }

  number(index: number): bigint {
    return parseNumber(this.text(index));
  }

  numberOr(index: number, otherwise: bigint): bigint {
    return index < this.words.length ? this.number(index) : otherwise;
  }

  /** A number from 0 to `limit` - 1. */
  small(index: number, limit: number, what: string): number {
    const value = this.number(index);
    if (value >= BigInt(limit)) throw new ScenarioError(`no ${what} ${this.text(index)}`);
    return Number(value);
  }

  /** A number as a field of 32 bits takes it. */
  word(index: number): number {
    return Number(BigInt.asUintN(32, this.number(index)));
  }

  slot(index: number): number {
    return this.small(index, MAX_SLOTS, 'slot');
  }

  /** Whether the word stands anywhere behind the first. */
  has(option: string): boolean {
    return this.words.includes(option, 1);
  }

  /** The number of `name=NUMBER`. */
  option(name: string): bigint | undefined {
    const word = this.words.slice(1).find((w) => w.startsWith(`${name}=`));
    return word === undefined ? undefined : parseNumber(word.slice(name.length + 1));
  }

  from(index: number): readonly string[] {
    return this.words.slice(index);
  }
}

/** `ID GPA SIZE BACKING [ro] [log] [nopop] [hvaoff=N]`, from the words of a line that starts with `slot`. */
export function parseSlotWords(line: readonly string[]): SlotWords {
  const words = new Words(line);
  const gpa = words.number(2);
  const backing = words.text(4);
  return {
    slot: words.slot(1),
    gpa,
    size: words.number(3),
    backing: backing === '2m' || backing === '1g' || backing === 'thp' ? backing : '4k',
    readOnly: words.has('ro'),
    log: words.has('log'),
    nopop: words.has('nopop'),
    hvaOffset: words.option('hvaoff') ?? gpa & HUGE_MASK,
  };
}

function hostRange(words: Words): HostRange {
  return { slot: words.slot(1), offset: words.number(2), length: words.number(3) };
}

function protection(text: string): Protection {
  return text === 'none' || text === 'r' || text === 'rx' ? text : 'rw';
}

const PTE_LETTERS: Readonly<Record<string, bigint>> = {
  P: 0x1n,
  W: 0x2n,
  U: 0x4n,
  A: 0x20n,
  D: 0x40n,
  S: 0x80n,
  G: 0x100n,
  N: 1n << 63n,
};

function pteBits(text: string): bigint {
  if (/^[0-9]/.test(text)) return parseNumber(text);
  let bits = 0n;
  for (const letter of text) bits |= PTE_LETTERS[letter] ?? 0n;
  return bits;
}

function pteEdits(words: readonly string[]): PteEdit[] {
  const edits: PteEdit[] = [];
  for (const word of words) {
    const rest = word.slice(1);
    if (word.startsWith('=')) edits.push({ kind: 'set', value: parseNumber(rest) });
    else if (word.startsWith('~')) edits.push({ kind: 'copy', va: parseNumber(rest) });
    else if (word.startsWith('@')) edits.push({ kind: 'frame', gpa: parseNumber(rest) });
    else if (word.startsWith('+')) edits.push({ kind: 'add', bits: pteBits(rest) });
    else if (word.startsWith('-')) edits.push({ kind: 'clear', bits: pteBits(rest) });
  }
  return edits;
}

function parseWpte(words: Words): Op {
  const level = words.number(3);
  if (level < 1n || level > 4n) throw new ScenarioError(`wpte: no level ${level}`);
  return {
    kind: 'wpte',
    root: words.small(1, MAX_ROOTS, 'root'),
    va: words.number(2),
    level: Number(level),
    edits: pteEdits(words.from(4)),
    user: words.has('user'),
  };
}

const OPS: Readonly<Record<string, (words: Words) => Op>> = {
  r: (w) => ({ kind: 'r', bytes: 4, va: w.number(1), user: w.has('user') }),
  r8: (w) => ({ kind: 'r', bytes: 1, va: w.number(1), user: w.has('user') }),
  r64: (w) => ({ kind: 'r', bytes: 8, va: w.number(1), user: w.has('user') }),
  w: (w) => ({ kind: 'w', bytes: 4, va: w.number(1), value: w.number(2), user: w.has('user') }),
  w8: (w) => ({ kind: 'w', bytes: 1, va: w.number(1), value: w.number(2), user: w.has('user') }),
  w64: (w) => ({ kind: 'w', bytes: 8, va: w.number(1), value: w.number(2), user: w.has('user') }),
  xchg: (w) => ({ kind: 'xchg', va: w.number(1), value: w.number(2), user: w.has('user') }),
  x: (w) => ({ kind: 'x', va: w.number(1), user: w.has('user') }),
  nop: (w) => ({ kind: 'nop', user: w.has('user') }),
  wpte: parseWpte,
  invlpg: (w) => ({ kind: 'invlpg', va: w.number(1) }),
  cr3: (w) => ({ kind: 'cr3', root: w.number(1) }),
  l2: (w) => ({ kind: 'l2', root: w.number(1) }),
  l1: () => ({ kind: 'l1' }),
  cr4: (w) => ({ kind: 'cr4', value: w.number(1) }),
  cr0: (w) => ({ kind: 'cr0', value: w.number(1) }),
  vcpu: (w) => ({ kind: 'vcpu', vcpu: w.small(1, MAX_VCPUS, 'vcpu') }),
  slot: (w) => ({ kind: 'slot', ...parseSlotWords(w.from(0)) }),
  log: (w) => ({ kind: 'log', slot: w.slot(1), on: w.text(2) === 'on' }),
  ro: (w) => ({ kind: 'ro', slot: w.slot(1), on: w.text(2) === 'on' }),
  getlog: (w) => ({ kind: 'getlog', slot: w.slot(1) }),
  // The recorder makes a bitmap of that size.
  clearlog: (w) => ({
    kind: 'clearlog',
    slot: w.slot(1),
    first: w.number(2),
    count: BigInt(w.small(3, 2 ** 32, 'bitmap of as many pages as')),
    mask: w.option('mask') ?? U64_MAX,
  }),
  del: (w) => ({ kind: 'del', slot: w.slot(1) }),
  move: (w) => ({ kind: 'move', slot: w.slot(1), gpa: w.number(2) }),
  dontneed: (w) => ({ kind: 'dontneed', ...hostRange(w) }),
  munmap: (w) => ({ kind: 'munmap', ...hostRange(w) }),
  populate: (w) => ({ kind: 'populate', ...hostRange(w) }),
  mprotect: (w) => ({ kind: 'mprotect', ...hostRange(w), prot: protection(w.text(4)) }),
  fork: () => ({ kind: 'fork' }),
  hw: (w) => ({ kind: 'hw', gpa: w.number(1), value: BigInt.asUintN(32, w.number(2)) }),
  hr: (w) => ({ kind: 'hr', gpa: w.number(1) }),
  mmupages: (w) => ({ kind: 'mmupages', pages: w.number(1) }),
  getmmupages: () => ({ kind: 'getmmupages' }),
  region: (w) => ({
    kind: 'region',
    slot: w.word(1),
    flags: w.word(2),
    gpa: w.number(3),
    size: w.number(4),
    hva: w.number(5),
  }),
  rawlog: (w) => ({ kind: 'rawlog', slot: w.word(1), fault: w.has('fault') }),
  rawclear: (w) => ({
    kind: 'rawclear',
    slot: w.word(1),
    first: w.number(2),
    count: w.word(3),
    mask: w.option('mask') ?? U64_MAX,
    fault: w.has('fault'),
  }),
  cap: (w) => ({ kind: 'cap', cap: w.word(1), flags: w.word(2), argument: w.number(3) }),
  check: (w) => ({ kind: 'check', cap: w.number(1) }),
  translate: (w) => ({ kind: 'translate', va: w.number(1) }),
  immediate: () => ({ kind: 'immediate' }),
  prefault: (w) => ({ kind: 'prefault', gpa: w.number(1), size: w.number(2), flags: w.numberOr(3, 0n) }),
  ringget: (w) => ({ kind: 'ringget', most: w.numberOr(1, U64_MAX) }),
  ringreset: () => ({ kind: 'ringreset' }),
  age: (w) => ({ kind: 'age', slot: w.slot(1), offset: w.number(2) }),
  recover: (w) => ({ kind: 'recover', ratio: w.number(1) }),
  rmaps: () => ({ kind: 'rmaps' }),
  param: (w) => ({ kind: 'param', name: w.text(1), value: w.text(2) }),
};

/** One op, as it stands in a scenario behind `run` and in a recording as `op`. */
export function parseOp(text: string): Op {
  const words = splitWords(text);
  const [name] = words;
  if (name === undefined) throw new ScenarioError('an op without a word');
  const parse = Object.hasOwn(OPS, name) ? OPS[name] : undefined;
  if (parse === undefined) throw new ScenarioError(`unknown op '${name}'`);
  return parse(new Words(words));
}
