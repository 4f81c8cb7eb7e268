/** The `penumbra` program in this process: what it prints, how it ends, and whether both are as promised. */
import { createProgram } from '../program.ts';
import { describeFailure } from '../cli-error.ts';

export interface ProgramRun {
  readonly out: string;
  readonly err: string;
  readonly status: number;
}

/** As `cli.ts` runs it. What is printed is kept up to some length. */
export async function runProgram(args: readonly string[]): Promise<ProgramRun> {
  const out = caught(process.stdout);
  const err = caught(process.stderr);
  const exitCode = process.exitCode;
  process.exitCode = undefined;
  let failure = { line: '', status: 0 };
  try {
    await createProgram().parseAsync([...args], { from: 'user' });
    failure.status = statusNow();
  } catch (thrown) {
    failure = describeFailure(thrown, true);
  } finally {
    process.exitCode = exitCode;
    out.release();
    err.release();
  }
  return {
    out: out.text(),
    err: err.text() + (failure.line === '' ? '' : `${failure.line}\n`),
    status: failure.status,
  };
}

/** What a command left in `process.exitCode`. */
function statusNow(): number {
  return Number(process.exitCode ?? 0);
}

/** Keeps what is written to a stream, until it is released. */
function caught(stream: NodeJS.WriteStream): { text: () => string; release: () => void } {
  let text = '';
  const before = Object.getOwnPropertyDescriptor(stream, 'write');
  stream.write = (chunk: string | Uint8Array): boolean => {
    if (text.length < 1 << 20) text += String(chunk);
    return true;
  };
  return {
    text: () => text,
    release: () => {
      if (before === undefined) Reflect.deleteProperty(stream, 'write');
      else Object.defineProperty(stream, 'write', before);
    },
  };
}

/** Throws unless the run ended as the program promises: status 0, 1 or 2, and with 2 one line on stderr. */
export function checkRun(args: readonly string[], { err, status }: ProgramRun): void {
  const lines = err.replace(/\n$/, '').split('\n');
  const told = lines.length === 1 && lines[0] !== '' && lines[0].length < 2000;
  const fine = status === 2 ? told && !err.includes('unexpected') : (status === 0 || status === 1) && err === '';
  if (!fine) throw new Error(`penumbra ${args.join(' ').slice(0, 200)}: status ${status}, stderr ${err.slice(0, 600)}`);
}
