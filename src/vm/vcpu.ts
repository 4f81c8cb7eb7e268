/**
 * A vCPU: KVM_RUN's loop between guest entries, exits and user space.
 *
 *     run -> finish what user space answered
 *         -> serve requests -> inject an exception -> make sure there is a root -> enter the guest
 *         -> handle the exit: a fault for the MMU, an instruction for the emulator, or a return to user space
 *
 * Source: Linux 6.1 x86.c vcpu_enter_guest, kvm_arch_vcpu_ioctl_run; svm.c.
 */
import { VMX_EXIT_EPT_MISCONFIG, VMX_EXIT_EPT_VIOLATION, VMX_EXIT_PML_FULL } from '../arch/ept.ts';
import { checkU64 } from '../base/argument.ts';
import { EFAULT, EINTR, EINVAL, KvmError } from '../base/errno.ts';
import type { CpuModel } from '../hw/cpu-model.ts';
import type { Tlb } from '../hw/tlb.ts';
import type { DirtyRing } from '../mem/dirty-ring.ts';
import { doPageFault } from '../mmu/fault.ts';
import { guestLevels, initMmu } from '../mmu/guest-mode.ts';
import { handleMmioPageFault, mmioInfoInCache } from '../mmu/mmio-cache.ts';
import { LOCK_SRCU, lock, unlock } from '../mmu/lock.ts';
import type { Mmu } from '../mmu/mmu.ts';
import { RET_PF_EMULATE, RET_PF_INVALID } from '../mmu/page-fault.ts';
import { unprotectPage } from '../mmu/page-zap.ts';
import { mapTdpPage } from '../mmu/prefault.ts';
import { RACE_ENTRY, race } from '../mmu/race.ts';
import {
  REQ_LOAD_MMU_PGD,
  REQ_MMU_FREE_OBSOLETE_ROOTS,
  REQ_MMU_SYNC,
  REQ_TLB_FLUSH,
  REQ_TLB_FLUSH_CURRENT,
  REQ_TLB_FLUSH_GUEST,
  REQ_TRIPLE_FAULT,
  REQ_UPDATE_CPU_DIRTY_LOGGING,
} from '../mmu/requests.ts';
import { freeObsoleteRoots, loadMmu, resetMmuContext, syncPrevRoots, syncRoots } from '../mmu/roots.ts';
import { roleLevel } from '../mmu/role.ts';
import { MmuVcpu, PAE_ROOT } from '../mmu/vcpu.ts';
import {
  EXIT_REASON_VMX,
  TP_DIRTY_RING_EXIT,
  TP_ENTRY,
  TP_EXIT,
  TP_INJ_EXCEPTION,
  TP_PAGE_FAULT,
  TP_PML_FULL,
} from '../trace/tracepoints.ts';
import { enterNested, exitToHypervisor, leaveNested, type NestedState } from './nested-state.ts';
import { loadPdptrs } from './control-registers.ts';
import { CpuState, isPaePaging } from './cpu-state.ts';
import { EMUL_ALLOW_RETRY, EMUL_PF, EMUL_WRITE_PF_TO_SP, Emulator, INVALID_GFN } from './emulator.ts';
import {
  EXIT_EPT_MISCONFIG,
  EXIT_EPT_VIOLATION,
  EXIT_INSTRUCTION,
  EXIT_IO,
  EXIT_NESTED_FAULT,
  EXIT_PAGE_FAULT,
  EXIT_PML_FULL,
  ScriptedCpu,
} from './scripted-cpu.ts';
import { eptErrorHi, eptErrorLo, eptModeOf, flushPmlBuffer, kickPml, updatePml } from './vmx.ts';

/** Why KVM_RUN returned. */
export type VcpuExit =
  | { readonly reason: 'io'; readonly port: number }
  | { readonly reason: 'mmio'; readonly isWrite: boolean; readonly gpa: number; readonly data: Uint8Array }
  | { readonly reason: 'internal'; readonly suberror: number }
  | { readonly reason: 'dirty ring full' }
  | { readonly reason: 'shutdown' };

/** System registers, as KVM_SET_SREGS takes them; those not given stay. */
export interface Sregs {
  cr0?: number;
  cr3?: bigint;
  cr4?: number;
  efer?: number;
  cpl?: number;
  idtBase?: number;
  gdtBase?: number;
  tssBase?: number;
}

