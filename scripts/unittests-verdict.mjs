/** What came out of a run of one of kvm-unit-tests, by what its console says. */

/** @typedef {{ pass: number, paging?: string[], results?: RegExp, slow?: boolean }} Expected */
/**
 * @typedef {object} Verdict
 * @property {number | string} status of the process, or how it ended otherwise
 * @property {number} pass lines that say PASS
 * @property {number} fail
 * @property {number} skip
 * @property {number} seconds
 * @property {number} cases that `access` has tried, 0 for others
 * @property {'pass' | 'skip' | 'fail'} verdict
 * @property {string} why
 */

/**
 * By file: PASS lines on a machine that has the feature, and under which paging it is run if not under both. sieve says nothing but
 * its results. msr is with ten MCE banks, as QEMU has them, and x2APIC.
 *
 * @type {Record<string, Expected>}
 */
// biome-ignore format: a table
export const EXPECTED = {
  smap:        { pass: 18 },
  pku:         { pass: 7, paging: ['tdp'] }, // KVM offers PKU to no guest under shadow paging
  pcid:        { pass: 2 },
  rmap_chain:  { pass: 1 },
  memory:      { pass: 7 },
  syscall:     { pass: 2 },
  umip:        { pass: 21 },
  setjmp:      { pass: 10 },
  sieve:       { pass: 0, results: /mapped:78498 out of 1000000(\r?\nvirtual:5761455 out of 100000000){3}/ },
  tsc:         { pass: 3 },
  msr:         { pass: 1838 },
  eventinj:    { pass: 13 },
  hypercall:   { pass: 4 },
  smptest:     { pass: 1 },
  apic:        { pass: 50, slow: true },
  ioapic:      { pass: 30 },
  tsc_adjust:  { pass: 6 },
  kvmclock_test: { pass: 1, slow: true },
  access_test: { pass: 1, slow: true },
};

const STATUS_PASSED = 1;
const STATUS_SKIPPED = 77;

/** @param {import('./guest-run.mjs').GuestRun} ran @param {Expected} [expected] @returns {Verdict} */
export function judge(ran, expected) {
  const count = (/** @type {RegExp} */ what) => ran.console.match(what)?.length ?? 0;
  const [pass, fail, skip] = [count(/^PASS\b/gm), count(/\bFAIL\b/g), count(/^SKIP\b/gm)];
  const sums = [...ran.console.matchAll(/^(\d+) tests, \d+ failures/gm)].map(([, cases]) => Number(cases));
  const cases = sums.reduce((sum, of) => sum + of, 0);
  const counts = { status: ran.status ?? ran.end, pass, fail, skip, seconds: ran.seconds, cases };
  const [verdict, why] = decide(ran, counts, expected);
  return { ...counts, verdict, why };
}

/** @param {import('./guest-run.mjs').GuestRun} ran @param {Omit<Verdict, 'verdict' | 'why'>} counts @param {Expected} [expected] @returns {[Verdict['verdict'], string]} */
function decide(ran, { pass, fail, skip, cases }, expected) {
  if (ran.end === 'too long') return ['fail', `no end after ${ran.seconds.toFixed(0)} s`];
  const nothingButSkip = ran.status === STATUS_PASSED && skip > 0 && pass === 0 && fail === 0;
  if (ran.status === STATUS_SKIPPED || nothingButSkip) return ['skip', 'skips itself'];
  if (ran.status !== STATUS_PASSED || fail > 0) return ['fail', firstComplaint(ran)];
  if (expected !== undefined && pass < expected.pass) return ['fail', `PASS ${pass} times, expected ${expected.pass}`];
  if (expected?.results?.test(ran.console) === false) return ['fail', 'other results than expected'];
  return ['pass', cases === 0 ? '' : `${cases} cases`];
}

/** The line that tells most about what went wrong. @param {import('./guest-run.mjs').GuestRun} ran */
function firstComplaint({ console: text, complaint }) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  const telling =
    lines.find((line) => /\bFAIL\b/.test(line)) ??
    lines.find((line) => /unhandled|exception|abort|assert/i.test(line)) ??
    complaint.trim().split('\n')[0];
  return (telling || lines.at(-1) || 'said nothing').slice(0, 100);
}
