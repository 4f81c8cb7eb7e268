/**
 * A PC: CPUs of `cpu/`, their memory through `mmu/`, the devices of `dev/`, and the loop that gives all of them time.
 *
 *     PcCpu: cpu.run -- address --> MemoryUnit       time = retired instructions + what was skipped while all CPUs halted,
 *               |------ port, MMIO, MSR --> Board           one instruction a nanosecond, one TSC tick a nanosecond
 *               '------ ends: its turn, a timer is due, HLT, hypercall, the run is over
 *
 * Deterministic: with the same image, options and input the same instructions happen, whatever the host does. In real time
 * the loop's owner moves the clock (`catchUp`) and waits while `isIdle`.
 */
import type { ByteSink } from '../../dev/uart-16550.ts';
import { Board } from '../../dev/board.ts';
import { MAX_VIEW_BYTES } from '../../dev/guest-memory.ts';
import { BOOT, DEBUG_EXIT, POWER_OFF, RESET, RUNNING } from '../../dev/power.ts';
import { EXIT_DEBUG, EXIT_HALT, EXIT_HYPERCALL, EXIT_PAUSE, EXIT_SHUTDOWN, EXIT_UNSUPPORTED } from '../../cpu/bus.ts';
import type { Cpu } from '../../cpu/cpu.ts';
import type { DebugCause } from '../../cpu/host-debug.ts';
import { type Layout, layoutAt, layoutBeside, RAX } from '../../cpu/state.ts';
import { FLAT_HVA, FlatHost } from '../../mem/flat-host.ts';
import { writeGuest } from '../../mmu/guest-memory.ts';
import type { KernelVersion } from '../../mmu/kernel-version.ts';
import type { Policy } from '../../mmu/policy.ts';
import type { Tracer } from '../../trace/tracer.ts';
import { CAP_DIRTY_LOG_RING, Vm } from '../vm.ts';
import type { CpuDescription } from './cpuid.ts';
import { mapRom, writeFirmware } from './firmware.ts';
import { GuestDma } from './guest-dma.ts';
import { hypercall } from './hypercall.ts';
import type { MemoryUnit } from './memory-unit.ts';
import { MP_HALTED, MP_RUNNABLE, PcCpu, type PcCpuOptions } from './pc-cpu.ts';
import { describeRegisters } from './registers.ts';
import { QUANTUM, Turns } from './turns.ts';

/**
 * `tdp`: nested paging (AMD's NPT) by the rmap-based engine; `tdp-mmu`: by the TDP MMU. `ept`, `ept-tdp-mmu`: the same in
 * Intel's format, with A and D; `ept-no-ad`, `ept-no-ad-tdp-mmu`: without. `shadow`: shadow paging.
 */
export const PAGINGS = {
  tdp: { npt: true, tdpMmu: false, ept: null },
  'tdp-mmu': { npt: true, tdpMmu: true, ept: null },
  ept: { npt: true, tdpMmu: false, ept: { ad: true, executeOnly: true } },
  'ept-tdp-mmu': { npt: true, tdpMmu: true, ept: { ad: true, executeOnly: true } },
  'ept-no-ad': { npt: true, tdpMmu: false, ept: { ad: false, executeOnly: true } },
  'ept-no-ad-tdp-mmu': { npt: true, tdpMmu: true, ept: { ad: false, executeOnly: true } },
  shadow: { npt: false, tdpMmu: false, ept: null },
} as const;

export type PagingName = keyof typeof PAGINGS;

