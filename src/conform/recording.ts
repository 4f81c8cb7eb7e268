/**
 * A recording: what one scenario did in one mode, op by op. These are the types of the recorder's JSON (its README
 * tells what each field means), with the folded runs unfolded.
 *
 * Names of fields are the file's, which are the kernel's. Numbers of 64 bits stay the `0x...` texts that the file has:
 * that is what is compared. Only the memory's words are bigints.
 */
import { JsonCheck, RecordingError } from './json-check.ts';
import { checkHead, checkMemory, checkOpResult } from './recording-check.ts';

export { RecordingError } from './json-check.ts';

/** `0x...`: lower case, without leading zeros, below 2^64. */
export type Hex = string;

/** A: rmap-based direct MMU; B: TDP MMU; C: shadow paging. */
export type Mode = 'A' | 'B' | 'C';

export interface SlotInfo {
  readonly id: number;
  readonly gpa: Hex;
  readonly size: Hex;
  readonly backing: string;
  readonly flags: number;
  readonly hva_offset: Hex;
}

/** An entry of a page table without its frame. */
export interface Entry {
  readonly bits: Hex;
  readonly flags?: string;
  /** 0: not a mapping, but an MMIO entry or a marker; `bits` is the whole entry. */
  readonly mapping?: number;
  readonly mmio?: number;
}

export interface RoleInfo {
  readonly word: Hex;
  readonly level: number;
  readonly direct: number;
  readonly access: string;
  readonly gpte4?: number;
  readonly quadrant?: number;
  readonly invalid?: number;
  readonly efer_nx?: number;
  readonly cr0_wp?: number;
  readonly smep_andnot_wp?: number;
  readonly smap_andnot_wp?: number;
  readonly ad_disabled?: number;
  readonly guest_mode?: number;
  readonly passthrough?: number;
}

/** Where an entry stands: shadow page (by the order of appearance) and index in its table. */
export interface Place {
  readonly sp: number;
  readonly index: number;
}

export type EventField = number | Hex | Entry | RoleInfo | Place;

/** A tracepoint, or with `probe: 1` a function's entry. */
export interface TraceEvent {
  readonly name: string;
  readonly probe?: number;
  readonly [field: string]: EventField | undefined;
}

export interface OpExit {
  readonly exit?: string;
  readonly ret?: number;
  readonly errno?: number;
  readonly value?: Hex;
  readonly cr2?: Hex;
  readonly err?: Hex;
  readonly rip?: Hex;
  readonly suberror?: Hex;
  /** Of `translate`. */
  readonly gpa?: Hex;
  readonly valid?: Hex;
  readonly writable?: Hex;
  readonly user?: Hex;
}

export interface MmioExit {
  readonly dir: 'read' | 'write';
  readonly gpa: Hex;
  readonly len: number;
  readonly data: Hex;
}

export interface AddedPage {
  readonly id: number;
  readonly gfn: Hex;
  readonly role: RoleInfo;
  readonly tdp: number;
}

/** Attributes of a shadow page of which one changed; pages of the TDP MMU have the marked ones only. */
export interface ChangedPage {
  readonly id: number;
  readonly unsync?: number;
  /** TDP MMU too. */
  readonly root_count: number;
  readonly unsync_children?: number;
  readonly gen?: number;
  readonly flood?: number;
  readonly nx_disallowed?: number;
  /** TDP MMU too. */
  readonly invalid: number;
}

export interface EntryChange {
  readonly sp: number;
  readonly index: number;
  readonly old: Entry;
  readonly new: Entry;
  /** Is the frame the one that the host maps there now? */
  readonly host?: 'ok' | 'stale' | 'gone';
}

export interface MmuState {
  readonly root_sp: number;
  readonly used_pages: number;
  readonly indirect: number;
  readonly cpu_role: Hex;
  readonly root_role: RoleInfo;
}

/** The difference to the end of the previous op; what did not change is absent. */
export interface StateChange {
  readonly added?: readonly AddedPage[];
  readonly removed?: readonly number[];
  readonly changed?: readonly ChangedPage[];
  readonly entries?: readonly EntryChange[];
  readonly mmu?: MmuState;
  readonly pae_root?: readonly (number | null)[];
}

/** Reverse maps and counts against large pages, as far as they aren't empty. */
export interface SlotTables {
  /** Entries in the list's order, each as page and index. */
  readonly rmaps?: readonly {
    slot: number;
    level: number;
    index: number;
    sptes: readonly ([number, number] | null)[];
  }[];
  readonly lpages?: readonly (readonly [slot: number, level: number, index: number, count: number])[];
}

export interface OpResult {
  readonly n: number;
  /** The op's text; `parseOp` reads it. */
  readonly op: string;
  readonly res?: OpExit;
  readonly events: readonly TraceEvent[];
  readonly stats?: Readonly<Record<string, number>>;
  readonly state?: StateChange;
  /** What the recorder worked out for `wpte` and `cr3`: an output, not needed to replay the op. */
  readonly args?: Readonly<Record<string, Hex>>;
  readonly mmio?: readonly MmioExit[];
  /** Dirty pages relative to the slot, as inclusive ranges. */
  readonly bitmap?: { readonly slot: number; readonly gfns: readonly (readonly [number, number])[] };
  /** What `ringget` took out of the vCPU's dirty ring: slot (and address space), page. */
  readonly ring?: readonly (readonly [slot: number, offset: number])[];
  /** What `rmaps` shows of the slots' tables. */
  readonly slots?: SlotTables;
  /** The slot that a `slot` op made: an output too. */
  readonly slot?: SlotInfo;
}

