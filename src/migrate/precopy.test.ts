import { describe, expect, it } from 'vitest';
import { beginPrecopy, type DirtyLog } from './precopy.ts';

const PAGES = 64;

/** A log that answers what the test tells it to. */
function scriptedLog(...answers: number[][]): DirtyLog & { started: number } {
  let next = 0;
  return {
    started: 0,
    start() {
      this.started++;
    },
    collect() {
      const bitmap = new Int32Array(PAGES / 32);
      for (const page of answers[next++] ?? []) bitmap[page >> 5] |= 1 << (page & 31);
      return bitmap;
    },
  };
}

describe('a pre-copy migration', () => {
  it('starts the log once and copies everything at first', () => {
    const log = scriptedLog();
    const report = beginPrecopy(log, PAGES).finish();
    expect(log.started).toBe(1);
    expect(report).toMatchObject({ firstCopyPages: PAGES, sentPages: 0, writtenPages: 0, lostPages: 0 });
    expect(report.rounds).toHaveLength(1);
  });

  it('loses nothing when each written page is named once after its last write', () => {
    const precopy = beginPrecopy(scriptedLog([3, 31], [3, 32, 63]), PAGES);
    precopy.versions[3]++;
    precopy.versions[31]++;
    expect(precopy.round()).toEqual({ dirtyPages: 2, unchangedPages: 0 });
    precopy.versions[3]++;
    precopy.versions[32]++;
    precopy.versions[63]++;
    expect(precopy.finish()).toMatchObject({ sentPages: 5, writtenPages: 4, lostPages: 0, firstLostPage: -1 });
  });

  it('loses a page that the log never names', () => {
    const precopy = beginPrecopy(scriptedLog([5], []), PAGES);
    precopy.versions[5]++;
    precopy.versions[40]++;
    precopy.round();
    expect(precopy.finish()).toMatchObject({ lostPages: 1, firstLostPage: 40 });
  });

  it('loses a page that was sent and then written without being named again', () => {
    const precopy = beginPrecopy(scriptedLog([5], []), PAGES);
    precopy.versions[5]++;
    precopy.round();
    precopy.versions[5]++;
    expect(precopy.finish()).toMatchObject({ lostPages: 1, firstLostPage: 5 });
  });

  it('makes good what an earlier round missed', () => {
    const precopy = beginPrecopy(scriptedLog([], [5]), PAGES);
    precopy.versions[5]++;
    precopy.round();
    expect(precopy.finish().lostPages).toBe(0);
  });

  it('counts what is sent although the destination has it', () => {
    const precopy = beginPrecopy(scriptedLog([1, 2], [1, 2]), PAGES);
    precopy.versions[1]++;
    expect(precopy.round()).toEqual({ dirtyPages: 2, unchangedPages: 1 });
    expect(precopy.finish()).toMatchObject({ sentPages: 4, unchangedPages: 3, lostPages: 0 });
  });

  it('refuses a round after the end, and a log that names a page outside memory', () => {
    const precopy = beginPrecopy(scriptedLog(), PAGES);
    precopy.finish();
    expect(() => precopy.round()).toThrow('finished');
    const short = beginPrecopy(scriptedLog([40]), 33);
    expect(() => short.round()).toThrow('page 40 of 33');
  });
});
