/** The flags of the commands that boot a guest, and the machine that they ask for. */
import { existsSync, readFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import {
  BootError,
  CpuModelError,
  Machine,
  type MachineOptions,
  MAX_CPUS,
  PAGINGS,
  type PagingName,
  PolicyError,
} from '../machine.ts';
import { POLICIES, type PolicyName } from '../mmu/policy.ts';
import { PRESETS, type PresetName } from '../mmu/presets.ts';
import { CliError, forFlag } from './cli-error.ts';
import { type DeviceFlags, deviceOptions } from './device-flags.ts';
import { packageFile } from './package-files.ts';

export interface MachineFlags extends DeviceFlags {
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
  readonly epoch?: string;
}

const POLICY_NAMES = [...Object.keys(POLICIES), ...PRESETS.map(({ name }) => name)];
const TINY_GUEST = 'tiny';
const HOST_LEVELS: Readonly<Record<string, 1 | 2 | 3>> = { '4k': 1, '2m': 2, '1g': 3 };

/** Puts them on a command. */
export function addMachineFlags(command: Command): Command {
  return command
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
    .option('--epoch <seconds>', "time of day at power-on, seconds since 1970; the host's if absent");
}

/** Throws a CliError for what can't be had. `more`: what other flags ask for. */
export function loadMachine(options: MachineFlags, more: Partial<MachineOptions>): Machine {
  const cpus = wholeNumber('--cpus', options.cpus);
  if (cpus > MAX_CPUS) throw new CliError(`--cpus ${options.cpus}: there can be 1 to ${MAX_CPUS}`);
  try {
    return Machine.load({
      kernel: readFlag('--kernel', kernelPath(options.kernel)),
      initrd: options.initrd === undefined ? undefined : readFlag('--initrd', options.initrd),
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
      epoch: options.epoch === undefined ? undefined : wholeNumber('--epoch', options.epoch),
      ...deviceOptions(options),
      ...more,
    });
  } catch (error) {
    if (error instanceof BootError) throw new CliError(`${options.kernel}: ${error.message}`);
    if (error instanceof CpuModelError) throw new CliError(`--cpu ${options.cpu}: ${error.message}`);
    if (error instanceof PolicyError) throw new CliError(`--policy ${error.message}`);
    if (error instanceof RangeError) throw new CliError(`--memory ${options.memory}: ${error.message}`);
    throw error;
  }
}

function readFlag(flag: string, path: string): Uint8Array {
  return forFlag(`${flag} ${path}`, () => readFileSync(path));
}

/** A file, or the embedded guest. */
function kernelPath(kernel: string): string {
  if (kernel !== TINY_GUEST || existsSync(kernel)) return kernel;
  return packageFile('guests', 'tiny', 'tiny.elf');
}

export function wholeNumber(flag: string, text: string): number {
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
