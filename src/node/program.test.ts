import { describe, expect, it } from 'vitest';
import { describeFailure } from './cli-error.ts';
import { createProgram } from './program.ts';

/** Parses a command line that is expected not to reach any command's work; what it prints, and the exit status. */
async function failingParse(...args: string[]): Promise<{ out: string; err: string; status: number }> {
  const program = createProgram();
  let out = '';
  let err = '';
  for (const command of [program, ...program.commands]) {
    command.configureOutput({ writeOut: (text) => (out += text), writeErr: (text) => (err += text) });
  }
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (thrown) {
    return { out, err, status: describeFailure(thrown, false).status };
  }
  throw new Error('the command line was accepted');
}

describe('the command line', () => {
  it('has the commands whose names are fixed', () => {
    const names = createProgram().commands.map((command) => command.name());
    expect(names).toEqual(expect.arrayContaining(['story', 'replay', 'conformance']));
  });

  // biome-ignore format: a table
  it.each([
    ['an unknown command',              ['bogus'],              "penumbra: unknown command 'bogus'\n"],
    ['an unknown option',               ['--bogus'],            "penumbra: unknown option '--bogus'\n"],
    ['an unknown option of a command',  ['story', '--bogus'],   "penumbra: unknown option '--bogus'\n"],
    ['an option that is nearly one',    ['story', '--explian'], "penumbra: unknown option '--explian' (Did you mean --explain?)\n"],
  ])('ends with status 2 and one line on %s', async (_what, args, line) => {
    expect(await failingParse(...args)).toEqual({ out: '', err: line, status: 2 });
  });

  it('ends with status 2 and shows the help when no command is given', async () => {
    const { out, err, status } = await failingParse();
    expect({ out, status }).toEqual({ out: '', status: 2 });
    expect(err).toContain('Usage: penumbra');
  });

  it('ends with status 0 when help is asked for', async () => {
    const { out, err, status } = await failingParse('story', '--help');
    expect({ err, status }).toEqual({ err: '', status: 0 });
    expect(out).toContain('Usage: penumbra story');
  });
});
