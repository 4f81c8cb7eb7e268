/**
 * A vCPU's way to memory: what the CPU's software TLB doesn't know goes through the walkers of `hw/`, and what those
 * can't translate is an exit, which `mmu/` handles as KVM does. Nothing else of the machine translates an address.
 *
 *     translate --> requests, root --> walk: shadow tables, or guest x nested --+--> right: fill the software TLB
 *                        ^                                                      |
 *                        |                 doPageFault <-- exit (page fault) <--+
 *                        |                      |
 *                        +--------- retry ------+--> #PF for the guest
 *                                               +--> emulate: a device, or a write to a shadowed page table
 *
 * KVM emulates an instruction where we only let the CPU perform it: a device's page is answered by the bus, and a write to
 * a shadowed table by the page itself, for this one access. That KVM hears of the write (`mmuPteWrite`) comes as soon as
 * anyone could see the difference: before the next translation, or when the run ends. In between the TLB may be stale, as
 * any TLB may until the guest flushes it.
 *
 * Source: Linux 6.1 x86.c vcpu_enter_guest, mmu.c kvm_mmu_page_fault, svm.c.
 */
import { VMX_EXIT_EPT_MISCONFIG, VMX_EXIT_PML_FULL } from '../../arch/ept.ts';
import { KvmError } from '../../base/errno.ts';
import { pagingMode } from '../../arch/paging-mode.ts';
import {
  RIGHT_FETCH,
  RIGHT_READ,
  RIGHT_WRITE,
  TRANSLATE_EXIT,
  TRANSLATE_FAULT,
  TRANSLATE_MMIO,
  TRANSLATE_OK,
  type Translation,
} from '../../cpu/bus.ts';
import type { Cpu } from '../../cpu/cpu.ts';
import { CPL, CR3, FLAGS, LINEAR_RIP, PKRU } from '../../cpu/state.ts';
import { CPU_AMD, CPU_INTEL, type CpuModel, hostView } from '../../hw/cpu-model.ts';
import { EptNestedWalker } from '../../hw/ept-nested-walker.ts';
import { EptWalker } from '../../hw/ept-walker.ts';
import { NativeWalker } from '../../hw/native-walker.ts';
import { NestedWalker } from '../../hw/nested-walker.ts';
import { PmlBuffer } from '../../hw/pml-buffer.ts';
import {
  ACCESS_FETCH,
  ACCESS_USER,
  ACCESS_WRITE,
  cachedRightsSuffice,
  CTL_NX,
  CTL_WP,
  controlBits,
  WALK_NESTED,
  WALK_OK,
} from '../../hw/rights.ts';
import { pageShiftOf } from '../../hw/tlb.ts';
import type { TwoDimensionalWalker } from '../../hw/two-dimensional.ts';
import type { DirtyRing } from '../../mem/dirty-ring.ts';
import { FLAT_PFN } from '../../mem/flat-host.ts';
import { doPageFault } from '../../mmu/fault.ts';
import { hvaOfGfn, markPageDirty } from '../../mmu/guest-memory.ts';
import { guestLevels, initMmu } from '../../mmu/guest-mode.ts';
import { walkAddr } from '../../mmu/guest-walker.ts';
import { injectPageFault } from '../../mmu/inject.ts';
import { handleMmioPageFault, matchMmioGva } from '../../mmu/mmio-cache.ts';
import { type Mmu, vcpuSlot } from '../../mmu/mmu.ts';
import { RET_PF_EMULATE, RET_PF_INVALID } from '../../mmu/page-fault.ts';
import { unprotectPage } from '../../mmu/page-zap.ts';
import { mmuPteWrite } from '../../mmu/pte-write.ts';
import {
  REQ_LOAD_MMU_PGD,
  REQ_MMU_FREE_OBSOLETE_ROOTS,
  REQ_MMU_SYNC,
  REQ_TLB_FLUSH,
  REQ_TLB_FLUSH_CURRENT,
  REQ_TLB_FLUSH_GUEST,
  REQ_UPDATE_CPU_DIRTY_LOGGING,
} from '../../mmu/requests.ts';
import { freeObsoleteRoots, loadMmu, syncPrevRoots, syncRoots } from '../../mmu/roots.ts';
import { roleLevel } from '../../mmu/role.ts';
import { MmuVcpu, PAE_ROOT } from '../../mmu/vcpu.ts';
import { EXIT_REASON_VMX, TP_DIRTY_RING_EXIT, TP_EXIT, TP_PAGE_FAULT, TP_PML_FULL } from '../../trace/tracepoints.ts';
import { loadPdptrs } from '../control-registers.ts';
import { CR4_PAE, CR4_PKE, CR4_SMAP, CR4_SMEP, CpuState, isPaging } from '../cpu-state.ts';
import { eptErrorHi, eptErrorLo, eptModeOf, flushPmlBuffer, kickPml, updatePml } from '../vmx.ts';
import { LargePages } from './large-pages.ts';

