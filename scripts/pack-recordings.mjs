/**
 * Packs recordings into one compressed file, as `recordings/` holds them; `src/conform/pack.ts` tells the format.
 *
 *   node scripts/pack-recordings.mjs OUT.ndjson.br DIR... [--scenarios DIR]
 *   node scripts/pack-recordings.mjs --unpack FILE.ndjson.br OUT_DIR
 *
 * DIR holds the recorder's NAME.MODE.json. The scenario NAME.scn of each, from which the machine's settings are taken,
 * is looked for beside it and in the folders named with --scenarios. Unpacking writes the .json files again, byte for
 * byte, and the settings as NAME.scn.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';

/** @typedef {{ n: number, op: string }} OpLine */

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { scenarios: { type: 'string', multiple: true, default: [] }, unpack: { type: 'boolean', default: false } },
});

const [first, ...rest] = positionals;
try {
  if (first === undefined || rest.length === 0 || (options.unpack && rest.length !== 1)) {
    throw new Error('usage: pack-recordings.mjs OUT.ndjson.br DIR... [--scenarios DIR] | --unpack FILE OUT_DIR');
  }
  if (options.unpack) unpack(first, rest[0] ?? '.');
  else pack(first, rest, options.scenarios);
} catch (error) {
  process.stderr.write(`pack-recordings: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}

/** @param {string} out @param {string[]} folders @param {string[]} scenarioFolders */
function pack(out, folders, scenarioFolders) {
  const files = folders.flatMap((folder) => jsonFiles(folder).map((file) => ({ folder, file })));
  const lines = [JSON.stringify({ pack: 1, name: basename(out, '.ndjson.br'), recordings: files.length })];
  /** @type {Set<string>} */
  const described = new Set();
  for (const { folder, file } of files) {
    const { results, memory, ...head } = JSON.parse(readFileSync(join(folder, file), 'utf8'));
    const ops = results.map((/** @type {OpLine} */ op) => JSON.stringify(op));
    const settings = described.has(head.scenario)
      ? undefined
      : readSettings(head.scenario, results, [folder, ...scenarioFolders]);
    described.add(head.scenario);
    const chars = ops.reduce((/** @type {number} */ sum, /** @type {string} */ line) => sum + line.length + 1, 0);
    lines.push(JSON.stringify({ name: file.slice(0, -5), lines: ops.length, chars, settings, head, memory }), ...ops);
  }
  if (files.length === 0) throw new Error(`no .json file in ${folders.join(', ')}`);
  const packed = compress(`${lines.join('\n')}\n`);
  writeFileSync(out, packed);
  process.stderr.write(`${out}: ${files.length} recordings, ${packed.length} bytes\n`);
}

/** @param {string} text */
function compress(text) {
  const bytes = Buffer.from(text);
  const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_LGWIN, BROTLI_PARAM_SIZE_HINT } = constants;
  return brotliCompressSync(bytes, {
    params: { [BROTLI_PARAM_QUALITY]: 11, [BROTLI_PARAM_LGWIN]: 24, [BROTLI_PARAM_SIZE_HINT]: bytes.length },
  });
}

/** @param {string} folder */
function jsonFiles(folder) {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .sort();
}

/**
 * The scenario's lines before `run`, without comments. Its ops must be the recording's, else it is another scenario.
 *
 * @param {string} scenario @param {OpLine[]} results @param {string[]} folders
 */
function readSettings(scenario, results, folders) {
  const file = folders.map((folder) => join(folder, `${scenario}.scn`)).find((path) => existsSync(path));
  if (file === undefined) throw new Error(`no ${scenario}.scn in ${folders.join(', ')} (--scenarios DIR)`);
  const lines = readFileSync(file, 'utf8')
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '');
  const run = lines.indexOf('run');
  const ops = lines.slice(run + 1);
  if (run < 0 || ops.length !== results.length || ops.some((op, i) => op !== results[i]?.op)) {
    throw new Error(`${file} is not the scenario that was recorded`);
  }
  return lines.slice(0, run);
}

/** @param {string} file @param {string} folder */
function unpack(file, folder) {
  const lines = brotliDecompressSync(readFileSync(file)).toString('utf8').split('\n');
  const count = JSON.parse(lines[0] ?? '{}').recordings;
  mkdirSync(folder, { recursive: true });
  for (let i = 0, at = 1; i < count; i++) {
    const { name, lines: opLines, settings, head, memory } = JSON.parse(lines[at] ?? '{}');
    const ops = lines.slice(at + 1, at + 1 + opLines);
    at += 1 + opLines;
    const open = JSON.stringify(head, null, 1).replace(/\n}$/, '');
    const body = ops.map((op) => `  ${op}`).join(',\n');
    writeFileSync(
      join(folder, `${name}.json`),
      `${open},\n "memory": ${JSON.stringify(memory)},\n "results": [\n${body}\n ]\n}\n`,
    );
    if (settings === undefined) continue;
    const texts = ops.map((op) => JSON.parse(op).op);
    writeFileSync(join(folder, `${head.scenario}.scn`), `${[...settings, 'run', ...texts].join('\n')}\n`);
  }
  process.stderr.write(`${folder}: ${count} recordings\n`);
}
