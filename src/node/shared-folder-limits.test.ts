/** A process that may open no more files: what a guest asks for fails, and nothing stays open that nobody knows of. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import type * as nodeFs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { SharedFolder } from './shared-folder.ts';

const opens = vi.hoisted(() => ({ left: Infinity }));
vi.mock('node:fs', async (original) => {
  const fs = await original<typeof nodeFs>();
  return {
    ...fs,
    openSync: (...args: Parameters<typeof fs.openSync>) => {
      if (opens.left-- > 0) return fs.openSync(...args);
      throw Object.assign(new Error('EMFILE: too many open files'), { errno: -24, syscall: 'open', code: 'EMFILE' });
    },
  };
});

const base = mkdtempSync(join(tmpdir(), 'penumbra-limits-'));
afterAll(() => rmSync(base, { recursive: true }));
mkdirSync(join(base, 'sub'));
writeFileSync(join(base, 'file'), 'text');
symlinkSync('file', join(base, 'link'));

const openFiles = (): number => readdirSync('/proc/self/fd').length;

describe('a shared folder without files to open', () => {
  it.each([
    ['walks', (folder: SharedFolder, root: number) => folder.walk(root, 'file')],
    ['copies a folder', (folder: SharedFolder, _: number, sub: number) => folder.copy(sub)],
    ['copies a link', (folder: SharedFolder, _: number, _sub: number, link: number) => folder.copy(link)],
    ['makes a file', (folder: SharedFolder, root: number) => folder.create(root, 'new', 0o644, false)],
  ])('%s or does not, and leaves nothing open', (_what, does) => {
    const folder = new SharedFolder(base, false);
    const root = folder.root();
    const sub = folder.walk(root, 'sub');
    const link = folder.walk(root, 'link');
    const before = openFiles();
    let failures = 0;
    for (let left = 0; ; left++) {
      opens.left = left;
      const node = does(folder, root, sub, link);
      opens.left = Infinity;
      if (node >= 0) {
        folder.release(node);
        break;
      }
      failures++;
      expect([node, openFiles()]).toEqual([-24, before]);
    }
    expect(failures).toBeGreaterThan(0);
    expect(openFiles()).toBe(before);
    for (const node of [root, sub, link]) folder.release(node);
  });
});
