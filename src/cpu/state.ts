/**
 * Where a CPU's state lies. All of it is in one WebAssembly.Memory, so that generated code, TypeScript and a snapshot see
 * the same bytes. Offsets are from the start of the state; the first 256 bytes can be named by one byte of a decoded
 * record, so whatever an address can be made of lies there.
 *
 *        0  16 general registers, 8 bytes each
 *      128  a zero, the page of RIP, six segment bases: registers too, for an address
 *      192  masks of linear addresses and of the stack pointer, flags, RIP, other flags
 *      256  XMM0 to XMM15
 *      512  exchange between generated code and TypeScript
 *      640  segment registers: selector, attributes, limit; then their bases
 *      832  GDTR, IDTR, control and debug registers, MSRs
 *     1056  x87
 *
 * Flags are lazy: `FLAG_RESULT` is the last result, sign-extended, and `FLAG_CARRY` the vector of its carries:
 *
 *      63   62                 3    1    0
 *     +--+------+------------+--+----+----+    CF = bit 63      OF = bit 63 ^ bit 62    AF = bit 3
 *     |CF|CF^OF|  anything   |AF|SF^ |PF^ |    ZF = result is 0
 *     +--+------+------------+--+----+----+    SF = sign of the result ^ bit 1    PF = parity of its low byte ^ bit 0
 *
 * The two low bits let POPF and COMISD set what no result has (ZF with SF, ZF without PF).
 */

export const GPR = 0;
export const RAX = 0;
export const RCX = 8;
export const RDX = 16;
export const RBX = 24;
export const RSP = 32;
export const RBP = 40;
export const RSI = 48;
export const RDI = 56;
export const R11 = 88;
/** Always 0: the base or index of an address that has none. */
export const ZERO = 128;
/** Linear address of the page that the current record was fetched from. */
export const RIP_PAGE = 136;
/**
 * Bases as addresses use them, in the order ES CS SS DS FS GS; 64-bit mode has zeros for the first four. Outside of it a segment
 * whose accesses must be checked has CHECKED in the high word, and its number: that stays in the address, which the software TLB
 * then never has, and `memory-port.ts` checks.
 */
export const SEGMENT_BASE = 144;
export const CS_BASE = SEGMENT_BASE + 8;
/** Of the high word of a base or an address: see there. */
export const CHECKED = 0x80000000 | 0;
export const CHECKED_SEGMENT_SHIFT = 24;
export const SS_BASE = SEGMENT_BASE + 16;
/** Mask of linear addresses; it leaves CHECKED in. */
export const LINEAR_MASK = 192;
export const STACK_MASK = 200;
export const FLAG_RESULT = 208;
export const FLAG_CARRY = 216;
/** Linear address of the next instruction, while no generated code runs. */
export const LINEAR_RIP = 224;
/** The flags that are not lazy: TF, IF, DF, IOPL, NT, RF, AC, ID. */
export const FLAGS = 232;
/** Base of CS for data, which is checked more than code is. */
export const CS_DATA_BASE = 240;

export const XMM = 256;

/** The record at which generated code stopped (0: at LINEAR_RIP). */
export const EXIT_RECORD = 512;
/** Instructions that the last run retired, times the size of a record. */
export const EXECUTED = 516;
/** Addresses of the software TLB of the moment, for data and for fetches. */
export const TLB_SET = 520;
export const FETCH_SET = 524;
export const MXCSR = 528;
/** Exception to raise at the current instruction, or NO_EXCEPTION. */
export const PENDING_VECTOR = 532;
export const PENDING_ERROR = 536;
/** How far the run may go; see `interpreter.ts`. */
export const LIMIT = 540;
/** `base` of the run at its last call of TypeScript. */
export const RUN_BASE = 564;
/** Retired instructions, 64 bits. */
export const INSTRUCTIONS = 552;
/** Where loads that don't hit memory leave their value, and stores theirs; 16 bytes each, aligned. */
export const SCRATCH_LOAD = 576;
export const SCRATCH_STORE = 608;

