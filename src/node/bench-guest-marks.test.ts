import { describe, expect, it } from 'vitest';
import { appendOf, differences, INTEGER, readMarks, readReference } from '../../scripts/bench-guest-marks.mjs';

const CONSOLE = [
  '[    0.1] Linux version 6.1.0',
  '@@INIT x86_64 6.1.0-56-cloud-amd64',
  '@@I clock tsc',
  '@@B int',
  '@@E int 1737561918 6000000 aff94b43',
  'noise @@E bb-dd 0 1 ok_',
  '@@FAIL pipe',
  '@@DONE',
  '',
].join('\r\n');

describe("the benchmark guest's console", () => {
  it('tells of /init, of results, of failures and of the end', () => {
    const marks = readMarks(CONSOLE);
    expect(marks.init).toBe('x86_64 6.1.0-56-cloud-amd64');
    expect([...marks.checksums]).toEqual([
      ['int', 'aff94b43'],
      ['bb-dd', 'ok_'],
    ]);
    expect([marks.fails, marks.done, marks.panicked]).toEqual([['pipe'], true, false]);
    expect(readMarks('[ 1.0] Kernel panic - not syncing').panicked).toBe(true);
  });

  it('is compared result by result', () => {
    const marks = readMarks(CONSOLE);
    expect(differences(marks, { int: 'aff94b43' })).toEqual([]);
    expect(differences(marks, { int: '1', crc: '2' })).toEqual(['int: aff94b43, expected 1', 'crc is missing']);
  });

  it('has 25 results that are known at both scales, and instructions of those that MIPS are told for', () => {
    const { checksums, instructions } = readReference();
    for (const scale of ['1', '0.1']) expect(Object.keys(checksums[scale] ?? {})).toHaveLength(25);
    for (const name of INTEGER) expect(instructions[name]).toBeGreaterThan(1e8);
  });

  it('says what the command line asks for', () => {
    expect(appendOf({ scale: '1' })).toBe('console=ttyS0 nokaslr panic=-1 bench.scale=1');
    expect(appendOf({ scale: '0.1', run: 'gbench', only: 'int' })).toContain('bench.run=gbench bench.only=int');
  });
});
