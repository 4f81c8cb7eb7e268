/**
 * How a command of ours ends when it cannot do its work: one line on stderr, exit status 2. (Status 1 is a *result*: the
 * work was done and differences or losses were found. A command sets it through `process.exitCode`.)
 */
import { CommanderError } from 'commander';

export const EXIT_OWN_ERROR = 2;
const LONGEST_LINE = 1000;

/** Bad input or a wish that can't be fulfilled: the message is meant for the user and needs no stack. */
export class CliError extends Error {
  override readonly name = 'CliError';
}

/** Does what a flag asks for; an error about a file then names the flag, too. */
export function forFlag<T>(flag: string, does: () => T): T {
  try {
    return does();
  } catch (error) {
    if (error instanceof Error && isFileError(error)) throw new CliError(`${flag}: ${error.message}`);
    throw error;
  }
}

/** What to say on stderr and the exit status for anything that a command can throw; `line` is '' for nothing to say. */
export function describeFailure(thrown: unknown, debug: boolean): { line: string; status: number } {
  if (thrown instanceof CommanderError) {
    // commander has printed its message, and throws for --help and --version too.
    return { line: '', status: thrown.exitCode === 0 ? 0 : EXIT_OWN_ERROR };
  }
  if (thrown instanceof CliError) return { line: `penumbra: ${oneLine(thrown.message)}`, status: EXIT_OWN_ERROR };
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  if (isFileError(error)) {
    return { line: `penumbra: ${oneLine(error.message)}`, status: EXIT_OWN_ERROR };
  }
  const line = `penumbra: unexpected ${error.name}: ${oneLine(error.message)}`;
  if (debug) return { line: `${line}\n${error.stack ?? ''}`, status: EXIT_OWN_ERROR };
  return { line: `${line} (PENUMBRA_DEBUG=1 shows where)`, status: EXIT_OWN_ERROR };
}

/**
 * Node's own errors about files ("ENOENT: no such file or directory, open 'x'") are user errors, well said already. Those of
 * a file that is open already (ENOSPC, EFBIG, EIO) know no path.
 */
function isFileError(error: Error): boolean {
  return 'syscall' in error && 'errno' in error;
}

/** Of a long one, which repeats long input, the middle is left out. */
function oneLine(text: string): string {
  const line = text.replace(/\s*\n\s*/g, '; ').trim();
  return line.length <= LONGEST_LINE ? line : `${line.slice(0, LONGEST_LINE / 2)} ... ${line.slice(-LONGEST_LINE / 2)}`;
}
