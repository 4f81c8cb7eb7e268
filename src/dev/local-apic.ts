/**
 * A vCPU's local APIC: the xAPIC page and the x2APIC registers over one register file, priorities, IPIs, the local vector table.
 * The timer is in `apic-timer.ts`.
 *
 * The vCPU loop asks, before it enters the guest and after each exit: `initPending`/`sipiVector` (wait-for-SIPI protocol),
 * `nmiPending` (and clears it when it injects), `interruptPending()` (if IF and no shadow: `acknowledge()` gives the vector).
 * Its MMIO page answers to this vCPU only, so the loop asks `covers(gpa)` before the `MmioBus`. CR8 is `cr8`/`setCr8`, MSRs
 * 0x800 to 0x8ff, IA32_APIC_BASE and IA32_TSC_DEADLINE go through `readMsr`/`writeMsr`, whose `false` is a #GP.
 */
import {
  type ApicBus,
  DELIVER_EXTINT,
  DELIVER_FIXED,
  DELIVER_INIT,
  DELIVER_NMI,
  DELIVER_SIPI,
  DELIVER_SMI,
  TO_ALL,
} from './apic-bus.ts';
import {
  DFR,
  EOI,
  ESR,
  ICR,
  ICR_HI,
  ID,
  IRR,
  ISR,
  LDR,
  LVT_COUNTERS,
  LVT_ERROR,
  LVT_LINT0,
  LVT_LINT1,
  LVT_THERMAL,
  LVT_TIMER,
  LVT_WRITABLE,
  PPR,
  SELF_IPI,
  SVR,
  TIMER_CURRENT,
  TIMER_DIVIDE,
  TIMER_INITIAL,
  TMR,
  TPR,
  VERSION,
  clearBit,
  hasBit,
  highestBit,
  isReadOnlyVectorSet,
  isReadableInX2,
  isWritableInX2,
  setBit,
} from './apic-registers.ts';
import { ApicTimer } from './apic-timer.ts';
import type { MmioDevice } from './bus.ts';
import type { VirtualClock } from './clock.ts';
import type { IrqSink } from './irq.ts';
import type { Tsc } from './tsc.ts';

export const LOCAL_APIC_GPA = 0xfee00000;
export const MSR_APIC_BASE = 0x1b;
export const MSR_TSC_DEADLINE = 0x6e0;
export const MSR_X2APIC_FIRST = 0x800;
export const MSR_X2APIC_LAST = 0x8ff;

const APIC_VERSION = 0x14 | (5 << 16);
const SVR_ENABLED = 0x100;
const LVT_MASKED = 0x10000;
const BASE_BSP = 0x100;
const BASE_X2APIC = 0x400;
const BASE_ENABLED = 0x800;
const ICR_LOGICAL = 0x800;
const ICR_ASSERT = 0x4000;
const ICR_LEVEL = 0x8000;
const ERROR_SEND_VECTOR = 0x20;
const ERROR_RECEIVE_VECTOR = 0x40;
const ERROR_REGISTER = 0x80;

/** The pair of 8259s, as the processor sees it. */
export interface ExternalInterrupts {
  readonly output: boolean;
  acknowledge(): number;
}

export interface LocalApicOptions {
  readonly id: number;
  readonly clock: VirtualClock;
  readonly tsc: Tsc;
  readonly bus: ApicBus;
  /** Whether this is the boot processor, which starts with LINT0 open for the PIC. */
  readonly boot: boolean;
  /** The PIC, if its INTR comes here. */
  readonly pic?: ExternalInterrupts;
  /** Whether CPUID announces x2APIC; true if not given. */
  readonly x2apic?: boolean;
}

export class LocalApic implements MmioDevice, IrqSink {
  readonly id: number;
  /** Registers by their number; 64 words. */
  readonly regs = new Int32Array(64);
  baseLo = LOCAL_APIC_GPA | BASE_ENABLED;
  private readonly baseReserved: number;
  baseHi = 0;
  nmiPending = false;
  initPending = false;
  /** The page number of a start-up IPI that waits for the vCPU, -1 if none. */
  sipiVector = -1;
  /** Words of the last `readMsr`. */
  msrLo = 0;
  msrHi = 0;
  readonly timer: ApicTimer;
  /** Errors since ESR was last written. */
  errors = 0;
  lint0 = false;
  lint1 = false;
  private readonly bus: ApicBus;
  private readonly boot: boolean;
  private pic: ExternalInterrupts | null;

