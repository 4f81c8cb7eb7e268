/**
 * Pre-copy migration as a state machine: the whole of memory is copied while the guest runs, then, round by round, what
 * the dirty log says was written since; the last round is copied with the guest stopped. At the end both sides are
 * compared, page by page.
 *
 *     beginPrecopy --> round --> round --> ... --> finish --> PrecopyReport
 *      log on,          get, send                   last round, compare
 *      first copy
 *
 * Memory contents are versions: each write of the guest gives its page a new one, sending a page copies the version that
 * it has at that moment. The guest stands still while a round gets the log and sends (get and send are one instant), so
 * whatever the log names is sent as it was when the log was read. A page is *lost* if the destination's version differs
 * at the end; that is counted by comparing the two sides, and knows nothing of the log or the policy behind it.
 */

/** The dirty log of the guest's memory, as pre-copy needs it. */
export interface DirtyLog {
  /** Logs each write from now on. */
  start(): void;
  /** Pages written since the last call, or since the start: bit `n & 31` of word `n >> 5`. They are logged anew. */
  collect(): Int32Array;
}

export interface PrecopyRound {
  /** Pages that the log named; all of them are sent. */
  readonly dirtyPages: number;
  /** Those of them that the destination already had: sent for nothing. */
  readonly unchangedPages: number;
}

export interface PrecopyReport {
  /** In order; the last one is sent while the guest is stopped. */
  readonly rounds: readonly PrecopyRound[];
  /** Pages of the copy that is made when the log starts. */
  readonly firstCopyPages: number;
  /** Pages that the rounds sent. */
  readonly sentPages: number;
  /** Those of them that the destination already had. */
  readonly unchangedPages: number;
  /** Pages that the guest wrote after the first copy. */
  readonly writtenPages: number;
  /** Pages whose contents differ at the end. */
  readonly lostPages: number;
  /** The first of them, -1 if there is none. */
  readonly firstLostPage: number;
}

export interface Precopy {
  /** Versions at the source by page. `versions[page]++` is how the guest writes; nobody else may. */
  readonly versions: Uint32Array;
  /** Gets the log and sends what it names. */
  round(): PrecopyRound;
  /** A last round, then both sides are compared. Nothing may follow it. */
  finish(): PrecopyReport;
}

/** Starts the log and sends all of the `pages` pages once. */
export function beginPrecopy(log: DirtyLog, pages: number): Precopy {
  log.start();
  return new Copying(log, pages);
}

class Copying implements Precopy {
  readonly versions: Uint32Array;
  private readonly destination: Uint32Array;
  private readonly log: DirtyLog;
  private readonly rounds: PrecopyRound[] = [];
  private finished = false;

  constructor(log: DirtyLog, pages: number) {
    this.log = log;
    // The first copy: both sides begin with version 0 of everything.
    this.versions = new Uint32Array(pages);
    this.destination = new Uint32Array(pages);
  }

  round(): PrecopyRound {
    if (this.finished) throw new Error('a migration that is finished has no rounds');
    const round = this.send(this.log.collect());
    this.rounds.push(round);
    return round;
  }

  finish(): PrecopyReport {
    this.round();
    this.finished = true;
    const { rounds, versions } = this;
    return {
      rounds,
      firstCopyPages: versions.length,
      sentPages: rounds.reduce((sum, round) => sum + round.dirtyPages, 0),
      unchangedPages: rounds.reduce((sum, round) => sum + round.unchangedPages, 0),
      writtenPages: versions.reduce((sum, version) => sum + (version === 0 ? 0 : 1), 0),
      ...compareSides(versions, this.destination),
    };
  }

  private send(bitmap: Int32Array): PrecopyRound {
    const { versions, destination } = this;
    let dirtyPages = 0;
    let unchangedPages = 0;
    for (let word = 0; word < bitmap.length; word++) {
      for (let rest = bitmap[word]; rest !== 0; rest &= rest - 1) {
        const page = word * 32 + 31 - Math.clz32(rest & -rest);
        if (page >= versions.length) throw new Error(`the dirty log names page ${page} of ${versions.length}`);
        dirtyPages++;
        if (destination[page] === versions[page]) unchangedPages++;
        destination[page] = versions[page];
      }
    }
    return { dirtyPages, unchangedPages };
  }
}

function compareSides(
  source: Uint32Array,
  destination: Uint32Array,
): Pick<PrecopyReport, 'lostPages' | 'firstLostPage'> {
  let lostPages = 0;
  let firstLostPage = -1;
  for (let page = 0; page < source.length; page++) {
    if (source[page] === destination[page]) continue;
    if (lostPages++ === 0) firstLostPage = page;
  }
  return { lostPages, firstLostPage };
}
