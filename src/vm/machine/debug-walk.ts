/**
 * Where a linear address of the guest is in its memory, for a debugger: by the guest's own tables as they are in memory, read and not
 * touched. No accessed or dirty bit is set, nothing is asked of the MMU or kept in a TLB, and no right is checked.
 */
import { CR4_PSE } from '../../arch/control.ts';
import { isCanonical, PAGING_32, PAGING_NONE, PAGING_PAE, pagingMode, tableIndex } from '../../arch/paging-mode.ts';
import type { CpuState } from '../../cpu/cpu-state.ts';
import { CR0, CR3, CR4, EFER } from '../../cpu/state.ts';

const P = 1;
const PS = 1 << 7;
/** Bits 51 to 32 of an address in an entry. */
const ADDRESS_HI = 0xfffff;
const GIB4 = 2 ** 32;

/** The guest-physical address, or -1 if the tables have none. */
export function debugWalk(state: CpuState, ram: DataView, lo: number, hi: number): number {
  const cr4 = state.get(CR4);
  const mode = pagingMode(state.get(CR0), cr4, state.get(EFER));
  if (!isCanonical(mode, hi)) return -1;
  if (mode === PAGING_NONE) return lo >>> 0;
  if (mode === PAGING_32) return walk32(ram, state.get(CR3), (cr4 & CR4_PSE) !== 0, lo);
  const base = mode === PAGING_PAE ? (state.get(CR3) & ~31) >>> 0 : frame(state.get(CR3), state.high(CR3));
  return walk64(ram, base, mode, lo, mode === PAGING_PAE ? 0 : hi);
}

function walk64(ram: DataView, root: number, levels: number, lo: number, hi: number): number {
  let table = root;
  for (let level = levels; ; level--) {
    const at = table + 8 * tableIndex(level, lo, hi);
    if (at + 8 > ram.byteLength) return -1;
    const entryLo = ram.getInt32(at, true);
    const entryHi = ram.getInt32(at + 4, true);
    if (!(entryLo & P)) return -1;
    const isLarge = (level === 2 || (level === 3 && levels > 3)) && (entryLo & PS) !== 0;
    if (level === 1 || isLarge) {
      const offset = (1 << (3 + 9 * level)) - 1;
      return frame(entryLo & ~offset, entryHi) + (lo & offset);
    }
    table = frame(entryLo, entryHi);
  }
}

function walk32(ram: DataView, cr3: number, pse: boolean, lo: number): number {
  const top = ((cr3 & ~4095) >>> 0) + 4 * (lo >>> 22);
  if (top + 4 > ram.byteLength) return -1;
  const entry = ram.getInt32(top, true);
  if (!(entry & P)) return -1;
  // PSE-36: bits 20 to 13 are bits 39 to 32 of the address.
  if (pse && entry & PS) return ((entry >>> 13) & 255) * GIB4 + ((entry & 0xffc00000) >>> 0) + (lo & 0x3fffff);
  const at = ((entry & ~4095) >>> 0) + 4 * ((lo >>> 12) & 1023);
  if (at + 4 > ram.byteLength) return -1;
  const leaf = ram.getInt32(at, true);
  return leaf & P ? ((leaf & ~4095) >>> 0) + (lo & 4095) : -1;
}

const frame = (lo: number, hi: number): number => (hi & ADDRESS_HI) * GIB4 + ((lo & ~4095) >>> 0);
