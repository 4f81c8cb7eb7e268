import { beforeEach, describe, expect, it } from 'vitest';
import { PAGING_32, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_NONE, PAGING_PAE } from '../arch/paging-mode.ts';
import {
  PTE_A_LO,
  PTE_D_LO,
  PTE_NX_HI,
  PTE_P_LO,
  PTE_PK_SHIFT_HI,
  PTE_PS_LO,
  PTE_U_LO,
  PTE_W_LO,
} from '../arch/pte.ts';
import { CPU_AMD, CPU_INTEL, CPU_TCG } from './cpu-model.ts';
import { BareWalker, PDPTES_INVALID } from './guest-walker.ts';
import {
  ACCESS_FETCH,
  ACCESS_IMPLICIT,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  CTL_AC,
  CTL_NX,
  CTL_PKE,
  CTL_PSE,
  CTL_SMAP,
  CTL_SMEP,
  CTL_WP,
  WALK_NONCANONICAL,
  WALK_OK,
} from './rights.ts';
import { FlatMemory, setGuestEntry } from './testing/tables.ts';
import { pageShiftOf } from './tlb.ts';

const PWU = PTE_P_LO | PTE_W_LO | PTE_U_LO;
const USER_WRITE = ACCESS_USER | ACCESS_WRITE;

let memory: FlatMemory;
let walker: BareWalker;
const word = (frame: number, index: number): number => memory.words[(frame << 10) | index];
const flags = (frame: number, index: number): number => word(frame, 2 * index) & 0xfff;

beforeEach(() => {
  memory = new FlatMemory(16);
  walker = new BareWalker(memory, CPU_AMD);
});

describe('without paging', () => {
  it('every address of 32 bits is its own translation', () => {
    walker.setMode(PAGING_NONE, 0);
    expect(walker.walk(0xfedcb123 | 0, 0, USER_WRITE)).toBe(WALK_OK);
    expect(walker).toMatchObject({ gfn: 0xfedcb, pfn: 0xfedcb, level: 3, guestLevel: 0 });
    expect(memory.writes).toBe(0);
  });
});

describe('32-bit paging', () => {
  beforeEach(() => {
    walker.cr3Lo = 0x1018; // PWT and PCD are no part of the address
    walker.setMode(PAGING_32, CTL_WP);
    memory.words[(1 << 10) | 0x3ff] = 0x2000 | PWU;
    memory.words[(2 << 10) | 0x3fe] = 0xabcde000 | PWU;
  });

  it('walks two levels of 1024 entries', () => {
    expect(walker.walk(0xffffe123 | 0, 0, USER_WRITE)).toBe(WALK_OK);
    expect(walker.gfn).toBe(0xabcde);
    expect(word(1, 0x3ff) & 0xfff).toBe(PWU | PTE_A_LO);
    expect(word(2, 0x3fe) & 0xfff).toBe(PWU | PTE_A_LO | PTE_D_LO);
  });

  it('takes PS for a 4 MiB page only with CR4.PSE', () => {
    memory.words[1 << 10] = 0x00002000 | PWU | PTE_PS_LO;
    memory.words[(2 << 10) | 5] = 0x7000 | PWU;
    expect(walker.walk(0x5123, 0, ACCESS_READ)).toBe(WALK_OK);
    expect(walker).toMatchObject({ gfn: 7, guestLevel: 1 });
    walker.setMode(PAGING_32, CTL_WP | CTL_PSE);
    expect(walker.walk(0x5123, 0, ACCESS_READ)).toBe(WALK_OK);
    // Bit 13 of the entry is address bit 32 now.
    expect(walker).toMatchObject({ gfn: 0x100005, guestLevel: 2 });
    expect(pageShiftOf(walker.attr)).toBe(22);
  });

  it('builds 40-bit addresses with PSE-36 and reserves bit 21', () => {
    walker.setMode(PAGING_32, CTL_PSE);
    memory.words[1 << 10] = 0x7fc00000 | (0xa5 << 13) | PWU | PTE_PS_LO;
    expect(walker.walk(0x3ff123, 0, ACCESS_READ)).toBe(WALK_OK);
    expect(walker.gfn).toBe(0xa57ffff);
    memory.words[1 << 10] |= 1 << 21;
    expect(walker.walk(0x3ff123, 0, ACCESS_READ)).toBe(9);
  });

  it('reserves the bits of PSE-36 that a CPU of 36 address bits lacks', () => {
    walker = new BareWalker(memory, { ...CPU_AMD, maxphyaddr: 36 });
    walker.cr3Lo = 0x1000;
    walker.setMode(PAGING_32, CTL_PSE);
    memory.words[1 << 10] = (0x0f << 13) | PWU | PTE_PS_LO;
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_OK);
    memory.words[1 << 10] = (0x10 << 13) | PWU | PTE_PS_LO;
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(9);
  });

  it("doesn't report fetches as such: there is no NX", () => {
    walker.setMode(PAGING_32, CTL_NX);
    expect(walker.walk(0, 0, ACCESS_FETCH)).toBe(0);
    walker.setMode(PAGING_32, CTL_SMEP);
    expect(walker.walk(0, 0, ACCESS_FETCH)).toBe(0x10);
  });
});