  constructor(options: LocalApicOptions) {
    this.id = options.id;
    this.bus = options.bus;
    this.boot = options.boot;
    this.baseReserved = 0x2ff | (options.x2apic === false ? BASE_X2APIC : 0);
    this.pic = options.pic ?? null;
    this.timer = new ApicTimer(this, options.clock, options.tsc);
    if (this.boot) this.baseLo |= BASE_BSP;
    this.reset();
    options.bus.apics.push(this);
  }

  /** Joins the PIC later than by the constructor (the PIC's INTR wire may end here). */
  connectPic(pic: ExternalInterrupts): void {
    this.pic = pic;
  }

  /** INIT: as after RESET, but the ID stays, too. @kvm kvm_lapic_reset */
  initialize(): void {
    const id = this.regs[ID];
    this.reset();
    this.regs[ID] = id;
  }

  /** The state after RESET; IA32_APIC_BASE stays. */
  reset(): void {
    this.timer.stop();
    this.regs.fill(0);
    this.regs[VERSION] = APIC_VERSION;
    this.regs[DFR] = -1;
    this.regs[SVR] = 0xff;
    for (let lvt = LVT_TIMER; lvt <= LVT_ERROR; lvt++) this.regs[lvt] = LVT_MASKED;
    // There is no firmware that would do it: the boot processor starts as the MP specification's virtual wire.
    if (this.boot) this.regs[LVT_LINT0] = DELIVER_EXTINT << 8;
    this.errors = 0;
    this.nmiPending = false;
    this.setIds();
  }

  isEnabled(): boolean {
    return (this.baseLo & BASE_ENABLED) !== 0;
  }

  isX2(): boolean {
    return (this.baseLo & (BASE_ENABLED | BASE_X2APIC)) === (BASE_ENABLED | BASE_X2APIC);
  }

  isSoftwareEnabled(): boolean {
    return this.isEnabled() && (this.regs[SVR] & SVR_ENABLED) !== 0;
  }

  /** Whether an interrupt is to be taken as soon as the vCPU can. */
  interruptPending(): boolean {
    return this.externalPending() || this.deliverable() >= 0;
  }

  /** The vector to inject now, in service from here on; -1 if there is none. The PIC's come first, as in KVM. */
  acknowledge(): number {
    if (this.externalPending()) return (this.pic as ExternalInterrupts).acknowledge();
    const vector = this.deliverable();
    if (vector < 0) return -1;
    clearBit(this.regs, IRR, vector);
    setBit(this.regs, ISR, vector);
    return vector;
  }

  /** The higher of the task's priority and that of the interrupt in service. */
  processorPriority(): number {
    const tpr = this.regs[TPR] & 0xff;
    const served = highestBit(this.regs, ISR);
    return tpr >> 4 >= served >> 4 ? tpr : served & 0xf0;
  }

  cr8(): number {
    return (this.regs[TPR] >> 4) & 15;
  }

  setCr8(value: number): void {
    this.regs[TPR] = (value & 15) << 4;
  }

  /**
   * Whether a message for `dest` is for this APIC. Physical: TO_ALL, or its ID: in xAPIC mode what the guest has written there.
   * @kvm kvm_apic_match_physical_addr, kvm_apic_match_logical_addr
   */
  matches(dest: number, logical: boolean): boolean {
    if (!this.isEnabled()) return false;
    if (!logical) return dest === TO_ALL || dest === (this.isX2() || dest > 0xff ? this.id : this.regs[ID] >>> 24);
    const ldr = this.regs[LDR];
    if (this.isX2()) {
      return dest === TO_ALL || (ldr >>> 16 === dest >>> 16 && (ldr & dest & 0xffff) !== 0);
    }
    if (dest === TO_ALL || dest > 0xff) return dest === TO_ALL;
    const mine = ldr >>> 24;
    if (this.regs[DFR] >>> 28 === 15) return (mine & dest) !== 0;
    return mine >> 4 === dest >> 4 && (mine & dest & 15) !== 0;
  }

  /** Takes a message; false if it can't be taken now. */
  accept(mode: number, vector: number, level: boolean): boolean {
    switch (mode) {
      case DELIVER_FIXED:
        return this.acceptVector(vector, level);
      case DELIVER_NMI:
        this.nmiPending = true;
        return true;
      case DELIVER_INIT:
        this.initPending = true;
        this.sipiVector = -1;
        return true;
      case DELIVER_SIPI:
        this.sipiVector = vector;
        return true;
      default:
        return mode === DELIVER_SMI; // taken and ignored: there is no system management mode
    }
  }

  /** The pins: 0 is LINT0 (the PIC's INTR), 1 is LINT1. */
  setPin(pin: number, level: boolean): void {
    const rises = level && !(pin === 0 ? this.lint0 : this.lint1);
    if (pin === 0) this.lint0 = level;
    else this.lint1 = level;
    if (rises) this.deliverLocal(pin === 0 ? LVT_LINT0 : LVT_LINT1);
  }

