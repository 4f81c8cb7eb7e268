/**
 * Frames that nobody touches, where there are hundreds of them: a walk over their entries is one step.
 *
 *     page      0        1        2                     3        ...      511
 *               touched  touched  stands for the rest   does not stop
 *
 * A thread stops at the entries of frames that some operation of the configuration touches, and in each table at the first one after
 * these, which stands for all behind it: there it stops and gives way as well. The same goes for words of the log. `frames`:
 * how many there are of those that stand for the rest.
 * docs/checker.md says why nothing is lost with that.
 */
import { pagesPerLevel } from '../base/page.ts';
import { RACE_LOG_WORD } from '../mmu/race.ts';
import { indexOf, spOf } from '../mmu/shadow-pages.ts';
import type { Configuration } from './explore.ts';
import type { World } from './world.ts';

/** Pages in the two words of the log that are taken at a time. */
const PAGES_PER_TAKE = 64;

/** The page behind the last one that an operation names. */
function touchedEnd({ start, threads }: Configuration): number {
  let end = 0;
  for (const operation of [...start.before, ...threads.flatMap(({ program }) => program.flat())]) {
    const [, , page] = operation.split(' ');
    if (page !== undefined) end = Math.max(end, Number(page) + 1);
  }
  return end;
}

/** What a configuration leaves untouched. */
export class Untouched {
  private readonly world: World;
  private readonly end: number;
  /** The last of those that stand for the rest. */
  private readonly last: number;

  constructor(world: World, configuration: Configuration, frames: number) {
    this.world = world;
    this.end = touchedEnd(configuration);
    this.last = this.end + frames - 1;
  }

  /** Does an entry map only frames that nobody touches? */
  has(sptep: number): boolean {
    return this.firstFrame(sptep) >= this.end;
  }

  /** Is what is about to change, an entry or a word of the log, one of those that another stands for? */
  isStoodFor(point: number, at: number): boolean {
    if (at === 0) return false;
    if (point === RACE_LOG_WORD) return 32 * at - PAGES_PER_TAKE >= this.last;
    return indexOf(at) !== 0 && this.firstFrame(at - 1) >= this.last;
  }

  private firstFrame(sptep: number): number {
    const { pages } = this.world.vm.mmu;
    const sp = spOf(sptep);
    return pages.gfn[sp] + indexOf(sptep) * pagesPerLevel(pages.level(sp));
  }
}
