/**
 * Entries of x86 page tables, as AMD's and Intel's manuals lay them out. Nested page tables (AMD) have the same format.
 *
 *     long mode and PAE, 64 bits (two words)
 *      63 62  59 58    52 51                    32 | 31                12 11   9 8 7 6 5 4   3   2 1 0
 *     +--+------+--------+------------------------+----------------------+------+-+-+-+-+---+---+-+-+-+
 *     |NX|  PK  |  avl   |   frame, high part     |  frame, low part     | avl  |G|S|D|A|PCD|PWT|U|W|P|
 *     +--+------+--------+------------------------+----------------------+------+-+-+-+-+---+---+-+-+-+
 *
 * S is PS at levels 2 and 3 (1: this entry maps memory), PAT at level 1, reserved above. D, G and PK mean something only
 * in entries that map memory. In a large entry the frame starts at bit 21 or 30, bit 12 is PAT, and the bits between are
 * reserved. Bits from MAXPHYADDR to 51 are reserved, in PAE up to 62; NX is reserved while EFER.NX is 0.
 *
 *     32-bit, one word                       a 4 MiB entry (PSE-36)
 *      31          12 11  9 8 7 6 5 4..0     31   22  21  20    13  12  11  9 8 7 ...
 *     +--------------+-----+-+-+-+-+---+    +-------+---+---------+---+-----+-+-+---
 *     |    frame     | avl |G|S|D|A|...|    | 31:22 | 0 |  39:32  |PAT| avl |G|1|...
 *     +--------------+-----+-+-+-+-+---+    +-------+---+---------+---+-----+-+-+---
 */
import { checkLayout } from './layout.ts';

export const PTE_P_LO = 1 << 0;
export const PTE_W_LO = 1 << 1;
export const PTE_U_LO = 1 << 2;
export const PTE_PWT_LO = 1 << 3;
export const PTE_PCD_LO = 1 << 4;
export const PTE_A_LO = 1 << 5;
export const PTE_D_LO = 1 << 6;
/** Levels 2 and 3: the entry maps memory. At level 1 the same bit is PAT. */
export const PTE_PS_LO = 1 << 7;
export const PTE_G_LO = 1 << 8;
/** Free for software. */
export const PTE_AVL_LO = 7 << 9;
export const PTE_FRAME_LO = 0xfffff000 | 0;
/** Bits 32-51, however many of them the CPU implements. */
export const PTE_FRAME_HI = 0x000fffff;
/** Free for software in long mode; reserved in PAE. */
export const PTE_AVL_HI = 0x07f00000;
/** Protection key, in entries that map memory in long mode; free for software elsewhere, reserved in PAE. */
export const PTE_PK_HI = 0x78000000;
export const PTE_PK_SHIFT_HI = 27;
export const PTE_NX_HI = 0x80000000 | 0;

/** PAT in an entry that maps 2 MiB, 4 MiB or 1 GiB. */
export const PTE_LARGE_PAT_LO = 1 << 12;
/** Bits between PAT and the frame of a 2 MiB, 1 GiB entry: reserved. */
export const PTE_2M_RSVD_LO = 0x001fe000;
export const PTE_1G_RSVD_LO = 0x3fffe000;
/** PAE's four top-level entries: no permissions, no A; these and everything from MAXPHYADDR up are reserved. */
export const PDPTE_PAE_RSVD_LO = 0x000001e6;

/** A 4 MiB entry of 32-bit paging: where physical address bits 39:32 stand, how far below, and the reserved bit. */
export const PSE36_FRAME_HIGH_LO = 0x001fe000;
export const PSE36_FRAME_HIGH_SHIFT = 13;
export const PSE36_RSVD_LO = 1 << 21;
export const PSE36_FRAME_LO = 0xffc00000 | 0;

checkLayout(
  'pte',
  [
    ['P', PTE_P_LO, 0],
    ['W', PTE_W_LO, 0],
    ['U', PTE_U_LO, 0],
    ['PWT', PTE_PWT_LO, 0],
    ['PCD', PTE_PCD_LO, 0],
    ['A', PTE_A_LO, 0],
    ['D', PTE_D_LO, 0],
    ['PS', PTE_PS_LO, 0],
    ['G', PTE_G_LO, 0],
    ['avl lo', PTE_AVL_LO, 0],
    ['frame', PTE_FRAME_LO, PTE_FRAME_HI],
    ['avl hi', 0, PTE_AVL_HI],
    ['PK', 0, PTE_PK_HI],
    ['NX', 0, PTE_NX_HI],
  ],
  -1,
  -1,
);
checkLayout(
  'large pte, 32-bit',
  [
    ['flags', 0xfff, 0],
    ['PAT', PTE_LARGE_PAT_LO, 0],
    ['frame 39:32', PSE36_FRAME_HIGH_LO, 0],
    ['reserved', PSE36_RSVD_LO, 0],
    ['frame 31:22', PSE36_FRAME_LO, 0],
  ],
  -1,
  0,
);
checkLayout(
  'large pte, 2M',
  [
    ['flags', 0xfff, 0],
    ['PAT', PTE_LARGE_PAT_LO, 0],
    ['reserved', PTE_2M_RSVD_LO, 0],
    ['frame', 0xffe00000, 0],
  ],
  -1,
  0,
);
checkLayout(
  'large pte, 1G',
  [
    ['flags', 0xfff, 0],
    ['PAT', PTE_LARGE_PAT_LO, 0],
    ['reserved', PTE_1G_RSVD_LO, 0],
    ['frame', 0xc0000000, 0],
  ],
  -1,
  0,
);
