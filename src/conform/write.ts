/**
 * A recording as the recorder's JSON text: the same shape, the same folding of runs and one op a line, as
 * `recorder/convert.mjs` prints it. What was read from such a text is written as the same text.
 */
import { sameJson } from './canonical-json.ts';
import type { EntryChange, Folded, FoldedWord, MemoryWord, OpResult, Recording, TraceEvent } from './recording.ts';

/** The text of NAME.MODE.json. Keys of an event stand in the order in which the event has them. */
export function writeRecording(recording: Recording): string {
  const { memory, results, ...head } = recording;
  const open = JSON.stringify(head, null, 1).replace(/\n}$/, '');
  const ops = results.map((result) => `  ${JSON.stringify(foldOp(result))}`).join(',\n');
  return `${open},\n "memory": ${JSON.stringify(foldMemory(memory))},\n "results": [\n${ops}\n ]\n}\n`;
}

function foldOp(result: OpResult): Record<string, unknown> {
  const { n, op, res, events, stats, state, args, mmio, bitmap, slot, ring, slots } = result;
  return {
    n,
    op,
    res: res === undefined || isEmpty(res) ? undefined : res,
    events: foldEvents(events),
    stats: stats === undefined || isEmpty(stats) ? undefined : stats,
    state: foldState(state),
    args,
    mmio: mmio === undefined || mmio.length === 0 ? undefined : mmio,
    bitmap,
    slot,
    ring,
    slots,
  };
}

function isEmpty(object: object): boolean {
  return Object.values(object).every((value) => value === undefined);
}

/** Without what is empty; undefined if nothing changed. */
function foldState(state: OpResult['state']): Record<string, unknown> | undefined {
  if (state === undefined) return undefined;
  const { added, removed, changed, entries, mmu, pae_root } = state;
  const list = <T>(items: readonly T[] | undefined): readonly T[] | undefined =>
    items === undefined || items.length === 0 ? undefined : items;
  const folded = {
    added: list(added),
    removed: list(removed),
    changed: list(changed),
    entries: entries === undefined ? undefined : list(foldEntries(entries)),
    mmu,
    pae_root,
  };
  return isEmpty(folded) ? undefined : folded;
}

const FOLDED_EVENT = 'kvm_tdp_mmu_spte_changed';

/** Only the TDP MMU reports whole tables entry by entry, so only its event is folded: over consecutive frames. */
function foldEvents(events: readonly TraceEvent[]): Folded<TraceEvent>[] {
  return foldRuns(events, 'gfn', (first, event, n) => {
    if (event.name !== FOLDED_EVENT || first.name !== FOLDED_EVENT) return false;
    const { gfn, level } = first as unknown as { gfn: string; level: number };
    return BigInt(event['gfn'] as string) === BigInt(gfn) + (BigInt(n) << BigInt(9 * (level - 1)));
  });
}

function foldEntries(entries: readonly EntryChange[]): Folded<EntryChange>[] {
  return foldRuns(entries, 'index', (first, entry, n) => entry.sp === first.sp && entry.index === first.index + n);
}

/** Folds each run into its first element; `follows(first, candidate, n)`: is the candidate the n-th after the first? */
function foldRuns<T extends object>(
  items: readonly T[],
  running: keyof T & string,
  follows: (first: T, candidate: T, n: number) => boolean,
): Folded<T>[] {
  const runs: { first: T; count: number }[] = [];
  for (const item of items) {
    const run = runs.at(-1);
    if (run !== undefined && follows(run.first, item, run.count) && alikeBut(run.first, item, running)) run.count++;
    else runs.push({ first: item, count: 1 });
  }
  return runs.map(({ first, count }) => (count === 1 ? first : { ...first, count }));
}

function alikeBut<T extends object>(a: T, b: T, running: keyof T): boolean {
  for (const key in a) if (key !== running && !sameJson(a[key], b[key])) return false;
  for (const key in b) if (b[key] !== undefined && a[key] === undefined) return false;
  return true;
}

/** Neighbouring words whose values go up in equal steps are one run. */
function foldMemory(words: readonly MemoryWord[]): FoldedWord[] {
  const runs: { gpa: bigint; value: bigint; count: number; step: bigint }[] = [];
  for (const [gpa, value] of words) {
    const run = runs.at(-1);
    const next = run !== undefined && gpa === run.gpa + 8n * BigInt(run.count);
    if (next && (run.count === 1 || value === run.value + run.step * BigInt(run.count))) {
      if (run.count === 1) run.step = value - run.value;
      run.count++;
    } else runs.push({ gpa, value, count: 1, step: 0n });
  }
  const hex = (value: bigint): string => `0x${BigInt.asUintN(64, value).toString(16)}`;
  return runs.map(({ gpa, value, count, step }) =>
    count === 1 ? [hex(gpa), hex(value)] : [hex(gpa), hex(value), count, hex(step)],
  );
}
