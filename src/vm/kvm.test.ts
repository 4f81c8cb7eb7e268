import { describe, expect, it } from 'vitest';
import * as kvm from './kvm.ts';
import { A, buildGuest, D, P, type Paging, U, W } from './testing/build-guest.ts';

const { FLAT_HVA, FlatHost, Kvm, KvmError, MEM_LOG_DIRTY_PAGES, Vm } = kvm;

describe('penumbra/kvm', () => {
  it('offers what its users rely on', () => {
    const names = [
      'Kvm',
      'KvmError',
      'Vm',
      'Vcpu',
      'FlatHost',
      'FLAT_HVA',
      'HostMm',
      'POLICIES',
      'PRESETS',
      'Tracer',
      'TRACEPOINTS',
    ];
    names.push(
      'VM_STAT_NAMES',
      'VCPU_STAT_NAMES',
      'MEM_LOG_DIRTY_PAGES',
      'MEM_READONLY',
      'CAP_MANUAL_DIRTY_LOG_PROTECT2',
    );
    expect(Object.keys(kvm)).toEqual(expect.arrayContaining(names));
  });

  it('has the constants of the ABI', () => {
    expect([kvm.MEM_LOG_DIRTY_PAGES, kvm.MEM_READONLY, kvm.CAP_MANUAL_DIRTY_LOG_PROTECT2]).toEqual([1, 2, 168]);
  });

  it('works as the head of its file shows', () => {
    const host = new FlatHost({ bytes: 2 ** 30, level: 2, sparse: true });
    const vm = new Kvm().createVm({ host, npt: true });
    expect(vm).toBeInstanceOf(Vm);
    const slot = { slot: 0, guestPhysAddr: 0, memorySize: 2 ** 30, userspaceAddr: FLAT_HVA };
    vm.setUserMemoryRegion({ ...slot, flags: 0 });
    const vcpu = vm.createVcpu();
    vcpu.touchPage(5, 1);
    vm.setUserMemoryRegion({ ...slot, flags: MEM_LOG_DIRTY_PAGES });
    vcpu.touchPage(5, 1);
    expect(vm.getDirtyLog(0)[0]).toBe(1 << 5);
    expect(() => vm.getDirtyLog(1)).toThrow(KvmError);
  });

  // biome-ignore format: a table
  it.each([
    ['USER_MEMORY',                   3,     1],
    ['NR_MEMSLOTS',                  10, 32764],
    ['SYNC_MMU',                     16,     1],
    ['READONLY_MEM',                 81,     1],
    ['MULTI_ADDRESS_SPACE',         118,     2],
    ['MANUAL_DIRTY_LOG_PROTECT2',   168,     3],
    ['DIRTY_LOG_RING',              192,     65536 * 16],
    ['no capability',             12345,     0],
  ])('tells of %s', (_name, capability, answer) => {
    expect(new Kvm().checkExtension(capability)).toBe(answer);
  });
});

describe('KVM_TRANSLATE', () => {
  const WUAD = P | W | U | A | D;
  const small = { va: 0x1800000, gpa: 0x33000 };
  const bare = { va: 0x1801000, gpa: 0x34000, bits: P };
  const large = { va: 0x1c00000, gpa: 0x1000000, level: 2 };
  const gigabyte = { va: 0x80000000, gpa: 0x40000000, level: 3 };
  const gone = { va: 0x1802000, gpa: 0x35000, bits: WUAD & ~P };
  const maps = [small, bare, large, gone];

  // biome-ignore format: a table
  it.each<[string, Paging, bigint, bigint | null]>([
    ['without paging',                       'none', 0x1800123n,           0x1800123n],
    ['32-bit',                               '32',   0x1800123n,           0x33123n],
    ['32-bit, 4 MiB',                        '32',   0x1c00000n + 0x3ffff8n, 0x13ffff8n],
    ['32-bit, not present',                  '32',   0x1802000n,           null],
    ['32-bit, no table',                     '32',   0xf0000000n,          null],
    ['PAE',                                  'pae',  0x1800123n,           0x33123n],
    ['PAE, 2 MiB',                           'pae',  0x1c00000n + 0x1ffff8n, 0x11ffff8n],
    ['PAE, not present',                     'pae',  0x1802000n,           null],
    ['PAE, no directory',                    'pae',  0xf0000000n,          null],
    ['4-level',                              'long', 0x1800123n,           0x33123n],
    ['4-level, 2 MiB',                       'long', 0x1c00000n + 0x1ffff8n, 0x11ffff8n],
    ['4-level, 1 GiB',                       'long', 0x80000000n + 0x3ffffff8n, 0x7ffffff8n],
    ['4-level, not present',                 'long', 0x1802000n,           null],
    ['4-level, no table at level 4',         'long', 0xffff800000000000n,  null],
    ['4-level, without any right but read',  'long', 0x1801008n,           0x34008n],
  ])('%s', (_name, paging, gva, gpa) => {
    for (const npt of [false, true]) {
      const all = paging === 'none' ? [] : paging === 'long' ? [...maps, gigabyte] : maps;
      expect(buildGuest({ paging, npt, maps: all }).vcpu.translate(gva)).toBe(gpa);
    }
  });

  it('needs no memory behind the address, and injects nothing', () => {
    const guest = buildGuest({ maps: [{ va: 0x1800000, gpa: 0x7000000000 }] });
    expect(guest.vcpu.translate(0x1800000n)).toBe(0x7000000000n);
    expect(guest.vcpu.translate(0x5000000n)).toBeNull();
    guest.expectDone('nop');
    expect(guest.vcpu.mmu.stats.pf_guest).toBe(0);
  });

  it('sets A on the way, as each walk of KVM does', () => {
    const guest = buildGuest({ maps: [{ va: 0x1800000, gpa: 0x33000, bits: P | W }] });
    const entry = guest.entry(0x1800000, 1);
    guest.vcpu.translate(0x1800000n);
    expect(guest.peek(entry)).toBe(0x33000n | BigInt(P | W | A));
  });
});
