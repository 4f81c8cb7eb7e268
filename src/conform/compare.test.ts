import { describe, expect, it } from 'vitest';
import { Prng } from '../base/prng.ts';
import { canonicalJson } from './canonical-json.ts';
import { type CompareOptions, compareRecordings, type Difference, formatDifference } from './compare.ts';
import { parseRecording, type Recording, RecordingError } from './recording.ts';
import { givenRecordings } from './testing/given.ts';
import { judge, type Pair } from './testing/judge.ts';
import { mutate } from './testing/mutate.ts';
import { writeRecording } from './write.ts';

/** The differences as compare.mjs prints them behind the name of the file. */
function asJudgePrints(want: Recording, got: Recording, options: CompareOptions): string {
  const { differences, count } = compareRecordings(want, got, options);
  const side = (value: unknown): string => (value === undefined ? '(end)' : canonicalJson(value));
  const lines = differences.map((d) => {
    if (d.part === 'complete') return `complete: ${String(d.want)} / ${String(d.got)}`;
    if (d.part === 'op') return `#${d.op}: ${String(d.want)} / ${String(d.got)}`;
    return `#${d.op} ${d.text}: ${d.part}[${d.index}]\n    want ${side(d.want)}\n    got  ${side(d.got)}`;
  });
  return count === 0 ? '' : [`${count} differences`, ...lines].join('\n  ');
}

/** Pairs of a recording and a change of it that is well-formed. */
function mutants(recordings: readonly Recording[], count: number, seed: number): Pair[] {
  const prng = new Prng(seed);
  const texts = recordings.map(writeRecording);
  const pairs: Pair[] = [];
  while (pairs.length < count) {
    const want = prng.pick(texts);
    const got = mutate(prng.chance(0.2) ? mutate(want, prng) : want, prng);
    try {
      parseRecording(got, 'mutant');
      pairs.push({ want, got });
    } catch (error) {
      if (!(error instanceof RecordingError)) throw error;
    }
  }
  return pairs;
}

describe('the comparison', () => {
  it('says what compare.mjs says about a hundred small changes', { timeout: 60_000 }, () => {
    const core = givenRecordings('6.1-core', 'perms.C', 'memslot.A', 'notifier.B', 'lazy-drop-pae.C', 'two-vcpus.A');
    const short = core.map((recording) => ({ ...recording, results: recording.results.slice(0, 25) }));
    const pairs = mutants(short, 100, 6);
    const variants: [CompareOptions, string[]][] = [
      [{}, ['--ad']],
      [{ probes: true, strict: true }, ['--ad', '--skip=', '--probes']],
    ];
    const verdicts = judge(pairs, ...variants.map(([, flags]) => flags));
    const counts = variants.map(([options], variant) => {
      let different = 0;
      pairs.forEach(({ want, got }, i) => {
        const printed = asJudgePrints(parseRecording(want, 'want'), parseRecording(got, 'got'), options);
        expect(printed, `pair ${i}`).toBe(verdicts[variant]?.[i]);
        if (printed !== '') different++;
      });
      return different;
    });
    // The changes hit what is compared and what is not.
    for (const different of counts) expect(different).toBeGreaterThan(20);
    for (const different of counts) expect(different).toBeLessThan(98);
    expect(counts[0]).toBeLessThan(counts[1] ?? 0);
  });

  it('says what compare.mjs says about two different recordings', () => {
    const [a, b, c] = givenRecordings('6.1-core', 'lazy-drop-g2m.A', 'lazy-drop-g2m.B', 'perms.A');
    if (a === undefined || b === undefined || c === undefined) throw new Error('unreachable');
    const pairs = [a, b, c].flatMap((want) => [a, b, c].map((got) => ({ want, got })));
    const texts = pairs.map(({ want, got }) => ({ want: writeRecording(want), got: writeRecording(got) }));
    const [verdicts] = judge(texts, ['--ad']);
    expect(pairs.map(({ want, got }) => asJudgePrints(want, got, {}))).toEqual(verdicts);
  });

  it('finds each recording identical to itself, strictly and with its probes', () => {
    for (const recording of givenRecordings('6.1-core', 'nx-huge.A', 'nx-huge.B', 'nx-huge.C')) {
      const copy = parseRecording(writeRecording(recording), 'copy');
      expect(compareRecordings(recording, copy, { strict: true, probes: true })).toEqual({ count: 0, differences: [] });
    }
  });
});

