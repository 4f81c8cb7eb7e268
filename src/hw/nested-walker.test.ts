import { beforeEach, describe, expect, it } from 'vitest';
import { PAGING_4LEVEL, PAGING_NONE } from '../arch/paging-mode.ts';
import { PTE_A_LO, PTE_D_LO, PTE_NX_HI, PTE_P_LO, PTE_U_LO, PTE_W_LO } from '../arch/pte.ts';
import { TableArena } from '../mem/table-arena.ts';
import { CPU_AMD, CPU_TCG, hostView } from './cpu-model.ts';
import { NativeWalker } from './native-walker.ts';
import { NestedWalker } from './nested-walker.ts';
import {
  ACCESS_FETCH,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  ATTR_HOST_D,
  ATTR_HOST_NX,
  ATTR_HOST_W,
  CTL_NX,
  CTL_WP,
  WALK_NESTED,
  WALK_OK,
} from './rights.ts';
import { FlatMemory, mapInArena, setGuestEntry } from './testing/tables.ts';
import { pageShiftOf, SetAssociativeTlb } from './tlb.ts';

const PWU = PTE_P_LO | PTE_W_LO | PTE_U_LO;

// Guest: tables in frames 1 to 4, gva 0 -> gfn 8. Host: gfn g lies in frame g + 0x20, except where a test says otherwise.
const HOST = 0x20;
const GFN = 8;

let arena: TableArena;
let memory: FlatMemory;
let walker: NestedWalker;
let nested: number[];

const build = (model: typeof CPU_AMD): void => {
  arena = new TableArena();
  memory = new FlatMemory(64);
  walker = new NestedWalker(memory, model, new NativeWalker(arena, hostView(model)));
  walker.nptRoot = arena.alloc();
  walker.cr3Lo = 0x1000;
  walker.setMode(PAGING_4LEVEL, CTL_NX | CTL_WP);
  for (let frame = 1; frame < 4; frame++) setGuestEntry(memory, HOST + frame, 0, frame + 1, PWU);
  setGuestEntry(memory, HOST + 4, 0, GFN, PWU);
  nested = [];
  for (const gfn of [1, 2, 3, 4, GFN]) {
    nested[gfn] = mapInArena(arena, walker.nptRoot, 4, gfn << 12, 0, 1, HOST + gfn, PWU);
  }
};
const unmap = (gfn: number): void => void arena.words.fill(0, 2 * nested[gfn], 2 * nested[gfn] + 2);
const nestedFlags = (gfn: number): number => arena.words[2 * nested[gfn]] & 0xfff;
const guestFlags = (frame: number): number => memory.words[(HOST + frame) << 10] & 0xfff;
const exit = (): string =>
  `${(walker.nestedGpaLo >>> 0).toString(16)} ${walker.nestedErrorHi.toString(16)}:${walker.nestedErrorLo.toString(16)}`;

beforeEach(() => build(CPU_AMD));

