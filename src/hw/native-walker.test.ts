import { beforeEach, describe, expect, it } from 'vitest';
import { PTE_A_LO, PTE_D_LO, PTE_G_LO, PTE_NX_HI, PTE_P_LO, PTE_U_LO, PTE_W_LO } from '../arch/pte.ts';
import { TableArena, TABLE_PFN_BASE } from '../mem/table-arena.ts';
import { CPU_AMD, CPU_TCG, hostView } from './cpu-model.ts';
import { NativeWalker } from './native-walker.ts';
import {
  ACCESS_FETCH,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  ATTR_D,
  ATTR_G,
  ATTR_U,
  ATTR_W,
  CTL_NX,
  CTL_PGE,
  CTL_WP,
  WALK_NONCANONICAL,
  WALK_OK,
} from './rights.ts';
import { accessed, mapInArena, pathInArena, setEntry } from './testing/tables.ts';

const PWU = PTE_P_LO | PTE_W_LO | PTE_U_LO;
const USER_WRITE = ACCESS_USER | ACCESS_WRITE;

let arena: TableArena;
let root: number;
let walker: NativeWalker;
const entry = (sptep: number): number => arena.words[2 * sptep];

beforeEach(() => {
  arena = new TableArena();
  root = arena.alloc();
  walker = new NativeWalker(arena, hostView(CPU_AMD), CTL_NX | CTL_WP);
});

describe('a walk that succeeds', () => {
  it.each([
    [1, 0x12345, 0x12345],
    [2, 0x12200, 0x12345],
    [3, 0x40000, 0x52345],
  ])('ends at a leaf of level %i', (level, pfn, expected) => {
    const sptep = mapInArena(arena, root, 4, 0x12345678, 0x7ffe, level, pfn, PWU);
    expect(walker.walk(root, 4, 0x12345678, 0x7ffe, ACCESS_READ)).toBe(WALK_OK);
    expect(walker).toMatchObject({ pfn: expected, level, sptep });
  });

  it('goes through five levels', () => {
    mapInArena(arena, root, 5, 0x1000, 0x123456, 1, 0x77, PWU);
    expect(walker.walk(root, 5, 0x1abc, 0x123456, ACCESS_READ)).toBe(WALK_OK);
    expect(walker.pfn).toBe(0x77);
  });

  it('returns frames above 2^32 bytes and above 2^44', () => {
    const sptep = mapInArena(arena, root, 4, 0, 0, 1, 0, PWU);
    arena.words[2 * sptep] = 0x54321000 | PWU | 0;
    arena.words[2 * sptep + 1] = 0xffff;
    expect(walker.walk(root, 4, 0, 0, ACCESS_READ)).toBe(WALK_OK);
    expect(walker.pfn).toBe(0xffff54321);
  });

  it('sets A from the root to the leaf, and D only for a write', () => {
    const sptep = mapInArena(arena, root, 4, 0, 0, 1, 5, PWU);
    const path = pathInArena(arena, root, 4, 0, 0);
    expect(path).toHaveLength(4);
    walker.walk(root, 4, 0, 0, ACCESS_READ);
    expect(path.map((at) => accessed(entry(at)))).toEqual([true, true, true, true]);
    expect(entry(sptep) & PTE_D_LO).toBe(0);
    expect(walker).toMatchObject({ setDirty: false });
    expect(walker.attr & ATTR_D).toBe(0);
    walker.walk(root, 4, 0, 0, ACCESS_WRITE);
    expect(path.map((at) => entry(at) & PTE_D_LO)).toEqual([0, 0, 0, PTE_D_LO]);
    expect(walker).toMatchObject({ setDirty: true });
    expect(walker.attr & ATTR_D).toBe(ATTR_D);
    walker.walk(root, 4, 0, 0, ACCESS_WRITE);
    expect(walker).toMatchObject({ setDirty: false });
  });

  it('combines rights over all levels', () => {
    const sptep = mapInArena(arena, root, 4, 0, 0, 1, 5, PWU);
    const path = pathInArena(arena, root, 4, 0, 0);
    arena.words[2 * path[1]] &= ~PTE_W_LO;
    arena.words[2 * path[2]] &= ~PTE_U_LO;
    walker.walk(root, 4, 0, 0, ACCESS_READ);
    expect(walker.attr & (ATTR_W | ATTR_U)).toBe(0);
    expect(walker.sptep).toBe(sptep);
  });

  it('reports a global leaf only while CR4.PGE is set', () => {
    mapInArena(arena, root, 4, 0, 0, 1, 5, PWU | PTE_G_LO);
    walker.walk(root, 4, 0, 0, ACCESS_READ);
    expect(walker.attr & ATTR_G).toBe(0);
    walker.setControls(CTL_NX | CTL_PGE);
    walker.walk(root, 4, 0, 0, ACCESS_READ);
    expect(walker.attr & ATTR_G).toBe(ATTR_G);
  });
});

