import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { TraceBuilder } from '../../formats/pntrace-builder.ts';
import { encodePntrace } from '../../formats/pntrace-encode.ts';
import { describeFailure } from '../cli-error.ts';
import { createProgram } from '../program.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-story-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => {
  process.exitCode = undefined;
  vi.restoreAllMocks();
});

const exitStatus = (): number => Number(process.exitCode ?? 0);

/** Runs a command line; what it printed and how it ended. */
async function penumbra(...args: string[]): Promise<{ out: string; err: string; status: number }> {
  process.exitCode = undefined;
  let out = '';
  let err = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => ((out += String(text)), true));
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => ((err += String(text)), true));
  try {
    await createProgram().parseAsync(args, { from: 'user' });
    return { out, err, status: exitStatus() };
  } catch (thrown) {
    const { line, status } = describeFailure(thrown, false);
    return { out, err: err + line, status };
  } finally {
    vi.restoreAllMocks();
  }
}

describe('penumbra story', () => {
  it('ends with status 0 although the policy with the bug loses pages', async () => {
    const { out, err, status } = await penumbra('story', 'synthetic:4');
    expect({ err, status }).toEqual({ err: '', status: 0 });
    expect(out).toMatch(/zap +lazy\+bug +lazy +eager\n/);
    expect(out).toContain('What the bug lost.');
    for (const line of out.split('\n')) expect(line.length, line).toBeLessThanOrEqual(100);
  });

  it('sets several recordings side by side', async () => {
    const { out } = await penumbra('story', 'synthetic:4', 'synthetic:5');
    expect(out).toContain('Side by side.');
  });

  it('prints numbers as JSON', async () => {
    const { out, status } = await penumbra('story', 'synthetic:4', '--json', '--round-epochs', '7');
    const [story] = JSON.parse(out);
    expect(status).toBe(0);
    expect(story).toMatchObject({ trace: { name: 'synthetic-4' }, roundEpochs: 7 });
    expect(story.runs.map((run: { policy: string }) => run.policy)).toEqual(['zap', 'lazy+bug', 'lazy', 'eager']);
    expect(story.runs[2].measures).toMatchObject({ lostPages: 0 });
    expect(story.runs[1].migration.rounds.length).toBeGreaterThan(1);
  });
});

describe('kernels as policies', () => {
  const KERNELS = ['linux-3.8', 'linux-3.9-rc', 'linux-3.16', 'linux-6.1-tdp', 'linux-6.12-tdp'];

  it('are columns of the story, and the text says what each stands for', async () => {
    const { out, err, status } = await penumbra('story', 'synthetic:4', '--policy', KERNELS.join(','));
    expect({ err, status }).toEqual({ err: '', status: 0 });
    expect(out).toMatch(/linux-3\.8 +linux-3\.9-rc +linux-3\.16 +linux-6\.1-tdp\n/);
    const words = out.replaceAll(/\s+/g, ' ');
    expect(words).toContain('linux-3.16 and linux-6.1-tdp have the same numbers in every row.');
    expect(words).toContain('and no fault asks for a flush');
    expect(words).toContain('linux-6.1-tdp, linux-6.12-tdp: measured with eager_page_split=N');
    expect(words).toContain('no read faults under linux-6.12-tdp; linux-6.12-tdp sends nothing for nothing');
    for (const line of out.split('\n')) expect(line.length, line).toBeLessThanOrEqual(100);
  });

  it('have the numbers of the policy that they had', async () => {
    const names = [...KERNELS, 'zap', 'lazy+bug', 'lazy', 'eager', 'linux-6.12-tdp-eager'];
    const { out } = await penumbra('story', 'synthetic:4', '--json', '--policy', names.join(','));
    const [{ runs }] = JSON.parse(out);
    const measures = Object.fromEntries(
      runs.map((run: { policy: string; measures: unknown }) => [run.policy, run.measures]),
    );
    expect(measures['linux-3.8']).toEqual(measures.zap);
    expect(measures['linux-3.9-rc']).toEqual(measures['lazy+bug']);
    expect(measures['linux-3.16']).toEqual(measures.lazy);
    // It splits with one flush for all; our own `eager` asks for one a region.
    const asked = ['flushRequests', 'vcpuFlushes', 'sptesChangedAtStart'];
    const rest = (of: object): object => Object.fromEntries(Object.entries(of).filter(([key]) => !asked.includes(key)));
    expect(rest(measures['linux-6.12-tdp-eager'])).toEqual(rest(measures.eager));
  });

  it('come into the report', async () => {
    const report = join(folder, 'kernels.html');
    await penumbra('story', 'synthetic:4', '--policy', 'linux-3.16,linux-6.12-tdp', '--report', report);
    const html = readFileSync(report, 'utf8');
    expect(html).toContain('<h4>What splitting at the fault changes</h4>');
    expect(html).toContain('<code>linux-6.12-tdp</code>');
    expect(html).toContain('splits each in the fault of its first write');
  });
});

