/** The museum is complete: each switch has a test and a page, each page is in the index and says what a page has to say. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { BUGS, NO_BUGS, withBugs } from '../bugs.ts';

const HERE = dirname(fileURLToPath(import.meta.url));
const DOCS = join(HERE, '../../../docs/museum');
/** Exhibits that are a policy, or a parameter of KVM's own. */
const WITHOUT_SWITCH = ['lazy+bug', 'nx_huge_pages'];
const EXHIBITS = [...Object.keys(BUGS), ...WITHOUT_SWITCH].toSorted();

const pageOf = (name: string): string => readFileSync(join(DOCS, `${name}.md`), 'utf8');

/** Which test file shows each exhibit. */
function shown(): Map<string, string> {
  const files = readdirSync(HERE).filter((file) => file.endsWith('.test.ts') && file !== 'museum.test.ts');
  const found = new Map<string, string>();
  for (const file of files) {
    const text = readFileSync(join(HERE, file), 'utf8');
    for (const [, name] of text.matchAll(/^exhibit\(\s*'(\w+)'/gm)) found.set(name, file);
    for (const [, name] of text.matchAll(/^describe\('(?:the policy )?([\w+]+)'/gm)) found.set(name, file);
  }
  return found;
}

describe('the museum', () => {
  it('has at least 25 exhibits', () => expect(EXHIBITS.length).toBeGreaterThanOrEqual(25));

  it('shows each exhibit in a test', () => expect([...shown().keys()].toSorted()).toEqual(EXHIBITS));

  it('has a page for each exhibit and no other page', () => {
    const pages = readdirSync(DOCS).filter((file) => file !== 'README.md');
    expect(pages.toSorted()).toEqual(EXHIBITS.map((name) => `${name}.md`).toSorted());
  });

  it('lists each page in its index', () => {
    const index = readFileSync(join(DOCS, 'README.md'), 'utf8');
    const linked = [...index.matchAll(/\]\(([^)]+)\.md\)/g)].map(([, name]) => name);
    expect(linked.toSorted()).toEqual(EXHIBITS);
  });
});

describe.each(EXHIBITS)('the page of %s', (name) => {
  it('tells who brought it and who mended it, where it was and what it did', () => {
    const text = pageOf(name);
    expect(text.startsWith(`# ${name}\n`)).toBe(true);
    for (const part of ['**Brought by**', '**Mended by**', '**Where**', '**What it did.**'])
      expect(text).toContain(part);
  });

  it('names the test that shows it', () => {
    expect(pageOf(name)).toContain(`npx vitest run src/mmu/museum/${shown().get(name)} -t `);
  });

  it('names files that there are', () => {
    for (const [, path] of pageOf(name).matchAll(/`(src\/[\w./-]+\.ts)`/g))
      expect(() => readFileSync(join(HERE, '../../..', path)), path).not.toThrow();
  });
});

describe('the switches', () => {
  it('are all off unless asked for', () => expect(Object.values(NO_BUGS).some(Boolean)).toBe(false));

  it('turn on one by one', () => {
    const on = Object.entries(withBugs('flushIfChanged', 'childRoleUnchecked')).filter(([, value]) => value);
    expect(on.map(([name]) => name).toSorted()).toEqual(['childRoleUnchecked', 'flushIfChanged']);
  });
});
