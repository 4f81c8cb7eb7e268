/**
 * Writes guests/bench/reference.json: what the benchmarks print in QEMU without KVM, at the scales that the boot test uses, and how many
 * instructions each takes. Run it when guests/bench has changed.
 *
 *   node scripts/bench-reference.mjs
 */
import { writeFileSync } from 'node:fs';
import { appendOf, imagesOf, readMarks, REFERENCE_FILE } from './bench-guest-marks.mjs';
import { qemuCommand, refuse, runGuest } from './guest-run.mjs';

const SCALES = ['1', '0.1'];
const SECONDS = 900;

/** @param {string} append @param {string[]} more */
async function run(append, more = []) {
  const ran = await runGuest([...qemuCommand({ ...imagesOf('cloud'), append, memory: '512M' }), ...more], {
    seconds: SECONDS,
  });
  const marks = readMarks(ran.console);
  if (!marks.done || marks.fails.length > 0) refuse(`QEMU did not come to the end: ${ran.complaint}`);
  return { marks, text: ran.console };
}

/** @type {Record<string, Record<string, string>>} */
const checksums = {};
for (const scale of SCALES) checksums[scale] = Object.fromEntries((await run(appendOf({ scale }))).marks.checksums);
// With one instruction a nanosecond, the guest's own clock counts instructions, the kernel's share included.
const counted = await run(appendOf({ scale: '1', run: 'gbench' }), ['-icount', 'shift=0,sleep=off']);
/** @type {Record<string, number>} */
const instructions = {};
for (const [, name, count] of counted.text.matchAll(/@@E (\S+) (\d+)/g)) instructions[name] = Number(count);
writeFileSync(REFERENCE_FILE, `${JSON.stringify({ instructions, checksums }, null, 2)}\n`);
