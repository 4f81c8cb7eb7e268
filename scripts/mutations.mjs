/**
 * Mutation tests of the MMU: takes away, one at a time, each call in `src/mmu/` whose name says that it flushes, keeps a
 * list, logs, tracks, syncs or guards, and looks which test notices. Calls are found by name, not listed by hand.
 *
 *   npm run test:mutations [-- --only TEXT...] [--list] [--from N] [--jobs N]
 *
 * A call that stands alone goes; one whose value is used becomes `false` or 0. First judge: the recordings of the real
 * kernels (a difference in any event, statistic or entry). Second: the unit tests of `mmu` and `vm`. Third, as it costs the
 * most: the model and the machine.
 * A survivor must be named in mutations/survivors.json with its reason, else the exit status is 1.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import * as esbuild from 'esbuild';
import { parseSync } from 'oxc-parser';
import { lineOf, typescriptSources, walk } from './sources.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SURVIVORS = join(ROOT, 'mutations', 'survivors.json');
const JUDGE = 'src/conform/testing/first-difference.ts';

/** What a call's text must say to be taken away. */
const NAMES =
  /flush|rmap|lists\.(?:add|remove|clear)|parent|dirty|track|unsync|shadowed|guard|stale|obsolete|sync|zap|protect|drop|rearm|makePagesAvailable|gpteChanged|SelfChange/i;
/** Not calls of the engine's own: what only observes. */
const SPARED = /trace|race\(|verify|lists\.(?:first|next|at|count)|Math\.|pages\.(?:nextUnsync|unlist)/;
/** What vitest is asked for, by the second and the third judge. */
const UNIT_TESTS = ['src/mmu', 'src/vm', '--exclude=src/vm/machine/**', '--exclude=src/vm/model*'];
const MODEL_TESTS = ['src/vm/machine', 'src/vm/model'];
/** Of CPU time: what is slow because the machine is busy is no verdict. */
const JUDGE_SECONDS = 60;
const TEST_SECONDS = 240;
/** By the clock, for a judge that waits for what never comes. */
const CLOCK_FACTOR = 20;

/**
 * @typedef {import('./sources.mjs').SyntaxNode} SyntaxNode
 * @typedef {{ file: string, line: number, start: number, end: number, replacement: string, call: string, key: string }} Mutant
 */

/** All mutants of the room, in the order of files and lines. @returns {Mutant[]} */
export function mutants() {
  const files = typescriptSources(ROOT).filter(
    (file) => file.startsWith('src/mmu/') && !/\.test\.ts$|\/verify\.ts$|\/tracing\.ts$/.test(file),
  );
  const texts = new Map(files.map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]));
  const returns = new Map();
  for (const [file, text] of texts) collectReturnTypes(parseSync(file, text).program, text, returns);
  return [...texts].flatMap(([file, text]) => mutantsOf(file, text, returns));
}

/** @param {SyntaxNode} program @param {string} text @param {Map<string, string>} returns */
function collectReturnTypes(program, text, returns) {
  walk(program, (node) => {
    const named =
      node.type === 'FunctionDeclaration' ? node : node.type === 'MethodDefinition' ? node.value : undefined;
    if (named === undefined || !named.returnType) return;
    const name = node.type === 'MethodDefinition' ? node.key.name : node.id?.name;
    returns.set(name, text.slice(named.returnType.start, named.returnType.end).replace(/^:\s*/, ''));
  });
}

