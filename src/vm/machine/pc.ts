/**
 * A PC with one CPU: the CPU of `cpu/`, its memory through `mmu/`, the devices of `dev/`, and the loop that gives them time.
 *
 *     cpu.run -- address --> MemoryUnit          time = retired instructions + what was skipped while the CPU was halted,
 *        |------ port, MMIO, MSR --> Board              one instruction a nanosecond, one TSC tick a nanosecond
 *        '------ ends: a timer is due, HLT, hypercall, the run is over
 *
 * Deterministic: with the same image, options and input the same instructions happen, whatever the host does. In real time
 * the loop's owner moves the clock (`catchUp`) and waits while `isIdle`.
 */
import type { ByteSink } from '../../dev/uart-16550.ts';
import { Board } from '../../dev/board.ts';
import { DEBUG_EXIT, POWER_OFF, RESET, RUNNING } from '../../dev/power.ts';
import {
  MSR_KVM_SYSTEM_TIME,
  MSR_KVM_SYSTEM_TIME_NEW,
  MSR_KVM_WALL_CLOCK,
  MSR_KVM_WALL_CLOCK_NEW,
} from '../../dev/kvm-clock.ts';
import {
  type Bus,
  CR_EFER,
  EXIT_HALT,
  EXIT_HYPERCALL,
  EXIT_SHUTDOWN,
  EXIT_UNSUPPORTED,
  NO_FAULT,
  type Translation,
} from '../../cpu/bus.ts';
import { Cpu } from '../../cpu/cpu.ts';
import { CPL, CR4, CR8, layoutAt, RAX, TSC_OFFSET } from '../../cpu/state.ts';
import { FLAT_HVA, FlatHost } from '../../mem/flat-host.ts';
import { writeGuest } from '../../mmu/guest-memory.ts';
import { invlpg } from '../../mmu/inject.ts';
import type { Policy } from '../../mmu/policy.ts';
import type { Tracer } from '../../trace/tracer.ts';
import { invpcid, setCr0, setCr3, setCr4, setEfer } from '../control-registers.ts';
import { CAP_DIRTY_LOG_RING, Vm } from '../vm.ts';
import { Cpuid, type CpuDescription } from './cpuid.ts';
import { hypercall } from './hypercall.ts';
import { MemoryUnit } from './memory-unit.ts';
import { Msrs } from './msrs.ts';
import { describeRegisters } from './registers.ts';

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
  readonly policy?: Policy;
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
}

/** How a machine ended. */
export interface PcEnd {
  readonly reason: 'power-off' | 'reset' | 'debug-exit' | 'halted' | 'shutdown' | 'failed';
  /** Of a debug exit: (value << 1) | 1. */
  readonly status: number;
  /** One line; for the last three reasons the registers follow. */
  readonly message: string;
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

const VECTOR_GP = 13;
const MSR_TSC = 0x10;
const MSR_APIC_BASE = 0x1b;
const MSR_TSC_DEADLINE = 0x6e0;
const MSR_X2APIC_FIRST = 0x800;
const MSR_X2APIC_LAST = 0x8ff;

export class Pc implements Bus {
  readonly vm: Vm;
  readonly unit: MemoryUnit;
  readonly cpu: Cpu;
  readonly board: Board;
  readonly cpuidTable: Cpuid;
  readonly ramBytes: number;
  /** The guest's memory, by guest-physical address. */
  readonly ram: Uint8Array;
  end: PcEnd | null = null;
  /** Halted, with nothing to wake it before `board.clock.nextDeadline`. */
  isIdle = false;
  /** In real time a halted CPU waits for the clock; in virtual time the clock goes on at once. */
  waitsForClock = false;

  private readonly msrs = new Msrs();
  /** Virtual time minus retired instructions, ns. */
  private skipped = 0;
  /** Virtual time at which the CPU's present run ends. */
  private runEnds = 0;

