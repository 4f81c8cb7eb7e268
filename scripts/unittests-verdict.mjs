/** What came out of a run of one of kvm-unit-tests, by what its console says. */

/** @typedef {{ pass: number, pass32?: number, paging?: string[], results?: RegExp, slow?: boolean, apart?: string, reboot?: boolean }} Expected */
/**
 * @typedef {object} Verdict
 * @property {number | string} status of the process, or how it ended otherwise
 * @property {number} pass lines that say PASS
 * @property {number} fail
 * @property {number} skip
 * @property {number} seconds
 * @property {number} cases that `access` has tried, 0 for others
 * @property {'pass' | 'skip' | 'needs' | 'long' | 'fail'} verdict
 * @property {string} why
 */

/**
 * By section, or else by file: PASS lines on a machine that has the feature (`pass32`: in the 32-bit build), and under which paging it is run if not under
 * both. `slow`: not run without --all; `apart`: why it runs only when it is named. `reboot`: resets
 * its machine to go on, again and again. sieve, init and taskswitch say nothing but their results. msr is with ten MCE banks, as QEMU has them, and x2APIC.
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
  hypercall:   { pass: 4, pass32: 2 },
  xsave:       { pass: 299 },
  debug:       { pass: 25 },
  emulator:    { pass: 150, pass32: 85 },
  realmode:    { pass: 127 },
  idt_test:    { pass: 4 },
  cmpxchg8b:   { pass: 1 },
  taskswitch:  { pass: 0, results: /post fault/ },
  taskswitch2: { pass: 13 },
  smptest:     { pass: 1 },
  x2apic:      { pass: 56, slow: true },
  xapic:       { pass: 44, slow: true }, // and one SKIP: it is about x2APIC
  ioapic:      { pass: 30 },
  tsc_adjust:  { pass: 6 },
  kvmclock_test: { pass: 1, slow: true },
  init:        { pass: 0, results: /(?:testing (?:port 92|kbd controller|0xcf9h|init to BSP)[^]*){5}/, reboot: true },
  access_test: { pass: 1, apart: 'takes an hour: npm run test:access' },
  vmexit:      { pass: 0, apart: 'measures, and checks nothing' },
};

/**
 * By file: what a test is about, that this machine does not have and does not announce, though the test would not find out by itself.
 *
 * @type {Record<string, string>}
 */
// biome-ignore format: a table
export const NEEDS = {
  pmu:              'performance counters',
  vmware_backdoors: "VMware's backdoor",
  hpet_read_test:   'an HPET',
  'intel-iommu':    'an IOMMU',
  s3:               'ACPI S3',
};

const STATUS_PASSED = 1;
const STATUS_SKIPPED = 77;

/** @param {import('./guest-run.mjs').GuestRun} ran @param {Expected} [expected] @param {boolean} [is32Bit] @returns {Verdict} */
export function judge(ran, expected, is32Bit = false) {
  const count = (/** @type {RegExp} */ what) => ran.console.match(what)?.length ?? 0;
  const [pass, fail, skip] = [count(/^PASS\b/gm), count(/\bFAIL\b/g), count(/^SKIP\b/gm)];
  const sums = [...ran.console.matchAll(/^(\d+) tests, \d+ failures/gm)].map(([, cases]) => Number(cases));
  const cases = sums.reduce((sum, of) => sum + of, 0);
  const counts = { status: ran.status ?? ran.end, pass, fail, skip, seconds: ran.seconds, cases };
  const wanted = expected === undefined ? 0 : is32Bit ? (expected.pass32 ?? expected.pass) : expected.pass;
  const [verdict, why] = decide(ran, counts, wanted, expected?.results);
  return { ...counts, verdict, why };
}

/** @param {import('./guest-run.mjs').GuestRun} ran @param {Omit<Verdict, 'verdict' | 'why'>} counts @param {number} wanted @param {RegExp} [results] @returns {[Verdict['verdict'], string]} */
function decide(ran, { pass, fail, skip, cases }, wanted, results) {
  const unbuilt = /CPU feature "?([^" ]+)"? is not built/.exec(ran.complaint);
  if (unbuilt !== null) return ['needs', `needs ${unbuilt[1]}`];
  if (ran.end === 'too long') return ['fail', `no end after ${ran.seconds.toFixed(0)} s`];
  const nothingButSkip = ran.status === STATUS_PASSED && skip > 0 && pass === 0 && fail === 0;
  if (ran.status === STATUS_SKIPPED || nothingButSkip) return ['skip', whySkipped(ran)];
  if (ran.status !== STATUS_PASSED || fail > 0) return ['fail', firstComplaint(ran)];
  if (pass < wanted) return ['fail', `PASS ${pass} times, expected ${wanted}`];
  if (results?.test(ran.console) === false) return ['fail', 'other results than expected'];
  return ['pass', cases === 0 ? '' : `${cases} cases`];
}

/** What a test says that skips itself. @param {import('./guest-run.mjs').GuestRun} ran */
function whySkipped({ console: text }) {
  const line =
    /^SKIP: *(.*?)\r?$/m.exec(text)?.[1] ?? /^(.*not (?:available|enabled|supported).*?)\r?$/im.exec(text)?.[1];
  return line === undefined ? 'skips itself' : `skips itself: ${line}`;
}

/** The line that tells most about what went wrong. @param {import('./guest-run.mjs').GuestRun} ran */
function firstComplaint({ console: text, complaint }) {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  const telling =
    lines.find((line) => /\bFAIL\b/.test(line)) ??
    lines.find((line) => /unhandled|exception|abort|assert/i.test(line)) ??
    complaint
      .trim()
      .split('\n')[0]
      ?.replace(/^penumbra: \S+: /, '');
  return (telling || lines.at(-1) || 'said nothing').slice(0, 100);
}
