/**
 * `penumbra story`, which is `npm start`: the flagship experiment on the embedded recordings, one write-heavy and one
 * read-mostly. Exit status 1 if something between the numbers is not as it must be; that the policy with the bug loses
 * pages is as it must be.
 */
import type { Command } from 'commander';
import { EMBEDDED_TRACES } from '../trace-files.ts';
import { addRunOptions, type RunOptions, runTraces } from './replay.ts';

export function register(program: Command): void {
  const command = program
    .command('story')
    .description('the flagship experiment: what dropping large mappings lazily buys a guest that is migrated')
    .argument('[trace...]', `.pntrace files or synthetic:SEED; ${EMBEDDED_TRACES.join(' and ')} if there are none`)
    .action((traces: string[], options: RunOptions) => {
      const stories = runTraces('story', traces.length > 0 ? traces : EMBEDDED_TRACES, options);
      if (stories.some((story) => story.relations.some(({ holds }) => !holds))) process.exitCode = 1;
    });
  addRunOptions(command);
}
