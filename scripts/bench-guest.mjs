/**
 * Our machine beside QEMU without KVM on the same guest: time from the start to /init for Debian's cloud and generic kernel, each
 * benchmark of guests/bench, and MIPS for those of integer arithmetic with their geometric mean.
 *
 *   npm run bench:guest [-- --subjects tdp,shadow,qemu] [--kernel cloud,generic] [--only int,fp] [--run gbench,busybox]
 *                          [--scale 1] [--runs 1] [--memory 512M] [--policy P] [--timeout SECONDS] [--json]
 *
 * The benchmarks run on the first kernel, on the others only the way to /init is timed. Subjects take turns, so that drift of the
 * machine hits all alike; of several runs the median counts. Times are CPU seconds of the busiest thread, which on a shared machine
 * is what the clock would show on a quiet one, where /proc tells them, else (or with --wall) seconds by the clock.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { appendOf, differences, imagesOf, INTEGER, readMarks, readReference } from './bench-guest-marks.mjs';
import { penumbraCommand, qemuCommand, refuse, runGuest, table } from './guest-run.mjs';
import { setupOrExit } from './setup.mjs';

/** @typedef {{ init: number, benchmarks: Map<string, number>, wrong: string[], end: string }} Timing seconds */

const SUBJECTS = ['tdp', 'shadow', 'qemu'];
const KERNELS = ['cloud', 'generic'];

const options = parseOptions();
const subjects = listOf('subjects', SUBJECTS);
const kernels = listOf('kernel', KERNELS);
const reference = readReference();
const runs = Number(options.runs);
const seconds = Number(options.timeout);
if (!(seconds > 0)) refuse(`--timeout ${options.timeout}: a number of seconds`);
if (!(Number(options.scale) > 0)) refuse(`--scale ${options.scale}: a number`);
if (!(runs >= 1)) refuse(`--runs ${options.runs}: a number`);
for (const kernel of kernels) imagesOf(kernel);
if (subjects.some((subject) => subject !== 'qemu')) await setupOrExit();

/** By kernel and subject. @type {Record<string, Record<string, Timing[]>>} */
const timings = {};
for (let run = 0; run < runs; run++) {
  for (const [i, kernel] of kernels.entries()) {
    for (const subject of subjects) {
      const timing = await time(subject, kernel, i === 0);
      ((timings[kernel] ??= {})[subject] ??= []).push(timing);
      note(`run ${run + 1}, ${kernel}, ${subject}: ${timing.end}, ${timing.init.toFixed(1)} s to /init\n`);
    }
  }
}
const report = summary();
console.log(options.json ? JSON.stringify(report, null, 1) : render());
process.exitCode = report.wrong.length > 0 ? 1 : 0;

/**
 * One boot, to the end of the benchmarks or only to /init.
 *
 * @param {string} subject @param {string} kernel @param {boolean} whole @returns {Promise<Timing>}
 */
async function time(subject, kernel, whole) {
  const { memory, policy, scale, run, only } = options;
  const guest = { ...imagesOf(kernel), memory, append: appendOf({ scale, run, only }) };
  const paging = subject === 'shadow' ? 'shadow' : 'tdp';
  const command = subject === 'qemu' ? qemuCommand(guest) : penumbraCommand({ ...guest, paging, policy });
  /** @type {Timing} */
  const timing = { init: Number.NaN, benchmarks: new Map(), wrong: [], end: '' };
  let seen = 0;
  /** @type {Map<string, number>} */
  let before = new Map();
  let beforeMs = 0;
  const startMs = performance.now();
  const ran = await runGuest(command, {
    seconds,
    onText: (text, pid) => {
      for (let end = text.indexOf('\n', seen); end >= 0; end = text.indexOf('\n', seen)) {
        const line = text.slice(seen, end);
        seen = end + 1;
        const at = line.indexOf('@@');
        if (at < 0) continue;
        const [tag, name] = line.slice(at).trim().split(' ');
        if (tag === '@@INIT') timing.init = since(pid, new Map(), startMs);
        // chase gets ready first, which is not to be timed.
        if (tag === '@@B' || (tag === '@@I' && name === 'chase'))
          [before, beforeMs] = [threads(pid), performance.now()];
        else if (tag === '@@E') timing.benchmarks.set(name, since(pid, before, beforeMs));
        if (tag === '@@DONE' || (tag === '@@INIT' && !whole)) return true;
      }
      return text.includes('end Kernel panic');
    },
  });
  const marks = readMarks(ran.console);
  const expected = reference.checksums[options.scale] ?? {};
  const done = Object.fromEntries(Object.entries(expected).filter(([name]) => marks.checksums.has(name)));
  timing.wrong = differences(marks, done);
  timing.end = marks.panicked
    ? 'panic'
    : ran.end === 'ended'
      ? `status ${ran.status} ${ran.complaint.trim()}`
      : ran.end;
  return timing;
}

