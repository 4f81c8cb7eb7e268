/**
 * Writes `docs/concordance.md`: which function of the kernel became which of ours, and where we knowingly differ.
 * The source of both tables are the tags in doc comments, `@kvm name[, name]` and `@diverges reason`.
 *
 *   node scripts/concordance.mjs           write the file
 *   node scripts/concordance.mjs --check   exit 1 if the file is not what the sources say now
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseSync } from 'oxc-parser';
import { typescriptSources, walk } from './sources.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/** From the checkout; links in it are relative to its own directory. */
export const CONCORDANCE = 'docs/concordance.md';

/**
 * @typedef {import('./sources.mjs').SyntaxNode} SyntaxNode
 * @typedef {{ name: string, start: number, end: number }} Declaration
 * @typedef {{ file: string, declaration: string, kvm: string[], diverges: string[] }} Entry
 */

/** The document that belongs to the sources below `root`. @param {string} root @returns {string} */
export function concordanceOf(root) {
  return renderConcordance(
    typescriptSources(root)
      .filter((file) => !file.endsWith('.test.ts'))
      .flatMap((file) => entriesOf(file, readFileSync(join(root, file), 'utf8'))),
  );
}

/** The tagged doc comments of one file, each with the declaration it stands before. @param {string} file @param {string} text */
export function entriesOf(file, text) {
  if (!/@(kvm|diverges)\b/.test(text)) return [];
  const { program, comments } = parseSync(file, text);
  const declarations = declarationsOf(program);
  /** @type {Entry[]} */
  const entries = [];
  for (const comment of comments) {
    if (comment.type !== 'Block' || !comment.value.startsWith('*')) continue;
    const { kvm, diverges } = tagsOf(comment.value);
    if (kvm.length === 0 && diverges.length === 0) continue;
    const declared = declarationAfter(comment, text, declarations);
    entries.push({ file, declaration: declared?.name ?? '', kvm, diverges });
  }
  return entries;
}

/** @param {string} comment the text between the comment's marks @returns {{ kvm: string[], diverges: string[] }} */
function tagsOf(comment) {
  const plain = comment.replace(/^[ \t]*\*+ ?/gm, '');
  const kvm = [...plain.matchAll(/@kvm\s+((?:FNAME\(\w+\)|\w+)(?:\s*,\s*(?:FNAME\(\w+\)|\w+))*)/g)].flatMap(
    ([, names]) => names.split(/\s*,\s*/),
  );
  // A reason ends with the next tag or with its paragraph.
  const diverges = [...plain.matchAll(/@diverges\s+([\s\S]*?)(?=\n\s*\n|\s@[a-z]+\s|$)/g)].map(([, reason]) =>
    reason.replace(/\s+/g, ' ').trim(),
  );
  return { kvm, diverges };
}

/**
 * All that a doc comment can stand before, with its name: `f`, `Class.method`, `record.field`.
 *
 * @param {SyntaxNode} program
 * @returns {Declaration[]}
 */
function declarationsOf(program) {
  /** @type {Declaration[]} */
  const found = [];
  walk(program, (node) => {
    const own = nameOf(node);
    if (own === undefined) return;
    const container = found.findLast(({ start, end }) => start <= node.start && node.end <= end);
    const isMember = 'key' in node;
    found.push({ name: isMember && container ? `${container.name}.${own}` : own, start: node.start, end: node.end });
  });
  return found;
}

/** @param {SyntaxNode} node @returns {string | undefined} */
function nameOf(node) {
  if (node.type === 'VariableDeclaration') return node.declarations[0].id.name;
  if (node.type === 'ExportNamedDeclaration' || node.type === 'ExportDefaultDeclaration') {
    // Its offset is the one that a comment before `export` sees; the declaration inside has the name.
    return node.declaration ? nameOf(node.declaration) : undefined;
  }
  if ('key' in node) return node.key.name ?? (node.key.value === undefined ? undefined : String(node.key.value));
  return node.type.endsWith('Declaration') ? node.id?.name : undefined;
}

/**
 * The declaration that follows a comment with nothing but space and further comments between, else the one around it
 * (a comment in a body or at an array's element).
 *
 * @param {{ start: number, end: number }} comment
 * @param {string} text
 * @param {Declaration[]} declarations
 */
function declarationAfter(comment, text, declarations) {
  const gap = /^(?:\s+|\/\*[\s\S]*?\*\/|\/\/[^\n]*)*/.exec(text.slice(comment.end))?.[0].length ?? 0;
  const start = comment.end + gap;
  return (
    declarations.find((declaration) => declaration.start === start) ??
    declarations.findLast((declaration) => declaration.start <= comment.start && comment.end <= declaration.end)
  );
}

/** @param {Entry[]} entries @returns {string} */
export function renderConcordance(entries) {
  const functions = entries.flatMap((entry) => entry.kvm.map((name) => [`\`${name}\``, ours(entry), link(entry)]));
  const divergences = entries.flatMap((entry) =>
    entry.diverges.map((reason) => [ours(entry), link(entry), reason.replaceAll('|', '\\|')]),
  );
  return [
    '# Concordance',
    '',
    'Written by `npm run docs` from the `@kvm` and `@diverges` tags in doc comments; changes made here are lost.',
    '',
    "## The kernel's functions and ours",
    '',
    table(['kernel', 'here', 'where'], functions),
    '',
    '## Where we differ, and why',
    '',
    table(['here', 'where', 'why'], divergences),
    '',
  ].join('\n');
}

/** @param {Entry} entry */
function ours({ declaration }) {
  return declaration === '' ? '(the file)' : `\`${declaration}\``;
}

/** @param {Entry} entry */
function link({ file }) {
  // Without line numbers, which any edit would make stale.
  return `[${file}](../${file})`;
}

/** Sorted by code units, which no locale changes; entries of one name stay in the order of the sources. @param {string[]} head @param {string[][]} rows */
function table(head, rows) {
  if (rows.length === 0) return 'None yet.';
  const sorted = rows.toSorted((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
  return [head, head.map(() => '---'), ...sorted].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** @param {boolean} checkOnly */
function main(checkOnly) {
  const path = join(ROOT, CONCORDANCE);
  const wanted = concordanceOf(ROOT);
  const present = existsSync(path) ? readFileSync(path, 'utf8') : '';
  if (present === wanted) return;
  if (checkOnly) {
    process.stderr.write(`${CONCORDANCE} is stale: npm run docs\n`);
    process.exitCode = 1;
    return;
  }
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, wanted);
  process.stderr.write(`wrote ${CONCORDANCE}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) main(process.argv.includes('--check'));
