/** `docs/concordance.md` says what the sources say, and the script that writes it reads the tags as it should. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { CONCORDANCE, concordanceOf, entriesOf, renderConcordance } from '../scripts/concordance.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const tags = (text: string) => entriesOf('src/mmu/a.ts', text);

describe('the concordance', () => {
  it('is what the sources say now (else: npm run docs)', () => {
    const isStale = readFileSync(join(ROOT, CONCORDANCE), 'utf8') !== concordanceOf(ROOT);
    // Not a comparison of the texts: one moved line would show as a screenful of others.
    expect(isStale, `${CONCORDANCE} is stale: npm run docs`).toBe(false);
  });
});

describe('reading the tags', () => {
  // biome-ignore format: a table
  it.each([
    ['a function',            '/** @kvm x */\nfunction f() {}',                                 'f'],
    ['an exported function',  '/** @kvm x */\nexport function f() {}',                          'f'],
    ['a constant',            '/** @kvm x */\nexport const f = () => 1;',                       'f'],
    ['a class',               '/** @kvm x */\nexport class C {}',                               'C'],
    ['a method',              'class C {\n  /** @kvm x */\n  walk() {}\n}',                     'C.walk'],
    ['a field of a type',     'export interface Role {\n  /** @kvm x */\n  level: number;\n}',  'Role.level'],
    ['a field of a record',   'export const o = {\n  /** @kvm x */\n  level: 1,\n};',           'o.level'],
    ['a comment in between',  '/** @kvm x */\n// why\nfunction f() {}',                         'f'],
    ['a comment in a body',   'function f() {\n  /** @kvm x */\n  return 1;\n}',                'f'],
    ['a file',                "/** @kvm x */\nimport './b.ts';",                                ''],
  ])('finds %s', (_what, text, declaration) => {
    expect(tags(text)).toEqual([{ file: 'src/mmu/a.ts', declaration, kvm: ['x'], diverges: [] }]);
  });

  it('takes several names, over several lines and tags', () => {
    const [entry] = tags('/**\n * Says why.\n *\n * @kvm a, b,\n *   c_d\n * @kvm e\n */\nfunction f() {}');
    expect(entry.kvm).toEqual(['a', 'b', 'c_d', 'e']);
  });

  it('takes a reason up to the end of its paragraph or the next tag', () => {
    const [entry] = tags('/**\n * @diverges ours splits\n *   at once\n * @kvm a\n *\n * More.\n */\nfunction f() {}');
    expect(entry).toMatchObject({ kvm: ['a'], diverges: ['ours splits at once'] });
  });

  it('ignores ordinary comments and strings', () => {
    expect(tags("// @kvm a\n/* @kvm b */\nconst s = '/** @kvm c */';")).toEqual([]);
  });
});

it('sorts by the name in the kernel and links to the file', () => {
  const entry = { file: 'src/mmu/a.ts', declaration: 'f', diverges: ['a | b'] };
  const lines = renderConcordance([
    { ...entry, kvm: ['zap'] },
    { ...entry, kvm: ['age'] },
  ]).split('\n');
  const rows = lines.filter((line) => line.includes('a.ts'));
  expect(rows).toEqual([
    '| `age` | `f` | [src/mmu/a.ts](../src/mmu/a.ts) |',
    '| `zap` | `f` | [src/mmu/a.ts](../src/mmu/a.ts) |',
    '| `f` | [src/mmu/a.ts](../src/mmu/a.ts) | a \\| b |',
    '| `f` | [src/mmu/a.ts](../src/mmu/a.ts) | a \\| b |',
  ]);
});
