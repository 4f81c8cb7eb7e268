import { describe, expect, it } from 'vitest';
import { parseRecording, type Recording } from './recording.ts';
import { givenRecordings, givenText } from './testing/given.ts';
import { judge } from './testing/judge.ts';
import { readPack } from './pack.ts';
import { writeRecording } from './write.ts';

describe('a recording that is written', () => {
  it.each(['6.1-core', '6.1-random'] as const)('is for all of %s the text that was read, op for op', (set) => {
    const pack = givenText(set);
    const lines = pack.split('\n');
    let at = 1;
    for (const packed of readPack(pack, set)) {
      const {
        lines: ops,
        head,
        memory,
      } = JSON.parse(lines[at] ?? '') as { lines: number; head: object; memory: object };
      const written = writeRecording(packed.load());
      const opLines = written.split('\n').slice(-ops - 3, -3);
      expect(opLines.join('\n')).toBe(
        lines
          .slice(at + 1, at + 1 + ops)
          .map((line) => `  ${line}`)
          .join(',\n'),
      );
      const open = JSON.stringify(head, null, 1).replace(
        /\n}$/,
        `,\n "memory": ${JSON.stringify(memory)},\n "results": [\n`,
      );
      expect(written.startsWith(open)).toBe(true);
      at += 1 + ops;
    }
    expect(at).toBe(lines.length - 1);
  });

  it('is identical to the one that was read, says the judge', () => {
    const recordings = givenRecordings('6.1-core', 'few-pages.A', 'lazy-drop-1g.B', 'pt-unsync.C', 'pt-write-32.C');
    const pairs = recordings.map((recording) => {
      const got = writeRecording(recording);
      return { want: got, got: writeRecording(parseRecording(got, 'got')) };
    });
    const [verdicts] = judge(pairs, ['--ad', '--skip=', '--probes']);
    expect(verdicts).toEqual(pairs.map(() => ''));
  });

  const base: Recording = {
    scenario: 's',
    mode: 'A',
    kernel: 'k',
    params: { npt: '1' },
    paging: 'long',
    slots: [],
    roots: {},
    complete: true,
    memory: [],
    results: [],
  };

  it('has its head first, then the memory, and one op a line', () => {
    const text = writeRecording({ ...base, results: [{ n: 0, op: 'nop', res: { exit: 'done' }, events: [] }] });
    expect(text.split('\n').slice(-8)).toEqual([
      ' "roots": {},',
      ' "complete": true,',
      ' "memory": [],',
      ' "results": [',
      '  {"n":0,"op":"nop","res":{"exit":"done"},"events":[]}',
      ' ]',
      '}',
      '',
    ]);
  });

  it('leaves out what is empty', () => {
    const result = { n: 0, op: 'nop', res: {}, events: [], stats: {}, state: { added: [], entries: [] }, mmio: [] };
    expect(writeRecording({ ...base, results: [result] })).toContain('\n  {"n":0,"op":"nop","events":[]}\n');
  });

  it('folds memory whose values rise or fall in equal steps, around 2^64 too', () => {
    const memory = [0x10n, 0xcn, 0x8n, 0x4n].map((value, i) => [0x1000n + 8n * BigInt(i), value] as const);
    expect(writeRecording({ ...base, memory: [...memory, [0x2000n, 1n]] })).toContain(
      ' "memory": [["0x1000","0x10",4,"0xfffffffffffffffc"],["0x2000","0x1"]],\n',
    );
  });

  it('folds events of the TDP MMU on consecutive frames only', () => {
    const changed = (gfn: number) => ({ name: 'kvm_tdp_mmu_spte_changed', gfn: `0x${gfn.toString(16)}`, level: 2 });
    const events = [changed(0x200), changed(0x400), changed(0xa00), changed(0xb00), { ...changed(0xd00), as_id: 0 }];
    const { results } = JSON.parse(writeRecording({ ...base, results: [{ n: 0, op: 'nop', events }] })) as Recording;
    expect(results[0]?.events).toEqual([{ ...changed(0x200), count: 2 }, ...events.slice(2)]);
  });
});
