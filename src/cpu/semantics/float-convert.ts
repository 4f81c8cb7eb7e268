/** Conversions of SSE and SSE2 between integers, floats and doubles. What isn't sure goes to `float/assist.ts`. */
import {
  and32,
  isZero,
  isZero32,
  numeric,
  or32,
  plain,
  raw,
  signExtend,
  type Value,
  zeroExtend,
} from '../expression.ts';
import { type Element, type FloatForm, floatForm } from '../float/forms.ts';
import type { Semantics, Stage } from '../stage.ts';
import { F32, F64, I32, I64 } from '../wasm-encoder.ts';
import {
  allLanes,
  anyDenormal,
  bitsOf,
  DOUBLES,
  isDenormal,
  isFinite,
  isNormal,
  number,
  SINGLES,
  usualMxcsr,
} from './float.ts';
import { bytes16, low64, readAligned, v1, v2, vand } from './vector.ts';

type Sizes = Readonly<Record<number, number>>;

const general = { destination: 'general' } as const;
const fromGeneral = { source: 'general' } as const;

const INTEGERS: Readonly<Record<number, Element>> = { 4: 'i', 8: 'q' };
const FLOATS: Readonly<Record<number, Element>> = { 4: 's', 8: 'd' };

/** Forms for the four combinations of sizes: `[from * 16 + to]`. */
function forms(
  operation: 'convert' | 'truncate',
  from: typeof INTEGERS,
  to: typeof INTEGERS,
  more: Partial<FloatForm>,
): Sizes {
  const made: Record<number, number> = {};
  for (const a of [4, 8]) for (const b of [4, 8]) made[a * 16 + b] = floatForm(operation, from[a], to[b], 1, more);
  return made;
}

const FROM_INTEGER_FORMS = forms('convert', INTEGERS, FLOATS, fromGeneral);

export const FROM_INTEGER: Semantics = (s) => {
  const from = s.bytes(1);
  const to = s.bytes(0);
  const wide = signExtend(s.read(1), from);
  const result = bitsOf(to === 4 ? plain(F32, 0xb4, wide) : plain(F64, 0xb9, wide));
  if (from === 4 && to === 8) {
    s.write(0, result);
    return;
  }
  s.when(
    usualMxcsr(s),
    () => s.write(0, result),
    () => s.assist(FROM_INTEGER_FORMS[from * 16 + to]),
  );
};

export function constantF64(value: number): Value {
  return raw(F64, [0x44, ...new Uint8Array(new Float64Array([value]).buffer)]);
}

export const toInteger = (truncate: boolean): Semantics => {
  const made = forms(truncate ? 'truncate' : 'convert', FLOATS, INTEGERS, general);
  return (s) => {
    const from = s.bytes(1);
    const to = s.bytes(0);
    const source = number(s.read(1), from);
    const wide = s.keep(from === 4 ? plain(F64, 0xbb, source) : source);
    const rounded = s.keep(plain(F64, truncate ? 0x9d : 0x9e, wide));
    const limit = to === 8 ? 2 ** 63 : 2 ** 31;
    const fits = and32(plain(I32, 0x63, rounded, constantF64(limit)), plain(I32, 0x66, rounded, constantF64(-limit)));
    s.when(
      and32(usualMxcsr(s), fits),
      () => s.write(0, zeroExtend(numeric(I64, 6, rounded), to)),
      () => s.assist(made[from * 16 + to]),
    );
  };
};

function sure(s: Stage, condition: Value, result: Value, form: number): void {
  s.when(
    condition,
    () => s.write(0, result),
    () => s.assist(form),
  );
}

const WIDEN_SCALAR = floatForm('convert', 's', 'd', 1);
const NARROW_SCALAR = floatForm('convert', 'd', 's', 1);
const WIDEN_PACKED = floatForm('convert', 's', 'd', 2);
const NARROW_PACKED = floatForm('convert', 'd', 's', 2, { clears: true });