export interface PcOptions {
  /** RAM, whole MiB. */
  readonly ramBytes: number;
  readonly cpu: CpuDescription;
  readonly paging: PagingName;
  /** How many CPUs; one if absent. */
  readonly cpus?: number;
  /** Of several CPUs: instructions of a turn, and the seed of what turns differ by. */
  readonly quantum?: number;
  readonly seed?: number;
  readonly policy?: Policy;
  /** Whose MMU it is; Linux 6.1's if absent. */
  readonly kernelVersion?: KernelVersion;
  /** What the guest sends on its serial port. */
  readonly console: ByteSink;
  /** Time of day at power-on, UTC, in seconds since 1970. */
  readonly epochS: number;
  /** Of the host's mappings of RAM: 1 (4 KiB), 2 (2 MiB), 3 (1 GiB). */
  readonly hostLevel?: 1 | 2 | 3;
  readonly nxHugePages?: boolean;
  /** Page-modification logging: the CPU itself finds out what is written. EPT with A and D only. */
  readonly pml?: boolean;
  /** Bytes of the dirty ring; a bitmap if absent. */
  readonly ringBytes?: number;
  readonly trace?: Tracer;
  /** The CPUs count their loads and stores, which costs time: for a recording. */
  readonly countsAccesses?: boolean;
}

/** How a machine ended. */
export interface PcEnd {
  readonly reason: 'power-off' | 'reset' | 'debug-exit' | 'halted' | 'shutdown' | 'failed';
  /** Of a debug exit: (value << 1) | 1. */
  readonly status: number;
  /** One line; for the last three reasons the registers follow. */
  readonly message: string;
}

/** It has ended, but by nothing that the guest wanted. */
export function hasCrashed({ reason, status }: PcEnd): boolean {
  return reason === 'failed' || reason === 'shutdown' || (reason === 'halted' && status !== 0);
}

/** Who looks at a machine between two turns. */
export interface TurnObserver {
  /** Instructions, of all CPUs together, until it wants to look again. */
  readonly left: number;
  look(): void;
}

/** Why a debugger has the machine. */
export interface PcStop {
  readonly cpu: PcCpu;
  readonly cause: DebugCause;
}

const MIB = 2 ** 20;
const MIN_RAM_BYTES = 2 * MIB;
/** WebAssembly's memories end at 4 GiB; devices begin at 3 GiB. */
export const MAX_RAM_BYTES = 3072 * MIB;
const WASM_PAGE = 65536;
const LAYOUT_BASE = 64;
/** One tick a nanosecond: a tick is an instruction. */
const TSC_KHZ = 1e6;
/** What a halt takes of a slice, so that a guest that only sleeps gives way too. */
const HALT_COST = 1000;
/** Of a reset, and of a boot: what could be copied meanwhile, the kernel not least. */
const RESET_BYTES = 8 * MIB;

export const MAX_CPUS = 8;

export class Pc {
  readonly vm: Vm;
  readonly board: Board;
  readonly cpus: readonly PcCpu[];
  readonly ramBytes: number;
  /** The guest's memory, by guest-physical address. */
  readonly ram: Uint8Array;
  /** The devices' way to it. */
  readonly dma: GuestDma;
  end: PcEnd | null = null;
  /** What a debugger waited for has happened (`debugger.ts`): nothing runs until it has taken this away. */
  stopped: PcStop | null = null;
  /** Cuts runs where a recording has its borders. */
  recorder: TurnObserver | null = null;
  /** Loads the kernel again, when the machine was reset or firmware asks for it; without it that is the machine's end. */
  onBoot: (() => void) | null = null;
  /** All CPUs are halted, with nothing to wake one before `board.clock.nextDeadline`. */
  isIdle = false;
  /** In real time halted CPUs wait for the clock; in virtual time the clock goes on at once. */
  waitsForClock = false;

  readonly turns: Turns;

