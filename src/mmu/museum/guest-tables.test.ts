/** Exhibits about guest tables that change: pages out of sync, children of another kind, tracking. */
import { afterEach, vi } from 'vitest';
import { A, buildGuest, type Guest, type GuestOptions, P, PS, U, W, WUAD } from '../../vm/testing/build-guest.ts';
import { activePages } from '../../vm/testing/build-vm.ts';
import { doPageFault } from '../fault.ts';
import { getShadowPage } from '../get-page.ts';
import { unprotectPage } from '../page-zap.ts';
import { RACE_FAULT_BEFORE_LOCK } from '../race.ts';
import { ROLE_SMM_SHIFT, withLevel } from '../role.ts';
import { spOf } from '../shadow-pages.ts';
import { atNext } from './testing/at-race.ts';
import { broken, exhibit, outcome } from './testing/exhibit.ts';

vi.mock('../race.ts', async (original) => ({
  ...(await original<object>()),
  race: (await import('./testing/at-race.ts')).race,
}));
afterEach(() => atNext(0));

const MIB = 2 ** 20;
const DATA = 16 * MIB;
const VA = 0x40000000;
const DATA_SLOT = { id: 1, gpa: DATA, bytes: 4 * MIB };

/** Two data pages with marks, the first of them mapped at VA. */
function guestWithMarks(options: GuestOptions): Guest {
  return buildGuest({
    slots: [DATA_SLOT],
    maps: [{ va: VA, gpa: DATA }],
    data: [
      [DATA, 0x11n],
      [DATA + 4096, 0x22n],
    ],
    ...options,
  });
}

const leaf = (gpa: number, bits = WUAD): string => `0x${(gpa | bits).toString(16)}`;

exhibit('syncMayUnsync', 'a table that counts as in sync is mapped writable: what is written to it is never seen', {
  script: (bugs) => {
    const guest = guestWithMarks({ bugs });
    guest.expectDone(`r ${VA}`);
    // The first 2 MiB's table maps both tables. The guest writes both: out of sync.
    const tables = [VA, 0].map((va) => guest.entry(va, 1) & ~0xfff);
    for (const table of tables) guest.expectDone(`w64 ${table + 0xf00} 0`);
    guest.expectDone('cr3 0');
    const invariants = broken(guest.vm);
    guest.expectDone(`w64 ${guest.entry(VA, 1)} ${leaf(DATA + 4096)}`, `invlpg ${VA}`);
    return { invariants, value: guest.read(VA) };
  },
  damage: { invariants: ['unsync'], value: '0x11' },
  mended: { invariants: [], value: '0x22' },
});

exhibit('linkedBeforeSynced', 'another vCPU uses a translation that the guest has replaced', {
  script: (bugs) => {
    const maps = [VA, VA + 2 * MIB].map((va) => ({ va, gpa: DATA }));
    const guest = guestWithMarks({ maps, vcpus: 2, bugs });
    const [l3, l1] = [guest.entry(VA, 3), guest.entry(VA, 1)];
    const old = guest.peek(l3);
    guest.expectDone('vcpu 1', 'nop', 'vcpu 0', `r ${VA}`);
    // Out of sync; then cut off, changed, and put back where nothing was.
    guest.expectDone(`w64 ${l1} ${leaf(DATA)}`, `w64 ${l3} 0`, `w64 ${l1} ${leaf(DATA + 4096)}`);
    guest.expectDone(`w64 ${l3} 0x${old.toString(16)}`);
    // vCPU 0 faults nearby. Before it enters again, where it would sync, the other one reads.
    doPageFault(guest.vm.mmu, guest.vcpu.mmu, VA + 2 * MIB, 0, 0);
    guest.expectDone('vcpu 1');
    return guest.read(VA);
  },
  damage: '0x11',
  mended: '0x22',
});

exhibit('flushInsteadOfSync', 'a vCPU uses a translation that the guest has replaced', {
  script: (bugs) => {
    const maps = [VA, VA + 2 * MIB].map((va) => ({ va, gpa: DATA }));
    const guest = guestWithMarks({ maps, bugs });
    const [l3, l1] = [guest.entry(VA, 3), guest.entry(VA, 1)];
    const old = guest.peek(l3);
    guest.expectDone(`r ${VA}`, `w64 ${l1} ${leaf(DATA)}`, `w64 ${l3} 0`, `w64 ${l1} ${leaf(DATA + 4096)}`);
    guest.expectDone(`w64 ${l3} 0x${old.toString(16)}`, `r ${VA + 2 * MIB}`);
    return guest.read(VA);
  },
  damage: '0x11',
  mended: '0x22',
});

