/**
 * A seeded scheduler: threads with long programs, interleaved at random at the marks of the engine. Where `explore` sees all of
 * a small world, this sees a little of a large one. Every so often whoever is in the middle of something is brought to its
 * end, and the state is judged as `explore` judges it.
 */
import { Prng } from '../base/prng.ts';
import { type Configuration, Explorer, type Step } from './explore.ts';
import { type InterleavedWorld, type Thread, Violation } from './threads.ts';
import { type Engine, type Operation, PAGES } from './world.ts';

export interface RandomRun {
  readonly steps: number;
  /** States that were judged in full. */
  readonly judged: number;
  /** What is wrong, or null; and how it came to it. */
  readonly violation: string | null;
  readonly schedule: readonly Step[];
  readonly configuration: Configuration;
}

/** At rest after about so many steps. */
const BURST = 60;
/** A thread that is to come to its end and doesn't. */
const MAX_TO_END = 10_000;

export function randomConfiguration(seed: number, length: number): Configuration {
  const random = new Prng(seed);
  const access = (vcpu: number) => (): Operation =>
    `${random.int(3) === 0 ? 'read' : 'write'} ${vcpu} ${random.int(PAGES)}`;
  const oneOf = (operations: readonly Operation[]) => (): Operation => operations[random.int(operations.length)];
  const manual = ([undefined, 1, 3] as const)[random.int(3)];
  const log = manual === undefined ? (['get', 'get'] as const) : (['get', 'clear'] as const);
  const program = (count: number, next: () => Operation): Operation[][] =>
    Array.from({ length: count }, () => [next()]);
  return {
    name: `seed ${seed}`,
    about: 'random programs',
    start: { manual, before: ['write 0 1', 'read 1 1'] },
    threads: [
      { name: 'vcpu0', program: program(length, access(0)) },
      { name: 'vcpu1', program: program(length, access(1)) },
      { name: 'ioctl', program: program(length >> 1, oneOf(['log start', ...log, ...log, ...log, 'log stop'])) },
      { name: 'host', program: program(length >> 2, () => 'unmap') },
    ],
  };
}

export function runRandomly(interleaved: InterleavedWorld, engine: Engine, seed: number, length: number): RandomRun {
  const configuration = randomConfiguration(seed, length);
  const explorer = new Explorer(interleaved, engine, configuration, { everyMark: true, frames: Infinity });
  const { threads } = explorer;
  const random = new Prng(seed ^ 0x5eed);
  const schedule: Step[] = [];
  let judged = 0;
  const end = (violation: string | null): RandomRun => ({
    steps: schedule.length,
    judged,
    violation,
    schedule,
    configuration,
  });
  /** One step of one of these threads; what is wrong then, or ''. */
  const stepOne = (candidates: readonly Thread[]): string => {
    const able = candidates.filter((thread) => threads.ways(thread) > 0);
    if (able.length === 0) return 'DEADLOCK: no thread can go on';
    const thread = able[random.int(able.length)];
    const step = { thread: thread.id, way: random.int(threads.ways(thread)) };
    schedule.push(step);
    try {
      explorer.step(step);
    } catch (error) {
      if (error instanceof Violation) return error.message;
      throw error;
    }
    return explorer.world.fault;
  };
  while (!threads.areDone) {
    for (let n = random.int(2 * BURST); n > 0 && !threads.areDone; n--) {
      const wrong = stepOne(threads.all);
      if (wrong !== '') return end(wrong);
    }
    for (let n = 0; !threads.areIdle; n++) {
      const wrong = n > MAX_TO_END ? 'STUCK: an operation does not end' : stepOne(threads.all.filter((t) => !t.isIdle));
      if (wrong !== '') return end(wrong);
    }
    judged++;
    const wrong = explorer.judge();
    if (wrong !== '') return end(wrong);
  }
  return end(null);
}