/** Exact, but for what denormals and NaN have to say. */
export const CVTSS2SD: Semantics = (s) => {
  const b = s.read(1);
  const result = s.keep(bitsOf(plain(F64, 0xbb, number(b, 4))));
  sure(s, and32(isZero32(isDenormal(b, 4)), isFinite(result, 8)), result, WIDEN_SCALAR);
};

export const CVTSD2SS: Semantics = (s) => {
  const b = s.read(1);
  const result = s.keep(bitsOf(plain(F32, 0xb6, number(b, 8))));
  sure(s, and32(usualMxcsr(s), or32(isNormal(result, 4), isZero(b))), result, NARROW_SCALAR);
};

export const CVTPS2PD: Semantics = (s) => {
  const b = s.keep(low64(s.read(1)));
  const result = s.keep(v1(0x5f, b));
  const size = vand(result, DOUBLES.absolute);
  const finite = allLanes(DOUBLES, v2(DOUBLES.less, size, DOUBLES.infinite));
  sure(s, and32(isZero32(anyDenormal(s, SINGLES, b)), finite), result, WIDEN_PACKED);
};

const power = (exponent: number): Value =>
  bytes16((i) => [0, 0, 0, 0, 0, 0, ((exponent + 1023) << 4) & 255, (exponent + 1023) >> 4][i % 8]);
const SAFE_LOW = power(-125);
const SAFE_HIGH = power(127);

export const CVTPD2PS: Semantics = (s) => {
  const b = readAligned(s, 1);
  const size = s.keep(vand(b, DOUBLES.absolute));
  const safe = allLanes(DOUBLES, vand(v2(DOUBLES.lessEqual, SAFE_LOW, size), v2(DOUBLES.less, size, SAFE_HIGH)));
  sure(s, and32(usualMxcsr(s), safe), v1(0x5e, b), NARROW_PACKED);
};

const INTEGERS_TO_SINGLES = floatForm('convert', 'i', 's', 4);
export const CVTDQ2PS: Semantics = (s) => sure(s, usualMxcsr(s), v1(0xfa, readAligned(s, 1)), INTEGERS_TO_SINGLES);
export const CVTDQ2PD: Semantics = (s) => s.write(0, v1(0xfe, low64(s.read(1))));

/** 2^31 in each lane. */
const LIMIT_F32 = bytes16((i) => [0, 0, 0, 0x4f][i % 4]);
const LIMIT_F64 = power(31);
/** 2^31 - 1: whatever is smaller still fits when rounded. */
const LIMIT_F64_ROUNDED = bytes16((i) => [0, 0, 0xc0, 0xff, 0xff, 0xff, 0xdf, 0x41][i % 8]);

export const toIntegers = (truncate: boolean): Semantics => {
  const form = floatForm(truncate ? 'truncate' : 'convert', 's', 'i', 4);
  return (s) => {
    const b = readAligned(s, 1);
    const fits = allLanes(SINGLES, v2(SINGLES.less, vand(b, SINGLES.absolute), LIMIT_F32));
    sure(s, and32(usualMxcsr(s), fits), v1(0xf8, truncate ? b : v1(0x6a, b)), form);
  };
};

export const doublesToIntegers = (truncate: boolean): Semantics => {
  const form = floatForm(truncate ? 'truncate' : 'convert', 'd', 'i', 2, { clears: true });
  return (s) => {
    const b = readAligned(s, 1);
    const limit = truncate ? LIMIT_F64 : LIMIT_F64_ROUNDED;
    const fits = allLanes(DOUBLES, v2(DOUBLES.less, vand(b, DOUBLES.absolute), limit));
    sure(s, and32(usualMxcsr(s), fits), v1(0xfc, truncate ? b : v1(0x94, b)), form);
  };
};

/** Two integers of an MMX register; through it, so always in TypeScript. */
export const throughMmx = (operation: 'convert' | 'truncate', from: Element, to: Element): Semantics => {
  const place = from === 'i' ? ({ source: 'mmx' } as const) : ({ destination: 'mmx' } as const);
  const form = floatForm(operation, from, to, 2, place);
  return (s) => {
    if (s.bytes(1) === 16) readAligned(s, 1);
    s.assist(form);
  };
};
