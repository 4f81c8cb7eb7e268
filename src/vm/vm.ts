/**
 * A virtual machine with KVM's shape, as far as memory goes: slots, logs, limits, vCPUs, statistics.
 */
import { checkU32, checkU64 } from '../base/argument.ts';
import { E2BIG, EINVAL, KvmError } from '../base/errno.ts';
import { CPU_TCG, type CpuModel } from '../hw/cpu-model.ts';
import type { Tlb } from '../hw/tlb.ts';
import type { HostMemory } from '../mem/host-memory.ts';
import { DIRTY_GFN_BYTES, DIRTY_RING_MAX_ENTRIES, DIRTY_RING_RESERVED } from '../mem/dirty-ring.ts';
import { DirtyRings } from '../mmu/dirty-rings.ts';
import type { KernelVersion } from '../mmu/kernel-version.ts';
import { flushRemoteTlbs, Mmu } from '../mmu/mmu.ts';
import { MmuNotifier } from '../mmu/notifier.ts';
import { DEFAULT_RECOVERY_RATIO, recoverNxHugePages } from '../mmu/nx-recovery.ts';
import { changeMmuPages, zapAllFast } from '../mmu/page-zap.ts';
import type { Bugs } from '../mmu/bugs.ts';
import type { Policy } from '../mmu/policy.ts';
import type { EptFeatures } from '../mmu/spte-format.ts';
import { verify } from '../mmu/verify.ts';
import { Tracer } from '../trace/tracer.ts';
import {
  CAP_DIRTY_LOG_RING,
  CAP_DISABLE_QUIRKS,
  CAP_DISABLE_QUIRKS2,
  CAP_DIRTY_LOG_RING_ACQ_REL,
  CAP_MANUAL_DIRTY_LOG_PROTECT2,
  CAP_VM_DISABLE_NX_HUGE_PAGES,
  checkExtension,
  MAX_VCPUS,
  supportedQuirks,
  USER_MEM_SLOTS,
} from './capabilities.ts';
import { clearDirtyLog, getDirtyLog } from './dirty-log-ioctl.ts';
import { type MemoryRegion, setMemoryRegion } from './memory-region.ts';
import { Vcpu } from './vcpu.ts';

export {
  CAP_DIRTY_LOG_RING,
  CAP_DISABLE_QUIRKS,
  CAP_DISABLE_QUIRKS2,
  QUIRK_SLOT_ZAP_ALL,
  CAP_MANUAL_DIRTY_LOG_PROTECT2,
  CAP_VM_DISABLE_NX_HUGE_PAGES,
} from './capabilities.ts';
export type { MemoryRegion } from './memory-region.ts';
export { MEM_LOG_DIRTY_PAGES, MEM_READONLY } from '../mem/memslots.ts';
export { KERNEL_6_1, KERNEL_6_12, type KernelVersion } from '../mmu/kernel-version.ts';
export { type BugName, BUGS, type Bugs, withBugs } from '../mmu/bugs.ts';
export type { EptFeatures } from '../mmu/spte-format.ts';
export { POLICIES, type Policy, type PolicyName } from '../mmu/policy.ts';
export { findPreset, type Preset, type PresetName, PRESETS } from '../mmu/presets.ts';

/** @kvm KVM_MIN_ALLOC_MMU_PAGES */
const MIN_MMU_PAGES = 64;

export interface VmConfig {
  readonly host: HostMemory;
  /** Two-dimensional paging (NPT); false: shadow paging. */
  readonly npt: boolean;
  readonly policy?: Policy;
  /** The kernel whose MMU it is; Linux 6.1 if absent. */
  readonly kernel?: KernelVersion;
  /** For the museum: what shall be as it was before somebody mended it. */
  readonly bugs?: Bugs;
  readonly nxHugePages?: boolean;
  /** The TDP MMU in place of the rmap-based engine, as the kernel since 5.15; only with `npt`. @kvm tdp_mmu */
  readonly tdpMmu?: boolean;
  /** Absent: the policy's. Only the TDP MMU heeds it. @kvm eager_page_split */
  readonly eagerPageSplit?: boolean;
  /** Two-dimensional paging is Intel's: EPT, with these features; only with `npt`. @kvm enable_ept */
  readonly ept?: EptFeatures;
  /** Levels of the host's tables: NPT has as many, EPT's 5 only if the guest's addresses have more than 48 bits. */
  readonly hostLevels?: 4 | 5;
  /** Physical address bits of the guest's CPU; 40 if absent. */
  readonly guestMaxphyaddr?: number;
  readonly trace?: Tracer;
  readonly cpuModel?: CpuModel;
  /** Makes each vCPU's TLB; by default a set-associative one. */
  readonly tlb?: () => Tlb;
  /** Does each entry start with an empty TLB, as on the recording machine? True if absent. */
  readonly flushAtEntry?: boolean;
}

