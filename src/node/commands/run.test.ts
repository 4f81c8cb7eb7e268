import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { Machine } from '../../machine.ts';
import { findPreset, type PresetName } from '../../mmu/presets.ts';
import { codeImage, le32, TINY, TINY_OUTPUT } from '../../vm/machine/testing/guests.ts';
import { describeFailure } from '../cli-error.ts';
import { createProgram } from '../program.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-run-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.restoreAllMocks());

function file(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

async function penumbra(...args: string[]): Promise<{ out: string; err: string; status: number }> {
  let out = '';
  let err = '';
  vi.spyOn(process.stdout, 'write').mockImplementation(
    (text) => ((out += Buffer.from(text as Buffer).toString()), true),
  );
  vi.spyOn(process.stderr, 'write').mockImplementation(
    (text) => ((err += Buffer.from(text as Buffer).toString()), true),
  );
  try {
    await createProgram().parseAsync(args, { from: 'user' });
    return { out, err, status: Number(process.exitCode ?? 0) };
  } catch (thrown) {
    const { line, status } = describeFailure(thrown, false);
    return { out, err: err + line, status };
  } finally {
    process.exitCode = undefined;
    vi.restoreAllMocks();
  }
}

describe('penumbra run', () => {
  it('boots the tiny guest if it is given none', async () => {
    expect(await penumbra('run', '--memory', '16M')).toEqual({ out: TINY_OUTPUT, err: '', status: 0 });
  });

  // biome-ignore format: a table
  it.each<[PresetName, boolean, string]>([
    ['linux-3.9-rc',   false, 'linux-6.1'],
    ['linux-6.1-tdp',  true,  'linux-6.1'],
    ['linux-6.12',     false, 'linux-6.12'],
    ['linux-6.12-tdp', true,  'linux-6.12'],
  ])('takes the kernel %s for a policy', async (name, isTdpMmu, version) => {
    const { out, err, status } = await penumbra('run', '--memory', '16M', '--policy', name, '--json');
    expect({ err, status }).toEqual({ err: TINY_OUTPUT, status: 0 });
    // The TDP MMU's tables are in no hash.
    expect(JSON.parse(out).vm.mmu_cache_miss === 0).toBe(isTdpMmu);
    const { mmu } = Machine.load({ kernel: TINY, memory: 16 << 20, policy: name }).vm;
    expect([mmu.tdpMmu, mmu.kernel.name, mmu.policy]).toEqual([isTdpMmu, version, findPreset(name)?.policy]);
  });

  it('refuses a kernel beside a paging that it does not have', async () => {
    const { out, err, status } = await penumbra('run', '--policy', 'linux-6.12-tdp', '--paging', 'shadow');
    expect({ out, status }).toEqual({ out: '', status: 2 });
    expect(err).toBe('penumbra: --policy linux-6.12-tdp has tdp-mmu paging, not shadow');
    expect((await penumbra('run', '--policy', 'linux-6.1', '--paging', 'tdp-mmu')).status).toBe(2);
    const mode = await penumbra('run', '--memory', '16M', '--policy', 'linux-6.12', '--paging', 'shadow');
    expect(mode).toEqual({ out: TINY_OUTPUT, err: '', status: 0 });
  });

  it("has the guest's debug exit as its status", async () => {
    const kernel = file('exit', codeImage(0xb0, 1, 0xe6, 0xf4));
    expect(await penumbra('run', '--kernel', kernel, '--memory', '16M')).toEqual({ out: '', err: '', status: 3 });
  });

  it('says with --json how it ended, on stdout alone', async () => {
    const { out, err } = await penumbra('run', '--memory', '16M', '--paging', 'shadow', '--json');
    expect(JSON.parse(out)).toMatchObject({ end: 'power-off', status: 0, vcpus: [{ pf_guest: 67 }] });
    expect(err).toBe(TINY_OUTPUT);
  });

  it('prints statistics by KVM’s names', async () => {
    const { err } = await penumbra('run', '--memory', '16M', '--paging', 'shadow', '--stats');
    expect(err).toMatch(/^vm {6}mmu_cache_miss +\d+$/m);
    expect(err).toMatch(/^vcpu0 {3}pf_guest +67$/m);
  });

  it('writes the tracepoints as ftrace does', async () => {
    const path = join(folder, 'trace.txt');
    const { out, status } = await penumbra('run', '--memory', '16M', '--paging', 'shadow', '--trace', path, '--json');
    expect(status).toBe(0);
    const lines = readFileSync(path, 'utf8').split('\n');
    const faults = lines.filter((line) => line.includes(': kvm_page_fault: '));
    const { pf_taken, pf_guest, pf_emulate } = JSON.parse(out).vcpus[0] as Record<string, number>;
    expect(faults).toHaveLength(pf_taken);
    expect(pf_guest).toBeGreaterThan(0);
    expect(pf_emulate).toBeGreaterThan(0);
    expect(faults[0]).toMatch(
      /^ +vcpu0-1001 +\[000\] \.{5} +\d+\.\d{6}: kvm_page_fault: vcpu 0 rip 0x10[0-9a-f]+ address 0x/,
    );
  });

  it('compares the dirty log with memory', async () => {
    const { err, status } = await penumbra('run', '--memory', '16M', '--check-log', '1');
    expect(status).toBe(0);
    expect(err).toMatch(/^dirty log: \d+ rounds, [1-9]\d* pages logged, 0 pages lost$/m);
  });

  it.each(['ept', 'ept-tdp-mmu'])('compares with memory what the CPU has logged (%s)', async (paging) => {
    for (const tracker of ['pml', 'pml-ring']) {
      const args = ['run', '--memory', '16M', '--check-log', '1', '--paging', paging, '--tracker', tracker];
      const { err, status } = await penumbra(...args);
      expect(status).toBe(0);
      expect(err).toMatch(/^dirty log: \d+ rounds, [1-9]\d* pages logged, 0 pages lost$/m);
    }
  });

  it('writes exits as an Intel CPU has them', async () => {
    const path = join(folder, 'ept.txt');
    expect((await penumbra('run', '--memory', '16M', '--paging', 'ept', '--trace', path)).status).toBe(0);
    const exits = readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => line.includes(': kvm_exit: '));
    const [first] = exits;
    expect(first).toMatch(
      / reason EPT_VIOLATION rip 0x100[0-9a-f]+ info1 0x0000000000000184 info2 0x0000000000000000 /,
    );
    expect(exits.every((line) => line.includes(' reason EPT_VIOLATION '))).toBe(true);
  });

  it('checks every invariant as often as asked', async () => {
    const { status } = await penumbra('run', '--memory', '16M', '--paging', 'shadow', '--verify', '10');
    expect(status).toBe(0);
  });

  it('tells a guest that can not go on, with its registers', async () => {
    const kernel = file('crash', codeImage(0x0f, 0x0b));
    const { err, status } = await penumbra('run', '--kernel', kernel, '--memory', '16M');
    expect(status).toBe(2);
    expect(err).toContain(`penumbra: ${kernel}: triple fault\nRAX 000000002badb002`);
  });

  it('ends a guest that runs too long', async () => {
    const kernel = file('loop', codeImage(0xa1, ...le32(0xfec00000), 0xeb, 0xf9));
    const { err, status } = await penumbra('run', '--kernel', kernel, '--memory', '16M', '--limit', '100000');
    expect(status).toBe(2);
    expect(err).toMatch(/instructions, over the limit/);
  });

  it.each([
    [
      ['--trace', '/nowhere/t'],
      /^penumbra: --trace \/nowhere\/t: ENOENT: no such file or directory, access '\/nowhere'$/,
    ],
    [['--trace', '/'], /^penumbra: --trace: \/ is a folder$/],
    [['--kernel', 'none'], /^penumbra: --kernel none: ENOENT: no such file or directory, open 'none'$/],
    [['--kernel', 'EMPTY'], /^penumbra: .*: kernel: an empty file$/],
    [['--kernel', 'TRUNCATED'], /^penumbra: .*: .*$/],
    [['--memory', 'much'], /^penumbra: --memory takes a size such as 512M or 1G, not 'much'$/],
    [['--memory', '8G'], /^penumbra: --memory 8G: 8589934592 bytes of memory: it must be whole MiB, from 2 to 3072$/],
    [['--memory', '1500K'], /whole MiB/],
    [['--memory', '1M'], /^penumbra: --memory 1M: 1048576 bytes of memory: it must be whole MiB, from 2 to 3072$/],
    [['--cpu', 'i386'], /^penumbra: --cpu i386: no CPU model "i386"; there are max, /],
    [['--cpu', 'max,+avx'], /^penumbra: --cpu max,\+avx: CPU feature "avx" is not built$/],
    [['--cpus', '9'], /^penumbra: --cpus 9: there can be 1 to 8$/],
    [['--verify', '0'], /^penumbra: --verify takes a whole number above 0, not '0'$/],
    [['--paging', 'epic'], /--paging/],
    [['--tracker', 'pml'], /^penumbra: --tracker pml needs a CPU that logs writes: --paging ept or ept-tdp-mmu$/],
    [['--tracker', 'pml', '--paging', 'ept-no-ad'], /^penumbra: --tracker pml needs a CPU that logs writes/],
    [['--policy', 'lazier'], /--policy/],
  ])('refuses %j with one line', async (args, line) => {
    file('EMPTY', new Uint8Array());
    file('TRUNCATED', TINY.subarray(0, 700));
    const paths = args.map((arg) => (arg === 'EMPTY' || arg === 'TRUNCATED' ? join(folder, arg) : arg));
    const { out, err, status } = await penumbra('run', ...paths);
    expect({ out, status }).toEqual({ out: '', status: 2 });
    expect(err.trimEnd()).toMatch(line);
    expect(err.trimEnd()).not.toContain('\n');
  });
});
