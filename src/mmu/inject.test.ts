import { describe, expect, it, vi } from 'vitest';
import { PFERR_P_LO, PFERR_RSVD_LO, PFERR_W_LO } from '../arch/pferr.ts';
import { buildVm } from '../vm/testing/build-vm.ts';
import type { GuestWalk } from './guest-walk.ts';
import { injectNestedFault } from './inject.ts';

describe("a fault of a nested guest's own tables, found by the emulator", () => {
  // biome-ignore format: a table
  it.each([
    ['takes the address out of the TLB if there was an entry',   PFERR_P_LO | PFERR_W_LO, true],
    ['has nothing to take out if there was none',                PFERR_W_LO,                 false],
    ['nor if the entry was malformed, as CPUs keep none of it',  PFERR_P_LO | PFERR_RSVD_LO,  false],
  ])('%s', (_name, errorCode, flushes) => {
    const { vm, vcpu } = buildVm();
    const flush = vi.spyOn(vcpu.mmu.port, 'flushTlbGva');
    const queue = vi.spyOn(vcpu.mmu.port, 'queuePageFault').mockReturnValue();
    const walk = { isNestedFault: false, errorCode, addrLo: 0x5000, addrHi: 1 } as GuestWalk;
    injectNestedFault(vm.mmu, vcpu.mmu, walk);
    expect(flush.mock.calls).toEqual(flushes ? [[0x5000, 1]] : []);
    expect(queue.mock.calls).toEqual([[errorCode, 0x5000, 1]]);
  });
});
