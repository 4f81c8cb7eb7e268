/**
 * Page-fault error codes. The low word is what the CPU pushes with #PF. With nested paging on AMD the same code, and one
 * bit that tells which of the two kinds of access failed, is EXITINFO1 of the #NPF exit.
 *
 *      33    32   |  31 ..  15  .. 6  5     4     3   2 1 0
 *     GPT  FINAL  |       SGX      SS PK  FETCH RSVD  U W P
 */
import { checkLayout } from './layout.ts';

/** The translation was present: a right was missing or a reserved bit was set. Clear: an entry was not present. */
export const PFERR_P_LO = 1 << 0;
export const PFERR_W_LO = 1 << 1;
export const PFERR_U_LO = 1 << 2;
export const PFERR_RSVD_LO = 1 << 3;
/** An instruction fetch; reported only with EFER.NX (and PAE) or SMEP. */
export const PFERR_FETCH_LO = 1 << 4;
export const PFERR_PK_LO = 1 << 5;
export const PFERR_SS_LO = 1 << 6;
export const PFERR_SGX_LO = 1 << 15;
/** #NPF: the guest-physical address that an access ends at (bit 32). @kvm PFERR_GUEST_FINAL_MASK */
export const PFERR_GUEST_FINAL_HI = 1 << 0;
/** #NPF: a guest page table, on the way (bit 33). @kvm PFERR_GUEST_PAGE_MASK */
export const PFERR_GUEST_PAGE_HI = 1 << 1;

checkLayout(
  'pferr',
  [
    ['P', PFERR_P_LO, 0],
    ['W', PFERR_W_LO, 0],
    ['U', PFERR_U_LO, 0],
    ['RSVD', PFERR_RSVD_LO, 0],
    ['FETCH', PFERR_FETCH_LO, 0],
    ['PK', PFERR_PK_LO, 0],
    ['SS', PFERR_SS_LO, 0],
    ['SGX', PFERR_SGX_LO, 0],
    ['GUEST_FINAL', 0, PFERR_GUEST_FINAL_HI],
    ['GUEST_PAGE', 0, PFERR_GUEST_PAGE_HI],
  ],
  0x807f,
  3,
);
