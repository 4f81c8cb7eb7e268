/**
 * The adversarial TLB with an eye on who uses it. Every turn of the run loop looks something up, so here is where two
 * invariants of running, not of state, can be told:
 *
 *     progress    a fault on memory that is there is mended within a few tries (reference, I11)
 *     root        the guest never runs on a root that was zapped (I12)
 */
import { AdversarialTlb } from '../../hw/adversarial-tlb.ts';
import { isObsolete } from '../../mmu/mmu.ts';
import type { Vcpu } from '../vcpu.ts';
import type { Vm } from '../vm.ts';

/** Lookups that one step of a test may take: each access of an instruction needs a few after each of its faults. */
const MAX_LOOKUPS = 400;

export class WatchedTlb extends AdversarialTlb {
  lookups = 0;
  private vm: Vm | null = null;
  private vcpu: Vcpu | null = null;

  attach(vm: Vm, vcpu: Vcpu): void {
    this.vm = vm;
    this.vcpu = vcpu;
  }

  override lookup(space: number, lo: number, hi: number, access: number, controls: number, pkru: number): boolean {
    if (++this.lookups > MAX_LOOKUPS) throw new Error('INVARIANT progress: the guest faults for ever');
    this.checkRoot();
    return super.lookup(space, lo, hi, access, controls, pkru);
  }

  private checkRoot(): void {
    const { vm, vcpu } = this;
    if (vm === null || vcpu === null) return;
    const root = vcpu.mmu.root.sp;
    if (root === 0) throw new Error('INVARIANT root: the guest runs without a root');
    if (root < 0) return;
    if (vcpu.cpu.root.table !== root || isObsolete(vm.mmu, root))
      throw new Error(`INVARIANT root: the guest runs on page ${vcpu.cpu.root.table}, which is no root any more`);
  }
}
