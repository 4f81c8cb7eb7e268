/** The slots' tables as the recorder's `rmaps` shows them. Source: recorder/src/kstate.c kstate_dump_slots. */
import { MAX_HUGEPAGE_LEVEL } from '../base/page.ts';
import type { MemSlot } from '../mem/memslots.ts';
import type { Mmu } from '../mmu/mmu.ts';
import type { Place, SlotTables } from './recording.ts';

type PlaceOf = (sptep: number) => Place | undefined;

export function slotTables(mmu: Mmu, placeOf: PlaceOf): SlotTables | undefined {
  const rmaps: NonNullable<SlotTables['rmaps']>[number][] = [];
  const lpages: [number, number, number, number][] = [];
  for (const slot of mmu.slots[0].slots.toSorted((a, b) => a.baseGfn - b.baseGfn))
    for (let level = 1; level <= MAX_HUGEPAGE_LEVEL; level++) {
      slot.rmap[level - 1]?.forEach((head, index) => {
        if (head !== 0) rmaps.push({ slot: slot.id, level, index, sptes: placesOf(mmu, slot, level, index, placeOf) });
      });
      if (level === 1) continue;
      slot.lpageInfo[level - 2].forEach((count, index) => {
        if (count !== 0) lpages.push([slot.id, level, index, count]);
      });
    }
  if (rmaps.length === 0 && lpages.length === 0) return undefined;
  return { ...(rmaps.length > 0 ? { rmaps } : {}), ...(lpages.length > 0 ? { lpages } : {}) };
}

function placesOf(
  mmu: Mmu,
  slot: MemSlot,
  level: number,
  index: number,
  placeOf: PlaceOf,
): ([number, number] | null)[] {
  const { lists } = mmu;
  const heads = slot.rmap[level - 1];
  const sptes = [lists.first(heads, index)];
  for (let c = lists.next(lists.firstCursor(heads, index)); c !== 0; c = lists.next(c)) sptes.push(lists.at(c));
  return sptes.map((sptep) => {
    const place = placeOf(sptep);
    return place === undefined ? null : [place.sp, place.index];
  });
}
