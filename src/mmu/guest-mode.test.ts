import { describe, expect, it } from 'vitest';
import { hiOf, loOf } from '../base/u64.ts';
import { FlatHost } from '../mem/flat-host.ts';
import { Tracer } from '../trace/tracer.ts';
import * as cpu from '../vm/cpu-state.ts';
import {
  guestLevels,
  initMmu,
  isReservedGpte,
  PFERR_FETCH,
  PFERR_IMPLICIT_ACCESS,
  PFERR_PK,
  PFERR_PRESENT,
  PFERR_USER,
  PFERR_WRITE,
  permissionFault,
} from './guest-mode.ts';
import { Mmu } from './mmu.ts';
import * as role from './role.ts';
import { ACC_EXEC, ACC_USER, ACC_WRITE } from './spte.ts';
import { MmuVcpu } from './vcpu.ts';

const { CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PKE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_NX } = cpu;
const LONG = { cr0: CR0_PG, cr4: CR4_PAE, efer: EFER_LMA };

interface Mode {
  readonly cr0: number;
  readonly cr4: number;
  readonly efer: number;
}

function vcpuIn({ cr0, cr4, efer }: Mode, tdp = false): MmuVcpu {
  const mmu = new Mmu({ host: new FlatHost({ bytes: 4096, level: 1 }), trace: new Tracer(), tdp });
  const nothing = (): void => {};
  const port = {
    queuePageFault: nothing,
    leaveNestedGuest: nothing,
    refreshPdptrs: nothing,
    flushTlbGva: nothing,
    flushTlbCurrent: nothing,
    kick: nothing,
  };
  const vcpu = new MmuVcpu(0, Object.assign(new cpu.CpuState(), { cr0, cr4, efer }), port);
  initMmu(mmu, vcpu);
  return vcpu;
}

/** Every combination of some bits. */
function combinations(...bits: readonly number[]): number[] {
  return bits.reduce<number[]>((all, bit) => all.flatMap((set) => [set, set | bit]), [0]);
}

const ACCESSES = combinations(PFERR_WRITE, PFERR_USER, PFERR_FETCH, PFERR_IMPLICIT_ACCESS);
const RIGHTS = [0, 1, 2, 3, 4, 5, 6, 7];

describe('the roles', () => {
  const ALL = role.ROLE_ACCESS;
  const WP = role.ROLE_CR0_WP;
  const NX = role.ROLE_EFER_NX;
  // biome-ignore format: a table
  it.each([
    // mode                cr0               cr4                            efer                 guest's role                        shadow root's
    ['no paging',          0,                0,                             0,                   ALL | role.ROLE_DIRECT,             ALL | role.ROLE_DIRECT | NX | 3],
    ['32-bit',             CR0_PG,           CR4_PSE,                       0,                   ALL | 0x10 | 2,                     ALL | 0x10 | NX | 3],
    ['32-bit, WP',         CR0_PG | CR0_WP,  CR4_PSE,                       0,                   ALL | 0x10 | WP | 2,                ALL | 0x10 | WP | NX | 3],
    ['PAE',                CR0_PG,           CR4_PAE,                       0,                   ALL | 3,                            ALL | NX | 3],
    ['PAE, NX',            CR0_PG,           CR4_PAE,                       EFER_NX,             ALL | NX | 3,                       ALL | NX | 3],
    ['4-level',            CR0_PG,           CR4_PAE,                       EFER_LMA,            ALL | 4,                            ALL | NX | 4],
    ['4-level, WP, NX',    CR0_PG | CR0_WP,  CR4_PAE,                       EFER_LMA | EFER_NX,  ALL | WP | NX | 4,                  ALL | WP | NX | 4],
    ['5-level',            CR0_PG,           CR4_PAE | CR4_LA57,            EFER_LMA,            ALL | 5,                            ALL | NX | 5],
    ['SMEP without WP',    CR0_PG,           CR4_PAE | CR4_SMEP,            EFER_LMA,            ALL | role.ROLE_SMEP_ANDNOT_WP | 4, ALL | role.ROLE_SMEP_ANDNOT_WP | NX | 4],
    ['SMAP without WP',    CR0_PG,           CR4_PAE | CR4_SMAP,            EFER_LMA,            ALL | role.ROLE_SMAP_ANDNOT_WP | 4, ALL | role.ROLE_SMAP_ANDNOT_WP | NX | 4],
    ['SMEP, SMAP with WP', CR0_PG | CR0_WP,  CR4_PAE | CR4_SMEP | CR4_SMAP, EFER_LMA,            ALL | WP | 4,                       ALL | WP | NX | 4],
  ])('of %s', (_name, cr0, cr4, efer, guest, root) => {
    const vcpu = vcpuIn({ cr0, cr4, efer });
    expect([vcpu.cpuRole, vcpu.rootRole]).toEqual([guest, root]);
    expect(guestLevels(vcpu)).toBe(guest & 15);
  });

  it('of nested paging is one and the same in every mode', () => {
    const want = ALL | role.ROLE_DIRECT | WP | NX | 4;
    for (const mode of [{ cr0: 0, cr4: 0, efer: 0 }, LONG]) expect(vcpuIn(mode, true).rootRole).toBe(want);
  });

  // Every bit that changes translation is in the role: B30 of the museum.
  // biome-ignore format: a table
  it.each([
    ['CR4.PSE',   LONG,                           CR4_PSE,  role.EXT_CR4_PSE],
    ['CR4.SMEP',  LONG,                           CR4_SMEP, role.EXT_CR4_SMEP],
    ['CR4.SMAP',  LONG,                           CR4_SMAP, role.EXT_CR4_SMAP],
    ['CR4.PKE',   LONG,                           CR4_PKE,  role.EXT_CR4_PKE],
    ['CR4.LA57',  LONG,                           CR4_LA57, role.EXT_CR4_LA57],
    ['PKE, PAE',  { ...LONG, efer: 0 },           CR4_PKE,  0],
    ['LA57, PAE', { ...LONG, efer: 0 },           CR4_LA57, 0],
    ['no paging', { ...LONG, cr0: 0, efer: 0 },   CR4_SMEP, 0],
  ])('tell of %s', (_name, mode, bit, want) => {
    expect(vcpuIn({ ...mode, cr4: mode.cr4 | bit }).cpuRoleExt ^ vcpuIn(mode).cpuRoleExt).toBe(want);
  });
});