describe('PAE', () => {
  const enter = (model: typeof CPU_AMD): void => {
    walker = new BareWalker(memory, model);
    walker.cr3Lo = 0x1fe0;
    walker.setMode(PAGING_PAE, CTL_NX);
  };
  beforeEach(() => {
    // Entries 0x1fc to 0x1ff of frame 1 are the four at 0x1fe0.
    setGuestEntry(memory, 1, 0x1ff, 2, PTE_P_LO);
    setGuestEntry(memory, 2, 0x1ff, 3, PWU);
    setGuestEntry(memory, 3, 0x1ff, 0x1234567, PWU);
  });

  it('reads the top level from memory at each walk, without setting A', () => {
    enter(CPU_AMD);
    expect(walker.walk(0xfffff000 | 0, 0x7fff, USER_WRITE)).toBe(WALK_OK);
    expect(walker.gfn).toBe(0x1234567);
    expect(flags(1, 0x1ff)).toBe(PTE_P_LO);
    expect(flags(2, 0x1ff)).toBe(PWU | PTE_A_LO);
    expect(flags(3, 0x1ff)).toBe(PWU | PTE_A_LO | PTE_D_LO);
    setGuestEntry(memory, 1, 0x1ff, 2, PTE_P_LO | PTE_A_LO);
    expect(walker.walk(0xfffff000 | 0, 0, ACCESS_READ)).toBe(9);
  });

  it('sets A there on TCG, which makes the entries invalid for a load of CR3', () => {
    enter(CPU_TCG);
    expect(walker.walk(0xfffff000 | 0, 0, USER_WRITE)).toBe(WALK_OK);
    expect(flags(1, 0x1ff)).toBe(PTE_P_LO | PTE_A_LO);
    expect(walker.walk(0xfffff000 | 0, 0, USER_WRITE)).toBe(WALK_OK);
    enter(CPU_INTEL);
    expect(walker.loadPdptes()).toBe(PDPTES_INVALID);
  });

  it('uses the registers where the CPU has them, until they are loaded again', () => {
    enter(CPU_INTEL);
    expect(walker.walk(0xfffff000 | 0, 0, ACCESS_READ)).toBe(0);
    expect(walker.loadPdptes()).toBe(WALK_OK);
    setGuestEntry(memory, 1, 0x1ff, 0, 0);
    expect(walker.walk(0xfffff000 | 0, 0, ACCESS_READ)).toBe(WALK_OK);
    setGuestEntry(memory, 1, 0x1fc, 0, PTE_P_LO | PTE_W_LO);
    expect(walker.loadPdptes()).toBe(PDPTES_INVALID);
    expect(walker.walk(0xfffff000 | 0, 0, ACCESS_READ)).toBe(WALK_OK);
  });

  it('ignores reserved bits of absent entries when it loads them', () => {
    enter(CPU_INTEL);
    setGuestEntry(memory, 1, 0x1fc, 0, PTE_W_LO);
    expect(walker.loadPdptes()).toBe(WALK_OK);
  });
});

