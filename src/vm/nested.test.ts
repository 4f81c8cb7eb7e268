import { describe, expect, it } from 'vitest';
import { KvmError } from '../base/errno.ts';
import { Prng } from '../base/prng.ts';
import { translateNested } from '../oracle/translate.ts';
import { buildGuest, type Guest, type MapSpec, P, PS, U, W, WUAD } from './testing/build-guest.ts';

const M = 2 ** 20;
const RAM = 0x1000000;
/** The other place at which nested tables show the same memory. */
const ALIAS = 0x8000000;

interface Kind {
  readonly tdpMmu: boolean;
  readonly hostLevels: 4 | 5;
}

/** A hypervisor whose own memory is mapped as it is, and two sets of nested tables as `nested` says. */
function hypervisor(kind: Kind, nested: readonly MapSpec[] = [], manual = 0): Guest {
  const own: MapSpec[] = [
    { va: RAM, gpa: RAM, count: 2, level: 2 },
    { va: ALIAS, gpa: ALIAS, count: 2, level: 2 },
  ];
  return buildGuest({
    npt: true,
    ...kind,
    nestedRoots: [1, 2],
    roots: 3,
    manual,
    slots: [{ id: 1, gpa: RAM, bytes: 4 * M, backing: 'thp' }],
    maps: [...own, ...nested],
  });
}

const KINDS: readonly (readonly [string, Kind])[] = [
  ['the rmap-based engine', { tdpMmu: false, hostLevels: 4 }],
  ['the TDP MMU', { tdpMmu: true, hostLevels: 4 }],
  ['the rmap-based engine with five levels', { tdpMmu: false, hostLevels: 5 }],
  ['the TDP MMU with five levels', { tdpMmu: true, hostLevels: 5 }],
];

/** What two sets of tables give for an access, by the manual: how the op has to end. */
function predict(
  guest: Guest,
  root: number,
  va: number,
  access: 'r' | 'w',
): { exit: string; info1?: string; pa?: number } {
  const { state } = guest.vcpu;
  const written = new Map<bigint, bigint>();
  const read = (pa: bigint, bytes: 4 | 8): bigint => written.get(pa) ?? guest.peek(Number(pa), bytes);
  const result = translateNested({
    guest: {
      mode: 'long',
      cr0: BigInt(state.cr0 >>> 0),
      cr3: BigInt(state.cr3Lo),
      cr4: BigInt(state.cr4),
      pkru: 0,
      efer: BigInt(state.efer),
      ac: false,
      cpl3: false,
      implicit: false,
      access,
      va: BigInt(va),
      maxphyaddr: 40,
    },
    npt: {
      rootPa: BigInt(guest.image.roots[root]),
      maxphyaddr: 40,
      read,
      write: (pa: bigint, _bytes: number, value: bigint) => void written.set(pa, value),
    },
  });
  if (result.kind === 'ok') return { exit: 'done', pa: Number(result.pa) };
  if (result.kind === 'guest-fault') return { exit: 'pf' };
  return { exit: 'npf', info1: `0x${result.error.toString(16)}` };
}

