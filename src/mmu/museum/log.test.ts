/** Exhibits around the dirty log. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { MEM_LOG_DIRTY_PAGES as LOG } from '../../mem/memslots.ts';
import { buildGuest, WUAD } from '../../vm/testing/build-guest.ts';
import { bitsOf, buildVm, entryAt, READ, WRITE } from '../../vm/testing/build-vm.ts';
import { type Policy, POLICIES } from '../../vm/vm.ts';
import { doPageFault } from '../fault.ts';
import { PFERR_PRESENT, PFERR_USER, PFERR_WRITE } from '../guest-mode.ts';
import { RET_PF_RETRY } from '../page-fault.ts';
import { RACE_BEFORE_FLUSH } from '../race.ts';
import { spteWriteProtect } from '../rmap.ts';
import { atNext } from './testing/at-race.ts';
import { CopyOnWriteHost } from './testing/copy-on-write-host.ts';
import { exhibit } from './testing/exhibit.ts';

vi.mock('../race.ts', async (original) => ({
  ...(await original<object>()),
  race: (await import('./testing/at-race.ts')).race,
}));
afterEach(() => atNext(0));

const MIB = 2 ** 20;
const DATA = 16 * MIB;
const VA = 0x40000000;
const DATA_SLOT = { id: 1, gpa: DATA, bytes: 4 * MIB };

describe('the policy lazy+bug', () => {
  function pagesSeen(policy: Policy): number[] {
    const { vm, vcpu, setFlags } = buildVm({ policy });
    vcpu.touchPage(0, WRITE);
    setFlags(LOG);
    for (const page of [5, 77, 300]) vcpu.touchPage(page, WRITE);
    return bitsOf(vm.getDirtyLog(0));
  }

  it('on: loses pages that are written', () => expect(pagesSeen(POLICIES['lazy+bug'])).toEqual([0]));
  it('off: nothing of the kind', () => expect(pagesSeen(POLICIES.lazy)).toEqual([5, 77, 300]));
});

exhibit('readOnlyLargeStays', 'the guest faults for ever', {
  script: (bugs) => {
    const host = new CopyOnWriteHost({ bytes: 4 * MIB, level: 2, sparse: true });
    const { vm, vcpu, setFlags } = buildVm({ host, bugs });
    vcpu.touchPage(0, READ);
    setFlags(LOG);
    const write = (): number => doPageFault(vm.mmu, vcpu.mmu, 9 * 4096, 0, PFERR_USER | PFERR_WRITE | PFERR_PRESENT);
    let retries = 0;
    while (retries < 10 && write() === RET_PF_RETRY) retries++;
    return { retries, logged: bitsOf(vm.getDirtyLog(0)) };
  },
  damage: { retries: 10, logged: [] },
  mended: { retries: 0, logged: [9] },
});

exhibit('flushIfWritable', 'a guest table is written through a stale TLB entry, and nobody sees it', {
  script: (bugs) => {
    const guest = buildGuest({
      slots: [DATA_SLOT],
      maps: [{ va: VA, gpa: DATA, count: 2 }],
      data: [
        [DATA, 0x11n],
        [DATA + 4096, 0x22n],
      ],
      vcpus: 2,
      bugs,
    });
    const entry = guest.entry(VA, 1);
    for (const { cpu } of guest.vm.vcpus) cpu.flushAtEntry = false;
    // The frame is no table yet for KVM: mapped writable, and so in the TLB of vCPU 0.
    guest.expectDone('vcpu 1', 'nop', 'vcpu 0', `w64 ${entry + 0x800} 0`);
    atNext(RACE_BEFORE_FLUSH, () => {
      // The log has taken W and not flushed yet. Another vCPU makes the frame a shadowed table ...
      guest.expectDone('vcpu 1', `r ${VA}`, 'vcpu 0');
      // ... and the first one writes it.
      guest.expectDone(`w64 ${entry} 0x${(DATA + 4096 + WUAD).toString(16)}`);
    });
    guest.expectDone('log 0 on', `invlpg ${VA}`);
    return guest.read(VA);
  },
  damage: '0x11',
  mended: '0x22',
});

exhibit('flushIfChanged', 'a write after the start of the log is not in it', {
  script: (bugs) => {
    const { vm, vcpu, setFlags } = buildVm({ level: 1, bugs });
    vcpu.touchPage(5, WRITE);
    // Somebody takes W away and leaves the flush to others: ageing did, on CPUs without accessed bits.
    for (let gfn = 0; gfn < 8; gfn++) spteWriteProtect(vm.mmu, entryAt(vm, vcpu, gfn * 4096).sptep, false);
    setFlags(LOG);
    vcpu.touchPage(5, WRITE);
    return bitsOf(vm.getDirtyLog(0));
  },
  damage: [],
  mended: [5],
});

exhibit('exchangeNotLogged', 'a page that an emulated exchange wrote is not in the log', {
  script: (bugs) => {
    // A table above level 1 is never writable: the exchange is emulated.
    const guest = buildGuest({ slots: [DATA_SLOT], maps: [{ va: VA, gpa: DATA }], bugs });
    guest.expectDone(`r ${VA}`, 'log 0 on', 'getlog 0');
    const table = guest.entry(VA, 3) & ~0xfff;
    guest.expectDone(`xchg ${table + 0x800} 0x77`);
    const logged = guest
      .do('getlog 0')
      .bitmap?.gfns.flat()
      .includes(table / 4096);
    return { value: guest.peek(table + 0x800), logged };
  },
  damage: { value: 0x77n, logged: false },
  mended: { value: 0x77n, logged: true },
});