  /** An interrupt of the local vector table happens. */
  deliverLocal(lvt: number): void {
    const entry = this.regs[lvt];
    if (entry & LVT_MASKED || !this.isEnabled()) return;
    const mode = lvt === LVT_TIMER || lvt === LVT_ERROR ? DELIVER_FIXED : (entry >> 8) & 7;
    // ExtINT has no vector of its own: `externalPending` looks at the wire.
    if (mode !== DELIVER_EXTINT) this.accept(mode, entry & 0xff, (entry & 0x8000) !== 0 && mode === DELIVER_FIXED);
  }

  /** Whether this vCPU's page is at a guest physical address. */
  covers(gpa: number): boolean {
    if ((this.baseLo & (BASE_ENABLED | BASE_X2APIC)) !== BASE_ENABLED) return false;
    return Math.floor(gpa / 4096) === this.baseHi * 1048576 + (this.baseLo >>> 12);
  }

  /** The page: 32-bit registers at multiples of 16; `offset` may be the gpa. */
  mmioRead(offset: number, _bytes: number): number {
    const at = offset & 0xfff;
    if (at >= 0x400) return 0;
    return this.readRegister(at >> 4) >>> ((at & 3) * 8);
  }

  mmioWrite(offset: number, bytes: number, value: number): void {
    const at = offset & 0xfff;
    // Other than whole registers can't be written.
    if (at >= 0x400 || bytes !== 4 || at & 15) return;
    this.writeRegister(at >> 4, value | 0);
  }

  /** RDMSR into `msrLo`, `msrHi`; false: #GP. */
  readMsr(msr: number): boolean {
    if (msr === MSR_APIC_BASE) {
      this.msrLo = this.baseLo;
      this.msrHi = this.baseHi;
      return true;
    }
    if (msr === MSR_TSC_DEADLINE) {
      this.msrLo = this.timer.deadlineLo;
      this.msrHi = this.timer.deadlineHi;
      return true;
    }
    const reg = msr - MSR_X2APIC_FIRST;
    if (!this.isX2() || !isReadableInX2(reg)) return false;
    this.msrLo = this.readRegister(reg);
    this.msrHi = reg === ICR ? this.regs[ICR_HI] : 0;
    return true;
  }

  /** WRMSR; false: #GP. */
  writeMsr(msr: number, lo: number, hi: number): boolean {
    if (msr === MSR_APIC_BASE) return this.writeBase(lo, hi);
    if (msr === MSR_TSC_DEADLINE) {
      this.timer.setDeadline(lo, hi);
      return true;
    }
    const reg = msr - MSR_X2APIC_FIRST;
    if (!this.isX2() || !isWritableInX2(reg, lo) || (hi !== 0 && reg !== ICR)) return false;
    if (reg === SELF_IPI) {
      this.acceptVector(lo & 0xff, false);
    } else if (reg === ICR) {
      this.regs[ICR_HI] = hi;
      this.writeRegister(ICR, lo);
    } else {
      this.writeRegister(reg, lo);
    }
    return true;
  }

  private writeBase(lo: number, hi: number): boolean {
    const x2 = BASE_ENABLED | BASE_X2APIC;
    const was = this.baseLo & x2;
    const will = lo & x2;
    if (hi & ~0xff || lo & this.baseReserved) return false; // 40 bits of address
    if (will === BASE_X2APIC || (was === x2 && will === BASE_ENABLED) || (was === 0 && will === x2)) return false;
    this.baseLo = lo;
    this.baseHi = hi;
    if (was === 0 && will !== 0) this.reset();
    else if (was !== will) this.setIds();
    if (will === 0) this.timer.stop();
    return true;
  }

  private setIds(): void {
    this.regs[ID] = this.isX2() ? this.id : this.id << 24;
    if (this.isX2()) this.regs[LDR] = ((this.id >> 4) << 16) | (1 << (this.id & 15));
  }

  private externalPending(): boolean {
    if (this.pic === null || !this.pic.output) return false;
    const lint0 = this.regs[LVT_LINT0];
    return !this.isEnabled() || ((lint0 & LVT_MASKED) === 0 && ((lint0 >> 8) & 7) === DELIVER_EXTINT);
  }

  private deliverable(): number {
    if (!this.isEnabled()) return -1;
    const vector = highestBit(this.regs, IRR);
    return vector >= 0 && vector >> 4 > this.processorPriority() >> 4 ? vector : -1;
  }