/**
 * Some guests KVM can neither run nor give up: one whose page tables lie in no slot makes it emulate an instruction that it
 * can't fetch, again and again, until a signal comes. Ours comes after so many entries; a scripted guest needs a few.
 */
const MAX_ENTRIES = 10_000;
/** Highest frame of a guest: 40 bits of address. */
const MAX_GFN = 2 ** 28 - 1;
/** @kvm INVALID_GPA */
const INVALID_GPA = 2n ** 64n - 1n;
const PFERR_RSVD = 1 << 3;
const PFERR_GUEST_PAGE_HI = 1 << 1;
const PFERR_WRITE_PRESENT = 3;
/** Exit codes of SVM (AMD APM vol. 2, appendix C). */
const SVM_EXIT_PF = 0x4e;
const SVM_EXIT_IOIO = 0x7b;
const SVM_EXIT_INVLPG = 0x79;
const SVM_EXIT_SHUTDOWN = 0x7f;
const SVM_EXIT_NPF = 0x400;
/** Exit reasons of VMX (Intel SDM vol. 3, appendix C). */
const VMX_EXIT_TRIPLE_FAULT = 2;
const VMX_EXIT_INVLPG = 14;
const VMX_EXIT_CR_ACCESS = 28;
const VMX_EXIT_IO = 30;
/** IOIO: an `out` of one byte. */
const IOIO_BYTE = 0x10;
const VECTOR_DF = 8;
const VECTOR_PF = 14;
/** Exceptions that make another one a double fault: #DE #TS #NP #SS #GP. @kvm EXCPT_CONTRIBUTORY */
const CONTRIBUTORY = (1 << 0) | (1 << 10) | (1 << 11) | (1 << 12) | (1 << 13);

export class Vcpu {
  readonly id: number;
  readonly state = new CpuState();
  readonly mmu: MmuVcpu;
  readonly cpu: ScriptedCpu;
  readonly emulator: Emulator;
  exit: VcpuExit = { reason: 'shutdown' };
  /** Pages that this vCPU has written, where the VM logs so. */
  readonly dirtyRing: DirtyRing | null;
  /** User space is to answer an MMIO exit. */
  completeMmio = false;

  private readonly vm: Mmu;
  /** An `out` is finished at the next run, if rip is still at it. */
  private outPending = false;
  private outRip = 0;
  /** The exception to be delivered. Pending: found by KVM; injected: given to the CPU, and to be given again. */
  private exceptionPending = false;
  private exceptionInjected = false;
  private exceptionVector = 0;
  private exceptionHasError = false;
  private exceptionError = 0;
  private eventRequested = false;
  private pdptrsFresh = false;
  /** The hypervisor of the nested guest that runs. */
  private nestedState: NestedState | null = null;
  /** KVM's error code of the fault at hand. */
  private faultLo = 0;
  private faultHi = 0;

  constructor(vm: Mmu, id: number, model: CpuModel, tlb?: Tlb) {
    this.vm = vm;
    this.id = id;
    this.cpu = new ScriptedCpu(this.state, vm.arena, vm.host.phys, model, vm.tdp, eptModeOf(vm), tlb);
    this.dirtyRing = vm.rings === null ? null : vm.rings.add(id);
    const cpuTlb = this.cpu.tlb;
    this.mmu = new MmuVcpu(id, this.state, {
      leaveNestedGuest: (errorCode) => this.leaveNestedGuest(errorCode),
      queuePageFault: (errorCode, lo, hi) => {
        this.queueException(VECTOR_PF, true, errorCode);
        this.state.cr2Lo = lo;
        this.state.cr2Hi = hi;
      },
      refreshPdptrs: () => this.refreshPdptrs(),
      flushTlbGva: (lo, hi) => cpuTlb.flushGva(0, 0, lo, hi),
      flushTlbCurrent: () => cpuTlb.flushAsid(0),
      kick: () => kickPml(this.vm, this.mmu, this.cpu.pml, this.dirtyRing),
    });
    updatePml(vm, this.cpu.pml);
    // The CPU that it comes to first may have translations of others. @kvm vmx_vcpu_load_vmcs
    if (vm.ept !== null) this.mmu.requests |= REQ_TLB_FLUSH;
    this.emulator = new Emulator(vm, this);
    initMmu(vm, this.mmu);
  }

  // ---- ioctls ------------------------------------------------------------------------------------------------------

