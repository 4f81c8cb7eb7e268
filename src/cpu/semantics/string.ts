/**
 * String instructions. A repeated one does one step, then itself again, so that a fault or an interrupt finds the registers
 * between two steps. RSI's segment is the record's, RDI's is always ES.
 */
import { add, and, and32, eq, gtU, k64, ne, shl, shrU, sub, type Value } from '../expression.ts';
import { subFlags, zeroFlag } from '../flags.ts';
import type { Semantics, Stage } from '../stage.ts';
import { FLAGS, LINEAR_MASK, RAX, RCX, RDI, RSI, SEGMENT_BASE } from '../state.ts';

const sourceAddress = (s: Stage): Value =>
  s.keep(and(add(s.addressMask(s.register(RSI, 8)), s.sourceSegmentBase()), s.state(LINEAR_MASK, 8)));

const destinationAddress = (s: Stage): Value =>
  s.keep(and(add(s.addressMask(s.register(RDI, 8)), s.state(SEGMENT_BASE, 8)), s.state(LINEAR_MASK, 8)));

/** Moves index registers on, down when DF is set. */
function advance(s: Stage, bytes: number, ...registers: readonly number[]): void {
  const down = and(shrU(s.state(FLAGS, 4), k64(10)), k64(1));
  const distance = s.keep(sub(k64(bytes), shl(down, k64(Math.log2(bytes) + 1))));
  for (const r of registers) s.setAddressRegister(r, s.keep(s.addressMask(add(s.register(r, 8), distance))));
}

const MOVS_STEP: Semantics = (s) => {
  const bytes = s.bytes(0);
  const value = s.load(sourceAddress(s), bytes);
  s.store(destinationAddress(s), bytes, value);
  advance(s, bytes, RSI, RDI);
};

const STOS_STEP: Semantics = (s) => {
  const bytes = s.bytes(0);
  s.store(destinationAddress(s), bytes, s.register(RAX, bytes));
  advance(s, bytes, RDI);
};

const LODS_STEP: Semantics = (s) => {
  const bytes = s.bytes(0);
  const value = s.load(sourceAddress(s), bytes);
  s.setRegister(RAX, bytes, value);
  advance(s, bytes, RSI);
};

const CMPS_STEP: Semantics = (s) => {
  const bytes = s.bytes(0);
  const a = s.load(sourceAddress(s), bytes);
  const b = s.load(destinationAddress(s), bytes);
  advance(s, bytes, RSI, RDI);
  subFlags(s, bytes, a, b, s.keep(sub(a, b)));
};

const SCAS_STEP: Semantics = (s) => {
  const bytes = s.bytes(0);
  const b = s.load(destinationAddress(s), bytes);
  const a = s.register(RAX, bytes);
  advance(s, bytes, RDI);
  subFlags(s, bytes, a, b, s.keep(sub(a, b)));
};

/** The step while RCX lasts and, for comparisons, while ZF is `zero`. */
const repeated =
  (step: Semantics, zero: boolean | null, many: ((s: Stage, count: Value) => void) | null = null): Semantics =>
  (s) => {
    const count = s.keep(s.addressMask(s.register(RCX, 8)));
    s.when(ne(count, k64(0)), () => {
      many?.(s, count);
      step(s);
      const left = s.keep(sub(count, k64(1)));
      s.setAddressRegister(RCX, left);
      const more = ne(left, k64(0));
      const wanted = zero === null ? more : and32(more, eq(zeroFlag(s), k64(zero ? 1 : 0)));
      s.when(wanted, () => s.repeat());
    });
  };

export const MOVS = MOVS_STEP;
export const STOS = STOS_STEP;
export const LODS = LODS_STEP;
export const CMPS = CMPS_STEP;
export const SCAS = SCAS_STEP;
/** From how many steps on it pays to ask for all at once. */
const MANY = 16;
const DIRECTION = 1 << 10;

const bulk =
  (copies: boolean) =>
  (s: Stage, count: Value): void => {
    const up = eq(and(s.state(FLAGS, 4), k64(DIRECTION)), k64(0));
    s.when(and32(gtU(count, k64(MANY)), up), () => s.repeatMany(copies));
  };

export const REP_MOVS = repeated(MOVS_STEP, null, bulk(true));
export const REP_STOS = repeated(STOS_STEP, null, bulk(false));
export const REP_LODS = repeated(LODS_STEP, null);
export const REPE_CMPS = repeated(CMPS_STEP, true);
export const REPNE_CMPS = repeated(CMPS_STEP, false);
export const REPE_SCAS = repeated(SCAS_STEP, true);
export const REPNE_SCAS = repeated(SCAS_STEP, false);
