/**
 * Registers of the machine-check architecture: ten banks in which no error ever appears, and IA32_MCG_CTL.
 *
 * Source: Linux 6.1 x86.c set_msr_mce, get_msr_mce; QEMU's number of banks.
 */
const P5_ADDRESS = 0x0;
const P5_TYPE = 0x1;
const MCG_CAP = 0x179;
const MCG_STATUS = 0x17a;
const MCG_CTL = 0x17b;
const BANK = 0x400;
const BANKS = 10;
const CTL_IS_PRESENT = 1n << 8n;
const ALL_ONES = (1n << 64n) - 1n;
// Of a bank's four registers; the other two, ADDR and MISC, take anything.
const CTL = 0;
const STATUS = 1;
/** Bits of CTL that Linux clears in bank 4 of a K8, and UnixWare in bank 1. */
const CTL_OLD_SYSTEMS = (1n << 10n) | 1n;

export function isMceMsr(msr: number): boolean {
  return (
    (msr >= MCG_CAP && msr <= MCG_CTL) ||
    msr === P5_ADDRESS ||
    msr === P5_TYPE ||
    (msr >= BANK && msr < BANK + 4 * BANKS)
  );
}

export class MceMsrs {
  private readonly values = new Map<number, bigint>();

  read(msr: number): bigint {
    return msr === MCG_CAP ? BigInt(BANKS) | CTL_IS_PRESENT : (this.values.get(msr) ?? 0n);
  }

  /** false: #GP. @kvm set_msr_mce */
  write(msr: number, value: bigint): boolean {
    if (msr === MCG_CAP) return false;
    if (msr === P5_ADDRESS || msr === P5_TYPE) return true;
    if (!isAllowed(msr, value)) return false;
    this.values.set(msr, value);
    return true;
  }
}

function isAllowed(msr: number, value: bigint): boolean {
  if (msr === MCG_CTL) return value === 0n || value === ALL_ONES;
  if (msr === MCG_STATUS) return true;
  const register = msr & 3;
  if (register === CTL) return value === 0n || (value | CTL_OLD_SYSTEMS) === ALL_ONES;
  // A status is cleared, never made up.
  return register !== STATUS || value === 0n;
}
