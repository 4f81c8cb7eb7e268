/**
 * Virtual time. The clock stands still until the vCPU loop moves it: the loop reads `nextDeadline`, runs the guest for at most
 * that long, and calls `advanceTo` with the time the retired instructions amount to. Nothing here looks at the host's clock.
 *
 * Timers are numbers: a device asks for one with `addTimer` when it is built and schedules it as often as it likes; a timer has
 * at most one deadline. Due timers fire in the order of their deadlines (equal ones by number), and each sees `now` at its own
 * deadline, so that the step in which time is moved does not change what happens.
 */
export interface TimerClient {
  /** The deadline of `timer` has come; it is no longer scheduled. */
  onTimer(timer: number): void;
}

const MAX_TIMERS = 256;

/** A day of virtual time is 8.64e13 ns: a number holds a hundred days exactly. */
export const NS_PER_S = 1e9;

export class VirtualClock {
  /** Nanoseconds since the machine was switched on. */
  now = 0;
  /** When the next timer is due; Infinity if none is scheduled. */
  nextDeadline = Infinity;
  readonly deadlines = new Float64Array(MAX_TIMERS).fill(Infinity);
  private readonly clients: TimerClient[] = [];

  /** A new timer, not scheduled; its number is for `schedule`, `cancel` and `onTimer`. */
  addTimer(client: TimerClient): number {
    if (this.clients.length === MAX_TIMERS) throw new Error(`no more than ${MAX_TIMERS} timers`);
    return this.clients.push(client) - 1;
  }

  /** Sets or moves a timer's deadline; one that has passed fires at the next `advanceTo`. Infinity cancels. */
  schedule(timer: number, atNs: number): void {
    const before = this.deadlines[timer];
    this.deadlines[timer] = atNs;
    if (atNs <= this.nextDeadline) this.nextDeadline = atNs;
    else if (before === this.nextDeadline) this.findNext();
  }

  cancel(timer: number): void {
    if (this.deadlines[timer] !== Infinity) this.schedule(timer, Infinity);
  }

  cancelAll(): void {
    this.deadlines.fill(Infinity);
    this.nextDeadline = Infinity;
  }

  /** The deadline of a timer, Infinity if it is not scheduled. */
  deadlineOf(timer: number): number {
    return this.deadlines[timer];
  }

  /** Moves time to `ns` (never back) and fires what is due until then. */
  advanceTo(ns: number): void {
    while (this.nextDeadline <= ns) {
      const timer = this.deadlines.indexOf(this.nextDeadline);
      if (this.nextDeadline > this.now) this.now = this.nextDeadline;
      this.deadlines[timer] = Infinity;
      this.findNext();
      this.clients[timer].onTimer(timer);
    }
    if (ns > this.now) this.now = ns;
  }

  /** After `deadlines` has been written from outside (a restored state). */
  findNext(): void {
    let next = Infinity;
    for (let timer = 0; timer < this.clients.length; timer++) {
      if (this.deadlines[timer] < next) next = this.deadlines[timer];
    }
    this.nextDeadline = next;
  }
}
