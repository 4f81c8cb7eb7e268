/**
 * Are two recordings identical? The recorder's README defines it, and `recorder/compare.mjs --ad` is the judge; this
 * is the same judgement on recordings in memory.
 *
 * Compared are, op by op: the text; `res`, `mmio`, `bitmap`, `ring` and `slots` as one thing; all tracepoints in order; the statistics;
 * the changes of state. Left out are the probes, `args` and `slot` of an op, and all of the head but `complete`. Within
 * an op the order of removed pages, of entries and of changed pages does not count.
 */
import { canonicalJson, sameJson } from './canonical-json.ts';
import type { OpResult, Recording } from './recording.ts';

export type Part = 'complete' | 'op' | 'res' | 'events' | 'stats' | 'state';

/** The first difference in one part of one op. */
export interface Difference {
  /** Number of the op, from 0; -1 where the recording as a whole differs. */
  readonly op: number;
  readonly text: string;
  readonly part: Part;
  /** Place within the part, counted in what is compared. */
  readonly index: number;
  /** undefined: the list has ended before. */
  readonly want: unknown;
  readonly got: unknown;
}

export interface CompareOptions {
  /** kvm_entry, kvm_exit and kvm_emulate_insn too (`--ad --skip=`). */
  readonly strict?: boolean;
  /** The probes too (`--probes`). They are for finding out why, and depend on what a compiler inlined. */
  readonly probes?: boolean;
  /** How many differences to return; all are counted. */
  readonly limit?: number;
}

export interface Comparison {
  /** How many parts of ops differ. 0: the two are identical. */
  readonly count: number;
  /** The first of them, in order. */
  readonly differences: readonly Difference[];
}

const NOT_COMPARED: ReadonlySet<string> = new Set(['kvm_entry', 'kvm_exit', 'kvm_emulate_insn']);

/** What an op's parts consist of, as flat lists whose order counts. */
const PARTS: readonly (readonly [Part, (result: OpResult, options: CompareOptions) => readonly unknown[]])[] = [
  ['res', ({ res, mmio, bitmap, ring, slots }) => [{ res, mmio, bitmap, ring, slots }]],
  ['events', eventList],
  ['stats', statList],
  ['state', stateList],
];

/** Compares what was recorded (or is wanted otherwise) with what came out. */
export function compareRecordings(want: Recording, got: Recording, options: CompareOptions = {}): Comparison {
  const limit = options.limit ?? Infinity;
  const differences: Difference[] = [];
  let count = 0;
  const note = (difference: Difference): void => {
    if (count++ < limit) differences.push(difference);
  };
  if (want.complete !== got.complete) {
    note({ op: -1, text: '', part: 'complete', index: 0, want: want.complete, got: got.complete });
  }
  for (let i = 0; i < Math.max(want.results.length, got.results.length); i++) {
    const x = want.results[i];
    const y = got.results[i];
    if (x === undefined || y === undefined || x.op !== y.op) {
      note({ op: i, text: x?.op ?? y?.op ?? '', part: 'op', index: 0, want: x?.op, got: y?.op });
      break;
    }
    for (const [part, list] of PARTS) {
      const difference = firstDifference(list(x, options), list(y, options));
      if (difference !== undefined) note({ op: x.n, text: x.op, part, ...difference });
    }
  }
  return { count, differences };
}

/** One line: op, text, part, and both sides as canonical JSON. */
export function formatDifference({ op, text, part, index, want, got }: Difference): string {
  const side = (value: unknown): string => (value === undefined ? '(end)' : canonicalJson(value));
  const sides = `want ${side(want)} got ${side(got)}`;
  if (part === 'complete') return `complete: ${sides}`;
  if (part === 'op') return `#${op}: ${part} ${sides}`;
  return `#${op} ${text}: ${part}[${index}] ${sides}`;
}

function firstDifference(
  want: readonly unknown[],
  got: readonly unknown[],
): { index: number; want: unknown; got: unknown } | undefined {
  for (let i = 0; i < Math.max(want.length, got.length); i++) {
    if (i >= want.length || i >= got.length || !sameJson(want[i], got[i])) {
      return { index: i, want: want[i], got: got[i] };
    }
  }
  return undefined;
}

function eventList({ events }: OpResult, { strict, probes }: CompareOptions): readonly unknown[] {
  return events.filter((event) => (probes || !event.probe) && (strict || !NOT_COMPARED.has(event.name)));
}

function statList({ stats = {} }: OpResult): readonly unknown[] {
  return Object.entries(stats)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => ({ [name]: value }));
}

function stateList({ state }: OpResult): readonly unknown[] {
  if (state === undefined) return [];
  const { added = [], removed = [], entries = [], changed = [], pae_root, mmu } = state;
  return [
    ...added.map((page) => ({ added: page })),
    ...[...removed].sort((a, b) => a - b).map((id) => ({ removed: id })),
    ...entries.filter((entry) => !sameJson(entry.old, entry.new)).sort((a, b) => a.sp - b.sp || a.index - b.index),
    ...[...changed].sort((a, b) => a.id - b.id).map((page) => ({ changed: page })),
    ...(pae_root === undefined ? [] : [{ pae_root }]),
    ...(mmu === undefined ? [] : [{ mmu }]),
  ];
}
