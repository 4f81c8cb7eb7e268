/** `penumbra replay`: any recording under any policies. Exit status 1 if one of them lost pages. */
import type { Command } from 'commander';
import type { PageTrace } from '../../formats/pntrace.ts';
import { ALL_POLICIES, STORY_KERNELS, STORY_POLICIES } from '../../lab/policies.ts';
import { DEFAULT_ROUND_EPOCHS, DEFAULT_SEED } from '../../lab/replay.ts';
import { renderReport } from '../../lab/report-html.ts';
import { type Story, type StoryPolicy, tellStory } from '../../lab/story.ts';
import { checkOutput, writeWhole } from '../atomic-file.ts';
import { CliError } from '../cli-error.ts';
import { progressLine } from '../progress.ts';
import { styleFor } from '../table.ts';
import { renderContrast, renderDefinitions, renderStory, storyToJson } from '../table-story.ts';
import { EMBEDDED_TRACES, loadTrace, parseSeed } from '../trace-files.ts';

const LARGE_PAGE_BYTES = 2 ** 21;

/** As commander delivers them. */
export interface RunOptions {
  readonly policy: string;
  readonly roundEpochs: string;
  readonly seed: string;
  readonly json?: boolean;
  readonly explain?: boolean;
  readonly report?: string;
}

export function register(program: Command): void {
  const command = program
    .command('replay')
    .description('runs a recording under one or more memory policies while a pre-copy migration goes on')
    .argument('[trace...]', `.pntrace files, ${EMBEDDED_TRACES.join(', ')}, or synthetic:SEED`)
    .action((traces: string[], options: RunOptions) => {
      if (traces.length === 0 && options.explain !== true) throw new CliError('which recording? replay TRACE...');
      const stories = runTraces('replay', traces, options);
      const lost = stories.some((story) => story.runs.some(({ result }) => result.migration.lostPages > 0));
      if (lost) process.exitCode = 1;
    });
  addRunOptions(command);
}

/** The options that `replay` and `story` have in common. */
export function addRunOptions(command: Command): void {
  const names = STORY_POLICIES.map((policy) => policy.name).join(',');
  command
    .option('--policy <names>', 'policies to compare, with commas between', names)
    .option('--round-epochs <n>', 'epochs between two rounds of the migration', String(DEFAULT_ROUND_EPOCHS))
    .option('--seed <n>', 'order of several vCPUs within an epoch, which no recording has', String(DEFAULT_SEED))
    .option('--explain', 'says exactly what each row of the table counts')
    .option('--report <file>', 'writes tables, charts and maps of memory into one HTML file')
    .option('--json', 'prints the numbers, each round included, as JSON')
    .addHelpText(
      'after',
      `\nPolicies:\n${listed(STORY_POLICIES)}\n\nKernels, named like policies:\n${listed(STORY_KERNELS)}`,
    );
}

function listed(policies: readonly StoryPolicy[]): string {
  return policies.map(({ name, about }) => `  ${name.padEnd(22)}${about}`).join('\n');
}

/** Runs each recording and prints what came of it. */
export function runTraces(command: string, traces: readonly string[], options: RunOptions): Story[] {
  const policies = parsePolicies(options.policy);
  const roundEpochs = parseRoundEpochs(options.roundEpochs);
  const seed = parseSeed(options.seed);
  if (options.report !== undefined) checkOutput('--report', options.report);
  const style = styleFor(process.stdout, process.env);
  const print = (text: string): void => void process.stdout.write(`${text}\n`);
  const progress = progressLine(process.stderr);
  const asJson = options.json === true;
  const timeline = options.report !== undefined && traces.length > 0;
  if (options.explain === true && !asJson) print(renderDefinitions(style));

  const stories = traces.map((argument, i) => {
    progress.show(`reading ${argument} ...`);
    const trace = loadTrace(argument);
    const { name, epochs } = trace.header;
    requireLargePages(argument, trace);
    const onProgress = (policy: string, epoch: number): void =>
      progress.show(`${name}, ${policy}: epoch ${epoch} of ${epochs}`);
    const story = tellStory(trace, policies, { roundEpochs, seed, onProgress, timeline });
    progress.clear();
    // Printed one by one: the first table can be read while the second recording runs.
    if (!asJson) print(`${i > 0 || options.explain === true ? '\n' : ''}${renderStory(story, style)}`);
    return story;
  });
  if (asJson) print(JSON.stringify(stories.map(storyToJson), null, 2));
  else {
    const together = renderContrast(stories, style);
    if (together !== '') print(`\n${together}`);
  }
  if (options.report !== undefined && traces.length > 0) {
    writeWhole(options.report, [renderReport(stories, { command: commandLine(command, traces, options) })]);
    if (!asJson) print(`\nReport: ${options.report}`);
  }
  return stories;
}

/** The experiment begins with all memory mapped by large entries. */
export function requireLargePages(argument: string, { header: { memBytes } }: PageTrace): void {
  if (memBytes % LARGE_PAGE_BYTES === 0) return;
  throw new CliError(`${argument}: ${memBytes} bytes of memory cannot all be mapped by 2 MiB entries`);
}

/** What makes the same numbers again. */
function commandLine(command: string, traces: readonly string[], { policy, roundEpochs, seed }: RunOptions): string {
  return `penumbra ${command} ${traces.join(' ')} --policy ${policy} --round-epochs ${roundEpochs} --seed ${seed}`;
}

/** Policies by their names, with commas between. */
export function parsePolicies(text: string): StoryPolicy[] {
  const names = text.split(',').map((name) => name.trim());
  return names.map((name, i) => {
    const policy = ALL_POLICIES.find((known) => known.name === name);
    if (policy === undefined) {
      const known = ALL_POLICIES.map((each) => each.name).join(', ');
      throw new CliError(`no policy '${name}'; there are ${known}`);
    }
    if (names.indexOf(name) !== i) throw new CliError(`policy '${name}' is named twice`);
    return policy;
  });
}

export function parseRoundEpochs(text: string): number {
  const epochs = Number(text);
  if (!/^\d+$/.test(text) || epochs < 1 || !Number.isSafeInteger(epochs)) {
    throw new CliError(`--round-epochs takes a whole number from 1, not '${text}'`);
  }
  return epochs;
}
