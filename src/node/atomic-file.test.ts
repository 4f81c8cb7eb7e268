import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { checkOutput, writeWhole } from './atomic-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-whole-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A folder of its own for each test. */
let count = 0;
function newFolder(): string {
  const path = join(folder, String(count++));
  mkdirSync(path);
  return path;
}

function* breaksOff(): Generator<string> {
  yield 'the first half';
  throw new RangeError('and no more');
}

describe('a file that is to be written', () => {
  it('is refused where it could not be, and nothing is done to it otherwise', () => {
    const inside = newFolder();
    writeFileSync(join(inside, 'file'), 'old');
    symlinkSync('file', join(inside, 'link'));
    for (const [name, message] of [
      ['', `--out: ${inside}/ is a folder`],
      ['new/', 'is a folder'],
      ['file/below', 'ENOTDIR'],
      ['no/such', `--out ${inside}/no/such: ENOENT`],
    ])
      expect(() => checkOutput('--out', `${inside}/${name}`)).toThrow(message);
    expect(() => checkOutput('--out', '')).toThrow('--out: no file');
    for (const good of ['file', 'link', 'new']) checkOutput('--out', join(inside, good));
    checkOutput('--out', '/dev/null');
    expect(readdirSync(inside)).toEqual(['file', 'link']);
    expect(readFileSync(join(inside, 'file'), 'utf8')).toBe('old');
  });

  it('is called by its own name if it can not be opened', () => {
    const path = join(newFolder(), 'none', 'file');
    expect(() => writeWhole(path, ['text'])).toThrow(`ENOENT: no such file or directory, open '${path}'`);
  });
});

describe('a file that is written whole', () => {
  it('is there with all that was given, in place of what was there', () => {
    const path = join(newFolder(), 'file');
    writeFileSync(path, 'old');
    expect(writeWhole(path, ['new, ', Uint8Array.of(0x41, 0x42)])).toBe(7);
    expect(readFileSync(path, 'utf8')).toBe('new, AB');
  });

  it('is as it was if the writing breaks off, with nothing beside it', () => {
    const inside = newFolder();
    const path = join(inside, 'file');
    expect(() => writeWhole(path, breaksOff())).toThrow('and no more');
    expect(readdirSync(inside)).toEqual([]);
    writeFileSync(path, 'old');
    expect(() => writeWhole(path, breaksOff())).toThrow('and no more');
    expect(readdirSync(inside)).toEqual(['file']);
    expect(readFileSync(path, 'utf8')).toBe('old');
  });

  it('may be named by a link, which stays one', () => {
    const inside = newFolder();
    writeFileSync(join(inside, 'file'), 'old');
    symlinkSync('file', join(inside, 'link'));
    writeWhole(join(inside, 'link'), ['new']);
    expect(lstatSync(join(inside, 'link')).isSymbolicLink()).toBe(true);
    expect(readFileSync(join(inside, 'file'), 'utf8')).toBe('new');
  });

  it('is no folder', () => {
    const inside = newFolder();
    expect(() => writeWhole(inside, ['text'])).toThrow(`${inside} is a folder`);
    expect(readdirSync(inside)).toEqual([]);
  });

  it.runIf(existsSync('/dev/full'))('is never put in the place of a device, and says which file was too long', () => {
    expect(() => writeWhole('/dev/full', ['text'])).toThrow('/dev/full: ENOSPC: no space left on device, write');
    expect(statSync('/dev/full').isCharacterDevice()).toBe(true);
  });
});
