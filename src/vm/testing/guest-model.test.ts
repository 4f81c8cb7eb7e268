import * as fc from 'fast-check';
import { expect, it } from 'vitest';
import { translate } from '../../oracle/translate.ts';
import { ENTRIES, entryValue, LOW_HOST_PAGE, PAGE, ROOTS, VAS, writeTables } from './guest-image.ts';
import { ACCESS_FETCH, ACCESS_WRITE, GuestModel } from './guest-model.ts';

const LETTERS = ['r', 'w', 'x'] as const;
const WP = 1 << 16;
const SMEP = 1 << 20;
const SMAP = 1 << 21;

/** What the oracle says of an access: the gfn, or the error code as a negative number less one. */
function ask(model: GuestModel, v: number, va: number, access: number, user: boolean): number {
  const { root, wp, smep, smap } = model.controls[v];
  const result = translate({
    mode: 'long',
    cr0: BigInt(wp ? WP : 0),
    cr3: BigInt(root * PAGE),
    cr4: BigInt((smep ? SMEP : 0) | (smap ? SMAP : 0)),
    efer: 0xd00n,
    pkru: 0,
    ac: false,
    cpl3: user,
    implicit: false,
    access: LETTERS[access],
    va: BigInt(va),
    maxphyaddr: 40,
    read: (pa) => {
      const at = LOW_HOST_PAGE * 1024 + Number(pa) / 4;
      return (BigInt(model.words[at + 1] >>> 0) << 32n) | BigInt(model.words[at] >>> 0);
    },
    write: () => undefined,
  });
  return result.ok ? Number(result.pa / 4096n) : -1 - result.error;
}

it('translates as the oracle does, with its faults', () => {
  const number = fc.nat({ max: 0xffff });
  const edits = fc.array(fc.tuple(fc.nat({ max: ENTRIES.length - 1 }), number, number), { maxLength: 40 });
  const controls = fc.record({
    root: fc.constantFrom(...ROOTS),
    wp: fc.boolean(),
    smep: fc.boolean(),
    smap: fc.boolean(),
  });
  let granted = 0;
  let refused = 0;
  fc.assert(
    fc.property(edits, controls, (list, mode) => {
      const model = new GuestModel(1, 'tdp');
      writeTables((hostPage, offset, word) => {
        model.words[model.wordIndex(hostPage, offset)] = word;
      });
      Object.assign(model.controls[0], mode);
      for (const [n, choice, bits] of list) {
        const [lo, hi] = entryValue(ENTRIES[n], choice, bits);
        model.store(LOW_HOST_PAGE + ENTRIES[n].table, 8 * ENTRIES[n].index, lo, hi);
      }
      model.flush(0);
      VAS.forEach((va, i) => {
        for (let access = 0; access <= ACCESS_FETCH; access++)
          for (const user of [false, true]) {
            const translation = model.currentOf(0, i);
            const error = model.faultOf(translation, 0, access, user);
            const mine = error >= 0 ? -1 - error : model.targetOf(0, i, 0);
            expect(mine).toBe(ask(model, 0, va, access, user));
            if (error >= 0) refused++;
            else granted++;
          }
      });
    }),
    { numRuns: 60 },
  );
  expect(Math.min(granted, refused)).toBeGreaterThan(1000);
});

it('keeps what the tables said before the edit, until the vCPU flushes', () => {
  const model = new GuestModel(2, 'shadow');
  writeTables((hostPage, offset, word) => {
    model.words[model.wordIndex(hostPage, offset)] = word;
  });
  model.flush(0);
  model.flush(1);
  const old = model.targetOf(0, 0, 0);
  const { table, index } = ENTRIES[0];
  model.store(LOW_HOST_PAGE + table, 8 * index, (600 << 12) | 0x67, 0);
  model.endings(0, 0, ACCESS_WRITE, true);
  expect(model.found.slice(0, model.foundCount).map((ending) => ending.gfn)).toEqual([600, old]);
  model.flush(0);
  model.endings(0, 0, ACCESS_WRITE, true);
  expect(model.foundCount).toBe(1);
  model.endings(1, 0, ACCESS_WRITE, true);
  expect(model.foundCount).toBe(2);
  model.invalidate(1, 0);
  model.endings(1, 0, ACCESS_WRITE, true);
  expect(model.foundCount).toBe(1);
});