  constructor(options: PcOptions) {
    const { ramBytes, cpus = 1 } = options;
    if (!(cpus >= 1 && cpus <= MAX_CPUS)) throw new RangeError(`${cpus} CPUs: there can be 1 to ${MAX_CPUS}`);
    const layouts = layoutsOf(cpus);
    const ramBase = Math.ceil(layouts[cpus - 1].end / WASM_PAGE) * WASM_PAGE;
    const memory = allocate(ramBase, ramBytes);
    this.ramBytes = ramBytes;
    this.ram = new Uint8Array(memory.buffer, ramBase, ramBytes);
    const host = new FlatHost({ bytes: ramBytes, level: options.hostLevel ?? 2, contents: this.ram });
    const { paging, policy, kernelVersion: kernel, nxHugePages, trace } = options;
    const { npt, tdpMmu, ept } = PAGINGS[paging];
    const pml = options.pml === true;
    if (pml && ept?.ad !== true) throw new RangeError(`${paging} has no page-modification logging`);
    this.vm = new Vm({
      host,
      npt,
      tdpMmu,
      ept: ept === null ? undefined : { ...ept, pml },
      policy,
      kernel,
      nxHugePages,
      trace,
    });
    if (options.ringBytes !== undefined) this.vm.enableCap(CAP_DIRTY_LOG_RING, options.ringBytes);
    this.setLogging(false);
    this.board = new Board({
      ramBytes,
      cpus,
      epochS: options.epochS,
      console: options.console,
      memory: { writeGuest: (gpa, bytes) => this.writeGuest(gpa, bytes) },
      flusher: { flushPage: (gpa) => this.flushPage(gpa) },
      tscKhz: TSC_KHZ,
      x2apic: options.cpu.features.has('x2apic'),
    });
    this.cpus = makeCpus(layouts, {
      cpus,
      vm: this.vm,
      board: this.board,
      model: options.cpu,
      memory,
      ramBase,
      countsAccesses: options.countsAccesses ?? false,
    });
    this.turns = new Turns(this.cpus, options.quantum ?? QUANTUM, options.seed ?? 1);
    this.dma = new GuestDma({
      ram: this.ram,
      mmu: this.vm.mmu,
      makeRoomInRing: () => this.turns.active.unit.makeRoomInRing(),
      invalidateCode: (offset) => this.cpu.code.invalidate(this.ram.byteOffset + offset),
    });
    this.writeFirmware();
  }

  /** The host's own write to memory, of which its log and the CPUs hear; what is left of `room` bytes becomes zero. */
  write(gpa: number, bytes: Uint8Array, room = bytes.length): void {
    for (let at = 0; at < room; at += MAX_VIEW_BYTES) {
      const view = this.dma.writable(gpa + at, Math.min(MAX_VIEW_BYTES, room - at));
      if (view === null) throw new RangeError(`no memory at gpa 0x${(gpa + at).toString(16)}`);
      const part = bytes.subarray(at, at + view.length);
      view.set(part);
      view.fill(0, part.length);
    }
  }

  private writeFirmware(): void {
    writeFirmware((gpa, bytes) => this.write(gpa, bytes));
    mapRom(this.vm);
  }

  /** The boot processor's. */
  get cpu(): Cpu {
    return this.cpus[0].cpu;
  }

  /** The boot processor's. */
  get unit(): MemoryUnit {
    return this.cpus[0].unit;
  }

  /** Starts or stops the dirty log of all memory, as KVM_SET_USER_MEMORY_REGION does. */
  setLogging(on: boolean): void {
    this.vm.setUserMemoryRegion({
      slot: 0,
      flags: on ? 1 : 0,
      guestPhysAddr: 0,
      memorySize: this.ramBytes,
      userspaceAddr: FLAT_HVA,
    });
  }

  // ---- running -----------------------------------------------------------------------------------------------------

  /**
   * Runs for about so many instructions; less if the machine ends (`end`), stops (`stopped`), has nothing to do (`isIdle`), or keeps
   * the host busy without them.
   */
  run(instructions: number): void {
    const { turns } = this;
    const { workload } = this.board;
    let left = instructions;
    workload.bytes = 0;
    this.isIdle = false;
    while (left > 0 && this.end === null && this.stopped === null && !workload.isHigh) {
      if (turns.left <= 0 && !turns.next()) {
        if (!this.wake()) return;
        continue;
      }
      const { recorder } = this;
      left -= this.runTurn(turns.active, recorder === null ? left : Math.min(left, recorder.left));
      recorder?.look();
    }
  }

