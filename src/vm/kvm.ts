/**
 * KVM's own API shape, `penumbra/kvm`: a system object makes VMs, a VM takes memory slots and makes vCPUs, a vCPU runs.
 * Calls are refused as the kernel refuses them, with a KvmError that carries the errno.
 *
 *     const vm = new Kvm().createVm({ host, npt: true });
 *     vm.setUserMemoryRegion({ slot: 0, flags: 0, guestPhysAddr: 0, memorySize: 2 ** 30, userspaceAddr: FLAT_HVA });
 *     const vcpu = vm.createVcpu();
 *     vcpu.touchPage(5, 1);
 *     vm.getDirtyLog(0);
 */
import { ADDRESS_SPACES } from '../mem/memslots.ts';
import { CAP_MANUAL_DIRTY_LOG_PROTECT2, Vm, type VmConfig } from './vm.ts';

export { KvmError } from '../base/errno.ts';
export { FLAT_HVA, FlatHost, type FlatHostOptions } from '../mem/flat-host.ts';
export { HostMm, type Region } from '../mem/host/host-mm.ts';
export type { HostMemory, HostNotifier } from '../mem/host-memory.ts';
export { VCPU_STAT_NAMES, VM_STAT_NAMES } from '../trace/stats.ts';
export { TRACEPOINTS } from '../trace/tracepoints.ts';
export { Tracer } from '../trace/tracer.ts';
export { type Sregs, Vcpu, type VcpuExit } from './vcpu.ts';
export * from './vm.ts';

/** Highest slot number + 1 for user space. @kvm KVM_USER_MEM_SLOTS */
const USER_MEM_SLOTS = 32764;

/** What KVM_CHECK_EXTENSION answers, by capability number. */
const EXTENSIONS: ReadonlyMap<number, number> = new Map([
  [3, 1], // USER_MEMORY
  [10, USER_MEM_SLOTS], // NR_MEMSLOTS
  [16, 1], // SYNC_MMU
  [81, 1], // READONLY_MEM
  [118, ADDRESS_SPACES], // MULTI_ADDRESS_SPACE
  [CAP_MANUAL_DIRTY_LOG_PROTECT2, 3],
]);

export class Kvm {
  /** @kvm KVM_CREATE_VM */
  createVm(config: VmConfig): Vm {
    return new Vm(config);
  }

  /** 0 for what isn't there. @kvm KVM_CHECK_EXTENSION */
  checkExtension(capability: number): number {
    return EXTENSIONS.get(capability) ?? 0;
  }
}
