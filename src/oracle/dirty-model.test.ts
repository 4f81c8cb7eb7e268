import { describe, expect, it } from 'vitest';
import { Prng } from '../base/prng.ts';
import { DirtyModel, MigrationModel } from './dirty-model.ts';

const CLEAN = { missing: [], unfounded: [] };

function logged(pages = 8, initiallySet = false): DirtyModel {
  const model = new DirtyModel(pages);
  model.enable(initiallySet);
  return model;
}

describe('DirtyModel', () => {
  it('demands each page written since the last collection, and no other', () => {
    const model = logged();
    model.write(3);
    model.write(5);
    expect(model.collect([3, 6])).toEqual({ missing: [5], unfounded: [6] });
    expect(model.mustContain()).toEqual([5]);
    expect(model.collect([5])).toEqual(CLEAN);
    expect(model.collect([])).toEqual(CLEAN);
  });

  it('allows, but does not demand, a page that a read fault made writable', () => {
    const model = logged();
    model.readFault(2, true);
    model.readFault(4, false);
    expect(model.collect([])).toEqual(CLEAN);
    expect(model.collect([2])).toEqual(CLEAN);
    expect(model.collect([2])).toEqual({ missing: [], unfounded: [2] });
    expect(model.collect([4])).toEqual({ missing: [], unfounded: [4] });
  });

  it('wants a page written during a collection in its report or in the next one', () => {
    const reported = logged();
    reported.write(1);
    reported.begin();
    reported.write(1);
    expect(reported.finish([1])).toEqual(CLEAN);
    expect(reported.mayContain()).toEqual([1]);
    expect(reported.collect([])).toEqual(CLEAN);

    const not = logged();
    not.begin();
    not.write(1);
    expect(not.finish([])).toEqual(CLEAN);
    expect(not.collect([])).toEqual({ missing: [1], unfounded: [] });
  });

  it('knows no page before the log is fully on, but allows those written while it is turned on', () => {
    const model = new DirtyModel(8);
    model.write(0);
    model.beginEnable();
    model.write(1);
    model.finishEnable();
    expect(model.mayContain()).toEqual([1]);
    expect(model.collect([])).toEqual(CLEAN);
  });

  it('demands every page at first when initially set', () => {
    const model = logged(3, true);
    expect(model.peek([0, 1])).toEqual({ missing: [2], unfounded: [] });
    model.clear([0, 1, 2]);
    expect(model.peek([])).toEqual(CLEAN);
  });

  it('with manual protect reports until cleared, and again what was written after', () => {
    const model = logged();
    model.write(1);
    model.write(2);
    expect(model.peek([1, 2])).toEqual(CLEAN);
    expect(model.peek([1, 2])).toEqual(CLEAN);
    model.clear([1]);
    expect(model.peek([2])).toEqual(CLEAN);
    model.write(1);
    expect(model.peek([2])).toEqual({ missing: [1], unfounded: [] });
  });

  it('with the ring reports once until reset', () => {
    const model = logged();
    model.write(1);
    expect(model.harvest([1])).toEqual(CLEAN);
    model.write(1);
    model.write(2);
    expect(model.harvest([])).toEqual({ missing: [2], unfounded: [] });
    expect(model.harvest([2])).toEqual(CLEAN);
    model.reset();
    model.write(1);
    expect(model.harvest([])).toEqual({ missing: [1], unfounded: [] });
  });

  it('forgets all when turned off', () => {
    const model = logged();
    model.write(1);
    model.disable();
    model.write(2);
    expect([model.mustContain(), model.mayContain()]).toEqual([[], []]);
  });

  it('refuses a page outside of the slot', () => {
    expect(() => logged(8).write(8)).toThrow(RangeError);
  });
});

describe('MigrationModel', () => {
  it('counts pages whose last version has not arrived', () => {
    const model = new MigrationModel(4);
    expect(model.destinationDiff().lost).toBe(4);
    model.sendAll();
    expect(model.destinationDiff()).toEqual({ lost: 0, pages: [] });
    model.write(2);
    model.write(2);
    model.send(2);
    model.write(3);
    expect(model.versionAt('destination', 2)).toBe(2n);
    expect(model.destinationDiff()).toEqual({ lost: 1, pages: [3] });
    expect(new MigrationModel(4, 'equal').destinationDiff().lost).toBe(0);
  });

  it('loses nothing if every round sends what the log must contain, and loses what a log hides', () => {
    for (const hidden of [false, true]) {
      const rng = new Prng(7);
      const log = logged(64);
      const migration = new MigrationModel(64);
      migration.sendAll();
      let hid: number | undefined;
      for (let round = 0; round < 20; round++) {
        for (let i = 0; i < 10; i++) {
          const page = rng.int(64);
          log.write(page);
          migration.write(page);
        }
        let report = log.mustContain();
        if (hidden && round === 19) hid = report[0];
        report = report.filter((page) => page !== hid);
        expect(log.collect(report).missing).toEqual(hid === undefined ? [] : [hid]);
        for (const page of report) migration.send(page);
      }
      expect(migration.destinationDiff().pages).toEqual(hid === undefined ? [] : [hid]);
    }
  });

  it('counts 511 of 512 pages when a log names one page of a large one (6b73a96065e8)', () => {
    const log = logged(512);
    const migration = new MigrationModel(512);
    migration.sendAll();
    for (let page = 0; page < 512; page++) {
      log.write(page);
      migration.write(page);
    }
    expect(log.collect([0]).missing).toHaveLength(511);
    migration.send(0);
    expect(migration.destinationDiff().lost).toBe(511);
  });
});
