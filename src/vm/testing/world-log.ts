/**
 * The dirty logs of a world beside the oracle's. What was written is asked for twice: in the log at once, and in what the
 * ioctls report.
 */
import { DirtyModel } from '../../oracle/dirty-model.ts';
import { kickAll } from '../../mmu/mmu.ts';
import type { Vm } from '../vm.ts';
import { CODE_GFN, ENTRIES, FIRST_TABLE, LAST_TABLE, LOW_HOST_PAGE, SLOT_PLANS } from './guest-image.ts';
import { END_MEMORY, type Ending, type GuestModel } from './guest-model.ts';
import { fail, type WorldPlan } from './world-plan.ts';

export class WorldLog {
  /** By slot. */
  readonly logs: readonly DirtyModel[] = SLOT_PLANS.map((slot) => new DirtyModel(slot.pages));
  /** Pages written and not logged, as far as the policy may lose them. */
  lost = 0;
  private readonly plan: WorldPlan;
  private readonly vm: Vm;
  private readonly model: GuestModel;

  constructor(plan: WorldPlan, vm: Vm, model: GuestModel) {
    this.plan = plan;
    this.vm = vm;
    this.model = model;
  }

  bitmapOf(slot: number): Int32Array | null {
    return this.vm.mmu.slots[0].byId(slot)?.dirtyBitmap ?? null;
  }

  /** A page's memory changed by the guest's doing: it must be in the log now, not only when that is read. */
  noteWrite(slot: number, rel: number): void {
    const log = this.logs[slot];
    if (!log.on || this.plan.hostile) return;
    log.write(rel);
    // What the CPU keeps to itself is in the log as soon as it leaves the guest.
    if (this.vm.mmu.cpuDirtyLogSize !== 0) kickAll(this.vm.mmu);
    const bitmap = this.bitmapOf(slot);
    if (bitmap !== null && bitmap[rel >>> 5] & (1 << (rel & 31))) return;
    this.lose(`page ${rel} of slot ${slot} was written and is not in the log`);
  }

  private lose(what: string): void {
    if (!this.plan.mayLose) fail(`INVARIANT dirty: ${what}`);
    this.lost++;
  }

  /** A fault may have made the page writable, and so logged. */
  noteFault(ending: Ending): void {
    if (ending.kind !== END_MEMORY) return;
    const slot = this.model.slots[ending.slot];
    this.logs[ending.slot].readFault(ending.hostPage - slot.hostPage, this.model.rights[ending.hostPage] === 2);
  }

  /** Any fault may have been for the pages that every instruction needs. */
  noteSystemPages(): void {
    const log = this.logs[0];
    if (!log.on) return;
    log.becomeWritable(CODE_GFN);
    for (let gfn = FIRST_TABLE; gfn <= LAST_TABLE; gfn++) log.becomeWritable(gfn);
  }

  /** Shadow paging: a page that is brought up to date logs what its entries let be written. */
  noteTarget(gfn: number): void {
    if (this.plan.paging !== 'shadow') return;
    const slot = this.model.slotOf(gfn);
    if (slot !== null) this.logs[slot.id].becomeWritable(gfn - slot.baseGfn);
  }

  noteTargets(): void {
    for (const { table, index, level } of ENTRIES) {
      const lo = this.model.words[this.model.wordIndex(LOW_HOST_PAGE + table, 8 * index)];
      if (level <= 2 && lo & 1) this.noteTarget(lo >>> 12);
    }
    if (this.logs[0].on && this.plan.guest === 'tables') this.noteSystemPages();
  }

  /** Is what the log of a slot reports right? */
  judge(id: number, verdict: { missing: number[]; unfounded: number[] }): void {
    if (this.plan.hostile) return;
    for (const page of verdict.missing) this.lose(`page ${page} of slot ${id} is missing from the log`);
    for (const page of verdict.unfounded) {
      // As first merged, the fast fault logged a large mapping's first page, whichever was written.
      const first = (this.model.slots[id].baseGfn + page) % 512 === 0;
      if (this.plan.policy.fastFaultLarge === 'guarded' || !first)
        fail(`page ${page} of slot ${id} is in the log without reason`);
    }
  }
}
