/** Files that are there whole or not at all: written aside, then moved into place. */
import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';

/**
 * Writes what `chunks` yields to `path`, replacing what was there only when all of it is on its way; a failure leaves the
 * old file, and nothing beside it.
 */
export function writeWhole(path: string, chunks: Iterable<string | Uint8Array>): number {
  const aside = `${path}.${process.pid}.part`;
  const file = openSync(aside, 'w');
  let bytes = 0;
  try {
    try {
      for (const chunk of chunks) bytes += writeAll(file, typeof chunk === 'string' ? Buffer.from(chunk) : chunk);
    } finally {
      closeSync(file);
    }
    renameSync(aside, path);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  }
  return bytes;
}

/** A write may take less than it is given. */
function writeAll(file: number, bytes: Uint8Array): number {
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
  return bytes.length;
}