const PFERR_WRITE_PRESENT = 3;
const PFERR_RSVD = 1 << 3;
const PFERR_GUEST_PAGE_HI = 1 << 1;
const RFLAGS_AC = 1 << 18;
const SVM_EXIT_PF = 0x4e;
const SVM_EXIT_NPF = 0x400;
/**
 * The CPU under EPT. It reads PAE's top level at each walk: what a real one keeps in registers it reads again whenever it loads
 * CR3 or enters the guest.
 */
const EPT_CPU: CpuModel = { ...CPU_INTEL, pdptes: 'memory' };
/** Emulated table writes that KVM hasn't been told of. */
const MAX_WRITTEN = 64;
/** A real KVM would go on for ever; every fault that it mends needs a few. */
const MAX_TRIES = 10_000;

export class MemoryUnit {
  readonly mmu: Mmu;
  readonly vcpu: MmuVcpu;
  /** The guest's registers as KVM sees them. */
  readonly regs = new CpuState();
  /** Why a translation asked for the end of the run, once it has. */
  failure: Error | null = null;
  /** Called at each exit, for whoever looks or checks. */
  onExit: () => void = () => {};

  /** Pages that this vCPU has written, where the VM logs so. */
  readonly dirtyRing: DirtyRing | null;
  /** The ring is full but for its reserve: user space is to take what is in it, and to reset it. */
  onRingFull: () => void = () => {};

  private cpu!: Cpu;
  private readonly ramBase: number;
  private readonly native: NativeWalker;
  private readonly nested: TwoDimensionalWalker;
  /** The same, where the second tables are EPT's. */
  private readonly ept: EptNestedWalker | null;
  /** The CPU's own log of dirty pages. */
  private readonly pml = new PmlBuffer();
  /** What the nested walker has found out about tables goes when KVM flushes the TLB. */
  private readonly flushed = { flushes: 0 };
  private readonly large = new LargePages();
  private controls = 0;

  private readonly writtenGfn = new Float64Array(MAX_WRITTEN);
  private readonly writtenAt = new Int32Array(MAX_WRITTEN);
  private written = 0;

  /** `ramBase`: address in the CPU's memory of the host's frame FLAT_PFN. */
  constructor(mmu: Mmu, id: number, ramBase: number) {
    this.mmu = mmu;
    this.ramBase = ramBase;
    this.native = new NativeWalker(mmu.arena, hostView(CPU_AMD), CTL_NX);
    const ept = eptModeOf(mmu);
    this.ept =
      ept === null
        ? null
        : new EptNestedWalker(mmu.host.phys, EPT_CPU, new EptWalker(mmu.arena, hostView(EPT_CPU), ept, this.pml));
    this.nested = this.ept ?? new NestedWalker(mmu.host.phys, CPU_AMD, this.native);
    this.nested.flushedWith = this.flushed;
    this.vcpu = new MmuVcpu(id, this.regs, {
      // No hypervisor runs in this machine's guest: its CPU has no SVM.
      leaveNestedGuest: () => {},
      queuePageFault: (errorCode) => {
        this.queuedError = errorCode;
      },
      refreshPdptrs: () => {
        if (mmu.tdp) loadPdptrs(mmu, this.vcpu, this.regs.cr3Lo);
      },
      flushTlbGva: (lo, hi) => this.forgetPage(lo, hi),
      flushTlbCurrent: () => this.flushTlb(),
      kick: () => kickPml(this.mmu, this.vcpu, this.pml, this.dirtyRing),
    });
    updatePml(mmu, this.pml);
    this.dirtyRing = mmu.rings === null ? null : mmu.rings.add(id);
    // All that writes guest memory here does so for this vCPU.
    if (mmu.rings !== null) mmu.rings.running = this.dirtyRing;
    mmu.vcpus.push(this.vcpu);
    initMmu(mmu, this.vcpu);
  }

  /** The guest is left, for whatever reason. */
  countExit(): void {
    this.vcpu.stats.exits++;
    this.flushPml();
    this.onExit();
  }

  /** What the CPU has logged of dirty pages comes into KVM's log. */
  flushPml(): void {
    flushPmlBuffer(this.mmu, this.vcpu, this.pml);
  }

