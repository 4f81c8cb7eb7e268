/**
 * What the benchmark guest says on its console (`guests/bench/README.md`), the results that it must say, and where its images are.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { refuse } from './guest-run.mjs';
import { ROOT } from './setup.mjs';

/**
 * @typedef {object} Marks
 * @property {string | undefined} init machine and release, once /init runs
 * @property {Map<string, string>} checksums by benchmark, of those that are done
 * @property {string[]} fails
 * @property {boolean} done
 * @property {boolean} panicked
 */

/** Benchmarks of integer arithmetic, whose instructions are counted well enough to speak of MIPS. */
export const INTEGER = ['int', 'int64', 'crc', 'vm'];
export const REFERENCE_FILE = join(ROOT, 'guests', 'bench', 'reference.json');
const IMAGES = join(ROOT, 'guests', 'out');

/** @param {string} console_ @returns {Marks} */
export function readMarks(console_) {
  /** @type {Marks} */
  const marks = { init: undefined, checksums: new Map(), fails: [], done: false, panicked: false };
  for (const line of console_.split(/\r?\n/)) {
    if (/Kernel panic/.test(line)) marks.panicked = true;
    const at = line.indexOf('@@');
    if (at < 0) continue;
    const [tag, name, , , checksum = ''] = line.slice(at).trim().split(' ');
    if (tag === '@@INIT') marks.init = line.slice(at + 7).trim();
    else if (tag === '@@E') marks.checksums.set(name, checksum);
    else if (tag === '@@FAIL') marks.fails.push(name);
    else if (tag === '@@DONE') marks.done = true;
  }
  return marks;
}

/**
 * The results of each benchmark as QEMU has them, by the scale of the work; and, at scale 1, how many instructions it takes.
 *
 * @returns {{ instructions: Record<string, number>, checksums: Record<string, Record<string, string>> }}
 */
export function readReference() {
  return JSON.parse(readFileSync(REFERENCE_FILE, 'utf8'));
}

/** @param {Marks} marks @param {Record<string, string>} expected @returns {string[]} a line for each that differs or is missing */
export function differences(marks, expected) {
  const lines = [];
  for (const [name, checksum] of Object.entries(expected)) {
    const has = marks.checksums.get(name);
    if (has === undefined) lines.push(`${name} is missing`);
    else if (has !== checksum) lines.push(`${name}: ${has}, expected ${checksum}`);
  }
  return lines;
}

/** The kernels that there are guests of, by the script that makes them. @type {Record<string, string>} */
export const KERNEL_MAKERS = {
  generic: 'build-debian.sh',
  cloud: 'build-debian.sh',
  i386: 'build-debian-others.sh',
  'i386-pae': 'build-debian-others.sh',
  6.12: 'build-debian-others.sh',
};

/** Ends the script if the guests have not been built. @param {string} kernel one of KERNEL_MAKERS */
export function imagesOf(kernel) {
  const initrd = kernel.startsWith('i386') ? 'bench-i386.cpio.gz' : 'bench.cpio.gz';
  const images = { kernel: join(IMAGES, kernel, 'bzImage'), initrd: join(IMAGES, initrd) };
  for (const path of Object.values(images)) {
    if (!existsSync(path)) refuse(`no ${path}: bash guests/${KERNEL_MAKERS[kernel]} makes it`);
  }
  return images;
}

/** @param {{ scale: string, run?: string, only?: string }} options */
export function appendOf({ scale, run, only }) {
  const words = ['console=ttyS0 nokaslr panic=-1', `bench.scale=${scale}`];
  if (run !== undefined) words.push(`bench.run=${run}`);
  if (only !== undefined) words.push(`bench.only=${only}`);
  return words.join(' ');
}
