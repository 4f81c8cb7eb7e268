import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { givenPack } from '../../conform/testing/given.ts';
import { writeRecording } from '../../conform/write.ts';
import { runProgram } from '../fuzz/program-run.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-conformance-'));
afterAll(() => rmSync(folder, { recursive: true }));

const DIRTY_4K = givenPack('6.1-core').find(({ name }) => name === 'dirty-4k.A')!;
const WHOLE = DIRTY_4K.load();
const TEXT = writeRecording({ ...WHOLE, results: WHOLE.results.slice(0, 4) });

/** A file with the recording's text, changed, and its scenario beside it. */
function fileWith(name: string, change: (text: string) => string = (text) => text): string {
  const path = join(folder, `${name}.A.json`);
  const text = change(TEXT);
  writeFileSync(path, text);
  const ops = (JSON.parse(text) as { results: { op: string }[] }).results.map(({ op }) => op);
  writeFileSync(join(folder, 'dirty-4k.scn'), [...DIRTY_4K.settings, 'run', ...ops].join('\n'));
  return path;
}

describe('penumbra conformance', () => {
  it('ends with status 0 if our run is the recorded one, 1 if it is not', async () => {
    expect(await runProgram(['conformance', fileWith('same')])).toEqual({
      out: 'mode A: 1 of 1 identical\n1 of 1 identical\n',
      err: '',
      status: 0,
    });
    const other = await runProgram([
      'conformance',
      fileWith('other', (text) => text.replace('"exit":"done"', '"exit":"gp"')),
    ]);
    expect([other.status, other.err]).toEqual([1, '']);
    expect(other.out).toContain('other.A: 1 difference\n');
  });

  // biome-ignore format: a table
  it.each([
    ['an op that is none',                 '"op":"nop"', '"op":"jump 1"',        "bad.A: op 0 (jump 1): unknown op 'jump'"],
    ['a slot that is not there',           '"op":"nop"', '"op":"getlog 9"',      'bad.A: op 0 (getlog 9): no slot 9'],
    ['a slot that is there already',       '"op":"nop"', '"op":"slot 1 0 4K 4k"', 'bad.A: op 0 (slot 1 0 4K 4k): slot 1 is there already'],
    ['a vCPU that is not there',           '"op":"nop"', '"op":"vcpu 3"',        'bad.A: op 0 (vcpu 3): no vcpu 3'],
    ['memory that is not there',           '"op":"nop"', '"op":"hr 0x900000000"', 'bad.A: op 0 (hr 0x900000000): no memory at 0x900000000'],
    ['a range beyond the slot',            '"op":"nop"', '"op":"munmap 1 0 8G"', 'bad.A: op 0 (munmap 1 0 8G): offset 0, 8589934592 bytes: beyond the memory of slot 1'],
    ['a slot that KVM refuses',            '"gpa": "0x0"', '"gpa": "0x1"',       'bad.A: slot 0 was refused'],
    ['a slot larger than memory',          '"size": "0x100000"', '"size": "0x10000000000"', "bad.A: slot 0 reaches into the next one's memory"],
  ])('ends with status 2 and one line on %s', async (_what, from, to, line) => {
    const path = fileWith('bad', (text) => {
      expect(text).toContain(from);
      return text.replace(from, to);
    });
    expect(await runProgram(['conformance', path])).toEqual({ out: '', err: `penumbra: ${line}\n`, status: 2 });
  });

  it('ends with status 2 on a guest that never comes out of KVM', async () => {
    const path = fileWith('endless', (text) => text.replace('"op":"nop"', '"op":"del 0"'));
    const { err, status } = await runProgram(['conformance', path]);
    expect(status).toBe(2);
    expect(err).toMatch(/^penumbra: endless\.A: op 1 \(.*\): the guest never comes out of KVM\n$/);
  });

  it('writes whole files, or none', async () => {
    const out = join(folder, 'out');
    const good = fileWith('good');
    expect(await runProgram(['conformance', good, '--write', out])).toMatchObject({ err: '', status: 0 });
    expect(readdirSync(out)).toEqual(['good.A.json']);
    expect(JSON.parse(readFileSync(join(out, 'good.A.json'), 'utf8'))).toMatchObject({ scenario: 'dirty-4k' });

    const taken = join(folder, 'taken');
    mkdirSync(join(taken, 'good.A.json'), { recursive: true });
    const refused = await runProgram(['conformance', good, '--write', taken]);
    expect(refused).toEqual({ out: '', err: `penumbra: ${join(taken, 'good.A.json')} is a folder\n`, status: 2 });
    expect(readdirSync(taken)).toEqual(['good.A.json']);
  });
});
