/**
 * A nested guest's state as user space sets it: the hypervisor's registers, to which a nested page fault returns, and where
 * its control block lies. The guest runs no VMRUN; user space puts the vCPU behind one, as after a migration. The nested
 * guest begins with the registers that the vCPU has.
 *
 *     setNestedState --> nested guest runs --> nested page fault of the hypervisor's tables
 *                            |                        | writes the block, restores the registers
 *                            `--- null: leaves -----> the hypervisor runs, at `rip`
 *
 * Source: Linux 6.1 svm/nested.c svm_set_nested_state, nested_svm_vmexit.
 */
import { EINVAL, KvmError } from '../base/errno.ts';
import { writeGuest } from '../mmu/guest-memory.ts';
import { initMmu, initShadowNpt } from '../mmu/guest-mode.ts';
import type { Mmu } from '../mmu/mmu.ts';
import { switchContext } from '../mmu/nested.ts';
import { REQ_MMU_SYNC, REQ_TLB_FLUSH_CURRENT } from '../mmu/requests.ts';
import { newPgd } from '../mmu/roots.ts';
import { X86_64_FORMAT } from '../mmu/spte-format.ts';
import type { MmuVcpu } from '../mmu/vcpu.ts';
import { CR0_PE, CR0_PG, type CpuState, EFER_LMA, EFER_SVME, RAX, RSP } from './cpu-state.ts';

/** The hypervisor behind a nested guest: its registers, and what it told the CPU. */
export interface NestedState {
  /** Guest-physical address of its control block. */
  readonly vmcb: number;
  /** Root of its nested tables. */
  readonly nestedCr3: bigint;
  readonly cr0: number;
  readonly cr3: bigint;
  readonly cr4: number;
  readonly efer: number;
  readonly rip: number;
  readonly rsp: number;
  readonly idtBase: number;
  readonly gdtBase: number;
}

const SVM_EXIT_NPF = 0x400;
/** Where the exit code and its two words stand in the block. */
const VMCB_EXIT_CODE = 0x70;
const VMCB_EXIT_BYTES = 24;

function lo(value: bigint): number {
  return Number(BigInt.asIntN(32, value));
}

/**
 * The nested guest runs from the next entry on.
 * @diverges A hypervisor in long mode under nested paging of AMD's kind only.
 * @kvm svm_set_nested_state
 */
export function enterNested(mmu: Mmu, vcpu: MmuVcpu, regs: CpuState, state: NestedState): void {
  const both = CR0_PE | CR0_PG;
  if (!(regs.efer & EFER_SVME) || !mmu.tdp || mmu.format !== X86_64_FORMAT)
    throw new KvmError(EINVAL, 'no nested guest can run here: EFER.SVME and NPT are needed');
  if (state.vmcb % 4096 !== 0 || (state.cr0 & both) !== both || !(state.efer & EFER_SVME) || !(state.efer & EFER_LMA))
    throw new KvmError(EINVAL, 'the nested state is none of a hypervisor in long mode');
  if (vcpu.isNested) switchContext(vcpu);
  vcpu.requests |= REQ_MMU_SYNC | REQ_TLB_FLUSH_CURRENT;
  vcpu.nestedCr3Lo = lo(state.nestedCr3);
  vcpu.nestedCr3Hi = lo(state.nestedCr3 >> 32n);
  switchContext(vcpu);
  initShadowNpt(mmu, vcpu, state.cr4, state.efer);
  newPgd(mmu, vcpu, vcpu.nestedCr3Lo, vcpu.nestedCr3Hi);
  initMmu(mmu, vcpu);
}

/** User space takes the nested guest away; the registers stay. @kvm svm_leave_nested */
export function leaveNested(vcpu: MmuVcpu): void {
  if (vcpu.isNested) switchContext(vcpu);
}

/** A nested page fault that the hypervisor gets, with the upper half of the CPU's error code. @kvm nested_svm_vmexit */
export function exitToHypervisor(
  mmu: Mmu,
  vcpu: MmuVcpu,
  regs: CpuState,
  state: NestedState,
  errorLo: number,
  errorHi: number,
  addrLo: number,
  addrHi: number,
): void {
  mmu.words.set([SVM_EXIT_NPF, 0, errorLo, errorHi, addrLo, addrHi]);
  writeGuest(mmu, vcpu, state.vmcb >>> 12, VMCB_EXIT_CODE, VMCB_EXIT_BYTES);
  regs.rflags = 2;
  regs.cpl = 0;
  regs.efer = state.efer;
  regs.cr0 = state.cr0;
  regs.cr4 = state.cr4;
  regs.cr3Lo = lo(state.cr3);
  regs.cr3Hi = lo(state.cr3 >> 32n);
  regs.idtBase = state.idtBase;
  regs.gdtBase = state.gdtBase;
  regs.gpr.fill(0, 2 * RAX, 2 * RAX + 2);
  regs.gpr[2 * RSP] = state.rsp;
  regs.gpr[2 * RSP + 1] = 0;
  regs.ripLo = state.rip;
  regs.ripHi = 0;
  vcpu.requests |= REQ_MMU_SYNC | REQ_TLB_FLUSH_CURRENT;
  switchContext(vcpu);
  initMmu(mmu, vcpu);
  newPgd(mmu, vcpu, regs.cr3Lo, regs.cr3Hi);
}
