/**
 * `npm test`: sets the checkout up, then types, lint, format and the tests, each even when an earlier one failed, so that
 * one run shows all there is to mend. Ends with `N passed, N failed`, where each of the three checks counts as one.
 *
 *   npm test                    everything but *.long.test.ts
 *   npm test -- --long          those too
 *   npm test -- src/mmu ...     other arguments go to vitest
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, setupOrExit } from './setup.mjs';

await setupOrExit();

const args = process.argv.slice(2).filter((arg) => arg !== '--long');
const long = process.argv.includes('--long');

let passed = 0;
let failed = 0;

for (const [name, script] of [
  ['types', 'typecheck'],
  ['lint', 'lint'],
  ['format', 'format:check'],
]) {
  console.log(`== ${name}`);
  if (run(packageScript(script))) passed++;
  else failed++;
}

console.log('== tests');
const outcome = runVitest();
passed += outcome.passed;
failed += outcome.failed;

console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

/** What `npm run` would do, without the time that starting npm takes. @param {string} name of a script of package.json */
function packageScript(name) {
  return JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).scripts[name];
}

/**
 * Runs a command line with `node_modules/.bin` on the path, its output going where ours goes.
 *
 * @param {string} commandLine
 * @param {NodeJS.ProcessEnv} [extra] additions to the environment
 * @returns {boolean} whether it ended with 0
 */
function run(commandLine, extra = {}) {
  const separator = process.platform === 'win32' ? ';' : ':';
  const path = `${join(ROOT, 'node_modules', '.bin')}${separator}${process.env['PATH'] ?? ''}`;
  const env = { ...process.env, PATH: path, ...extra };
  return spawnSync(commandLine, { cwd: ROOT, env, shell: true, stdio: ['ignore', 'inherit', 'inherit'] }).status === 0;
}

/** @returns {{ passed: number, failed: number }} */
function runVitest() {
  const directory = mkdtempSync(join(tmpdir(), 'penumbra-test-'));
  const report = join(directory, 'report.json');
  try {
    const options = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
    const quoted = [...options, ...args].map((arg) => JSON.stringify(arg));
    const ok = run(`vitest run ${quoted.join(' ')}`, long ? { PENUMBRA_LONG: '1' } : {});
    if (!existsSync(report)) return { passed: 0, failed: 1 };
    const { numPassedTests, numFailedTests } = JSON.parse(readFileSync(report, 'utf8'));
    // A file that can't be loaded or a stray rejection fails the run without failing a test.
    const unseen = !ok && numFailedTests === 0 ? 1 : 0;
    return { passed: numPassedTests, failed: numFailedTests + unseen };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
