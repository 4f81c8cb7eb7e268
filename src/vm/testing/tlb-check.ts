/** INVARIANT tlb: what a vCPU may use without another flush is in the tables (reference, I3). */
import { ATTR_HOST_NX, ATTR_HOST_W, ATTR_NX, ATTR_U, ATTR_W } from '../../hw/rights.ts';
import { isObsolete } from '../../mmu/mmu.ts';
import { REQ_TLB_FLUSH, REQ_TLB_FLUSH_CURRENT, REQ_TLB_FLUSH_GUEST } from '../../mmu/requests.ts';
import { childOf } from '../../mmu/shadow-pages.ts';
import { spteIndex } from '../../mmu/shadow-walk.ts';
import {
  hasAccessedDirty,
  isAccessTracked,
  isExecutable,
  isLast,
  isMmuWritable,
  isShadowPresent,
  pfnOf,
  restoredLo,
  SPTE_W,
} from '../../mmu/spte.ts';
import type { Vm } from '../vm.ts';
import { CODE_GFN, PAGE, USER_CODE, VAS } from './guest-image.ts';
import type { GuestModel } from './guest-model.ts';
import type { WatchedTlb } from './watched-tlb.ts';
import { fail, type WorldPlan } from './world-plan.ts';

const FLUSHES = REQ_TLB_FLUSH | REQ_TLB_FLUSH_CURRENT | REQ_TLB_FLUSH_GUEST;

export class TlbCheck {
  private readonly plan: WorldPlan;
  private readonly vm: Vm;
  private readonly model: GuestModel;
  private readonly tlbs: readonly WatchedTlb[];

  constructor(plan: WorldPlan, vm: Vm, model: GuestModel, tlbs: readonly WatchedTlb[]) {
    this.plan = plan;
    this.vm = vm;
    this.model = model;
    this.tlbs = tlbs;
  }

  /** Of a vCPU that has served its requests. */
  check(v: number): void {
    const { mmu } = this.vm.vcpus[v];
    if (mmu.requests & FLUSHES || mmu.root.sp <= 0 || isObsolete(this.vm.mmu, mmu.root.sp)) return;
    this.tlbVcpu = v;
    this.tlbs[v].forEach(this.checkEntry);
  }

  private tlbVcpu = 0;
  private readonly checkEntry = (lo: number, hi: number, pfn: number, level: number, attr: number): void => {
    const v = this.tlbVcpu;
    const root = this.vm.vcpus[v].mmu.root.sp;
    if (this.plan.paging === 'shadow' || this.plan.guest === 'touch') {
      if (this.grants(root, lo, hi, pfn, attr)) return;
      if (!this.grants(root, lo, hi, pfn, (attr & ATTR_W) | ATTR_NX) || !this.areRightsLegal(v, lo, level, attr))
        fail(`INVARIANT tlb: vCPU ${v} holds 0x${(lo >>> 0).toString(16)}`);
      return;
    }
    const needed = (attr & ATTR_HOST_W ? ATTR_W : 0) | (attr & ATTR_HOST_NX ? ATTR_NX : 0);
    if (lo >>> 18 === 0) {
      const gfn = lo === USER_CODE ? CODE_GFN : lo >>> 12;
      if (!this.grants(root, gfn << 12, 0, pfn, needed)) fail(`INVARIANT tlb: vCPU ${v} holds page ${gfn}`);
      return;
    }
    if (this.plan.hostile) return;
    const end = lo + PAGE * 512 ** (level - 1);
    for (let i = 0; i < VAS.length; i++) {
      const va = VAS[i];
      if (va < lo || va >= end) continue;
      if (!this.isNestedLegal(v, i, root, pfn + ((va - lo) >>> 12), needed))
        fail(`INVARIANT tlb: vCPU ${v} holds 0x${va.toString(16)}`);
    }
  };

  /**
   * A supervisor's write while CR0.WP is clear takes U, and with SMEP execution, from the entry without a flush. A TLB
   * may go on with what the guest's own tables grant.
   */
  private areRightsLegal(v: number, lo: number, level: number, attr: number): boolean {
    if (this.plan.hostile) return true;
    const end = lo + PAGE * 512 ** (level - 1);
    const isLegal = (va: number, i: number): boolean =>
      va >= lo && va < end && this.model.mayHave(v, i, (attr & ATTR_U) !== 0, (attr & ATTR_NX) === 0);
    return VAS.some(isLegal);
  }

  /** Some gfn that the guest's tables gave leads to the frame. */
  private isNestedLegal(v: number, i: number, root: number, pfn: number, attr: number): boolean {
    const { model } = this;
    for (let n = 0; ; n++) {
      const gfn = model.targetOf(v, i, n);
      if (gfn < 0) return false;
      if (this.grants(root, gfn << 12, gfn >>> 20, pfn, attr)) return true;
    }
  }

  /** Do the MMU's tables lead from the address to the frame, with at least these rights? */
  private grants(root: number, lo: number, hi: number, pfn: number, attr: number): boolean {
    const { arena, format, pages } = this.vm.mmu;
    const { words } = arena;
    let table = root;
    for (let level = pages.level(root); ; level--) {
      const at = (table << 10) | (2 * spteIndex(lo, hi, level));
      const entryLo = words[at];
      const entryHi = words[at + 1];
      if (!isShadowPresent(entryLo)) return false;
      if (!isLast(entryLo, level)) {
        table = childOf(entryLo, entryHi);
        continue;
      }
      const inside = (1 << (9 * (level - 1))) - 1;
      if ((pfnOf(entryLo, entryHi) & ~inside) + ((lo >>> 12) & inside) !== pfn) return false;
      // Access tracking takes rights away without a flush, and gives W back last: a TLB may keep what it has.
      const tracked = isAccessTracked(format, entryLo, entryHi);
      const rights = tracked ? restoredLo(format, entryLo, entryHi) : entryLo;
      const keepsWrite = !hasAccessedDirty(entryHi) && isMmuWritable(format, entryLo, entryHi);
      const mayWrite = (rights & SPTE_W) !== 0 || keepsWrite;
      if (attr & ATTR_W && !mayWrite) return false;
      if (attr & ATTR_U && !(rights & format.userLo)) return false;
      return (attr & ATTR_NX) !== 0 || isExecutable(format, rights, entryHi);
    }
  }
}
