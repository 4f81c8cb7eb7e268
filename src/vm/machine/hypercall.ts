/** KVM's hypercalls: number in RAX, answer in RAX. Source: Linux 6.1 x86.c kvm_emulate_hypercall, lapic.c, kvm_para.h. */
import type { ApicBus } from '../../dev/apic-bus.ts';
import type { Cpu } from '../../cpu/cpu.ts';
import { CPL, RAX, RBX, RCX, RDX, RSI } from '../../cpu/state.ts';

const HC_VAPIC_POLL_IRQ = 1;
const HC_SEND_IPI = 10;
const EPERM = 1;
const EINVAL = 22;
/** @kvm KVM_ENOSYS */
const KVM_ENOSYS = 1000;

const ICR_LOGICAL = 0x800;
const ICR_LEVEL = 0x8000;
const ICR_SHORTHAND = 0xc0000;
const MODE_64 = 2;

/** Only a kernel may ask. The answer, negative if it is an error. */
export function hypercall(cpu: Cpu, bus: ApicBus): number {
  const { state } = cpu;
  if (state.get(CPL) !== 0) return -EPERM;
  const number = state.get(RAX);
  if (number === HC_VAPIC_POLL_IRQ) return 0;
  return number === HC_SEND_IPI ? sendIpis(cpu, bus) : -KVM_ENOSYS;
}

/**
 * An interrupt to each APIC whose bit is set in RCX:RBX (128 bits, or 64 from other than 64-bit code); bit 0 is the ID in
 * RDX. How many took it. @kvm kvm_pv_send_ipi
 */
function sendIpis({ state, mode }: Cpu, bus: ApicBus): number {
  const icr = state.get(RSI);
  if (icr & (ICR_LOGICAL | ICR_SHORTHAND)) return -EINVAL;
  const words = mode === MODE_64 ? [RBX, RBX + 4, RCX, RCX + 4] : [RBX, RCX];
  const first = state.get(RDX) >>> 0;
  let count = 0;
  for (let id = first; id < Math.min(bus.apics.length, first + words.length * 32); id++) {
    const bit = id - first;
    if (((state.get(words[bit >>> 5]) >>> (bit & 31)) & 1) === 0) continue;
    if (bus.send(id, false, (icr >> 8) & 7, icr & 0xff, (icr & ICR_LEVEL) !== 0, null)) count++;
  }
  return count;
}
