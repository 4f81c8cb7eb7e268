/** Files that are there whole or not at all: written aside, then moved into place. */
import {
  accessSync,
  closeSync,
  constants,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { CliError, forFlag } from './cli-error.ts';

/** Before long work whose result goes to `path`: whether `writeWhole` could make a file there. Throws a CliError. */
export function checkOutput(flag: string, path: string): void {
  forFlag(`${flag} ${path}`, () => {
    const there = statSync(path, { throwIfNoEntry: false });
    if (path === '') throw new CliError(`${flag}: no file`);
    if (there?.isDirectory() || path.endsWith('/')) throw new CliError(`${flag}: ${path} is a folder`);
    if (there !== undefined && !there.isFile()) return;
    accessSync(dirname(there === undefined ? path : realpathSync(path)), constants.W_OK | constants.X_OK);
  });
}

/**
 * Writes what `chunks` yields to `path`, replacing what was there only when all of it is on its way; a failure leaves the
 * old file, and nothing beside it. What a link points to is replaced, a device or a pipe is written to as it is.
 */
export function writeWhole(path: string, chunks: Iterable<string | Uint8Array>): number {
  const there = statSync(path, { throwIfNoEntry: false });
  if (there?.isDirectory()) throw new CliError(`${path} is a folder`);
  if (there !== undefined && !there.isFile()) return writeChunks(path, chunks, path);
  const target = there === undefined ? path : realpathSync(path);
  const aside = `${target}.${process.pid}.part`;
  try {
    const bytes = writeChunks(aside, chunks, path);
    renameSync(aside, target);
    return bytes;
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  }
}

/** `name` is what errors call the file. */
function writeChunks(path: string, chunks: Iterable<string | Uint8Array>, name: string): number {
  const file = openAs(path, name);
  let bytes = 0;
  try {
    for (const chunk of chunks) bytes += writeAll(file, typeof chunk === 'string' ? Buffer.from(chunk) : chunk, name);
  } finally {
    closeSync(file);
  }
  return bytes;
}

function openAs(path: string, name: string): number {
  try {
    return openSync(path, 'w');
  } catch (error) {
    throw new CliError(error instanceof Error ? error.message.replace(path, name) : String(error));
  }
}

/** A write may take less than it is given. */
function writeAll(file: number, bytes: Uint8Array, name: string): number {
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
  } catch (error) {
    // A full disk: Node's message doesn't say which file it was for.
    throw new CliError(`${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
  return bytes.length;
}
