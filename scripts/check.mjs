/**
 * The model checker (docs/checker.md): explores every interleaving of small configurations over the real engine, for each
 * preset.
 *
 *   npm run check [-- --preset NAME]... [--config NAME]... [--json] [--list] [--jobs N] [--max-states N] [--update-docs]
 *
 * Prints states, transitions, depth and time for each, and for a violation a shortest trace; last of all a table of states.
 * `--update-docs` puts that into docs/checker.md. Exit status 0: kernels that are known to have lost pages do, all others are
 * clean; 1: something else; 2: no such preset or configuration.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import * as esbuild from 'esbuild';
import { interleaved } from './interleave.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const BUNDLE = join(ROOT, 'out', 'check.mjs');
const DOCS = join(ROOT, 'docs', 'checker.md');
/** What stands between these lines of the docs is the table. */
const MARKS = ['<!-- npm run check -- --update-docs -->\n', '<!-- end -->\n'];

/** @typedef {import('../src/check/check.ts').Verdict & { seconds: number }} Verdict */

if (isMainThread) await main();
else await work();

/** Explores what the main thread names, one pair after the other. */
async function work() {
  const { check, PRESETS, CONFIGURATIONS } = await import(pathToFileURL(BUNDLE).href);
  const world = await interleaved('src/check/world.ts');
  parentPort?.on('message', ({ preset, config, maxStates }) => {
    const start = performance.now();
    const named = (/** @type {{ name: string }[]} */ list, /** @type {string} */ name) =>
      list.find((one) => one.name === name);
    try {
      const verdict = check(world, named(PRESETS, preset), named(CONFIGURATIONS, config), { maxStates });
      parentPort?.postMessage({ ...verdict, seconds: (performance.now() - start) / 1000 });
    } catch (error) {
      parentPort?.postMessage({ error: String(error) });
    }
  });
}

async function main() {
  const { values: options } = parse();
  mkdirSync(dirname(BUNDLE), { recursive: true });
  await esbuild.build({
    absWorkingDir: ROOT,
    entryPoints: ['src/check/check.ts'],
    bundle: true,
    format: 'esm',
    outfile: BUNDLE,
    logLevel: 'warning',
  });
  const { PRESETS, CONFIGURATIONS, isAsKnown } = await import(pathToFileURL(BUNDLE).href);
  // Made once, before the workers look for it.
  await interleaved('src/check/world.ts');
  const presets = choose(PRESETS, options.preset, 'preset');
  const configurations = choose(CONFIGURATIONS, options.config, 'configuration');
  if (options.list) {
    for (const { name, about } of [...presets, ...configurations]) process.stdout.write(`${name.padEnd(22)}${about}\n`);
    return;
  }
  if (options['update-docs'] && (options.preset ?? options.config) !== undefined)
    refuse('--update-docs is for a run of everything');
  const maxStates = positive(options['max-states'] ?? '2000000', '--max-states');
  const jobs = positive(options.jobs ?? String(availableParallelism()), '--jobs');
  const tasks = presets.flatMap((p) => configurations.map((c) => ({ preset: p.name, config: c.name, maxStates })));
  const verdicts = await runAll(tasks, jobs, options.json === true);
  const asKnown = presets.filter((preset) =>
    isAsKnown(
      preset,
      verdicts.filter((verdict) => verdict.preset === preset.name),
    ),
  );
  if (options.json) process.stdout.write(`${JSON.stringify(verdicts)}\n`);
  else {
    const states = verdicts.reduce((sum, verdict) => sum + verdict.states, 0);
    const transitions = verdicts.reduce((sum, verdict) => sum + verdict.transitions, 0);
    process.stdout.write(
      `\n${tableOf(verdicts)}\n${states} states, ${transitions} transitions; ${asKnown.length} of ${presets.length} presets are as known\n`,
    );
  }
  if (options['update-docs']) updateDocs(tableOf(verdicts));
  process.exitCode = asKnown.length === presets.length ? 0 : 1;
}

