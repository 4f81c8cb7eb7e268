/**
 * Whose turn it is. The vCPUs of a machine run one after the other in one thread, each for a quantum of instructions, so
 * what two of them do in the same places of memory always happens in one order, and in the same one with the same seed.
 *
 *     cpu 0  |----------|               |--------|                A turn's length lies between half a quantum and one and a
 *     cpu 1             |-----|P                 |-----------|    half; PAUSE (P) and HLT (H) end it.
 *     cpu 2                    |-----|H
 *            --------------------------------------------------> virtual time: n runnable vCPUs share a nanosecond
 *
 * As n of them share it, each gets as far in a nanosecond as if it were alone: no time is stolen from any. And time never
 * goes back between two vCPUs, so their time stamp counters agree.
 */
import { Prng } from '../../base/prng.ts';
import type { PcCpu } from './pc-cpu.ts';

/** Instructions of a turn, on the average. */
export const QUANTUM = 10_000;
/** Who only spins gets on when all the others do too: after so many turns for each of them. */
const SPINNING_TURNS = 4;

export class Turns {
  /** Who has the turn, or had the last one. */
  active: PcCpu;
  /** What is left of the turn, in instructions. */
  left = 0;
  /** Runnable vCPUs when the turn began: they share its time. */
  sharers = 1;
  private readonly cpus: readonly PcCpu[];
  private readonly quantum: number;
  private readonly random: Prng;
  /** Turns that PAUSE has ended, since the last that went on. */
  private pauses = 0;

  constructor(cpus: readonly PcCpu[], quantum: number, seed: number) {
    this.cpus = cpus;
    this.quantum = quantum;
    this.random = new Prng(seed);
    this.active = cpus[0];
  }

  /** Gives the turn to the next vCPU that can use it, or to a certain one if it can; false if none can. */
  next(preferred = this.active.index + 1): boolean {
    const { cpus, active } = this;
    const now = active.now();
    let sharers = 0;
    let next: PcCpu | null = null;
    for (let i = 0; i < cpus.length; i++) {
      const cpu = cpus[(preferred + i) % cpus.length];
      if (cpu.isHeld || !cpu.isRunnable()) continue;
      sharers++;
      next ??= cpu;
    }
    if (next === null) return false;
    this.active = next;
    this.sharers = sharers;
    this.left = cpus.length === 1 ? Infinity : this.length();
    next.enter(now, sharers);
    return true;
  }

  /** HLT, or the quantum is over. */
  end(): void {
    this.left = 0;
    this.pauses = 0;
  }

  /** PAUSE. */
  endAtPause(): void {
    this.left = 0;
    this.pauses++;
  }

  private length(): number {
    const { quantum, active } = this;
    // Nobody gets anywhere without a timer: time is to pass.
    const allSpin = this.pauses > SPINNING_TURNS * this.sharers;
    active.exitsAtPause(!allSpin && this.sharers > 1);
    if (allSpin) this.pauses = 0;
    return Math.max(1, (quantum >>> 1) + this.random.int(quantum));
  }
}