  /**
   * KVM_SET_REGS, for the instruction pointer; the general registers are `state.gpr`. An exception that was not delivered
   * yet is forgotten. @kvm __set_regs
   */
  setRip(lo: number, hi: number): void {
    this.emulator.replaceRegisters();
    this.state.ripLo = lo;
    this.state.ripHi = hi;
    this.exceptionPending = false;
    this.eventRequested = true;
  }

  /** A PAE guest's entries are read anew and its MMU reset, whatever changed. @kvm __set_sregs */
  setSregs(sregs: Sregs): void {
    const s = this.state;
    const cr3Lo = sregs.cr3 === undefined ? s.cr3Lo : Number(BigInt.asIntN(32, sregs.cr3));
    const cr3Hi = sregs.cr3 === undefined ? s.cr3Hi : Number(BigInt.asIntN(32, sregs.cr3 >> 32n));
    const { cr0 = s.cr0, cr4 = s.cr4, efer = s.efer } = sregs;
    let reset = cr3Lo !== s.cr3Lo || cr3Hi !== s.cr3Hi || efer !== s.efer || cr0 !== s.cr0 || cr4 !== s.cr4;
    Object.assign(s, { cr0, cr3Lo, cr3Hi, cr4, efer });
    s.cpl = sregs.cpl ?? s.cpl;
    s.idtBase = sregs.idtBase ?? s.idtBase;
    s.gdtBase = sregs.gdtBase ?? s.gdtBase;
    s.tssBase = sregs.tssBase ?? s.tssBase;
    if (isPaePaging(s)) {
      loadPdptrs(this.vm, this.mmu, s.cr3Lo);
      reset = true;
    }
    if (!reset) return;
    resetMmuContext(this.vm, this.mmu);
    if (this.vm.kernel.sregsFlush) this.mmu.requests |= REQ_TLB_FLUSH_GUEST;
  }

  /** Puts the vCPU into a nested guest, or (null) out of it. Throws a KvmError: EINVAL. @kvm KVM_SET_NESTED_STATE */
  setNestedState(state: NestedState | null): void {
    if (state === null) leaveNested(this.mmu);
    else enterNested(this.vm, this.mmu, this.state, state);
    this.nestedState = state;
  }

  /** The block tells the address that the CPU exited for, even if emulation found the fault elsewhere. */
  private leaveNestedGuest(errorCode: number): void {
    const { errorHi, addrLo, addrHi } = this.cpu;
    exitToHypervisor(this.vm, this.mmu, this.state, this.nestedState!, errorCode, errorHi, addrLo, addrHi);
    this.nestedState = null;
    this.clearException();
  }

  /** Guest-physical address of a gva by the guest's tables, or null. Both in bytes. @kvm KVM_TRANSLATE */
  translate(gva: bigint): bigint | null {
    // Without paging any address is its own translation, but for the one that means "none".
    if (guestLevels(this.mmu) === 0) return BigInt.asUintN(64, gva) === INVALID_GPA ? null : BigInt.asUintN(64, gva);
    const lo = Number(BigInt.asIntN(32, gva));
    const hi = Number(BigInt.asIntN(32, gva >> 32n));
    const gfn = this.emulator.gfnForSystem(lo, hi);
    return gfn === INVALID_GFN ? null : (BigInt(gfn) << 12n) | (gva & 0xfffn);
  }

  /**
   * KVM_RUN. 0: `exit` says why; negative: an errno, -EINTR for a guest that never gets anywhere. `answer` are the bytes
   * of an MMIO read that was asked for; `immediateExit`: only finish what is pending, then -EINTR.
   * @kvm kvm_arch_vcpu_ioctl_run
   */
  run(answer: Uint8Array = new Uint8Array(8), immediateExit = false): number {
    const { rings } = this.vm;
    if (rings === null) return this.runUntilExit(answer, immediateExit);
    rings.running = this.dirtyRing;
    try {
      return this.runUntilExit(answer, immediateExit);
    } finally {
      rings.running = null;
    }
  }

  private runUntilExit(answer: Uint8Array, immediateExit: boolean): number {
    if (this.outPending) {
      this.outPending = false;
      if (this.state.ripLo === this.outRip) this.state.ripLo = (this.outRip + 2) | 0;
    }
    if (this.completeMmio) {
      this.completeMmio = false;
      const result = this.emulator.completeMmio(answer);
      if (result <= 0) return result;
    }
    if (immediateExit) return -EINTR;
    for (let entries = 0; entries < MAX_ENTRIES; entries++) {
      const result = this.enterGuest();
      if (result <= 0) return result;
    }
    return -EINTR;
  }