export class Vm {
  readonly mmu: Mmu;
  readonly trace: Tracer;
  readonly vcpus: Vcpu[] = [];
  private readonly cpuModel: CpuModel;
  private readonly makeTlb: (() => Tlb) | undefined;
  private readonly flushAtEntry: boolean;
  private nxParameter: boolean;
  private nxDisabled = false;
  /** nRequestedPages, exactly. */
  private requestedPages = 0n;

  constructor(config: VmConfig) {
    this.trace = config.trace ?? new Tracer();
    this.mmu = new Mmu({
      host: config.host,
      trace: this.trace,
      tdp: config.npt,
      policy: config.policy,
      kernel: config.kernel,
      bugs: config.bugs,
      nxHugePages: config.nxHugePages,
      tdpMmu: config.tdpMmu,
      eagerPageSplit: config.eagerPageSplit,
      ept: config.ept,
      hostLevels: config.hostLevels,
      guestMaxphyaddr: config.guestMaxphyaddr,
    });
    this.nxParameter = config.nxHugePages ?? false;
    this.cpuModel = config.cpuModel ?? CPU_TCG;
    this.makeTlb = config.tlb;
    this.flushAtEntry = config.flushAtEntry ?? true;
    config.host.notifier = new MmuNotifier(this.mmu);
  }

  get stats(): Mmu['stats'] {
    return this.mmu.stats;
  }

  /** Invariants that do not hold, a line each. Slow. */
  verify(): string[] {
    return verify(this.mmu);
  }

  /** @kvm KVM_CREATE_VCPU */
  createVcpu(): Vcpu {
    if (this.vcpus.length >= MAX_VCPUS) throw new KvmError(EINVAL, `more than ${MAX_VCPUS} vCPUs`);
    const vcpu = new Vcpu(this.mmu, this.vcpus.length, this.cpuModel, this.makeTlb?.());
    vcpu.cpu.flushAtEntry = this.flushAtEntry;
    this.vcpus.push(vcpu);
    this.mmu.vcpus.push(vcpu.mmu);
    return vcpu;
  }

  /** Throws KvmError with the kernel's errno. @kvm KVM_SET_USER_MEMORY_REGION */
  setUserMemoryRegion(region: MemoryRegion<number | bigint>): void {
    setMemoryRegion(this.mmu, region);
  }

  /** Words of 32 pages, whole 64-page words. @kvm KVM_GET_DIRTY_LOG */
  getDirtyLog(slot: number): Int32Array {
    return getDirtyLog(this.mmu, slot);
  }

  /**
   * Bit i of `bitmap` stands for page firstPage + i; it has whole 64-page words for all numPages, or is refused with
   * EFAULT. @kvm KVM_CLEAR_DIRTY_LOG
   */
  clearDirtyLog(slot: number, firstPage: number | bigint, numPages: number, bitmap: Int32Array): void {
    clearDirtyLog(this.mmu, slot, firstPage, numPages, bitmap);
  }

  /** 0 for what isn't there. @kvm KVM_CHECK_EXTENSION */
  checkExtension(capability: number): number {
    return checkExtension(this.mmu, capability);
  }

  /**
   * MANUAL_DIRTY_LOG_PROTECT2: argument bit 0, manual protection; bit 1 (only with bit 0), logs start all ones.
   * VM_DISABLE_NX_HUGE_PAGES: argument 0, before there are vCPUs. @kvm KVM_ENABLE_CAP
   */
  enableCap(cap: number, argument: number | bigint, flags = 0): void {
    checkU32(cap, 'capability');
    const value = checkU64(argument, 'argument');
    if (checkU32(flags, 'flags') !== 0) throw new KvmError(EINVAL, `flags 0x${flags.toString(16)}`);
    if (cap === CAP_MANUAL_DIRTY_LOG_PROTECT2) this.setManualProtect(value);
    else if (cap === CAP_VM_DISABLE_NX_HUGE_PAGES) this.disableNxHugePages(value);
    else if (cap === CAP_DIRTY_LOG_RING || cap === CAP_DIRTY_LOG_RING_ACQ_REL) this.enableRings(value);
    else if (cap === CAP_DISABLE_QUIRKS || cap === CAP_DISABLE_QUIRKS2) this.disableQuirks(cap, value);
    else throw new KvmError(EINVAL, `capability ${cap}`);
  }

