import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toBigInt } from '../base/u64.ts';
import { buildVm, entryAt, WRITE } from '../vm/testing/build-vm.ts';
import { spteLo, spteWriteProtect } from './rmap.ts';
import * as spte from './spte.ts';
import { X86_64_FORMAT as F } from './spte-format.ts';

const { SPTE_A, SPTE_D, SPTE_HOST_WRITABLE, SPTE_MMU_PRESENT, SPTE_MMU_WRITABLE, SPTE_NX_HI, SPTE_P } = spte;
const { SPTE_PSE, SPTE_U, SPTE_W } = spte;

const PFN = fc.nat(2 ** 31 - 1);

describe('the bits of an entry', () => {
  // biome-ignore format: a table
  it.each([
    ['P',             SPTE_P,              0],
    ['W',             SPTE_W,              1],
    ['U',             SPTE_U,              2],
    ['A',             SPTE_A,              5],
    ['D',             SPTE_D,              6],
    ['S',             SPTE_PSE,            7],
    ['host-writable', SPTE_HOST_WRITABLE,  9],
    ['MMU-writable',  SPTE_MMU_WRITABLE,  10],
    ['MMU-present',   SPTE_MMU_PRESENT,   11],
  ])('%s', (_name, mask, bit) => {
    expect(mask).toBe(1 << bit);
  });

  it('NX is bit 63', () => {
    expect(toBigInt(0, SPTE_NX_HI)).toBe(1n << 63n);
  });

  it('are asked for one by one', () => {
    const asked = (lo: number): boolean[] => [
      spte.isShadowPresent(lo),
      spte.isLarge(lo),
      spte.isWritable(lo),
      spte.isMmuWritable(F, lo, 0),
      spte.isAccessed(F, lo, 0),
      spte.isDirty(F, lo, 0),
    ];
    const masks = [SPTE_MMU_PRESENT, SPTE_PSE, SPTE_W, SPTE_MMU_WRITABLE, SPTE_A, SPTE_D];
    masks.forEach((mask, i) => {
      expect(asked(mask)).toEqual(masks.map((_, j) => i === j));
      expect(asked(~mask)).toEqual(masks.map((_, j) => i !== j));
    });
    expect([spte.isExecutable(F, 0, ~SPTE_NX_HI), spte.isExecutable(F, 0, SPTE_NX_HI)]).toEqual([true, false]);
  });

  it('make a leaf at level 1 always, above it with S', () => {
    expect([spte.isLast(0, 1), spte.isLast(0, 2), spte.isLast(SPTE_PSE, 2), spte.isLast(SPTE_PSE, 3)]).toEqual([
      true,
      false,
      true,
      true,
    ]);
  });

  it('hold a frame number at 12', () => {
    fc.assert(
      fc.property(PFN, (pfn) => {
        expect(toBigInt(spte.pfnLo(pfn), spte.pfnHi(pfn))).toBe(BigInt(pfn) << 12n);
        expect(spte.pfnOf(spte.pfnLo(pfn) | 0xfff, spte.pfnHi(pfn) | SPTE_NX_HI)).toBe(pfn);
      }),
    );
  });

  it('are all granted by an entry that points at a table', () => {
    const lo = spte.nonleafLo(F, 1234, false);
    expect(lo).toBe((1234 << 12) | SPTE_MMU_PRESENT | SPTE_P | SPTE_W | SPTE_U | SPTE_A);
    expect([spte.isLast(lo, 2), spte.isMmuWritable(F, lo, 0)]).toEqual([false, false]);
  });
});

describe('hasVolatileBits', () => {
  // biome-ignore format: a table
  it.each([
    // A  D  W  MW
    [  0, 0, 0, 0, true,  'the CPU may set A'],
    [  1, 0, 0, 0, false, ''],
    [  1, 1, 0, 0, false, ''],
    [  1, 0, 1, 1, true,  'the CPU may set D'],
    [  1, 1, 1, 1, false, ''],
    [  1, 0, 0, 1, true,  'the fast fault may set W'],
    [  1, 1, 0, 1, true,  'the fast fault may set W'],
    [  0, 1, 1, 1, true,  'the CPU may set A'],
  ])('A%i D%i W%i MW%i: %s %s', (a, d, w, mw, volatile) => {
    const lo = (a && SPTE_A) | (d && SPTE_D) | (w && SPTE_W) | (mw && SPTE_MMU_WRITABLE) | SPTE_HOST_WRITABLE;
    expect(spte.hasVolatileBits(F, lo, 0)).toBe(volatile);
  });
});