  /**
   * Maps guest memory ahead of time; what is left of the range if it couldn't all be mapped. Throws a KvmError if nothing
   * could: ENOENT where there is no memory, EOPNOTSUPP under shadow paging. @kvm KVM_PRE_FAULT_MEMORY
   */
  preFaultMemory(gpa: number | bigint, bytes: number | bigint, flags = 0): { gpa: bigint; bytes: bigint } {
    const range = { gpa: checkU64(gpa, 'address'), bytes: checkU64(bytes, 'size') };
    const aligned = range.gpa % 4096n === 0n && range.bytes % 4096n === 0n;
    const end = BigInt.asUintN(64, range.gpa + range.bytes);
    if (!this.vm.kernel.preFault || flags !== 0 || !aligned || end <= range.gpa)
      throw new KvmError(EINVAL, `pre-faulting ${range.bytes} bytes at 0x${range.gpa.toString(16)}`);
    lock(LOCK_SRCU);
    for (let first = true; range.bytes > 0n; first = false) {
      const pages = mapTdpPage(this.vm, this.mmu, Number(range.gpa >> 12n));
      if (pages < 0 && first) {
        unlock(LOCK_SRCU);
        throw new KvmError(-pages, `0x${range.gpa.toString(16)} can't be mapped`);
      }
      if (pages < 0) break;
      const done = BigInt(pages) << 12n < range.bytes ? BigInt(pages) << 12n : range.bytes;
      range.gpa += done;
      range.bytes -= done;
    }
    unlock(LOCK_SRCU);
    return range;
  }

  /**
   * One access to a guest-physical page as a guest without page tables of its own makes it: TLB, nested tables, fault,
   * again, until it succeeds. `kind`: 0 read, 1 write, 2 fetch. Nested paging only. Allocates nothing. Throws a KvmError
   * with KVM_RUN's errno; EFAULT where there is no memory, or none that can be written; EINTR if the dirty ring is full.
   */
  touchPage(gfn: number, kind: number): void {
    if ((gfn & MAX_GFN) !== gfn || !isTouch(kind) || !this.vm.tdp)
      throw new KvmError(EINVAL, `touch ${kind} of page ${gfn}`);
    const { rings } = this.vm;
    if (rings === null) {
      this.touchUntilDone(gfn, kind);
      return;
    }
    rings.running = this.dirtyRing;
    try {
      this.touchUntilDone(gfn, kind);
    } finally {
      rings.running = null;
    }
  }

  /** Allocates nothing. */
  private touchUntilDone(gfn: number, kind: number): void {
    const { cpu, mmu } = this;
    for (;;) {
      if (this.dirtyRing?.isSoftFull) throw new KvmError(EINTR, `vCPU ${this.id}'s dirty ring is full`);
      race(RACE_ENTRY);
      if (mmu.requests !== 0) {
        this.serveRequests();
        continue;
      }
      if (mmu.root.sp === 0) {
        const result = loadMmu(this.vm, mmu);
        if (result < 0) throw new KvmError(-result, 'no shadow page is left for a root');
        continue;
      }
      cpu.root.table = mmu.root.sp;
      cpu.root.level = mmu.rootRole & 0xf;
      if (cpu.touch(gfn, kind)) return;
      mmu.stats.exits++;
      this.flushPml();
      if (cpu.exit === EXIT_PML_FULL) {
        this.tracePmlFull();
        continue;
      }
      if (cpu.exit !== EXIT_EPT_MISCONFIG) this.tracePageFault();
      this.readFault(cpu.exit);
      lock(LOCK_SRCU);
      const result = doPageFault(this.vm, mmu, cpu.addrLo, cpu.addrHi, this.faultLo, this.faultHi);
      unlock(LOCK_SRCU);
      if (result < 0) throw new KvmError(-result, `page ${gfn} can't be had`);
      if (result === RET_PF_EMULATE) throw new KvmError(EFAULT, `page ${gfn} is no memory, or none to be written`);
    }
  }

  private flushPml(): void {
    flushPmlBuffer(this.vm, this.mmu, this.cpu.pml);
  }

  // ---- entering the guest ------------------------------------------------------------------------------------------

