/**
 * Threads and the locks between them: who may go on, and what happens when one does.
 *
 * A thread stops at each mark. At a lock it goes on once that is free; what it releases is free at once, before it goes on. A
 * reader of the slots that a swap waits for is one that read when the wait began. Where a walk gives way, mmu_lock is dropped as the
 * thread stops and taken again as it goes on.
 *
 * Some marks don't stop, as nothing that others could see or do lies between them and the next one: the end of a read of
 * the slots, the point before a fault takes mmu_lock, and the point between two heads of a slot walk, all of whose changes
 * have points of their own. Nor does a thread stop where nobody else could go on, and nothing is to choose.
 */
import { LOCK_MMU, LOCK_NOTIFIER, LOCK_SHARED, LOCK_SLOTS, LOCK_SRCU } from '../mmu/lock.ts';
import {
  RACE_ENTRY,
  RACE_FAULT_BEFORE_LOCK,
  RACE_SLOT_WALK,
  RACE_SYNC_ROUND,
  RACE_TDP_SPIN,
  RACE_TDP_YIELD,
  RACE_ZAP_BATCH,
} from '../mmu/race.ts';
import type { Untouched } from './alike.ts';
import type { createWorld, Operation, perform, World } from './world.ts';

/** The changed copy of world.ts and all below it: what comes to a mark gives a generator. */
export interface InterleavedWorld {
  readonly createWorld: typeof createWorld;
  readonly perform: typeof perform;
  /** The thread whose stack is given runs now. */
  readonly $run: (stack: unknown[], passes: Passes) => void;
  /** Where each call is that may stop, as "function file:line of the bundle". */
  readonly $sites: readonly string[];
}

/** Does a thread pass a mark without stopping? `at`: the entry or word that is about to change, or 0. */
export type Passes = (kind: number, point: number, at: number) => boolean;

/** Events by the numbers of scripts/interleave.mjs. */
export const EVENT_RACE = 1;
export const EVENT_YIELDS = 2;
export const EVENT_LOCK = 3;
export const EVENT_UNLOCK = 4;
export const EVENT_READERS = 5;
export const EVENT_NOTIFIERS = 6;
export const EVENT_CHOOSE = 7;
export type MarkEvent = readonly [kind: number, argument: number, at?: number];
type Running = Generator<MarkEvent, unknown, unknown>;

const DROPS = [RACE_ZAP_BATCH, RACE_SYNC_ROUND, RACE_TDP_YIELD];
const PASSED = [RACE_SLOT_WALK, RACE_FAULT_BEFORE_LOCK];

/** What a thread does: one of each list, one after the other. */
export interface ThreadPlan {
  readonly name: string;
  readonly program: readonly (readonly Operation[])[];
}

/** Runs what may be a generator to its end, nobody else running: no walk gives way, hardware chooses its first way. */
export function runAlone<T>(interleaved: InterleavedWorld, started: T): T {
  if (typeof (started as { next?: unknown }).next !== 'function') return started;
  const running = started as unknown as Running;
  interleaved.$run([], () => false);
  for (let value: unknown; ; ) {
    const step = running.next(value);
    if (step.done === true) return step.value as T;
    value = step.value[0] === EVENT_CHOOSE ? step.value[1] - 1 : false;
  }
}

export class Thread {
  readonly plan: ThreadPlan;
  readonly id: number;
  /** Operations begun. */
  at = 0;
  operation: Operation | null = null;
  event: MarkEvent | null = null;
  /** Places and variables of its suspended calls; see scripts/interleave.mjs. */
  stack: unknown[] = [];
  running: Running | null = null;
  /** 0, LOCK_MMU or LOCK_SHARED; and what it held before it gave way. */
  mmuLock = 0;
  dropped = 0;
  slots = false;
  reading = 0;
  notifying = 0;
  /** Threads whose reading it waits for. */
  readers: number[] = [];

  constructor(plan: ThreadPlan, id: number) {
    this.plan = plan;
    this.id = id;
  }

  reset(): void {
    this.at = 0;
    this.running = null;
    this.leave();
  }

  /** Its operation has ended, well or not. */
  leave(): void {
    this.operation = null;
    this.event = null;
    this.running = null;
    this.stack = [];
    this.mmuLock = 0;
    this.dropped = 0;
    this.slots = false;
    this.reading = 0;
    this.notifying = 0;
    this.readers = [];
  }

  get isIdle(): boolean {
    return this.running === null;
  }