describe('penumbra replay', () => {
  it('ends with status 1 if a policy lost pages, 0 if none did', async () => {
    expect((await penumbra('replay', 'synthetic:4', '--policy', 'lazy+bug')).status).toBe(1);
    expect((await penumbra('replay', 'synthetic:4', '--policy', 'lazy, zap')).status).toBe(0);
  });

  it('says what each row counts', async () => {
    const { out, status } = await penumbra('replay', '--explain');
    expect(status).toBe(0);
    expect(out).toContain('pages lost (lostPages)');
  });

  // biome-ignore format: a table
  it.each([
    ['no recording',             ['replay'],                                              'which recording?'],
    ['a file that is not there', ['replay', 'nowhere.pntrace'],                           "no recording 'nowhere.pntrace': not a file, and the embedded ones are redis-small, grep"],
    ['an unknown policy',        ['replay', 'synthetic:1', '--policy', 'zip'],            "no policy 'zip'; there are zap, lazy+bug, lazy, eager"],
    ['a policy twice',           ['replay', 'synthetic:1', '--policy', 'zap,zap'],        "policy 'zap' is named twice"],
    ['no policy at all',         ['replay', 'synthetic:1', '--policy', ''],               "no policy ''"],
    ['a round of no epochs',     ['replay', 'synthetic:1', '--round-epochs', '0'],        "--round-epochs takes a whole number from 1, not '0'"],
    ['a seed that is none',      ['replay', 'synthetic:1', '--seed', '-3'],               "'-3' is not a seed"],
    ['a synthetic guest too far',['replay', 'synthetic:4294967296'],                      "'4294967296' is not a seed"],
  ])('ends with status 2 and one line on %s', async (_what, args, message) => {
    const { out, err, status } = await penumbra(...args);
    expect({ out, status }).toEqual({ out: '', status: 2 });
    expect(err).toContain(message);
    expect(err.trimEnd()).not.toContain('\n');
  });

  it('names the file and the place of what is wrong in it', async () => {
    const path = join(folder, 'bad.pntrace');
    writeFileSync(path, 'PNTRACE1\u0010\u0000\u0000\u0000{');
    const { err, status } = await penumbra('replay', path);
    expect(status).toBe(2);
    expect(err).toBe(`penumbra: ${path}: byte 13: the file ends within its header of 16 bytes`);
  });

  it('refuses a guest whose memory ends within a large page', async () => {
    const path = join(folder, 'odd.pntrace');
    const builder = new TraceBuilder({ name: 'odd', title: '', epochInsns: 1, memBytes: 3 << 20, vcpus: 1 });
    writeFileSync(path, encodePntrace(builder.finish(), gzipSync));
    const { out, err, status } = await penumbra('replay', path);
    expect({ out, status }).toEqual({ out: '', status: 2 });
    expect(err).toContain('3145728 bytes of memory cannot all be mapped by 2 MiB entries');
  });

  it('refuses a folder with one line', async () => {
    const { err, status } = await penumbra('replay', folder);
    expect(status).toBe(2);
    expect(err).toBe(`penumbra: ${folder} is a folder, not a recording`);
  });
});
