/**
 * Writes an initramfs: a cpio archive (newc), compressed by gzip, the same bytes for the same input on every machine. Needs no root,
 * since device nodes are only described.
 *
 *   node cpio.mjs OUT.gz dir:/bin file:/init=PATH:755 link:/bin/sh=busybox char:/dev/console=5,1:600
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const TYPES = { dir: 0o040000, file: 0o100000, link: 0o120000, char: 0o020000 };
const NOTHING = Buffer.alloc(0);

/** @param {string} word @param {number} number */
function parseEntry(word, number) {
  const [, type, path, , value = '', , mode] = /^(dir|file|link|char):([^=:]+)(=([^:]*))?(:([0-7]+))?$/.exec(word) ?? [];
  if (type === undefined) throw new Error(`what is "${word}"?`);
  const isDevice = type === 'char';
  return {
    inode: number,
    name: path.replace(/^\//, ''),
    mode: TYPES[type] | Number.parseInt(mode ?? (type === 'link' ? '777' : '755'), 8),
    links: type === 'dir' ? 2 : 1,
    device: isDevice ? value.split(',').map(Number) : [0, 0],
    body: type === 'file' ? readFileSync(value) : type === 'link' ? Buffer.from(value) : NOTHING,
  };
}

/** @param {Buffer} bytes */
const padded = (bytes) => Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);

/** @param {ReturnType<typeof parseEntry>} entry */
function encode({ inode, name, mode, links, device, body }) {
  const fields = [inode, mode, 0, 0, links, 0, body.length, 0, 0, ...device, name.length + 1, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  return Buffer.concat([padded(Buffer.from(`${header}${name}\0`)), padded(body)]);
}

const [out, ...words] = process.argv.slice(2);
const entries = words.map((word, i) => parseEntry(word, i + 1));
entries.push({ inode: 0, name: 'TRAILER!!!', mode: 0, links: 1, device: [0, 0], body: NOTHING });
writeFileSync(out, gzipSync(Buffer.concat(entries.map(encode)), { level: 9 }));
