/** Requests to a vCPU, served in a fixed order before it enters the guest. Bits of `MmuVcpu.requests`. */
export const REQ_TLB_FLUSH = 1 << 0;
export const REQ_MMU_SYNC = 1 << 1;
export const REQ_LOAD_MMU_PGD = 1 << 2;
export const REQ_TLB_FLUSH_CURRENT = 1 << 3;
export const REQ_TLB_FLUSH_GUEST = 1 << 4;
export const REQ_MMU_FREE_OBSOLETE_ROOTS = 1 << 5;
export const REQ_TRIPLE_FAULT = 1 << 6;
/** The CPU's own log of dirty pages is to be turned on or off. */
export const REQ_UPDATE_CPU_DIRTY_LOGGING = 1 << 7;