describe('long mode', () => {
  beforeEach(() => {
    walker.cr3Lo = 0x1000 | 0xabc; // the low bits may be a PCID
    walker.setMode(PAGING_4LEVEL, CTL_NX | CTL_WP);
    setGuestEntry(memory, 1, 0x1ff, 2, PWU);
    setGuestEntry(memory, 2, 0x1ff, 3, PWU);
    setGuestEntry(memory, 3, 0x1ff, 4, PWU);
    setGuestEntry(memory, 4, 0x1ff, 0xfedcba9, PWU);
  });
  const walk = (access: number): number => walker.walk(0xfffff000 | 0, -1, access);

  it('walks four levels', () => {
    expect(walk(USER_WRITE)).toBe(WALK_OK);
    expect(walker).toMatchObject({ gfn: 0xfedcba9, level: 1, guestLevel: 1 });
    expect([1, 2, 3, 4].map((frame) => flags(frame, 0x1ff) & ~PWU)).toEqual([0x20, 0x20, 0x20, 0x60]);
  });

  it('walks five', () => {
    walker.setMode(PAGING_5LEVEL, CTL_NX);
    walker.cr3Lo = 0x5000;
    setGuestEntry(memory, 5, 0x1ff, 1, PWU);
    expect(walk(USER_WRITE)).toBe(WALK_OK);
    expect(walker.gfn).toBe(0xfedcba9);
  });

  it('writes no entry whose A and D are set already', () => {
    walk(USER_WRITE);
    memory.writes = 0;
    expect(walk(USER_WRITE)).toBe(WALK_OK);
    expect(memory.writes).toBe(0);
  });

  it('reserves frame bits from 40 up', () => {
    setGuestEntry(memory, 4, 0x1ff, 0, PWU, 1 << 7);
    expect(walk(ACCESS_READ)).toBe(WALK_OK);
    setGuestEntry(memory, 4, 0x1ff, 0, PWU, 1 << 8);
    expect(walk(ACCESS_READ)).toBe(9);
  });

  it('reserves PS in level 4, and bit 8 there on AMD only', () => {
    setGuestEntry(memory, 1, 0x1ff, 2, PWU | PTE_PS_LO);
    expect(walk(ACCESS_READ)).toBe(9);
    setGuestEntry(memory, 1, 0x1ff, 2, PWU | 0x100);
    expect(walk(ACCESS_READ)).toBe(9);
    walker = new BareWalker(memory, CPU_INTEL);
    walker.cr3Lo = 0x1000;
    walker.setMode(PAGING_4LEVEL, CTL_NX);
    expect(walk(ACCESS_READ)).toBe(WALK_OK);
  });

  it('reserves PS in level 3 on a CPU without 1 GiB pages', () => {
    setGuestEntry(memory, 2, 0x1ff, 0x40000, PWU | PTE_PS_LO);
    expect(walk(ACCESS_READ)).toBe(WALK_OK);
    expect(walker).toMatchObject({ gfn: 0x7ffff, guestLevel: 3 });
    walker = new BareWalker(memory, { ...CPU_AMD, gigabytePages: false });
    walker.cr3Lo = 0x1000;
    walker.setMode(PAGING_4LEVEL, CTL_NX);
    expect(walk(ACCESS_READ)).toBe(9);
  });

  it('refuses addresses that are not canonical', () => {
    expect(walker.walk(0, 0x8000, ACCESS_READ)).toBe(WALK_NONCANONICAL);
  });

  it.each([
    ['SMEP: a supervisor may not fetch from a user page', CTL_SMEP, ACCESS_FETCH, 0x11],
    ['SMEP: it may read it', CTL_SMEP, ACCESS_READ, WALK_OK],
    ['SMAP: it may not', CTL_SMAP, ACCESS_READ, 1],
    ['SMAP: nor write it', CTL_SMAP, ACCESS_WRITE, 3],
    ['SMAP: but fetch', CTL_SMAP, ACCESS_FETCH, WALK_OK],
    ['SMAP: it may with AC set', CTL_SMAP | CTL_AC, ACCESS_WRITE, WALK_OK],
    ["SMAP: AC doesn't excuse the CPU's own accesses", CTL_SMAP | CTL_AC, ACCESS_IMPLICIT, 1],
    ['SMAP: a user may', CTL_SMAP, USER_WRITE, WALK_OK],
  ])('%s', (_name, controls, access, result) => {
    walker.setMode(PAGING_4LEVEL, CTL_NX | CTL_WP | controls);
    expect(walk(access)).toBe(result);
  });

  it('lets a supervisor write read-only pages without WP only', () => {
    setGuestEntry(memory, 4, 0x1ff, 7, PTE_P_LO);
    expect(walk(ACCESS_WRITE)).toBe(3);
    walker.setMode(PAGING_4LEVEL, CTL_NX);
    expect(walk(ACCESS_WRITE)).toBe(WALK_OK);
    expect(walk(USER_WRITE)).toBe(7);
  });

  it.each([
    ['access disabled, read', 0x1, ACCESS_USER, CTL_WP, 0x25],
    ['access disabled, supervisor', 0x1, ACCESS_READ, CTL_WP, 0x21],
    ['access disabled, fetch', 0x1, ACCESS_USER | ACCESS_FETCH, CTL_WP, WALK_OK],
    ['write disabled, read', 0x2, ACCESS_USER, CTL_WP, WALK_OK],
    ['write disabled, write', 0x2, USER_WRITE, CTL_WP, 0x27],
    ['write disabled, supervisor with WP', 0x2, ACCESS_WRITE, CTL_WP, 0x23],
    ['write disabled, supervisor without', 0x2, ACCESS_WRITE, 0, WALK_OK],
  ])('protection key 15: %s', (_name, rights, access, wp, result) => {
    walker.setMode(PAGING_4LEVEL, CTL_NX | CTL_PKE | wp);
    walker.pkru = rights << 30;
    setGuestEntry(memory, 4, 0x1ff, 7, PWU, 15 << PTE_PK_SHIFT_HI);
    expect(walk(access)).toBe(result);
  });

  it('stops at NX anywhere on the way, for fetches', () => {
    setGuestEntry(memory, 2, 0x1ff, 3, PWU, PTE_NX_HI);
    expect(walk(ACCESS_READ)).toBe(WALK_OK);
    expect(walk(ACCESS_USER | ACCESS_FETCH)).toBe(0x15);
  });
});
