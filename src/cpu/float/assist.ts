/** SSE's arithmetic in all its cases: one instruction, its flags and its exception. */
import type { Cpu } from '../cpu.ts';
import { R_IMMEDIATE } from '../record.ts';
import { CR4, FPR, MXCSR, XMM } from '../state.ts';
import { FAULT, fault, field, isMemory, loadOperand, NEXT } from '../system/outcome.ts';
import { useMmx } from '../x87/registers.ts';
import { ELEMENT_BYTES, type Element, FLOAT_FORMS, type FloatForm } from './forms.ts';
import {
  BEFORE,
  DENORMAL,
  DOUBLE,
  Environment,
  type Format,
  fromWhole,
  INEXACT,
  INVALID,
  pack,
  round,
  SINGLE,
  TO_ZERO,
  toWhole,
  unpack,
} from './number.ts';
import { add, convert, divide, multiply, negated, squareRoot } from './operations.ts';
import { quick, quickly } from './quick.ts';

const CR4_OSXMMEXCPT = 1 << 10;
const MXCSR_DAZ = 1 << 6;
const MXCSR_FTZ = 1 << 15;

const source = new DataView(new ArrayBuffer(16));
const target = new DataView(new ArrayBuffer(16));
/** Of the instruction that is being done. */
export const environment = new Environment();
/** Rounding to nearest, denormals as they are, everything masked. */
let plain = false;

const formatOf = (element: Element): Format => (element === 's' ? SINGLE : DOUBLE);

function getBits(view: DataView, element: Element, lane: number): bigint {
  return element === 's' ? BigInt(view.getUint32(lane * 4, true)) : view.getBigUint64(lane * 8, true);
}

function setBits(element: Element, lane: number, bits: bigint): void {
  if (element === 's' || element === 'i') target.setUint32(lane * 4, Number(BigInt.asUintN(32, bits)), true);
  else target.setBigUint64(lane * 8, BigInt.asUintN(64, bits), true);
}

const getNumber = (view: DataView, element: Element, lane: number): number =>
  element === 's' ? view.getFloat32(lane * 4, true) : view.getFloat64(lane * 8, true);

/** Does the instruction of `record`, which has form `number`. */
export function floatAssist(cpu: Cpu, record: number, number: number): number {
  const form = FLOAT_FORMS[number];
  const { state } = cpu;
  if (!readSource(cpu, record, form)) return FAULT;
  beginFloat(cpu);
  plain = (state.get(MXCSR) & 0xffc0) === 0x1f80;
  const destination = cpu.layout.state + XMM + field(cpu, record, 0);
  if (form.destination === 'xmm' || form.destination === 'flags')
    for (let i = 0; i < 16; i++) target.setUint8(i, state.bytes[destination + i]);
  let order = 0;
  let before = 0;
  for (let lane = 0; lane < form.lanes; lane++) {
    order = doLane(form, lane, state.bytes[record + R_IMMEDIATE]);
    before |= environment.flags & BEFORE;
  }
  // What is found beforehand in one lane keeps the others from being done.
  if (before & ~environment.masked) environment.flags = before;
  if (endFloat(cpu) === FAULT) return FAULT;
  writeResult(cpu, record, form, order, destination);
  return NEXT;
}

/** Takes rounding, masks and the rest from MXCSR. */
export function beginFloat(cpu: Cpu): void {
  const mxcsr = cpu.state.get(MXCSR);
  environment.rounding = (mxcsr >>> 13) & 3;
  environment.denormalsAreZero = (mxcsr & MXCSR_DAZ) !== 0;
  environment.flushToZero = (mxcsr & MXCSR_FTZ) !== 0;
  environment.masked = (mxcsr >>> 7) & 0x3f;
  environment.flags = 0;
}

/** Notes what happened in MXCSR; FAULT if something that isn't masked did. */
export function endFloat(cpu: Cpu): number {
  const { state } = cpu;
  state.set(MXCSR, state.get(MXCSR) | environment.flags);
  if (environment.flags & ~environment.masked) return fault(cpu, state.get(CR4) & CR4_OSXMMEXCPT ? 19 : 6);
  return NEXT;
}

function readSource(cpu: Cpu, record: number, form: FloatForm): boolean {
  const { state, memory } = cpu;
  const bytes = form.lanes * ELEMENT_BYTES[form.from];
  if (isMemory(cpu, record)) {
    for (let at = 0; at < bytes; at += 8) {
      if (!loadOperand(cpu, record, at, Math.min(bytes - at, 8))) return false;
      source.setInt32(at, memory.lo, true);
      if (bytes - at >= 8) source.setInt32(at + 4, memory.hi, true);
    }
    return true;
  }
  if (form.source === 'mmx') useMmx(cpu);
  const from = { xmm: XMM, general: 0, mmx: FPR, flags: 0 }[form.source] + field(cpu, record, 1);
  for (let i = 0; i < bytes; i++) source.setUint8(i, state.bytes[cpu.layout.state + from + i]);
  return true;
}

