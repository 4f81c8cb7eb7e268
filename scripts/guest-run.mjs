/**
 * Runs a guest as a process of its own, in `penumbra run` or in QEMU, for the scripts that compare guests: the same kernel, memory
 * and console for both, an end after a number of seconds, and what the console said.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ROOT } from './setup.mjs';

/**
 * @typedef {object} Guest
 * @property {string} kernel
 * @property {string} [initrd]
 * @property {string} [append] the kernel's command line
 * @property {string} [memory] such as 512M
 * @property {number} [cpus]
 * @property {string} [cpu] MODEL[,+feature,-feature,vendor=V]
 * @property {string} [paging] how ours translates; QEMU has no such choice
 * @property {string} [policy]
 * @property {number} [epochS] ours: time of day at power-on, seconds since 1970
 * @property {string} [checkLog] ours: million instructions between two comparisons of the dirty log with memory
 * @property {string} [tracker] ours: how the dirty log is kept
 * @property {boolean} [reboot] ours: a reset boots the kernel again; QEMU ends
 * @property {string} [verify] ours: exits between two checks of the MMU's invariants
 */

/**
 * @typedef {object} GuestRun
 * @property {number | null} status of the process; null: it was ended by us or by a signal
 * @property {'ended' | 'too long' | 'stopped'} end
 * @property {string} console what the guest wrote to its serial port
 * @property {string} complaint what the process itself said on stderr
 * @property {number} seconds
 */

/** The ways to run a guest, by name; each gives the words of a command line. @type {Record<string, (guest: Guest) => string[]>} */
export const DRIVERS = { penumbra: penumbraCommand, qemu: qemuCommand };

/** @param {Guest} guest */
export function penumbraCommand(guest) {
  const { kernel, initrd, append, memory, cpus, cpu, paging, policy, epochS, checkLog, tracker, verify, reboot } =
    guest;
  const command = [process.execPath, join(ROOT, 'bin', 'penumbra.mjs'), 'run', '--kernel', kernel];
  if (initrd !== undefined) command.push('--initrd', initrd);
  // One word, as the command line may begin with a dash.
  if (append !== undefined) command.push(`--append=${append}`);
  if (memory !== undefined) command.push('--memory', memory);
  if (cpus !== undefined) command.push('--cpus', String(cpus));
  if (cpu !== undefined) command.push('--cpu', cpu);
  if (paging !== undefined) command.push('--paging', paging);
  if (policy !== undefined) command.push('--policy', policy);
  if (epochS !== undefined) command.push('--epoch', String(epochS));
  if (checkLog !== undefined) command.push('--check-log', checkLog);
  if (tracker !== undefined) command.push('--tracker', tracker);
  if (reboot === true) command.push('--reboot');
  if (verify !== undefined) command.push('--verify', verify, '--stats');
  return command;
}

/** QEMU without KVM, with the devices that kvm-unit-tests talks to. @param {Guest} guest */
export function qemuCommand({ kernel, initrd, append, memory, cpus, cpu }) {
  const command = ['qemu-system-x86_64', '-accel', 'tcg', '-no-reboot', '-nodefaults', '-display', 'none', '-serial'];
  command.push('stdio', '-device', 'pc-testdev', '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x4', '-kernel', kernel);
  if (initrd !== undefined) command.push('-initrd', initrd);
  if (append !== undefined) command.push('-append', append);
  if (memory !== undefined) command.push('-m', memory);
  if (cpus !== undefined) command.push('-smp', String(cpus));
  if (cpu !== undefined) command.push('-cpu', cpu);
  return command;
}

/**
 * Runs a command until it ends, until `seconds` are over, or until `onText` says true for what the console has said so far.
 *
 * @param {string[]} command
 * @param {{ seconds: number, onText?: (text: string, pid: number) => boolean | void }} options
 * @returns {Promise<GuestRun>}
 */
export function runGuest([program, ...args], { seconds, onText }) {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    // A group of its own, so that nothing of it outlives us.
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    /** @type {GuestRun['end']} */
    let end = 'ended';
    let text = '';
    let complaint = '';
    const kill = (/** @type {GuestRun['end']} */ why) => {
      end = why;
      killGroup(child.pid);
    };
    const onSignal = () => {
      killGroup(child.pid);
      process.exit(130);
    };
    process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
    const timer = setTimeout(() => kill('too long'), seconds * 1000);
    child.stdout.setEncoding('latin1').on('data', (chunk) => {
      text += chunk;
      if (end === 'ended' && onText?.(text, child.pid ?? 0)) kill('stopped');
    });
    child.stderr.setEncoding('utf8').on('data', (chunk) => {
      complaint = (complaint + chunk).slice(-4000);
    });
    child.on('error', reject);
    child.on('close', (status) => {
      clearTimeout(timer);
      process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
      resolve({ status, end, console: text, complaint, seconds: (performance.now() - start) / 1000 });
    });
  });
}

/** @param {number | undefined} pid */
function killGroup(pid) {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}

/**
 * A table for a terminal; the columns named in `right` are numbers.
 *
 * @param {string[]} heads @param {(string | number)[][]} rows @param {string[]} [right]
 */
export function table(heads, rows, right = []) {
  const lines = [heads, ...rows].map((row) => row.map(String));
  const widths = heads.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const text = lines.map((line) =>
    line
      .map((cell, column) =>
        right.includes(heads[column]) ? cell.padStart(widths[column]) : cell.padEnd(widths[column]),
      )
      .join('  ')
      .trimEnd(),
  );
  text.splice(1, 0, widths.map((width) => '-'.repeat(width)).join('  '));
  return text.join('\n');
}

/** Ends the script as every command does whose input is bad: one line on stderr, status 2. @param {string} message @returns {never} */
export function refuse(message) {
  process.stderr.write(`${message.replace(/\s*\n\s*/g, ' ')}\n`);
  process.exit(2);
}
