/**
 * `penumbra run`: a guest on the terminal. Its serial port is stdin and stdout; on a terminal each key goes to the guest,
 * but for the escape key, Ctrl-A: then x ends the run, and Ctrl-A sends itself.
 *
 * The exit status is the guest's if it writes to the debug-exit device, (v << 1) | 1; 0 if it powers off, resets or is
 * left by the escape key; 2 if it can't go on, with its registers on stderr.
 */
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import { ftraceText } from '../../formats/ftrace.ts';
import { hasCrashed, type Machine, type MachineStats, PAGINGS, type PcEnd } from '../../machine.ts';
import { DirtyLogCheck } from '../../vm/machine/dirty-log-check.ts';
import { checkOutput, writeWhole } from '../atomic-file.ts';
import { CliError, EXIT_OWN_ERROR } from '../cli-error.ts';
import { GdbServer, parseGdbFlag } from '../gdb-server.ts';
import { connectInput } from '../guest-input.ts';
import { addMachineFlags, loadMachine, type MachineFlags, wholeNumber } from '../machine-flags.ts';
import { machineTable } from '../table-machine.ts';
import { TraceClerk } from '../trace-clerk.ts';

interface RunCommandOptions extends MachineFlags {
  readonly dirtyLog?: boolean;
  readonly tracker: string;
  readonly checkLog?: string;
  readonly verify?: string;
  readonly trace?: string;
  readonly stats?: boolean;
  readonly limit?: string;
  readonly gdb?: string;
  readonly json?: boolean;
}

/** 4096 entries. */
const RING_BYTES = 65536;
/** What a dirty log is made of: by write protection or by the CPU, in a bitmap or a ring. */
const TRACKERS: Readonly<Record<string, { readonly ringBytes?: number; readonly pml?: boolean }>> = {
  bitmap: {},
  ring: { ringBytes: RING_BYTES },
  pml: { pml: true },
  'pml-ring': { ringBytes: RING_BYTES, pml: true },
};

export function register(program: Command): void {
  const command = program
    .command('run')
    .description('boots a kernel: a bzImage, an ELF with a PVH entry, or a multiboot image');
  addMachineFlags(command)
    .option('--dirty-log', 'keeps the dirty log on for the whole run')
    .addOption(
      new Option('--tracker <name>', 'of what the dirty log is made').choices(Object.keys(TRACKERS)).default('bitmap'),
    )
    .option('--check-log <n>', 'the same, and every n million instructions compares it with what memory has become')
    .option('--verify <n>', "checks all of the MMU's invariants every n exits")
    .option('--trace <file>', "writes the MMU's tracepoints as ftrace text")
    .option('--stats', "prints KVM's statistics at the end, on stderr")
    .option('--limit <instructions>', 'ends the run, with status 2, after so many instructions')
    .option('--gdb <port>', 'GDB may attach on this port of 127.0.0.1; PORT,wait: the guest begins when it has')
    .option('--json', 'prints how it ended as JSON on stdout; the console goes to stderr')
    .action(run);
}

async function run(options: RunCommandOptions): Promise<void> {
  const { ringBytes, pml } = TRACKERS[options.tracker];
  if (pml === true && PAGINGS[options.paging ?? 'tdp'].ept?.ad !== true)
    throw new CliError(`--tracker ${options.tracker} needs a CPU that logs writes: --paging ept or ept-tdp-mmu`);
  if (ringBytes !== undefined && options.dirtyLog === true && options.checkLog === undefined)
    throw new CliError(`--tracker ${options.tracker} needs someone who empties the ring: --check-log`);
  const gdbFlag = options.gdb === undefined ? null : parseGdbFlag(options.gdb);
  if (options.trace !== undefined) checkOutput('--trace', options.trace);
  const clerk = options.trace === undefined ? null : new TraceClerk(basename(options.kernel));
  const machine = loadMachine(options, {
    dirtyLog: options.dirtyLog,
    ...TRACKERS[options.tracker],
    trace: clerk?.tracer,
  });
  clerk?.attach(machine.pc);
  if (options.verify !== undefined) verifyEvery(machine, wholeNumber('--verify', options.verify));
  const check = options.checkLog === undefined ? null : checkLog(machine, wholeNumber('--check-log', options.checkLog));
  const limit = options.limit === undefined ? Infinity : wholeNumber('--limit', options.limit);
  const output = options.json === true ? process.stderr : process.stdout;
  machine.console.onOutput = (bytes) => void output.write(bytes);
  const gdb = gdbFlag === null ? null : await GdbServer.listen(machine, gdbFlag.port);
  if (gdb !== null) process.stderr.write(`gdb: target remote 127.0.0.1:${gdb.port}\n`);
  const started = performance.now();
  const release = connectInput(machine);
  const watch = watchLimit(machine, limit);
  if (gdbFlag?.waits !== true) machine.start();
  const end = await machine.ended;
  // Signals end the process again, also while somebody looks at a guest that has crashed.
  release();
  await gdb?.finish(end);
  if (watch()) throw new CliError(`${options.kernel}: ${machine.pc.instructions} instructions, over the limit`);
  const seconds = (performance.now() - started) / 1000;
  if (clerk !== null && options.trace !== undefined) writeWhole(options.trace, ftraceText(clerk.log()));
  report(machine.stats(), end, seconds, options);
  if (check !== null) reportLog(check);
}

function verifyEvery(machine: Machine, every: number): void {
  let exits = 0;
  const onExit = (): void => {
    if (++exits % every !== 0) return;
    const [first, ...more] = machine.vm.verify();
    if (first !== undefined)
      throw new Error(`after ${exits} exits ${first}${more.length > 0 ? ` and ${more.length} more` : ''}`);
  };
  for (const { unit } of machine.pc.cpus) unit.onExit = onExit;
}

function checkLog(machine: Machine, millions: number): DirtyLogCheck {
  const check = new DirtyLogCheck(machine.pc);
  let next = 0;
  machine.onSlice = () => {
    if (machine.pc.instructions < next && machine.pc.end === null) return;
    next = machine.pc.instructions + millions * 1e6;
    check.round();
  };
  return check;
}

/** Exit status 1 if pages were lost. */
function reportLog({ rounds, logged, lostCount, lost }: DirtyLogCheck): void {
  process.stderr.write(`dirty log: ${rounds} rounds, ${logged} pages logged, ${lostCount} pages lost\n`);
  if (lostCount === 0) return;
  process.stderr.write(`lost: ${lost.map((gfn) => `gfn 0x${gfn.toString(16)}`).join(', ')}\n`);
  process.exitCode = 1;
}

/** Stops the machine after so many instructions. Returns what ends the watch, and tells whether it had to. */
function watchLimit(machine: Machine, limit: number): () => boolean {
  if (limit === Infinity) return () => false;
  let isOver = false;
  const timer = setInterval(() => {
    if (machine.pc.instructions < limit) return;
    isOver = true;
    machine.stop();
  }, 20);
  return () => {
    clearInterval(timer);
    return isOver;
  };
}

function report(stats: MachineStats, end: PcEnd, seconds: number, options: RunCommandOptions): void {
  const { reason, status, message } = end;
  if (hasCrashed(end)) {
    process.stderr.write(`\npenumbra: ${options.kernel}: ${message}\n`);
    process.exitCode = EXIT_OWN_ERROR;
  } else if (status !== 0) process.exitCode = status;
  if (options.stats === true) process.stderr.write(machineTable(stats, seconds));
  if (options.json === true) process.stdout.write(`${JSON.stringify({ end: reason, status, seconds, ...stats })}\n`);
}