describe('a two-dimensional walk', () => {
  it('finds the host frame and writes A and D in both dimensions', () => {
    expect(walker.walk(0xabc, 0, ACCESS_READ)).toBe(WALK_OK);
    expect(walker).toMatchObject({ gfn: GFN, pfn: HOST + GFN, level: 1 });
    expect([1, 2, 3, 4].map(guestFlags)).toEqual(Array(4).fill(PWU | PTE_A_LO));
    // Tables are walked as writes: D. The page itself was read.
    expect([1, 2, 3, 4].map(nestedFlags)).toEqual(Array(4).fill(PWU | PTE_A_LO | PTE_D_LO));
    expect(nestedFlags(GFN)).toBe(PWU | PTE_A_LO);
  });

  it('sets D in tables even if A was set there already', () => {
    for (let frame = 1; frame <= 4; frame++) memory.words[(HOST + frame) << 10] |= PTE_A_LO;
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_OK);
    expect(memory.writes).toBe(0);
    expect(nestedFlags(1)).toBe(PWU | PTE_A_LO | PTE_D_LO);
  });

  it.each([
    ['read', ACCESS_READ, '8abc 1:4'],
    ['write', ACCESS_WRITE, '8abc 1:6'],
    ['fetch', ACCESS_FETCH, '8abc 1:14'],
    ['user read', ACCESS_USER, '8abc 1:4'],
    ['user fetch', ACCESS_USER | ACCESS_FETCH, '8abc 1:14'],
  ])('exits at the final address, %s, always as a user', (_name, access, expected) => {
    unmap(GFN);
    expect(walker.walk(0xabc, 0, access)).toBe(WALK_NESTED);
    expect(exit()).toBe(expected);
  });

  it('has set A and D in the guest when the final address faults', () => {
    unmap(GFN);
    walker.walk(0xabc, 0, ACCESS_WRITE);
    expect([1, 2, 3, 4].map(guestFlags)).toEqual([0x27, 0x27, 0x27, 0x67]);
  });

  it('exits for absent and for read-only table frames, as a write', () => {
    unmap(3);
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_NESTED);
    expect(exit()).toBe('3000 2:6');
    expect([1, 2, 3, 4].map(guestFlags)).toEqual([0x27, 0x27, 7, 7]);
    arena.words[2 * nested[2]] &= ~PTE_W_LO;
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_NESTED);
    expect(exit()).toBe('2000 2:7');
  });

  it("gives the entry's own address, to the byte", () => {
    unmap(4);
    expect(walker.walk(0x5678, 0, ACCESS_READ)).toBe(WALK_NESTED);
    expect(exit()).toBe('4028 2:6');
  });

  it('tells an MMIO entry by RSVD, without P on TCG', () => {
    arena.words[2 * nested[GFN] + 1] = 1 << 19;
    expect(walker.walk(0, 0, ACCESS_WRITE)).toBe(WALK_NESTED);
    expect(exit()).toBe('8000 1:f');
    build(CPU_TCG);
    arena.words[2 * nested[GFN] + 1] = 1 << 19;
    walker.walk(0, 0, ACCESS_WRITE);
    expect(exit()).toBe('8000 1:e');
  });

  it('gives the guest its own faults, with its own error code, before the final address is looked at', () => {
    unmap(GFN);
    setGuestEntry(memory, HOST + 4, 0, GFN, PTE_P_LO);
    expect(walker.walk(0, 0, ACCESS_WRITE)).toBe(3);
  });

  it('keeps what the nested tables deny apart from what the guest denies', () => {
    setGuestEntry(memory, HOST + 4, 0, GFN, PTE_P_LO);
    walker.setMode(PAGING_4LEVEL, CTL_NX);
    mapInArena(arena, walker.nptRoot, 4, GFN << 12, 0, 1, HOST + GFN, PTE_P_LO | PTE_U_LO, PTE_NX_HI);
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_OK);
    expect(walker.attr & (ATTR_HOST_W | ATTR_HOST_NX | ATTR_HOST_D)).toBe(ATTR_HOST_NX);
    expect(walker.walk(0, 0, ACCESS_WRITE)).toBe(WALK_NESTED);
    expect(exit()).toBe('8000 1:7');
    expect(walker.walk(0, 0, ACCESS_FETCH)).toBe(WALK_NESTED);
    expect(exit()).toBe('8000 1:15');
  });

  it('needs U in the nested tables, even for a supervisor', () => {
    arena.words[2 * nested[GFN]] &= ~PTE_U_LO;
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_NESTED);
    expect(exit()).toBe('8000 1:5');
  });

  it('goes through a nested 2 MiB page, and may cache no more than the guest maps', () => {
    arena.words.fill(0, walker.nptRoot << 10, (walker.nptRoot << 10) + 1024);
    mapInArena(arena, walker.nptRoot, 4, 0, 0, 2, 0, PWU);
    for (let at = 0; at < 8; at++) memory.words.copyWithin(at << 10, (HOST + at) << 10, (HOST + at + 1) << 10);
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_OK);
    expect(walker).toMatchObject({ pfn: GFN, level: 1 });
    walker.setMode(PAGING_NONE, 0);
    expect(walker.walk(0x8123, 0, ACCESS_READ)).toBe(WALK_OK);
    expect(walker).toMatchObject({ pfn: 8, level: 2 });
    expect(pageShiftOf(walker.attr)).toBe(21);
  });
});

describe('a walker with flushedWith', () => {
  it('keeps where it found the guest tables until any flush of the TLB', () => {
    const flushes: ((tlb: SetAssociativeTlb) => void)[] = [
      (tlb) => tlb.flushAll(),
      (tlb) => tlb.flushAsid(0),
      (tlb) => tlb.flushNonGlobal(0),
      (tlb) => tlb.flushPcid(0, 0),
      (tlb) => tlb.flushGva(0, 0, 0, 0),
      (tlb) => tlb.flushSingle(0, 0, 0, 0),
    ];
    for (const flush of flushes) {
      build(CPU_AMD);
      const tlb = new SetAssociativeTlb();
      walker.flushedWith = tlb;
      expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_OK);
      unmap(2);
      expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_OK);
      flush(tlb);
      expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_NESTED);
      expect(exit()).toBe('2000 2:6');
    }
  });

  it('forgets them with another root, and keeps nothing of where an access ends', () => {
    walker.flushedWith = new SetAssociativeTlb();
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_OK);
    unmap(GFN);
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_NESTED);
    walker.nptRoot = arena.alloc();
    expect(walker.walk(0, 0, ACCESS_READ)).toBe(WALK_NESTED);
    expect(exit()).toBe('1000 2:6');
  });
});
