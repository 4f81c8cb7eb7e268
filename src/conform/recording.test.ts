import { describe, expect, it } from 'vitest';
import { parseRecording, RecordingError, strip } from './recording.ts';
import { givenPack } from './testing/given.ts';
import { writeRecording } from './write.ts';

const ROLE = { word: '0x3781', level: 1, direct: 1, access: 'uwx', efer_nx: 1, cr0_wp: 1 };

/** The parts of a small recording as a file has them; a test may change its copy. */
function parts() {
  const head = {
    scenario: 's',
    mode: 'B',
    kernel: '6.1.0 #1',
    params: { npt: '1' },
    paging: 'long',
    slots: [{ id: 0, gpa: '0x0', size: '0x100000', backing: '4k', flags: 0, hva_offset: '0x0' as unknown }],
    roots: { '0': '0x10000' },
    complete: true as unknown,
  };
  const memory: unknown[] = [
    ['0x1000', '0x10e6'],
    ['0x2000', '0xfffffffffffffff0', 3, '0x8'],
  ];
  const large = { bits: '0xee7', flags: 'PWUADShm' };
  const run = { name: 'kvm_tdp_mmu_spte_changed', gfn: '0x400', old_spte: { bits: '0x0' }, new_spte: large, level: 2 };
  const events: Record<string, unknown>[] = [
    { name: 'flush_all', probe: 1 },
    { ...run, as_id: 0, count: 3 },
  ];
  const entry = { sp: 0, index: 2, old: { bits: '0x0' }, new: large, host: 'ok', count: 2 };
  const nop = {
    n: 0,
    op: 'nop',
    res: { exit: 'done' },
    events,
    stats: { pages_2m: 3 as unknown },
    state: {
      added: [{ id: 0, gfn: '0x0', role: ROLE, tdp: 1 }],
      entries: [entry],
      mmu: { root_sp: 0, used_pages: 1, indirect: 0, cpu_role: '0x3704', root_role: ROLE },
      pae_root: [0, null, null, null],
    },
  };
  const bitmap = { slot: 1, gfns: [[0, 3]] };
  const getlog = { n: 1, op: 'getlog 1' as unknown, res: { ret: 0 }, events: [] as unknown, bitmap };
  return { head, memory, nop, events, entry, getlog, results: [nop, getlog] as unknown };
}

type Parts = ReturnType<typeof parts>;

function parse(change: (p: Parts) => void = () => {}) {
  const p = parts();
  change(p);
  return parseRecording(JSON.stringify({ ...p.head, memory: p.memory, results: p.results }), 'x.B.json');
}

describe('a recording', () => {
  it('has its memory word by word', () => {
    expect(parse().memory).toEqual([
      [0x1000n, 0x10e6n],
      [0x2000n, 0xfffffffffffffff0n],
      [0x2008n, 0xfffffffffffffff8n],
      [0x2010n, 0n],
    ]);
  });

  it('has each event of a run, on consecutive frames of the level', () => {
    const events = parse().results[0]?.events ?? [];
    expect(events.map((event) => event['gfn'])).toEqual([undefined, '0x400', '0x600', '0x800']);
    expect(events.every((event) => !('count' in event))).toBe(true);
  });

  it('has each entry of a run, on consecutive indexes', () => {
    const { entries = [] } = parse().results[0]?.state ?? {};
    expect(entries.map(({ sp, index, host }) => [sp, index, host])).toEqual([
      [0, 2, 'ok'],
      [0, 3, 'ok'],
    ]);
  });

  it('that is stripped tells where it starts and which ops are done, and nothing that the kernel answered', () => {
    const { memory, ...script } = strip(parse());
    expect(memory).toHaveLength(4);
    const { complete: _complete, ...head } = parts().head;
    expect(script).toEqual({
      ...head,
      results: [
        { n: 0, op: 'nop' },
        { n: 1, op: 'getlog 1' },
      ],
    });
  });

  it.each(['6.1-core', '6.1-random'] as const)('of %s is well-formed and has an event and a state', (set) => {
    for (const packed of givenPack(set)) {
      const recording = packed.load();
      expect(recording.complete).toBe(true);
      expect(recording.results.some(({ events, state }) => events.length > 0 && state !== undefined)).toBe(true);
    }
  });
});

