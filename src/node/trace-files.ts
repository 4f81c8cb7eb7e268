/** Reads recordings from disk: a path, one of the embedded ones by its name, or a synthetic guest by its seed. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { type PageTrace, readPntrace, TraceError } from '../formats/pntrace.ts';
import { syntheticTrace } from '../lab/synthetic.ts';
import { CliError } from './cli-error.ts';
import { packageFile } from './package-files.ts';

/** The recordings that come with the project: one write-heavy, one read-mostly. */
export const EMBEDDED_TRACES = ['redis-small', 'grep'] as const;

const SUFFIX = '.pntrace';
const SYNTHETIC = /^synthetic:(\d+)$/;

/**
 * The recording that an argument of a command names: `synthetic:SEED`, a file, or the name of an embedded recording.
 * Throws a `CliError` for a file that is none.
 */
export function loadTrace(argument: string): PageTrace {
  const seed = SYNTHETIC.exec(argument)?.[1];
  if (seed !== undefined) return syntheticTrace(parseSeed(seed));
  const path = findFile(argument);
  if (statSync(path).isDirectory()) throw new CliError(`${path} is a folder, not a recording`);
  const file = readFileSync(path);
  try {
    return readPntrace(file, (packed, maxBytes) => gunzipSync(packed, { maxOutputLength: Math.max(1, maxBytes) }));
  } catch (error) {
    if (error instanceof TraceError) throw new CliError(`${path}: ${error.message}`);
    throw error;
  }
}

/** A whole number below 2^32. */
export function parseSeed(text: string): number {
  const seed = Number(text);
  if (!/^\d+$/.test(text) || seed >= 2 ** 32) throw new CliError(`'${text}' is not a seed: a whole number below 2^32`);
  return seed;
}

function findFile(argument: string): string {
  if (existsSync(argument)) return argument;
  const isName = basename(argument) === argument;
  const embedded = packageFile('traces', argument.endsWith(SUFFIX) ? argument : argument + SUFFIX);
  if (isName && existsSync(embedded)) return embedded;
  throw new CliError(`no recording '${argument}': not a file, and the embedded ones are ${EMBEDDED_TRACES.join(', ')}`);
}
