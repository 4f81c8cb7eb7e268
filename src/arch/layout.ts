/**
 * Checks for the bit layouts of this room. Each layout file lists its fields once more, as `[name, lo, hi]`, and calls
 * `checkLayout` when it is imported: a bit that two fields claim, or that none does, stops the program at start.
 */
import { hex64 } from '../base/u64.ts';

/** A named field of a 32- or 64-bit word: its mask, low word first. */
export type Field = readonly [name: string, lo: number, hi: number];

/** Throws unless `fields` are disjoint and together cover exactly the bits of (`allLo`, `allHi`). */
export function checkLayout(layout: string, fields: readonly Field[], allLo: number, allHi: number): void {
  let seenLo = 0;
  let seenHi = 0;
  for (const [name, lo, hi] of fields) {
    if ((lo & seenLo) | (hi & seenHi)) {
      throw new Error(`${layout}: ${name} overlaps another field at ${hex64(lo & seenLo, hi & seenHi)}`);
    }
    if ((lo | hi) === 0) throw new Error(`${layout}: ${name} has no bits`);
    seenLo |= lo;
    seenHi |= hi;
  }
  if (seenLo !== (allLo | 0) || seenHi !== (allHi | 0)) {
    throw new Error(`${layout}: unnamed bits ${hex64(seenLo ^ allLo, seenHi ^ allHi)}`);
  }
}