/** @param {string} file @param {string} text @param {Map<string, string>} returns @returns {Mutant[]} */
function mutantsOf(file, text, returns) {
  /** @type {Mutant[]} */
  const found = [];
  /** @type {Map<string, number>} */
  const seen = new Map();
  let inside = '';
  walk(parseSync(file, text).program, (node, parent) => {
    if (node.type === 'FunctionDeclaration') inside = node.id?.name ?? '';
    if (node.type === 'MethodDefinition') inside = node.key.name ?? '';
    if (node.type !== 'CallExpression') return;
    const callee = text.slice(node.callee.start, node.callee.end);
    if (!NAMES.test(callee) || SPARED.test(`${callee}(`)) return;
    const alone = parent?.type === 'ExpressionStatement';
    const type = returns.get(callee.split('.').at(-1) ?? '');
    const replacement = alone ? ';' : neutralValue(callee, type);
    if (replacement === undefined) return;
    const [start, end] = alone && parent ? [parent.start, parent.end] : [node.start, node.end];
    const call = text.slice(node.start, node.end).replace(/\s+/g, ' ');
    const place = `${basename(file)} ${inside}: ${call}`;
    const nth = (seen.get(place) ?? 0) + 1;
    seen.set(place, nth);
    const key = nth === 1 ? place : `${place} (${nth})`;
    found.push({ file, line: lineOf(text, start), start, end, replacement, call, key });
  });
  return found;
}

/** What a call gives that does nothing. @param {string} callee @param {string | undefined} type */
function neutralValue(callee, type) {
  if (callee.endsWith('Available')) return 'true';
  if (type === 'boolean') return 'false';
  return type === 'number' ? '0' : undefined;
}

/** @param {Mutant} mutant @param {string} text */
function apply({ start, end, replacement }, text) {
  return text.slice(0, start) + replacement + text.slice(end);
}

/** The first judge. @param {Mutant} mutant @param {string} folder @returns {Promise<string | null>} who caught it, or null */
async function judgeByRecordings(mutant, folder) {
  const outfile = join(ROOT, 'out', `mutant-${basename(folder)}-${mutant.start}.mjs`);
  await esbuild.build({
    absWorkingDir: ROOT,
    entryPoints: [JUDGE],
    bundle: true,
    format: 'esm',
    platform: 'node',
    packages: 'external',
    outfile,
    logLevel: 'silent',
    // The judge finds the recordings relative to itself.
    define: { 'import.meta.url': JSON.stringify(`file://${join(ROOT, JUDGE)}`) },
    plugins: [
      {
        name: 'mutant',
        setup(build) {
          build.onLoad({ filter: /src[\\/]mmu[\\/].*\.ts$/ }, ({ path }) => {
            const text = readFileSync(path, 'utf8');
            const hit = path.replaceAll('\\', '/').endsWith(mutant.file);
            return { contents: hit ? apply(mutant, text) : text, loader: 'ts' };
          });
        },
      },
    ],
  });
  const { status, stdout } = await run(process.execPath, [outfile], {}, JUDGE_SECONDS);
  rmSync(outfile, { force: true });
  if (status === 0) return null;
  return status === null ? 'a replay that does not end' : stdout.trim() || 'a replay that breaks off';
}

/** @param {string[]} tests @returns {(mutant: Mutant, folder: string) => Promise<string | null>} */
function judgeByTests(tests) {
  return (mutant, folder) => runTests(tests, mutant, folder);
}

/** @param {string[]} tests @param {Mutant} mutant @param {string} folder @returns {Promise<string | null>} */
async function runTests(tests, mutant, folder) {
  const report = join(folder, `tests-${mutant.start}.json`);
  const vitest = join(ROOT, 'node_modules', '.bin', 'vitest');
  // A test's own limit is by the clock, ours is not.
  const timeout = `--testTimeout=${CLOCK_FACTOR * TEST_SECONDS * 1000}`;
  const args = ['run', '--bail=1', timeout, '--reporter=json', `--outputFile=${report}`, ...tests];
  const { file, start, end, replacement } = mutant;
  const env = { PENUMBRA_MUTANT: JSON.stringify({ file, start, end, replacement }) };
  const { status } = await run(vitest, args, env, TEST_SECONDS);
  if (status === 0) return null;
  if (status === null) return 'a test that does not end';
  try {
    const results = JSON.parse(readFileSync(report, 'utf8')).testResults;
    for (const { name, assertionResults } of results)
      for (const { status: verdict, fullName } of assertionResults)
        if (verdict === 'failed') return `${basename(name)}: ${fullName}`;
  } catch {
    // No report: the run broke off.
  }
  return 'a test file that breaks off';
}

