/**
 * Makes a checkout ready to run: dependencies installed, `dist/` built from the sources as they are now.
 *
 * Everything a first `npm start`, `npm test` or `npx penumbra` needs is decided here, from file contents and not from
 * whether some earlier command was run. Only Node's own modules may be imported at the top: nothing else is there yet.
 * All progress goes to stderr, because stdout belongs to the command that the user asked for.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

const LOCK_FILE = join(ROOT, 'package-lock.json');
const FINGERPRINT = join(ROOT, 'dist', 'fingerprint');
const SETUP_LOCK = join(ROOT, '.setup-lock');

/** A failure of setting up that the user can act on; its message is one line. */
export class SetupError extends Error {}

/**
 * Brings the checkout up to date; costs a few milliseconds when there is nothing to do.
 * An installed package (no `src/`, no lock file) is complete as it is.
 *
 * @param {{ build?: boolean }} [options] `build: false` leaves `dist/` alone
 */
export async function ensureSetup({ build = true } = {}) {
  requireNode(20, 19);
  if (!existsSync(join(ROOT, 'src')) || !existsSync(LOCK_FILE)) return;
  const ready = () => dependenciesInstalled() && (!build || distIsFresh());
  if (ready()) return;
  await withSetupLock(async () => {
    // Asked again: whoever held the lock before us has probably done the work.
    if (!dependenciesInstalled()) installDependencies();
    if (build && !distIsFresh()) await buildDist();
  });
}

/** Runs `ensureSetup` for a script: on failure one line on stderr and exit status 2. @param {{ build?: boolean }} [options] */
export async function setupOrExit(options) {
  try {
    await ensureSetup(options);
  } catch (error) {
    if (process.env['PENUMBRA_DEBUG'] === '1') console.error(error);
    else note(error instanceof Error ? error.message : String(error));
    process.exit(2);
  }
}

/** npm only warns about `engines`; what follows on an older Node is a riddle. @param {number} major @param {number} minor */
function requireNode(major, minor) {
  const [hasMajor, hasMinor] = process.versions.node.split('.').map(Number);
  if (hasMajor > major || (hasMajor === major && hasMinor >= minor)) return;
  throw new SetupError(`Node ${major}.${minor} or newer is needed, this is ${process.versions.node}`);
}

/**
 * Whether `node_modules` holds what the lock file asks for. npm leaves its own record of what it installed, as the last
 * step, so an interrupted install is seen too. Packages for other platforms are optional and absent.
 */
function dependenciesInstalled() {
  const installedFile = join(ROOT, 'node_modules', '.package-lock.json');
  if (!existsSync(installedFile)) return false;
  const wanted = lockedPackages(LOCK_FILE);
  const installed = lockedPackages(installedFile);
  return Object.entries(wanted).every(([path, { version, optional, peer }]) => {
    if (path === '') return true;
    const found = installed[path];
    return found === undefined ? optional === true || peer === true : found.version === version;
  });
}

