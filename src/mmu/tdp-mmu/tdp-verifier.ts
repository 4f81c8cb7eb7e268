/**
 * The TDP MMU's invariants, at rest: no walk is under way.
 *
 *     roots     each vCPU's root is listed; a root counts the vCPUs' roots that name it, and one more until it was
 *               zapped; an invalid root awaits the request that drops it, and is empty once it was zapped
 *     child     a table hangs on one entry and knows it; its role and frames are those of its place
 *     frozen    no entry is frozen
 *     tables    each table is linked, or waits to be freed for somebody; so many are linked as are counted
 *     leaf      each leaf maps a frame of a slot; its rights and size are as everywhere (verify-leaf.ts)
 *     mmio      what is neither present nor empty is an MMIO entry
 */
import type { Mmu } from '../mmu.ts';
import { REQ_MMU_FREE_OBSOLETE_ROOTS } from '../requests.ts';
import { isInvalidRole, roleAddressSpace, roleLevel } from '../role.ts';
import { childOf, sptepAt } from '../shadow-pages.ts';
import { isLast, isMmioSpte, isRemoved, isShadowPresent } from '../spte.ts';
import type { MmuVcpu, RootInfo } from '../vcpu.ts';
import type { LeafRules, Report } from '../verify-leaf.ts';

const MAX_LEVEL = 3;

export class TdpVerifier {
  /** Leaves by level, and tables that only the NX mitigation made: what `run` found. */
  readonly leaves = new Int32Array(MAX_LEVEL + 1);
  nxSplits = 0;
  private readonly mmu: Mmu;
  private readonly rules: LeafRules;
  private readonly report: Report;
  private readonly seen = new Set<number>();

  constructor(mmu: Mmu, rules: LeafRules, report: Report) {
    this.mmu = mmu;
    this.rules = rules;
    this.report = report;
  }

  run(): void {
    const { mmu, seen } = this;
    this.leaves.fill(0);
    this.nxSplits = 0;
    seen.clear();
    for (const root of mmu.tdpRoots) this.checkRoot(root);
    for (const vcpu of mmu.vcpus) this.checkVcpu(vcpu);
    const linked = seen.size - mmu.tdpRoots.length;
    if (mmu.nTdpPages !== linked) this.report('tables', `${mmu.nTdpPages} tables are counted, ${linked} are linked`);
    if (mmu.rcuReaders !== 0) this.report('tables', `${mmu.rcuReaders} walks never ended`);
    const { tdp } = mmu.pages;
    for (let sp = tdp.indexOf(1); sp >= 0; sp = tdp.indexOf(1, sp + 1))
      if (!seen.has(sp) && !mmu.rcuPending.includes(sp)) this.report('tables', `table ${sp} is not linked`);
  }

  private checkRoot(root: number): void {
    const { mmu } = this;
    const { pages } = mmu;
    if (this.seen.has(root)) {
      this.report('roots', `root ${root} is listed twice`);
      return;
    }
    let users = 0;
    for (const vcpu of mmu.vcpus) {
      for (const { sp } of allRoots(vcpu)) if (sp === root) users++;
    }
    const isInvalid = isInvalidRole(pages.role[root]);
    const own = isInvalid && pages.zapScheduled[root] === 0 ? 0 : 1;
    if (pages.rootCount[root] !== users + own)
      this.report('roots', `root ${root} counts ${pages.rootCount[root]} references and has ${users + own}`);
    if (isInvalid) this.checkZapped(root);
    this.checkTable(root);
  }

  private checkZapped(root: number): void {
    if (this.mmu.pages.zapScheduled[root] !== 0) return;
    const { words } = this.mmu.arena;
    for (let i = 0; i < 512; i++)
      if (isShadowPresent(words[sptepAt(root, i) << 1])) this.report('roots', `root ${root} was zapped and maps`);
  }

  private checkVcpu(vcpu: MmuVcpu): void {
    for (const { sp } of allRoots(vcpu)) {
      if (sp <= 0 || this.mmu.pages.tdp[sp] === 0) continue;
      if (!this.mmu.tdpRoots.includes(sp)) this.report('roots', `vCPU ${vcpu.id} has root ${sp}, which isn't listed`);
      else if (isInvalidRole(this.mmu.pages.role[sp]) && (vcpu.requests & REQ_MMU_FREE_OBSOLETE_ROOTS) === 0)
        this.report('roots', `vCPU ${vcpu.id} keeps root ${sp}, which was zapped, and isn't asked to drop it`);
    }
  }

  private checkTable(sp: number): void {
    const { pages } = this.mmu;
    this.seen.add(sp);
    if (pages.possibleNx[sp] !== 0) this.nxSplits++;
    const level = roleLevel(pages.role[sp]);
    for (let i = 0; i < 512; i++) {
      const { words } = this.mmu.arena;
      const sptep = sptepAt(sp, i);
      const lo = words[sptep << 1];
      const hi = words[(sptep << 1) + 1];
      if ((lo | hi) === 0) continue;
      if (!isShadowPresent(lo)) this.checkAbsent(sptep, lo, hi);
      else if (isLast(lo, level)) this.checkLeaf(sp, sptep, pages.entryGfn(sp, i), level);
      else this.checkChild(sp, sptep, childOf(lo, hi), pages.entryGfn(sp, i));
    }
  }

  private checkAbsent(sptep: number, lo: number, hi: number): void {
    if (isRemoved(lo, hi)) this.report('frozen', `entry ${sptep} is frozen`);
    else if (!isMmioSpte(this.mmu.format, lo, hi))
      this.report('mmio', `entry ${sptep} is neither present nor MMIO nor empty`);
  }

  private checkLeaf(sp: number, sptep: number, gfn: number, level: number): void {
    const { mmu } = this;
    this.leaves[level]++;
    const slot = mmu.slots[roleAddressSpace(mmu.pages.role[sp])].find(gfn);
    if (slot === null) this.report('leaf', `entry ${sptep} maps gfn ${gfn}, which is in no slot`);
    else this.rules.check(slot, sptep, gfn, level);
  }

  private checkChild(sp: number, sptep: number, child: number, gfn: number): void {
    const { pages } = this.mmu;
    if (child <= 0 || child >= pages.tdp.length || pages.tdp[child] === 0) {
      this.report('child', `entry ${sptep} points at page ${child}, which isn't in use`);
      return;
    }
    if (this.seen.has(child)) {
      this.report('child', `table ${child} hangs on two entries`);
      return;
    }
    if (pages.parents[child] !== sptep)
      this.report('child', `table ${child} hangs on entry ${sptep}, not on ${pages.parents[child]}`);
    // A root may have become invalid since; its tables' roles don't tell.
    const expected = (pages.role[sp] - 1) & ~0x800;
    if (pages.role[child] !== expected || pages.gfn[child] !== gfn)
      this.report('child', `table ${child} below entry ${sptep} is of another place`);
    this.checkTable(child);
  }
}

/** Those in use and kept, a nested guest's included. */
function allRoots({ root, prevRoots, idle }: MmuVcpu): RootInfo[] {
  return [root, ...prevRoots, idle.root, ...idle.prevRoots];
}
