/** Judged by trace-cmd itself where it is installed; else these tests are reported as skipped. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { EventLog } from '../trace/event-log.ts';
import { ftraceText } from './ftrace.ts';
import { KERNEL_EVENTS } from './kernel-events.ts';
import { eventLog } from './testing/event-log.ts';
import { formatText, traceDat } from './trace-dat.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-dat-'));
afterAll(() => rmSync(folder, { recursive: true }));
const missing = spawnSync('trace-cmd', ['--version']).error === undefined ? undefined : 'trace-cmd is not installed';

/** What `trace-cmd report` prints, without its plugins, which have texts of their own for some events. */
function report(log: EventLog): string[] {
  const path = join(folder, 'trace.dat');
  writeFileSync(path, Buffer.concat([...traceDat(log)]));
  const { stdout, stderr, status } = spawnSync('trace-cmd', ['report', '-N', '-i', path], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
  expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
  return stdout.trimEnd().split('\n');
}

/** Our text in trace-cmd's layout: no flags, names padded, pointers as numbers. */
function expectedLines(log: EventLog): string[] {
  const lines = [...ftraceText(log)].join('').trimEnd().split('\n');
  return lines
    .filter((line) => !line.startsWith('#'))
    .map((line) => normal(line.replace(/ \.\.\.\.\. /, ' ').replace(/(sptep[ :])0*([\da-f])/, '$10x$2')));
}
const normal = (line: string): string => line.replace(/ +/g, ' ').trim();

describe('trace.dat', () => {
  it.for([1, 2, 3])('prints every tracepoint as our ftrace text does, seed %i', (seed, { skip }) => {
    if (missing !== undefined) skip(missing);
    const log = eventLog(seed);
    const [cpus, ...lines] = report(log);
    expect(cpus).toBe('cpus=3');
    expect(lines.map(normal)).toEqual(expectedLines(log));
  });

  it('goes over many pages', ({ skip }) => {
    if (missing !== undefined) skip(missing);
    const log = eventLog(4, 300);
    expect(report(log)).toHaveLength(1 + log.tracer.count);
  });

  it('describes structures as a compiler lays them out', () => {
    const byName = new Map(KERNEL_EVENTS.map((event) => [event.tracepoint.name, event]));
    const places = (name: string): string[] =>
      (byName.get(name)?.fields ?? []).map(({ name: field, offset, bytes }) => `${field} ${offset}+${bytes}`);
    expect(places('kvm_mmu_get_page')).toEqual([
      'mmu_valid_gen 8+1',
      'gfn 16+8',
      'role 24+4',
      'root_count 28+4',
      'unsync 32+1',
      'created 33+1',
    ]);
    expect(places('kvm_emulate_insn')).toEqual([
      'rip 8+8',
      'csbase 16+4',
      'len 20+1',
      'insn 21+15',
      'flags 36+1',
      'failed 37+1',
    ]);
  });

  it("has format descriptions in the kernel's form", () => {
    for (const event of KERNEL_EVENTS) {
      expect(formatText(event)).toMatch(
        /^name: \w+\nID: \d+\nformat:\n(\tfield:.*;\toffset:\d+;\tsize:\d+;\tsigned:[01];\n|\n)+\nprint fmt: ".*\n$/,
      );
    }
  });
});
