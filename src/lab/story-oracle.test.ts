/**
 * The experiment held against the oracle: what each round of the engine's log must and may name, and which pages are lost,
 * as a model has it that sees the guest's accesses, the faults and the reports, and nothing of the engine or of `migrate/`.
 */
import { describe, expect, it } from 'vitest';
import { KIND_WRITE } from '../formats/pntrace.ts';
import { DirtyModel, type LogVerdict, MigrationModel } from '../oracle/dirty-model.ts';
import { STORY_POLICIES } from './policies.ts';
import { type ReplayMachine, replay } from './replay.ts';
import { syntheticTrace } from './synthetic.ts';

/** Passes everything through to a machine and tells the models of it. */
class WatchedMachine {
  readonly verdicts: LogVerdict[] = [];
  readonly sides: MigrationModel;
  readonly machine: ReplayMachine;

  constructor(inner: ReplayMachine, pages: number) {
    const dirty = new DirtyModel(pages);
    const sides = new MigrationModel(pages);
    this.sides = sides;
    this.machine = {
      ...inner,
      touch: (vcpu, page, kind) => {
        const faults = inner.touch(vcpu, page, kind);
        if (kind === KIND_WRITE) {
          dirty.write(page);
          // After the log is stopped both sides have been compared already.
          if (dirty.on) sides.write(page);
        } else if (faults > 0) dirty.readFault(page, true);
        return faults;
      },
      log: {
        start: () => {
          dirty.enable();
          inner.log.start();
          sides.sendAll();
        },
        collect: () => {
          const bitmap = inner.log.collect();
          const named = pagesOf(bitmap);
          this.verdicts.push(dirty.collect(named));
          for (const page of named) sides.send(page);
          return bitmap;
        },
      },
      stopLog: () => {
        dirty.disable();
        inner.stopLog();
      },
    };
  }
}

function pagesOf(bitmap: Int32Array): number[] {
  const pages: number[] = [];
  for (let page = 0; page < bitmap.length * 32; page++) {
    if ((bitmap[page >> 5] >>> (page & 31)) & 1) pages.push(page);
  }
  return pages;
}

describe.each(STORY_POLICIES)('by the oracle, $name', ({ makeMachine, loses }) => {
  it.each([11, 12, 13, 14, 15, 16, 17, 18])(
    `${loses ? 'misses writes' : 'names every page written and none without a reason'}, and its losses are counted right, seed %i`,
    (seed) => {
      const trace = syntheticTrace(seed);
      const { memBytes, vcpus } = trace.header;
      const watched = new WatchedMachine(makeMachine(memBytes, vcpus), memBytes / 4096);
      const { migration } = replay(trace, watched.machine, { roundEpochs: 7 + seed, seed });
      expect(watched.verdicts).toHaveLength(migration.rounds.length);
      const missing = watched.verdicts.flatMap((verdict) => verdict.missing);
      const unfounded = watched.verdicts.flatMap((verdict) => verdict.unfounded);
      expect(missing.length > 0).toBe(loses);
      expect(unfounded.length > 0).toBe(loses);
      const { lost, pages } = watched.sides.destinationDiff();
      expect(migration.lostPages).toBe(lost);
      expect(migration.firstLostPage).toBe(pages[0] ?? -1);
      expect(lost > 0).toBe(loses);
    },
  );
});
