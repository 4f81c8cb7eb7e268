/**
 * The local APIC's timer. It counts at 1 GHz (as KVM's), divided by what the guest chose, down from the initial count; or it
 * waits for a value of the time stamp counter. Counts are derived from virtual time when looked at; only the end is an event.
 */
import { LVT_TIMER, TIMER_DIVIDE, TIMER_INITIAL } from './apic-registers.ts';
import type { TimerClient, VirtualClock } from './clock.ts';
import type { Tsc } from './tsc.ts';

/** Frequency that the guest measures (or CPUID tells it): ticks a second before division. */
export const APIC_TIMER_HZ = 1e9;

/** The APIC that the timer is a part of. */
export interface TimerOwner {
  readonly regs: Int32Array;
  /** An interrupt of the local vector table happens. */
  deliverLocal(lvt: number): void;
}

const MODE_ONE_SHOT = 0;
const MODE_PERIODIC = 1;
const MODE_TSC_DEADLINE = 2;
/** A guest can't ask for more periodic interrupts than 5,000 a second, as under KVM (min_timer_period_us). */
const MIN_PERIOD_NS = 200e3;

export class ApicTimer implements TimerClient {
  /** Virtual time at which the count ends; Infinity if it doesn't run. */
  endNs = Infinity;
  /** IA32_TSC_DEADLINE; 0 if it isn't armed. */
  deadlineLo = 0;
  deadlineHi = 0;
  private readonly apic: TimerOwner;
  private readonly clock: VirtualClock;
  private readonly tsc: Tsc;
  private readonly number: number;

  constructor(apic: TimerOwner, clock: VirtualClock, tsc: Tsc) {
    this.apic = apic;
    this.clock = clock;
    this.tsc = tsc;
    this.number = clock.addTimer(this);
  }

  stop(): void {
    this.endNs = Infinity;
    this.deadlineLo = 0;
    this.deadlineHi = 0;
    this.clock.cancel(this.number);
  }

  onTimer(): void {
    if (this.mode() === MODE_PERIODIC) {
      // From the end, not from now: a late look doesn't shift the rest.
      this.endNs += this.periodNs();
      this.clock.schedule(this.number, this.endNs);
    } else {
      this.stop();
    }
    this.apic.deliverLocal(LVT_TIMER);
  }

  writeInitial(value: number): void {
    if (this.mode() === MODE_TSC_DEADLINE) return;
    this.apic.regs[TIMER_INITIAL] = value;
    this.start(value >>> 0);
  }

  writeDivide(value: number): void {
    const left = this.currentCount();
    this.apic.regs[TIMER_DIVIDE] = value;
    if (this.endNs !== Infinity) this.start(left);
  }

  currentCount(): number {
    if (this.endNs === Infinity) return 0;
    return Math.max(0, Math.ceil((this.endNs - this.clock.now) / this.divide()));
  }

  /** Arms the deadline (any value but 0), or disarms it. Ignored in the other modes. */
  setDeadline(lo: number, hi: number): void {
    if (this.mode() !== MODE_TSC_DEADLINE) return;
    this.deadlineLo = lo;
    this.deadlineHi = hi;
    this.rearm();
  }

  /** After the time stamp counter has been written: the deadline is at another time now. */
  rearm(): void {
    if (this.mode() !== MODE_TSC_DEADLINE) return;
    if ((this.deadlineLo | this.deadlineHi) === 0) {
      this.clock.cancel(this.number);
      return;
    }
    const at = this.tsc.whenReaches(this.deadlineLo, this.deadlineHi);
    if (at > this.clock.now) {
      this.clock.schedule(this.number, at);
    } else {
      this.stop();
      this.apic.deliverLocal(LVT_TIMER);
    }
  }

  /** After a write to the timer's vector; going into or out of deadline mode stops it. */
  modeChanged(oldLvt: number): void {
    const old = (oldLvt >> 17) & 3;
    if ((old === MODE_TSC_DEADLINE) === (this.mode() === MODE_TSC_DEADLINE)) return;
    this.stop();
    this.apic.regs[TIMER_INITIAL] = 0;
  }

  private start(count: number): void {
    if (count === 0) {
      this.stop();
      return;
    }
    const ns = count * this.divide();
    this.endNs = this.clock.now + (this.mode() === MODE_ONE_SHOT ? ns : Math.max(ns, MIN_PERIOD_NS));
    this.clock.schedule(this.number, this.endNs);
  }

  private mode(): number {
    return (this.apic.regs[LVT_TIMER] >> 17) & 3;
  }

  private periodNs(): number {
    return Math.max((this.apic.regs[TIMER_INITIAL] >>> 0) * this.divide(), MIN_PERIOD_NS);
  }

  /** Nanoseconds a count: 1 to 128. The bits 0, 1 and 3 hold the power of two minus one; seven is 1. */
  private divide(): number {
    const bits = this.apic.regs[TIMER_DIVIDE];
    return 1 << ((((bits & 3) | ((bits & 8) >> 1)) + 1) & 7);
  }
}