/** ES CS SS DS FS GS LDTR TR: 16 bytes each. */
export const SEGMENTS = 640;
export const SEGMENT_BYTES = 16;
export const SEGMENT_SELECTOR = 0;
/** Bits 8 to 15 and 20 to 23 of the descriptor's high word, in their places. 0: null. */
export const SEGMENT_ATTRIBUTES = 4;
/** In bytes. */
export const SEGMENT_LIMIT = 8;
/** Bases as loaded, whatever the mode makes of them. */
export const HIDDEN_BASE = 768;
export const GDTR_BASE = 832;
export const GDTR_LIMIT = 840;
export const IDTR_BASE = 848;
export const IDTR_LIMIT = 856;
export const CR0 = 864;
export const CR4 = 868;
export const CR2 = 872;
export const CR3 = 880;
export const CR8 = 888;
export const EFER = 892;
export const DR0 = 896;
export const DR6 = 928;
export const DR7 = 932;
export const CPL = 936;
/** Low word of INSTRUCTIONS right after STI or MOV SS: no interrupt while they are equal. See SHADOW_ON. */
export const SHADOW_AT = 940;
export const SHADOW_ON = 944;
/** Value of SHADOW_ON until the instruction that begins the shadow is counted. */
export const SHADOW_BEGINS = 2;
export const NMI_BLOCKED = 948;
export const PKRU = 952;
export const STAR = 960;
export const LSTAR = 968;
export const CSTAR = 976;
export const SFMASK = 984;
export const KERNEL_GS_BASE = 992;
export const SYSENTER_CS = 1000;
export const SYSENTER_ESP = 1008;
export const SYSENTER_EIP = 1016;
/** Added to the ticks that go with the count of instructions, for RDTSC. */
export const TSC_OFFSET = 1024;
export const TSC_AUX = 1032;
export const PAT = 1040;
/** Mask of addresses of code. */
export const CODE_MASK = 1048;

export const FCW = 1056;
/** Without TOP, which has its own word. */
export const FSW = 1060;
export const FTOP = 1064;
/** A bit for each physical register that holds something. */
export const FTAGS = 1068;
export const FOP = 1072;
export const FIP = 1080;
export const FDP = 1088;
/** Eight physical registers of 80 bits, 16 bytes apart. */
export const FPR = 1104;

/** Size of each of the two parts of the canonical addresses. */
export const CANONICAL_HALF = 1232;

export const XCR0 = 1240;

/** Accesses of generated code to data, of at most 8 bytes each, 64 bits: where a CPU is made to count them. */
export const LOADS = 1248;
export const STORES = 1256;

export const STATE_BYTES = 2048;

export const NO_EXCEPTION = -1;

export const ES = 0;
export const CS = 1;
export const SS = 2;
export const DS = 3;
export const FS = 4;
export const GS = 5;
/** In the table above. */
export const CS_LIMIT = SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_LIMIT;
export const LDTR = 6;
export const TR = 7;

/**
 * Data TLB: sets for a supervisor, a user, a supervisor whom EFLAGS.AC lets into user pages; and one that stays empty, for a
 * user whose accesses must be aligned.
 */
export const TLB_SETS = 4;
export const ALIGNED_SET = 3;
export const TLB_ENTRIES = 2048;
export const TLB_ENTRY_BYTES = 32;
export const TLB_READ_TAG = 0;
export const TLB_WRITE_TAG = 8;
/** Address in memory minus guest address, both modulo 2^32. */
export const TLB_ADDEND = 16;
export const TLB_SET_BYTES = TLB_ENTRIES * TLB_ENTRY_BYTES;

/** Fetch TLB: sets for supervisor and user. */
export const FETCH_SETS = 2;
export const FETCH_ENTRIES = 1024;
export const FETCH_ENTRY_BYTES = 16;
export const FETCH_TAG = 0;
/** Address of the page's map from offset to record. */
export const FETCH_MAP = 8;
export const FETCH_SET_BYTES = FETCH_ENTRIES * FETCH_ENTRY_BYTES;

/** A map has a record's address, or 0, for each offset of a page; behind it stands the generation of its contents. */
export const MAP_GENERATION = 4 * 4096;
export const MAP_BYTES = MAP_GENERATION + 64;

/** Where a CPU's parts begin in memory. */
export interface Layout {
  readonly state: number;
  readonly tlb: number;
  readonly fetchTlb: number;
  readonly maps: number;
  readonly mapCount: number;
  readonly records: number;
  readonly recordsEnd: number;
  readonly end: number;
}

/** Lays another CPU out from `base`, beside one whose decoded code it shares. */
export function layoutBeside(first: Layout, base: number): Layout {
  const tlb = base + STATE_BYTES;
  const fetchTlb = tlb + TLB_SETS * TLB_SET_BYTES;
  return { ...first, state: base, tlb, fetchTlb, end: fetchTlb + FETCH_SETS * FETCH_SET_BYTES };
}

/** Lays a CPU out from `base` (a multiple of 64). `maps`: pages of code that can be known at a time. */
export function layoutAt(base: number, maps = 2048, recordBytes = 32 << 20): Layout {
  const state = base;
  const tlb = state + STATE_BYTES;
  const fetchTlb = tlb + TLB_SETS * TLB_SET_BYTES;
  const mapsAt = fetchTlb + FETCH_SETS * FETCH_SET_BYTES;
  const records = mapsAt + maps * MAP_BYTES;
  const recordsEnd = records + recordBytes;
  return { state, tlb, fetchTlb, maps: mapsAt, mapCount: maps, records, recordsEnd, end: recordsEnd };
}
