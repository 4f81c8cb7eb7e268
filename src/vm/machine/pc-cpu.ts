/**
 * One vCPU of a PC: its instructions, its way to memory, its local APIC, clock and MSRs. To its CPU it is the bus.
 *
 * Time belongs to whoever has the turn (`turns.ts`): a vCPU that gets it is told what time it is and how many share it, and
 * counts on from there.
 */
import type { Board, BoardCpu } from '../../dev/board.ts';
import {
  MSR_KVM_SYSTEM_TIME,
  MSR_KVM_SYSTEM_TIME_NEW,
  MSR_KVM_WALL_CLOCK,
  MSR_KVM_WALL_CLOCK_NEW,
} from '../../dev/kvm-clock.ts';
import { RUNNING } from '../../dev/power.ts';
import { type Bus, CR_EFER, NO_FAULT, type Translation } from '../../cpu/bus.ts';
import { Cpu } from '../../cpu/cpu.ts';
import { MODE_64 } from '../../cpu/decoder.ts';
import { initialize, startUp } from '../../cpu/real-mode.ts';
import { resetRunning } from '../../cpu/reset.ts';
import { CR0, CR4, CR8, type Layout, TSC_OFFSET, XCR0 } from '../../cpu/state.ts';
import { invlpg } from '../../mmu/inject.ts';
import { REQ_TLB_FLUSH_GUEST } from '../../mmu/requests.ts';
import { resetMmuContext } from '../../mmu/roots.ts';
import { invpcid, setCr0, setCr3, setCr4, setEfer } from '../control-registers.ts';
import type { Vm } from '../vm.ts';
import { Cpuid, type CpuDescription } from './cpuid.ts';
import { MemoryUnit } from './memory-unit.ts';
import { Msrs } from './msrs.ts';
import type { CpuTouches } from './touch-recorder.ts';

const VECTOR_GP = 13;
const MSR_TSC = 0x10;
const MSR_TSC_ADJUST = 0x3b;
const MSR_APIC_BASE = 0x1b;
const MSR_TSC_DEADLINE = 0x6e0;
const MSR_X2APIC_FIRST = 0x800;
const MSR_X2APIC_LAST = 0x8ff;

/** What a vCPU does when it isn't in the middle of something. @kvm mp_state */
export const MP_RUNNABLE = 0;
/** Waits for INIT. */
export const MP_UNINITIALIZED = 1;
/** INIT has come; waits for a start-up message. */
export const MP_INIT_RECEIVED = 2;
export const MP_HALTED = 3;

export interface PcCpuOptions {
  readonly index: number;
  /** How many there are. */
  readonly cpus: number;
  readonly vm: Vm;
  readonly board: Board;
  readonly model: CpuDescription;
  readonly memory: WebAssembly.Memory;
  readonly layout: Layout;
  /** Address of guest-physical 0 in `memory`. */
  readonly ramBase: number;
  /** The first vCPU, for all others. */
  readonly first: PcCpu | null;
  /** Of data, for a recording. */
  readonly countsAccesses: boolean;
}

export class PcCpu implements Bus {
  readonly index: number;
  readonly cpu: Cpu;
  readonly unit: MemoryUnit;
  readonly device: BoardCpu;
  readonly cpuidTable: Cpuid;
  /** MP_*. */
  mpState: number;
  /** Notes which pages are touched, if somebody records that. */
  touches: CpuTouches | null = null;
  /** A debugger lets the others go on without it. */
  isHeld = false;
  /** Virtual time at which the present run ends. */
  runEnds = 0;

  private readonly vm: Vm;
  private readonly board: Board;
  private msrs = new Msrs();
  /** Virtual time minus the ticks of retired instructions, ns. */
  private skipped = 0;

  constructor({ index, cpus, vm, board, model, memory, layout, ramBase, first, countsAccesses }: PcCpuOptions) {
    this.index = index;
    this.vm = vm;
    this.board = board;
    this.device = board.cpus[index];
    this.cpuidTable = new Cpuid(model, cpus, index);
    this.unit = new MemoryUnit(vm.mmu, index, ramBase);
    this.cpu = new Cpu(memory, layout, this, first?.cpu, countsAccesses);
    this.cpu.useCpuid();
    this.unit.connect(this.cpu);
    this.unit.regs.cr4Allowed = this.cpu.cr4Allowed;
    if (index > 0) initialize(this.cpu, this.cpuidTable.signature);
    this.mpState = index === 0 ? MP_RUNNABLE : MP_UNINITIALIZED;
  }

  // ---- time --------------------------------------------------------------------------------------------------------

  /** Gets the turn: it is `ns` now, and a nanosecond is the time of so many instructions. */
  enter(ns: number, sharers: number): void {
    const { rings } = this.vm.mmu;
    // All that writes guest memory from here on does so for this vCPU.
    if (rings !== null) rings.running = this.unit.dirtyRing;
    this.cpu.shareTime(sharers);
    this.skip(ns - this.now());
  }

  /** Whether PAUSE ends the turn: somebody else may be able to use it. Who speaks to a device may have woken one. */
  exitsAtPause(on: boolean): void {
    this.cpu.exitsAtPause = on && this.board.cpus.length > 1;
  }

  /** Virtual time, between two runs. */
  now(): number {
    return this.skipped + this.cpu.ticksAt(this.cpu.retired);
  }

  /** Virtual time, also in the middle of a run. */
  get nowNs(): number {
    return this.skipped + this.cpu.ticksAt(this.cpu.nowInCall);
  }

  /** Time passes without instructions. */
  skip(ns: number): void {
    if (ns === 0) return;
    this.skipped += ns;
    this.tellTsc();
  }