  get isDone(): boolean {
    return this.running === null && this.at === this.plan.program.length;
  }

  get holdsLocks(): boolean {
    return this.mmuLock !== 0 || this.slots || this.reading !== 0 || this.notifying !== 0;
  }

  /** All that it knows, for the state's number. */
  state(into: unknown[]): void {
    into.push(this.at, this.operation, this.event?.[0], this.event?.[1], this.mmuLock, this.dropped, this.slots);
    into.push(this.reading, this.notifying, this.readers);
    for (let i = 0; i < this.stack.length; i += 2) {
      into.push(this.stack[i]);
      for (const value of (this.stack[i + 1] as () => unknown[])()) into.push(value);
    }
  }
}

/** Why a state must not be. */
export class Violation extends Error {}

export class Threads {
  readonly all: readonly Thread[];
  private readonly interleaved: InterleavedWorld;
  private readonly world: World;
  private readonly everyMark: boolean;
  private readonly untouched: Untouched | null;
  private readonly passes: Passes;
  /** Since the thread that runs was asked whether it gives way, it has only looked at entries of untouched frames. */
  private looks = false;
  /** It has released mmu_lock and not stopped there. */
  private releases = false;

  /** `untouched`: null: threads stop at each entry. `everyMark`: they stop even where nothing is lost if they don't. */
  constructor(
    interleaved: InterleavedWorld,
    world: World,
    plans: readonly ThreadPlan[],
    untouched: Untouched | null,
    everyMark: boolean,
  ) {
    this.everyMark = everyMark;
    this.untouched = untouched;
    this.passes = (kind, point, at) => this.pass(kind, point, at);
    this.interleaved = interleaved;
    this.world = world;
    this.all = plans.map((plan, id) => new Thread(plan, id));
  }

  reset(): void {
    for (const thread of this.all) thread.reset();
  }

  get areIdle(): boolean {
    return this.all.every((thread) => thread.isIdle);
  }

  get areDone(): boolean {
    return this.all.every((thread) => thread.isDone);
  }

  /** True: the thread that runs goes on, as if this mark were not there. */
  private pass(kind: number, point: number, at: number): boolean {
    const { untouched } = this;
    if (kind !== EVENT_YIELDS) {
      this.looks = false;
      return kind === EVENT_RACE && (PASSED.includes(point) || untouched?.isStoodFor(point, at) === true);
    }
    if (at === 0 || untouched === null) return false;
    const again = this.looks;
    this.looks = !this.everyMark && untouched.has(at);
    return (again && this.looks) || untouched.isStoodFor(point, at);
  }

  /** In how many ways a thread can go on now. While hardware is choosing, nobody else does anything. */
  ways(thread: Thread): number {
    if (thread.event?.[0] !== EVENT_CHOOSE && this.all.some((other) => other.event?.[0] === EVENT_CHOOSE)) return 0;
    if (thread.event === null) return thread.isDone ? 0 : thread.plan.program[thread.at].length;
    const [kind, argument] = thread.event;
    switch (kind) {
      case EVENT_YIELDS:
        return argument === RACE_TDP_SPIN ? 1 : 2;
      case EVENT_CHOOSE:
        return argument;
      case EVENT_LOCK:
        return this.isFree(thread, argument) ? 1 : 0;
      case EVENT_READERS:
        return thread.readers.length === 0 ? 1 : 0;
      case EVENT_NOTIFIERS:
        return this.all.some((other) => other.notifying !== 0) ? 0 : 1;
      default:
        return thread.dropped === 0 || this.isFree(thread, thread.dropped) ? 1 : 0;
    }
  }

  private isFree(thread: Thread, lock: number): boolean {
    const others = this.all.filter((other) => other !== thread);
    if (lock === LOCK_SLOTS) return !others.some((other) => other.slots);
    if (lock === LOCK_MMU) return !others.some((other) => other.mmuLock !== 0);
    if (lock === LOCK_SHARED) return !others.some((other) => other.mmuLock === LOCK_MMU);
    return true;
  }

  /** Lets a thread go on, in one of its ways, to its next mark. */
  step(thread: Thread, way: number): void {
    let value: unknown;
    this.looks = this.isLooking(thread, way);
    this.releases = false;
    let begins = thread.event === null;
    if (thread.event === null) {
      thread.operation = thread.plan.program[thread.at++][way];
      thread.stack = [];
      thread.running = this.interleaved.perform(this.world, thread.operation) as unknown as Running;
    } else value = this.take(thread, thread.event, way);
    this.interleaved.$run(thread.stack, this.passes);
    for (;;) {
      const event = this.next(thread, value);
      value = false;
      if (event === null) return;
      thread.event = event;
      if (begins && this.isEntered(thread, event)) this.take(thread, event, 0);
      else if (!this.arrive(thread, event) && !this.isAlone(thread)) return;
      begins = false;
    }
  }