describe('a malformed recording', () => {
  // biome-ignore format: a table
  it.each<[string, (p: Parts) => void, string]>([
    ['a mode that is none',       (p) => { p.head.mode = 'D'; },                          ' mode: must be one of A, B, C, not "D"'],
    ['no kernel',                 (p) => { p.head.kernel = ''; },                         ' kernel: must be a text, not ""'],
    ['a slot without an offset',  (p) => { p.head.slots[0].hva_offset = undefined; },     ' slots[0].hva_offset: must be a hexadecimal number (0x...), not missing'],
    ['a size in capitals',        (p) => { p.head.slots[0].size = '0XF'; },               ' slots[0].size: must be a hexadecimal number (0x...), not "0XF"'],
    ['a root of 65 bits',         (p) => { p.head.roots[0] = '0x10000000000000000'; },    ' roots.0: must be a hexadecimal number (0x...), not "0x10000000000000000"'],
    ['complete as a number',      (p) => { p.head.complete = 1; },                        ' complete: must be true or false, not 1'],
    ['memory of three words',     (p) => { p.memory[0] = ['0x0', '0x1', 2]; },            ' memory[0]: must be [gpa, value] or [gpa, value, count, step], not ["0x0","0x1",2]'],
    ['memory that never ends',    (p) => { p.memory[1] = ['0x0', '0x1', 1e9, '0x0']; },   ' memory[1]: must be an integer from 1 to 2097152, not 1000000000'],
    ['no results',                (p) => { p.results = undefined; },                      ' results: must be a list, not missing'],
    ['ops out of order',          (p) => { p.results = [p.getlog, p.nop]; },              ' results[0].n: must be an integer from 0 to 0, not 1'],
    ['an op that is no text',     (p) => { p.getlog.op = 7; },                            ' results[1].op: must be a text, not 7'],
    ['no events',                 (p) => { p.getlog.events = undefined; },                ' op 1 (getlog 1) events: must be a list, not missing'],
    ['a field that nobody reads', (p) => { Object.assign(p.getlog, { x: 1 }); },          " op 1 (getlog 1) unknown field 'x'"],
    ['an event without a name',   (p) => { p.events[0]['name'] = 1; },                    ' op 0 (nop) events[0].name: must be a text, not 1'],
    ['an event with a list',      (p) => { p.events[0]['a'] = []; },                      ' op 0 (nop) events[0].a: must be an object, not []'],
    ['an event with a fraction',  (p) => { p.events[1]['as_id'] = 0.5; },                 ' op 0 (nop) events[1].as_id: must be an integer, a text or an entry, not 0.5'],
    ['an entry without bits',     (p) => { p.events[1]['new_spte'] = {}; },               ' op 0 (nop) events[1].new_spte.bits: must be a hexadecimal number (0x...), not missing'],
    ['a run of no frames',        (p) => { p.events[0]['count'] = 2; },                   ' op 0 (nop) events[0].gfn: must be a hexadecimal number (0x...), not missing'],
    ['a statistic in words',      (p) => { p.nop.stats.pages_2m = 'x'; },                 ' op 0 (nop) stats.pages_2m: must be an integer, not "x"'],
    ['an index out of the table', (p) => { p.entry.index = 512; },                        ' op 0 (nop) state.entries[0].index: must be an integer from 0 to 511, not 512'],
    ['a run out of the table',    (p) => { p.entry.count = 511; },                        ' op 0 (nop) state.entries[0].count: must be an integer from 1 to 510, not 511'],
    ['a host that is neither',    (p) => { p.entry.host = 'no'; },                        ' op 0 (nop) state.entries[0].host: must be one of ok, stale, gone, not "no"'],
    ['a bitmap range backwards',  (p) => { p.getlog.bitmap.gfns[0] = [3, 0]; },           ' op 1 (getlog 1) bitmap.gfns[0]: must be an integer of 3 or more, not 0'],
  ])('with %s is refused, with file, op and field', (_what, change, message) => {
    expect(() => parse(change)).toThrow(new RecordingError(`x.B.json:${message}`));
  });

  it.each(['', '[1', 'null', '[]', '"text"', '{}'])('%j is refused', (text) => {
    expect(() => parseRecording(text, 'x.json')).toThrow(RecordingError);
    expect(() => parseRecording(text, 'x.json')).toThrow(/^x\.json: /);
  });
});

describe('a script', () => {
  it('is a recording stripped of all answers: ops without events', () => {
    const recording = givenPack('6.1-core')[0].load();
    const { complete: _complete, ...document } = JSON.parse(writeRecording(recording));
    document.results = document.results.map(({ n, op }: { n: number; op: string }) => ({ n, op }));
    const script = parseRecording(JSON.stringify(document), 'x.A.json');
    expect(script.complete).toBe(true);
    expect(strip(script)).toEqual(strip(recording));
    expect(script.results.every((result) => result.events.length === 0)).toBe(true);
  });
});