  /** A piece of a turn. What it takes of a run of `most` instructions. */
  private runTurn(active: PcCpu, most: number): number {
    const { turns, board } = this;
    const { cpu, unit } = active;
    if (unit.vcpu.requests !== 0) unit.serveRequests();
    active.lookForEvents();
    const now = active.now();
    const untilTimer = (board.clock.nextDeadline - now) * turns.sharers;
    const { hostDebug } = cpu;
    const budget = hostDebug.singleStep ? 1 : Math.max(1, Math.min(most, turns.left, untilTimer));
    active.runEnds = now + budget / turns.sharers;
    const before = cpu.retired;
    const exit = cpu.run(budget);
    const taken = cpu.retired - before;
    turns.left -= taken;
    unit.tellWritten();
    // Whatever ended the run, the CPU has left the guest.
    unit.flushPml();
    board.clock.advanceTo(active.now());
    this.handle(active, exit);
    if (exit === EXIT_DEBUG) this.stopped = { cpu: active, cause: hostDebug.cause };
    else if (hostDebug.singleStep && taken > 0) this.stopped = { cpu: active, cause: 'step' };
    if (active.device.apic.initPending) active.acceptApicEvents();
    if (exit === EXIT_PAUSE) turns.endAtPause();
    else if (turns.left <= 0 || active.mpState !== MP_RUNNABLE) turns.end();
    return exit === EXIT_HALT ? taken + HALT_COST : taken;
  }

  /** Retired instructions, of all CPUs. */
  get instructions(): number {
    let sum = 0;
    for (const { cpu } of this.cpus) sum += cpu.retired;
    return sum;
  }

  /** Real time: moves the clock to `ns` since power-on, if it is behind; timers fire. */
  catchUp(ns: number): void {
    const { active } = this.turns;
    const now = active.now();
    // Whole nanoseconds, as the TSC counts them.
    if (ns > now) active.skip(Math.floor(ns - now));
    this.board.clock.advanceTo(active.now());
  }

  /** Virtual time since power-on, also in the middle of a run. */
  get nowNs(): number {
    return this.turns.active.nowNs;
  }

  private handle(active: PcCpu, exit: number): void {
    const { board } = this;
    const { cpu, unit } = active;
    if (exit === EXIT_HALT) active.mpState = MP_HALTED;
    else if (exit === EXIT_HYPERCALL) {
      unit.countExit();
      const answer = hypercall(cpu, board.apicBus);
      cpu.state.setPair(RAX, answer, answer >> 31);
      active.exitsAtPause(true);
    } else if (unit.failure !== null) this.finish('failed', unit.failure.message, active);
    else if (exit === EXIT_SHUTDOWN && this.onBoot === null) this.finish('shutdown', 'triple fault', active);
    else if (exit === EXIT_SHUTDOWN) board.power.ask(RESET);
    else if (exit === EXIT_UNSUPPORTED) this.finish('failed', `not built: ${cpu.unsupported}`, active);
    const { request, status } = board.power;
    if (this.end !== null || request === RUNNING) return;
    if (request === POWER_OFF) this.end = { reason: 'power-off', status: 0, message: 'powered off' };
    else if (this.onBoot !== null && request === RESET) this.reset();
    else if (this.onBoot !== null && request === BOOT) this.boot(this.onBoot);
    else if (request === RESET || request === BOOT) this.end = { reason: 'reset', status: 0, message: 'reset' };
    else if (request === DEBUG_EXIT)
      this.end = { reason: 'debug-exit', status, message: `debug exit, status ${status}` };
  }

  /** All of the machine but what memory holds; the boot processor begins at its reset vector. */
  private reset(): void {
    this.board.workload.bytes += RESET_BYTES;
    this.board.reset();
    this.board.systemControl.reset();
    this.writeFirmware();
    for (const cpu of this.cpus) cpu.powerOn();
    this.turns.end();
  }