/** @param {string} file @returns {Record<string, { version?: string, optional?: boolean, peer?: boolean }>} */
function lockedPackages(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages ?? {};
  } catch (error) {
    throw new SetupError(
      `${file} is not readable as a lock file: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function installDependencies() {
  note('installing dependencies (npm ci) ...');
  // Few and short retries: without a network the user should hear about it in seconds. Development packages are always
  // wanted, whatever NODE_ENV says, since esbuild is one of them.
  const args = ['ci', '--include=dev', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
  args.push('--fetch-retries=3', '--fetch-retry-mintimeout=500', '--fetch-retry-maxtimeout=3000');
  const { command, prefix, shell } = npmCommand();
  const result = spawnSync(command, [...prefix, ...args], {
    cwd: ROOT,
    env: environmentForNpm(),
    shell,
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (result.error) throw new SetupError(`cannot run npm to install the dependencies: ${result.error.message}`);
  if (result.status !== 0 || !dependenciesInstalled()) {
    throw new SetupError(`cannot install the dependencies: ${npmReason(result.stderr)}; is the network reachable?`);
  }
}

/**
 * The npm that started us if one did, so that its version and settings stay the same; else the one on the path.
 *
 * @returns {{ command: string, prefix: string[], shell: boolean }}
 */
function npmCommand() {
  const running = process.env['npm_execpath'] ?? '';
  if (/npm-cli\.c?js$/.test(running)) return { command: process.execPath, prefix: [running], shell: false };
  return { command: 'npm', prefix: [], shell: process.platform === 'win32' };
}

/**
 * The environment without what an outer `npx penumbra` says about *its* package: inherited, it would turn `npm ci` here
 * into an install of something else.
 */
function environmentForNpm() {
  const env = { ...process.env };
  for (const name of ['npm_config_package', 'npm_config_call', 'npm_config_prefix', 'npm_config_global'])
    delete env[name];
  return env;
}

/** npm's complaint as one line without its prefixes and its hints about log files. @param {string} stderr */
function npmReason(stderr) {
  const lines = stderr.split('\n').map((line) => line.replace(/^npm (error|ERR!)\s*/, '').trim());
  const telling = lines.filter((line) => line !== '' && !/^(code|errno|syscall|A complete log)\b/.test(line));
  return telling[0] ?? 'npm ci failed without saying why';
}

async function buildDist() {
  const { build } = await import('./build.mjs');
  // Taken before the build: a file saved while it runs makes the next command build again.
  const fingerprint = sourceFingerprint();
  try {
    await build();
  } catch {
    throw new SetupError('the build failed; esbuild names the places above');
  }
  writeFileSync(FINGERPRINT, fingerprint);
}

function distIsFresh() {
  return existsSync(FINGERPRINT) && readFileSync(FINGERPRINT, 'utf8') === sourceFingerprint();
}

/** A digest of name, size and time of all that goes into `dist/`; unlike "newer than", it notices a removed file. */
function sourceFingerprint() {
  const digest = createHash('sha256');
  for (const name of ['package.json', 'scripts/build.mjs', ...sourceFiles('src')]) {
    const { size, mtimeMs } = statSync(join(ROOT, name));
    digest.update(`${name}\0${size}\0${mtimeMs}\n`);
  }
  return digest.digest('hex');
}

/** @param {string} directory @returns {string[]} all files below it but tests, sorted */
function sourceFiles(directory) {
  const names = readdirSync(join(ROOT, directory), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.test.ts'))
    .map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length + 1));
  return names.sort();
}

/**
 * Runs `work` while no other process sets up the same checkout. The lock is a directory that appears by one rename with
 * its owner's process id already inside, so there is no moment at which a lock has no owner; a lock whose owner is gone
 * (killed in the middle) is taken away.
 *
 * @param {() => void | Promise<void>} work
 */
async function withSetupLock(work) {
  const mine = `${SETUP_LOCK}-${process.pid}`;
  rmSync(mine, { recursive: true, force: true });
  mkdirSync(mine);
  writeFileSync(join(mine, 'pid'), String(process.pid));
  try {
    for (let waited = 0; !tryRename(mine, SETUP_LOCK); waited++) {
      if (!ownerIsAlive()) tryRename(SETUP_LOCK, `${mine}-stale`);
      else if (waited === 5) note('another process is setting up this checkout, waiting ...');
      await sleep(200);
    }
    try {
      await work();
    } finally {
      rmSync(SETUP_LOCK, { recursive: true, force: true });
    }
  } finally {
    rmSync(mine, { recursive: true, force: true });
    rmSync(`${mine}-stale`, { recursive: true, force: true });
  }
}

/** @param {string} from @param {string} to @returns {boolean} false when `to` exists (or `from` does not) */
function tryRename(from, to) {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (['ENOTEMPTY', 'EEXIST', 'EPERM', 'ENOENT'].includes(errorCode(error))) return false;
    throw error;
  }
}

function ownerIsAlive() {
  try {
    process.kill(Number(readFileSync(join(SETUP_LOCK, 'pid'), 'utf8')), 0);
    return true;
  } catch (error) {
    // No such process: stale. No such file: the lock was released between two looks, so there is nothing to take away.
    return errorCode(error) !== 'ESRCH';
  }
}

/** @param {unknown} error @returns {string} */
function errorCode(error) {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

/** @param {string} message */
export function note(message) {
  process.stderr.write(`penumbra: ${message}\n`);
}