  private tellTsc(): void {
    const { tsc } = this.device;
    const offset = (BigInt(tsc.offsetHi) << 32n) | BigInt(tsc.offsetLo >>> 0);
    this.cpu.state.setBig(TSC_OFFSET, offset + BigInt(this.skipped));
  }

  // ---- events ------------------------------------------------------------------------------------------------------

  /** INIT, and the start-up message after it. @kvm kvm_apic_accept_events */
  acceptApicEvents(): void {
    const { apic } = this.device;
    if (apic.initPending) {
      apic.initPending = false;
      this.reset();
      if (this.index > 0) this.mpState = MP_INIT_RECEIVED;
    }
    if (apic.sipiVector < 0) return;
    const vector = apic.sipiVector;
    apic.sipiVector = -1;
    if (this.mpState !== MP_INIT_RECEIVED) return;
    startUp(this.cpu, vector);
    this.mpState = MP_RUNNABLE;
  }

  /** RESET: what INIT leaves alone is as at power-on, too. */
  powerOn(): void {
    this.unit.tellWritten();
    resetRunning(this.cpu.state);
    this.msrs = new Msrs();
    this.board.resetTsc(this.index);
    this.reset();
    this.tellTsc();
  }

  /**
   * INIT. The boot processor begins at the reset vector, the others wait. Its local APIC keeps its base.
   * @kvm kvm_vcpu_reset, kvmclock_reset
   */
  reset(): void {
    const { cpu, unit, vm } = this;
    unit.tellWritten();
    this.mpState = this.index === 0 ? MP_RUNNABLE : MP_UNINITIALIZED;
    this.device.kvmClock.stop();
    this.device.apic.initialize();
    initialize(cpu, this.cpuidTable.signature);
    Object.assign(unit.regs, { cr0: cpu.state.get(CR0), cr3Lo: 0, cr3Hi: 0, cr4: 0, efer: 0 });
    unit.regs.pdptrs.fill(0);
    resetMmuContext(vm.mmu, unit.vcpu);
    unit.vcpu.requests |= REQ_TLB_FLUSH_GUEST;
  }

  /** Whether it has something to do: it runs, or an event ends its halt. @kvm kvm_vcpu_running, kvm_vcpu_check_block */
  isRunnable(): boolean {
    const { apic } = this.device;
    if (apic.initPending || apic.sipiVector >= 0) this.acceptApicEvents();
    if (this.mpState === MP_RUNNABLE) return true;
    if (this.mpState !== MP_HALTED) return false;
    const woken = apic.nmiPending || (this.cpu.interruptible && apic.interruptPending());
    if (woken) this.mpState = MP_RUNNABLE;
    return woken;
  }

  /** Halted with interrupts off, or not started: only another vCPU could do something about it. */
  get isStuck(): boolean {
    return (
      this.mpState !== MP_RUNNABLE && !(this.mpState === MP_HALTED && (this.cpu.interruptible || this.cpu.shadowed))
    );
  }

  /** Before a run: the CPU learns of what has come meanwhile. */
  lookForEvents(): void {
    const { apic } = this.device;
    this.cpu.setInterruptLine(apic.interruptPending());
    if (!apic.nmiPending) return;
    apic.nmiPending = false;
    this.cpu.injectNmi();
  }

  acknowledgeInterrupt(): number {
    const { apic } = this.device;
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
    const { apic } = this.device;
    cpu.setInterruptLine(apic.interruptPending());
    this.exitsAtPause(true);
    if (
      apic.nmiPending ||
      apic.initPending ||
      board.power.request !== RUNNING ||
      board.workload.isHigh ||
      board.clock.nextDeadline < this.runEnds
    )
      cpu.requestExit();
  }

  // ---- the bus -----------------------------------------------------------------------------------------------------

  translate(lo: number, hi: number, access: number, out: Translation): number {
    const status = this.unit.translate(lo, hi, access, out);
    return this.touches === null ? status : this.touches.translated(this.cpu, status, access, out);
  }

  mmioRead(gpaLo: number, gpaHi: number, bytes: number): bigint {
    this.beforeDevice();
    const gpa = gpaOf(gpaLo, gpaHi);
    const { board } = this;
    const { apic } = this.device;
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
    const { apic } = this.device;
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
    const { apic, kvmClock, tsc } = this.device;
    if (index === MSR_TSC_ADJUST) return word64(tsc.adjustLo, tsc.adjustHi);
    if (isApicMsr(index)) return apic.readMsr(index) ? word64(apic.msrLo, apic.msrHi) : null;
    if (isClockMsr(index)) return kvmClock.readMsr(index) ? word64(kvmClock.msrLo, kvmClock.msrHi) : null;
    return this.msrs.read(index);
  }

  writeMsr(index: number, value: bigint): boolean {
    this.beforeDevice();
    const { apic, kvmClock } = this.device;
    const lo = Number(BigInt.asIntN(32, value));
    const hi = Number(BigInt.asIntN(32, value >> 32n));
    if (index === MSR_TSC || index === MSR_TSC_ADJUST) {
      if (index === MSR_TSC) this.board.writeTsc(this.index, lo, hi);
      // Without the feature KVM takes the write and does nothing.
      else if (this.cpuidTable.has('tsc_adjust')) this.board.writeTscAdjust(this.index, lo, hi);
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
    const { state } = this.cpu;
    return this.cpuidTable.answer(leaf, subleaf, state.get(CR4), this.device.apic.isEnabled(), state.get(XCR0));
  }

  controlWrite(number: number, lo: number, hi: number): number {
    const { unit, vm } = this;
    const { vcpu, regs } = unit;
    unit.tellWritten();
    switch (number) {
      case 0:
        regs.csLong = this.cpu.mode === MODE_64;
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
    this.device.apic.setCr8(this.cpu.state.get(CR8));
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