  /** What firmware does before it loads a kernel: its self-test leaves devices and processors fresh. */
  private boot(load: () => void): void {
    this.board.workload.bytes += RESET_BYTES;
    this.board.reset();
    mapRom(this.vm);
    for (const cpu of this.cpus) cpu.reset();
    load();
    this.turns.end();
  }

  private finish(reason: 'halted' | 'shutdown' | 'failed', message: string, { cpu, index }: PcCpu): void {
    const which = this.cpus.length > 1 ? `CPU ${index}: ` : '';
    this.end = { reason, status: 2, message: `${which}${message}\n${describeRegisters(cpu)}` };
  }

  /** No CPU can go on: false if they stay so and the owner is to wait. */
  private wake(): boolean {
    const { clock } = this.board;
    const { active } = this.turns;
    if (this.cpus.every((cpu) => cpu.isStuck)) {
      this.finish('halted', 'halted with interrupts off', active);
      return false;
    }
    for (let fired = 0; ; fired++) {
      if (clock.nextDeadline === Infinity || this.waitsForClock || fired === 100 || this.board.workload.isHigh) {
        this.isIdle = true;
        return false;
      }
      active.skip(Math.max(0, clock.nextDeadline - active.now()));
      clock.advanceTo(active.now());
      if (this.cpus.some((cpu) => !cpu.isHeld && cpu.isRunnable())) return true;
    }
  }

  // ---- the host's side ---------------------------------------------------------------------------------------------

  /** KVM writes into guest memory; false: there is none. */
  private writeGuest(gpa: number, bytes: Uint8Array): boolean {
    const { mmu } = this.vm;
    for (let done = 0; done < bytes.length; ) {
      const at = gpa + done;
      const count = Math.min(8, bytes.length - done, 4096 - (at % 4096));
      mmu.bytes.set(bytes.subarray(done, done + count));
      if (!writeGuest(mmu, this.turns.active.unit.vcpu, Math.floor(at / 4096), at % 4096, count)) return false;
      this.cpu.code.invalidate(this.ram.byteOffset + at);
      done += count;
    }
    return true;
  }

  /** The host takes a page's mapping away, and gives it back at the next touch. */
  private flushPage(gpa: number): void {
    if (gpa >= this.ramBytes) return;
    const hva = FLAT_HVA + gpa - (gpa % 4096);
    const { notifier } = this.vm.mmu.host;
    notifier?.invalidateRangeStart(hva, hva + 4096);
    notifier?.invalidateRangeEnd(hva, hva + 4096);
  }
}

function allocate(ramBase: number, ramBytes: number): WebAssembly.Memory {
  if (ramBytes < MIN_RAM_BYTES || ramBytes > MAX_RAM_BYTES || ramBytes % MIB !== 0)
    throw new RangeError(
      `${ramBytes} bytes of memory: it must be whole MiB, from ${MIN_RAM_BYTES / MIB} to ${MAX_RAM_BYTES / MIB}`,
    );
  return new WebAssembly.Memory({ initial: (ramBase + ramBytes) / WASM_PAGE });
}

function layoutsOf(cpus: number): Layout[] {
  const first = layoutAt(LAYOUT_BASE);
  const layouts = [first];
  while (layouts.length < cpus) {
    const { end } = layouts[layouts.length - 1];
    layouts.push(layoutBeside(first, Math.ceil(end / LAYOUT_BASE) * LAYOUT_BASE));
  }
  return layouts;
}

function makeCpus(layouts: readonly Layout[], common: Omit<PcCpuOptions, 'index' | 'layout' | 'first'>): PcCpu[] {
  const made: PcCpu[] = [];
  for (const [index, layout] of layouts.entries())
    made.push(new PcCpu({ ...common, index, layout, first: made[0] ?? null }));
  return made;
}