function parse() {
  try {
    return parseArgs({
      options: {
        preset: { type: 'string', multiple: true },
        config: { type: 'string', multiple: true },
        json: { type: 'boolean' },
        list: { type: 'boolean' },
        jobs: { type: 'string' },
        'max-states': { type: 'string' },
        'update-docs': { type: 'boolean' },
      },
    });
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
}

/** @param {string} text @param {string} option */
function positive(text, option) {
  if (!/^[1-9]\d{0,8}$/.test(text)) refuse(`${option} ${text}: a positive number`);
  return Number(text);
}

/** Those named, or all. @param {{ name: string, about: string }[]} list @param {string[] | undefined} names @param {string} what */
function choose(list, names, what) {
  const wanted = names?.flatMap((name) => name.split(','));
  for (const name of wanted ?? [])
    if (!list.some((one) => one.name === name))
      refuse(`no ${what} ${name}; there are ${list.map((one) => one.name).join(', ')}`);
  return wanted === undefined ? list : list.filter((one) => wanted.includes(one.name));
}

/** @param {string} message @returns {never} */
function refuse(message) {
  process.stderr.write(`check: ${message}\n`);
  process.exit(2);
}

/**
 * Prints each verdict as soon as those before it are there.
 *
 * @param {{ preset: string, config: string, maxStates: number }[]} tasks @param {number} jobs @param {boolean} quiet
 * @returns {Promise<Verdict[]>}
 */
async function runAll(tasks, jobs, quiet) {
  /** @type {Verdict[]} */
  const verdicts = new Array(tasks.length);
  let next = 0;
  let printed = 0;
  const runWorker = () =>
    new Promise((/** @type {(value: undefined) => void} */ resolve, reject) => {
      const worker = new Worker(fileURLToPath(import.meta.url));
      let at = -1;
      const go = () => {
        at = next++;
        if (at < tasks.length) worker.postMessage(tasks[at]);
        else void worker.terminate().then(() => resolve(undefined));
      };
      worker.on('error', reject);
      worker.on('message', (message) => {
        if (message.error !== undefined) {
          refuse(`${tasks[at].preset}, ${tasks[at].config}: ${message.error}`);
        }
        verdicts[at] = message;
        while (!quiet && verdicts[printed] !== undefined) print(verdicts[printed++]);
        go();
      });
      go();
    });
  await Promise.all(Array.from({ length: Math.min(jobs, tasks.length) }, runWorker));
  return verdicts;
}

/** States by preset and configuration, in Markdown. @param {Verdict[]} verdicts */
function tableOf(verdicts) {
  const presets = [...new Set(verdicts.map(({ preset }) => preset))];
  const configurations = [...new Set(verdicts.map(({ configuration }) => configuration))];
  const field = (/** @type {string} */ preset, /** @type {string} */ configuration) => {
    const verdict = verdicts.find((one) => one.preset === preset && one.configuration === configuration);
    if (verdict === undefined) return '';
    const states = verdict.states.toLocaleString('en');
    return verdict.violation === null ? states : `**${verdict.violation.split(':')[0]}** after ${states}`;
  };
  const row = (/** @type {unknown[]} */ fields) => `| ${fields.join(' | ')} |\n`;
  return [
    row(['preset', ...configurations]),
    row(['preset', ...configurations].map(() => '---')),
    ...presets.map((preset) => row([`\`${preset}\``, ...configurations.map((one) => field(preset, one))])),
  ].join('');
}

/** @param {string} table */
function updateDocs(table) {
  const text = readFileSync(DOCS, 'utf8');
  const [from, to] = MARKS.map((mark) => text.indexOf(mark));
  if (from < 0 || to < from) refuse(`${DOCS} has not the lines that the table stands between`);
  writeFileSync(DOCS, text.slice(0, from + MARKS[0].length) + table + text.slice(to));
}

/** @param {Verdict} verdict */
function print({ preset, configuration, states, transitions, depth, seconds, violation, trace }) {
  const figures = `${states} states, ${transitions} transitions, depth ${depth}, ${seconds.toFixed(1)} s`;
  process.stdout.write(
    `${preset.padEnd(22)}${configuration.padEnd(16)}${figures}${violation === null ? '' : `: ${violation}`}\n`,
  );
  for (const line of trace) process.stdout.write(`    ${line}\n`);
}
