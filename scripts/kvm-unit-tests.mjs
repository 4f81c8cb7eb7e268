/**
 * kvm-unit-tests on our machine: KVM's own tests of what a guest sees, each under two-dimensional and under shadow paging.
 *
 *   npm run test:kvm-unit-tests -- FOLDER [--only NAME]... [--paging tdp,shadow] [--all] [--json] [--list] [--markdown FILE]
 *                                         [--jobs N] [--timeout SECONDS] [--driver penumbra|qemu] [--logs FOLDER]
 *   npm run test:access -- FOLDER
 *
 * FOLDER (or $KVM_UNIT_TESTS) is a checkout that was configured for x86_64 or i386 and made: `./configure --arch=x86_64 && make`.
 * Parameters are read from its x86/unittests.cfg. --only takes a section's name there (`pcid-enabled`) or a file's (`pcid`: all its
 * sections); without it the tests of EXPECTED run, with --all every section, and every x86/*.flat that has none, but long ones only
 * by their names. --driver qemu runs them in QEMU without KVM, for comparison. --markdown writes the table into FILE, as
 * the part of this build: what is there of another build stays; with --only other rows stay, too.
 *
 * A test passes if it ends through the debug-exit device with value 0 (status 1), says FAIL nowhere, and PASS at least as often as
 * on a machine that has the feature; it is skipped if it says so itself (status 77, or SKIP and nothing else). A test that is about
 * something else than this machine has isn't run; the table says what it needs.
 * Exit status 0: none failed; 1: some did; 2: no such folder, no such test.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { DRIVERS, refuse, runGuest, table } from './guest-run.mjs';
import { setupOrExit } from './setup.mjs';
import { parseConfig, unitTestOf, variantsOf } from './unittests-config.mjs';
import { EXPECTED, judge, NEEDS } from './unittests-verdict.mjs';
import { updateDocument } from './unittests-table.mjs';

/** @typedef {import('./unittests-config.mjs').UnitTest} UnitTest */
/** @typedef {{ test: string, paging: string } & import('./unittests-verdict.mjs').Verdict} Result */

/** QEMU's amount of memory if it is told none. */
const DEFAULT_MEMORY = '128M';

/** What the tests are told of the time of day, and what their machine's clock says at power-on. */
const epochS = Math.floor(Date.now() / 1000);
const { values: options, positionals } = parseOptions();
const folder = positionals[0] ?? process.env['KVM_UNIT_TESTS'] ?? '';
if (folder === '')
  refuse('which folder? npm run test:kvm-unit-tests -- FOLDER (a kvm-unit-tests that was made for x86_64)');
const configFile = join(folder, 'x86', 'unittests.cfg');
if (!existsSync(configFile)) refuse(`${folder} is no kvm-unit-tests: there is no x86/unittests.cfg`);
const arch = readArch();
const tests = readTests();
const isBuilt = tests.some(({ file }) => existsSync(join(folder, 'x86', file)));
if (!isBuilt) refuse(`${folder} is not built: no x86/*.flat (./configure --arch=x86_64 && make)`);
const driver = DRIVERS[options.driver];
if (driver === undefined) refuse(`--driver ${options.driver}: known are ${Object.keys(DRIVERS).join(' and ')}`);
const pagings = options.driver === 'penumbra' ? options.paging.split(',') : ['-'];
for (const paging of pagings) {
  if (!['tdp', 'shadow', '-'].includes(paging)) refuse(`--paging ${paging}: known are tdp and shadow`);
}
const timeoutS = Number(options.timeout ?? 0);
if (!(timeoutS >= 0)) refuse(`--timeout ${options.timeout}: a number of seconds`);
const jobs = Number(options.jobs);
if (!(Number.isInteger(jobs) && jobs > 0)) refuse(`--jobs ${options.jobs}: a number of tests to run at a time`);
const chosen = choose();

if (options.list) {
  for (const test of chosen)
    console.log([test.name, test.file, test.cpu ?? '', test.append ?? ''].join('\t').trimEnd());
  process.exit(0);
}
if (options.driver === 'penumbra') await setupOrExit();
if (options.logs !== undefined) mkdirSync(options.logs, { recursive: true });

const planned = chosen.flatMap((test) =>
  pagings.filter((paging) => runsUnder(test, paging)).map((paging) => ({ test, paging })),
);
/** @type {Result[]} */
const results = new Array(planned.length);
let next = 0;
await Promise.all(Array.from({ length: jobs }, work));
if (options.markdown !== undefined) updateDocument(options.markdown, arch, results, options.only.length > 0, pagings);
console.log(options.json ? JSON.stringify(results, null, 1) : render());
process.exitCode = results.some((result) => result.verdict === 'fail') ? 1 : 0;

function parseOptions() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        only: { type: 'string', multiple: true, default: [] },
        paging: { type: 'string', default: 'tdp,shadow' },
        driver: { type: 'string', default: 'penumbra' },
        timeout: { type: 'string' },
        logs: { type: 'string' },
        markdown: { type: 'string' },
        jobs: { type: 'string', default: '1' },
        all: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    refuse(error instanceof Error ? error.message : String(error));
  }
}

