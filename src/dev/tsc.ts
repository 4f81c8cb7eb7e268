/**
 * The time stamp counter of one vCPU: virtual time at a fixed rate, plus an offset that writing the counter sets.
 * 64-bit values are word pairs; `read` leaves its result in `lo` and `hi`.
 */
import type { VirtualClock } from './clock.ts';

const WORD = 4294967296;
const NS_PER_MS = 1e6;

export class Tsc {
  /** The result of the last `read`. */
  lo = 0;
  hi = 0;
  /** Added to the ticks since power-on, modulo 2^64. */
  offsetLo = 0;
  offsetHi = 0;
  /** IA32_TSC_ADJUST: what all writes to it and to the counter have added. */
  adjustLo = 0;
  adjustHi = 0;
  /** Ticks in a millisecond of virtual time. */
  readonly khz: number;
  private readonly clock: VirtualClock;

  constructor(clock: VirtualClock, khz = 1e6) {
    this.clock = clock;
    this.khz = khz;
  }

  /** RDTSC: the counter now, in `lo` and `hi`. */
  read(): void {
    const ticks = this.ticks();
    const lo = (ticks >>> 0) + (this.offsetLo >>> 0);
    this.lo = lo | 0;
    this.hi = (Math.floor(ticks / WORD) + this.offsetHi + (lo >= WORD ? 1 : 0)) | 0;
  }

  /** WRMSR of IA32_TSC: the counter goes on from this value. */
  write(lo: number, hi: number): void {
    const ticks = this.ticks();
    const low = (lo >>> 0) - (ticks >>> 0);
    this.move(low | 0, (hi - Math.floor(ticks / WORD) - (low < 0 ? 1 : 0)) | 0, this.offsetLo, this.offsetHi);
  }

  /** WRMSR of IA32_TSC_ADJUST: the counter moves by as much as this register does. */
  writeAdjust(lo: number, hi: number): void {
    this.move(lo, hi, this.adjustLo, this.adjustHi);
  }

  /** By the difference of two values. */
  private move(toLo: number, toHi: number, fromLo: number, fromHi: number): void {
    const low = (toLo >>> 0) - (fromLo >>> 0);
    const high = toHi - fromHi - (low < 0 ? 1 : 0);
    const offset = (this.offsetLo >>> 0) + (low >>> 0);
    this.offsetLo = offset | 0;
    this.offsetHi = (this.offsetHi + high + (offset >= WORD ? 1 : 0)) | 0;
    const adjust = (this.adjustLo >>> 0) + (low >>> 0);
    this.adjustLo = adjust | 0;
    this.adjustHi = (this.adjustHi + high + (adjust >= WORD ? 1 : 0)) | 0;
  }

  /** The virtual time at which the counter reaches a value; not after `now` if it is past that (unsigned comparison). */
  whenReaches(lo: number, hi: number): number {
    this.read();
    const ahead = ((hi >>> 0) - (this.hi >>> 0)) * WORD + ((lo >>> 0) - (this.lo >>> 0));
    if (ahead <= 0) return this.clock.now;
    const ticks = this.ticks() + ahead;
    const ms = Math.floor(ticks / this.khz);
    return ms * NS_PER_MS + Math.ceil(((ticks - ms * this.khz) * NS_PER_MS) / this.khz);
  }

  private ticks(): number {
    // Whole milliseconds apart from the rest, so that no product leaves the exact integers.
    const ms = Math.floor(this.clock.now / NS_PER_MS);
    return ms * this.khz + Math.floor(((this.clock.now - ms * NS_PER_MS) * this.khz) / NS_PER_MS);
  }
}
