/** The walls between the rooms (`rooms.json`), and proof that the checker can see a hole in them. */
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { checkRooms, checkSource, formatViolations, readRooms } from '../scripts/rooms.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const TABLE = readRooms(ROOT);

const check = (file: string, text: string): string[] => formatViolations(checkSource(file, text, TABLE));

describe('the rooms', () => {
  it('import only what rooms.json allows', () => {
    expect(formatViolations(checkRooms(ROOT, TABLE))).toEqual([]);
  });

  it('name only rooms that are in the table', () => {
    for (const [name, { mayImport, mayNotImport = [] }] of Object.entries(TABLE.rooms)) {
      for (const other of [...mayImport, ...mayNotImport]) {
        expect([...Object.keys(TABLE.rooms), '*'], `${name} -> ${other}`).toContain(other);
      }
    }
  });

  it('have no cycle below lab', () => {
    const reach = (name: string, seen: string[]): void => {
      expect(seen, [...seen, name].join(' -> ')).not.toContain(name);
      for (const next of TABLE.rooms[name].mayImport) reach(next, [...seen, name]);
    };
    for (const [name, { mayImport }] of Object.entries(TABLE.rooms)) if (!mayImport.includes('*')) reach(name, []);
  });

  it('keep the one wall that everything else stands on: mmu and hw do not know each other', () => {
    expect(TABLE.rooms['mmu'].mayImport).not.toContain('hw');
    expect(TABLE.rooms['hw'].mayImport).not.toContain('mmu');
  });
});

describe('the checker', () => {
  // biome-ignore format: a table
  it.each([
    ['a static import',         `import { walk } from '../hw/walker.ts';`,           'mmu must not import hw'],
    ['a type import',           `import type { Tlb } from '../hw/tlb.ts';`,          'mmu must not import hw'],
    ['an import for effect',    `import '../hw/tlb.ts';`,                            'mmu must not import hw'],
    ['a re-export',             `export { walk } from '../hw/walker.ts';`,           'mmu must not import hw'],
    ['a re-export of all',      `export * from '../hw/walker.ts';`,                  'mmu must not import hw'],
    ['a dynamic import',        `const hw = import('../hw/tlb.ts');`,                'mmu must not import hw'],
    ['an import in a type',     `type Tlb = import('../hw/tlb.ts').Tlb;`,            'mmu must not import hw'],
    ['a way round',             `import { a } from './x/../../hw/a.ts';`,            'mmu must not import hw'],
    ['an unknown room',         `import { a } from '../attic/a.ts';`,                'mmu must not import attic'],
    ['a module of Node',        `import { readFileSync } from 'node:fs';`,           'mmu must not import node:fs'],
    ['a package',               `import { Command } from 'commander';`,              'mmu must not import commander'],
    ['a file outside src',      `import p from '../../package.json';`,               'mmu must not import package.json'],
    ['a test file',             `import { build } from './fault.test.ts';`,          'only tests may import src/mmu/fault.test.ts'],
    ["a test's helper",         `import { build } from './testing/build.ts';`,       'only tests may import src/mmu/testing/build.ts'],
    ['a computed import',       'const a = import(`../${b}.ts`);',                   'an import whose target is computed cannot be held against rooms.json'],
    ['the time of day',         'const t = Date.now();',                             'mmu must not use Date.now'],
    ['the time as an object',   'const t = new Date();',                             'mmu must not use new Date()'],
    ['chance',                  `const r = Math['random']();`,                       'mmu must not use Math.random'],
    ['the process',             'const e = process.env;',                            'mmu must not use process'],
    ['the console',             'function f() { console.log(1); }',                  'mmu must not use console'],
    ['a shorthand',             'const o = { process };',                            'mmu must not use process'],
    ['waiting',                 'await f();',                                        'mmu must not use await'],
    ['an async function',       'const f = async () => 1;',                          'mmu must not use async'],
  ])('sees %s', (_what, line, rule) => {
    expect(check('src/mmu/fault.ts', `// one\n\n${line}\n`)).toEqual([`src/mmu/fault.ts:3: ${rule}`]);
  });

  // biome-ignore format: a table
  it.each([
    ['an allowed room',              'src/mmu/a.ts',       `import { u64 } from '../base/u64.ts';`],
    ['its own room',                 'src/mmu/tdp/a.ts',   `import { b } from '../b.ts';`],
    ['a comment',                    'src/mmu/a.ts',       `// import '../hw/tlb.ts' or Date.now()`],
    ['a string',                     'src/mmu/a.ts',       `const s = "import '../hw/tlb.ts'; await x";`],
    ['a property of that name',      'src/mmu/a.ts',       'queue.process(1); const o = { console: 1 };'],
    ['a date from a number',         'src/formats/a.ts',   'const d = new Date(0);'],
    ['a test that imports anything', 'src/mmu/a.test.ts',  `import '../hw/tlb.ts'; await import('node:fs');`],
    ['files in node/',               'src/node/a.ts',      `import 'node:fs'; import '../lab/a.ts'; console.log(Date.now());`],
    ['the public entry',             'src/index.ts',       `export { Kvm } from './vm/kvm.ts';`],
  ])('lets %s pass', (_what, file, line) => {
    expect(check(file, line)).toEqual([]);
  });

  it('refuses a directory that is no room', () => {
    expect(check('src/utils/a.ts', '')).toEqual(['src/utils/a.ts:1: src/utils is not a room of rooms.json']);
  });

  it('keeps node and browser apart', () => {
    expect(check('src/browser/a.ts', `import '../node/cli.ts';`)).toHaveLength(1);
    expect(check('src/node/a.ts', `import '../browser/page.ts';`)).toHaveLength(1);
  });
});