  connect(cpu: Cpu): void {
    this.cpu = cpu;
  }

  // ---- translation -------------------------------------------------------------------------------------------------

  /** Error code of the #PF that KVM gave to the guest, or -1. */
  private queuedError = -1;

  /** See `Bus.translate`. */
  translate(lo: number, hi: number, access: number, out: Translation): number {
    const { mmu, vcpu } = this;
    if (this.written !== 0) this.tellWritten();
    this.loadControls();
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      this.makeRoomInRing();
      if (vcpu.requests !== 0) this.serveRequests();
      if (vcpu.root.sp === 0) {
        const result = loadMmu(mmu, vcpu);
        if (result < 0) return this.fail(new KvmError(-result, 'no shadow page is left for a root'));
        continue;
      }
      const table = vcpu.root.sp === PAE_ROOT ? vcpu.paeRootTable : vcpu.root.sp;
      const level = roleLevel(vcpu.rootRole);
      const outcome = mmu.tdp
        ? this.translateNested(table, level, lo, hi, access, out)
        : this.translateShadow(table, level, lo, hi, access, out);
      if (outcome >= 0) return outcome;
    }
    return this.fail(new Error(`KVM gets nowhere with the guest's access to ${hex(lo, hi)}`));
  }

  /** Lets user space empty the dirty ring if it is full but for its reserve. */
  makeRoomInRing(): void {
    const ring = this.dirtyRing;
    if (ring === null || !ring.isSoftFull) return;
    if (this.mmu.trace.on) this.mmu.trace.emit(TP_DIRTY_RING_EXIT, ring.index);
    this.countExit();
    this.onRingFull();
  }

  /** Control bits that hold while the guest runs; under shadow paging partly KVM's own. @kvm svm_set_cr0, svm_set_cr4 */
  private loadControls(): void {
    const { regs } = this;
    const { state } = this.cpu;
    const flags = state.get(FLAGS);
    regs.cpl = state.get(CPL);
    regs.ac = (flags & RFLAGS_AC) !== 0;
    regs.pkru = state.get(PKRU);
    if (this.mmu.tdp) {
      // CR3 isn't intercepted: the CPU has it, KVM reads it when it needs it.
      regs.cr3Lo = state.get(CR3);
      regs.cr3Hi = state.high(CR3);
      this.controls = controlBits(regs.cr0, regs.cr4, regs.efer, flags);
      this.nested.setMode(pagingMode(regs.cr0, regs.cr4, regs.efer), this.controls);
      this.nested.cr3Lo = regs.cr3Lo;
      this.nested.cr3Hi = regs.cr3Hi;
      this.nested.pkru = regs.pkru;
      return;
    }
    const cr4 = isPaging(regs) ? regs.cr4 : regs.cr4 & ~(CR4_SMEP | CR4_SMAP | CR4_PKE);
    this.controls = controlBits(regs.cr0, cr4 | CR4_PAE, regs.efer, flags) | CTL_WP | CTL_NX;
    this.native.setControls(this.controls);
    this.native.pkru = regs.pkru;
  }

  /** TRANSLATE_*, or -1: once more. */
  private translateNested(
    table: number,
    level: number,
    lo: number,
    hi: number,
    access: number,
    out: Translation,
  ): number {
    const { nested } = this;
    nested.nptRoot = table;
    nested.nptLevel = level;
    const result = nested.walk(lo, hi, access);
    if (result === WALK_OK) return this.found(lo, hi, access, nested.pfn, nested.attr, out);
    if (result !== WALK_NESTED) {
      out.errorCode = result;
      return TRANSLATE_FAULT;
    }
    if (this.ept !== null) return this.eptExit(this.ept, access, out);
    const { nestedGpaLo, nestedGpaHi, nestedErrorLo, nestedErrorHi } = nested;
    return this.pageFault(nestedGpaLo, nestedGpaHi, nestedErrorLo, nestedErrorHi, access, out);
  }

  private translateShadow(
    table: number,
    level: number,
    lo: number,
    hi: number,
    access: number,
    out: Translation,
  ): number {
    const { native } = this;
    const result = native.walk(table, level, lo, hi, access);
    if (result === WALK_OK) return this.found(lo, hi, access, native.pfn, native.attr, out);
    return this.pageFault(lo, hi, result, 0, access, out);
  }

  private found(lo: number, hi: number, access: number, pfn: number, attr: number, out: Translation): number {
    if (pageShiftOf(attr) > 12) this.large.add(lo, hi, pageShiftOf(attr));
    out.host = this.ramBase + (pfn - FLAT_PFN) * 4096;
    out.rights = this.rightsOf(attr, access);
    return TRANSLATE_OK;
  }

  /** What the software TLB may keep. No right to write while D is clear or KVM withholds it. */
  private rightsOf(attr: number, access: number): number {
    if (access & ACCESS_FETCH) return RIGHT_FETCH;
    const { controls } = this;
    const { pkru } = this.regs;
    const user = access & ACCESS_USER;
    return (
      (cachedRightsSuffice(attr, user, controls, pkru) ? RIGHT_READ : 0) |
      (cachedRightsSuffice(attr, user | ACCESS_WRITE, controls, pkru) ? RIGHT_WRITE : 0)
    );
  }

  private fail(error: Error): number {
    this.failure = error;
    return TRANSLATE_EXIT;
  }

  // ---- exits -------------------------------------------------------------------------------------------------------

  /** As `translateNested`. @kvm handle_ept_violation, handle_ept_misconfig, handle_pml_full */
  private eptExit(walker: EptNestedWalker, access: number, out: Translation): number {
    const { nestedGpaLo: lo, nestedGpaHi: hi, nestedErrorLo: qualification, exitReason } = walker;
    const { trace } = this.mmu;
    if (exitReason === VMX_EXIT_PML_FULL) {
      this.countExit();
      if (trace.on) {
        this.traceExit(EXIT_REASON_VMX | exitReason, 0, 0, 0, 0);
        trace.emit(TP_PML_FULL, this.vcpu.id);
      }
      return -1;
    }
    if (exitReason === VMX_EXIT_EPT_MISCONFIG) {
      this.countExit();
      if (trace.on) this.traceExit(EXIT_REASON_VMX | exitReason, 0, 0, 0, 0);
      return this.handleFault(lo, hi, PFERR_RSVD, 0, access, out);
    }
    this.countExit();
    if (trace.on) {
      this.traceExit(EXIT_REASON_VMX | exitReason, qualification, 0, 0, 0);
      this.traceFault(lo, hi, qualification, 0);
    }
    return this.handleFault(lo, hi, eptErrorLo(qualification), eptErrorHi(qualification), access, out);
  }

  /** As `translateNested`: a nested page fault of AMD's, or a #PF under shadow paging. */
  private pageFault(
    lo: number,
    hi: number,
    errorLo: number,
    errorHi: number,
    access: number,
    out: Translation,
  ): number {
    const { mmu } = this;
    this.countExit();
    if (mmu.trace.on) {
      this.traceExit(mmu.tdp ? SVM_EXIT_NPF : SVM_EXIT_PF, errorLo, errorHi, lo, hi);
      this.traceFault(lo, hi, errorLo, errorHi);
    }
    return this.handleFault(lo, hi, errorLo, errorHi, access, out);
  }

  /** As `translateNested`. @kvm kvm_mmu_page_fault */
  private handleFault(
    lo: number,
    hi: number,
    errorLo: number,
    errorHi: number,
    access: number,
    out: Translation,
  ): number {
    const { mmu, vcpu } = this;
    let result = RET_PF_INVALID;
    if (errorLo & PFERR_RSVD) result = handleMmioPageFault(mmu, vcpu, lo, hi);
    if (result === RET_PF_INVALID) {
      this.queuedError = -1;
      result = doPageFault(mmu, vcpu, lo, hi, errorLo, errorHi);
      if (this.queuedError >= 0) {
        out.errorCode = this.queuedError;
        return TRANSLATE_FAULT;
      }
    }
    if (result < 0) return this.fail(new KvmError(-result, `no memory for address ${hex(lo, hi)}`));
    if (result !== RET_PF_EMULATE) return -1;
    if (vcpu.isDirect && errorHi & PFERR_GUEST_PAGE_HI) {
      if ((errorLo & PFERR_WRITE_PRESENT) === PFERR_WRITE_PRESENT) {
        unprotectPage(mmu, (lo >>> 12) + hi * 0x100000);
        return -1;
      }
      return this.fail(new Error(`the guest's page tables lie at ${hex(lo, hi)}, where no memory is`));
    }
    return this.emulate(lo, hi, access, out);
  }

  /** The access that made KVM emulate: at a device, or a write to a page that is shadowed. */
  private emulate(lo: number, hi: number, access: number, out: Translation): number {
    const { mmu, vcpu } = this;
    let gfn = (lo >>> 12) + hi * 0x100000;
    if (!mmu.tdp && guestLevels(vcpu) !== 0) {
      if (matchMmioGva(mmu, vcpu, lo, hi)) gfn = vcpu.mmioGfn;
      else if (walkAddr(mmu, vcpu, vcpu.guestWalk, lo, hi, access & 0xff)) gfn = vcpu.guestWalk.gfn;
      else {
        this.queuedError = -1;
        injectPageFault(mmu, vcpu, vcpu.guestWalk);
        out.errorCode = this.queuedError;
        return TRANSLATE_FAULT;
      }
    }
    const slot = vcpuSlot(mmu, vcpu, gfn);
    const hva = hvaOfGfn(slot, gfn);
    const write = (access & ACCESS_WRITE) !== 0;
    if (hva < 0 || (write && slot!.isReadonly)) {
      vcpu.stats.mmio_exits++;
      out.gpaLo = gfn << 12;
      out.gpaHi = (gfn / 0x100000) | 0;
      return TRANSLATE_MMIO;
    }
    if (write) {
      markPageDirty(slot, gfn);
      if (this.written === MAX_WRITTEN) this.tellWritten();
      this.writtenGfn[this.written] = gfn;
      this.writtenAt[this.written++] = (lo & 0xfff) | (out.bytes << 16);
    }
    out.host = this.ramBase + (mmu.host.pfnAt(hva) - FLAT_PFN) * 4096;
    out.rights = 0;
    return TRANSLATE_OK;
  }

  /** KVM hears of the writes to shadowed tables that have happened. */
  tellWritten(): void {
    const count = this.written;
    this.written = 0;
    for (let i = 0; i < count; i++) {
      const at = this.writtenAt[i];
      mmuPteWrite(this.mmu, this.vcpu, this.writtenGfn[i], at & 0xffff, at >>> 16);
    }
  }

  private traceExit(reason: number, info1Lo: number, info1Hi: number, info2Lo: number, info2Hi: number): void {
    const { state } = this.cpu;
    const ripLo = state.get(LINEAR_RIP);
    const ripHi = state.high(LINEAR_RIP);
    this.mmu.trace.emit(TP_EXIT, reason, ripLo, ripHi, info1Lo, info1Hi, info2Lo, info2Hi, this.vcpu.id);
  }

  private traceFault(lo: number, hi: number, errorLo: number, errorHi: number): void {
    const { state } = this.cpu;
    const ripLo = state.get(LINEAR_RIP);
    const ripHi = state.high(LINEAR_RIP);
    this.mmu.trace.emit(TP_PAGE_FAULT, this.vcpu.id, ripLo, ripHi, lo, hi, errorLo, errorHi);
  }

  // ---- requests and flushes ----------------------------------------------------------------------------------------

  /** In KVM's order. @kvm vcpu_enter_guest */
  serveRequests(): void {
    const { mmu, vcpu } = this;
    if (this.take(REQ_MMU_FREE_OBSOLETE_ROOTS)) freeObsoleteRoots(mmu, vcpu);
    if (this.take(REQ_MMU_SYNC)) syncRoots(mmu, vcpu);
    this.take(REQ_LOAD_MMU_PGD);
    if (this.take(REQ_TLB_FLUSH)) {
      this.take(REQ_TLB_FLUSH_CURRENT);
      this.flushTlb();
    }
    if (this.take(REQ_TLB_FLUSH_CURRENT)) this.flushTlb();
    if (this.take(REQ_TLB_FLUSH_GUEST)) {
      if (!mmu.tdp) {
        syncRoots(mmu, vcpu);
        syncPrevRoots(mmu, vcpu);
      }
      this.flushTlb();
    }
    if (this.take(REQ_UPDATE_CPU_DIRTY_LOGGING)) updatePml(mmu, this.pml);
  }

  private take(request: number): boolean {
    const { vcpu } = this;
    if ((vcpu.requests & request) === 0) return false;
    vcpu.requests &= ~request;
    return true;
  }

  private flushTlb(): void {
    this.vcpu.stats.tlb_flush++;
    this.flushed.flushes++;
    this.cpu.tlb.flush();
    this.large.clear();
  }

  /** May the software TLB hold pieces of a large page around this address? */
  hasLargePage(lo: number, hi: number): boolean {
    return this.large.has(lo, hi);
  }

  /** INVLPG: the software TLB has large pages in pieces, which all go. */
  forgetPage(lo: number, hi: number): void {
    if (!this.large.has(lo, hi)) {
      this.cpu.tlb.flushPage(lo, hi);
      return;
    }
    this.cpu.tlb.flush();
    this.large.clear();
  }
}

function hex(lo: number, hi: number): string {
  return `0x${((hi >>> 0) * 4294967296 + (lo >>> 0)).toString(16)}`;
}