  /**
   * The first mark of an operation, which has done nothing yet: a vCPU is about to enter the guest, or a lock is free. It
   * goes on, as others could as well have run before it began.
   */
  private isEntered(thread: Thread, [kind, argument]: MarkEvent): boolean {
    if (this.everyMark) return false;
    return kind === EVENT_LOCK ? this.isFree(thread, argument) : kind === EVENT_RACE && argument === RACE_ENTRY;
  }

  private isLooking({ event }: Thread, way: number): boolean {
    if (this.everyMark || event === null || event[0] !== EVENT_YIELDS || way !== 0) return false;
    const at = event[2] ?? 0;
    return at !== 0 && this.untouched?.has(at) === true;
  }

  /** At a mark where there is nothing to choose, and nobody else could go on: no need to stop. */
  private isAlone(thread: Thread): boolean {
    const kind = thread.event![0];
    if (this.everyMark || thread.dropped !== 0) return false;
    if (kind !== EVENT_RACE && kind !== EVENT_UNLOCK) return false;
    return this.all.every((other) => other === thread || this.ways(other) === 0);
  }

  /** What the thread gets as it goes on from a mark; it has what it waited for. */
  private take(thread: Thread, [kind, argument]: MarkEvent, way: number): unknown {
    if (kind === EVENT_CHOOSE) return way;
    if (kind === EVENT_YIELDS) return argument === RACE_TDP_SPIN || way === 1;
    if (kind === EVENT_LOCK) this.acquire(thread, argument);
    else if (thread.dropped !== 0) {
      thread.mmuLock = thread.dropped;
      thread.dropped = 0;
    }
    return false;
  }

  private acquire(thread: Thread, lock: number): void {
    if (lock === LOCK_SLOTS) thread.slots = true;
    else if (lock === LOCK_SRCU) thread.reading++;
    else if (lock === LOCK_NOTIFIER) thread.notifying++;
    else if (thread.mmuLock !== 0) throw new Violation(`${thread.plan.name} takes mmu_lock twice`);
    else thread.mmuLock = lock;
  }

  /** To the next mark; null: the operation has ended. */
  private next(thread: Thread, value: unknown): MarkEvent | null {
    try {
      const step = thread.running!.next(value);
      if (step.done !== true) return step.value;
    } catch (error) {
      // An ioctl that is refused; anything else is a broken invariant.
      if ((error as Error).constructor.name !== 'KvmError') throw new Violation((error as Error).message);
      thread.leave();
      return null;
    }
    if (thread.holdsLocks) throw new Violation(`${thread.plan.name} ends holding a lock`);
    thread.leave();
    return null;
  }

  /** True: it doesn't stop here. */
  private arrive(thread: Thread, [kind, argument]: MarkEvent): boolean {
    if (this.releases && (kind !== EVENT_UNLOCK || argument !== LOCK_SRCU))
      throw new Error(`${thread.plan.name} does something between its release of mmu_lock and that of the slots`);
    this.releases = false;
    if (kind === EVENT_RACE) {
      if (DROPS.includes(argument)) {
        thread.dropped = thread.mmuLock;
        thread.mmuLock = 0;
      }
      return false;
    }
    if (kind === EVENT_UNLOCK) return this.release(thread, argument);
    if (kind === EVENT_READERS)
      thread.readers = this.all.filter((other) => other !== thread && other.reading !== 0).map(({ id }) => id);
    return false;
  }

  private release(thread: Thread, lock: number): boolean {
    if (lock === LOCK_SLOTS) thread.slots = false;
    else if (lock === LOCK_NOTIFIER) thread.notifying--;
    else if (lock === LOCK_SRCU) {
      if (--thread.reading === 0)
        for (const other of this.all) other.readers = other.readers.filter((id) => id !== thread.id);
      return true;
    } else if (thread.mmuLock !== lock)
      throw new Violation(`${thread.plan.name} releases mmu_lock, which it hasn't so`);
    else {
      thread.mmuLock = 0;
      // It will release the slots next, and does nothing in between.
      this.releases = thread.reading === 1 && !this.everyMark;
      return this.releases;
    }
    return false;
  }
}