/** Seconds since then: of the busiest thread, or by the clock. @param {number} pid @param {Map<string, number>} then @param {number} thenMs */
function since(pid, then, thenMs) {
  const wall = (performance.now() - thenMs) / 1000;
  if (options.wall) return wall;
  let most = 0;
  for (const [thread, ns] of threads(pid)) most = Math.max(most, ns - (then.get(thread) ?? 0));
  return most > 0 ? most / 1e9 : wall;
}

/** CPU time in ns of each thread of a process and its children; empty where there is no such /proc. @param {number} pid @param {Map<string, number>} into */
function threads(pid, into = new Map()) {
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const folder = `/proc/${pid}/task/${thread}`;
      into.set(thread, Number(readFileSync(`${folder}/schedstat`, 'utf8').split(' ')[0]));
      for (const child of readFileSync(`${folder}/children`, 'utf8').split(' '))
        if (child) threads(Number(child), into);
    }
  } catch {
    // It has ended, or this is no Linux.
  }
  return into;
}

function summary() {
  const [first] = kernels;
  /** @type {Record<string, Record<string, number | undefined>>} */
  const rows = {};
  for (const kernel of kernels)
    rows[`${kernel} to /init`] = bySubject((subject) => timings[kernel][subject].map((t) => t.init));
  const names = new Set(subjects.flatMap((s) => timings[first][s].flatMap((t) => [...t.benchmarks.keys()])));
  for (const name of names) {
    rows[name] = bySubject((subject) => timings[first][subject].map((t) => t.benchmarks.get(name) ?? Number.NaN));
  }
  /** @type {typeof rows} */
  const mips = {};
  for (const name of INTEGER.filter((n) => names.has(n))) {
    const millions = (reference.instructions[name] * Number(options.scale)) / 1e6;
    mips[name] = Object.fromEntries(
      Object.entries(rows[name]).map(([s, t]) => [s, t === undefined ? t : millions / t]),
    );
  }
  const means = Object.fromEntries(subjects.map((s) => [s, geometricMean(Object.values(mips).map((row) => row[s]))]));
  const wrong = kernels.flatMap((kernel) =>
    subjects.flatMap((subject) => timings[kernel][subject].flatMap((t) => t.wrong.map((w) => `${subject}: ${w}`))),
  );
  return { seconds: rows, mips, geometricMeanMips: means, wrong };
}

/** The median for each subject that has one. @param {(subject: string) => number[]} of */
function bySubject(of) {
  return Object.fromEntries(subjects.map((subject) => [subject, median(of(subject))]));
}

/** @param {number[]} values */
function median(values) {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  return sorted.length === 0 ? undefined : (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

/** @param {(number | undefined)[]} values @returns {number | undefined} */
function geometricMean(values) {
  const known = values.filter((value) => value !== undefined);
  if (known.length === 0 || known.length < values.length) return undefined;
  return Math.exp(known.reduce((sum, value) => sum + Math.log(value), 0) / known.length);
}

function render() {
  const { seconds: rows, mips, geometricMeanMips, wrong } = report;
  const cells = (/** @type {Record<string, number | undefined>} */ row) =>
    subjects.flatMap((subject) => {
      const [value, qemu] = [row[subject], row['qemu']];
      const text = value === undefined ? '-' : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
      if (subject === 'qemu' || !subjects.includes('qemu')) return [text];
      return [text, value === undefined || qemu === undefined ? '-' : `${(value / qemu).toFixed(2)}x`];
    });
  const heads = subjects.flatMap((s) => (s === 'qemu' || !subjects.includes('qemu') ? [s] : [s, `${s}/qemu`]));
  const times = table(
    ['seconds', ...heads],
    Object.entries(rows).map(([name, row]) => [name, ...cells(row)]),
    heads,
  );
  const rates = Object.entries(mips).map(([name, row]) => [name, ...cells(row)]);
  if (rates.length > 1) rates.push(['geometric mean', ...cells(geometricMeanMips)]);
  const parts = [times];
  if (rates.length > 0) parts.push(table(['MIPS', ...heads], rates, heads));
  if (wrong.length > 0) parts.push(`wrong results:\n${wrong.join('\n')}`);
  return parts.join('\n\n');
}

/** Progress is for a terminal. @param {string} text */
function note(text) {
  if (process.stderr.isTTY) process.stderr.write(text);
}

/** @param {'subjects' | 'kernel'} name @param {string[]} known */
function listOf(name, known) {
  const words = options[name].split(',');
  const odd = words.find((word) => !known.includes(word));
  if (odd !== undefined) refuse(`--${name} ${odd}: known are ${known.join(', ')}`);
  return words;
}

function parseOptions() {
  try {
    return parseArgs({
      options: {
        subjects: { type: 'string', default: SUBJECTS.join(',') },
        kernel: { type: 'string', default: KERNELS.join(',') },
        only: { type: 'string' },
        run: { type: 'string' },
        scale: { type: 'string', default: '1' },
        runs: { type: 'string', default: '1' },
        memory: { type: 'string', default: '512M' },
        policy: { type: 'string' },
        timeout: { type: 'string', default: '3600' },
        wall: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    refuse(error instanceof Error ? error.message : String(error));
  }
}