  /** 1: go on, 0: to user space, negative: errno. @kvm vcpu_enter_guest */
  private enterGuest(): number {
    if (this.dirtyRing?.isSoftFull) return this.leaveForRing(this.dirtyRing);
    if (this.mmu.requests !== 0 && !this.serveRequests()) return 0;
    let vector = -1;
    if (this.eventRequested) {
      this.eventRequested = false;
      vector = this.injectEvent();
    }
    if (this.mmu.root.sp === 0) {
      const result = loadMmu(this.vm, this.mmu);
      if (result !== 0) {
        this.cancelInjection(vector);
        return result;
      }
    }
    if (this.mmu.requests !== 0) {
      this.cancelInjection(vector);
      return 1;
    }
    return this.handleExit(this.runCpu(vector));
  }

  private leaveForRing(ring: DirtyRing): number {
    this.exit = { reason: 'dirty ring full' };
    if (this.vm.trace.on) this.vm.trace.emit(TP_DIRTY_RING_EXIT, ring.index);
    return 0;
  }

  private runCpu(vector: number): number {
    const { cpu, mmu } = this;
    const pae = mmu.root.sp === PAE_ROOT;
    cpu.root.table = pae ? mmu.paeRootTable : mmu.root.sp;
    cpu.root.level = roleLevel(mmu.rootRole);
    const { trace } = this.vm;
    const { ripLo, ripHi } = this.state;
    if (trace.on) trace.emit(TP_ENTRY, this.id, ripLo, ripHi, 0);
    const exit = cpu.run(vector, this.exceptionHasError, this.exceptionError);
    if (trace.on) this.traceExit(exit, ripLo === this.state.ripLo ? ripHi : 0);
    mmu.stats.exits++;
    this.flushPml();
    this.pdptrsFresh = false;
    // What the CPU was delivering when it exited has to be delivered again. @kvm svm_complete_interrupts
    this.clearException();
    if (cpu.eventVector >= 0) {
      this.exceptionInjected = true;
      this.exceptionVector = cpu.eventVector;
      this.exceptionHasError = cpu.eventHasError;
      this.exceptionError = cpu.eventError;
      this.eventRequested = true;
    }
    return exit;
  }

  /** In KVM's order; false: a return to user space. */
  private serveRequests(): boolean {
    const { vm, mmu } = this;
    if (this.take(REQ_MMU_FREE_OBSOLETE_ROOTS)) freeObsoleteRoots(vm, mmu);
    if (this.take(REQ_MMU_SYNC)) syncRoots(vm, mmu);
    this.take(REQ_LOAD_MMU_PGD);
    if (this.take(REQ_TLB_FLUSH)) {
      mmu.stats.tlb_flush++;
      this.cpu.tlb.flushAll();
      this.take(REQ_TLB_FLUSH_CURRENT);
    }
    if (this.take(REQ_TLB_FLUSH_CURRENT)) {
      mmu.stats.tlb_flush++;
      this.cpu.tlb.flushAsid(0);
    }
    if (this.take(REQ_TLB_FLUSH_GUEST)) this.flushTlbGuest();
    if (this.take(REQ_UPDATE_CPU_DIRTY_LOGGING)) updatePml(vm, this.cpu.pml);
    if (!this.take(REQ_TRIPLE_FAULT)) return true;
    this.emulator.mmioNeeded = false;
    this.exit = { reason: 'shutdown' };
    return false;
  }

  /** The guest flushed everything: stale shadow pages must be synced for that to be true. @kvm kvm_vcpu_flush_tlb_guest */
  private flushTlbGuest(): void {
    this.mmu.stats.tlb_flush++;
    if (!this.vm.tdp) {
      syncRoots(this.vm, this.mmu);
      syncPrevRoots(this.vm, this.mmu);
    }
    this.cpu.tlb.flushAsid(0);
  }

  private take(request: number): boolean {
    if ((this.mmu.requests & request) === 0) return false;
    this.mmu.requests &= ~request;
    return true;
  }

  // ---- exceptions --------------------------------------------------------------------------------------------------

  /** @kvm kvm_multiple_exception */
  queueException(vector: number, hasError: boolean, error: number): void {
    this.eventRequested = true;
    if (this.exceptionPending || this.exceptionInjected) {
      const previous = this.exceptionVector;
      if (previous === VECTOR_DF) {
        this.mmu.requests |= REQ_TRIPLE_FAULT;
        return;
      }
      if (isDoubleFault(previous, vector)) {
        this.clearException();
        this.setPending(VECTOR_DF, true, 0);
        return;
      }
    }
    this.setPending(vector, hasError, error);
  }

