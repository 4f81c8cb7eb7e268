/**
 * Explores every state that threads can bring a world to, breadth first, so that the first violation that is found has a
 * shortest trace.
 *
 * Generators can't be copied, so a state is come to by its schedule: the world is put back to its start and the threads are
 * stepped along it. A state is known again by its number (state.ts): all that can be reached from the world, and of each
 * thread its operation, its locks, and of each of its suspended calls the place and the local variables. A thread that is
 * the same in all of these goes on in the same way, as its code is deterministic and holds nothing else across a mark
 * (scripts/interleave.mjs checks that). No interleaving is left out but those that threads.ts tells of.
 *
 * Checked in each state: what threw, and what an access did. In those in which no thread is in the middle of something: the
 * invariants (mmu/verify.ts), and that no page is lost. In the end: that from each state there is a way to the end of all
 * threads, so that nobody waits or retries for ever.
 */
import { Untouched } from './alike.ts';
import { Snapshot, StateHash } from './state.ts';
import { type InterleavedWorld, runAlone, type ThreadPlan, Threads, Violation } from './threads.ts';
import type { Engine, Start, World } from './world.ts';

export interface Configuration {
  readonly name: string;
  readonly about: string;
  readonly start: Start;
  readonly threads: readonly ThreadPlan[];
}

/** One step of a schedule. */
export interface Step {
  readonly thread: number;
  readonly way: number;
}

export interface Exploration {
  readonly states: number;
  readonly transitions: number;
  /** Steps of the longest of the shortest schedules. */
  readonly depth: number;
  /** Numbers of the states in which all threads have come to their end, in order. */
  readonly ends: readonly number[];
  /** What is wrong, and a shortest schedule that shows it; null: nothing. */
  readonly violation: { readonly what: string; readonly schedule: readonly Step[] } | null;
}

const WAYS = 64;

/** Where threads stop, beside where they must. */
export interface Stops {
  /** At every mark, so that a schedule's length is that of its trace. More states, the same findings. */
  readonly everyMark?: boolean;
  /** At the entries of so many of the frames that nobody touches; Infinity: of all. 1 if absent. */
  readonly frames?: number;
}

/** Fields of pages that tell nothing of a page that was freed. */
interface DeadFields {
  readonly gfn: Int32Array;
  readonly rootCount: Int32Array;
  readonly hashNext: Int32Array;
  readonly newer: Int32Array;
  readonly older: Int32Array;
}

/** A world and its threads that can be brought to any state. */
export class Explorer {
  readonly world: World;
  readonly threads: Threads;
  private readonly interleaved: InterleavedWorld;
  private readonly start: Snapshot;
  private readonly hash: StateHash;
  private readonly scratch: Snapshot[];
  private readonly free: number[];
  private readonly pageFields: Int32Array[];

  constructor(interleaved: InterleavedWorld, engine: Engine, configuration: Configuration, stops: Stops = {}) {
    const { everyMark = false, frames = 1 } = stops;
    this.interleaved = interleaved;
    const world = runAlone(interleaved, interleaved.createWorld(engine, configuration.start));
    this.world = world;
    const untouched = frames === Infinity ? null : new Untouched(world, configuration, frames);
    this.threads = new Threads(interleaved, world, configuration.threads, untouched, everyMark);
    this.scratch = this.scratchOfVcpus();
    for (const scratch of this.scratch) scratch.restore();
    const { arena, pages } = world.vm.mmu as unknown as { arena: { freeList: number[] }; pages: DeadFields };
    this.free = arena.freeList;
    this.pageFields = [pages.gfn, pages.rootCount, pages.hashNext, pages.newer, pages.older];
    this.start = new Snapshot([this.world]);
    this.hash = new StateHash([this.world]);
  }

  /** What a vCPU's fault leaves behind in its own fields is dead when the next one begins: it is wiped. */
  private scratchOfVcpus(): Snapshot[] {
    return this.world.vm.vcpus.map(({ mmu, cpu }) => {
      const { fault, walk, tdpIter, guestWalk } = mmu;
      fault.slot = null;
      const { native } = cpu as unknown as { native: object };
      return new Snapshot([fault, walk, tdpIter, guestWalk, native], false);
    });
  }

  reset(): void {
    this.start.restore();
    this.threads.reset();
  }

  step({ thread, way }: Step): void {
    const one = this.threads.all[thread];
    this.threads.step(one, way);
    const { mmu } = this.world.vm;
    mmu.spteLo = 0x5a5a5a5a;
    mmu.spteHi = 0x5a5a5a5a;
    mmu.bytes.fill(0x5a);
    if (one.isIdle && thread < this.scratch.length) this.scratch[thread].restore();
    this.forgetFreed();
  }

