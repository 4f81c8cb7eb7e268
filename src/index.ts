/** The library's front door: the machine. KVM's own shape is `penumbra/kvm`. */
export {
  BootError,
  CpuModelError,
  type ExecResult,
  Machine,
  MachineConsole,
  type MachineOptions,
  type MachineStats,
  type PagingName,
  type PcEnd,
  PolicyError,
} from './machine.ts';