  private setPending(vector: number, hasError: boolean, error: number): void {
    this.exceptionPending = true;
    this.exceptionInjected = false;
    this.exceptionVector = vector;
    this.exceptionHasError = hasError;
    this.exceptionError = error;
  }

  /** @kvm kvm_clear_exception_queue */
  clearException(): void {
    this.exceptionPending = false;
    this.exceptionInjected = false;
  }

  /** The vector to deliver with this entry, or -1. @kvm kvm_check_and_inject_events */
  private injectEvent(): number {
    if (!this.exceptionInjected && !this.exceptionPending) return -1;
    this.traceInject();
    this.exceptionPending = false;
    this.exceptionInjected = true;
    return this.exceptionVector;
  }

  private traceInject(): void {
    const { trace } = this.vm;
    if (!trace.on) return;
    const error = this.exceptionHasError ? this.exceptionError : 0;
    const reinjected = this.exceptionInjected ? 1 : 0;
    trace.emit(TP_INJ_EXCEPTION, this.exceptionVector, this.exceptionHasError ? 1 : 0, error, reinjected);
  }

  /** The entry didn't happen: what was to be injected is injected next time. @kvm svm_cancel_injection */
  private cancelInjection(vector: number): void {
    if (vector < 0) {
      this.clearException();
      return;
    }
    this.exceptionPending = false;
    this.exceptionInjected = true;
    this.eventRequested = true;
  }

  // ---- exits -------------------------------------------------------------------------------------------------------

  private handleExit(exit: number): number {
    const { cpu } = this;
    switch (exit) {
      case EXIT_IO:
        this.outPending = true;
        this.outRip = this.state.ripLo;
        this.exit = { reason: 'io', port: cpu.port };
        return 0;
      case EXIT_PAGE_FAULT:
        this.tracePageFault();
        if (this.exceptionInjected) this.unprotectVirt(cpu.addrLo, cpu.addrHi);
        return this.pageFault(exit);
      case EXIT_NESTED_FAULT:
      case EXIT_EPT_VIOLATION:
        this.tracePageFault();
        return this.pageFault(exit);
      case EXIT_EPT_MISCONFIG:
        return this.pageFault(exit);
      case EXIT_PML_FULL:
        this.tracePmlFull();
        return 1;
      case EXIT_INSTRUCTION:
        return this.emulator.emulate(0, 0, 0);
      default:
        this.exit = { reason: 'shutdown' };
        return 0;
    }
  }

  /**
   * Exit code and the two info words as an AMD CPU gives them; of an Intel one the reason, and the qualification of an EPT
   * violation. `nextRipHi`: TCG adds to the pointer that it was told, of
   * which it didn't use these bits.
   */
  private traceExit(exit: number, nextRipHi: number): void {
    const { cpu, state } = this;
    const { ripLo, ripHi } = state;
    let [reason, info1Lo, info1Hi, info2Lo, info2Hi] = [SVM_EXIT_SHUTDOWN, 0, 0, 0, 0];
    if (exit === EXIT_IO) {
      [reason, info1Lo, info2Lo, info2Hi] = [SVM_EXIT_IOIO, (cpu.port << 16) | IOIO_BYTE, ripLo + 2, nextRipHi];
    } else if (exit === EXIT_PAGE_FAULT || exit === EXIT_NESTED_FAULT) {
      reason = exit === EXIT_PAGE_FAULT ? SVM_EXIT_PF : SVM_EXIT_NPF;
      [info1Lo, info1Hi, info2Lo, info2Hi] = [cpu.errorLo, cpu.errorHi, cpu.addrLo, cpu.addrHi];
    } else if (exit === EXIT_INSTRUCTION) reason = cpu.interceptCode;
    if (this.vm.ept !== null) {
      const isViolation = exit === EXIT_EPT_VIOLATION;
      reason = EXIT_REASON_VMX | vmxReason(exit, cpu.interceptCode);
      [info1Lo, info1Hi, info2Lo, info2Hi] = [isViolation ? cpu.errorLo : 0, 0, 0, 0];
    }
    this.vm.trace.emit(TP_EXIT, reason, ripLo, ripHi, info1Lo, info1Hi, info2Lo, info2Hi, this.id);
  }

