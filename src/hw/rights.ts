/**
 * What an access asks for, what a translation grants, and the comparison. The walkers and the TLB share it, because a CPU
 * checks rights at every access against the control bits of the moment, also when the translation was cached.
 *
 * An access is its page-fault error code without P: PFERR_W (write), PFERR_U (CPL 3), PFERR_FETCH, and ACCESS_IMPLICIT for
 * the CPU's own supervisor accesses (descriptor tables, TSS), which EFLAGS.AC doesn't excuse.
 *
 * Attributes of a translation, in one word: the bits of the guest's (or shadow) entries, combined over the levels, at
 * their places in the low word; PK and NX at theirs in the high word; what nested tables took away in between.
 *
 *      31  30  27    18   17      12    11      10      9      8    6    2  1
 *     +--+------+ +-------+----------+------+-------+------+---+ +-+ +--+--+
 *     |NX|  PK  | |HOST_NR|PAGE_SHIFT|HOST_D|HOST_NX|HOST_W| G | |D| | U| W|
 *     +--+------+ +-------+----------+------+-------+------+---+ +-+ +--+--+
 *
 * PAGE_SHIFT is log2 of the size of the page that software mapped (12, 21, 22, 30). The TLB may cache a smaller piece of
 * it, and INVLPG must find all pieces.
 *
 * Guest and nested rights can't be one bit: a supervisor with CR0.WP = 0 writes through a W of 0 in its own tables, but
 * never through one in the nested tables.
 */
import {
  CR0_WP,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LMA,
  EFER_NX,
  RFLAGS_AC,
} from '../arch/control.ts';
import { checkLayout } from '../arch/layout.ts';
import { PFERR_FETCH_LO, PFERR_PK_LO, PFERR_P_LO, PFERR_U_LO, PFERR_W_LO } from '../arch/pferr.ts';
import { PTE_D_LO, PTE_G_LO, PTE_NX_HI, PTE_PK_HI, PTE_PK_SHIFT_HI, PTE_U_LO, PTE_W_LO } from '../arch/pte.ts';

export const ACCESS_READ = 0;
export const ACCESS_WRITE = PFERR_W_LO;
export const ACCESS_USER = PFERR_U_LO;
export const ACCESS_FETCH = PFERR_FETCH_LO;
/** A supervisor access that no instruction asked for. Never together with ACCESS_USER. */
export const ACCESS_IMPLICIT = 1 << 8;
/** The part of an access that an error code repeats. */
export const ACCESS_ERROR_BITS = ACCESS_WRITE | ACCESS_USER | ACCESS_FETCH;

/** The walk found a translation. Not 0, because 0 is an error code. */
export const WALK_OK = -1;
/** The walk ended in a nested page fault: an exit, not an exception. */
export const WALK_NESTED = -2;
/** The address is not canonical: #GP or #SS, no page fault. */
export const WALK_NONCANONICAL = -3;

export const ATTR_W = PTE_W_LO;
export const ATTR_U = PTE_U_LO;
export const ATTR_D = PTE_D_LO;
export const ATTR_G = PTE_G_LO;
export const ATTR_HOST_W = 1 << 9;
export const ATTR_HOST_NX = 1 << 10;
export const ATTR_HOST_D = 1 << 11;
export const ATTR_PAGE_SHIFT_AT = 12;
export const ATTR_PAGE_SHIFT = 63 << ATTR_PAGE_SHIFT_AT;
/** Not to be read: EPT's execute-only pages. */
export const ATTR_HOST_NR = 1 << 18;
export const ATTR_PK = PTE_PK_HI;
export const ATTR_NX = PTE_NX_HI;
/** What a translation without a second dimension gets for it. */
export const ATTR_HOST_ALL = ATTR_HOST_W | ATTR_HOST_D;

checkLayout(
  'attr',
  [
    ['W', ATTR_W, 0],
    ['U', ATTR_U, 0],
    ['D', ATTR_D, 0],
    ['G', ATTR_G, 0],
    ['HOST_W', ATTR_HOST_W, 0],
    ['HOST_NX', ATTR_HOST_NX, 0],
    ['HOST_D', ATTR_HOST_D, 0],
    ['PAGE_SHIFT', ATTR_PAGE_SHIFT, 0],
    ['HOST_NR', ATTR_HOST_NR, 0],
    ['PK', ATTR_PK, 0],
    ['NX', ATTR_NX, 0],
  ],
  0xf807ff46,
  0,
);