describe('a permission fault', () => {
  /** The manuals' rules, one after the other. */
  function faults(mode: Mode, rights: number, access: number, ac: boolean): boolean {
    const user = (access & PFERR_USER) !== 0;
    const write = (access & PFERR_WRITE) !== 0;
    const fetch = (access & PFERR_FETCH) !== 0;
    const onUserPage = (rights & ACC_USER) !== 0;
    if (user && !onUserPage) return true;
    if (write && !(rights & ACC_WRITE) && (user || mode.cr0 & CR0_WP)) return true;
    if (fetch && !(rights & ACC_EXEC) && mode.efer & EFER_NX) return true;
    if (!user && onUserPage && fetch && mode.cr4 & CR4_SMEP) return true;
    const smapHolds = !ac || (access & PFERR_IMPLICIT_ACCESS) !== 0;
    return !user && onUserPage && !fetch && (mode.cr4 & CR4_SMAP) !== 0 && smapHolds;
  }

  const MODES = combinations(1, 2, 4, 8).map((set) => ({
    cr0: CR0_PG | (set & 1 ? CR0_WP : 0),
    cr4: CR4_PAE | (set & 2 ? CR4_SMEP : 0) | (set & 4 ? CR4_SMAP : 0),
    efer: EFER_LMA | (set & 8 ? EFER_NX : 0),
  }));

  it('comes exactly when the rules say so: all modes, rights, accesses, with AC and without', () => {
    const wrong: string[] = [];
    for (const mode of MODES) {
      const vcpu = vcpuIn(mode);
      for (const ac of [false, true]) {
        vcpu.regs.ac = ac;
        for (const rights of RIGHTS)
          for (const access of ACCESSES) {
            const want = faults(mode, rights, access, ac) ? PFERR_PRESENT : 0;
            const got = permissionFault(vcpu, rights, 0, access);
            if (got !== want) wrong.push(`${JSON.stringify(mode)} ac ${ac} rights ${rights} access ${access}: ${got}`);
          }
      }
    }
    expect(wrong).toEqual([]);
  });

  it('does not depend on the present bit of the access', () => {
    for (const mode of MODES) {
      const vcpu = vcpuIn(mode);
      for (const rights of RIGHTS)
        for (const access of ACCESSES)
          expect(permissionFault(vcpu, rights, 0, access | PFERR_PRESENT)).toBe(
            permissionFault(vcpu, rights, 0, access),
          );
    }
  });

  it('is told of by protection keys too: data accesses to user pages, whoever makes them', () => {
    const wrong: string[] = [];
    for (const plain of MODES) {
      const mode = { ...plain, cr4: plain.cr4 | CR4_PKE };
      const vcpu = vcpuIn(mode);
      for (const pkey of [0, 7, 15])
        for (const bits of [0, 1, 2, 3])
          for (const rights of RIGHTS)
            for (const access of ACCESSES) {
              // All other keys forbid everything.
              vcpu.regs.pkru = ~(3 << (2 * pkey)) | (bits << (2 * pkey)) | 0;
              const subject = (rights & ACC_USER) !== 0 && !(access & PFERR_FETCH);
              const writes = (access & PFERR_WRITE) !== 0 && ((access & PFERR_USER) !== 0 || (mode.cr0 & CR0_WP) !== 0);
              const byKey = subject && ((bits & 1) !== 0 || ((bits & 2) !== 0 && writes));
              const plainFault = faults(mode, rights, access, false);
              const want = byKey ? PFERR_PRESENT | PFERR_PK : plainFault ? PFERR_PRESENT : 0;
              const got = permissionFault(vcpu, rights, pkey, access);
              if (got !== want) wrong.push(`key ${pkey}: ${bits}, rights ${rights}, access ${access}: ${got}`);
            }
    }
    expect(wrong.slice(0, 5)).toEqual([]);
  });

  it('asks no keys outside of long mode or with CR4.PKE clear', () => {
    for (const mode of [LONG, { cr0: CR0_PG, cr4: CR4_PAE | CR4_PKE, efer: 0 }]) {
      const vcpu = vcpuIn(mode);
      vcpu.regs.pkru = -1;
      expect(permissionFault(vcpu, ACC_USER | ACC_WRITE | ACC_EXEC, 3, PFERR_USER)).toBe(0);
    }
  });

  it('forgets the keys of a mode that had them', () => {
    const mmu = new Mmu({ host: new FlatHost({ bytes: 4096, level: 1 }), trace: new Tracer(), tdp: false });
    const vcpu = vcpuIn({ ...LONG, cr4: LONG.cr4 | CR4_PKE });
    expect(vcpu.pkruMask).not.toBe(0);
    vcpu.regs.cr4 = LONG.cr4;
    initMmu(mmu, vcpu);
    expect(vcpu.pkruMask).toBe(0);
  });
});

