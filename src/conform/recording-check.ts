/** The shapes of the recorder's JSON: each part of a recording is checked here before anybody relies on its type. */
import type { JsonCheck } from './json-check.ts';
import type { EntryChange, Folded, FoldedWord, OpResult, RecordingHead, TraceEvent } from './recording.ts';

/** An op as it stands in a file, with its runs folded. */
export interface FoldedOp extends Omit<OpResult, 'events' | 'state'> {
  readonly events: readonly Folded<TraceEvent>[];
  readonly state?: Omit<NonNullable<OpResult['state']>, 'entries'> & {
    readonly entries?: readonly Folded<EntryChange>[];
  };
}

/** More than this is taken for damage: unfolded it would not fit into memory. */
const MAX_RUN = 1 << 21;
const TABLE_ENTRIES = 512;

const keys = (text: string): ReadonlySet<string> => new Set(text.split(' '));

const ENTRY_KEYS = keys('bits flags mapping mmio');
const ROLE_KEYS = keys(
  'word level direct access gpte4 quadrant invalid efer_nx cr0_wp smep_andnot_wp smap_andnot_wp ad_disabled guest_mode passthrough',
);
const PLACE_KEYS = keys('sp index');
const SLOT_KEYS = keys('id gpa size backing flags hva_offset');
const OP_KEYS = keys('n op res events stats state args mmio bitmap slot ring slots');
const MMIO_KEYS = keys('dir gpa len data');
const STATE_KEYS = keys('added removed changed entries mmu pae_root');
const ADDED_KEYS = keys('id gfn role tdp');
const CHANGED_KEYS = keys('id unsync root_count unsync_children gen flood nx_disallowed invalid');
const CHANGE_KEYS = keys('sp index old new host count');
const MMU_KEYS = keys('root_sp used_pages indirect cpu_role root_role');
const BITMAP_KEYS = keys('slot gfns');

/** Everything but `memory` and `results`. Fields that are not known stay: nobody compares them. */
export function checkHead(check: JsonCheck, head: Record<string, unknown>): RecordingHead {
  field(check, head, 'scenario', (v) => check.text(v));
  field(check, head, 'mode', (v) => check.oneOf(v, ['A', 'B', 'C']));
  field(check, head, 'kernel', (v) => check.text(v));
  field(check, head, 'params', (v) => everyValue(check, v, (value) => check.text(value)));
  field(check, head, 'paging', (v) => check.oneOf(v, ['long', 'pae', '32', 'none']));
  optional(check, head, 'hostLevels', (v) => check.integer(v, 4, 5));
  field(check, head, 'slots', (v) => check.each(v, (slot) => checkSlot(check, slot)));
  field(check, head, 'roots', (v) => everyValue(check, v, (value) => check.hex(value)));
  head['complete'] ??= true;
  field(check, head, 'complete', (v) => check.boolean(v));
  optional(check, head, 'error', (v) => check.text(v));
  optional(check, head, 'warnings', (v) => check.each(v, (warning) => check.text(warning)));
  return head as unknown as RecordingHead;
}

export function checkMemory(check: JsonCheck, memory: unknown): readonly FoldedWord[] {
  check.within('memory');
  let total = 0;
  check.each(memory, (value) => {
    const word = check.array(value);
    if (word.length !== 2 && word.length !== 4) check.fail('must be [gpa, value] or [gpa, value, count, step]', word);
    check.hex(word[0]);
    check.hex(word[1]);
    total += word.length === 4 ? check.integer(word[2], 1, MAX_RUN) : 1;
    if (word.length === 4) check.hex(word[3]);
    if (total > MAX_RUN) check.fail(`more than ${MAX_RUN} words of memory`);
  });
  check.up();
  return memory as readonly FoldedWord[];
}

/** One element of `results`; its number must be its place. Once its op is known, that takes the place of the path. */
export function checkOpResult(check: JsonCheck, value: unknown, index: number): FoldedOp {
  check.within(index);
  const op = check.object(value);
  field(check, op, 'n', (n) => check.integer(n, index, index));
  field(check, op, 'op', (text) => check.text(text));
  check.up();
  check.withinOp(index, op['op'] as string);
  check.only(op, OP_KEYS);
  optional(check, op, 'res', (v) => checkExit(check, v));
  field(check, op, 'events', (v) => check.each(v, (event) => checkEvent(check, event)));
  optional(check, op, 'stats', (v) => everyValue(check, v, (stat) => check.integer(stat)));
  optional(check, op, 'state', (v) => checkState(check, v));
  optional(check, op, 'args', (v) => everyValue(check, v, (arg) => check.hex(arg)));
  optional(check, op, 'mmio', (v) => check.each(v, (exit) => checkMmio(check, exit)));
  optional(check, op, 'bitmap', (v) => checkBitmap(check, v));
  optional(check, op, 'slot', (v) => checkSlot(check, v));
  optional(check, op, 'ring', (v) => checkTuples(check, v, 2));
  optional(check, op, 'slots', (v) => checkSlotTables(check, v));
  check.upFromOp();
  return op as unknown as FoldedOp;
}

