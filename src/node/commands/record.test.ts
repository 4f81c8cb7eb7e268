import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { ALL_POLICIES } from '../../lab/policies.ts';
import { tellStory } from '../../lab/story.ts';
import { codeImage, TINY_OUTPUT } from '../../vm/machine/testing/guests.ts';
import { describeFailure } from '../cli-error.ts';
import { packageFile } from '../package-files.ts';
import { createProgram } from '../program.ts';
import { loadTrace } from '../trace-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-record-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

async function penumbra(...args: string[]): Promise<{ out: string; err: string; status: number }> {
  let out = '';
  let err = '';
  const to = (take: (text: string) => void) => (text: unknown) => {
    take(Buffer.from(text as Buffer).toString());
    return true;
  };
  vi.spyOn(process.stdout, 'write').mockImplementation(to((text) => (out += text)));
  vi.spyOn(process.stderr, 'write').mockImplementation(to((text) => (err += text)));
  try {
    await createProgram().parseAsync(['record', '--memory', '32M', ...args], { from: 'user' });
    return { out, err, status: Number(process.exitCode ?? 0) };
  } catch (thrown) {
    const { line, status } = describeFailure(thrown, false);
    return { out, err: err + line, status };
  } finally {
    process.exitCode = undefined;
    vi.restoreAllMocks();
  }
}

const file = (name: string): string => join(folder, name);

describe('penumbra record', () => {
  it('writes a recording of the tiny guest that every reader takes and every policy can replay', async () => {
    const path = file('tiny.pntrace');
    const { out, err, status } = await penumbra(
      '--out',
      path,
      '--epoch-insns',
      '20000',
      '--title',
      'tables and rounds',
    );
    expect({ err, status }).toEqual({ err: TINY_OUTPUT, status: 0 });
    const trace = loadTrace(path);
    const { header } = trace;
    expect(header).toMatchObject({
      name: 'tiny',
      title: 'tables and rounds',
      memBytes: 32 << 20,
      ram: [
        [0, 0xa0000],
        [0x100000, 32 << 20],
      ],
      epochInsns: 20000,
      start: 'power-on',
      insnsBefore: 0,
      unresolvedAccesses: 0,
    });
    expect(out).toContain(`${header.epochs} epochs, ${header.insns.toLocaleString('en-US')} instructions`);
    // 8 to 16 MiB are written; the data, the tables and the stack are all there is.
    const written = new Set([...trace.records].filter((r) => (r & 3) === 1).map((r) => r >>> 2));
    for (let page = 0x800; page < 0x1000; page++) expect(written.has(page)).toBe(true);
    expect(written.size).toBeLessThan(0x800 + 100);
    // 2^20 words that are written, and those that are read again.
    expect(header.stores).toBeGreaterThan(2 ** 20);
    expect(header.loads).toBeGreaterThan(512 * 64 + 2 ** 15 + 16 * 512 * 2);
    const reader = spawnSync(process.execPath, [packageFile('traces', 'read.mjs'), path], { encoding: 'utf8' });
    expect(reader.stderr).toBe('');
    expect(reader.stdout).toContain(`${header.records} records`);
    const policies = ALL_POLICIES.filter(({ name }) => name === 'zap' || name === 'lazy');
    const { runs } = tellStory(trace, policies, { roundEpochs: 20, seed: 1 });
    expect(runs.map(({ result }) => [result.migration.lostPages, result.brokenInvariants])).toEqual([
      [0, []],
      [0, []],
    ]);
  });

  it('begins where it is told to, ends where it is told to, and prints the header', async () => {
    const path = file('part.pntrace');
    const { out, status } = await penumbra(
      '--out',
      path,
      '--start',
      '0x100000',
      '--max',
      '300000',
      '--name',
      'part',
      '--json',
    );
    expect(status).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ name: 'part', epochs: 3, start: '0x100000', epochInsns: 100000 });
  });

  // biome-ignore format: a table
  it.each([
    [['--start', 'soon'],                'penumbra: --start takes power-on, marker or an address in hex, not \'soon\''],
    [['--epoch-insns', '0'],             'penumbra: --epoch-insns takes a whole number above 0, not \'0\''],
    [['--max', 'x'],                     'penumbra: --max takes a whole number above 0, not \'x\''],
    [['--start', 'marker'],              'penumbra: tiny: ended before the recording began (--start marker)'],
  ])('refuses %s in one line, and writes nothing', async (args, line) => {
    const path = file('none.pntrace');
    const { err, status } = await penumbra('--out', path, ...args);
    expect([err.replace(TINY_OUTPUT, ''), status]).toEqual([line, 2]);
    expect(existsSync(path)).toBe(false);
  });

  it('looks at the place of the recording before the guest runs', async () => {
    const { err, status } = await penumbra('--out', join(file('none'), 'x'));
    expect([err, status]).toEqual([
      `penumbra: --out ${file('none')}/x: ENOENT: no such file or directory, access '${file('none')}'`,
      2,
    ]);
  });

  it('tells of a guest that crashes', async () => {
    const kernel = file('crash');
    writeFileSync(kernel, codeImage(0x0f, 0x0b));
    const { err, status } = await penumbra('--out', file('none.pntrace'), '--kernel', kernel);
    expect(err).toContain('triple fault');
    expect(status).toBe(2);
  });
});
