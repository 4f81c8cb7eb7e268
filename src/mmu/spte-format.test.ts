import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toBigInt } from '../base/u64.ts';
import * as spte from './spte.ts';
import { type EptFeatures, eptFormat, type SpteFormat, X86_64_FORMAT } from './spte-format.ts';

const AD: EptFeatures = { ad: true, executeOnly: true, pml: true };
const NO_AD: EptFeatures = { ad: false, executeOnly: false, pml: false };
const EPT = eptFormat(AD, false);
const EPT_NO_AD = eptFormat(NO_AD, false);
const FORMATS = [X86_64_FORMAT, EPT, EPT_NO_AD, eptFormat(AD, true), eptFormat(NO_AD, true)];
const R = 1;
const W = 2;
const X = 4;
const TYPE_SHIFT = 20;

/** The kernel's definitions, on BigInt. Source: Linux 6.1 spte.h, spte.c. */
class Kernel {
  private readonly f: SpteFormat;
  constructor(f: SpteFormat) {
    this.f = f;
  }
  adEnabled(e: bigint): boolean {
    return ((e >> 52n) & 3n) !== 1n;
  }
  isAccessTrack(e: bigint): boolean {
    return !this.adEnabled(e) && (e & BigInt(this.f.accTrackLo)) === 0n;
  }
  isAccessed(e: bigint): boolean {
    const mask = this.adEnabled(e) ? BigInt(this.f.accessedLo) : 0n;
    return mask !== 0n ? (e & mask) !== 0n : !this.isAccessTrack(e);
  }
  isDirty(e: bigint): boolean {
    const mask = this.adEnabled(e) ? BigInt(this.f.dirtyLo) : 0n;
    return (e & (mask !== 0n ? mask : 2n)) !== 0n;
  }
  isVolatile(e: bigint): boolean {
    const mmuWritable = (e & toBigInt(this.f.mmuWritableLo, this.f.mmuWritableHi)) !== 0n;
    if ((e & 2n) === 0n && mmuWritable) return true;
    if (this.isAccessTrack(e)) return true;
    if (!this.adEnabled(e)) return false;
    return (e & BigInt(this.f.accessedLo)) === 0n || ((e & 2n) !== 0n && (e & BigInt(this.f.dirtyLo)) === 0n);
  }
  unaccessed(e: bigint): bigint {
    if (this.adEnabled(e)) return e & ~BigInt(this.f.accessedLo);
    if (this.isAccessTrack(e)) return e;
    return (e | ((e & 5n) << 54n)) & ~BigInt(this.f.accTrackLo);
  }
  restored(e: bigint): bigint {
    const saved = (e >> 54n) & 5n;
    return (e & ~BigInt(this.f.accTrackLo) & ~(5n << 54n)) | saved;
  }
}

/** Present leaves that a format can have: the A/D types that its CPU has, saved bits only with access tracked. */
function leaves(f: SpteFormat): fc.Arbitrary<[number, number]> {
  const types = f.accessedLo === 0 ? [1] : [0, 2];
  const saved = f.accessedLo === 0 ? fc.constantFrom(0, 1, 4, 5) : fc.constant(0);
  return fc.tuple(fc.integer(), fc.integer(), fc.constantFrom(...types), saved).map(([lo, hi, type, kept]) => {
    const tracked = kept !== 0;
    const low = (lo | spte.SPTE_MMU_PRESENT) & (tracked ? ~f.accTrackLo : -1);
    const high = (hi & ~(3 << TYPE_SHIFT) & ~(5 << 22)) | (type << TYPE_SHIFT) | (kept << 22);
    return [low, high];
  });
}