function field(check: JsonCheck, object: Record<string, unknown>, key: string, test: (value: unknown) => void): void {
  check.within(key);
  test(object[key]);
  check.up();
}

function optional(
  check: JsonCheck,
  object: Record<string, unknown>,
  key: string,
  test: (value: unknown) => void,
): void {
  if (object[key] !== undefined) field(check, object, key, test);
}

function everyValue(check: JsonCheck, value: unknown, test: (value: unknown) => void): void {
  const object = check.object(value);
  for (const key in object) field(check, object, key, test);
}

function checkSlot(check: JsonCheck, value: unknown): void {
  const slot = check.object(value);
  check.only(slot, SLOT_KEYS);
  field(check, slot, 'id', (v) => check.integer(v, 0));
  field(check, slot, 'gpa', (v) => check.hex(v));
  field(check, slot, 'size', (v) => check.hex(v));
  field(check, slot, 'backing', (v) => check.text(v));
  field(check, slot, 'flags', (v) => check.integer(v, 0));
  field(check, slot, 'hva_offset', (v) => check.hex(v));
}

function checkExit(check: JsonCheck, value: unknown): void {
  const exit = check.object(value);
  for (const key in exit) {
    field(check, exit, key, (v) => {
      if (key === 'exit') check.text(v);
      else if (key === 'ret' || key === 'errno') check.integer(v);
      else check.hex(v);
    });
  }
}

function checkTuples(check: JsonCheck, value: unknown, length: number): void {
  check.each(value, (tuple) => {
    const numbers = check.array(tuple);
    if (numbers.length !== length) check.fail(`must have ${length} numbers`, tuple);
    for (const number of numbers) check.integer(number, 0);
  });
}

function checkSlotTables(check: JsonCheck, value: unknown): void {
  const tables = check.object(value);
  check.only(tables, keys('rmaps lpages'));
  optional(check, tables, 'lpages', (v) => checkTuples(check, v, 4));
  optional(check, tables, 'rmaps', (v) =>
    check.each(v, (rmap) => {
      const head = check.object(rmap);
      check.only(head, keys('slot level index sptes'));
      for (const key of ['slot', 'level', 'index']) field(check, head, key, (n) => check.integer(n, 0));
      field(check, head, 'sptes', (list) => checkTuples(check, list, 2));
    }),
  );
}

function checkMmio(check: JsonCheck, value: unknown): void {
  const exit = check.object(value);
  check.only(exit, MMIO_KEYS);
  field(check, exit, 'dir', (v) => check.oneOf(v, ['read', 'write']));
  field(check, exit, 'gpa', (v) => check.hex(v));
  field(check, exit, 'len', (v) => check.integer(v, 0));
  field(check, exit, 'data', (v) => check.hex(v));
}

function checkBitmap(check: JsonCheck, value: unknown): void {
  const bitmap = check.object(value);
  check.only(bitmap, BITMAP_KEYS);
  field(check, bitmap, 'slot', (v) => check.integer(v, 0));
  field(check, bitmap, 'gfns', (v) =>
    check.each(v, (element) => {
      const range = check.array(element);
      if (range.length !== 2) check.fail('must be [first, last]', range);
      check.integer(range[1], check.integer(range[0], 0));
    }),
  );
}

function checkEntry(check: JsonCheck, value: unknown): void {
  const entry = check.object(value);
  check.only(entry, ENTRY_KEYS);
  field(check, entry, 'bits', (v) => check.hex(v));
  optional(check, entry, 'flags', (v) => check.text(v));
  optional(check, entry, 'mapping', (v) => check.integer(v, 0, 1));
  optional(check, entry, 'mmio', (v) => check.integer(v, 0, 1));
}