describe.each(KINDS)('a nested guest under %s', (_name, kind) => {
  it('reads and writes what two sets of tables, walked by the manual, lead to; all else is told to its hypervisor', () => {
    const random = new Prng(7);
    for (let round = 0; round < 6; round++) {
      const rights = (): number => random.pick([WUAD, WUAD, P | U | W, P | U, 0]);
      const maps: MapSpec[] = [];
      for (const root of [1, 2]) {
        for (const va of [RAM, RAM + 2 * M, ALIAS]) {
          const gpa = RAM + random.int(2) * 2 * M;
          if (random.chance(0.5)) maps.push({ va, gpa, level: 2, bits: rights(), root });
          else
            for (let i = 0; i < 4; i++)
              maps.push({ va: va + i * 4096, gpa: gpa + random.int(8) * 4096, bits: rights(), root });
        }
      }
      const guest = hypervisor(kind, maps);
      let root = 0;
      for (let i = 0; i < 60; i++) {
        const va = random.pick([RAM, RAM + 2 * M, ALIAS]) + random.int(4) * 4096 + 8 * random.int(32);
        if (root === 0 || random.chance(0.1)) {
          root = 1 + random.int(2);
          guest.expectDone(`l2 ${root}`);
        }
        if (random.chance(0.2)) {
          const table = root;
          guest.expectDone('l1');
          guest.do(`wpte ${table} ${va} ${random.pick([1, 2])} ${random.pick(['-W', '+W', '-P', '+WU', '-A'])}`);
          guest.expectDone(`l2 ${root}`);
        }
        const access = random.pick(['r', 'w'] as const);
        const want = predict(guest, root, va, access);
        const { res } = guest.do(access === 'r' ? `r ${va}` : `w ${va} ${i + 1}`);
        const { exit, info1 }: { exit?: string; info1?: string } = res ?? {};
        expect({ i, va, exit, info1 }).toEqual({ i, va, exit: want.exit, info1: want.info1 });
        const inMemory = want.pa === undefined ? null : guest.peek(want.pa, 4);
        const said = access === 'w' ? BigInt(i + 1) : BigInt(res?.value ?? -1);
        expect(want.pa === undefined ? null : said).toBe(inMemory);
        if (want.exit === 'npf') root = 0;
        expect(guest.vm.verify()).toEqual([]);
      }
    }
  });

  it('is not seen to write after its hypervisor took the right away, once it is entered again', () => {
    const guest = hypervisor(kind, [{ va: RAM, gpa: RAM, count: 8, root: 1 }]);
    guest.expectDone('l2 1', `w ${RAM} 1`, 'l1', `wpte 1 ${RAM} 1 -W`, 'l2 1');
    expect(guest.do(`w ${RAM} 2`).res).toMatchObject({ exit: 'npf', info1: '0x100000007' });
    expect(guest.peek(RAM, 4)).toBe(1n);
  });

  it('that writes shows in the log, through whichever nested address', () => {
    const guest = hypervisor(kind, [{ va: ALIAS, gpa: RAM, level: 2, bits: WUAD | PS, root: 1 }]);
    guest.expectDone('l2 1', `w ${ALIAS} 1`, 'log 1 on', `w ${ALIAS + 0x3000} 2`);
    expect(guest.do('getlog 1').bitmap?.gfns).toEqual([[3, 3]]);
    guest.expectDone(`w ${ALIAS + 0x3000} 3`, `w ${ALIAS + 0x5000} 3`);
    expect(guest.do('getlog 1').bitmap?.gfns).toEqual([
      [3, 3],
      [5, 5],
    ]);
    expect(guest.vm.verify()).toEqual([]);
  });

  it('and its hypervisor each keep their roots, which go with the vCPU’s other ones', () => {
    const guest = hypervisor(kind, [{ va: RAM, gpa: RAM, count: 8, root: 1 }]);
    guest.expectDone('nop', 'l2 1', `r ${RAM}`, 'l1', `r ${RAM}`, 'l2 1');
    expect(guest.events(`r ${RAM}`)).not.toContain('kvm_mmu_get_page');
    guest.expectDone('del 1', 'slot 1 0x1000000 4M thp', 'nop');
    expect(guest.vm.verify()).toEqual([]);
    expect(guest.do(`r ${RAM}`).res).toMatchObject({ exit: 'done' });
  });
});

describe('nested state', () => {
  it('is refused with EINVAL where no nested guest can be', () => {
    const state = {
      vmcb: 32768,
      nestedCr3: 65536n,
      cr0: 2147483649 | 0,
      cr3: 65536n,
      cr4: 32,
      efer: 7424,
      rip: 4432,
      rsp: 8176,
      idtBase: 0,
      gdtBase: 0,
    };
    const guest = hypervisor(KINDS[0][1]);
    const { vcpu } = guest;
    expect(() => vcpu.setNestedState({ ...state, vmcb: 0x8008 })).toThrow(KvmError);
    expect(() => vcpu.setNestedState({ ...state, efer: 0xd00 })).toThrow(/hypervisor in long mode/);
    expect(() => vcpu.setNestedState({ ...state, cr0: 1 })).toThrow(KvmError);
    vcpu.setSregs({ efer: 0xd00 });
    expect(() => vcpu.setNestedState(state)).toThrow(/EFER.SVME/);
    const shadow = buildGuest({ nestedRoots: [1], roots: 2 });
    expect(() => shadow.vcpu.setNestedState(state)).toThrow(/NPT/);
  });
});
