/**
 * `penumbra record`: which pages a guest of ours touches, as a `.pntrace` file for `penumbra replay` and `penumbra story`. Its console
 * is on stderr. The recording ends with the guest, at its mark 2, or after `--max` instructions, which end the run.
 */
import { basename } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Command } from 'commander';
import packageJson from '../../../package.json' with { type: 'json' };
import { type PageTrace } from '../../formats/pntrace.ts';
import { TraceBuilder } from '../../formats/pntrace-builder.ts';
import { encodePntrace } from '../../formats/pntrace-encode.ts';
import { count } from '../../lab/narrative.ts';
import { hasCrashed, type Machine } from '../../machine.ts';
import { HOLE, type RecordingPlan, TouchRecorder } from '../../vm/machine/touch-recorder.ts';
import { checkOutput, writeWhole } from '../atomic-file.ts';
import { CliError } from '../cli-error.ts';
import { connectInput } from '../guest-input.ts';
import { addMachineFlags, loadMachine, type MachineFlags, wholeNumber } from '../machine-flags.ts';

interface RecordOptions extends MachineFlags {
  readonly out: string;
  readonly name?: string;
  readonly title?: string;
  readonly epochInsns: string;
  readonly start: string;
  readonly max?: string;
  readonly json?: boolean;
}

const PAGE = 4096;
const GZIP_LEVEL = 9;

export function register(program: Command): void {
  const command = program
    .command('record')
    .description('boots a kernel as run does, and writes which pages it touches as a .pntrace file')
    .requiredOption('--out <file>', 'the file to write');
  addMachineFlags(command)
    .option('--epoch-insns <n>', 'instructions of an epoch, all CPUs together', '100000')
    .option(
      '--start <where>',
      'power-on, marker (1 of the guest), or a guest-physical address in hex: the first instruction in its page',
      'power-on',
    )
    .option('--max <n>', 'ends after so many instructions of recording')
    .option('--name <name>', "of the recording; the file's if absent")
    .option('--title <text>', 'what the guest does', '')
    .option('--json', "prints the recording's header as JSON on stdout")
    .action(record);
}

async function record(options: RecordOptions): Promise<void> {
  const plan: RecordingPlan = {
    epochInsns: wholeNumber('--epoch-insns', options.epochInsns),
    start: parseStart(options.start),
    maxInsns: options.max === undefined ? Infinity : wholeNumber('--max', options.max),
  };
  checkOutput('--out', options.out);
  const machine = loadMachine(options, { countsAccesses: true });
  const { recorder, finish } = recordMachine(machine, plan, options);
  machine.console.onOutput = (bytes) => void process.stderr.write(bytes);
  machine.onSlice = () => {
    if (recorder.hasEnded) machine.stop();
  };
  const release = connectInput(machine);
  machine.start();
  const end = await machine.ended;
  release();
  if (hasCrashed(end)) throw new CliError(`${options.kernel}: ${end.message}`);
  recorder.finish();
  if (recorder.insns === 0)
    throw new CliError(`${options.kernel}: ended before the recording began (--start ${options.start})`);
  const trace = finish();
  const bytes = writeWhole(options.out, [encodePntrace(trace, (raw) => gzipSync(raw, { level: GZIP_LEVEL }))]);
  const { header } = trace;
  const text = `${options.out}: ${count(header.epochs)} epochs, ${count(header.insns)} instructions, ${count(header.records)} records, ${count(bytes)} bytes`;
  process.stdout.write(`${options.json === true ? JSON.stringify(header) : text}\n`);
}

/** Before the machine starts. `finish`: the recording, once the recorder has ended. */
function recordMachine(
  { pc }: Machine,
  plan: RecordingPlan,
  options: RecordOptions,
): { recorder: TouchRecorder; finish: () => PageTrace } {
  const marks: { id: number; epoch: number }[] = [];
  const more: Record<string, unknown> = {};
  const ram: [number, number][] = [[0, Math.min(HOLE[0] * PAGE, pc.ramBytes)]];
  if (pc.ramBytes > HOLE[1] * PAGE) ram.push([HOLE[1] * PAGE, pc.ramBytes]);
  const builder = new TraceBuilder({
    name: options.name ?? basename(options.out, '.pntrace'),
    title: options.title ?? '',
    epochInsns: plan.epochInsns,
    memBytes: pc.ramBytes,
    ram,
    vcpus: pc.cpus.length,
    marks,
    more,
  });
  const recorder = new TouchRecorder(pc, plan, builder);
  const finish = (): PageTrace => {
    marks.push(...recorder.marks);
    Object.assign(more, {
      guest: { software: [basename(options.kernel)], commandLine: options.append },
      recordedWith: `penumbra ${packageJson.version} record, --cpu ${options.cpu}`,
      start: options.start,
      insnsBefore: recorder.insnsBefore,
      mmioAccesses: recorder.mmioAccesses,
      outsideRamAccesses: recorder.outsideRamAccesses,
      unresolvedAccesses: 0,
    });
    return builder.finish();
  };
  return { recorder, finish };
}

function parseStart(text: string): RecordingPlan['start'] {
  if (text === 'power-on' || text === 'marker') return text;
  if (!/^(0x)?[0-9a-f]{1,10}$/i.test(text))
    throw new CliError(`--start takes power-on, marker or an address in hex, not '${text}'`);
  return Number.parseInt(text.replace(/^0x/i, ''), 16);
}
