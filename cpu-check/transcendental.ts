/**
 * How far x87's transcendental functions are from those of the machine's own processor, in units of the last place of 80 bits. Ours are
 * rounded correctly; processors differ from that, and from each other, by one.
 */
import { spawnSync } from 'node:child_process';
import { Environment, type Parts, round } from '../src/cpu/float/number.ts';
import { EXTENDED, packExtended, unpackExtended } from '../src/cpu/x87/extended.ts';
import * as t from '../src/cpu/x87/transcendental.ts';
import { Random } from './random.ts';

type Number80 = [significand: bigint, head: number];
/** Exponents from, below; and whether it has a sign. */
type Range = readonly [from: number, below: number, signed: boolean];

interface Function80 {
  readonly name: string;
  readonly f: (a: Parts, b: Parts) => Parts;
  readonly ranges: readonly Range[];
}

// biome-ignore format: a table
export const FUNCTIONS: readonly Function80[] = [
  { name: 'f2xm1',   f: t.powerMinusOne,    ranges: [[-70, 0, true]] },
  { name: 'fyl2x',   f: t.logarithm,        ranges: [[-1, 1, false], [-40, 40, false], [-9000, 9000, false]] },
  { name: 'fyl2xp1', f: t.logarithmPlusOne, ranges: [[-70, -2, true]] },
  { name: 'fpatan',  f: t.angleOf,          ranges: [[-30, 30, true], [-200, 200, true]] },
  { name: 'fsin',    f: t.sine,             ranges: [[-70, 3, true], [-2, 62, true]] },
  { name: 'fcos',    f: t.cosine,           ranges: [[-70, 3, true], [-2, 62, true]] },
  { name: 'fptan',   f: t.tangent,          ranges: [[-70, 3, true], [-2, 62, true]] },
];

function numberIn(random: Random, [from, below, signed]: Range): Number80 {
  const significand = (BigInt(random.next()) << 32n) | BigInt(random.next()) | (1n << 63n);
  const exponent = 16383 + from + random.below(below - from);
  return [significand, exponent | (signed && random.chance(2) ? 0x8000 : 0)];
}

/** By function: how many of `count` results were so far from the processor's; -1 for more than 8. */
export function distances(native: string, seed: number, count: number): Map<string, Map<number, number>> {
  const random = new Random(seed);
  const found = new Map<string, Map<number, number>>();
  for (const [index, { name, f, ranges }] of FUNCTIONS.entries()) {
    const cases: [Number80, Number80][] = [];
    const input = Buffer.alloc(count * 40);
    for (let i = 0; i < count; i++) {
      const a = numberIn(random, random.pick(ranges));
      const b = numberIn(random, [-30, 30, true]);
      cases.push([a, b]);
      input.writeBigUInt64LE(BigInt(index), i * 40);
      for (const [k, [significand, head]] of [a, b].entries()) {
        input.writeBigUInt64LE(significand, i * 40 + 8 + 16 * k);
        input.writeUInt16LE(head, i * 40 + 16 + 16 * k);
      }
    }
    const run = spawnSync(native, { input, maxBuffer: 1 << 30 });
    if (run.stdout.length !== count * 16) throw new Error(`the harness stopped: ${run.signal} ${run.stderr}`);
    const byDistance = new Map<number, number>();
    for (const [i, [a, b]] of cases.entries()) {
      const value = round(EXTENDED, f(unpackExtended(...a), unpackExtended(...b)), new Environment());
      const theirs: Number80 = [run.stdout.readBigUInt64LE(i * 16), run.stdout.readUInt16LE(i * 16 + 8)];
      const distance = distanceOf(packExtended(value), theirs);
      byDistance.set(distance, (byDistance.get(distance) ?? 0) + 1);
    }
    found.set(name, byDistance);
  }
  return found;
}

/** Numbers of one sign lie in the order of their bits. */
export function distanceOf([a, headA]: Number80, [b, headB]: Number80): number {
  if ((headA ^ headB) & 0x8000) return -1;
  const place = (significand: bigint, head: number) => (BigInt(head & 0x7fff) << 63n) + (significand & ((1n << 63n) - 1n));
  const difference = place(a, headA) - place(b, headB);
  const size = difference < 0n ? -difference : difference;
  return size > 8n ? -1 : Number(size);
}
