/**
 * The machine as a library: boot a kernel, talk to its console, run commands in it, look at its MMU.
 *
 *     const machine = await Machine.boot({ kernel, initrd, cmdline: 'console=ttyS0', memory: 512 * 2 ** 20 });
 *     await machine.console.waitFor('# ');
 *     const { output } = await machine.exec('uname -a');
 *     machine.stats().vm.pages_2m;
 *     machine.stop();
 *
 * It runs between turns of the event loop, in slices of a few milliseconds. In virtual time (the default) it runs as fast
 * as it can and a halted CPU costs no time at all; in real time its clock follows the host's, and a halted CPU costs the
 * host nothing.
 */
import type { NetworkPort } from './dev/net/network-port.ts';
import { HOST, hostMs, nextTurn } from './host-globals.ts';
import { type Policy, POLICIES, type PolicyName } from './mmu/policy.ts';
import { findPreset, type PresetName } from './mmu/presets.ts';
import { VcpuStats, VmStats } from './trace/stats.ts';
import type { Tracer } from './trace/tracer.ts';
import { bootPc } from './vm/machine/boot.ts';
import { attachDevices, type AttachedDevices, type DeviceOptions } from './vm/machine/devices.ts';
import { parseCpuModel } from './vm/machine/cpuid.ts';
import { PAGINGS, Pc, type PagingName, type PcEnd, type PcOptions } from './vm/machine/pc.ts';
import type { Vm } from './vm/vm.ts';

export { BootError } from './vm/boot/boot-image.ts';
export { CpuModelError } from './vm/machine/cpuid.ts';
export { hasCrashed, MAX_CPUS, PAGINGS, type PagingName, type PcEnd } from './vm/machine/pc.ts';

export interface MachineOptions extends DeviceOptions {
  /** A bzImage, an ELF with a PVH entry, or a multiboot image. */
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  /** The kernel's command line. */
  readonly cmdline?: string;
  /** The kernel's file name, the first word of a multiboot image's command line. */
  readonly name?: string;
  /** Bytes of RAM, whole MiB; 512 MiB if absent. */
  readonly memory?: number;
  /** MODEL[,+feature][,-feature][,vendor=NAME]; `max` if absent. */
  readonly cpu?: string;
  /** How many CPUs, 1 to 8; one if absent. They take turns in one thread. */
  readonly cpus?: number;
  /** Of several CPUs: instructions of a turn, and the seed of what turns differ by. */
  readonly quantum?: number;
  readonly seed?: number;
  /** If absent what `policy` names, or else nested paging by the rmap-based engine (`tdp`). */
  readonly paging?: PagingName;
  /** A policy by name or as a record, or a kernel (`linux-6.12-tdp`): policy, engine and version. `lazy` if absent. */
  readonly policy?: PolicyName | PresetName | Policy;
  /** The host's mappings of RAM: 1 (4 KiB), 2 (2 MiB, the default), 3 (1 GiB). */
  readonly hostLevel?: 1 | 2 | 3;
  readonly nxHugePages?: boolean;
  /** Follow the host's clock. */
  readonly realtime?: boolean;
  /** A reset boots the kernel again, with memory as it is; if absent it is the machine's end. */
  readonly reboot?: boolean;
  /** Bytes of each vCPU's dirty ring, in place of a bitmap: each `unit.onRingFull` must empty it. */
  readonly ringBytes?: number;
  /** Page-modification logging: the CPU finds out what is written. Paging `ept` and `ept-tdp-mmu` only. */
  readonly pml?: boolean;
  /** Start with the dirty log on. */
  readonly dirtyLog?: boolean;
  /** Time of day at power-on, UTC, seconds since 1970; the host's if absent. A fixed one makes runs repeatable. */
  readonly epoch?: number;
  readonly trace?: Tracer;
  /** For a recording (`TouchRecorder`): the CPUs count their loads and stores. */
  readonly countsAccesses?: boolean;
}

export interface ExecResult {
  /** What the command wrote to the console, without the echo of the command itself. */
  readonly output: string;
  /** Its exit status. */
  readonly status: number;
}

