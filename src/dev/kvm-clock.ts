/**
 * KVM's paravirtual clock of one vCPU: where the guest has asked for it, two structures in its memory say how its time stamp
 * counter becomes time. Virtual time and the counter run in step here, so that a structure stays right until the counter is
 * written (`update` then) and can carry the "stable" flag.
 *
 *   time info (32 bytes): version, pad, tsc_timestamp (8), system_time (8), tsc_to_system_mul, tsc_shift (1), flags (1), pad
 *   wall clock (12 bytes): version, seconds, nanoseconds: the time of day at which system time was 0
 *
 * A version is even whenever the guest can look, and grows by 2 with each update.
 */
import { hiOfNumber, loOfNumber, toNumber } from '../base/u64.ts';
import type { VirtualClock } from './clock.ts';
import type { Tsc } from './tsc.ts';

export const MSR_KVM_WALL_CLOCK = 0x11;
export const MSR_KVM_SYSTEM_TIME = 0x12;
export const MSR_KVM_WALL_CLOCK_NEW = 0x4b564d00;
export const MSR_KVM_SYSTEM_TIME_NEW = 0x4b564d01;

const TIME_INFO_BYTES = 32;
const ENABLED = 1;
const FLAG_TSC_STABLE = 1;

/** Writes into guest memory as the host does (dirty log included); false if the gpa is not memory. */
export interface GuestWriter {
  writeGuest(gpa: number, bytes: Uint8Array): boolean;
}

export class KvmClock {
  /** The MSRs as last written. */
  systemTimeLo = 0;
  systemTimeHi = 0;
  wallClockLo = 0;
  wallClockHi = 0;
  version = 0;
  wallVersion = 0;
  /** Words of the last `readMsr`. */
  msrLo = 0;
  msrHi = 0;
  private readonly clock: VirtualClock;
  private readonly tsc: Tsc;
  private readonly memory: GuestWriter;
  private readonly epochS: number;

  /** `epochS`: the time of day when virtual time was 0, UTC, in seconds since 1970. */
  constructor(clock: VirtualClock, tsc: Tsc, memory: GuestWriter, epochS: number) {
    this.clock = clock;
    this.tsc = tsc;
    this.memory = memory;
    this.epochS = Math.floor(epochS);
  }

  /** False: not one of this clock's. */
  readMsr(msr: number): boolean {
    const isTime = msr === MSR_KVM_SYSTEM_TIME_NEW || msr === MSR_KVM_SYSTEM_TIME;
    if (!isTime && msr !== MSR_KVM_WALL_CLOCK_NEW && msr !== MSR_KVM_WALL_CLOCK) return false;
    this.msrLo = isTime ? this.systemTimeLo : this.wallClockLo;
    this.msrHi = isTime ? this.systemTimeHi : this.wallClockHi;
    return true;
  }

  /** False: not one of this clock's. Bit 0 of the system time's address switches it on; the wall clock is written once. */
  writeMsr(msr: number, lo: number, hi: number): boolean {
    if (msr === MSR_KVM_SYSTEM_TIME_NEW || msr === MSR_KVM_SYSTEM_TIME) {
      this.systemTimeLo = lo;
      this.systemTimeHi = hi;
      this.update();
      return true;
    }
    if (msr !== MSR_KVM_WALL_CLOCK_NEW && msr !== MSR_KVM_WALL_CLOCK) return false;
    this.wallClockLo = lo;
    this.wallClockHi = hi;
    this.writeWallClock();
    return true;
  }

  /** INIT: the guest has to ask for it again. */
  stop(): void {
    this.systemTimeLo = 0;
    this.systemTimeHi = 0;
  }

  /** Writes the time info again; needed after the time stamp counter has been written. */
  update(): void {
    if (!(this.systemTimeLo & ENABLED)) return;
    const { mul, shift } = tscScale(this.tsc.khz);
    this.tsc.read();
    this.version = (this.version + 2) | 0;
    const bytes = new Uint8Array(TIME_INFO_BYTES);
    const view = new DataView(bytes.buffer);
    const now = Math.floor(this.clock.now);
    view.setInt32(0, this.version, true);
    view.setInt32(8, this.tsc.lo, true);
    view.setInt32(12, this.tsc.hi, true);
    view.setInt32(16, loOfNumber(now), true);
    view.setInt32(20, hiOfNumber(now), true);
    view.setUint32(24, mul, true);
    view.setInt8(28, shift);
    view.setUint8(29, FLAG_TSC_STABLE);
    this.memory.writeGuest(toNumber(this.systemTimeLo & ~ENABLED, this.systemTimeHi), bytes);
  }

  private writeWallClock(): void {
    this.wallVersion = (this.wallVersion + 2) | 0;
    const bytes = new Uint8Array(12);
    const view = new DataView(bytes.buffer);
    view.setInt32(0, this.wallVersion, true);
    view.setUint32(4, this.epochS % 2 ** 32, true);
    this.memory.writeGuest(toNumber(this.wallClockLo, this.wallClockHi), bytes);
  }
}

/**
 * The factors of ns = ((ticks << shift) * mul) >> 32 for a counter of `khz`; a negative shift goes to the right.
 * `mul` has its highest bit set, for the best precision.
 */
export function tscScale(khz: number): { mul: number; shift: number } {
  let ticks = khz * 1000;
  let ns = 1e9;
  let shift = 0;
  // mul / 2^32 = ns / ticks is to lie in [1/2, 1).
  while (ns >= ticks) {
    ticks *= 2;
    shift++;
  }
  while (ns * 2 < ticks) {
    ns *= 2;
    shift--;
  }
  let mul = 0;
  for (let i = 0; i < 32; i++) {
    ns *= 2;
    mul *= 2;
    if (ns >= ticks) {
      ns -= ticks;
      mul++;
    }
  }
  return { mul, shift };
}