  /** Quirks that are off once stay off. */
  private disableQuirks(cap: number, value: bigint): void {
    const valid = BigInt(supportedQuirks(this.mmu));
    if (cap === CAP_DISABLE_QUIRKS2 && (value & ~valid) !== 0n)
      throw new KvmError(EINVAL, `quirks 0x${value.toString(16)}`);
    this.mmu.disabledQuirks |= Number(value & valid);
  }

  /** What the kernel's worker does once; its period: `recoveryPeriodMs`. @kvm kvm_nx_huge_page_recovery_worker */
  recoverNxHugePages(ratio = DEFAULT_RECOVERY_RATIO): void {
    if (!Number.isInteger(ratio) || ratio < 0) throw new KvmError(EINVAL, `a recovery ratio of ${ratio}`);
    recoverNxHugePages(this.mmu, ratio);
  }

  /** @kvm kvm_vm_ioctl_enable_dirty_log_ring */
  private enableRings(bytes: bigint): void {
    // An int in the kernel.
    const size = Number(BigInt.asUintN(32, bytes));
    const isPowerOfTwo = size !== 0 && (size & (size - 1)) === 0;
    const reserved = DIRTY_RING_RESERVED + this.mmu.cpuDirtyLogSize;
    if (!isPowerOfTwo || size < reserved * DIRTY_GFN_BYTES || size < 4096)
      throw new KvmError(EINVAL, `a dirty ring of ${size} bytes`);
    if (size > DIRTY_RING_MAX_ENTRIES * DIRTY_GFN_BYTES) throw new KvmError(E2BIG, `a dirty ring of ${size} bytes`);
    if (this.mmu.rings !== null) throw new KvmError(EINVAL, 'there are dirty rings already');
    if (this.vcpus.length > 0) throw new KvmError(EINVAL, 'there are vCPUs already');
    this.mmu.rings = new DirtyRings(this.mmu, size);
  }

  /**
   * Re-arms the pages that user space has taken out of the rings (`DirtyRing.harvest`); how many.
   * @kvm KVM_RESET_DIRTY_RINGS
   */
  resetDirtyRings(): number {
    const { rings } = this.mmu;
    if (rings === null) throw new KvmError(EINVAL, 'there are no dirty rings');
    let count = 0;
    for (const ring of rings.rings) count += rings.reset(ring, USER_MEM_SLOTS);
    if (count > 0) flushRemoteTlbs(this.mmu);
    return count;
  }

  private setManualProtect(value: bigint): void {
    if (value !== 0n && value !== 1n && value !== 3n)
      throw new KvmError(EINVAL, `argument ${value} of manual protection`);
    this.mmu.manualProtect = value !== 0n;
    this.mmu.initiallySet = value === 3n;
  }

  /** The caller counts as one who may reboot the host (CAP_SYS_BOOT). */
  private disableNxHugePages(value: bigint): void {
    if (value !== 0n) throw new KvmError(EINVAL, `argument ${value} of VM_DISABLE_NX_HUGE_PAGES`);
    if (this.vcpus.length > 0) throw new KvmError(EINVAL, 'there are vCPUs already');
    this.nxDisabled = true;
    this.mmu.nxHugePages = false;
  }

  /** @kvm KVM_SET_NR_MMU_PAGES */
  setNrMmuPages(count: number | bigint): void {
    const exact = checkU64(count, 'number of MMU pages');
    if (exact < MIN_MMU_PAGES) throw new KvmError(EINVAL, `${count} MMU pages are less than ${MIN_MMU_PAGES}`);
    changeMmuPages(this.mmu, Number(exact));
    this.mmu.nRequestedPages = Number(exact);
    this.requestedPages = exact;
  }

  /**
   * An int, of which a system call makes an errno if it is one of the last 4095: as the kernel has it.
   * @kvm KVM_GET_NR_MMU_PAGES
   */
  getNrMmuPages(): number {
    const { nMaxPages, nRequestedPages } = this.mmu;
    const exact = nMaxPages === nRequestedPages ? this.requestedPages : BigInt(nMaxPages);
    const answer = Number(BigInt.asIntN(32, exact));
    if (answer < 0 && answer >= -4095) throw new KvmError(-answer, `${exact} MMU pages`);
    return answer;
  }

  /** Module parameter eager_page_split at run time; what is mapped stays as it is. */
  setEagerPageSplit(on: boolean): void {
    this.mmu.eagerPageSplit = on;
  }

  /** Module parameter nx_huge_pages at run time; a change zaps everything. @kvm set_nx_huge_pages */
  setNxHugePages(on: boolean): void {
    if (this.nxParameter === on) return;
    this.nxParameter = on;
    this.mmu.nxHugePages = on && !this.nxDisabled;
    zapAllFast(this.mmu);
  }
}
