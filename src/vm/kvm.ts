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
import { checkExtension } from './capabilities.ts';
import { Vm, type VmConfig } from './vm.ts';

export { KvmError } from '../base/errno.ts';
export { FLAT_HVA, FlatHost, type FlatHostOptions } from '../mem/flat-host.ts';
export { HostMm, type Region } from '../mem/host/host-mm.ts';
export type { HostMemory, HostNotifier } from '../mem/host-memory.ts';
export { VCPU_STAT_NAMES, VM_STAT_NAMES } from '../trace/stats.ts';
export { TRACEPOINTS } from '../trace/tracepoints.ts';
import { KERNEL_6_1 } from '../mmu/kernel-version.ts';
export { Tracer } from '../trace/tracer.ts';
export { type Sregs, Vcpu, type VcpuExit } from './vcpu.ts';
export * from './vm.ts';

export class Kvm {
  /** @kvm KVM_CREATE_VM */
  createVm(config: VmConfig): Vm {
    return new Vm(config);
  }

  /** 0 for what isn't there. @kvm KVM_CHECK_EXTENSION */
  checkExtension(capability: number): number {
    return checkExtension({ kernel: KERNEL_6_1, tdp: true }, capability);
  }
}
