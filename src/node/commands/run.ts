/**
 * `penumbra run`: a guest on the terminal. Its serial port is stdin and stdout; on a terminal each key goes to the guest,
 * but for the escape key, Ctrl-A: then x ends the run, and Ctrl-A sends itself.
 *
 * The exit status is the guest's if it writes to the debug-exit device, (v << 1) | 1; 0 if it powers off, resets or is
 * left by the escape key; 2 if it can't go on, with its registers on stderr.
 */
import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import { ftraceText } from '../../formats/ftrace.ts';
import {
  BootError,
  CpuModelError,
  hasCrashed,
  Machine,
  type MachineStats,
  MAX_CPUS,
  PAGINGS,
  type PagingName,
  type PcEnd,
  PolicyError,
} from '../../machine.ts';
import { POLICIES, type PolicyName } from '../../mmu/policy.ts';
import { PRESETS, type PresetName } from '../../mmu/presets.ts';
import { DirtyLogCheck } from '../../vm/machine/dirty-log-check.ts';
import { writeWhole } from '../atomic-file.ts';
import { CliError, EXIT_OWN_ERROR } from '../cli-error.ts';
import { type DeviceFlags, deviceOptions } from '../device-flags.ts';
import { EscapeKey } from '../escape-key.ts';
import { GdbServer, parseGdbFlag } from '../gdb-server.ts';
import { packageFile } from '../package-files.ts';
import { machineTable } from '../table-machine.ts';
import { TraceClerk } from '../trace-clerk.ts';

