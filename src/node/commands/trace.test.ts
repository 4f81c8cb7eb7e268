import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { describeFailure } from '../cli-error.ts';
import { createProgram } from '../program.ts';
import { loadTrace } from '../trace-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-trace-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

async function penumbra(...args: string[]): Promise<{ out: string; err: string; status: number }> {
  let out = '';
  let err = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => ((out += String(text)), true));
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => ((err += String(text)), true));
  try {
    await createProgram().parseAsync(args, { from: 'user' });
    return { out, err, status: 0 };
  } catch (thrown) {
    const { line, status } = describeFailure(thrown, false);
    return { out, err: err + line, status };
  } finally {
    vi.restoreAllMocks();
  }
}

async function ftrace(...args: string[]): Promise<string[]> {
  const path = join(folder, 'trace.txt');
  const { err, status } = await penumbra('trace', 'synthetic:4', '--out', path, ...args);
  expect({ err, status }).toEqual({ err: '', status: 0 });
  return readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .filter((line) => !line.startsWith('#'));
}

describe('penumbra trace', () => {
  it('writes a fault for each that the policy takes', async () => {
    const faults = (await ftrace('--policy', 'zap')).filter((line) => line.includes(': kvm_page_fault: '));
    const { out } = await penumbra('replay', 'synthetic:4', '--policy', 'zap', '--json');
    expect(faults).toHaveLength(JSON.parse(out)[0].runs[0].counters.pf_taken);
  });

  it('puts what the start of the log does on a task of its own', async () => {
    const lines = await ftrace('--policy', 'eager', '--epochs', '0..1');
    const ofIoctls = lines.filter((line) => line.startsWith('        penumbra-1000 '));
    const regions = loadTrace('synthetic:4').header.memBytes / 2 ** 21;
    expect(ofIoctls).toEqual(lines.slice(0, regions));
    for (const line of ofIoctls) expect(line).toMatch(/kvm_mmu_get_page: .* l1 .* new$/);
  });

  it('writes a part that is a part of the whole', async () => {
    const fields = (lines: string[]): string[] => lines.map((line) => line.replace(/^.*?\d+\.\d{6}: /, ''));
    const all = fields(await ftrace());
    const part = fields(await ftrace('--epochs', '20..40'));
    expect(part.length).toBeGreaterThan(0);
    expect(part.length).toBeLessThan(all.length);
    expect(all.join('\n')).toContain(part.join('\n'));
  });

  // biome-ignore format: a table
  it.each([
    ['perfetto',  [0x0a]],
    ['trace.dat', [0x17, 0x08, 0x44]],
  ])('writes %s, and nothing beside it', async (format, magic) => {
    const path = join(folder, format);
    const { out } = await penumbra('trace', 'synthetic:4', '--format', format, '--epochs', '0..30', '--out', path, '--json');
    const bytes = readFileSync(path);
    expect([...bytes.subarray(0, magic.length)]).toEqual(magic);
    expect(JSON.parse(out)).toMatchObject({ file: path, format, policy: 'lazy', bytes: bytes.length });
    expect(readdirSync(folder).filter((name) => name.endsWith('.part'))).toEqual([]);
  });

  // biome-ignore format: a table
  it.each([
    ['no file to write',       ['trace', 'synthetic:4'],                                              "required option '--out <file>' not specified"],
    ['an unknown format',      ['trace', 'synthetic:4', '--out', 'x', '--format', 'zip'],             'Allowed choices are ftrace, perfetto, trace.dat'],
    ['two policies',           ['trace', 'synthetic:4', '--out', 'x', '--policy', 'zap,lazy'],        'a trace is of one policy'],
    ['epochs backwards',       ['trace', 'synthetic:4', '--out', 'x', '--epochs', '9..3'],            '--epochs takes a..b with 0 <= a < b <= '],
    ['epochs beyond the end',  ['trace', 'synthetic:4', '--out', 'x', '--epochs', '0..99999'],        "not '0..99999'"],
    ['a folder that is not there', ['trace', 'synthetic:4', '--out', '/nowhere/x'],                   'no such file or directory'],
  ])('ends with status 2 and one line on %s', async (_what, args, message) => {
    const { out, err, status } = await penumbra(...args);
    expect({ out, status }).toEqual({ out: '', status: 2 });
    expect(err).toContain(message);
    expect(err.trimEnd()).not.toContain('\n');
  });
});
