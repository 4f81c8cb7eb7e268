/**
 * `npm run bench:cpu`: builds the six programs with gcc and runs them on the interpreter.
 *
 *   node cpu-check/bench.mjs [NAME...]
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'penumbra-bench-'));
try {
  const built = spawnSync('sh', [join(here, 'programs', 'build.sh'), directory], { stdio: 'inherit' });
  if (built.status !== 0) throw new Error('the programs need gcc and ld');
  const outfile = join(directory, 'bench.mjs');
  buildSync({ entryPoints: [join(here, 'bench.ts')], bundle: true, platform: 'node', format: 'esm', outfile });
  const run = spawnSync(process.execPath, [outfile, directory, ...process.argv.slice(2)], { stdio: 'inherit' });
  process.exitCode = run.status ?? 2;
} finally {
  rmSync(directory, { recursive: true });
}
