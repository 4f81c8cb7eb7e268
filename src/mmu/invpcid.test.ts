import { describe, expect, it, vi } from 'vitest';
import { CR4_PAE, CR4_PCIDE, EFER_LMA, EFER_LME } from '../vm/cpu-state.ts';
import { buildVm } from '../vm/testing/build-vm.ts';
import { invpcidGva } from './inject.ts';

const CR3_OF_PCID_5 = 0x3005n;

describe('INVPCID of one address under shadow paging', () => {
  // biome-ignore format: a table
  it.each([
    ['the PCID in use',        5, true],
    ['a PCID that no root has', 6, false],
  ])('of %s takes the CPU’s translation: %s', (_name, pcid, flushed) => {
    const { vm, vcpu } = buildVm({ shadow: true });
    vcpu.setSregs({
      cr0: 0x80050033 | 0,
      cr3: CR3_OF_PCID_5,
      cr4: CR4_PAE | CR4_PCIDE,
      efer: EFER_LME | EFER_LMA,
    });
    const flush = vi.spyOn(vcpu.mmu.port, 'flushTlbGva');
    invpcidGva(vm.mmu, vcpu.mmu, 0x400000, 0, pcid);
    expect(flush.mock.calls).toEqual(flushed ? [[0x400000, 0]] : []);
    expect(vcpu.mmu.stats.invlpg).toBe(1);
  });

  it('is of PCID 0 while there are none', () => {
    const { vm, vcpu } = buildVm({ shadow: true });
    vcpu.setSregs({ cr0: 0x80050033 | 0, cr3: 0x3018n, cr4: CR4_PAE, efer: EFER_LME | EFER_LMA });
    const flush = vi.spyOn(vcpu.mmu.port, 'flushTlbGva');
    invpcidGva(vm.mmu, vcpu.mmu, 0x400000, 0, 0);
    expect(flush).toHaveBeenCalledOnce();
  });
});
