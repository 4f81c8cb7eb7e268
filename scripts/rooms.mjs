/**
 * Holds the sources against the table of rooms (`rooms.json`): which room imports which, and who names things that make
 * a run depend on more than its seed. It reads syntax trees, so strings, comments and property names can't confuse it,
 * and it sees `import type` too: a type is knowledge about another room as much as a function is.
 */
import { readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { parseSync } from 'oxc-parser';
import { lineOf, typescriptSources, walk } from './sources.mjs';

/**
 * @typedef {import('./sources.mjs').SyntaxNode} SyntaxNode
 * @typedef {{ deterministic: boolean, packages: string[], mayImport: string[], mayNotImport?: string[] }} Room
 * @typedef {{ free: string[], deterministicForbids: string[], rooms: Record<string, Room> }} RoomTable
 * @typedef {{ file: string, line: number, rule: string }} Violation
 */

/** @param {string} root the checkout @returns {RoomTable} */
export function readRooms(root) {
  return JSON.parse(readFileSync(join(root, 'rooms.json'), 'utf8'));
}

/** Every breach of the table in `root/src`. @param {string} root @param {RoomTable} table @returns {Violation[]} */
export function checkRooms(root, table) {
  return typescriptSources(root).flatMap((file) => checkSource(file, readFileSync(join(root, file), 'utf8'), table));
}

/**
 * Every breach of the table in one file, in the order of its lines.
 *
 * @param {string} file its path from the checkout, `src/...`, which says in which room it is
 * @param {string} text
 * @param {RoomTable} table
 * @returns {Violation[]}
 */
export function checkSource(file, text, table) {
  const name = roomOf(file);
  const room = table.rooms[name];
  if (room === undefined) return [{ file, line: 1, rule: `src/${name} is not a room of rooms.json` }];
  const { program, errors } = parseSync(file, text);
  if (errors.length > 0) return [{ file, line: 1, rule: `does not parse: ${errors[0].message}` }];
  if (isFree(file, table)) return [];

  /** @type {Violation[]} */
  const violations = [];
  walk(program, (node, parent, field) => {
    const rule =
      brokenByImport(file, name, node, table) ??
      (room.deterministic ? brokenByName(name, node, parent, field, table) : null);
    if (rule !== null) violations.push({ file, line: lineOf(text, node.start), rule });
  });
  return violations;
}

/** The directory directly in `src/` that holds a file, or `(root)`. @param {string} file */
function roomOf(file) {
  const parts = file.split('/');
  return parts.length > 2 ? parts[1] : '(root)';
}

/** Whether a file is a test or the like. @param {string} file @param {RoomTable} table */
function isFree(file, table) {
  return table.free.some((pattern) =>
    pattern.endsWith('/*') ? file.includes(pattern.slice(0, -1)) : file.endsWith(pattern),
  );
}

/** @param {string} file @param {string} name @param {SyntaxNode} node @param {RoomTable} table @returns {string | null} */
function brokenByImport(file, name, node, table) {
  const specifier = importedBy(node);
  if (specifier === undefined) return null;
  if (specifier === null) return 'an import whose target is computed cannot be held against rooms.json';
  const room = table.rooms[name];
  if (!specifier.startsWith('.')) {
    const wanted = specifier.startsWith('node:') ? 'node:*' : '*';
    return room.packages.includes(wanted) ? null : `${name} must not import ${specifier}`;
  }
  const target = posix.join(posix.dirname(file), specifier);
  if (isFree(target, table)) return `only tests may import ${target}`;
  // What lies outside src/ (package.json) belongs to no room; who may read files may read it.
  if (!target.startsWith('src/')) return room.packages.includes('node:*') ? null : `${name} must not import ${target}`;
  const other = roomOf(target);
  if (other === name) return null;
  const allowed = room.mayImport.includes('*') ? !room.mayNotImport?.includes(other) : room.mayImport.includes(other);
  return allowed ? null : `${name} must not import ${other}`;
}

/** The target of an import or re-export; null for a computed one, undefined for any other node. @param {SyntaxNode} node */
function importedBy(node) {
  switch (node.type) {
    case 'ImportDeclaration':
    case 'ExportAllDeclaration':
    case 'ExportNamedDeclaration':
    case 'ImportExpression':
    case 'TSImportType':
      if (node.source === null || node.source === undefined) return undefined;
      return typeof node.source.value === 'string' ? /** @type {string} */ (node.source.value) : null;
    default:
      return undefined;
  }
}

/**
 * @param {string} room
 * @param {SyntaxNode} node
 * @param {SyntaxNode | null} parent
 * @param {string} field
 * @param {RoomTable} table
 * @returns {string | null}
 */
function brokenByName(room, node, parent, field, table) {
  const named = forbiddenNames(node, parent, field).find((name) => table.deterministicForbids.includes(name));
  return named === undefined ? null : `${room} must not use ${named}`;
}

/** How `deterministicForbids` would call what a node does. @param {SyntaxNode} node @param {SyntaxNode | null} parent @param {string} field */
function forbiddenNames(node, parent, field) {
  switch (node.type) {
    case 'AwaitExpression':
      return ['await'];
    case 'ForOfStatement':
      return node.await === true ? ['await'] : [];
    case 'FunctionDeclaration':
    case 'FunctionExpression':
    case 'ArrowFunctionExpression':
      return node.async === true ? ['async'] : [];
    case 'NewExpression':
      // Without arguments it is the time of day; with some it is arithmetic.
      return node.callee.name === 'Date' && node.arguments.length === 0 ? ['new Date()'] : [];
    case 'MemberExpression': {
      const property = node.computed === true ? node.property.value : node.property.name;
      return [`${node.object.name}.${property}`];
    }
    case 'Identifier':
      return isReference(parent, field) ? [node.name] : [];
    default:
      return [];
  }
}

/** Whether an identifier in this place is a variable, and not the name of a property. @param {SyntaxNode | null} parent @param {string} field */
function isReference(parent, field) {
  if (parent === null) return true;
  if (field === 'property') return parent.type !== 'MemberExpression' || parent.computed === true;
  // `{ process: 1 }`, `process() {}` and `process: number` name a property; `{ process }` says it twice, once as a value.
  if (field === 'key') return parent.computed === true;
  if (['imported', 'exported', 'label', 'typeName', 'parameterName'].includes(field)) return false;
  return true;
}

/** One line for each violation, as a terminal or an editor can follow it. @param {Violation[]} violations */
export function formatViolations(violations) {
  return violations.map(({ file, line, rule }) => `${file}:${line}: ${rule}`);
}