function writeResult(cpu: Cpu, record: number, form: FloatForm, order: number, destination: number): void {
  const { state } = cpu;
  const bytes = form.lanes * ELEMENT_BYTES[form.to];
  switch (form.destination) {
    case 'flags':
      state.rflags = (state.rflags & ~0x8d5) | order;
      return;
    case 'general': {
      const hi = form.to === 'q' ? target.getInt32(4, true) : 0;
      state.setPair(field(cpu, record, 0), target.getInt32(0, true), hi);
      return;
    }
    case 'mmx':
      useMmx(cpu);
      state.setPair(FPR + field(cpu, record, 0), target.getInt32(0, true), target.getInt32(4, true));
      state.set(FPR + field(cpu, record, 0) + 8, 0xffff);
      return;
    default:
      for (let i = 0; i < bytes; i++) state.bytes[destination + i] = target.getUint8(i);
      if (form.clears) state.bytes.fill(0, destination + bytes, destination + 16);
  }
}

/** Computes one lane of the target; for comparisons into flags the answer. */
function doLane(form: FloatForm, lane: number, immediate: number): number {
  switch (form.operation) {
    case 'compare':
      setBits(form.to, lane, comparison(form.from, lane, immediate & 7) ? -1n : 0n);
      return 0;
    case 'order':
      return orderOf(form.from, true);
    case 'order-quiet':
      return orderOf(form.from, false);
    case 'min':
    case 'max':
      setBits(form.to, lane, extreme(form, lane));
      return 0;
    case 'convert':
    case 'truncate':
      setBits(form.to, lane, converted(form, lane));
      return 0;
    default:
      arithmetic(form, lane);
      return 0;
  }
}

function arithmetic(form: FloatForm, lane: number): void {
  const element = form.from;
  if (plain) {
    const single = element === 's';
    const a = form.operation === 'sqrt' ? 0 : getNumber(target, element, lane);
    const result = quickly(form.operation, a, getNumber(source, element, lane), single);
    if (quick.sure) {
      if (!quick.exact) environment.flags |= INEXACT;
      if (single) target.setFloat32(lane * 4, result, true);
      else target.setFloat64(lane * 8, result, true);
      return;
    }
  }
  const format = formatOf(element);
  const b = unpack(format, getBits(source, element, lane), environment);
  const result = () => {
    if (form.operation === 'sqrt') return squareRoot(format, b, environment);
    const a = unpack(format, getBits(target, element, lane), environment);
    switch (form.operation) {
      case 'add':
        return add(format, a, b, environment);
      case 'sub':
        return add(format, a, b.kind >= 3 ? b : negated(b), environment);
      case 'mul':
        return multiply(format, a, b, environment);
      default:
        return divide(format, a, b, environment);
    }
  };
  setBits(element, lane, pack(format, result()));
}

/** A number for comparisons: zero for a denormal one under DAZ. Notes denormals and signaling NaN; `strict`: all NaN. */
function comparable(
  view: DataView,
  element: Element,
  lane: number,
): { value: number; denormal: boolean; signaling: boolean } {
  const parts = unpack(formatOf(element), getBits(view, element, lane), environment);
  const value = parts.kind === 0 ? (parts.negative ? -0 : 0) : getNumber(view, element, lane);
  return { value, denormal: parts.denormal, signaling: parts.kind === 4 };
}

function compared(element: Element, lane: number, strict: boolean): { a: number; b: number; unordered: boolean } {
  const a = comparable(target, element, lane);
  const b = comparable(source, element, lane);
  const unordered = Number.isNaN(a.value) || Number.isNaN(b.value);
  if (unordered) {
    if (strict || a.signaling || b.signaling) environment.flags |= INVALID;
  } else if (a.denormal || b.denormal) {
    environment.flags |= DENORMAL;
  }
  return { a: a.value, b: b.value, unordered };
}

/** Predicates of CMPPS: 1, 2, 5 and 6 mind quiet NaN too. */
function comparison(element: Element, lane: number, predicate: number): boolean {
  const kind = predicate & 3;
  const { a, b, unordered } = compared(element, lane, kind === 1 || kind === 2);
  const holds = kind === 0 ? a === b : kind === 1 ? a < b : kind === 2 ? a <= b : unordered;
  return holds !== ((predicate & 4) !== 0);
}

function orderOf(element: Element, strict: boolean): number {
  const { a, b, unordered } = compared(element, 0, strict);
  return unordered ? 0x45 : a === b ? 0x40 : a < b ? 1 : 0;
}

/** The second operand unless the first is smaller (larger). */
function extreme(form: FloatForm, lane: number): bigint {
  const { a, b } = compared(form.from, lane, true);
  const first = form.operation === 'min' ? a < b : a > b;
  const view = first ? target : source;
  const bits = getBits(view, form.from, lane);
  if (!environment.denormalsAreZero) return bits;
  const format = formatOf(form.from);
  const parts = unpack(format, bits, environment);
  return parts.kind === 0 ? pack(format, parts) : bits;
}

function converted(form: FloatForm, lane: number): bigint {
  if (form.from === 'i' || form.from === 'q') {
    const value = form.from === 'i' ? BigInt(source.getInt32(lane * 4, true)) : source.getBigInt64(lane * 8, true);
    const format = formatOf(form.to);
    return pack(format, round(format, fromWhole(value), environment));
  }
  const parts = unpack(formatOf(form.from), getBits(source, form.from, lane), environment);
  if (form.to === 's' || form.to === 'd') {
    const format = formatOf(form.to);
    return pack(format, convert(format, parts, environment));
  }
  const bits = form.to === 'q' ? 64 : 32;
  const before = environment.flags;
  const whole = toWhole(parts, form.operation === 'truncate' ? TO_ZERO : environment.rounding, environment);
  if (whole !== null && BigInt.asIntN(bits, whole) === whole) return whole;
  environment.flags = before | INVALID;
  return 1n << BigInt(bits - 1);
}
