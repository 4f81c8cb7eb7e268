/**
 * A virtual machine with KVM's shape, as far as memory goes: slots, logs, limits, vCPUs, statistics.
 */
import { EINVAL, KvmError } from '../base/errno.ts';
import { CPU_TCG, type CpuModel } from '../hw/cpu-model.ts';
import type { HostMemory } from '../mem/host-memory.ts';
import { Mmu } from '../mmu/mmu.ts';
import { MmuNotifier } from '../mmu/notifier.ts';
import { changeMmuPages, zapAllFast } from '../mmu/page-zap.ts';
import type { Policy } from '../mmu/policy.ts';
import { verify } from '../mmu/verify.ts';
import { Tracer } from '../trace/tracer.ts';
import { clearDirtyLog, getDirtyLog } from './dirty-log-ioctl.ts';
import { type MemoryRegion, setMemoryRegion } from './memory-region.ts';
import { Vcpu } from './vcpu.ts';

export type { MemoryRegion } from './memory-region.ts';
export { MEM_LOG_DIRTY_PAGES, MEM_READONLY } from '../mem/memslots.ts';
export { POLICIES, type Policy, type PolicyName } from '../mmu/policy.ts';

/** @kvm KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
export const CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168;
/** @kvm KVM_MIN_ALLOC_MMU_PAGES */
const MIN_MMU_PAGES = 64;

export interface VmConfig {
  readonly host: HostMemory;
  /** Two-dimensional paging (NPT); false: shadow paging. */
  readonly npt: boolean;
  readonly policy?: Policy;
  readonly nxHugePages?: boolean;
  readonly trace?: Tracer;
  readonly cpuModel?: CpuModel;
}

export class Vm {
  readonly mmu: Mmu;
  readonly trace: Tracer;
  readonly vcpus: Vcpu[] = [];
  private readonly cpuModel: CpuModel;

  constructor(config: VmConfig) {
    this.trace = config.trace ?? new Tracer();
    this.mmu = new Mmu({
      host: config.host,
      trace: this.trace,
      tdp: config.npt,
      policy: config.policy,
      nxHugePages: config.nxHugePages,
    });
    this.cpuModel = config.cpuModel ?? CPU_TCG;
    config.host.notifier = new MmuNotifier(this.mmu);
  }

  get stats(): Mmu['stats'] {
    return this.mmu.stats;
  }

  /** Invariants that do not hold, a line each. Slow. */
  verify(): string[] {
    return verify(this.mmu);
  }

  createVcpu(): Vcpu {
    const vcpu = new Vcpu(this.mmu, this.vcpus.length, this.cpuModel);
    this.vcpus.push(vcpu);
    this.mmu.vcpus.push(vcpu.mmu);
    return vcpu;
  }

  /** Throws KvmError with the kernel's errno. @kvm KVM_SET_USER_MEMORY_REGION */
  setUserMemoryRegion(region: MemoryRegion): void {
    setMemoryRegion(this.mmu, region);
  }

  /** Words of 32 pages, whole 64-page words. @kvm KVM_GET_DIRTY_LOG */
  getDirtyLog(slot: number): Int32Array {
    return getDirtyLog(this.mmu, slot);
  }

  /** @kvm KVM_CLEAR_DIRTY_LOG */
  clearDirtyLog(slot: number, firstPage: number, numPages: number, bitmap: Int32Array): void {
    clearDirtyLog(this.mmu, slot, firstPage, numPages, bitmap);
  }

  /** Bit 0: manual protection, bit 1 (only with bit 0): logs start all ones. @kvm KVM_ENABLE_CAP */
  enableCap(cap: number, argument: number): void {
    if (cap !== CAP_MANUAL_DIRTY_LOG_PROTECT2) throw new KvmError(EINVAL, `capability ${cap}`);
    if (argument & ~3 || argument === 2) throw new KvmError(EINVAL, `argument ${argument} of capability ${cap}`);
    this.mmu.manualProtect = (argument & 1) !== 0;
    this.mmu.initiallySet = (argument & 2) !== 0;
  }

  /** @kvm KVM_SET_NR_MMU_PAGES */
  setNrMmuPages(count: number): void {
    if (count < MIN_MMU_PAGES) throw new KvmError(EINVAL, `${count} MMU pages are less than ${MIN_MMU_PAGES}`);
    changeMmuPages(this.mmu, count);
    this.mmu.nRequestedPages = count;
  }

  /** @kvm KVM_GET_NR_MMU_PAGES */
  getNrMmuPages(): number {
    return this.mmu.nMaxPages;
  }

  /** Module parameter nx_huge_pages at run time; a change zaps everything. @kvm set_nx_huge_pages */
  setNxHugePages(on: boolean): void {
    if (this.mmu.nxHugePages === on) return;
    this.mmu.nxHugePages = on;
    zapAllFast(this.mmu);
  }
}
