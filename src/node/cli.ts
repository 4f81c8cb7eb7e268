/** The entry of the `penumbra` command: runs one subcommand and turns the way it ended into an exit status. */
import { describeFailure, EXIT_OWN_ERROR } from './cli-error.ts';
import { createProgram } from './program.ts';

// A reader that has seen enough (`penumbra ... | head`) is no error; without this Node would print a stack.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    // A disk that is full, say.
    if (stream === process.stdout) process.stderr.write(`${describeFailure(error, false).line}\n`);
    process.exit(EXIT_OWN_ERROR);
  });
}

try {
  await createProgram().parseAsync(process.argv);
} catch (thrown) {
  const { line, status } = describeFailure(thrown, process.env['PENUMBRA_DEBUG'] === '1');
  if (line !== '') process.stderr.write(`${line}\n`);
  // Not process.exit(): what was written to a pipe may still be on its way.
  process.exitCode = status;
}
