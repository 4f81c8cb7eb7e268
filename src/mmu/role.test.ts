import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as role from './role.ts';

const WORD = fc.integer({ min: 0, max: 2 ** 19 - 1 });
const PASSED_ON =
  role.ROLE_HAS_4_BYTE_GPTE |
  role.ROLE_EFER_NX |
  role.ROLE_CR0_WP |
  role.ROLE_SMEP_ANDNOT_WP |
  role.ROLE_SMAP_ANDNOT_WP |
  role.ROLE_AD_DISABLED |
  role.ROLE_GUEST_MODE |
  (0xff << role.ROLE_SMM_SHIFT);

describe('a role word', () => {
  // biome-ignore format: a table
  it.each([
    ['level',           role.ROLE_LEVEL,            0x0000000f],
    ['has_4_byte_gpte', role.ROLE_HAS_4_BYTE_GPTE,  0x00000010],
    ['quadrant',        role.ROLE_QUADRANT,         0x00000060],
    ['direct',          role.ROLE_DIRECT,           0x00000080],
    ['access',          role.ROLE_ACCESS,           0x00000700],
    ['invalid',         role.ROLE_INVALID,          0x00000800],
    ['efer_nx',         role.ROLE_EFER_NX,          0x00001000],
    ['cr0_wp',          role.ROLE_CR0_WP,           0x00002000],
    ['smep_andnot_wp',  role.ROLE_SMEP_ANDNOT_WP,   0x00004000],
    ['smap_andnot_wp',  role.ROLE_SMAP_ANDNOT_WP,   0x00008000],
    ['ad_disabled',     role.ROLE_AD_DISABLED,      0x00010000],
    ['guest_mode',      role.ROLE_GUEST_MODE,       0x00020000],
    ['passthrough',     role.ROLE_PASSTHROUGH,      0x00040000],
    ['smm',             1 << role.ROLE_SMM_SHIFT,   0x01000000],
  ])('has %s where the kernel has it', (_name, mask, want) => {
    expect(mask).toBe(want);
  });

  it('gives its fields, and takes a new level or quadrant without touching the others', () => {
    fc.assert(
      fc.property(WORD, fc.nat(5), fc.nat(3), (word, level, quadrant) => {
        expect(role.roleLevel(word)).toBe(word & 15);
        expect(role.roleAccess(word)).toBe((word >> 8) & 7);
        expect(role.roleQuadrant(word)).toBe((word >> 5) & 3);
        expect(role.withLevel(word, level)).toBe((word & ~15) + level);
        expect(role.withQuadrant(word, quadrant)).toBe((word & ~0x60) + 32 * quadrant);
      }),
    );
  });

  // biome-ignore format: a table
  it.each([
    ['direct',              role.ROLE_DIRECT,                          true,  false, false],
    ['of a guest table',    0,                                         false, true,  false],
    ['passed through',      role.ROLE_PASSTHROUGH,                     false, false, false],
    ['direct and zapped',   role.ROLE_DIRECT | role.ROLE_INVALID,      true,  false, true],
  ])('tells what a page is: %s', (_name, word, direct, gptes, invalid) => {
    expect([role.isDirectRole(word), role.roleHasGptes(word), role.isInvalidRole(word)]).toEqual([
      direct,
      gptes,
      invalid,
    ]);
  });

  it('selects the second address space by any bit of the smm byte', () => {
    expect(role.roleAddressSpace(0xffffff)).toBe(0);
    for (let bit = 24; bit < 32; bit++) expect(role.roleAddressSpace(1 << bit)).toBe(1);
  });
});

describe('childRole', () => {
  it('is one level lower, with the access and directness asked for; all that describes the mode is passed on', () => {
    fc.assert(
      fc.property(
        WORD,
        fc.integer({ min: 2, max: 5 }),
        fc.nat(511),
        fc.boolean(),
        fc.nat(7),
        (word, level, i, d, a) => {
          const parent = role.withLevel(word, level);
          const child = role.childRole(parent, i, d, a);
          expect(role.roleLevel(child)).toBe(level - 1);
          expect(role.roleAccess(child)).toBe(a);
          expect(role.isDirectRole(child)).toBe(d);
          expect(child & PASSED_ON).toBe(parent & PASSED_ON);
          // Even below a zapped page: B24 of the museum.
          expect(role.isInvalidRole(child)).toBe(false);
        },
      ),
    );
  });

  it('covers the half of a 32-bit guest table that the index tells', () => {
    const parent = role.ROLE_HAS_4_BYTE_GPTE | role.withQuadrant(2, 3);
    expect([6, 7].map((i) => role.roleQuadrant(role.childRole(parent, i, false, 7)))).toEqual([0, 1]);
  });

  it('keeps the quadrant where entries have 8 bytes', () => {
    expect([6, 7].map((i) => role.roleQuadrant(role.childRole(2, i, false, 7)))).toEqual([0, 0]);
  });

  it('is never passed through', () => {
    expect(role.childRole(role.ROLE_PASSTHROUGH | 5, 0, false, 7) & role.ROLE_PASSTHROUGH).toBe(0);
  });
});
