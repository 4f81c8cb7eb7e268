/** KVM's hypercalls: number in RAX, answer in RAX. Source: Linux 6.1 x86.c kvm_emulate_hypercall, kvm_para.h. */
const HC_VAPIC_POLL_IRQ = 1;
const EPERM = 1;
/** @kvm KVM_ENOSYS */
const KVM_ENOSYS = 1000;

/** Only a kernel may ask; there is nothing yet that another vCPU could be asked for. */
export function hypercall(number: number, cpl: number): number {
  if (cpl !== 0) return -EPERM;
  return number === HC_VAPIC_POLL_IRQ ? 0 : -KVM_ENOSYS;
}
