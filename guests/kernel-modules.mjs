/**
 * Paths of kernel modules in the order in which they can be loaded, each behind those that it depends on.
 *
 *   node kernel-modules.mjs MODULES_FOLDER NAME...      one path a line; a name that isn't there is built in, or an error if it ends in !
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

const [folder, ...names] = process.argv.slice(2);
/** @type {Map<string, string>} */
const files = new Map();
for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
  if (entry.name.endsWith('.ko')) files.set(plain(basename(entry.name, '.ko')), join(entry.parentPath, entry.name));
}

/** Modules are named with - and _ alike. @param {string} name */
function plain(name) {
  return name.replaceAll('-', '_');
}

/** @param {string} path */
function dependencies(path) {
  const [, list = ''] = /\0depends=([^\0]*)\0/.exec(readFileSync(path, 'latin1')) ?? [];
  return list.split(',').filter((name) => name !== '');
}

/** @type {Set<string>} */
const order = new Set();
/** @param {string} name */
function add(name) {
  const path = files.get(plain(name));
  if (path === undefined || order.has(path)) return path !== undefined;
  for (const other of dependencies(path)) add(other);
  order.add(path);
  return true;
}

for (const name of names) {
  if (!add(name.replace('!', '')) && name.endsWith('!')) {
    console.error(`no module ${name.replace('!', '')} in ${folder}`);
    process.exit(1);
  }
}
for (const path of order) console.log(path);
