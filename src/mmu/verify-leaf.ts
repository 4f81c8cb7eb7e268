/** What holds of each leaf, whichever engine made it: its rights, and where a large one may stand. */
import { pagesPerLevel } from '../base/page.ts';
import { gfnToIndex, type MemSlot } from '../mem/memslots.ts';
import type { Mmu } from './mmu.ts';
import { isExecutable, isHostWritable, isLarge, isMmuWritable, isWritable } from './spte.ts';

/** Takes the name of an invariant and what breaks it. */
export type Report = (name: string, what: string) => void;

export class LeafRules {
  private readonly mmu: Mmu;
  private readonly report: Report;

  constructor(mmu: Mmu, report: Report) {
    this.mmu = mmu;
    this.report = report;
  }

  /** The present leaf at `sptep`, which maps `gfn` of `slot`. */
  check(slot: MemSlot, sptep: number, gfn: number, level: number): void {
    const { format } = this.mmu;
    const lo = this.mmu.arena.words[sptep << 1];
    const hi = this.mmu.arena.words[(sptep << 1) + 1];
    if (isWritable(lo) && !isMmuWritable(format, lo, hi))
      this.report('writable', `entry ${sptep}: W without MMU-writable`);
    if (isMmuWritable(format, lo, hi) && !isHostWritable(format, lo, hi))
      this.report('writable', `entry ${sptep}: MMU-writable without host-writable`);
    if (level > 1) this.checkLarge(slot, sptep, lo, hi, gfn, level);
    else if (isLarge(lo)) this.report('lpage', `entry ${sptep} of level 1 says it is large`);
  }

  private checkLarge(slot: MemSlot, sptep: number, lo: number, hi: number, gfn: number, level: number): void {
    const { mmu } = this;
    const at = gfnToIndex(gfn, slot.baseGfn, level);
    if (isEdge(slot, level, at)) this.report('lpage', `large entry ${sptep} of gfn ${gfn} sticks out of its slot`);
    else if ((isWritable(lo) || isMmuWritable(mmu.format, lo, hi)) && slot.lpageInfo[level - 2][at] !== 0)
      this.report('lpage', `large entry ${sptep} of gfn ${gfn} may write a shadowed table`);
    if (mmu.nxHugePages && isExecutable(mmu.format, lo, hi))
      this.report('nx', `large entry ${sptep} of gfn ${gfn} is executable`);
    const mayBeWritable = mmu.manualProtect && mmu.initiallySet;
    if (slot.logsDirty && isWritable(lo) && !mayBeWritable && mmu.policy.fastFaultLarge === 'guarded')
      this.report('logged', `large entry ${sptep} of gfn ${gfn} is writable`);
  }
}

/** Entry `at` of a slot's table of `level` covers frames outside of the slot, or host and guest don't match. */
export function isEdge(slot: MemSlot, level: number, at: number): boolean {
  const frames = pagesPerLevel(level);
  const first = Math.floor(slot.baseGfn / frames) * frames + at * frames;
  if (first < slot.baseGfn || first + frames > slot.baseGfn + slot.npages) return true;
  return (slot.userspaceAddr / 4096 - slot.baseGfn) % frames !== 0;
}
