/**
 * What differs between CPUs that all follow the manual, or nearly do. Walkers read it once, when they are made.
 */
export interface CpuModel {
  /** Physical address bits. Frame bits from here to 51 are reserved. */
  readonly maxphyaddr: number;
  /** CPUID Page1GB: without it PS at level 3 is reserved. */
  readonly gigabytePages: boolean;
  /** AMD reserves bit 8 in entries of levels 4 and 5, Intel ignores it. */
  readonly upperGlobalReserved: boolean;
  /** A fault for a reserved bit reports P too. The manuals say so; QEMU's TCG (7.2 to 10) leaves it out. */
  readonly rsvdReportsPresent: boolean;
  /**
   * When the A bit of a 1 GiB entry is set: false, with the leaf's rights known; true, on the way down, also if the access
   * is then refused. The manuals allow both. TCG does the second (of large 2 MiB and 4 MiB entries the first).
   */
  readonly gigabyteAccessedEarly: boolean;
  /**
   * PAE's top level. `registers`: read when CR3 is loaded (Intel, AMD without nested paging). `memory`: read at each walk,
   * reserved bits fault then (AMD with nested paging). `memory-accessed`: so, and A is set in them, where it is reserved
   * (TCG; it doesn't check the reserved bits of the low word).
   */
  readonly pdptes: 'registers' | 'memory' | 'memory-accessed';
  /**
   * An EPT violation of an access to a guest's table, which counts as a write, reports a read too. So says the manual; Bochs
   * 2.7 reports the write alone.
   */
  readonly tableReadReported: boolean;
}

/** A CPU as AMD's manual has it. */
export const CPU_AMD: CpuModel = {
  maxphyaddr: 40,
  gigabytePages: true,
  upperGlobalReserved: true,
  rsvdReportsPresent: true,
  gigabyteAccessedEarly: false,
  pdptes: 'memory',
  tableReadReported: true,
};

/** A CPU as Intel's manual has it. */
export const CPU_INTEL: CpuModel = { ...CPU_AMD, upperGlobalReserved: false, pdptes: 'registers' };

/** Bochs 2.7 with a Skylake-X model: the CPU that the recordings of EPT were made on. */
export const CPU_BOCHS: CpuModel = { ...CPU_INTEL, tableReadReported: false };

/** QEMU 7.2's TCG with an EPYC model: the CPU that the conformance recordings were made on. */
export const CPU_TCG: CpuModel = {
  ...CPU_AMD,
  upperGlobalReserved: false,
  rsvdReportsPresent: false,
  gigabyteAccessedEarly: true,
  pdptes: 'memory-accessed',
};

/**
 * The same CPU with the address width of a host whose table frames lie above 40 bits (the TableArena's do): what walks
 * the tables that the MMU wrote is built from this, what walks the guest's own tables from the model itself.
 */
export function hostView(model: CpuModel, maxphyaddr = 48): CpuModel {
  return { ...model, maxphyaddr };
}
