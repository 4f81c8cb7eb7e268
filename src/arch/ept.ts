/**
 * Entries of Intel's extended page tables (SDM vol. 3, 29.3.2), EPTP, and the exit qualification of an EPT violation (28.2.1).
 *
 *      63    62                52 51                     12 11  10  9 8 7 6   5..3  2 1 0
 *     +-----+--------------------+--------------------------+---+---+-+-+-+----+-----+-+-+-+
 *     | #VE | ignored            | frame                    |ign|XU |D|A|S|IPAT| MT  |X|W|R|
 *     +-----+--------------------+--------------------------+---+---+-+-+-+----+-----+-+-+-+
 *
 * An entry is present if one of R, W, X is set. S at levels 2 and 3: it maps memory; MT and IPAT mean something only in such
 * entries and are reserved, 0, in others, as S is at levels 4 and 5. A and D are there if EPTP says so. XU counts under
 * mode-based execute control, which nobody here turns on.
 *
 * Misconfigured is an entry that is present and has: W without R; X without R where the CPU doesn't know such entries; a
 * memory type of 2, 3 or 7 in a leaf; a reserved bit, from MAXPHYADDR to 51 or below the frame of a large leaf.
 */
import { checkLayout } from './layout.ts';

export const EPTE_R_LO = 1 << 0;
export const EPTE_W_LO = 1 << 1;
export const EPTE_X_LO = 1 << 2;
export const EPTE_RWX_LO = 7;
export const EPTE_MT_LO = 7 << 3;
export const EPTE_MT_SHIFT = 3;
export const EPTE_IPAT_LO = 1 << 6;
export const EPTE_PS_LO = 1 << 7;
export const EPTE_A_LO = 1 << 8;
export const EPTE_D_LO = 1 << 9;
export const EPTE_XU_LO = 1 << 10;
/** Free for software. */
export const EPTE_AVL_LO = 1 << 11;
export const EPTE_FRAME_LO = 0xfffff000 | 0;
export const EPTE_FRAME_HI = 0x000fffff;
/** Free for software, but for what CPUs newer than these make of some. */
export const EPTE_AVL_HI = 0x7ff00000;
export const EPTE_SUPPRESS_VE_HI = 0x80000000 | 0;

/** Below the frame of a large leaf: reserved. */
export const EPTE_2M_RSVD_LO = 0x001ff000;
export const EPTE_1G_RSVD_LO = 0x3ffff000;
/** Of an entry that leads to a table, at levels 3 and 2; at 5 and 4 S too. */
export const EPTE_TABLE_RSVD_LO = EPTE_MT_LO | EPTE_IPAT_LO;
/** Memory types that an entry may have, a bit each: UC 0, WC 1, WT 4, WP 5, WB 6. */
export const EPTE_MT_VALID = 0b0111_0011;

/** Access of an EPT violation: data read, data write, fetch. */
export const EPTQ_READ = 1 << 0;
export const EPTQ_WRITE = 1 << 1;
export const EPTQ_FETCH = 1 << 2;
/** R, W, X of all entries that were used, in these three bits. */
export const EPTQ_RIGHTS = 7 << 3;
export const EPTQ_RIGHTS_SHIFT = 3;
export const EPTQ_USER_X = 1 << 6;
/** There was a linear address; and the access was to what it translates to, not to a table on the way. */
export const EPTQ_GVA_VALID = 1 << 7;
export const EPTQ_GVA_TRANSLATED = 1 << 8;

/** EPTP: the walk's levels less one, and whether A and D are kept. */
export const EPTP_LEVELS_SHIFT = 3;
export const EPTP_AD = 1 << 6;

/** Basic exit reasons (SDM vol. 3, appendix C). */
export const VMX_EXIT_EPT_VIOLATION = 48;
export const VMX_EXIT_EPT_MISCONFIG = 49;
export const VMX_EXIT_PML_FULL = 62;

checkLayout(
  'ept entry',
  [
    ['R', EPTE_R_LO, 0],
    ['W', EPTE_W_LO, 0],
    ['X', EPTE_X_LO, 0],
    ['MT', EPTE_MT_LO, 0],
    ['IPAT', EPTE_IPAT_LO, 0],
    ['S', EPTE_PS_LO, 0],
    ['A', EPTE_A_LO, 0],
    ['D', EPTE_D_LO, 0],
    ['XU', EPTE_XU_LO, 0],
    ['avl lo', EPTE_AVL_LO, 0],
    ['frame', EPTE_FRAME_LO, EPTE_FRAME_HI],
    ['avl hi', 0, EPTE_AVL_HI],
    ['suppress #VE', 0, EPTE_SUPPRESS_VE_HI],
  ],
  -1,
  -1,
);
checkLayout(
  'ept violation',
  [
    ['read', EPTQ_READ, 0],
    ['write', EPTQ_WRITE, 0],
    ['fetch', EPTQ_FETCH, 0],
    ['rights', EPTQ_RIGHTS, 0],
    ['user X', EPTQ_USER_X, 0],
    ['gva valid', EPTQ_GVA_VALID, 0],
    ['gva translated', EPTQ_GVA_TRANSLATED, 0],
  ],
  0x1ff,
  0,
);