  constructor(options: PcOptions) {
    const { ramBytes } = options;
    const layout = layoutAt(LAYOUT_BASE);
    const ramBase = Math.ceil(layout.end / WASM_PAGE) * WASM_PAGE;
    const memory = allocate(ramBase, ramBytes);
    this.ramBytes = ramBytes;
    this.ram = new Uint8Array(memory.buffer, ramBase, ramBytes);
    const host = new FlatHost({ bytes: ramBytes, level: options.hostLevel ?? 2, contents: this.ram });
    const { paging, policy, nxHugePages, trace } = options;
    const { npt, tdpMmu, ept } = PAGINGS[paging];
    const pml = options.pml === true;
    if (pml && ept?.ad !== true) throw new RangeError(`${paging} has no page-modification logging`);
    this.vm = new Vm({
      host,
      npt,
      tdpMmu,
      ept: ept === null ? undefined : { ...ept, pml },
      policy,
      nxHugePages,
      trace,
    });
    if (options.ringBytes !== undefined) this.vm.enableCap(CAP_DIRTY_LOG_RING, options.ringBytes);
    this.setLogging(false);
    this.unit = new MemoryUnit(this.vm.mmu, 0, ramBase);
    this.cpuidTable = new Cpuid(options.cpu, 1, 0);
    this.board = new Board({
      ramBytes,
      cpus: 1,
      epochS: options.epochS,
      console: options.console,
      memory: { writeGuest: (gpa, bytes) => this.writeGuest(gpa, bytes) },
      flusher: { flushPage: (gpa) => this.flushPage(gpa) },
      tscKhz: TSC_KHZ,
      x2apic: options.cpu.features.has('x2apic'),
    });
    this.cpu = new Cpu(memory, layout, this);
    this.cpu.useCpuid();
    this.unit.connect(this.cpu);
    this.unit.regs.cr4Allowed = this.cpu.cr4Allowed;
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

  /** Runs for about so many instructions; less if the machine ends (`end`) or has nothing to do (`isIdle`). */
  run(instructions: number): void {
    const { cpu, unit, board } = this;
    let left = instructions;
    this.isIdle = false;
    while (left > 0 && this.end === null) {
      if (unit.vcpu.requests !== 0) unit.serveRequests();
      this.lookForEvents();
      const now = this.now();
      const budget = Math.max(1, Math.min(left, board.clock.nextDeadline - now));
      this.runEnds = now + budget;
      const before = cpu.retired;
      const exit = cpu.run(budget);
      left -= cpu.retired - before;
      unit.tellWritten();
      // Whatever ended the run, the CPU has left the guest.
      unit.flushPml();
      board.clock.advanceTo(this.now());
      this.handle(exit);
      if (exit === EXIT_HALT && this.end === null) {
        this.lookForEvents();
        left -= HALT_COST;
        if (!this.wake()) return;
      }
    }
  }

  /** Retired instructions. */
  get instructions(): number {
    return this.cpu.retired;
  }

  /** Real time: moves the clock to `ns` since power-on, if it is behind; timers fire. */
  catchUp(ns: number): void {
    const now = this.now();
    // Whole nanoseconds, as the TSC counts them.
    if (ns > now) this.skip(Math.floor(ns - now));
    this.board.clock.advanceTo(this.now());
  }

  /** Virtual time since power-on, also in the middle of a run. */
  get nowNs(): number {
    return this.skipped + this.cpu.nowInCall;
  }

  private now(): number {
    return this.skipped + this.cpu.retired;
  }

  private skip(ns: number): void {
    this.skipped += ns;
    this.tellTsc();
  }

  private tellTsc(): void {
    const { tsc } = this.board.cpus[0];
    const offset = (BigInt(tsc.offsetHi) << 32n) | BigInt(tsc.offsetLo >>> 0);
    this.cpu.state.setBig(TSC_OFFSET, offset + BigInt(this.skipped));
  }

  private handle(exit: number): void {
    const { cpu, unit, board } = this;
    if (exit !== EXIT_HALT && exit !== EXIT_HYPERCALL && unit.failure !== null)
      this.finish('failed', unit.failure.message);
    else if (exit === EXIT_SHUTDOWN) this.finish('shutdown', 'triple fault');
    else if (exit === EXIT_UNSUPPORTED) this.finish('failed', `not built: ${cpu.unsupported}`);
    else if (exit === EXIT_HYPERCALL) {
      unit.countExit();
      const answer = hypercall(cpu.state.get(RAX), cpu.state.get(CPL));
      cpu.state.setPair(RAX, answer, answer >> 31);
    }
    const { request, status } = board.power;
    if (this.end !== null || request === RUNNING) return;
    if (request === POWER_OFF) this.end = { reason: 'power-off', status: 0, message: 'powered off' };
    else if (request === RESET) this.end = { reason: 'reset', status: 0, message: 'reset' };
    else if (request === DEBUG_EXIT)
      this.end = { reason: 'debug-exit', status, message: `debug exit, status ${status}` };
  }

  private finish(reason: 'halted' | 'shutdown' | 'failed', message: string): void {
    this.end = { reason, status: 2, message: `${message}\n${describeRegisters(this.cpu)}` };
  }

  /** After HLT: false if the CPU stays halted and the owner is to wait. RIP is behind the HLT already. */
  private wake(): boolean {
    const { cpu, board } = this;
    const { clock, cpus } = board;
    for (let fired = 0; ; fired++) {
      if (cpus[0].apic.nmiPending || this.nmiGiven) return true;
      if (cpu.interruptible && cpus[0].apic.interruptPending()) return true;
      if (!cpu.interruptible && !cpu.shadowed) {
        this.finish('halted', 'halted with interrupts off');
        return false;
      }
      if (clock.nextDeadline === Infinity || this.waitsForClock || fired === 100) {
        this.isIdle = true;
        return false;
      }
      this.skip(Math.max(0, clock.nextDeadline - this.now()));
      clock.advanceTo(this.now());
      this.lookForEvents();
    }
  }

  // ---- events ------------------------------------------------------------------------------------------------------

  private nmiGiven = false;

  private lookForEvents(): void {
    const { apic } = this.board.cpus[0];
    this.cpu.setInterruptLine(apic.interruptPending());
    this.nmiGiven = false;
    if (!apic.nmiPending) return;
    apic.nmiPending = false;
    this.nmiGiven = true;
    this.cpu.injectNmi();
  }

  acknowledgeInterrupt(): number {
    const { apic } = this.board.cpus[0];
    const vector = apic.acknowledge();
    this.cpu.setInterruptLine(apic.interruptPending());
    return vector;
  }

  /** Devices see the time of the instruction that speaks to them. */
  private beforeDevice(): void {
    this.unit.countExit();
    this.board.clock.advanceTo(this.nowNs);
  }

  /** What the access changed may be for the CPU to see. */
  private afterDevice(): void {
    const { board, cpu } = this;
    const { apic } = board.cpus[0];
    cpu.setInterruptLine(apic.interruptPending());
    if (apic.nmiPending || board.power.request !== RUNNING || board.clock.nextDeadline < this.runEnds)
      cpu.requestExit();
  }

  // ---- the bus -----------------------------------------------------------------------------------------------------

  translate(lo: number, hi: number, access: number, out: Translation): number {
    return this.unit.translate(lo, hi, access, out);
  }

  mmioRead(gpaLo: number, gpaHi: number, bytes: number): bigint {
    this.beforeDevice();
    const gpa = gpaOf(gpaLo, gpaHi);
    const { board } = this;
    const { apic } = board.cpus[0];
    if (apic.covers(gpa)) return BigInt(apic.mmioRead(gpa, bytes) >>> 0);
    const low = BigInt(board.mmio.read(gpa, bytes) >>> 0);
    const value = bytes === 8 ? low | (BigInt(board.mmio.readHi >>> 0) << 32n) : low;
    this.afterDevice();
    return value;
  }

  mmioWrite(gpaLo: number, gpaHi: number, bytes: number, value: bigint): void {
    this.beforeDevice();
    const gpa = gpaOf(gpaLo, gpaHi);
    const { board } = this;
    const { apic } = board.cpus[0];
    const lo = Number(BigInt.asIntN(32, value));
    if (apic.covers(gpa)) {
      apic.mmioWrite(gpa, bytes, lo);
      this.cpu.state.set(CR8, apic.cr8());
    } else board.mmio.write(gpa, bytes, lo, Number(BigInt.asIntN(32, value >> 32n)));
    this.afterDevice();
  }

  portIn(port: number, bytes: number): number {
    this.beforeDevice();
    const value = this.board.ports.read(port, bytes);
    this.afterDevice();
    return value;
  }

  portOut(port: number, bytes: number, value: number): void {
    this.beforeDevice();
    this.board.ports.write(port, bytes, value);
    this.afterDevice();
  }

  readMsr(index: number): bigint | null {
    this.beforeDevice();
    const { apic, kvmClock } = this.board.cpus[0];
    if (isApicMsr(index)) return apic.readMsr(index) ? word64(apic.msrLo, apic.msrHi) : null;
    if (isClockMsr(index)) return kvmClock.readMsr(index) ? word64(kvmClock.msrLo, kvmClock.msrHi) : null;
    return this.msrs.read(index);
  }

  writeMsr(index: number, value: bigint): boolean {
    this.beforeDevice();
    const { apic, kvmClock } = this.board.cpus[0];
    const lo = Number(BigInt.asIntN(32, value));
    const hi = Number(BigInt.asIntN(32, value >> 32n));
    if (index === MSR_TSC) {
      this.board.writeTsc(0, lo, hi);
      this.tellTsc();
      this.afterDevice();
      return true;
    }
    if (isClockMsr(index)) return kvmClock.writeMsr(index, lo, hi);
    if (!isApicMsr(index)) return this.msrs.write(index, value);
    if (!apic.writeMsr(index, lo, hi)) return false;
    this.cpu.state.set(CR8, apic.cr8());
    this.afterDevice();
    return true;
  }

  cpuid(leaf: number, subleaf: number): readonly [number, number, number, number] {
    this.unit.countExit();
    const { apic } = this.board.cpus[0];
    return this.cpuidTable.answer(leaf, subleaf, this.cpu.state.get(CR4), apic.isEnabled());
  }

  controlWrite(number: number, lo: number, hi: number): number {
    const { unit, vm } = this;
    const { vcpu, regs } = unit;
    unit.tellWritten();
    switch (number) {
      case 0:
        return setCr0(vm.mmu, vcpu, regs, lo, hi) ? NO_FAULT : VECTOR_GP;
      case 3:
        return vm.mmu.tdp || setCr3(vm.mmu, vcpu, regs, lo, hi) ? NO_FAULT : VECTOR_GP;
      case 4:
        return setCr4(vm.mmu, vcpu, regs, lo, hi) ? NO_FAULT : VECTOR_GP;
      case CR_EFER:
        setEfer(vm.mmu, vcpu, regs, lo);
        return NO_FAULT;
      default:
        return NO_FAULT;
    }
  }

  controlWritten(number: number): void {
    if (number !== 8) return;
    const { apic } = this.board.cpus[0];
    apic.setCr8(this.cpu.state.get(CR8));
    this.afterDevice();
  }

  invalidatePage(lo: number, hi: number): boolean {
    const { unit, vm } = this;
    unit.tellWritten();
    if (vm.mmu.tdp) return unit.hasLargePage(lo, hi);
    invlpg(vm.mmu, unit.vcpu, lo, hi);
    return false;
  }

  invalidatePcid(type: number, pcid: number, lo: number, hi: number): boolean {
    const { unit, vm } = this;
    unit.tellWritten();
    if (!vm.mmu.tdp) invpcid(vm.mmu, unit.vcpu, unit.regs, type, pcid, lo, hi);
    return true;
  }

  codePage(): void {}

  // ---- the host's side ---------------------------------------------------------------------------------------------

  /** KVM writes into guest memory; false: there is none. */
  private writeGuest(gpa: number, bytes: Uint8Array): boolean {
    const { mmu } = this.vm;
    for (let done = 0; done < bytes.length; ) {
      const at = gpa + done;
      const count = Math.min(8, bytes.length - done, 4096 - (at % 4096));
      mmu.bytes.set(bytes.subarray(done, done + count));
      if (!writeGuest(mmu, this.unit.vcpu, Math.floor(at / 4096), at % 4096, count)) return false;
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

const gpaOf = (lo: number, hi: number): number => hi * 4294967296 + (lo >>> 0);
const word64 = (lo: number, hi: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

function isApicMsr(index: number): boolean {
  return (
    index === MSR_APIC_BASE || index === MSR_TSC_DEADLINE || (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST)
  );
}

function isClockMsr(index: number): boolean {
  return (
    index === MSR_KVM_SYSTEM_TIME ||
    index === MSR_KVM_SYSTEM_TIME_NEW ||
    index === MSR_KVM_WALL_CLOCK ||
    index === MSR_KVM_WALL_CLOCK_NEW
  );
}
