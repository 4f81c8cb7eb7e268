/**
 * Walking a slot's reverse map: levels ascending, within each the heads of a range of frames in order, empty ones
 * skipped. Handlers say whether a flush is needed. Source: Linux 6.1 slot_rmap_walk_iterator, slot_handle_level_range.
 */
import { gfnToIndex, type MemSlot } from '../mem/memslots.ts';
import type { Mmu } from './mmu.ts';
import { RACE_SLOT_WALK, race } from './race.ts';

/** Called for a head that isn't empty; true if a flush is needed. */
export type RmapHandler = (mmu: Mmu, slot: MemSlot, heads: Int32Array, at: number, level: number) => boolean;

/** Frames [startGfn, endGfn) of a slot at levels `from` to `to`. True if any handler said so. */
export function walkSlotRmaps(
  mmu: Mmu,
  slot: MemSlot,
  from: number,
  to: number,
  startGfn: number,
  endGfn: number,
  handler: RmapHandler,
): boolean {
  let flush = false;
  if (slot.rmap.length === 0 || startGfn >= endGfn) return false;
  for (let level = from; level <= to; level++) {
    const heads = slot.rmap[level - 1];
    const last = gfnToIndex(endGfn - 1, slot.baseGfn, level);
    for (let at = gfnToIndex(startGfn, slot.baseGfn, level); at <= last; at++) {
      if (heads[at] === 0) continue;
      if (handler(mmu, slot, heads, at, level)) flush = true;
      race(RACE_SLOT_WALK);
    }
  }
  return flush;
}

/** All frames of a slot. */
export function walkWholeSlot(mmu: Mmu, slot: MemSlot, from: number, to: number, handler: RmapHandler): boolean {
  return walkSlotRmaps(mmu, slot, from, to, slot.baseGfn, slot.baseGfn + slot.npages, handler);
}
