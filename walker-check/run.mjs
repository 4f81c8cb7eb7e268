/**
 * Runs the walker check under QEMU and stores QEMU's answers beside this file: results.json (what ran, and how many
 * bytes each set has) and results.bin.gz (the answers, set after set; three bytes per case, six per nested one).
 *
 *   node walker-check/run.mjs [--check]
 *
 * `--check` stores nothing and fails if an answer differs from the stored ones. Needs gcc with 32-bit code generation,
 * binutils and qemu-system-x86_64; the tests need none of these, they read the stored answers.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { MAXPHYADDR, RESULT_BYTES, SETS, encodeCases, makeCases } from './cases.mjs';
import { NESTED_RESULT_BYTES, NESTED_SET, encodeNestedCases, makeNestedCases } from './nested-cases.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const CPU = `EPYC,+pku,+la57,+svm,+npt,phys-bits=${MAXPHYADDR}`;
const DONE = (0x10 << 1) | 1;

/** Runs one set and gives the bytes that the guest wrote. */
function runSet(set, guest, resultBytes, out, table) {
  const cases = join(out, `${set.name}.cases`);
  const answers = join(out, `${set.name}.answers`);
  writeFileSync(cases, table);
  // 1 GiB of RAM below 4 GiB and 1 GiB above it, for leaves that only 33 address bits reach.
  const result = spawnSync(
    'qemu-system-x86_64',
    [
      ['-accel', 'tcg', '-cpu', CPU, '-machine', 'pc,max-ram-below-4g=1G', '-m', '2G'],
      ['-display', 'none', '-nodefaults', '-no-reboot'],
      ['-device', 'isa-debug-exit,iobase=0xf4,iosize=4'],
      ['-chardev', `file,id=answers,path=${answers}`, '-device', 'isa-debugcon,iobase=0xe9,chardev=answers'],
      ['-device', `loader,file=${cases},addr=0x2000000,force-raw=on`, '-kernel', join(out, guest)],
    ].flat(),
    { encoding: 'utf8', timeout: 600_000 },
  );
  if (result.error) throw result.error;
  const bytes = readFileSync(answers);
  if (result.status !== DONE || bytes.length !== resultBytes * set.count) {
    const code = result.status === null ? result.signal : `0x${(result.status >> 1).toString(16)}`;
    const done = `after ${bytes.length / resultBytes} of ${set.count} cases`;
    throw new Error(`set ${set.name}: the guest ended with ${code} ${done}\n${result.stderr}`);
  }
  return bytes;
}

function main() {
  const check = process.argv.includes('--check');
  const out = mkdtempSync(join(tmpdir(), 'walker-check-'));
  try {
    execFileSync(join(here, 'build.sh'), [out], { stdio: 'inherit' });
    const sets = [];
    const answers = [];
    const run = (set, guest, resultBytes, table) => {
      answers.push(runSet(set, guest, resultBytes, out, table));
      sets.push({ name: set.name, cases: set.count, casesSha256: createHash('sha256').update(table).digest('hex') });
      console.log(`${set.name}: ${set.count} cases`);
    };
    for (const set of SETS) {
      const guest = set.mode === 'long' ? 'guest64.bin' : 'guest32.bin';
      run(set, guest, RESULT_BYTES, encodeCases(set, makeCases(set)));
    }
    run(NESTED_SET, 'guest64.bin', NESTED_RESULT_BYTES, encodeNestedCases(makeNestedCases()));
    const all = Buffer.concat(answers);
    const version = execFileSync('qemu-system-x86_64', ['--version'], { encoding: 'utf8' });
    const qemu = /version (\d[\d.]*)/.exec(version)?.[1] ?? 'unknown';
    if (check) {
      const stored = gunzipSync(readFileSync(join(here, 'results.bin.gz')));
      if (!stored.equals(all)) throw new Error('QEMU answers otherwise than stored');
      console.log(`the same answers as stored (now QEMU ${qemu})`);
      return;
    }
    writeFileSync(join(here, 'results.bin.gz'), gzipSync(all, { level: 9 }));
    writeFileSync(join(here, 'results.json'), `${JSON.stringify({ qemu, cpu: CPU, accel: 'tcg', sets }, null, 2)}\n`);
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
}

main();