describe('a walk that faults', () => {
  it.each([
    ['read', ACCESS_READ, 0x0],
    ['write', ACCESS_WRITE, 0x2],
    ['user read', ACCESS_USER, 0x4],
    ['user write', USER_WRITE, 0x6],
    ['fetch', ACCESS_FETCH, 0x10],
    ['user fetch', ACCESS_USER | ACCESS_FETCH, 0x14],
  ])('on an absent entry, %s', (_name, access, code) => {
    expect(walker.walk(root, 4, 0, 0, access)).toBe(code);
  });

  it('leaves the refusing leaf alone, and has set A above it', () => {
    const sptep = mapInArena(arena, root, 4, 0, 0, 1, 5, PTE_P_LO | PTE_U_LO);
    expect(walker.walk(root, 4, 0, 0, USER_WRITE)).toBe(0x7);
    const path = pathInArena(arena, root, 4, 0, 0);
    expect(path.map((at) => accessed(entry(at)))).toEqual([true, true, true, false]);
    expect(walker).toMatchObject({ level: 1, sptep });
  });

  it('says where it stopped', () => {
    mapInArena(arena, root, 4, 0, 0, 1, 5, PWU);
    expect(walker.walk(root, 4, 0x200000, 0, ACCESS_READ)).toBe(0);
    expect(walker.level).toBe(2);
  });

  it('on bit 51, as KVM uses it for MMIO: reserved, whatever the rights, and reported with P', () => {
    mapInArena(arena, root, 4, 0, 0, 1, 5, PTE_P_LO, 1 << 19);
    expect(walker.walk(root, 4, 0, 0, USER_WRITE)).toBe(0xf);
  });

  it("on a reserved bit without P on QEMU's TCG", () => {
    walker = new NativeWalker(arena, hostView(CPU_TCG), CTL_NX | CTL_WP);
    mapInArena(arena, root, 4, 0, 0, 1, 5, PTE_P_LO, 1 << 19);
    expect(walker.walk(root, 4, 0, 0, USER_WRITE)).toBe(0xe);
    expect(walker.walk(root, 4, 0, 0, ACCESS_USER | ACCESS_FETCH)).toBe(0x1c);
  });

  it('not for a reserved bit in an entry that is not present', () => {
    mapInArena(arena, root, 4, 0, 0, 1, 5, PTE_W_LO, 1 << 19);
    expect(walker.walk(root, 4, 0, 0, ACCESS_READ)).toBe(0);
  });

  it('on NX: a right for fetches, a reserved bit while EFER.NX is off', () => {
    mapInArena(arena, root, 4, 0, 0, 1, 5, PWU, PTE_NX_HI);
    expect(walker.walk(root, 4, 0, 0, ACCESS_FETCH)).toBe(0x11);
    expect(walker.walk(root, 4, 0, 0, ACCESS_READ)).toBe(WALK_OK);
    walker.setControls(0);
    expect(walker.walk(root, 4, 0, 0, ACCESS_READ)).toBe(0x9);
    // Without NX and SMEP the code doesn't tell a fetch.
    expect(walker.walk(root, 4, 0, 0, ACCESS_FETCH)).toBe(0x9);
  });

  it('on an address that is not canonical, without a look at the tables', () => {
    expect(walker.walk(root, 4, 0, 0x8000, ACCESS_READ)).toBe(WALK_NONCANONICAL);
  });

  it('throws if an entry leads out of the arena: that is a broken MMU, not a fault', () => {
    setEntry(arena, root << 9, 5, PWU);
    expect(() => walker.walk(root, 4, 0, 0, ACCESS_READ)).toThrow('no table');
  });
});

describe('a 1 GiB leaf', () => {
  it('that refuses keeps A clear, on TCG it gets it', () => {
    const sptep = mapInArena(arena, root, 4, 0, 0, 3, 0, PTE_P_LO);
    expect(walker.walk(root, 4, 0, 0, ACCESS_USER)).toBe(5);
    expect(accessed(entry(sptep))).toBe(false);
    walker = new NativeWalker(arena, hostView(CPU_TCG));
    expect(walker.walk(root, 4, 0, 0, ACCESS_USER)).toBe(5);
    expect(accessed(entry(sptep))).toBe(true);
  });
});

describe('a PAE root', () => {
  it('has four entries, without rights and without A', () => {
    const sptep = mapInArena(arena, root, 3, 0xc0201000 | 0, 0, 1, 0x99, PWU);
    expect(walker.walk(root, 3, 0xc0201234 | 0, 0, USER_WRITE)).toBe(WALK_OK);
    expect(walker).toMatchObject({ pfn: 0x99, sptep });
    expect(entry((root << 9) | 3) & 0xfff).toBe(PTE_P_LO);
  });

  it('faults on their reserved bits and on absent ones', () => {
    expect(walker.walk(root, 3, 0, 0, ACCESS_WRITE)).toBe(2);
    setEntry(arena, root << 9, TABLE_PFN_BASE + root, PTE_P_LO | PTE_W_LO);
    expect(walker.walk(root, 3, 0, 0, ACCESS_WRITE)).toBe(0xb);
  });

  it('reserves bits 52 to 62 below', () => {
    mapInArena(arena, root, 3, 0, 0, 1, 0x99, PWU, 1 << 20);
    expect(walker.walk(root, 3, 0, 0, ACCESS_READ)).toBe(9);
  });

  it('gets A in them on TCG', () => {
    walker = new NativeWalker(arena, hostView(CPU_TCG));
    mapInArena(arena, root, 3, 0, 0, 1, 0x99, PWU);
    expect(walker.walk(root, 3, 0, 0, ACCESS_READ)).toBe(WALK_OK);
    expect(entry(root << 9) & 0xfff).toBe(PTE_P_LO | PTE_A_LO);
  });
});