/**
 * @param {string} command @param {string[]} args @param {Record<string, string>} env @param {number} seconds of CPU time
 * @returns {Promise<{ status: number | null, stdout: string }>} status null: it took too long
 */
function run(command, args, env, seconds) {
  return new Promise((resolve) => {
    const child = spawn('sh', ['-c', `ulimit -t ${seconds}; exec "$0" "$@"`, command, ...args], {
      cwd: ROOT,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    });
    let stdout = '';
    let late = false;
    const timer = setTimeout(
      () => {
        late = true;
        if (child.pid) process.kill(-child.pid, 'SIGKILL');
      },
      CLOCK_FACTOR * seconds * 1000,
    );
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.on('close', (status, signal) => {
      clearTimeout(timer);
      const isOverLimit = late || signal === 'SIGXCPU' || signal === 'SIGKILL';
      resolve({ status: isOverLimit ? null : (status ?? 1), stdout });
    });
  });
}

async function main() {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: [''] },
      from: { type: 'string', default: '0' },
      jobs: { type: 'string', default: String(Math.min(2, cpus().length)) },
      list: { type: 'boolean', default: false },
    },
  });
  const known = mutants();
  const all = known.filter(({ key }) => values.only.some((text) => key.includes(text))).slice(Number(values.from));
  if (values.list) {
    for (const { file, line, call, replacement } of all) console.log(`${file}:${line}  ${call} -> ${replacement}`);
    console.log(`${all.length} mutants`);
    return;
  }
  /** @type {Record<string, string>} */
  const justified = JSON.parse(readFileSync(SURVIVORS, 'utf8'));
  for (const key of Object.keys(justified))
    if (!known.some((mutant) => mutant.key === key)) throw new Error(`${SURVIVORS}: no such call: ${key}`);
  const folder = mkdtempSync(join(tmpdir(), 'penumbra-mutants-'));
  const verdicts = { caught: 0, justified: 0, survived: /** @type {string[]} */ ([]) };
  const unchanged = { file: 'none', line: 0, start: 0, end: 0, replacement: '', call: '', key: '' };
  const judges = [judgeByRecordings, judgeByTests(UNIT_TESTS), judgeByTests(MODEL_TESTS)];
  for (const judge of judges) {
    const complaint = await judge(unchanged, folder);
    if (complaint !== null) throw new Error(`the judges must accept the engine as it is: ${complaint}`);
  }
  let next = 0;
  const worker = async () => {
    while (next < all.length) {
      const mutant = all[next++];
      let catcher = null;
      for (const judge of judges) catcher ??= await judge(mutant, folder);
      const where = `${mutant.file}:${mutant.line} ${mutant.call.slice(0, 60)}`;
      if (catcher !== null) {
        verdicts.caught++;
        console.log(`caught     ${where}\n           by ${catcher}`);
      } else if (justified[mutant.key] !== undefined) {
        verdicts.justified++;
        console.log(`justified  ${where}\n           ${justified[mutant.key]}`);
      } else {
        verdicts.survived.push(mutant.key);
        console.log(`SURVIVED   ${where}`);
      }
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker));
  rmSync(folder, { recursive: true });
  for (const key of verdicts.survived) console.log(`survivor: ${JSON.stringify(key)}`);
  console.log(
    `${all.length} mutants: ${verdicts.caught} caught, ${verdicts.justified} justified, ${verdicts.survived.length} survived`,
  );
  if (verdicts.survived.length > 0) process.exitCode = 1;
  await esbuild.stop();
}

writeFileSync(SURVIVORS, readFileSync(SURVIVORS, { encoding: 'utf8', flag: 'a+' }) || '{}\n');
await main();
