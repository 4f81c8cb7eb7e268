/** Arithmetic that is too rare for generated code: 128 bits divided by 64. */
import { toBigInt } from '../base/u64.ts';
import type { CpuState } from './cpu-state.ts';
import { RAX, RDX } from './state.ts';

/** RDX:RAX divided by a divisor; 0 when the quotient doesn't exist or doesn't fit (#DE), 1 otherwise. */
export function divide(state: CpuState, signed: boolean, lo: number, hi: number): number {
  const divisor = signed ? BigInt.asIntN(64, toBigInt(lo, hi)) : toBigInt(lo, hi);
  if (divisor === 0n) return 0;
  const unsigned = (state.big(RDX) << 64n) | state.big(RAX);
  const dividend = signed ? BigInt.asIntN(128, unsigned) : unsigned;
  const quotient = dividend / divisor;
  const fits = signed ? BigInt.asIntN(64, quotient) === quotient : BigInt.asUintN(64, quotient) === quotient;
  if (!fits) return 0;
  state.setBig(RAX, quotient);
  state.setBig(RDX, dividend % divisor);
  return 1;
}
