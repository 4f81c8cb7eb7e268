/**
 * QEMU as outside judge of the page walk: its stored answers to the cases of walker-check/ (which see) against the
 * oracle's, and both against the walker of `hw`. Where QEMU and the manual differ, the manual holds, and the difference
 * is one of the named rules.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { RESULT_BYTES, SETS, decodeResult, encodeCases, makeCases } from '../../walker-check/cases.mjs';
import type { WalkCase, WalkSet } from '../../walker-check/cases.mjs';
import { RFLAGS_AC } from '../arch/control.ts';
import { PAGING_32, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_PAE } from '../arch/paging-mode.ts';
import { hiOf, loOf } from '../base/u64.ts';
import { CPU_AMD, CPU_TCG } from '../hw/cpu-model.ts';
import type { CpuModel } from '../hw/cpu-model.ts';
import { BareWalker } from '../hw/guest-walker.ts';
import {
  ACCESS_FETCH,
  ACCESS_IMPLICIT,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  WALK_OK,
  controlBits,
} from '../hw/rights.ts';
import {
  QEMU_DIFFERENCES,
  WordMemory,
  countRules,
  expectedCounts,
  firstDifference,
  flagsIn,
  memoryOf,
  outcomeOf,
  predict,
} from './testing/walker-check.ts';
import type { Outcome, QemuRule } from './testing/walker-check.ts';

const at = (name: string): URL => new URL(`../../walker-check/${name}`, import.meta.url);
const stored: { sets: { name: string; cases: number; casesSha256: string }[] } = JSON.parse(
  readFileSync(at('results.json'), 'utf8'),
);
const answers = gunzipSync(readFileSync(at('results.bin.gz')));
const cases = new Map(SETS.map((set) => [set.name, makeCases(set)]));

function answersOf(set: WalkSet): Uint8Array {
  let start = 0;
  for (const other of SETS) {
    if (other === set) break;
    start += RESULT_BYTES * other.count;
  }
  return answers.subarray(start, start + RESULT_BYTES * set.count);
}

const all: ReadonlySet<QemuRule> = new Set(QEMU_DIFFERENCES.map((rule) => rule.name));

describe.each(SETS)('QEMU and the oracle, set $name', (set) => {
  const tests = cases.get(set.name) ?? [];
  const bytes = answersOf(set);

  it('were asked the same cases', () => {
    const entry = stored.sets.find((other) => other.name === set.name);
    const sha = createHash('sha256').update(encodeCases(set, tests)).digest('hex');
    expect(entry).toEqual({ name: set.name, cases: set.count, casesSha256: sha });
  });

  it('has cases of every kind, and lets a good part of them through', () => {
    const kinds = new Set(tests.map((test) => `${test.access} ${test.cpl3 ? 'user' : 'supervisor'}`));
    expect(kinds.size).toBe(8);
    const passed = tests.filter((test) => !decodeResult(bytes, test.number).fault).length;
    expect(passed / tests.length).toBeGreaterThan(0.3);
    expect(passed / tests.length).toBeLessThan(0.7);
  });

  it('left CR2 right and changed no bits but A and D', () => {
    const unsound = tests.filter((test) => {
      const { fault, cr2, hit, intact, odd } = decodeResult(bytes, test.number);
      return cr2 !== fault || hit === fault || !intact || odd;
    });
    expect(unsound).toEqual([]);
  });

  it('agree bit for bit, but for the named differences', { timeout: 60_000 }, () => {
    const qemu = (test: WalkCase): Outcome => outcomeOf(decodeResult(bytes, test.number));
    expect(firstDifference(tests, (test) => predict(test, all), qemu)).toBeUndefined();
    expect(countRules(tests, predict, qemu)).toEqual(expectedCounts(set.name));
  });
});

const MODES = { long: PAGING_4LEVEL, la57: PAGING_5LEVEL, pae: PAGING_PAE, '32': PAGING_32 } as const;
/** Differences that CPU_TCG doesn't model. */
const KEPT: ReadonlySet<QemuRule> = new Set(['implicit-access-with-ac', 'malformed-giant-leaf-accessed']);
const ACCESS = { r: ACCESS_READ, w: ACCESS_WRITE, x: ACCESS_FETCH, i: ACCESS_IMPLICIT } as const;

function walkBare(test: WalkCase, model: CpuModel): Outcome {
  const memory = new WordMemory(memoryOf(test));
  const walker = new BareWalker(memory, model);
  walker.cr3Lo = loOf(test.cr3);
  walker.cr3Hi = hiOf(test.cr3);
  walker.pkru = test.pkru;
  const flags = test.ac ? RFLAGS_AC : 0;
  walker.setMode(MODES[test.set], controlBits(loOf(test.cr0), loOf(test.cr4), loOf(test.efer), flags));
  const user = test.cpl3 && test.access !== 'i' ? ACCESS_USER : 0;
  const result = walker.walk(loOf(test.va), hiOf(test.va), ACCESS[test.access] | user);
  const pa = BigInt(walker.pfn) * 4096n + (test.va & 0xfffn);
  return {
    error: result === WALK_OK ? 'ok' : result,
    hit: result === WALK_OK && pa === test.target,
    flags: flagsIn(test, new Map(test.entryAt.map((pa) => [pa, memory.word(pa)]))),
  };
}

describe.each(SETS)('the walker of hw, set $name', (set) => {
  const tests = cases.get(set.name) ?? [];

  it('as an AMD CPU, does what the manual says', { timeout: 60_000 }, () => {
    const hw = (test: WalkCase): Outcome => walkBare(test, CPU_AMD);
    expect(firstDifference(tests, hw, (test) => predict(test))).toBeUndefined();
  });

  it('as QEMU has it, answers as QEMU did, but for two differences in which it keeps to the manual', {
    timeout: 60_000,
  }, () => {
    const rules = new Set([...all].filter((rule) => !KEPT.has(rule)));
    const hw = (test: WalkCase): Outcome => walkBare(test, CPU_TCG);
    expect(firstDifference(tests, hw, (test) => predict(test, rules))).toBeUndefined();
  });
});