exhibit('gpteNotReread', 'a translation that changed during the fault is used for ever', {
  script: (bugs) => {
    const guest = guestWithMarks({ bugs });
    guest.expectDone('nop');
    const { host, slots } = guest.vm.mmu;
    const hva = slots[0].byId(0)!.userspaceAddr + guest.entry(VA, 1);
    const entry = new Uint8Array(new Uint32Array([DATA + 4096 + WUAD, 0]).buffer);
    // Another vCPU writes the entry: the table is not shadowed yet, so nothing stops it.
    atNext(RACE_FAULT_BEFORE_LOCK, () => host.writeUser(hva, entry, 8));
    guest.expectDone(`r ${VA}`, `invlpg ${VA}`);
    return guest.read(VA);
  },
  damage: '0x11',
  mended: '0x22',
});

exhibit('childGfnUnchecked', 'an entry is listed under a frame that it does not map', {
  script: (bugs) => {
    const guest = guestWithMarks({ maps: [{ va: VA, gpa: DATA, level: 2 }], bugs });
    guest.expectDone(`r ${VA + 0x5000}`);
    // Behind KVM's back the large page gets another frame.
    guest.expectDone(`hw ${guest.entry(VA, 2)} ${leaf(DATA + 2 * MIB, WUAD | PS)}`);
    guest.expectDone(`r ${VA + 0x20000}`);
    const invariants = broken(guest.vm);
    return { invariants, deletion: outcome(() => guest.expectDone('del 1')).replace(/\d+/g, 'N') };
  },
  damage: { invariants: ['rmap'], deletion: 'INVARIANT rmap: entry N is not in its list' },
  mended: { invariants: [], deletion: 'done' },
});

exhibit('childRoleUnchecked', 'a large page that became a table keeps its small pages', {
  script: (bugs) => {
    const guest = guestWithMarks({
      maps: [{ va: VA, gpa: DATA, level: 2 }],
      // The frame's own contents: a table, whose entry 9 maps the frame's fourth page.
      data: [[DATA + 8 * 9, BigInt((DATA + 0x3000) | WUAD)]],
      bugs,
    });
    guest.expectDone(`r ${VA + 0x20000}`);
    guest.expectDone(`hw ${guest.entry(VA, 2)} ${leaf(DATA, P | W | U | A)}`);
    guest.expectDone(`r ${VA + 0x9000}`);
    const invariants = broken(guest.vm);
    return { invariants, deletion: outcome(() => guest.expectDone('del 1')).replace(/\d+/g, 'N') };
  },
  damage: { invariants: ['rmap'], deletion: 'INVARIANT rmap: entry N is not in its list' },
  mended: { invariants: [], deletion: 'done' },
});

exhibit('mmioOverPresent', "a frame's list names an entry of a table that was freed", {
  script: (bugs) => {
    const NO_SLOT = 0x70000000;
    // D is clear: mapped read-only, so that the write faults.
    const guest = buildGuest({ slots: [DATA_SLOT], maps: [{ va: VA, gpa: DATA, bits: P | W | U | A }], bugs });
    guest.expectDone(`r ${VA}`, `hw ${guest.entry(VA, 1)} ${leaf(NO_SLOT)}`);
    guest.do(`w ${VA} 7`);
    const invariants = broken(guest.vm);
    const { mmu } = guest.vm;
    unprotectPage(mmu, Math.floor(guest.entry(VA, 1) / 4096));
    const listed = mmu.slots[0].byId(1)!.rmap[0][0];
    return { invariants, dangling: listed !== 0 && !activePages(guest.vm).includes(spOf(listed)) };
  },
  damage: { invariants: ['rmap', 'counters'], dangling: true },
  mended: { invariants: [], dangling: false },
});

exhibit('trackedInOneSpace', 'a page above level 1 would become unsync: the guest may write the table', {
  script: (bugs) => {
    const guest = guestWithMarks({ bugs });
    guest.expectDone('nop');
    const { vm } = guest;
    const { userspaceAddr } = vm.mmu.slots[0].byId(1)!;
    vm.setUserMemoryRegion({
      slot: 1 << 16,
      flags: 0,
      guestPhysAddr: DATA,
      memorySize: 4 * MIB,
      userspaceAddr,
    });
    // What a vCPU in SMM does that uses this frame as a table of level 2.
    getShadowPage(vm.mmu, null, DATA / 4096, withLevel(guest.vcpu.mmu.rootRole, 2) | (1 << ROLE_SMM_SHIFT));
    return { write: outcome(() => guest.expectDone(`w64 ${VA} 5`)), invariants: broken(vm) };
  },
  damage: { write: 'INVARIANT unsync: a page above level 1 would become unsync', invariants: [] },
  mended: { write: 'done', invariants: [] },
});
