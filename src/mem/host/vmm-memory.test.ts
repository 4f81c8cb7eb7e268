/** The recorder's memory: where slots lie, and what its host operations do and answer. */
import { beforeEach, describe, expect, it } from 'vitest';
import { HostMm } from './host-mm.ts';
import { FakeKvm, hvaOf } from './testing/fake-kvm.ts';
import { VmmError, VmmMemory } from './vmm-memory.ts';

const M = 1 << 20;
let vmm: VmmMemory;
let kvm: FakeKvm;

beforeEach(() => {
  vmm = new VmmMemory(new HostMm());
  kvm = new FakeKvm(vmm.mm);
});

describe('the layout (section 1)', () => {
  // biome-ignore format: a table
  it.each([
    ['congruent with its address',      { gpa: 0x1003000, bytes: 3 * M, backing: '4k' },                 's3+3000',   4 * M],
    ['at an offset of its own',         { gpa: 0x1000000, bytes: 2 * M, backing: 'thp', hvaoff: 0x1ff000 }, 's3+1ff000', 4 * M],
    ['one GiB page',                    { gpa: 0x40000000, bytes: 1024 * M, backing: '1g' },             's3+0',      1024 * M],
    ['part of a huge page',             { gpa: 0x1000000, bytes: M, backing: '2m' },                     's3+0',      2 * M],
  ] as const)('%s', (_what, request, hva, length) => {
    const slot = vmm.addSlot({ id: 3, ...request });
    expect([slot.hva, slot.length]).toEqual([hvaOf(hva), length]);
    expect(vmm.hvaOf(request.gpa + 0x1ffe, 2)).toBe(slot.hva + 0x1ffe);
    expect(vmm.hvaOf(request.gpa + request.bytes - 1, 2)).toBeLessThan(0);
  });

  it('populates the slot only: of small pages the rest of the region stays empty', () => {
    const { mm } = vmm;
    vmm.addSlot({ id: 1, gpa: 0x1000000, bytes: M, backing: '4k' });
    vmm.addSlot({ id: 2, gpa: 0x2000000, bytes: M, backing: 'thp' });
    vmm.addSlot({ id: 4, gpa: 0x4000000, bytes: M, backing: '4k', nopop: true });
    expect(mm.pfnAt(hvaOf('s1+ff000'))).toBeGreaterThan(0);
    expect([mm.pfnAt(hvaOf('s1+100000')), mm.pfnAt(hvaOf('s4+0'))]).toEqual([-1, -1]);
    expect(mm.mappingLevel(hvaOf('s2+100000'))).toBe(2);
  });
});

describe('a number used again', () => {
  // biome-ignore format: a table
  it.each([
    ['4k', ['s1+0..200000']],
    ['2m', ['s1+0..200000', 's1+0..200000']],
  ] as const)('unmaps the old region first: %s', (backing, events) => {
    vmm.addSlot({ id: 1, gpa: 0x1000000, bytes: M, backing, nopop: true }).used = false;
    expect(() => vmm.slot(1)).toThrow('no slot 1');
    vmm.addSlot({ id: 1, gpa: 0x1000000, bytes: 4 * M, backing: 'thp' });
    expect(kvm.take()).toEqual(events);
    expect(vmm.mm.mappingLevel(hvaOf('s1+0'))).toBe(2);
  });
});

describe('host operations', () => {
  beforeEach(() => {
    vmm.addSlot({ id: 1, gpa: 0x1003000, bytes: M, backing: '4k' });
    kvm.take();
  });

  it('are relative to the slot, not to its region', () => {
    expect(vmm.dontneed(1, 0x1000, 0x1000)).toBe(0);
    expect(kvm.take()).toEqual(['s1+4000..5000']);
  });

  it('populate maps anew what was unmapped, page by page, and the mappings grow together', () => {
    vmm.munmap(1, 0x8000, 0x4000);
    expect(vmm.mm.vmas.list.length).toBe(2);
    expect(vmm.populate(1, 0x7000, 0x6000)).toBe(0);
    expect(vmm.mm.vmas.list.length).toBe(1);
    expect(vmm.mm.pfnAt(hvaOf('s1+b000'))).toBeGreaterThan(0);
  });

  it('populate of what may not be written gives -EFAULT, and does the rest', () => {
    vmm.dontneed(1, 0, 0x4000);
    vmm.mprotect(1, 0x1000, 0x1000, 'r');
    expect(vmm.populate(1, 0, 0x3000)).toBe(-14);
    expect([0, 1, 2, 3].map((i) => vmm.mm.pfnAt(hvaOf('s1+3000') + i * 4096) > 0)).toEqual([true, false, true, false]);
  });

  it('hw and hr go through the mapping, also over a page boundary, or give -EFAULT', () => {
    expect(vmm.hostWrite(0x1003ffe, 0x89abcdef)).toBe(0);
    expect(vmm.hostRead(0x1003ffe)).toBe(0x89abcdef);
    vmm.munmap(1, 0x1000, 0x1000);
    expect([vmm.hostWrite(0x1003ffe, 0), vmm.hostRead(0x1003ffe), vmm.hostRead(0x5000000)]).toEqual([-14, -14, -14]);
    expect(vmm.hostRead(0x1003ffc) >>> 16, 'what lies before the hole was written').toBe(0);
  });
});

describe('what the VMM gives up on', () => {
  beforeEach(() => {
    vmm.addSlot({ id: 1, gpa: 0x1000000, bytes: 2 * M, backing: '4k', nopop: true });
  });

  // biome-ignore format: a table
  it.each<[string, () => unknown, string]>([
    ['a slot that is there',           () => vmm.addSlot({ id: 1, gpa: 0, bytes: M, backing: '4k' }),                'slot 1 is there already'],
    ['a slot of no bytes',             () => vmm.addSlot({ id: 2, gpa: 0, bytes: 0, backing: '4k', hvaoff: 0 }),     'mmap of slot 2, 0 bytes: -22'],
    ['a slot longer than its region',  () => vmm.addSlot({ id: 2, gpa: 0, bytes: 2 ** 32 + 1, backing: '4k' }),     "slot 2 reaches into the next one's memory"],
    ['more huge pages than there are', () => vmm.addSlot({ id: 2, gpa: 0, bytes: 514 * M, backing: '2m' }),         'no memory is left for slot 2'],
    ['a slot that is not there',       () => vmm.dontneed(2, 0, 4096),                                               'no slot 2'],
    ['its own memory, unmapped',       () => vmm.munmap(1, 2 ** 31, 2 ** 31 + 4096),                                 'offset 2147483648, 2147487744 bytes: beyond the memory of slot 1'],
    ['its own memory, written to',     () => vmm.populate(1, 0, 2 ** 40),                                            'offset 0, 1099511627776 bytes: beyond the memory of slot 1'],
  ])('%s', (_what, call, message) => {
    expect(call).toThrow(new VmmError(message));
  });
});