/** Runs what is planned and nobody has begun, until nothing is left. */
async function work() {
  while (next < planned.length) {
    const at = next++;
    const { test, paging } = planned[at];
    results[at] = await run(test, paging);
    note(`${results[at].verdict.padEnd(4)}  ${test.name} ${paging}  ${results[at].seconds.toFixed(1)} s\n`);
  }
}

/** @param {UnitTest} test @param {string} paging */
function runsUnder(test, paging) {
  const only = expectedOf(test)?.paging;
  return paging === '-' || only === undefined || only.includes(paging);
}

/** @returns {UnitTest[]} */
function readTests() {
  try {
    const known = parseConfig(readFileSync(configFile, 'utf8')).map((section) => unitTestOf(section, epochS));
    const others = readdirSync(join(folder, 'x86'))
      .filter((file) => file.endsWith('.flat') && !known.some((test) => test.file === file))
      .map((file) => unitTestOf({ name: basename(file, '.flat'), values: { file } }, epochS));
    return [...known, ...others].flatMap((test) => [test, ...variantsOf(test)]);
  } catch (error) {
    refuse(`${configFile}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** What the checkout was configured for. */
function readArch() {
  const file = join(folder, 'config.mak');
  const found = existsSync(file) ? /^ARCH=(\S+)$/m.exec(readFileSync(file, 'utf8'))?.[1] : undefined;
  return found ?? 'x86_64';
}

/** @param {UnitTest} test */
function stem(test) {
  return basename(test.file, '.flat');
}

/** @param {UnitTest} test */
function expectedOf(test) {
  return EXPECTED[test.name] ?? EXPECTED[stem(test)];
}

/** Is it one of those that run without being asked for? @param {UnitTest} test */
function isQuick(test) {
  const expected = expectedOf(test);
  return expected !== undefined && expected.slow !== true && expected.apart === undefined;
}

function choose() {
  if (options.only.length === 0) {
    if (options.all) return tests;
    return tests.filter((test) => isQuick(test));
  }
  const wanted = [];
  for (const name of options.only) {
    const named = tests.filter((test) => test.name === name);
    const found = named.length > 0 ? named : tests.filter((test) => stem(test) === name);
    if (found.length === 0) refuse(`${configFile} has no test ${name}`);
    wanted.push(...found);
  }
  return wanted;
}

/** @param {UnitTest} test @param {string} paging @returns {Promise<Result>} */
async function run(test, paging) {
  const kernel = join(folder, 'x86', test.file);
  const none = { test: test.name, paging, status: '-', pass: 0, fail: 0, skip: 0, seconds: 0, cases: 0 };
  if (test.arch !== '' && test.arch !== arch) return { ...none, verdict: 'skip', why: `${test.arch} only` };
  if (test.unsupported.length > 0) return { ...none, verdict: 'needs', why: `needs ${test.unsupported.join(', ')}` };
  const apart = expectedOf(test)?.apart;
  if (apart !== undefined && options.only.length === 0) return { ...none, verdict: 'long', why: apart };
  const need = NEEDS[stem(test)];
  if (need !== undefined && options.only.length === 0) return { ...none, verdict: 'needs', why: `needs ${need}` };
  if (!existsSync(kernel)) return { ...none, verdict: 'skip', why: `no ${test.file}` };
  const { append, cpu, cpus, memory = DEFAULT_MEMORY } = test;
  const guest = { kernel, append, cpu, cpus, memory, epochS, reboot: expectedOf(test)?.reboot };
  const command = driver(paging === 'tdp' || paging === 'shadow' ? { ...guest, paging } : guest);
  const seconds = timeoutS || (expectedOf(test)?.apart !== undefined ? 7200 : 900);
  const stopProgress = showProgress(test, paging);
  let ran;
  try {
    ran = await runGuest(command, { seconds });
  } catch (error) {
    refuse(`cannot run ${command[0]}: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    stopProgress();
  }
  if (options.logs !== undefined)
    writeFileSync(join(options.logs, `${test.name}.${paging}.log`), ran.console + ran.complaint);
  return { test: test.name, paging, ...judge(ran, expectedOf(test), arch === 'i386') };
}

/** Progress is for a terminal. @param {string} text */
function note(text) {
  if (process.stderr.isTTY) process.stderr.write(text);
}

/** That it still runs, and for how long. @param {UnitTest} test @param {string} paging */
function showProgress(test, paging) {
  const start = performance.now();
  const timer = setInterval(() => {
    note(`\r${test.name} ${paging}  ${Math.round((performance.now() - start) / 1000)} s ...`);
  }, 1000);
  return () => {
    clearInterval(timer);
    note('\r\u001b[K');
  };
}

function render() {
  const rows = results.map((r) => [
    r.test,
    r.paging,
    r.status,
    r.pass,
    r.fail,
    r.skip,
    r.seconds.toFixed(1),
    r.verdict,
    r.why,
  ]);
  const heads = ['test', 'paging', 'status', 'PASS', 'FAIL', 'SKIP', 'seconds', 'verdict', ''];
  const of = (/** @type {string} */ verdict) => results.filter((result) => result.verdict === verdict).length;
  const sum = `${of('pass')} passed, ${of('skip')} skipped, ${of('needs')} need what there isn't, ${of('fail')} failed`;
  return `${table(heads, rows, ['status', 'PASS', 'FAIL', 'SKIP', 'seconds'])}\n${sum}`;
}
