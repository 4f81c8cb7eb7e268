/**
 * Boots Debian's kernels into the benchmark guest and compares what its 25 benchmarks compute with QEMU's results, to the power-off.
 *
 *   npm run test:boot [-- --kernel generic,cloud,i386,i386-pae,6.12] [--paging tdp,shadow] [--policy lazy,zap] [--scale 0.1] [--json]
 *                        [--timeout SECONDS] [--memory 512M] [--cpus N] [--driver penumbra|qemu] [--logs FOLDER]
 *                        [--check-log N] [--tracker T] [--verify N]
 *
 * `--paging`, `--policy` and `--tracker` may be any that `penumbra run` knows (tdp-mmu, ept-tdp-mmu, ...; bitmap, pml, ring, pml-ring).
 * `--check-log N` keeps the dirty log on and compares it with memory every N million instructions; `--verify N` checks all invariants
 * of the MMU every N exits. `--scale 1` is all of the work (20 seconds in QEMU); the busybox benchmarks are always whole. Needs the images of
 * `guests/build-debian.sh`; `i386`, `i386-pae` and `6.12`, which run only when named, those of `guests/build-debian-others.sh`.
 * Exit status 0: all boots went well; 1: some did not; 2: bad input, no images.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { appendOf, differences, imagesOf, KERNEL_MAKERS, readMarks, readReference } from './bench-guest-marks.mjs';
import { DRIVERS, refuse, runGuest, table } from './guest-run.mjs';
import { setupOrExit } from './setup.mjs';

const KERNELS = Object.keys(KERNEL_MAKERS);

const options = parseOptions();
const kernels = wantedKernels();
const isOurs = options.driver === 'penumbra';
// Any that the machine knows; it says so itself if it doesn't.
const pagings = isOurs ? options.paging.split(',') : ['-'];
const policies = isOurs ? options.policy.split(',') : ['-'];
const driver =
  DRIVERS[options.driver] ?? refuse(`--driver ${options.driver}: known are ${Object.keys(DRIVERS).join(' and ')}`);
const expected =
  readReference().checksums[options.scale] ?? refuse(`--scale ${options.scale}: there are results for 1 and 0.1`);
const seconds = Number(options.timeout);
if (!(seconds > 0)) refuse(`--timeout ${options.timeout}: a number of seconds`);
for (const kernel of kernels) imagesOf(kernel);
if (isOurs) await setupOrExit();
if (options.logs !== undefined) mkdirSync(options.logs, { recursive: true });

/** @type {Awaited<ReturnType<typeof boot>>[]} */
const results = [];
for (const kernel of kernels) {
  for (const paging of pagings) {
    for (const policy of policies) {
      const result = await boot(kernel, paging, policy);
      results.push(result);
      if (process.stderr.isTTY) process.stderr.write(`${result.verdict}  ${kernel} ${paging} ${policy}\n`);
    }
  }
}
console.log(options.json ? JSON.stringify(results, null, 1) : render());
process.exitCode = results.some((result) => result.verdict !== 'pass') ? 1 : 0;

/** @param {string} kernel @param {string} paging @param {string} policy */
async function boot(kernel, paging, policy) {
  const { memory, cpus, scale } = options;
  const guest = { ...imagesOf(kernel), append: appendOf({ scale }), memory, cpus: Number(cpus) };
  const { 'check-log': checkLog, tracker, verify } = options;
  const ours = isOurs ? { paging, policy, checkLog, tracker, verify } : {};
  const start = performance.now();
  let initS = Number.NaN;
  const ran = await runGuest(driver({ ...guest, ...ours }), {
    seconds,
    onText: (text) => {
      if (Number.isNaN(initS) && text.includes('@@INIT ')) initS = (performance.now() - start) / 1000;
      return text.includes('Kernel panic') && text.includes('end Kernel panic');
    },
  });
  if (options.logs !== undefined) {
    writeFileSync(join(options.logs, `${kernel}.${paging}.${policy}.log`), ran.console + ran.complaint);
  }
  const marks = readMarks(ran.console);
  const wrong = differences(marks, expected);
  const total = Object.keys(expected).length;
  const good = total - wrong.length;
  const why = reason(ran, marks, wrong);
  return {
    kernel,
    paging,
    policy,
    status: ran.status ?? ran.end,
    initSeconds: initS,
    seconds: ran.seconds,
    good,
    total,
    verdict: why === '' ? 'pass' : 'fail',
    why,
  };
}

/** What went wrong first, or ''. @param {import('./guest-run.mjs').GuestRun} ran @param {import('./bench-guest-marks.mjs').Marks} marks @param {string[]} wrong */
function reason(ran, marks, wrong) {
  const last = ran.console.trim().split(/\r?\n/).at(-1)?.slice(0, 80) || 'the console said nothing';
  if (marks.panicked) return /Kernel panic.*/.exec(ran.console)?.[0].trim().slice(0, 90) ?? 'panic';
  if (ran.end === 'too long') return `no end after ${ran.seconds.toFixed(0)} s; last: ${last}`;
  const complaint = ran.complaint.trim().split('\n')[0];
  if (marks.init === undefined) return complaint || `never came to /init; last: ${last}`;
  if (marks.fails.length > 0) return `failed in the guest: ${marks.fails.join(', ')}`;
  if (wrong.length > 0) return wrong.slice(0, 3).join('; ');
  if (!marks.done) return `not done; last: ${last}`;
  const lost = /[1-9]\d* pages lost/.exec(ran.complaint)?.[0];
  if (lost !== undefined) return lost;
  if (ran.status !== 0) return `no power-off: status ${ran.status}`;
  return '';
}

function parseOptions() {
  try {
    return parseArgs({
      options: {
        kernel: { type: 'string', default: 'generic,cloud' },
        paging: { type: 'string', default: 'tdp,shadow' },
        policy: { type: 'string', default: 'lazy,zap' },
        scale: { type: 'string', default: '0.1' },
        memory: { type: 'string', default: '512M' },
        cpus: { type: 'string', default: '1' },
        driver: { type: 'string', default: 'penumbra' },
        timeout: { type: 'string', default: '1800' },
        logs: { type: 'string' },
        'check-log': { type: 'string' },
        tracker: { type: 'string' },
        verify: { type: 'string' },
        json: { type: 'boolean', default: false },
      },
    }).values;
  } catch (error) {
    refuse(error instanceof Error ? error.message : String(error));
  }
}

function wantedKernels() {
  const words = options.kernel.split(',');
  const odd = words.find((word) => !KERNELS.includes(word));
  if (odd !== undefined) refuse(`--kernel ${odd}: known are ${KERNELS.join(' and ')}`);
  return words;
}

function render() {
  const rows = results.map((r) => [
    r.kernel,
    r.paging,
    r.policy,
    r.status,
    Number.isNaN(r.initSeconds) ? '-' : r.initSeconds.toFixed(1),
    r.seconds.toFixed(1),
    `${r.good} of ${r.total}`,
    r.verdict,
    r.why,
  ]);
  const heads = ['kernel', 'paging', 'policy', 'status', 's to /init', 's in all', 'results', 'verdict', ''];
  const passed = results.filter((result) => result.verdict === 'pass').length;
  const sum = `${passed} passed, ${results.length - passed} failed`;
  return `${table(heads, rows, ['status', 's to /init', 's in all', 'results'])}\n${sum}`;
}
