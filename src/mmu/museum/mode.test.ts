/** Exhibits about the guest's mode: protection keys, INVPCID. */
import { invpcid } from '../../vm/control-registers.ts';
import { buildGuest, type Guest, WUAD } from '../../vm/testing/build-guest.ts';
import { REQ_TLB_FLUSH_GUEST } from '../requests.ts';
import { exhibit, outcome } from './testing/exhibit.ts';

const VA = 0x40000000;
const NO_SLOT = 0x70000000;
const CR0_PE_ET_PG = 0x80000031;
const CR4_PAE = 1 << 5;
const CR4_PCIDE = 1 << 17;
const CR4_PKE = 1 << 22;

exhibit('pkruMaskNotReset', "the supervisor gets a protection key's fault for a write that CR0.WP = 0 allows", {
  script: (bugs) => {
    // Nested paging, and a write across two pages of a device: KVM walks the guest's tables itself for the second.
    const guest = buildGuest({
      npt: true,
      maps: [{ va: VA, gpa: NO_SLOT, count: 2 }],
      edit: (image) => image.put(image.entry(0, VA + 4096, 1), BigInt((NO_SLOT + 4096) | WUAD) | (1n << 59n), 8),
      bugs,
    });
    guest.expectDone('nop');
    guest.vcpu.state.cr4Allowed |= CR4_PKE;
    // Key 1: no writing.
    guest.vcpu.state.pkru = 2 << 2;
    guest.expectDone(`cr4 ${CR4_PAE | CR4_PKE}`, `cr0 ${CR0_PE_ET_PG}`);
    const { mmio, res } = guest.do(`w ${VA + 0xffe} 7`);
    return { exit: res?.exit, device: mmio?.length ?? 0 };
  },
  damage: { exit: 'pf', device: 0 },
  mended: { exit: 'done', device: 2 },
});

function invalidate(guest: Guest, type: number, pcid: number): void {
  invpcid(guest.vm.mmu, guest.vcpu.mmu, guest.vcpu.state, type, pcid, VA, 0);
}

exhibit('invpcidFlushesCurrent', "another PCID's translations are not flushed", {
  script: (bugs) => {
    const guest = buildGuest({ npt: true, bugs });
    guest.expectDone('nop', `cr4 ${CR4_PAE | CR4_PCIDE}`, 'nop');
    invalidate(guest, 1, 7);
    return { flush: (guest.vcpu.mmu.requests & REQ_TLB_FLUSH_GUEST) !== 0 };
  },
  damage: { flush: false },
  mended: { flush: true },
});

exhibit('invpcidWithoutPaging', 'the host calls a function that is not there', {
  script: (bugs) => {
    const guest = buildGuest({ paging: 'none', maps: [], bugs });
    guest.expectDone('nop');
    const ended = outcome(() => invalidate(guest, 0, 0));
    return { isDone: ended === 'done', counted: guest.vcpu.mmu.stats.invlpg };
  },
  damage: { isDone: false, counted: 0 },
  mended: { isDone: true, counted: 1 },
});