export interface MachineStats {
  readonly instructions: number;
  /** Virtual time since power-on. */
  readonly ns: number;
  readonly vm: VmStats;
  readonly vcpus: readonly VcpuStats[];
}

/** Instructions of a slice: about ten milliseconds; in real time less, as the clock stands still in between. */
const SLICE = 2_000_000;
const REALTIME_SLICE = 200_000;
/** Longest wait of a halted machine for anything; input ends it. */
const MAX_WAIT_MS = 1000;
const NS_PER_MS = 1e6;
/** Console output that is kept for `waitFor` and `text`. */
const MAX_TEXT = 2 ** 20;

export class MachineConsole {
  /** What the guest has written, as UTF-8; the last MiB of it. */
  text = '';
  /** Characters that came before `text` and are forgotten. */
  forgotten = 0;
  /** Called with each piece that the guest writes. */
  onOutput: ((bytes: Uint8Array) => void) | null = null;
  private readonly decoder = new HOST.TextDecoder();
  private readonly encoder = new HOST.TextEncoder();
  private readonly pending = new Uint8Array(4096);
  private count = 0;
  /** Called when the guest has taken all that was typed. */
  onTaken: (() => void) | null = null;
  private readonly send: (bytes: Uint8Array) => void;
  private readonly countUntaken: () => number;
  private readonly waiting = new Set<() => void>();

  constructor(send: (bytes: Uint8Array) => void, countUntaken: () => number) {
    this.send = send;
    this.countUntaken = countUntaken;
  }

  /** Bytes that were typed and that the guest has not taken. All are kept: who has many waits for `onTaken`. */
  get untaken(): number {
    return this.countUntaken();
  }

  /** Types into the guest's serial port. */
  write(data: string | Uint8Array): void {
    this.send(typeof data === 'string' ? this.encoder.encode(data) : data);
  }

  /** Characters that the guest has written: a position for `waitFor`. */
  get length(): number {
    return this.forgotten + this.text.length;
  }

  /** Resolves with the text up to and with the first match from a position on; rejects if the machine ends before. */
  waitFor(pattern: string | RegExp, from = 0): Promise<string> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const rest = this.text.slice(Math.max(0, from - this.forgotten));
        const match = typeof pattern === 'string' ? rest.indexOf(pattern) : rest.search(pattern);
        const length = typeof pattern === 'string' ? pattern.length : (pattern.exec(rest)?.[0].length ?? 0);
        if (match >= 0) {
          this.waiting.delete(look);
          resolve(rest.slice(0, match + length));
        } else if (this.closed !== null) {
          this.waiting.delete(look);
          reject(new Error(`the machine ended (${this.closed}) before ${String(pattern)} came`));
        }
      };
      this.waiting.add(look);
      look();
    });
  }

  private closed: string | null = null;

  /** @internal */
  writeByte(byte: number): void {
    this.pending[this.count++] = byte;
    if (this.count === this.pending.length) this.flush();
  }

  /** @internal */
  flush(): void {
    if (this.count === 0) return;
    const bytes = this.pending.slice(0, this.count);
    this.count = 0;
    this.onOutput?.(bytes);
    this.text += this.decoder.decode(bytes, { stream: true });
    if (this.text.length > 2 * MAX_TEXT) {
      this.forgotten += this.text.length - MAX_TEXT;
      this.text = this.text.slice(-MAX_TEXT);
    }
    // Each that is done leaves the set, which iteration allows.
    for (const look of this.waiting) look();
  }

  /** @internal */
  close(why: string): void {
    this.flush();
    this.closed = why;
    for (const look of this.waiting) look();
  }
}

/** A kernel's name beside a paging that it doesn't have. */
export class PolicyError extends Error {}