/** A recording of one op, with the parts that a test is about. */
function one(result: Partial<Recording['results'][number]>, rest: Partial<Recording> = {}): Recording {
  return {
    scenario: 's',
    mode: 'A',
    kernel: 'k',
    params: {},
    paging: 'long',
    slots: [],
    roots: {},
    complete: true,
    memory: [],
    results: [{ n: 0, op: 'nop', events: [], ...result }],
    ...rest,
  };
}

const entry = (sp: number, index: number, bits: string) => ({ sp, index, old: { bits: '0x0' }, new: { bits } });

describe('two recordings', () => {
  // biome-ignore format: a table
  it.each<[string, Partial<Recording['results'][number]>, Partial<Recording['results'][number]>]>([
    ['removed pages',       { state: { removed: [3, 1] } },                           { state: { removed: [1, 3] } }],
    ['entries',             { state: { entries: [entry(1, 2, '0x1'), entry(0, 9, '0x2')] } }, { state: { entries: [entry(0, 9, '0x2'), entry(1, 2, '0x1')] } }],
    ['statistics',          { stats: { tlb_flush: 1, invlpg: 1 } },                   { stats: { invlpg: 1, tlb_flush: 1 } }],
    ['keys',                { res: { exit: 'done', value: '0x1' } },                  { res: { value: '0x1', exit: 'done' } }],
  ])('are identical whatever the order of %s', (_what, a, b) => {
    expect(compareRecordings(one(a), one(b)).count).toBe(0);
  });

  // biome-ignore format: a table
  it.each<[string, Partial<Recording['results'][number]>]>([
    ['args and slot',                 { args: { value: '0x1' } }],
    ['probes',                        { events: [{ name: 'flush_all', probe: 1 }] }],
    ['entries, exits and emulation',  { events: [{ name: 'kvm_entry' }, { name: 'kvm_exit' }, { name: 'kvm_emulate_insn' }] }],
    ['an empty state',                { state: { added: [], removed: [] }, stats: {} }],
    ['an entry that stayed the same', { state: { entries: [{ sp: 0, index: 0, old: { bits: '0x1' }, new: { bits: '0x1' } }] } }],
    ['what is undefined',             { mmio: undefined, res: undefined }],
  ])('are identical whatever they say about %s', (_what, extra) => {
    expect(compareRecordings(one({}), one(extra)).count).toBe(0);
    expect(compareRecordings(one(extra), one({})).count).toBe(0);
  });

  // biome-ignore format: a table
  it.each<[string, Recording, Recording, string]>([
    ['an accessed bit',       one({ state: { entries: [entry(1, 2, '0x867')] } }), one({ state: { entries: [entry(1, 2, '0x847')] } }),
      '#0 nop: state[0] want {"index":2,"new":{"bits":"0x867"},"old":{"bits":"0x0"},"sp":1} got {"index":2,"new":{"bits":"0x847"},"old":{"bits":"0x0"},"sp":1}'],
    ['a missing event',       one({ events: [{ name: 'kvm_mmu_walker_error', pferr: '0x3' }] }), one({}),
      '#0 nop: events[0] want {"name":"kvm_mmu_walker_error","pferr":"0x3"} got (end)'],
    ['a count',               one({ stats: { pf_taken: 2 } }), one({ stats: { pf_taken: 1 } }),
      '#0 nop: stats[0] want {"pf_taken":2} got {"pf_taken":1}'],
    ['a result',              one({ res: { exit: 'pf', err: '0x3' } }), one({ res: { exit: 'done' } }),
      '#0 nop: res[0] want {"res":{"err":"0x3","exit":"pf"}} got {"res":{"exit":"done"}}'],
    ['another op',            one({}), one({ op: 'fork' }), '#0: op want "nop" got "fork"'],
    ['an op too many',        one({}, { results: [] }), one({}), '#0: op want (end) got "nop"'],
    ['one that broke off',    one({}), one({}, { complete: false }), 'complete: want true got false'],
  ])('differ in %s, and a line tells it', (_what, want, got, line) => {
    const { count, differences } = compareRecordings(want, got);
    expect(count).toBe(1);
    expect(differences.map(formatDifference)).toEqual([line]);
  });

  it('are compared to the end, even if only the first differences are wanted', () => {
    const events = [{ name: 'kvm_mmu_walker_error' }];
    const want = one({}, { results: Array.from({ length: 9 }, (_, n) => ({ n, op: 'nop', events })) });
    const got = one({}, { results: Array.from({ length: 9 }, (_, n) => ({ n, op: 'nop', events: [] })) });
    const { count, differences } = compareRecordings(want, got, { limit: 2 });
    expect(count).toBe(9);
    expect(differences.map((d: Difference) => d.op)).toEqual([0, 1]);
  });
});