interface RunCommandOptions extends DeviceFlags {
  readonly kernel: string;
  readonly initrd?: string;
  readonly append: string;
  readonly memory: string;
  readonly cpus: string;
  readonly quantum?: string;
  readonly seed?: string;
  readonly cpu: string;
  readonly paging?: PagingName;
  readonly policy: PolicyName | PresetName;
  readonly hostPages: string;
  readonly realtime?: boolean;
  readonly reboot?: boolean;
  readonly dirtyLog?: boolean;
  readonly tracker: string;
  readonly checkLog?: string;
  readonly verify?: string;
  readonly trace?: string;
  readonly stats?: boolean;
  readonly epoch?: string;
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
const POLICY_NAMES = [...Object.keys(POLICIES), ...PRESETS.map(({ name }) => name)];
const TINY_GUEST = 'tiny';
const HOST_LEVELS: Readonly<Record<string, 1 | 2 | 3>> = { '4k': 1, '2m': 2, '1g': 3 };

export function register(program: Command): void {
  program
    .command('run')
    .description('boots a kernel: a bzImage, an ELF with a PVH entry, or a multiboot image')
    .option('--kernel <file>', 'the kernel; a tiny guest of our own if absent', TINY_GUEST)
    .option('--initrd <file>', 'its initial RAM disk; for a multiboot image, its module')
    .option('--append <text>', "the kernel's command line", '')
    .option('--memory <size>', 'RAM: 512M, 1G; whole MiB', '512M')
    .option('--cpus <n>', 'CPUs, 1 to 8', '1')
    .option('--quantum <n>', "of several CPUs: instructions, on the average, until it is the next one's turn")
    .option('--seed <n>', 'of several CPUs: chooses how long each turn is')
    .option(
      '--cpu <model>',
      "max, qemu64 or another of QEMU's, then changes: max,-smap,+pku,vendor=GenuineIntel",
      'max',
    )
    .addOption(
      new Option('--paging <name>', "KVM's paging; if absent the kernel's of --policy, or else tdp").choices(
        Object.keys(PAGINGS),
      ),
    )
    .addOption(
      new Option('--policy <name>', "the MMU's policy, or a kernel: its policy, engine and version")
        .choices(POLICY_NAMES)
        .default('lazy'),
    )
    .addOption(
      new Option('--host-pages <size>', "of the host's mappings").choices(Object.keys(HOST_LEVELS)).default('2m'),
    )
    .option(
      '--disk <file>',
      'a virtio disk; FILE[,overlay=FILE|,snapshot|,ro]; again for another',
      (one, all: string[] | undefined) => [...(all ?? []), one],
    )
    .option(
      '--net [allow]',
      'a network card; allow=ADDRESS:PORT,... are the TCP addresses that the guest may connect to',
    )
    .option('--share <folder>', "a folder of the host's by 9P, tag host; FOLDER[,rw], read-only without rw")
    .option('--rng [seed]', 'an entropy device; the same seed, the same numbers')
    .option('--balloon', 'a balloon, empty at first')
    .addOption(
      new Option('--console <name>', 'which console is typed into; of virtio, hvc0')
        .choices(['serial', 'virtio'])
        .default('serial'),
    )
    .option('--realtime', "the guest's clock follows the host's, and a halted CPU costs nothing")
    .option('--reboot', 'a reset boots the kernel again; without it, it ends the run')
    .option('--dirty-log', 'keeps the dirty log on for the whole run')
    .addOption(
      new Option('--tracker <name>', 'of what the dirty log is made').choices(Object.keys(TRACKERS)).default('bitmap'),
    )
    .option('--check-log <n>', 'the same, and every n million instructions compares it with what memory has become')
    .option('--verify <n>', "checks all of the MMU's invariants every n exits")
    .option('--trace <file>', "writes the MMU's tracepoints as ftrace text")
    .option('--stats', "prints KVM's statistics at the end, on stderr")
    .option('--epoch <seconds>', "time of day at power-on, seconds since 1970; the host's if absent")
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
  const clerk = options.trace === undefined ? null : new TraceClerk(basename(options.kernel));
  const machine = load(options, clerk);
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
  await gdb?.finish(end);
  release();
  if (watch()) throw new CliError(`${options.kernel}: ${machine.pc.instructions} instructions, over the limit`);
  const seconds = (performance.now() - started) / 1000;
  if (clerk !== null && options.trace !== undefined) writeWhole(options.trace, ftraceText(clerk.log()));
  report(machine.stats(), end, seconds, options);
  if (check !== null) reportLog(check);
}

function load(options: RunCommandOptions, clerk: TraceClerk | null): Machine {
  const cpus = wholeNumber('--cpus', options.cpus);
  if (cpus > MAX_CPUS) throw new CliError(`--cpus ${options.cpus}: there can be 1 to ${MAX_CPUS}`);
  try {
    return Machine.load({
      kernel: readFileSync(kernelPath(options.kernel)),
      initrd: options.initrd === undefined ? undefined : readFileSync(options.initrd),
      cmdline: options.append,
      name: options.kernel,
      memory: parseSize(options.memory),
      cpus,
      quantum: options.quantum === undefined ? undefined : wholeNumber('--quantum', options.quantum),
      seed: options.seed === undefined ? undefined : wholeNumber('--seed', options.seed),
      cpu: options.cpu,
      paging: options.paging,
      policy: options.policy,
      hostLevel: HOST_LEVELS[options.hostPages],
      realtime: options.realtime,
      reboot: options.reboot,
      dirtyLog: options.dirtyLog,
      ...TRACKERS[options.tracker],
      epoch: options.epoch === undefined ? undefined : wholeNumber('--epoch', options.epoch),
      trace: clerk?.tracer,
      ...deviceOptions(options),
    });
  } catch (error) {
    if (error instanceof BootError) throw new CliError(`${options.kernel}: ${error.message}`);
    if (error instanceof CpuModelError) throw new CliError(`--cpu ${options.cpu}: ${error.message}`);
    if (error instanceof PolicyError) throw new CliError(`--policy ${error.message}`);
    if (error instanceof RangeError) throw new CliError(`--memory ${options.memory}: ${error.message}`);
    throw error;
  }
}

/** A file, or the embedded guest. */
function kernelPath(kernel: string): string {
  if (kernel !== TINY_GUEST || existsSync(kernel)) return kernel;
  return packageFile('guests', 'tiny', 'tiny.elf');
}

function wholeNumber(flag: string, text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value === 0 || !Number.isSafeInteger(value))
    throw new CliError(`${flag} takes a whole number above 0, not '${text}'`);
  return value;
}

/** Bytes: a number with K, M or G; M if without. */
function parseSize(text: string): number {
  const [, digits, unit = 'M'] = /^(\d+)([KMG])?i?B?$/i.exec(text) ?? [];
  if (digits === undefined) throw new CliError(`--memory takes a size such as 512M or 1G, not '${text}'`);
  return Number(digits) * 1024 ** ' KMG'.indexOf(unit.toUpperCase());
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

/** Keys and piped input to the guest. Returns what undoes it. */
function connectInput(machine: Machine): () => void {
  const { stdin } = process;
  const escape = new EscapeKey();
  const isTerminal = stdin.isTTY;
  if (isTerminal) stdin.setRawMode(true);
  const onData = (chunk: Buffer): void => {
    const keys = isTerminal ? escape.filter(chunk) : chunk;
    if (keys.length > 0) machine.console.write(keys);
    if (isTerminal && escape.wantsToLeave) machine.stop();
  };
  const onInterrupt = (): void => machine.stop();
  stdin.on('data', onData);
  process.on('SIGTERM', onInterrupt);
  if (!isTerminal) process.on('SIGINT', onInterrupt);
  return () => {
    stdin.off('data', onData);
    if (isTerminal) stdin.setRawMode(false);
    stdin.pause();
    process.off('SIGTERM', onInterrupt);
    process.off('SIGINT', onInterrupt);
  };
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
