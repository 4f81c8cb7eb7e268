/**
 * What the tables say about guest memory, read and not touched: how each 2 MiB region is mapped, and how many of its pages
 * the dirty log holds. For reports and views; nested paging only, where guest frames are what the tables translate.
 */
import type { TableArena } from '../mem/table-arena.ts';
import { isObsolete } from '../mmu/mmu.ts';
import { roleLevel } from '../mmu/role.ts';
import { childOf } from '../mmu/shadow-pages.ts';
import { isLast, isShadowPresent, isWritable } from '../mmu/spte.ts';
import type { Vm } from './vm.ts';

/** How the entry that a region hangs on looks: none, a large leaf, or a table of 4 KiB entries. */
export const REGION_UNMAPPED = 0;
export const REGION_LARGE_WRITABLE = 1;
export const REGION_LARGE_READ_ONLY = 2;
export const REGION_SPLIT = 3;

const REGION_SHIFT = 9;
const WORDS_PER_REGION = 16;

/**
 * The state of guest frames `512 * n` to `512 * n + 511` into `states[n]`, from the tables under the root that the vCPUs
 * run on. A root that is invalid or of an older generation maps nothing: no vCPU enters the guest on it again.
 */
export function regionStates(vm: Vm, states: Uint8Array): void {
  const { mmu } = vm;
  if (!mmu.tdp) throw new Error('regions can be inspected under nested paging only');
  states.fill(REGION_UNMAPPED);
  const root = vm.vcpus.map((vcpu) => vcpu.mmu.root.sp).find((sp) => sp !== 0) ?? 0;
  if (root === 0 || isObsolete(mmu, root)) return;
  const level = roleLevel(mmu.pages.role[root]);
  for (let region = 0; region < states.length; region++) {
    states[region] = stateAt(mmu.arena, root, level, region << REGION_SHIFT);
  }
}

/** Pages of each region that the dirty log of a slot names and nobody has got yet; all 0 while the slot isn't logged. */
export function regionDirtyPages(vm: Vm, slotId: number, pages: Uint16Array): void {
  pages.fill(0);
  const slot = vm.mmu.slots[0].byId(slotId);
  if (slot === null || slot.dirtyBitmap === null) return;
  if (slot.baseGfn % (1 << REGION_SHIFT) !== 0) throw new Error(`slot ${slotId} does not begin with a region`);
  const firstRegion = slot.baseGfn >>> REGION_SHIFT;
  const { dirtyBitmap } = slot;
  for (let word = 0; word < dirtyBitmap.length; word++) {
    for (let rest = dirtyBitmap[word]; rest !== 0; rest &= rest - 1) {
      pages[firstRegion + Math.floor(word / WORDS_PER_REGION)]++;
    }
  }
}

function stateAt(arena: TableArena, root: number, rootLevel: number, gfn: number): number {
  let table = root;
  for (let level = rootLevel; level >= 2; level--) {
    const at = 2 * ((table << 9) | ((gfn >>> (9 * (level - 1))) & 511));
    const lo = arena.words[at];
    if (!isShadowPresent(lo)) return REGION_UNMAPPED;
    if (isLast(lo, level)) return isWritable(lo) ? REGION_LARGE_WRITABLE : REGION_LARGE_READ_ONLY;
    table = childOf(lo, arena.words[at + 1]);
  }
  return REGION_SPLIT;
}