  private acceptVector(vector: number, level: boolean): boolean {
    if (!this.isSoftwareEnabled()) return false;
    if (vector < 16) {
      this.addError(ERROR_RECEIVE_VECTOR);
      return false;
    }
    if (level) setBit(this.regs, TMR, vector);
    else clearBit(this.regs, TMR, vector);
    setBit(this.regs, IRR, vector);
    return true;
  }

  private addError(error: number): void {
    const isNew = (this.errors & error) === 0;
    this.errors |= error;
    const lvt = this.regs[LVT_ERROR];
    // A bad vector in the error entry itself must not report itself for ever.
    if (isNew && (lvt & 0xff) >= 16) this.deliverLocal(LVT_ERROR);
  }

  private readRegister(reg: number): number {
    if (reg === PPR) return this.processorPriority();
    if (reg === TIMER_CURRENT) return this.timer.currentCount();
    if (reg === EOI || reg === SELF_IPI) return 0;
    return this.regs[reg];
  }

  private writeRegister(reg: number, value: number): void {
    switch (reg) {
      case ID:
        // In x2APIC mode it is read-only, which `isWritableInX2` sees to.
        this.regs[ID] = value & (0xff << 24);
        break;
      case VERSION:
      case PPR:
      case TIMER_CURRENT:
        break;
      case TPR:
        this.regs[TPR] = value & 0xff;
        break;
      case EOI:
        this.endOfInterrupt();
        break;
      case LDR:
        this.regs[LDR] = value & (0xff << 24);
        break;
      case DFR:
        this.regs[DFR] = value | 0x0fffffff;
        break;
      case SVR:
        this.writeSpurious(value);
        break;
      case ESR:
        this.regs[ESR] = this.errors;
        this.errors = 0;
        break;
      case ICR:
        this.regs[ICR] = value & ~0x1000;
        this.sendIpi();
        break;
      case ICR_HI:
        this.regs[ICR_HI] = value & (0xff << 24);
        break;
      case LVT_TIMER:
      case LVT_THERMAL:
      case LVT_COUNTERS:
      case LVT_LINT0:
      case LVT_LINT1:
      case LVT_ERROR:
        this.writeLvt(reg, value);
        break;
      case TIMER_INITIAL:
        this.timer.writeInitial(value);
        break;
      case TIMER_DIVIDE:
        this.timer.writeDivide(value & 0x0b);
        break;
      default:
        if (!isReadOnlyVectorSet(reg)) this.addError(ERROR_REGISTER);
    }
  }

  private writeSpurious(value: number): void {
    this.regs[SVR] = value & 0x3ff;
    if (value & SVR_ENABLED) return;
    for (let lvt = LVT_TIMER; lvt <= LVT_ERROR; lvt++) this.regs[lvt] |= LVT_MASKED;
  }

  private writeLvt(lvt: number, value: number): void {
    let entry = value & LVT_WRITABLE[lvt - LVT_TIMER];
    if (!(this.regs[SVR] & SVR_ENABLED)) entry |= LVT_MASKED;
    const was = this.regs[lvt];
    this.regs[lvt] = entry;
    if (lvt === LVT_TIMER) this.timer.modeChanged(was);
  }

  private endOfInterrupt(): void {
    const vector = highestBit(this.regs, ISR);
    if (vector < 0) return;
    clearBit(this.regs, ISR, vector);
    if (hasBit(this.regs, TMR, vector)) this.bus.broadcastEoi(vector);
  }

  private sendIpi(): void {
    const icr = this.regs[ICR];
    const mode = (icr >> 8) & 7;
    const vector = icr & 0xff;
    // The de-assertion of INIT is a relic; nothing happens.
    if (mode === DELIVER_INIT && (icr & (ICR_LEVEL | ICR_ASSERT)) === ICR_LEVEL) return;
    if (mode <= 1 && vector < 16) {
      this.addError(ERROR_SEND_VECTOR);
      return;
    }
    switch ((icr >> 18) & 3) {
      case 0: {
        const logical = (icr & ICR_LOGICAL) !== 0;
        this.bus.send(this.destination(logical), logical, mode, vector, false, null);
        break;
      }
      case 1:
        this.accept(mode === 1 ? DELIVER_FIXED : mode, vector, false);
        break;
      case 2:
        this.bus.send(TO_ALL, false, mode, vector, false, null);
        break;
      default:
        this.bus.send(TO_ALL, false, mode, vector, false, this);
    }
  }

  private destination(logical: boolean): number {
    const high = this.regs[ICR_HI];
    if (this.isX2()) return high === -1 ? TO_ALL : high >>> 0;
    const dest = high >>> 24;
    return dest === 0xff && !logical ? TO_ALL : dest;
  }
}