function mmuOf({ paging, policy = 'lazy' }: MachineOptions): Pick<PcOptions, 'paging' | 'policy' | 'kernelVersion'> {
  if (typeof policy !== 'string') return { paging: paging ?? 'tdp', policy };
  const preset = findPreset(policy);
  if (preset === undefined) return { paging: paging ?? 'tdp', policy: POLICIES[policy as PolicyName] };
  const own = preset.tdpMmu ? 'tdp-mmu' : 'tdp';
  const fits = paging === undefined || PAGINGS[paging].tdpMmu === preset.tdpMmu;
  if (!fits) throw new PolicyError(`${policy} has ${own} paging, not ${paging}`);
  return { paging: paging ?? own, policy: preset.policy, kernelVersion: preset.kernel };
}

export class Machine {
  readonly pc: Pc;
  readonly console: MachineConsole;
  readonly devices: AttachedDevices;
  /** Resolves when the machine has ended, with how. */
  readonly ended: Promise<PcEnd>;
  private readonly realtime: boolean;
  private readonly network: NetworkPort | null;
  private resolveEnded: (end: PcEnd) => void = () => {};
  private running = false;
  private pumping = false;
  private stopped = false;
  private wake: (() => void) | null = null;
  /** Real time: the host's clock at virtual time 0, ms. */
  private startedMs = 0;
  private commands = 0;
  /** Called between two slices; may throw, which ends the machine. */
  onSlice: (() => void) | null = null;
  /** Called when it stands still: for a debugger (`pc.stopped`), or after `pause`. */
  onPause: (() => void) | null = null;

  private constructor(options: MachineOptions) {
    const { hostLevel, nxHugePages, trace } = options;
    const { paging, policy, kernelVersion } = mmuOf(options);
    this.console = new MachineConsole(
      (bytes) => {
        (this.devices.terminal ?? this.pc.board.uart).receive(bytes);
        this.wake?.();
      },
      () => this.devices.terminal?.waiting.length ?? this.pc.board.uart.queueCount,
    );
    this.realtime = options.realtime ?? false;
    this.pc = new Pc({
      ramBytes: options.memory ?? 512 * 2 ** 20,
      cpu: parseCpuModel(options.cpu ?? 'max', paging !== 'shadow'),
      paging,
      cpus: options.cpus,
      quantum: options.quantum,
      seed: options.seed,
      policy,
      kernelVersion,
      console: this.console,
      epochS: options.epoch ?? Math.floor(Date.now() / 1000),
      hostLevel,
      nxHugePages,
      ringBytes: options.ringBytes,
      pml: options.pml,
      trace,
      countsAccesses: options.countsAccesses,
    });
    this.pc.waitsForClock = this.realtime;
    this.devices = attachDevices(this.pc, options, this.console);
    this.network = options.network ?? null;
    if (this.network !== null) this.network.onActivity = () => this.wake?.();
    const { kernel, initrd, cmdline = '', name } = options;
    const files = { kernel, initrd, cmdline, name };
    bootPc(this.pc, files);
    if (options.reboot === true) this.pc.onBoot = () => void bootPc(this.pc, files);
    if (options.dirtyLog === true) this.pc.setLogging(true);
    this.ended = new Promise((resolve) => {
      this.resolveEnded = resolve;
    });
  }

  /**
   * Loads a kernel and starts the machine. Throws a BootError for an image that can't be booted, a CpuModelError, a
   * PolicyError or a RangeError for options that can't be had.
   */
  // biome-ignore lint/suspicious/useAwait: what is wrong is to reject, not to throw.
  static async boot(options: MachineOptions): Promise<Machine> {
    const machine = new Machine(options);
    machine.start();
    return machine;
  }

  /** The same, not started: for a caller that wants to look at it first, or to run it by hand (`pc.run`). */
  static load(options: MachineOptions): Machine {
    return new Machine(options);
  }

  /** KVM's view of it: slots, dirty log, statistics, `verify()`. */
  get vm(): Vm {
    return this.pc.vm;
  }

  stats(): MachineStats {
    const { pc } = this;
    return {
      instructions: pc.instructions,
      ns: pc.board.clock.now,
      vm: Object.assign(new VmStats(), pc.vm.stats),
      vcpus: pc.cpus.map(({ unit }) => Object.assign(new VcpuStats(), unit.vcpu.stats)),
    };
  }

