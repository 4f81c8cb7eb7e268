import { describe, expect, it } from 'vitest';
import { CR0_PE, CR0_PG, CR4_LA57, CR4_PAE, EFER_LMA, EFER_LME } from './control.ts';
import { checkLayout } from './layout.ts';
import { isCanonical, pagingMode, tableIndex } from './paging-mode.ts';

describe('checkLayout', () => {
  it('accepts disjoint fields that cover the word', () => {
    expect(() =>
      checkLayout(
        't',
        [
          ['a', 1, 0],
          ['b', ~1, -1],
        ],
        -1,
        -1,
      ),
    ).not.toThrow();
  });
  it('names the field that overlaps', () => {
    expect(() =>
      checkLayout(
        't',
        [
          ['a', 3, 0],
          ['b', 2, 0],
        ],
        3,
        0,
      ),
    ).toThrow('t: b overlaps another field at 0x2');
  });
  it('names the bits without a name', () => {
    expect(() => checkLayout('t', [['a', 1, 0]], 1, 0x80000000)).toThrow('t: unnamed bits 0x8000000000000000');
  });
  it('refuses a field without bits', () => {
    expect(() => checkLayout('t', [['a', 0, 0]], 0, 0)).toThrow('t: a has no bits');
  });
});

describe('pagingMode', () => {
  it.each([
    ['none', CR0_PE, CR4_PAE, EFER_LME, 0],
    ['32-bit', CR0_PE | CR0_PG, 0, 0, 2],
    ['PAE', CR0_PE | CR0_PG, CR4_PAE, EFER_LME, 3],
    ['4-level', CR0_PE | CR0_PG, CR4_PAE, EFER_LME | EFER_LMA, 4],
    ['5-level', CR0_PE | CR0_PG, CR4_PAE | CR4_LA57, EFER_LME | EFER_LMA, 5],
    ['PAE, LA57 being a bit of long mode only', CR0_PG, CR4_PAE | CR4_LA57, 0, 3],
  ])('is %s', (_name, cr0, cr4, efer, mode) => {
    expect(pagingMode(cr0, cr4, efer)).toBe(mode);
  });
});

describe('tableIndex', () => {
  it('cuts an address into nine bits a level', () => {
    const address = (5n << 48n) | (0x1abn << 39n) | (0x0cdn << 30n) | (0x1efn << 21n) | (0x123n << 12n) | 0xfffn;
    const lo = Number(BigInt.asIntN(32, address));
    const hi = Number(BigInt.asIntN(32, address >> 32n));
    expect([5, 4, 3, 2, 1].map((level) => tableIndex(level, lo, hi))).toEqual([5, 0x1ab, 0x0cd, 0x1ef, 0x123]);
  });
});

describe('isCanonical', () => {
  it.each([
    [4, 0x00007fff, true],
    [4, 0x00008000, false],
    [4, 0xffff8000, true],
    [4, 0xffff7fff, false],
    [5, 0x00ffffff, true],
    [5, 0x01000000, false],
    [5, 0xff000000, true],
    [5, 0xfeffffff, false],
    [3, 0x12345678, true],
  ])('mode %i, high word %i: %s', (mode, hi, canonical) => {
    expect(isCanonical(mode, hi | 0)).toBe(canonical);
  });
});
