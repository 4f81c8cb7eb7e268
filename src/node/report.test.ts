/** The report beside the terminal: the same numbers, the same sentences, and a file that is whole or not there. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { writeWhole } from './atomic-file.ts';
import { createProgram } from './program.ts';

const folder = mkdtempSync(join(tmpdir(), 'penumbra-report-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => {
  process.exitCode = undefined;
  vi.restoreAllMocks();
});

async function penumbra(...args: string[]): Promise<string> {
  let out = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => ((out += String(text)), true));
  await createProgram().parseAsync(args, { from: 'user' });
  vi.restoreAllMocks();
  return out;
}

/** Rows of label and numbers in a terminal's table: `label    1,234    0`. */
function terminalRows(text: string): string[][] {
  return text.split('\n').flatMap((line) => {
    const [, label, numbers] = /^ {2} *(\S.*?) {2,}((?:[\d,]+ +)*[\d,]+)$/.exec(line) ?? [];
    return label === undefined ? [] : [[label, ...numbers.split(/ +/)]];
  });
}

/** The same of the report's tables. */
function reportRows(html: string): string[][] {
  return [...html.matchAll(/<tr data-measure="\w+"><th[^>]*>(.*?)<\/th>(.*?)<\/tr>/g)].map(([, label, cells]) => [
    plain(label),
    ...[...cells.matchAll(/<td[^>]*>(.*?)<\/td>/g)].map(([, text]) => text),
  ]);
}

function plain(html: string): string {
  return html
    .replace(/<[^>]*>/g, ' ')
    .replace(/&#39;/g, "'")
    .replace(/&quot;/g, '"')
    .replace(/&lt;/g, '<')
    .replace(/&gt;/g, '>')
    .replace(/&amp;/g, '&');
}

const words = (text: string): string => text.replace(/\s+/g, ' ');

describe('--report', () => {
  it.each(['story', 'replay'])('of %s holds the numbers and sentences of the terminal', async (command) => {
    const path = join(folder, `${command}.html`);
    const text = await penumbra(command, 'synthetic:4', 'synthetic:5', '--report', path);
    const html = readFileSync(path, 'utf8');
    const rows = reportRows(html);
    expect(rows).toHaveLength(2 * 20);
    expect(rows).toEqual(terminalRows(text));

    const shown = words(plain(html));
    const [body] = text.split('\n\nReport: ');
    const paragraphs = [...body.matchAll(/^[A-Z][^\n]*\.\n((?: {2}\S.*\n?)+)/gm)].map(([, text]) => words(text).trim());
    // What was checked is a list there, not a sentence.
    const narrative = paragraphs.filter((text) => !text.startsWith('Zap loses no page'));
    expect(narrative).toHaveLength(2 * 4 + 1);
    for (const text of narrative) expect(shown).toContain(text);
    expect(shown).toContain(
      `penumbra ${command} synthetic:4 synthetic:5 --policy zap,lazy+bug,lazy,eager --round-epochs 50 --seed 1`,
    );
    expect(text.trimEnd().split('\n').at(-1)).toBe(`Report: ${path}`);
    expect(readdirSync(folder).filter((name) => name.endsWith('.part'))).toEqual([]);
  });

  it('leaves standard output to the JSON that was asked for', async () => {
    const path = join(folder, 'json.html');
    const [story] = JSON.parse(await penumbra('story', 'synthetic:4', '--json', '--report', path));
    const lost = reportRows(readFileSync(path, 'utf8')).find(([label]) => label === 'pages lost');
    const numbers = story.runs.map((run: { measures: { lostPages: number } }) => run.measures.lostPages);
    expect(lost?.slice(1).map((text) => Number(text.replaceAll(',', '')))).toEqual(numbers);
    expect(story).not.toHaveProperty('timeline');
  });

  it('shows the policies that were asked for and no others', async () => {
    const path = join(folder, 'two.html');
    await penumbra('replay', 'synthetic:4', '--policy', 'lazy,zap', '--report', path);
    const html = readFileSync(path, 'utf8');
    expect([...html.matchAll(/<article class="panel"[^>]*aria-label="([^"]*)"/g)].map(([, name]) => name)).toEqual([
      'lazy',
      'zap',
    ]);
  });
});

describe('a file that is written whole', () => {
  it('is what it was before if something fails on the way, and nothing is left beside it', () => {
    const path = join(folder, 'kept');
    writeFileSync(path, 'before');
    const failing = function* (): Generator<string> {
      yield 'half';
      throw new Error('out of ideas');
    };
    expect(() => writeWhole(path, failing())).toThrow('out of ideas');
    expect(readFileSync(path, 'utf8')).toBe('before');
    expect(readdirSync(folder).filter((name) => name.includes('kept.'))).toEqual([]);
  });

  it('counts bytes, not characters', () => {
    const path = join(folder, 'bytes');
    expect(writeWhole(path, ['ä', Uint8Array.of(1, 2)])).toBe(4);
    expect([...readFileSync(path)]).toEqual([0xc3, 0xa4, 1, 2]);
  });
});
