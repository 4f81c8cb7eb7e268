/** Arithmetic of SSE3 and SSE4.1 between neighbours, dot products, rounding to whole numbers. */
import { beginFloat, endFloat, environment } from '../float/assist.ts';
import {
  BEFORE,
  DOUBLE,
  type Format,
  fromWhole,
  INEXACT,
  isNaNParts,
  pack,
  type Parts,
  SINGLE,
  toWhole,
  unpack,
  zero,
} from '../float/number.ts';
import { add, convert, multiply, negated } from '../float/operations.ts';
import { R_IMMEDIATE } from '../record.ts';
import { FAULT, type HelperFunction, NEXT } from '../system/outcome.ts';
import { first, firstBytes, readOperands, result, resultBytes, second, writeResult } from './operands.ts';

const bytesOf = (format: Format): number => (format === SINGLE ? 4 : 8);

function getNumber(view: DataView, format: Format, lane: number): Parts {
  const bits = format === SINGLE ? BigInt(view.getUint32(lane * 4, true)) : view.getBigUint64(lane * 8, true);
  return unpack(format, bits, environment);
}

function setNumber(format: Format, lane: number, value: Parts): void {
  const bits = pack(format, value);
  if (format === SINGLE) result.setUint32(lane * 4, Number(bits), true);
  else result.setBigUint64(lane * 8, bits, true);
}

const minus = (a: Parts): Parts => (isNaNParts(a) ? a : negated(a));
const sum = (format: Format, a: Parts, b: Parts, subtract: boolean): Parts =>
  add(format, a, subtract ? minus(b) : b, environment);

/** Flags of the steps that the instruction has behind it. */
let behind = 0;

/** Ends a step. What is found beforehand in one lane keeps the others of the step from being done. False: there is no next step. */
function endStep(): boolean {
  const { flags, masked } = environment;
  behind |= flags & BEFORE & ~masked ? flags & BEFORE : flags;
  environment.flags = 0;
  return (behind & ~masked) === 0;
}

/** A packed operation in TypeScript. `bytes` of the second operand and of the result. */
const floatFunction = (
  f: (immediate: number) => void,
  bytes: (memory: boolean) => number = () => 16,
): HelperFunction => {
  return (cpu, record) => {
    const size = bytes(true);
    if (!readOperands(cpu, record, size)) return FAULT;
    beginFloat(cpu);
    resultBytes.set(firstBytes);
    behind = 0;
    f(cpu.state.bytes[record + R_IMMEDIATE]);
    endStep();
    environment.flags = behind;
    const outcome = endFloat(cpu);
    if (outcome === NEXT) writeResult(cpu, record, size);
    return outcome;
  };
};

/** Odd lanes added, even ones subtracted. */
const addsub = (format: Format): HelperFunction =>
  floatFunction(() => {
    for (let lane = 0; lane < 16 / bytesOf(format); lane++) {
      setNumber(
        format,
        lane,
        sum(format, getNumber(first, format, lane), getNumber(second, format, lane), !(lane & 1)),
      );
    }
  });

/** Sums (or differences) of the neighbours of both operands. */
const neighbours = (format: Format, subtract: boolean): HelperFunction =>
  floatFunction(() => {
    const half = 8 / bytesOf(format);
    for (let lane = 0; lane < 2 * half; lane++) {
      const view = lane < half ? first : second;
      const from = (lane % half) * 2;
      setNumber(format, lane, sum(format, getNumber(view, format, from), getNumber(view, format, from + 1), subtract));
    }
  });

const NOTHING = zero(false);

/** Products that the upper half of the immediate chooses, added in pairs, into the lanes that the lower half chooses. */
const dotProduct = (format: Format): HelperFunction =>
  floatFunction((immediate) => {
    const lanes = 16 / bytesOf(format);
    const rounded: Parts[] = [];
    for (let lane = 0; lane < lanes; lane++) {
      const chosen = (immediate >> (4 + lane)) & 1;
      const a = chosen ? getNumber(first, format, lane) : NOTHING;
      rounded.push(chosen ? multiply(format, a, getNumber(second, format, lane), environment) : NOTHING);
    }
    let values = rounded.map((value) => unpack(format, pack(format, value), environment));
    for (let goesOn = endStep(); goesOn && values.length > 1; goesOn = endStep()) {
      const pairs: Parts[] = [];
      for (let i = 0; i < values.length; i += 2) {
        pairs.push(unpack(format, pack(format, add(format, values[i], values[i + 1], environment)), environment));
      }
      values = pairs;
    }
    for (let lane = 0; lane < lanes; lane++) setNumber(format, lane, (immediate >> lane) & 1 ? values[0] : NOTHING);
  });

const FROM_MXCSR = 4;
const SUPPRESS_INEXACT = 8;

function whole(format: Format, a: Parts, immediate: number): Parts {
  if (isNaNParts(a)) return convert(format, a, environment);
  const before = environment.flags;
  const value = toWhole(a, immediate & FROM_MXCSR ? environment.rounding : immediate & 3, environment);
  if (immediate & SUPPRESS_INEXACT) environment.flags = before | (environment.flags & ~INEXACT);
  // An infinity, or so large that it is whole.
  if (value === null) {
    environment.flags = before;
    return a;
  }
  return value === 0n ? zero(a.negative) : fromWhole(value);
}

const roundLanes = (format: Format, lanes: number): HelperFunction =>
  floatFunction(
    (immediate) => {
      for (let lane = 0; lane < lanes; lane++) {
        setNumber(format, lane, whole(format, { ...getNumber(second, format, lane), denormal: false }, immediate));
      }
    },
    () => lanes * bytesOf(format),
  );

export const VECTOR_FLOAT: Record<string, HelperFunction> = {
  addsubps: addsub(SINGLE),
  addsubpd: addsub(DOUBLE),
  haddps: neighbours(SINGLE, false),
  haddpd: neighbours(DOUBLE, false),
  hsubps: neighbours(SINGLE, true),
  hsubpd: neighbours(DOUBLE, true),
  dpps: dotProduct(SINGLE),
  dppd: dotProduct(DOUBLE),
  roundps: roundLanes(SINGLE, 4),
  roundpd: roundLanes(DOUBLE, 2),
  roundss: roundLanes(SINGLE, 1),
  roundsd: roundLanes(DOUBLE, 1),
};
