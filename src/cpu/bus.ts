/**
 * The only thing outside that a CPU knows. The machine implements it: it translates, stands for devices, and is asked
 * before or told after whatever a hypervisor may intercept.
 */

/** How an access is named: its page-fault error code without P (as in `hw/rights.ts`). */
export const ACCESS_READ = 0;
export const ACCESS_WRITE = 1 << 1;
export const ACCESS_USER = 1 << 2;
export const ACCESS_FETCH = 1 << 4;
/** A supervisor access that no instruction asked for: descriptor tables, task state. */
export const ACCESS_IMPLICIT = 1 << 8;

/** `Translation.host` and `rights` are filled. */
export const TRANSLATE_OK = 0;
/** #PF with `errorCode`; the CPU sets CR2. */
export const TRANSLATE_FAULT = 1;
/** No memory is there: `gpaLo`, `gpaHi` name the device register's page. */
export const TRANSLATE_MMIO = 2;
/** The run has to end; the instruction will be done again. */
export const TRANSLATE_EXIT = 3;

/** Kinds of accesses that the answer may serve again without asking. */
export const RIGHT_READ = 1;
export const RIGHT_WRITE = 2;
export const RIGHT_FETCH = 4;

/** Where `translate` leaves its answer. One object, used again and again. */
export interface Translation {
  /** Set before `translate` is called: how many bytes of the page the access is about. */
  bytes: number;
  /** Address of the page (4 KiB) in the CPU's memory. */
  host: number;
  /** What the software TLB may keep: RIGHT_*. 0: this one access only. */
  rights: number;
  errorCode: number;
  /** MMIO: address of the page. */
  gpaLo: number;
  gpaHi: number;
}

/** Why a run ended. */
export const EXIT_BUDGET = 0;
export const EXIT_HALT = 1;
/** `translate` or another function of the bus asked for it. */
export const EXIT_BUS = 2;
/** A fault while delivering a double fault. */
export const EXIT_SHUTDOWN = 3;
/** VMCALL or VMMCALL: RIP is behind it. */
export const EXIT_HYPERCALL = 4;
/** Something that this CPU doesn't do. `Cpu.unsupported` says what. */
export const EXIT_UNSUPPORTED = 5;

/** PAUSE, if `Cpu.exitsAtPause`: RIP is behind it. */
export const EXIT_PAUSE = 7;

/** `Cpu.interceptException` took an exception: `Cpu.intercepted` has it, RIP is where it would be delivered. */
export const EXIT_EXCEPTION = 6;

/** What a debugger outside waited for has happened: `Cpu.hostDebug` says what. */
export const EXIT_DEBUG = 8;

/** Events that can be answered with a fault: -1 for none, otherwise a vector (its error code is 0). */
export const NO_FAULT = -1;

export interface Bus {
  /**
   * Translates a linear address. Called on a miss of the software TLB, never for an address that isn't canonical.
   * `access` is one of ACCESS_* together.
   */
  translate(lo: number, hi: number, access: number, out: Translation): number;
  mmioRead(gpaLo: number, gpaHi: number, bytes: number): bigint;
  mmioWrite(gpaLo: number, gpaHi: number, bytes: number, value: bigint): void;
  portIn(port: number, bytes: number): number;
  portOut(port: number, bytes: number, value: number): void;
  /** An MSR that the CPU doesn't own; null for #GP. */
  readMsr(index: number): bigint | null;
  writeMsr(index: number, value: bigint): boolean;
  /** EAX, EBX, ECX, EDX. */
  cpuid(leaf: number, subleaf: number): readonly [number, number, number, number];
  /**
   * CR0, CR3, CR4, CR8 or EFER (`number` CR_EFER) is about to change, all checks of the instruction being done: a vector
   * refuses. The CPU flushes its TLB when it must; `controlWritten` comes after.
   */
  controlWrite(number: number, lo: number, hi: number): number;
  controlWritten(number: number): void;
  /** INVLPG of a linear address. True: the CPU flushes all of its TLB afterwards; false: that page of 4 KiB. */
  invalidatePage(lo: number, hi: number): boolean;
  /** INVPCID; false for #GP. */
  invalidatePcid(type: number, pcid: number, lo: number, hi: number): boolean;
  /** The CPU takes the interrupt that `setInterruptLine` told of: its vector, or -1 if there is none any more. */
  acknowledgeInterrupt(): number;
  /** The CPU decodes instructions of this page of memory from now on, or no longer. */
  codePage(host: number, has: boolean): void;
}

export const CR_EFER = 16;