export interface RecordingHead {
  readonly scenario: string;
  readonly mode: Mode;
  readonly kernel: string;
  readonly params: Readonly<Record<string, string>>;
  readonly paging: 'long' | 'pae' | '32' | 'none';
  /** Levels of the host's tables, and so of nested ones, where they aren't 4. */
  readonly hostLevels?: 4 | 5;
  readonly slots: readonly SlotInfo[];
  /** Number of a root to the address of its table. */
  readonly roots: Readonly<Record<string, Hex>>;
  readonly complete: boolean;
  readonly error?: string;
  readonly warnings?: readonly string[];
}

/** Address and value of 8 bytes of guest memory that are not all zero. */
export type MemoryWord = readonly [gpa: bigint, value: bigint];

export interface Recording extends RecordingHead {
  /** The guest's memory when the first op starts. */
  readonly memory: readonly MemoryWord[];
  readonly results: readonly OpResult[];
}

/** What a replay may know: the start, and the texts of the ops. */
export interface Script extends Omit<RecordingHead, 'complete' | 'error' | 'warnings'> {
  readonly memory: readonly MemoryWord[];
  readonly results: readonly { readonly n: number; readonly op: string }[];
}

/** A folded run in a file: `count` like things from this one on. */
export type Folded<T> = T & { readonly count?: number };

/** Memory in a file: `[gpa, value]` or `[gpa, value, count, step of the value]`. */
export type FoldedWord = readonly [gpa: Hex, value: Hex, count?: number, step?: Hex];

/** The recording without anything that the kernel answered. */
export function strip(recording: Recording): Script {
  const { complete: _complete, error: _error, warnings: _warnings, results, ...start } = recording;
  return { ...start, results: results.map(({ n, op }) => ({ n, op })) };
}

/** Reads a recording's JSON text. Throws a `RecordingError` that starts with `file` for anything malformed. */
export function parseRecording(text: string, file: string): Recording {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw new RecordingError(`${file}: is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  const check = new JsonCheck(file);
  const { memory, results, ...head } = check.object(document);
  return assembleRecording(check, head, memory, results);
}

/** Checks and unfolds the parts of a recording, wherever they were stored. */
export function assembleRecording(
  check: JsonCheck,
  head: Record<string, unknown>,
  memory: unknown,
  results: unknown,
): Recording {
  const checkedHead = checkHead(check, head);
  const words = unfoldMemory(checkMemory(check, memory));
  check.within('results');
  const list = check.array(results);
  const stripped = list.every(hasNoEvents);
  const ops = list.map((result, i) => readOp(check, stripped ? withoutEvents(result) : result, i));
  check.up();
  return { ...checkedHead, memory: words, results: ops };
}

/** A script has no events in any op; a recording has them in each. */
function hasNoEvents(result: unknown): boolean {
  return typeof result === 'object' && result !== null && !('events' in result);
}

function withoutEvents(result: unknown): unknown {
  return { ...(result as object), events: [] };
}

function readOp(check: JsonCheck, value: unknown, index: number): OpResult {
  const folded = checkOpResult(check, value, index);
  const events = unfoldEvents(folded.events);
  if (folded.state?.entries === undefined) return { ...folded, events };
  return { ...folded, events, state: { ...folded.state, entries: unfoldEntries(folded.state.entries) } };
}

function unfoldMemory(runs: readonly FoldedWord[]): MemoryWord[] {
  const words: MemoryWord[] = [];
  for (const [gpa, value, count = 1, step = '0x0'] of runs) {
    let address = BigInt(gpa);
    let word = BigInt(value);
    const stepBy = BigInt(step);
    for (let i = 0; i < count; i++) {
      words.push([address, word]);
      address += 8n;
      word = BigInt.asUintN(64, word + stepBy);
    }
  }
  return words;
}

/** A run of events is one on consecutive frames of its level. */
function unfoldEvents(events: readonly Folded<TraceEvent>[]): TraceEvent[] {
  if (events.every((event) => event.count === undefined)) return events as TraceEvent[];
  return events.flatMap(({ count = 1, ...event }) => {
    if (count === 1) return [event];
    const { gfn, level } = event as unknown as { gfn: Hex; level: number };
    const first = BigInt(gfn);
    const shift = BigInt(9 * (level - 1));
    return Array.from({ length: count }, (_, i) => ({
      ...(event as TraceEvent),
      gfn: `0x${(first + (BigInt(i) << shift)).toString(16)}`,
    }));
  });
}

/** A run of entries is one on consecutive indexes. */
function unfoldEntries(entries: readonly Folded<EntryChange>[]): EntryChange[] {
  if (entries.every((entry) => entry.count === undefined)) return entries as EntryChange[];
  return entries.flatMap(({ count = 1, ...entry }) =>
    Array.from({ length: count }, (_, i) => ({ ...entry, index: entry.index + i })),
  );
}
