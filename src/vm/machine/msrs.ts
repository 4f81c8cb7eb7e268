/**
 * Model-specific registers that neither the CPU nor a device has: memory types, and those that operating systems read
 * because real CPUs have them. What KVM answers with zero is zero here, and writes to it go nowhere.
 *
 * Source: Linux 6.1 x86.c kvm_get_msr_common, kvm_set_msr_common; mtrr.c.
 */
import { isMceMsr, MceMsrs } from './mce-msrs.ts';

const MTRR_CAP = 0xfe;
const MTRR_VARIABLE = 0x200;
const MTRR_VARIABLE_COUNT = 8;
const MTRR_DEFAULT_TYPE = 0x2ff;
const MTRR_FIXED: readonly number[] = [0x250, 0x258, 0x259, ...Array.from({ length: 8 }, (_, i) => 0x268 + i)];
/** Write-back, everything on: as firmware leaves it. */
const MTRR_DEFAULT = 0xc06n;
const ALL_WRITE_BACK = 0x0606060606060606n;
/** Physical addresses have 40 bits. */
const MTRR_MASK_RESERVED = ~((1n << 40n) - 1n) & ((1n << 64n) - 1n);

const MISC_ENABLE = 0x1a0;
const MISC_ENABLE_FAST_STRING = 1n;
const UCODE_REVISION = 0x8b;
const AMD_UCODE = 0x01000065n;

/** Read as zero, and what is written to them is forgotten. */
const ZERO: ReadonlySet<number> = new Set([
  0x17, 0x2a, 0x79, 0x1d9, 0x1db, 0x1dc, 0x1dd, 0x1de, 0xc0010010, 0xc0010015, 0xc0010055, 0xc001001f, 0xc0010022,
  0xc0010000, 0xc0010001, 0xc0010002, 0xc0010003, 0xc0010004, 0xc0010005, 0xc0010006, 0xc0010007, 0xc001100d,
  0xc0011022,
]);

export class Msrs {
  private readonly values = new Map<number, bigint>();
  private readonly mce = new MceMsrs();

  constructor() {
    for (let i = 0; i < 2 * MTRR_VARIABLE_COUNT; i++) this.values.set(MTRR_VARIABLE + i, 0n);
    for (const msr of MTRR_FIXED) this.values.set(msr, ALL_WRITE_BACK);
    this.values.set(MTRR_DEFAULT_TYPE, MTRR_DEFAULT);
    this.values.set(MISC_ENABLE, MISC_ENABLE_FAST_STRING);
  }

  /** null: #GP. */
  read(msr: number): bigint | null {
    if (isMceMsr(msr)) return this.mce.read(msr);
    const value = this.values.get(msr);
    if (value !== undefined) return value;
    if (ZERO.has(msr)) return 0n;
    // Fixed ranges, write combining, so many variable ones.
    if (msr === MTRR_CAP) return 0x500n | BigInt(MTRR_VARIABLE_COUNT);
    return msr === UCODE_REVISION ? AMD_UCODE : null;
  }

  /** false: #GP. */
  write(msr: number, value: bigint): boolean {
    if (isMceMsr(msr)) return this.mce.write(msr, value);
    if (ZERO.has(msr) || msr === UCODE_REVISION) return true;
    if (!this.values.has(msr) || !isAllowed(msr, value)) return false;
    this.values.set(msr, value);
    return true;
  }
}

/** @kvm kvm_mtrr_valid */
function isAllowed(msr: number, value: bigint): boolean {
  if (msr === MISC_ENABLE) return true;
  if (msr === MTRR_DEFAULT_TYPE) return (value & ~0xcffn) === 0n && isMemoryType(Number(value & 0xffn));
  if (MTRR_FIXED.includes(msr)) {
    for (let shift = 0n; shift < 64n; shift += 8n) if (!isMemoryType(Number((value >> shift) & 0xffn))) return false;
    return true;
  }
  if ((msr & 1) === 0) return (value & (MTRR_MASK_RESERVED | 0xf00n)) === 0n && isMemoryType(Number(value & 0xffn));
  return (value & (MTRR_MASK_RESERVED | 0x7ffn)) === 0n;
}

function isMemoryType(type: number): boolean {
  return type < 7 && type !== 2 && type !== 3;
}
