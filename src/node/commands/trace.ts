/** `penumbra trace`: the tracepoints of one replay as a file that tools for kernel traces read. */
import { type Command, Option } from 'commander';
import { ftraceText } from '../../formats/ftrace.ts';
import { perfettoTrace } from '../../formats/perfetto.ts';
import { traceDat } from '../../formats/trace-dat.ts';
import { count } from '../../lab/narrative.ts';
import { ALL_POLICIES } from '../../lab/policies.ts';
import { DEFAULT_ROUND_EPOCHS, DEFAULT_SEED } from '../../lab/replay.ts';
import { traceRun } from '../../lab/trace-run.ts';
import type { EventLog } from '../../trace/event-log.ts';
import { checkOutput, writeWhole } from '../atomic-file.ts';
import { CliError } from '../cli-error.ts';
import { progressLine } from '../progress.ts';
import { EMBEDDED_TRACES, loadTrace, parseSeed } from '../trace-files.ts';
import { parsePolicies, parseRoundEpochs, requireLargePages } from './replay.ts';

const WRITERS: Readonly<Record<string, (log: EventLog) => Iterable<string | Uint8Array>>> = {
  ftrace: ftraceText,
  perfetto: perfettoTrace,
  'trace.dat': traceDat,
};

interface TraceOptions {
  readonly policy: string;
  readonly epochs?: string;
  readonly roundEpochs: string;
  readonly seed: string;
  readonly format: string;
  readonly out: string;
  readonly json?: boolean;
}

export function register(program: Command): void {
  program
    .command('trace')
    .description("writes a replay's tracepoints, the kernel's own, for Perfetto, trace-cmd or KernelShark")
    .argument('<trace>', `a .pntrace file, ${EMBEDDED_TRACES.join(', ')}, or synthetic:SEED`)
    .requiredOption('--out <file>', 'the file to write')
    .addOption(new Option('--format <name>', 'of the file').choices(Object.keys(WRITERS)).default('ftrace'))
    .option('--policy <name>', ALL_POLICIES.map((policy) => policy.name).join(', '), 'lazy')
    .option('--epochs <a..b>', 'only these epochs, b not included; the start of the log belongs to epoch 0')
    .option('--round-epochs <n>', 'epochs between two rounds of the migration', String(DEFAULT_ROUND_EPOCHS))
    .option('--seed <n>', 'order of several vCPUs within an epoch, which no recording has', String(DEFAULT_SEED))
    .option('--json', 'prints what was written as JSON')
    .action(writeTrace);
}

function writeTrace(argument: string, options: TraceOptions): void {
  const [policy, ...more] = parsePolicies(options.policy);
  if (more.length > 0) throw new CliError('a trace is of one policy');
  const roundEpochs = parseRoundEpochs(options.roundEpochs);
  const seed = parseSeed(options.seed);
  checkOutput('--out', options.out);
  const trace = loadTrace(argument);
  requireLargePages(argument, trace);
  const { from, to } = parseEpochs(options.epochs, trace.header.epochs);
  const progress = progressLine(process.stderr);
  const onProgress = (epoch: number): void => progress.show(`${trace.header.name}, ${policy.name}: epoch ${epoch}`);
  const log = traceRun(trace, policy, { roundEpochs, seed, from, to, onProgress });
  progress.clear();
  const bytes = writeWhole(options.out, WRITERS[options.format](log));
  const written = { file: options.out, format: options.format, policy: policy.name, records: log.tracer.count, bytes };
  const text = `${options.out}: ${count(log.tracer.count)} records, ${count(bytes)} bytes`;
  process.stdout.write(`${options.json === true ? JSON.stringify(written) : text}\n`);
}

function parseEpochs(text: string | undefined, epochs: number): { from: number; to: number } {
  if (text === undefined) return { from: 0, to: epochs };
  const [, from, to] = /^(\d+)\.\.(\d+)$/.exec(text) ?? [];
  if (from === undefined || Number(from) >= Number(to) || Number(to) > epochs) {
    throw new CliError(`--epochs takes a..b with 0 <= a < b <= ${epochs}, not '${text}'`);
  }
  return { from: Number(from), to: Number(to) };
}
