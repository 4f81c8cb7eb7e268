/**
 * Numbers that a caller hands over, as the fields of a C struct would hold them. What no field can hold is refused with
 * EINVAL: the kernel never gets to see it.
 */
import { EINVAL, KvmError } from './errno.ts';

/** A whole number from 0 to 2^32 - 1. */
export function checkU32(value: number, what: string): number {
  if (!Number.isInteger(value) || value < 0 || value >= 2 ** 32) throw new KvmError(EINVAL, `${what} ${value}`);
  return value;
}

/** A whole number from 0 to 2^64 - 1, exactly: beyond 2^53 only a bigint can be. */
export function checkU64(value: number | bigint, what: string): bigint {
  if (typeof value !== 'bigint' && !Number.isInteger(value)) throw new KvmError(EINVAL, `${what} ${value}`);
  const exact = BigInt(value);
  if (BigInt.asUintN(64, exact) !== exact) throw new KvmError(EINVAL, `${what} ${value}`);
  return exact;
}
