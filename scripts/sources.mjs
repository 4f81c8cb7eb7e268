/** The sources of `src/` as the checks of the house see them: a list of files and a walk over a syntax tree. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/**
 * A node of the ESTree form in which oxc-parser gives TypeScript: `type`, offsets into the text, and fields by kind.
 *
 * @typedef {{ type: string, start: number, end: number, [field: string]: any }} SyntaxNode
 */

/** All TypeScript files below `root/src`, as `src/...` with forward slashes, sorted. @param {string} root */
export function typescriptSources(root) {
  return readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => `src/${name.replaceAll('\\', '/')}`)
    .sort();
}

/**
 * Calls `visit` for every node of a tree, parents first and in the order of the text.
 *
 * @param {SyntaxNode} node
 * @param {(node: SyntaxNode, parent: SyntaxNode | null, field: string) => void} visit
 * @param {SyntaxNode | null} [parent]
 * @param {string} [field] the parent's field in which the node stands
 */
export function walk(node, visit, parent = null, field = '') {
  visit(node, parent, field);
  for (const [name, value] of Object.entries(node)) {
    for (const child of Array.isArray(value) ? value : [value]) {
      if (typeof child?.type === 'string') walk(child, visit, node, name);
    }
  }
}

/** The line, from 1, in which an offset lies. @param {string} text @param {number} offset */
export function lineOf(text, offset) {
  let line = 1;
  for (let at = text.indexOf('\n'); at !== -1 && at < offset; at = text.indexOf('\n', at + 1)) line++;
  return line;
}
