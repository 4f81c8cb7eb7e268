/**
 * Debian's own programs in the image of `guests/build-image.sh`, which is built if it is missing:
 *
 *   npm run test:image [-- --only gcc,sqlite,redis,python] [--python test_int,...] [--paging tdp] [--cpus N] [--memory 512M]
 *                          [--timeout SECONDS] [--logs FOLDER] [--json]
 *
 * gcc compiles a program there, which must print what it prints on the host; sqlite3 answers a set of queries, and its answers must have
 * the hash of the host's sqlite3's; redis-server serves redis-benchmark; `python3 -m test` passes each module of PYTHON. The disk stays as
 * it is. Exit status 0: all passed; 1: some did not; 2: bad input, or the host has nothing to compare with.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { penumbraCommand, refuse, runGuest, table } from './guest-run.mjs';
import { ROOT, setupOrExit } from './setup.mjs';

const CHECKS = ['gcc', 'sqlite', 'redis', 'python'];
/** Modules of Python's own tests; `test_unicode` is that of str. */
// biome-ignore format: a list
const PYTHON = [
  'test_int', 'test_float', 'test_unicode', 'test_bytes', 'test_list', 'test_dict', 'test_struct', 'test_math', 'test_json', 'test_re',
  'test_zlib', 'test_hashlib',
];
const GUESTS = join(ROOT, 'guests');
const IMAGE = join(GUESTS, 'out', 'image');
const FILES = join(GUESTS, 'image', 'checks');

const options = parseOptions();
const chosen = listOf('only', CHECKS);
const modules = listOf('python', PYTHON);
const seconds = Number(options.timeout);
if (!(seconds > 0)) refuse(`--timeout ${options.timeout}: a number of seconds`);
const expected = {
  gcc: chosen.includes('gcc') ? hostProgram() : '',
  sqlite: chosen.includes('sqlite') ? hostQuery() : '',
};
buildImage();
await setupOrExit();
if (options.logs !== undefined) mkdirSync(options.logs, { recursive: true });

const results = await run();
console.log(options.json ? JSON.stringify(results, null, 1) : render());
process.exitCode = results.some((result) => result.verdict !== 'pass') ? 1 : 0;

/** One guest does all of it, one after the other. */
async function run() {
  const commands = `${chosen.includes('python') ? `PYTHON_TESTS='${modules.join(' ')}' ` : ''}image-check ${chosen.join(' ')}`;
  const command = penumbraCommand({
    kernel: join(IMAGE, 'bzImage'),
    initrd: join(IMAGE, 'initrd.gz'),
    append: `console=ttyS0 quiet root=/dev/vda penumbra.run="${commands}"`,
    memory: options.memory,
    cpus: Number(options.cpus),
    paging: options.paging,
  });
  command.push('--disk', `${join(IMAGE, 'disk.img')},snapshot`);
  const start = performance.now();
  /** When each check was done, in seconds. @type {Map<string, number>} */
  const done = new Map();
  const ran = await runGuest(command, {
    seconds,
    onText: (text) => {
      for (const [line, , name] of text.matchAll(/^@@(PASS|FAIL) (\S+)\r?$/gm)) {
        if (done.has(name)) continue;
        done.set(name, (performance.now() - start) / 1000);
        if (process.stderr.isTTY) process.stderr.write(`${done.get(name)?.toFixed(0).padStart(5)} s  ${line.trim()}\n`);
      }
    },
  });
  if (options.logs !== undefined) writeFileSync(join(options.logs, 'image.log'), ran.console + ran.complaint);
  const names = chosen.flatMap((name) => (name === 'python' ? modules : [name]));
  return names.map((name) => {
    const why = reason(name, ran);
    return { check: name, verdict: why === '' ? 'pass' : 'fail', seconds: done.get(name) ?? ran.seconds, why };
  });
}

/** What is wrong with a check, or ''. @param {string} name @param {import('./guest-run.mjs').GuestRun} ran */
function reason(name, ran) {
  const said = new RegExp(`^@@(PASS|FAIL) ${name}\r?$`, 'm').exec(ran.console)?.[1];
  if (said === undefined && ran.end === 'too long') return `not done after ${ran.seconds.toFixed(0)} s`;
  if (said === undefined) return ran.complaint.trim().split('\n')[0] || 'not done';
  if (said === 'FAIL') return 'failed in the guest';
  if (name !== 'gcc' && name !== 'sqlite') return '';
  const out = new RegExp(`^@@OUT ${name} (.*?)\r?$`, 'm').exec(ran.console)?.[1];
  return out === expected[name] ? '' : `${out}, on the host ${expected[name]}`;
}

/** What the program prints that gcc makes of program.c. */
function hostProgram() {
  const folder = mkdtempSync(join(tmpdir(), 'penumbra-image-'));
  const program = join(folder, 'program');
  host('gcc', ['-O2', '-o', program, join(FILES, 'program.c'), '-lm']);
  const line = host(program, []).toString().trim();
  rmSync(folder, { recursive: true });
  return line;
}

/** The hash of what sqlite3 answers. */
function hostQuery() {
  const answers = host('sqlite3', [':memory:'], readFileSync(join(FILES, 'query.sql')));
  return createHash('sha256').update(answers).digest('hex');
}

/** @param {string} program @param {string[]} args @param {Buffer} [input] */
function host(program, args, input) {
  const ran = spawnSync(program, args, { input, maxBuffer: 1 << 28 });
  if (ran.status !== 0)
    refuse(`${program} on the host, to compare with: ${ran.error?.message ?? `status ${ran.status}`}`);
  return ran.stdout;
}

function buildImage() {
  if (['bzImage', 'initrd.gz', 'disk.img'].every((name) => existsSync(join(IMAGE, name)))) return;
  process.stderr.write('no image: guests/build-image.sh makes it\n');
  const made = spawnSync('bash', [join(GUESTS, 'build-image.sh')], { stdio: ['ignore', 2, 2] });
  if (made.status !== 0) refuse(`guests/build-image.sh: status ${made.status}`);
}

function parseOptions() {
  try {
    return parseArgs({
      options: {
        only: { type: 'string', default: CHECKS.join(',') },
        python: { type: 'string', default: PYTHON.join(',') },
        paging: { type: 'string', default: 'tdp' },
        cpus: { type: 'string', default: '1' },
        memory: { type: 'string', default: '512M' },
        timeout: { type: 'string', default: '14400' },
        logs: { type: 'string' },
        json: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    refuse(error instanceof Error ? error.message : String(error));
  }
}

/** @param {'only' | 'python'} name @param {string[]} known */
function listOf(name, known) {
  const words = options[name].split(',');
  // The image has all of Python's tests.
  const odd = words.find((word) => !known.includes(word) && !(name === 'python' && /^test_\w+$/.test(word)));
  if (odd !== undefined)
    refuse(`--${name} ${odd}: known are ${name === 'python' ? 'all modules test_*' : known.join(', ')}`);
  return words;
}

function render() {
  const rows = results.map((r) => [r.check, r.verdict, r.seconds.toFixed(0), r.why]);
  const passed = results.filter((result) => result.verdict === 'pass').length;
  return `${table(['check', 'verdict', 'after s', ''], rows, ['after s'])}\n${passed} passed, ${results.length - passed} failed`;
}