  /**
   * Which of the free tables is taken next is nobody's business: the lowest. What a page was before it was freed is dead: each
   * of these fields is set when it is made anew.
   */
  private forgetFreed(): void {
    const { free } = this;
    if (free.length === 0) return;
    free.sort((a, b) => b - a);
    for (const field of this.pageFields) for (const table of free) field[table] = 0x5a5a;
  }

  number(): number {
    const parts: unknown[] = [];
    for (const thread of this.threads.all) thread.state(parts);
    return this.hash.of(parts);
  }

  /** What is wrong with the state at hand, or ''. */
  judge(): string {
    const { world } = this;
    if (world.fault !== '') return world.fault;
    if (!this.threads.areIdle) return '';
    const lost = world.lost();
    if (lost.length > 0) return `LOST: page ${lost.join(', page ')} was written and is neither copied nor in the log`;
    return runAlone(this.interleaved, world.vm.verify())[0] ?? '';
  }
}

export interface Limits extends Stops {
  readonly maxStates?: number;
  /** Called now and then. */
  readonly progress?: (states: number, depth: number) => void;
}

export function explore(
  interleaved: InterleavedWorld,
  engine: Engine,
  configuration: Configuration,
  { maxStates = 5_000_000, progress, ...stops }: Limits = {},
): Exploration {
  const explorer = new Explorer(interleaved, engine, configuration, stops);
  const { threads } = explorer;
  const known = new Map<number, number>();
  /** By state: the one it was found from, the step, its depth. */
  const parents: number[] = [-1];
  const steps: number[] = [-1];
  const depths: number[] = [0];
  const from: number[] = [];
  const to: number[] = [];
  const ends: number[] = [];
  const numbers: number[] = [];

  const scheduleTo = (state: number): Step[] => {
    const schedule: Step[] = [];
    for (let s = state; parents[s] >= 0; s = parents[s])
      schedule.push({ thread: Math.floor(steps[s] / WAYS), way: steps[s] % WAYS });
    return schedule.reverse();
  };
  const result = (what: string, schedule: readonly Step[]): Exploration => ({
    states: parents.length,
    transitions: from.length,
    depth: depths[depths.length - 1],
    ends: ends.map((state) => numbers[state]).sort((a, b) => a - b),
    violation: what === '' ? null : { what, schedule },
  });

  numbers.push(explorer.number());
  known.set(numbers[0], 0);
  for (let state = 0; state < parents.length; state++) {
    const schedule = scheduleTo(state);
    const come = (): void => {
      explorer.reset();
      for (const step of schedule) explorer.step(step);
    };
    come();
    const ways = threads.all.map((thread) => threads.ways(thread));
    if (threads.areDone) ends.push(state);
    else if (ways.every((count) => count === 0)) return result('DEADLOCK: no thread can go on', schedule);
    let fresh = true;
    for (const [thread, count] of ways.entries())
      for (let way = 0; way < count; way++) {
        if (!fresh) come();
        fresh = false;
        const step = { thread, way };
        const what = attempt(explorer, step);
        if (what === '') {
          const number = explorer.number();
          let next = known.get(number);
          if (next === undefined) {
            next = parents.length;
            known.set(number, next);
            numbers.push(number);
            parents.push(state);
            steps.push(thread * WAYS + way);
            depths.push(depths[state] + 1);
            const wrong = explorer.judge();
            if (wrong !== '') return result(wrong, [...schedule, step]);
          }
          from.push(state);
          to.push(next);
        } else return result(what, [...schedule, step]);
      }
    if (parents.length > maxStates) throw new RangeError(`${configuration.name}: more than ${maxStates} states`);
    if (state % 1000 === 0) progress?.(parents.length, depths[state]);
  }
  const stuck = stuckState(parents.length, from, to, ends);
  return stuck < 0
    ? result('', [])
    : result('STUCK: from here no way leads to the end of all threads', scheduleTo(stuck));
}

function attempt(explorer: Explorer, step: Step): string {
  try {
    explorer.step(step);
    return '';
  } catch (error) {
    if (error instanceof Violation) return error.message;
    throw error;
  }
}

/** The first state from which no end can be reached, or -1. */
function stuckState(states: number, from: readonly number[], to: readonly number[], ends: readonly number[]): number {
  const heads = new Int32Array(states).fill(-1);
  const next = new Int32Array(from.length);
  for (let edge = 0; edge < from.length; edge++) {
    next[edge] = heads[to[edge]];
    heads[to[edge]] = edge;
  }
  const good = new Uint8Array(states);
  const queue = [...ends];
  for (const state of queue) good[state] = 1;
  for (let at = 0; at < queue.length; at++)
    for (let edge = heads[queue[at]]; edge >= 0; edge = next[edge]) {
      if (good[from[edge]] !== 0) continue;
      good[from[edge]] = 1;
      queue.push(from[edge]);
    }
  return good.indexOf(0);
}
