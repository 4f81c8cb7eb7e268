import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { tableOf, updateDocument } from '../../scripts/unittests-table.mjs';

const result = (
  test: string,
  paging: string,
  verdict: 'pass' | 'skip' | 'needs' | 'long' | 'fail',
  pass: number,
  why = '',
) => ({
  test,
  paging,
  verdict,
  pass,
  why,
  status: 1,
  fail: 0,
  skip: 0,
  seconds: 1,
  cases: 0,
});

describe('the table of all tests', () => {
  const results = [
    result('smap', 'tdp', 'pass', 18),
    result('smap', 'shadow', 'fail', 2, 'FAIL: x'),
    result('pks', 'tdp', 'skip', 0, 'skips itself: PKS not enabled'),
    result('taskswitch', 'tdp', 'skip', 0, 'i386 only'),
  ];

  it('has a row for each test of this build, and its pagings as columns', () => {
    expect(tableOf(results).split('\n')).toEqual([
      '| test | tdp | shadow |  |',
      '| --- | --- | --- | --- |',
      '| smap | pass (18) | fail | FAIL: x |',
      '| pks | skip |  | skips itself: PKS not enabled |',
    ]);
  });

  it('keeps the rows of tests that were not run, if only some were', () => {
    const folder = mkdtempSync(join(tmpdir(), 'penumbra-table-'));
    const file = join(folder, 'all.md');
    updateDocument(file, 'x86_64', results);
    updateDocument(file, 'x86_64', [result('pks', 'tdp', 'pass', 1), result('pks', 'shadow', 'pass', 2)], true);
    updateDocument(file, 'x86_64', [result('new', 'tdp', 'pass', 1), result('new', 'shadow', 'fail', 0)], true);
    const rows = readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('| '));
    const pku = [result('new', 'tdp', 'pass', 7)];
    updateDocument(file, 'x86_64', pku, true, ['tdp', 'shadow']);
    expect(readFileSync(file, 'utf8')).toContain('| new | pass (7) |  |  |');
    updateDocument(file, 'x86_64', pku, true); // other pagings
    const other = readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('| '));
    rmSync(folder, { recursive: true });
    expect(rows.slice(2)).toEqual([
      '| smap | pass (18) | fail | FAIL: x |',
      '| pks | pass (1) | pass (2) |  |',
      '| new | pass (1) | fail |  |',
    ]);
    expect(other).toHaveLength(3);
  });

  it('keeps what a test gave that runs only when it is named', () => {
    const folder = mkdtempSync(join(tmpdir(), 'penumbra-table-'));
    const file = join(folder, 'all.md');
    const long = (['tdp', 'shadow'] as const).map((paging) => result('vmexit', paging, 'long', 0, 'measures'));
    updateDocument(file, 'x86_64', [...long, ...results]);
    expect(readFileSync(file, 'utf8')).toContain('| vmexit | long | long | measures |');
    const named = (['tdp', 'shadow'] as const).map((paging) => result('vmexit', paging, 'pass', 1));
    updateDocument(file, 'x86_64', named, true);
    updateDocument(file, 'x86_64', [...long, result('smap', 'tdp', 'pass', 19), result('smap', 'shadow', 'pass', 19)]);
    const rows = readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line.startsWith('| '));
    rmSync(folder, { recursive: true });
    expect(rows.slice(2)).toEqual(['| vmexit | pass (1) | pass (1) |  |', '| smap | pass (19) | pass (19) |  |']);
  });

  it('takes the place of the one before, beside that of the other build', () => {
    const folder = mkdtempSync(join(tmpdir(), 'penumbra-table-'));
    const file = join(folder, 'all.md');
    updateDocument(file, 'x86_64', results);
    updateDocument(file, 'i386', [result('taskswitch', 'tdp', 'pass', 0)]);
    updateDocument(file, 'x86_64', [result('smap', 'tdp', 'pass', 19)]);
    const text = readFileSync(file, 'utf8');
    rmSync(folder, { recursive: true });
    expect(text.match(/^## .*$/gm)).toEqual(['## x86_64', '## i386']);
    expect(text).toContain('| smap | pass (19) |');
    expect(text).not.toContain('pks');
    expect(text).toContain('| taskswitch | pass |');
  });
});