describe('the writable triple', () => {
  // What write protection makes of each legal state, and whether a TLB may still hold the right.
  // biome-ignore format: a table
  it.each([
    // before  for a page table   after  flush
    ['111',    false,             '110', true],
    ['111',    true,              '100', true],
    ['110',    false,             '110', false],
    ['110',    true,              '100', true],
    ['100',    false,             '100', false],
    ['100',    true,              '100', false],
    ['000',    false,             '000', false],
    ['000',    true,              '000', false],
  ])('%s protected (page table: %s) becomes %s; flush: %s', (before, ptProtect, after, flush) => {
    const { vm, vcpu } = buildVm({ level: 1 });
    vcpu.touchPage(0, WRITE);
    const { sptep } = entryAt(vm, vcpu, 0);
    const masks = [SPTE_HOST_WRITABLE, SPTE_MMU_WRITABLE, SPTE_W];
    const all = SPTE_HOST_WRITABLE | SPTE_MMU_WRITABLE | SPTE_W;
    const bits = masks.reduce((lo, mask, i) => lo | (before[i] === '1' ? mask : 0), 0);
    vm.mmu.arena.words[sptep << 1] = (spteLo(vm.mmu, sptep) & ~all) | bits;
    const rest = spteLo(vm.mmu, sptep) & ~all;
    expect(spteWriteProtect(vm.mmu, sptep, ptProtect)).toBe(flush);
    const now = spteLo(vm.mmu, sptep);
    expect(masks.map((mask) => (now & mask ? '1' : '0')).join('')).toBe(after);
    expect(now & ~all).toBe(rest);
  });
});

describe('splitChildLo', () => {
  it('maps the page at its offset and inherits every right and state bit, S going at level 1', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 22 - 1), fc.nat(0xfff), fc.nat(511), fc.constantFrom(1, 2), (chunk, flags, i, level) => {
        const pfn = chunk * 512;
        const offset = i * (level === 1 ? 1 : 512);
        const base = level === 1 ? pfn : Math.floor(chunk / 512) * 512 * 512;
        const lo = spte.splitChildLo(F, spte.pfnLo(base) | flags | SPTE_PSE, spte.pfnHi(base), offset, level, false);
        const want = level === 1 ? flags & ~SPTE_PSE : flags | SPTE_PSE;
        expect(lo & 0xfff).toBe(want);
        expect(lo >>> 12).toBe((base + offset) & 0xfffff);
      }),
    );
  });
});

describe('an MMIO entry', () => {
  const GEN = fc.nat(spte.MMIO_GEN_MASK);

  it('gives back frame, access and generation', () => {
    fc.assert(
      fc.property(PFN, fc.nat(7), GEN, (gfn, access, generation) => {
        const lo = spte.mmioSpteLo(F, gfn, access, generation);
        const hi = spte.mmioSpteHi(F, gfn, generation);
        expect(spte.mmioGfn(lo, hi)).toBe(gfn);
        expect(spte.mmioAccess(F, lo)).toBe(access & (spte.ACC_WRITE | spte.ACC_USER));
        expect(spte.mmioGeneration(F, lo, hi)).toBe(generation);
      }),
    );
  });

  it('has P and the reserved bit 51, so that hardware faults on it, and is not present', () => {
    fc.assert(
      fc.property(PFN, fc.nat(7), GEN, (gfn, access, generation) => {
        const lo = spte.mmioSpteLo(F, gfn, access, generation);
        const hi = spte.mmioSpteHi(F, gfn, generation);
        expect([lo & SPTE_P, (hi >>> 19) & 1]).toEqual([1, 1]);
        expect([spte.isMmioSpte(F, lo, hi), spte.isShadowPresent(lo)]).toEqual([true, false]);
      }),
    );
  });

  it('holds the generation at bits 3 to 10 and 52 to 62, clear of everything else', () => {
    const bits = (generation: number): bigint =>
      toBigInt(spte.mmioSpteLo(F, 0, 0, generation), spte.mmioSpteHi(F, 0, generation)) ^ toBigInt(SPTE_P, 1 << 19);
    for (let bit = 0; bit < 19; bit++) expect(bits(1 << bit)).toBe(1n << BigInt(bit < 8 ? bit + 3 : bit - 8 + 52));
  });

  it('takes only 19 bits of the generation', () => {
    expect(spte.mmioSpteHi(F, 0, 2 ** 19 + 5)).toBe(spte.mmioSpteHi(F, 0, 5));
    expect(spte.mmioSpteLo(F, 0, 0, 2 ** 19 + 5)).toBe(spte.mmioSpteLo(F, 0, 0, 5));
  });

  // biome-ignore format: a table
  it.each([
    ['an empty entry',                     0,                                0],
    ['a leaf',                             SPTE_P | SPTE_MMU_PRESENT,        0],
    ['bit 51 without P',                   0,                                1 << 19],
  ])('is not %s', (_name, lo, hi) => {
    expect(spte.isMmioSpte(F, lo, hi)).toBe(false);
  });
});