describe.each(FORMATS.map((f, i) => [`${f.name}, ${i}`, f] as const))('an entry of %s', (_name, f) => {
  const kernel = new Kernel(f);

  it('is asked as the kernel asks', () => {
    fc.assert(
      fc.property(leaves(f), ([lo, hi]) => {
        const e = toBigInt(lo, hi);
        expect(spte.isAccessTracked(f, lo, hi)).toBe(kernel.isAccessTrack(e));
        expect(spte.isAccessed(f, lo, hi)).toBe(kernel.isAccessed(e));
        expect(spte.isDirty(f, lo, hi)).toBe(kernel.isDirty(e));
        expect(spte.hasVolatileBits(f, lo, hi)).toBe(kernel.isVolatile(e));
        expect(toBigInt(spte.unaccessedLo(f, lo, hi), spte.unaccessedHi(f, lo, hi))).toBe(kernel.unaccessed(e));
        expect(toBigInt(spte.restoredLo(f, lo, hi), spte.restoredHi(hi))).toBe(kernel.restored(e));
      }),
    );
  });

  it('keeps R and X, and never W, while its use is told by taking them away', () => {
    if (f.accessedLo !== 0) return;
    const hi = spte.SPTE_AD_DISABLED_HI | f.mmuWritableHi | f.hostWritableHi;
    for (const rights of [R, R | X, R | W, R | W | X]) {
      const lo = spte.SPTE_MMU_PRESENT | rights;
      const [agedLo, agedHi] = [spte.unaccessedLo(f, lo, hi), spte.unaccessedHi(f, lo, hi)];
      expect([agedLo & 7, spte.isAccessed(f, agedLo, agedHi), spte.isDirty(f, agedLo, agedHi)]).toEqual([
        0,
        false,
        false,
      ]);
      // Once more changes nothing.
      expect([spte.unaccessedLo(f, agedLo, agedHi), spte.unaccessedHi(f, agedLo, agedHi)]).toEqual([agedLo, agedHi]);
      expect([spte.restoredLo(f, agedLo, agedHi) & 7, spte.restoredHi(agedHi)]).toEqual([rights & ~W, hi]);
    }
  });

  it('of MMIO faults in its own way, is not present, and gives back frame and generation', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 31 - 1), fc.nat(7), fc.nat(spte.MMIO_GEN_MASK), (gfn, access, generation) => {
        const lo = spte.mmioSpteLo(f, gfn, access, generation);
        const hi = spte.mmioSpteHi(f, gfn, generation);
        expect([spte.isMmioSpte(f, lo, hi), spte.isShadowPresent(lo)]).toEqual([true, false]);
        expect([spte.mmioGfn(lo, hi), spte.mmioGeneration(f, lo, hi)]).toEqual([gfn, generation]);
        expect(spte.mmioAccess(f, lo)).toBe(access & f.mmioAccess);
        expect(lo & f.mmioMaskLo).toBe(f === X86_64_FORMAT ? 1 : W | X);
      }),
    );
  });

  it('grants everything where it leads to a table', () => {
    const none = f.accessedLo === 0;
    const lo = spte.nonleafLo(f, 1234, none);
    const hi = spte.nonleafHi(f, 1234, none);
    const rights = f === X86_64_FORMAT ? 1 | W | 4 : R | W | X;
    expect(lo).toBe((1234 << 12) | spte.SPTE_MMU_PRESENT | rights | f.accessedLo);
    expect([spte.isExecutable(f, lo, hi), spte.isAccessed(f, lo, hi), spte.hasAccessedDirty(hi)]).toEqual([
      true,
      true,
      !none,
    ]);
  });

  it('is split into children with its rights and state, executable if asked for', () => {
    fc.assert(
      fc.property(leaves(f), fc.nat(511), fc.boolean(), ([leafLo, leafHi], i, executable) => {
        const lo = (leafLo & 0xfff & ~f.xLo) | spte.SPTE_PSE | spte.pfnLo(512 * 77);
        const hi = (leafHi & ~0xfffff) | f.nxHi | spte.pfnHi(512 * 77);
        const childLo = spte.splitChildLo(f, lo, hi, i, 1, executable);
        const childHi = spte.splitChildHi(f, lo, hi, i, executable);
        expect([spte.pfnOf(childLo, childHi), spte.isLarge(childLo)]).toEqual([512 * 77 + i, false]);
        expect(spte.isAccessed(f, childLo, childHi)).toBe(spte.isAccessed(f, lo, hi));
        expect(spte.isDirty(f, childLo, childHi)).toBe(spte.isDirty(f, lo, hi));
        const tracked = spte.isAccessTracked(f, childLo, childHi);
        const now = tracked ? spte.restoredLo(f, childLo, childHi) : childLo;
        const kept = spte.isAccessTracked(f, lo, hi) ? spte.restoredLo(f, lo, hi) : lo;
        expect(spte.isExecutable(f, now, childHi)).toBe(executable || spte.isExecutable(f, kept, hi));
      }),
    );
  });
});

describe('EPT', () => {
  // biome-ignore format: a table
  it.each([
    ['R, present',    EPT.userLo,                             1n],
    ['X',             EPT.xLo,                                1n << 2n],
    ['memory type 6', EPT.memtypeLo & 0x38,                   6n << 3n],
    ['ignore PAT',    EPT.memtypeLo & 0x40,                   1n << 6n],
    ['A',             EPT.accessedLo,                         1n << 8n],
    ['D',             EPT.dirtyLo,                            1n << 9n],
    ['W and X alone', EPT.mmioValueLo,                        6n],
  ])('%s', (_name, mask, bits) => {
    expect(BigInt(mask)).toBe(bits);
  });

  it('has what software keeps at 57 and 58, and the A/D type at 52', () => {
    expect(toBigInt(EPT.hostWritableLo, EPT.hostWritableHi)).toBe(1n << 57n);
    expect(toBigInt(EPT.mmuWritableLo, EPT.mmuWritableHi)).toBe(1n << 58n);
    expect(toBigInt(0, spte.SPTE_AD_DISABLED_HI)).toBe(1n << 52n);
    expect(toBigInt(0, spte.SPTE_AD_WRPROT_ONLY_HI)).toBe(2n << 52n);
  });

  it('needs no present bit where entries may let execute only', () => {
    expect([EPT.presentLo, EPT_NO_AD.presentLo]).toEqual([0, 1]);
  });

  it('suppresses #VE in present entries since 6.10, and not for MMIO', () => {
    const late = eptFormat(AD, true);
    expect([late.presentHi >>> 31, late.mmioMaskHi >>> 31, late.mmioValueHi]).toEqual([1, 1, 0]);
  });
});

describe('checkFormat', () => {
  it.each([
    ['two masks on one bit', { dirtyLo: EPT.accessedLo }, 'overlap'],
    ['a mask on the A/D type', { hostWritableHi: spte.SPTE_AD_DISABLED_HI }, 'overlap'],
    ['an MMIO mask in the generation', { mmioMaskLo: 8, mmioValueLo: 0 }, 'generation'],
    ['an MMIO value that a frozen entry has', { mmioMaskLo: 0, mmioValueLo: 0 }, 'frozen'],
  ])('refuses %s', (_name, change, what) => {
    expect(() => spte.checkFormat({ ...EPT, ...change })).toThrow(what);
  });
});