function checkRole(check: JsonCheck, value: unknown): void {
  const role = check.object(value);
  check.only(role, ROLE_KEYS);
  field(check, role, 'word', (v) => check.hex(v));
  field(check, role, 'level', (v) => check.integer(v, 0));
  field(check, role, 'access', (v) => check.text(v));
  field(check, role, 'direct', (v) => check.integer(v, 0));
  for (const key in role) {
    if (key !== 'word' && key !== 'access') field(check, role, key, (v) => check.integer(v, 0));
  }
}

function checkEvent(check: JsonCheck, value: unknown): void {
  const event = check.object(value);
  field(check, event, 'name', (v) => check.text(v));
  for (const key in event) {
    const part = event[key];
    // Most fields are plain; a step into the path for each of them would be half of the time.
    if (typeof part === 'string' || (typeof part === 'number' && Number.isSafeInteger(part))) continue;
    field(check, event, key, (v) => {
      if (key === 'role') checkRole(check, v);
      else if (key === 'at') checkPlace(check, v);
      else if (typeof v === 'object') checkEntry(check, v);
      else check.fail('must be an integer, a text or an entry', v);
    });
  }
  if (event['count'] === undefined) return;
  field(check, event, 'count', (v) => check.integer(v, 1, MAX_RUN));
  field(check, event, 'gfn', (v) => check.hex(v));
  field(check, event, 'level', (v) => check.integer(v, 1, 5));
}

function checkPlace(check: JsonCheck, value: unknown): void {
  const place = check.object(value);
  check.only(place, PLACE_KEYS);
  field(check, place, 'sp', (v) => check.integer(v, 0));
  field(check, place, 'index', (v) => check.integer(v, 0, TABLE_ENTRIES - 1));
}

function checkState(check: JsonCheck, value: unknown): void {
  const state = check.object(value);
  check.only(state, STATE_KEYS);
  optional(check, state, 'added', (v) => check.each(v, (page) => checkAdded(check, page)));
  optional(check, state, 'removed', (v) => check.each(v, (id) => check.integer(id, 0)));
  optional(check, state, 'changed', (v) => check.each(v, (page) => checkChanged(check, page)));
  optional(check, state, 'entries', (v) => check.each(v, (entry) => checkEntryChange(check, entry)));
  optional(check, state, 'mmu', (v) => checkMmu(check, v));
  optional(check, state, 'pae_root', (v) => check.each(v, (sp) => (sp === null ? null : check.integer(sp, -1))));
}

function checkAdded(check: JsonCheck, value: unknown): void {
  const page = check.object(value);
  check.only(page, ADDED_KEYS);
  field(check, page, 'id', (v) => check.integer(v, 0));
  field(check, page, 'gfn', (v) => check.hex(v));
  field(check, page, 'role', (v) => checkRole(check, v));
  field(check, page, 'tdp', (v) => check.integer(v, 0, 1));
}

function checkChanged(check: JsonCheck, value: unknown): void {
  const page = check.object(value);
  check.only(page, CHANGED_KEYS);
  field(check, page, 'id', (v) => check.integer(v, 0));
  field(check, page, 'root_count', (v) => check.integer(v));
  field(check, page, 'invalid', (v) => check.integer(v, 0, 1));
  for (const key in page) field(check, page, key, (v) => check.integer(v));
}

function checkEntryChange(check: JsonCheck, value: unknown): void {
  const entry = check.object(value);
  check.only(entry, CHANGE_KEYS);
  field(check, entry, 'sp', (v) => check.integer(v, 0));
  field(check, entry, 'index', (v) => check.integer(v, 0, TABLE_ENTRIES - 1));
  field(check, entry, 'old', (v) => checkEntry(check, v));
  field(check, entry, 'new', (v) => checkEntry(check, v));
  optional(check, entry, 'host', (v) => check.oneOf(v, ['ok', 'stale', 'gone']));
  optional(check, entry, 'count', (v) => check.integer(v, 1, TABLE_ENTRIES - (entry['index'] as number)));
}

function checkMmu(check: JsonCheck, value: unknown): void {
  const mmu = check.object(value);
  check.only(mmu, MMU_KEYS);
  field(check, mmu, 'root_sp', (v) => check.integer(v, -1));
  field(check, mmu, 'used_pages', (v) => check.integer(v, 0));
  field(check, mmu, 'indirect', (v) => check.integer(v, 0));
  field(check, mmu, 'cpu_role', (v) => check.hex(v));
  field(check, mmu, 'root_role', (v) => checkRole(check, v));
}