describe('the reserved bits of a guest entry', () => {
  type Range = readonly [first: number, last: number];
  const [HIGH_LONG, HIGH_PAE, NX, TOP]: Range[] = [
    [40, 51],
    [40, 62],
    [63, 63],
    [7, 8],
  ];
  const LONG_NX = { ...LONG, efer: EFER_LMA | EFER_NX };
  const PAE = { cr0: CR0_PG, cr4: CR4_PAE, efer: EFER_NX };
  const LEGACY = { cr0: CR0_PG, cr4: CR4_PSE, efer: 0 };
  // biome-ignore format: a table
  it.each<[string, Mode, number, boolean, Range[]]>([
    // mode            level  large  reserved
    ['4-level',        LONG_NX,  1, false, [HIGH_LONG]],
    ['4-level, PAT',   LONG_NX,  1, true,  [HIGH_LONG]],
    ['4-level',        LONG_NX,  2, false, [HIGH_LONG]],
    ['4-level, large', LONG_NX,  2, true,  [HIGH_LONG, [13, 20]]],
    ['4-level',        LONG_NX,  3, false, [HIGH_LONG]],
    ['4-level, large', LONG_NX,  3, true,  [HIGH_LONG, [13, 29]]],
    ['4-level',        LONG_NX,  4, false, [HIGH_LONG, TOP]],
    ['without NX',     LONG,     1, false, [HIGH_LONG, NX]],
    ['without NX',     LONG,     2, true,  [HIGH_LONG, NX, [13, 20]]],
    ['without NX',     LONG,     4, false, [HIGH_LONG, NX, TOP]],
    ['5-level',        { ...LONG_NX, cr4: CR4_PAE | CR4_LA57 }, 5, false, [HIGH_LONG, TOP]],
    ['PAE',            PAE,      1, false, [HIGH_PAE]],
    ['PAE',            PAE,      2, false, [HIGH_PAE]],
    ['PAE, large',     PAE,      2, true,  [HIGH_PAE, [13, 20]]],
    ['PAE without NX', { ...PAE, efer: 0 }, 1, false, [HIGH_PAE, NX]],
    ['32-bit',         LEGACY,   1, false, []],
    ['32-bit',         LEGACY,   2, false, []],
    ['32-bit, PSE-36', LEGACY,   2, true,  [[17, 21]]],
    ['without PSE',    { ...LEGACY, cr4: 0 }, 2, true, []],
  ])('are those of the manual: %s (%#)', (_name, mode, level, large, ranges) => {
    const vcpu = vcpuIn(mode);
    const width = guestLevels(vcpu) === 2 ? 32 : 64;
    const reserved: number[] = [];
    for (let bit = 0; bit < width; bit++) {
      if (bit === 7 && !large && level < 4) continue;
      const entry = (1n << BigInt(bit)) | (large ? 0x80n : 0n);
      if (isReservedGpte(vcpu, loOf(entry), hiOf(entry), level)) reserved.push(bit);
    }
    const want = ranges.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i));
    expect(reserved).toEqual(want.sort((a, b) => a - b));
  });
});