  start(): void {
    if (this.running || this.stopped) return;
    this.running = true;
    this.startedMs = hostMs() - this.pc.board.clock.now / NS_PER_MS;
    // One that was paused a moment ago still pumps.
    if (!this.pumping) void this.pump();
  }

  get isRunning(): boolean {
    return this.running;
  }

  /** Stops it between two instructions, soon (`onPause`); `start` goes on. */
  pause(): void {
    this.running = false;
    this.wake?.();
  }

  /** Ends it. */
  stop(): void {
    this.stopped = true;
    this.pause();
    this.finish(this.pc.end ?? { reason: 'halted', status: 0, message: 'stopped' });
  }

  /**
   * Runs a command line in the shell that waits at the console, and resolves when it has ended. The shell must be a
   * POSIX one; the command must not read from the console.
   */
  async exec(command: string): Promise<ExecResult> {
    const mark = `penumbra-${++this.commands}`;
    const from = this.console.length;
    // In two parts, so that the echo of the command line, which a shell may wrap, isn't taken for the answer.
    const begun = `"${mark.slice(0, 4)}""${mark.slice(4)}`;
    this.console.write(`echo ${begun}<"; ${command}; echo ${begun}:$?:"\n`);
    const text = await this.console.waitFor(new RegExp(`${mark}:(\\d+):`), from);
    const [, output = '', status = '0'] = new RegExp(`${mark}<\\r?\\n([^]*?)${mark}:(\\d+):`).exec(text) ?? [];
    return { output: output.replaceAll('\r\n', '\n'), status: Number(status) };
  }

  private finish(end: PcEnd): void {
    this.running = false;
    this.network?.close();
    this.console.close(end.reason);
    this.resolveEnded(end);
  }

  private async pump(): Promise<void> {
    const { pc } = this;
    this.pumping = true;
    try {
      while (this.running) {
        if (this.realtime) pc.catchUp((hostMs() - this.startedMs) * NS_PER_MS);
        pc.waitsForClock = this.realtime || this.waitsForHost;
        pc.run(this.realtime ? REALTIME_SLICE : SLICE);
        this.console.flush();
        if (this.console.untaken === 0) this.console.onTaken?.();
        this.onSlice?.();
        if (pc.end !== null) return this.finish(pc.end);
        if (pc.stopped !== null) this.running = false;
        else if (pc.isIdle) await this.sleep();
        else await nextTurn();
      }
    } catch (error) {
      // Ours, not the guest's: nobody else would see it.
      return this.finish({
        reason: 'failed',
        status: 2,
        message: `unexpected ${String((error as Error).stack ?? error)}`,
      });
    } finally {
      this.pumping = false;
    }
    if (!this.stopped) this.onPause?.();
  }

  /** What comes over a connection comes in the host's time: as long as there is one, a guest that halts waits in it. */
  private get waitsForHost(): boolean {
    return (this.devices.net?.connectionCount ?? 0) > 0;
  }

  /** Until the next timer is due, or input comes. */
  private sleep(): Promise<void> {
    const { clock } = this.pc.board;
    const begunMs = hostMs();
    const waits = this.waitsForHost && !this.realtime;
    const ms = this.untilMs(clock.nextDeadline, clock.now, waits);
    return new Promise((resolve) => {
      const done = (): void => {
        if (waits) this.pc.catchUp(clock.now + (hostMs() - begunMs) * NS_PER_MS);
        HOST.clearTimeout(timer);
        this.wake = null;
        resolve();
      };
      const timer = HOST.setTimeout(done, Math.min(Math.max(ms, 0), MAX_WAIT_MS));
      this.wake = done;
    });
  }

  /** How long to wait for a timer that is due then. */
  private untilMs(due: number, now: number, waits: boolean): number {
    if (waits) return (due - now) / NS_PER_MS;
    if (this.realtime) return due / NS_PER_MS - (hostMs() - this.startedMs);
    return due === Infinity ? MAX_WAIT_MS : 0;
  }
}
