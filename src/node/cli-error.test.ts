import { readFileSync } from 'node:fs';
import { CommanderError } from 'commander';
import { describe, expect, it } from 'vitest';
import { CliError, describeFailure } from './cli-error.ts';

describe('what a failing command says', () => {
  it('a user error is its message on one line, without a stack', () => {
    expect(describeFailure(new CliError('no such policy:\n  zip'), false)).toEqual({
      line: 'penumbra: no such policy:; zip',
      status: 2,
    });
  });

  it('an unexpected exception names its kind and hides the stack', () => {
    const { line, status } = describeFailure(new TypeError('x is not a function'), false);
    expect(line).toBe('penumbra: unexpected TypeError: x is not a function (PENUMBRA_DEBUG=1 shows where)');
    expect(status).toBe(2);
  });

  it('an unexpected exception shows its stack when debugging', () => {
    expect(describeFailure(new TypeError('x'), true).line).toContain('cli-error.test.ts');
  });

  it('a thrown value that is no error is reported all the same', () => {
    expect(describeFailure('odd', false).line).toContain('odd');
  });

  it('a line that repeats very long input is cut in its middle', () => {
    const { line } = describeFailure(new CliError(`no file ${'x'.repeat(5000)} here`), false);
    expect(line.length).toBeLessThan(1100);
    expect(line).toMatch(/^penumbra: no file x+ \.\.\. x+ here$/);
  });

  it('a missing file is a user error', () => {
    let thrown: unknown;
    try {
      readFileSync('/nonexistent/trace');
    } catch (error) {
      thrown = error;
    }
    expect(describeFailure(thrown, false).line).toMatch(/^penumbra: ENOENT: no such file or directory/);
  });

  it('a disk that is full is a user error', () => {
    const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { errno: -28, syscall: 'write' });
    expect(describeFailure(full, false).line).toBe('penumbra: ENOSPC: no space left on device, write');
  });

  // biome-ignore format: a table
  it.each([
    ['help',           0, 0],
    ['unknown option', 1, 2],
  ])('commander has already spoken: %s', (_what, exitCode, status) => {
    expect(describeFailure(new CommanderError(exitCode, 'code', 'text'), false)).toEqual({ line: '', status });
  });
});
