/**
 * The `penumbra` command line as commander sees it. Each subcommand is a module of `commands/` that exports
 * `register(program)`; it throws a `CliError` for what the user can put right and sets `process.exitCode = 1` when the
 * work was done and differences or losses were found.
 */
import { Command } from 'commander';
import packageJson from '../../package.json' with { type: 'json' };
import { register as registerConformance } from './commands/conformance.ts';
import { register as registerRecord } from './commands/record.ts';
import { register as registerReplay } from './commands/replay.ts';
import { register as registerRun } from './commands/run.ts';
import { register as registerStory } from './commands/story.ts';
import { register as registerTrace } from './commands/trace.ts';

/** A program that throws a `CommanderError` where commander would end the process. */
export function createProgram(): Command {
  const program = new Command('penumbra');
  // Both settings are inherited by subcommands only if they are there before the subcommands are.
  program.exitOverride().configureOutput({
    outputError: (text, write) =>
      write(
        `${text
          .replace(/^error: /, 'penumbra: ')
          .trimEnd()
          .replace(/\s*\n\s*/g, ' ')}\n`,
      ),
  });
  program
    .description("Linux KVM's x86 MMU as a library, a machine that runs on it, and a laboratory around both")
    .version(packageJson.version)
    .showHelpAfterError(false);
  registerStory(program);
  registerReplay(program);
  registerTrace(program);
  registerConformance(program);
  registerRun(program);
  registerRecord(program);
  return program;
}
