/** Exhibits about memory slots: MMIO, slots that go away, the notifier's sequence, slots that begin within a large page. */
import { afterEach, vi } from 'vitest';
import { FLAT_HVA, FlatHost } from '../../mem/flat-host.ts';
import { MEM_LOG_DIRTY_PAGES as LOG } from '../../mem/memslots.ts';
import { buildGuest } from '../../vm/testing/build-guest.ts';
import { buildVm, READ, WRITE } from '../../vm/testing/build-vm.ts';
import { Vm } from '../../vm/vm.ts';
import { doPageFault } from '../fault.ts';
import { PFERR_USER, PFERR_WRITE } from '../guest-mode.ts';
import { MmuNotifier } from '../notifier.ts';
import { RET_PF_NAMES, RET_PF_RETRY } from '../page-fault.ts';
import { RACE_ZAP_BATCH } from '../race.ts';
import { atNext } from './testing/at-race.ts';
import { exhibit } from './testing/exhibit.ts';

vi.mock('../race.ts', async (original) => ({
  ...(await original<object>()),
  race: (await import('./testing/at-race.ts')).race,
}));
afterEach(() => atNext(0));

const MIB = 2 ** 20;
const VA = 0x40000000;
const NO_SLOT = 0x70000000;

exhibit('mmioGenerationOverlaps', 'from some generation on every MMIO access is a page fault again', {
  script: (bugs) => {
    const guest = buildGuest({
      slots: [{ id: 1, gpa: 16 * MIB, bytes: MIB }],
      maps: [
        { va: VA, gpa: NO_SLOT },
        { va: VA + 2 * MIB, gpa: NO_SLOT + 0x1000 },
      ],
      bugs,
    });
    // Two slots at the start, two for each turn: bit 8 of the generation is set from 256 on.
    for (let i = 0; i < 70; i++) guest.expectDone('log 1 on', 'log 1 off');
    const devices = [VA, VA + 2 * MIB];
    for (const va of devices) guest.do(`r ${va}`);
    const { stats } = guest.vcpu.mmu;
    const before = stats.pf_mmio_spte_created;
    for (let i = 0; i < 3; i++) for (const va of devices) guest.do(`r ${va}`);
    return { generation: guest.vm.mmu.slots[0].generation, made: stats.pf_mmio_spte_created - before };
  },
  damage: { generation: 284, made: 6 },
  mended: { generation: 284, made: 0 },
});

exhibit('mmioInInvalidSlot', 'a write to memory that is just being moved goes to a device', {
  script: (bugs) => {
    const { vm, vcpu } = buildVm({ level: 1, pages: 40 * 512, bugs });
    const other = 2 ** 30 / 4096;
    vm.setUserMemoryRegion({
      slot: 1,
      flags: 0,
      guestPhysAddr: 2 ** 30,
      memorySize: 4096,
      userspaceAddr: FLAT_HVA,
    });
    for (let region = 0; region < 40; region++) vcpu.touchPage(region * 512, WRITE);
    let result = -1;
    atNext(RACE_ZAP_BATCH, () => {
      // In the middle of the move the guest goes on, on a new root.
      vcpu.touchPage(other, READ);
      result = doPageFault(vm.mmu, vcpu.mmu, 5 * 4096, 0, PFERR_USER | PFERR_WRITE);
    });
    vm.setUserMemoryRegion({
      slot: 0,
      flags: 0,
      guestPhysAddr: 2 ** 31,
      memorySize: 40 * 2 * MIB,
      userspaceAddr: FLAT_HVA,
    });
    return { result: RET_PF_NAMES[result], mmio: vcpu.mmu.stats.pf_mmio_spte_created };
  },
  damage: { result: 'emulate', mmio: 1 },
  mended: { result: 'retry', mmio: 0 },
});

exhibit('sequenceHas32Bits', 'after 2^31 invalidations no fault ever succeeds', {
  script: (bugs) => {
    const { vm, vcpu } = buildVm({ level: 1, bugs });
    vcpu.touchPage(0, READ);
    // What some weeks with a busy host come to.
    vm.mmu.invalidateSeq = 2 ** 31 - 1;
    const fault = (gfn: number): number => {
      for (let retries = 0; ; retries++)
        if (retries === 10 || doPageFault(vm.mmu, vcpu.mmu, gfn * 4096, 0, PFERR_USER) !== RET_PF_RETRY) return retries;
    };
    const before = fault(100);
    const notifier = new MmuNotifier(vm.mmu);
    notifier.invalidateRangeStart(FLAT_HVA, FLAT_HVA + 4096);
    notifier.invalidateRangeEnd(FLAT_HVA, FLAT_HVA + 4096);
    return { before, after: fault(200) };
  },
  damage: { before: 0, after: 10 },
  mended: { before: 0, after: 0 },
});

/** A table that notes each look beyond its ends. */
function watched(table: Int32Array, beyond: number[]): Int32Array {
  return new Proxy(table, {
    get: (target, key) => {
      const at = Number(key);
      if (!(at < target.length)) beyond.push(at);
      return target[at];
    },
  });
}

exhibit('hugePageBeyondSlot', "a look beyond the slot's table of large pages", {
  script: (bugs) => {
    const host = new FlatHost({ bytes: 2 ** 30, level: 2, sparse: true });
    const vm = new Vm({ host, npt: true, bugs });
    const base = 4 * MIB;
    // Not at the start of a GiB, so the table of its 2 MiB entries begins before it.
    const setFlags = (flags: number): void =>
      vm.setUserMemoryRegion({
        slot: 0,
        flags,
        guestPhysAddr: base,
        memorySize: 8 * MIB,
        userspaceAddr: FLAT_HVA + base,
      });
    setFlags(0);
    vm.createVcpu().touchPage(base / 4096, WRITE);
    setFlags(LOG);
    const beyond: number[] = [];
    const slot = vm.mmu.slots[0].byId(0)!;
    slot.lpageInfo = slot.lpageInfo.map((table) => watched(table, beyond));
    setFlags(0);
    return { looks: beyond.length };
  },
  damage: { looks: 1 },
  mended: { looks: 0 },
});