  private tracePageFault(): void {
    const { trace } = this.vm;
    if (!trace.on) return;
    const { addrLo, addrHi, errorLo, errorHi } = this.cpu;
    trace.emit(TP_PAGE_FAULT, this.id, this.state.ripLo, this.state.ripHi, addrLo, addrHi, errorLo, errorHi);
  }

  /** @kvm handle_pml_full */
  private tracePmlFull(): void {
    if (this.vm.trace.on) this.vm.trace.emit(TP_PML_FULL, this.id);
  }

  /** A fault while an event was delivered: pages that mirror what it hit go, lest it never get through. */
  private unprotectVirt(lo: number, hi: number): void {
    if (this.mmu.isDirect || !this.vm.kernel.unprotectsOnDelivery) return;
    unprotectPage(this.vm, this.emulator.gfnFor(lo, hi, 0));
  }

  /** KVM's error code of the exit at hand. @kvm handle_ept_violation, handle_ept_misconfig */
  private readFault(exit: number): void {
    const { errorLo, errorHi } = this.cpu;
    const isViolation = exit === EXIT_EPT_VIOLATION;
    this.faultLo = isViolation ? eptErrorLo(errorLo) : exit === EXIT_EPT_MISCONFIG ? PFERR_RSVD : errorLo;
    this.faultHi = isViolation ? eptErrorHi(errorLo) : errorHi;
  }

  /** @kvm kvm_mmu_page_fault */
  private pageFault(exit: number): number {
    const { vm, mmu } = this;
    const { addrLo, addrHi } = this.cpu;
    this.readFault(exit);
    const { faultLo: errorLo, faultHi: errorHi } = this;
    let type = EMUL_PF;
    let result = RET_PF_INVALID;
    if (errorLo & PFERR_RSVD) {
      result = handleMmioPageFault(vm, mmu, addrLo, addrHi);
      if (result === RET_PF_EMULATE) return this.emulator.emulate(addrLo, addrHi, type);
    }
    if (result === RET_PF_INVALID) {
      result = doPageFault(vm, mmu, addrLo, addrHi, errorLo, errorHi);
      if (mmu.fault.writeFaultToShadowPgtable) type |= EMUL_WRITE_PF_TO_SP;
    }
    if (result < 0) return result;
    if (result !== RET_PF_EMULATE) return 1;
    if (mmu.isDirect && errorHi & PFERR_GUEST_PAGE_HI && (errorLo & PFERR_WRITE_PRESENT) === PFERR_WRITE_PRESENT) {
      unprotectPage(vm, (addrLo >>> 12) + addrHi * 0x100000);
      return 1;
    }
    if (!mmu.isNested && !mmioInfoInCache(vm, mmu, addrLo, addrHi)) type |= EMUL_ALLOW_RETRY;
    return this.emulator.emulate(addrLo, addrHi, type);
  }

  /** Under nested paging the CPU reads the entries itself; KVM reads them once after each exit. @kvm svm_cache_reg */
  private refreshPdptrs(): void {
    if (!this.vm.tdp || this.pdptrsFresh) return;
    this.pdptrsFresh = true;
    loadPdptrs(this.vm, this.mmu, this.state.cr3Lo);
  }
}

/** @kvm kvm_vmx_exit_handlers */
function vmxReason(exit: number, interceptCode: number): number {
  switch (exit) {
    case EXIT_IO:
      return VMX_EXIT_IO;
    case EXIT_EPT_VIOLATION:
      return VMX_EXIT_EPT_VIOLATION;
    case EXIT_EPT_MISCONFIG:
      return VMX_EXIT_EPT_MISCONFIG;
    case EXIT_PML_FULL:
      return VMX_EXIT_PML_FULL;
    case EXIT_INSTRUCTION:
      return interceptCode === SVM_EXIT_INVLPG ? VMX_EXIT_INVLPG : VMX_EXIT_CR_ACCESS;
    default:
      return VMX_EXIT_TRIPLE_FAULT;
  }
}

function isTouch(kind: number): boolean {
  return kind === 0 || kind === 1 || kind === 2;
}

function isDoubleFault(first: number, second: number): boolean {
  const contributory = (vector: number): boolean => ((CONTRIBUTORY >>> vector) & 1) !== 0;
  if (first === VECTOR_PF) return second === VECTOR_PF || contributory(second);
  return contributory(first) && contributory(second);
}
