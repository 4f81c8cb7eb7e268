import { describe, expect, it } from 'vitest';
import { fillText, PAGE_COLUMNS, PLAIN, renderTable, styleFor } from './table.ts';

describe('a table on the terminal', () => {
  it('aligns numbers right under their heads, with thin rules', () => {
    const rows = [
      { label: 'group', cells: [] },
      { label: '  one', cells: [{ text: '1' }, { text: '1,234,567,890' }] },
    ];
    expect(renderTable(['a', 'long'], rows, PLAIN).split('\n')).toEqual([
      '                  a           long',
      '──────────────────────────────────',
      'group',
      '  one             1  1,234,567,890',
      '──────────────────────────────────',
    ]);
  });

  it('puts columns that do not fit into further blocks, each with its labels', () => {
    const heads = Array.from({ length: 12 }, (_, i) => `policy-${i}`);
    const rows = [{ label: 'x'.repeat(30), cells: heads.map((_, i) => ({ text: String(i) })) }];
    const text = renderTable(heads, rows, PLAIN);
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(PAGE_COLUMNS);
    expect(text.match(/x{30}/g)).toHaveLength(3);
    for (const head of heads) expect(text).toContain(head);
  });

  it('pads before it paints', () => {
    const style = styleFor({ isTTY: true }, {});
    const text = renderTable(['a'], [{ label: 'l', cells: [{ text: '5', look: 'bad' }] }], style);
    expect(text).toContain('\u001b[31m         5\u001b[39m');
  });

  // biome-ignore format: a table
  it.each([
    ['a terminal',                   true,      {},                  true],
    ['a pipe',                       undefined, {},                  false],
    ['a terminal with NO_COLOR',     true,      { NO_COLOR: '1' },   false],
    ['a terminal, NO_COLOR empty',   true,      { NO_COLOR: '' },    true],
    ['a dumb terminal',              true,      { TERM: 'dumb' },    false],
  ])('colours on %s or not', (_what, isTTY, env, coloured) => {
    expect(styleFor({ isTTY }, env).bold('x') !== 'x').toBe(coloured);
  });
});

describe('running text', () => {
  it('is filled into lines that are not too long', () => {
    expect(fillText('aa bb cc dd', '  ', 7)).toBe('  aa bb\n  cc dd');
    expect(fillText('a-word-that-is-too-long b', '', 5)).toBe('a-word-that-is-too-long\nb');
  });
});