/** The control bits that translation depends on, gathered from four registers into one word. */
export const CTL_WP = 1 << 0;
export const CTL_NX = 1 << 1;
export const CTL_SMEP = 1 << 2;
export const CTL_SMAP = 1 << 3;
export const CTL_AC = 1 << 4;
export const CTL_PKE = 1 << 5;
export const CTL_PSE = 1 << 6;
export const CTL_PGE = 1 << 7;

checkLayout(
  'ctl',
  [
    ['WP', CTL_WP, 0],
    ['NX', CTL_NX, 0],
    ['SMEP', CTL_SMEP, 0],
    ['SMAP', CTL_SMAP, 0],
    ['AC', CTL_AC, 0],
    ['PKE', CTL_PKE, 0],
    ['PSE', CTL_PSE, 0],
    ['PGE', CTL_PGE, 0],
  ],
  0xff,
  0,
);

/** Low words of the registers to control bits. PKE counts only in long mode: other entries have no room for a key. */
export function controlBits(cr0: number, cr4: number, efer: number, rflags: number): number {
  return (
    (cr0 & CR0_WP ? CTL_WP : 0) |
    (efer & EFER_NX ? CTL_NX : 0) |
    (cr4 & CR4_SMEP ? CTL_SMEP : 0) |
    (cr4 & CR4_SMAP ? CTL_SMAP : 0) |
    (rflags & RFLAGS_AC ? CTL_AC : 0) |
    (cr4 & CR4_PKE && efer & EFER_LMA ? CTL_PKE : 0) |
    (cr4 & CR4_PSE ? CTL_PSE : 0) |
    (cr4 & CR4_PGE ? CTL_PGE : 0)
  );
}

/**
 * Does the guest's (or shadow) part of `attr` grant the access? WALK_OK, or the error code bits P and PK: the caller adds
 * those of the access. HOST bits and D are not looked at.
 */
export function rightsFault(attr: number, access: number, controls: number, pkru: number): number {
  const user = (access & ACCESS_USER) !== 0;
  const fetch = (access & ACCESS_FETCH) !== 0;
  const strict = user || (controls & CTL_WP) !== 0;
  if (attr & ATTR_U) {
    // The key comes first: PK is reported whenever the key denies, whatever else does too.
    if (controls & CTL_PKE && !fetch && keyDenies(attr, access, strict, pkru)) return PFERR_P_LO | PFERR_PK_LO;
    if (!user) {
      if (fetch) {
        if (controls & CTL_SMEP) return PFERR_P_LO;
      } else if (controls & CTL_SMAP && (access & ACCESS_IMPLICIT || !(controls & CTL_AC))) {
        return PFERR_P_LO;
      }
    }
  } else if (user) {
    return PFERR_P_LO;
  }
  if (fetch) return attr & ATTR_NX ? PFERR_P_LO : WALK_OK;
  return access & ACCESS_WRITE && !(attr & ATTR_W) && strict ? PFERR_P_LO : WALK_OK;
}

/** PKRU has two bits a key: access disable, write disable. Write disable spares supervisors while CR0.WP is 0. */
function keyDenies(attr: number, access: number, strict: boolean, pkru: number): boolean {
  const key = (attr & ATTR_PK) >>> PTE_PK_SHIFT_HI;
  const rights = pkru >>> (key << 1);
  return (rights & 1) !== 0 || ((rights & 2) !== 0 && (access & ACCESS_WRITE) !== 0 && strict);
}

/** May a cached translation serve the access without a walk? A write needs D, since the walk is what sets it. */
export function cachedRightsSuffice(attr: number, access: number, controls: number, pkru: number): boolean {
  if (access & ACCESS_WRITE) {
    if ((attr & (ATTR_D | ATTR_HOST_W | ATTR_HOST_D)) !== (ATTR_D | ATTR_HOST_W | ATTR_HOST_D)) return false;
  } else if (attr & (access & ACCESS_FETCH ? ATTR_HOST_NX : ATTR_HOST_NR)) {
    return false;
  }
  return rightsFault(attr, access, controls, pkru) === WALK_OK;
}
