/**
 * The cases of `walker-check/` as the oracle sees them, and the complete list of what QEMU does otherwise.
 *
 * Each difference is a rule that turns the manual's answer into QEMU's. A rule holds for every case it speaks of, in
 * both directions: where it predicts a difference QEMU must show it. There is no tolerance: the manual's answer with
 * all rules applied is QEMU's answer, bit for bit, in every case.
 */
import { hiOf, loOf, toBigInt } from '../../base/u64.ts';
import type { PhysMemory } from '../../mem/phys-memory.ts';
import { tableOf } from '../../../walker-check/cases.mjs';
import type { WalkAnswer, WalkCase } from '../../../walker-check/cases.mjs';
import { NESTED_LOW_TABLE, nestedTableOf } from '../../../walker-check/nested-cases.mjs';
import type { NestedAnswer, NestedCase } from '../../../walker-check/nested-cases.mjs';
import { NPF_GUEST_FINAL, NPF_GUEST_PAGE, PF_PRESENT, PF_RESERVED, translate, translateNested } from '../translate.ts';
import type { TranslateNestedResult } from '../translate.ts';

/** QEMU's maximum under TCG. */
export const MAXPHYADDR = 40;

const P = 1n << 0n;
const A = 1n << 5n;
const PS = 1n << 7n;
const XD = 1n << 63n;
const EFER_NXE = 1n << 11n;

export interface QemuDifference {
  name: string;
  /** What QEMU does, what the manual says and where. */
  reason: string;
  /** Cases in which the rule decides the answer, by set. */
  count: Partial<Record<WalkCase['set'] | 'nested', number>>;
}

/** QEMU 7.2, target/i386/tcg/sysemu/excp_helper.c and seg_helper.c. */
export const QEMU_DIFFERENCES = [
  {
    name: 'reserved-without-present',
    reason:
      'a reserved bit: QEMU reports RSVD without P; RSVD implies P, since reserved bits of an absent entry are not ' +
      'looked at (SDM 4.7, APM 8.4.2)',
    count: { long: 2152, la57: 700, pae: 2061, '32': 353, nested: 1022 },
  },
  {
    name: 'upper-bit-8',
    reason:
      'bit 8 of a PML4E or PML5E, also of nested tables: QEMU ignores it, as Intel does, though the CPU is an AMD ' +
      'one (APM 5.3.3: MBZ)',
    count: { long: 303, la57: 135, nested: 82 },
  },
  {
    name: 'implicit-access-with-ac',
    reason:
      'an implicit supervisor access at CPL < 3 with EFLAGS.AC: QEMU lets AC lift SMAP as for an explicit one (SDM ' +
      '4.6.1: not allowed whatever AC is)',
    count: { long: 51, la57: 7, pae: 128, '32': 140, nested: 23 },
  },
  {
    name: 'giant-leaf-accessed',
    reason:
      'a 1 GiB leaf that refuses the access: QEMU sets its A before it looks at rights, which it does for no other ' +
      'leaf; A is for entries that a translation has used (SDM 4.8, APM 5.4.2)',
    count: { long: 344, la57: 93, nested: 155 },
  },
  {
    name: 'malformed-giant-leaf-accessed',
    reason: 'a 1 GiB leaf with one of bits 29..13, which are reserved: QEMU sets its A before it looks at them, too',
    count: { long: 57, la57: 13, nested: 15 },
  },
  {
    name: 'pdpte-low-reserved',
    reason: 'bits 2..1 and 8..5 of a PDPTE in PAE paging: QEMU ignores them (SDM table 4-8, APM 5.2.3: MBZ)',
    count: { pae: 407 },
  },
  {
    name: 'pdpte-accessed',
    reason: 'PDPTEs of PAE paging: QEMU sets A in them; bit 5 is reserved there and nothing sets it (SDM 4.8)',
    count: { pae: 15193 },
  },
] as const satisfies readonly QemuDifference[];

export type QemuRule = (typeof QEMU_DIFFERENCES)[number]['name'];

/** An outcome in the terms in which the guest reports it. */
export interface Outcome {
  /** Error code, or 'ok'. */
  error: number | 'ok';
  /** The access went to the address the case meant. */
  hit: boolean;
  /** A (bit 0) and D (bit 1) by level, 1 to 5. */
  flags: number[];
}

/** What QEMU did. */
export function outcomeOf(answer: WalkAnswer): Outcome {
  return { error: answer.fault ? answer.error : 'ok', hit: answer.hit, flags: answer.flags };
}

/** Physical memory of a case: its page-table entries. */
export function memoryOf(test: WalkCase): Map<bigint, bigint> {
  const memory = new Map<bigint, bigint>();
  for (let level = 1; level <= test.levels; level++) memory.set(test.entryAt[level], test.entries[level]);
  return memory;
}

/** A and D of the entries of a case, by level. */
export function flagsIn(test: WalkCase, memory: ReadonlyMap<bigint, bigint>): number[] {
  return test.entryAt.map((pa, level) =>
    level === 0 || level > test.levels ? 0 : Number(((memory.get(pa) ?? 0n) >> 5n) & 3n),
  );
}

/** What the oracle says of the case, with some of QEMU's differences applied; with none, what the manual says. */
export function predict(test: WalkCase, rules: ReadonlySet<QemuRule> = new Set()): Outcome {
  const memory = memoryOf(test);
  const implicit = test.access === 'i' && !(rules.has('implicit-access-with-ac') && !test.cpl3 && test.ac);
  const result = translate({
    mode: test.mode,
    cr0: test.cr0,
    cr3: test.cr3,
    cr4: test.cr4,
    efer: test.efer,
    pkru: test.pkru,
    ac: test.ac,
    cpl3: test.cpl3,
    implicit,
    access: test.access === 'i' ? 'r' : test.access,
    va: test.va,
    maxphyaddr: MAXPHYADDR,
    vendor: rules.has('upper-bit-8') ? 'intel' : 'amd',
    read: (pa) => {
      const entry = memory.get(pa) ?? 0n;
      if (test.mode !== 'pae') return entry;
      if (pa === test.entryAt[3] && rules.has('pdpte-low-reserved')) return entry & ~0x1e6n;
      if (pa === test.entryAt[2] && rules.has('pdpte-accessed')) memory.set(test.entryAt[3], test.entries[3] | A);
      return entry;
    },
    write: (pa, _bytes, value) => memory.set(pa, value),
  });
  const giant = test.mode === 'long' && test.leafLevel === 3;
  if (!result.ok && giant && comesToGiantLeaf(test.entries, test.levels, (test.efer & EFER_NXE) !== 0n)) {
    accessGiantLeaf(memory, test.entryAt[3], result.error, rules);
  }
  return {
    error: result.ok ? 'ok' : asReported(result.error, rules),
    hit: result.ok && result.pa === test.target,
    flags: flagsIn(test, memory),
  };
}

/** Rule reserved-without-present. */
function asReported(error: number, rules: ReadonlySet<QemuRule>): number {
  const reserved = (error & PF_RESERVED) !== 0 && rules.has('reserved-without-present');
  return reserved ? error & ~PF_PRESENT : error;
}

/** The walk comes to a 1 GiB leaf that is present and whose bits 63 and 51..40 are in order. */
function comesToGiantLeaf(entries: readonly bigint[], levels: number, nxe: boolean): boolean {
  for (let level = 3; level <= levels; level++) {
    const entry = entries[level];
    if ((entry & P) === 0n || ((entry >> BigInt(MAXPHYADDR)) & 0xfffn) !== 0n) return false;
    if ((entry & XD) !== 0n && !nxe) return false;
    if (level > 3 && (entry & PS) !== 0n) return false;
  }
  return true;
}

/** Rules giant-leaf-accessed and malformed-giant-leaf-accessed, for an access that faulted at the leaf at `pa`. */
function accessGiantLeaf(memory: Map<bigint, bigint>, pa: bigint, error: number, rules: ReadonlySet<QemuRule>): void {
  const rule = error & PF_RESERVED ? 'malformed-giant-leaf-accessed' : 'giant-leaf-accessed';
  if (rules.has(rule)) memory.set(pa, (memory.get(pa) ?? 0n) | A);
}

/** A nested outcome in the terms in which the guest reports it. */
export interface NestedOutcome {
  end: 'ok' | 'guest-fault' | 'nested-fault' | 'other';
  error: bigint;
  /** As in NestedAnswer. */
  where: number;
  hit: boolean;
  flags: number[];
  nestedFlags: number[];
  tableFlags: number[];
}

export function nestedOutcomeOf(answer: NestedAnswer): NestedOutcome {
  const { where, hit, flags, nestedFlags, tableFlags } = answer;
  return {
    end: (['ok', 'guest-fault', 'nested-fault', 'other'] as const)[answer.end],
    error: BigInt(answer.error) | (answer.final ? NPF_GUEST_FINAL : 0n) | (answer.table ? NPF_GUEST_PAGE : 0n),
    where,
    hit,
    flags,
    nestedFlags,
    tableFlags,
  };
}

/** Tables of our own between the nested root and NESTED_LOW_TABLE, below which the guest's tables are. */
const LOW_PDPT = 0x320000n;
const LOW_PD = 0x321000n;

export function nestedMemoryOf(test: NestedCase): Map<bigint, bigint> {
  const all = 7n;
  const memory = new Map<bigint, bigint>([
    [nestedTableOf[4], LOW_PDPT | all],
    [LOW_PDPT, LOW_PD | all],
    [LOW_PD + 8n * (tableOf[1] >> 21n), NESTED_LOW_TABLE | all],
  ]);
  for (let level = 1; level <= 4; level++) {
    memory.set(test.entryAt[level], test.entries[level]);
    memory.set(test.nestedAt[level], test.nested[level]);
    memory.set(test.tableEntryAt[level], test.tableEntries[level]);
  }
  return memory;
}

/** A and D of the case's entries: guest, nested, and nested ones of guest tables, by level. */
export function nestedFlagsIn(
  test: NestedCase,
  memory: ReadonlyMap<bigint, bigint>,
): Pick<NestedOutcome, 'flags' | 'nestedFlags' | 'tableFlags'> {
  const at = (pa: bigint): number => (pa === 0n ? 0 : Number(((memory.get(pa) ?? 0n) >> 5n) & 3n));
  return {
    flags: test.entryAt.map(at),
    nestedFlags: test.nestedAt.map(at),
    tableFlags: test.tableEntryAt.slice(0, 4).map(at),
  };
}

/** `predict` for a nested case. */
export function predictNested(test: NestedCase, rules: ReadonlySet<QemuRule> = new Set()): NestedOutcome {
  const memory = nestedMemoryOf(test);
  // Rule upper-bit-8: the bit is hidden from the walk, in the two level-4 entries that may have it.
  const hidden = (pa: bigint): bigint =>
    rules.has('upper-bit-8') && (pa === test.entryAt[4] || pa === test.nestedAt[4])
      ? (memory.get(pa) ?? 0n) & (1n << 8n)
      : 0n;
  const result = translateNested({
    guest: {
      mode: 'long',
      cr0: test.cr0,
      cr3: test.cr3,
      cr4: test.cr4,
      efer: test.efer,
      pkru: test.pkru,
      ac: test.ac,
      cpl3: test.cpl3,
      implicit: test.access === 'i' && !(rules.has('implicit-access-with-ac') && !test.cpl3 && test.ac),
      access: test.access === 'i' ? 'r' : test.access,
      va: test.va,
      maxphyaddr: MAXPHYADDR,
    },
    npt: {
      rootPa: nestedTableOf[4],
      maxphyaddr: MAXPHYADDR,
      nxe: test.nxe,
      read: (pa) => (memory.get(pa) ?? 0n) & ~hidden(pa),
      write: (pa, _bytes, value) => memory.set(pa, value | hidden(pa)),
    },
  });

  if (result.kind === 'guest-fault' && test.guestLeaf === 3) {
    const comes = comesToGiantLeaf(test.entries, 4, (test.efer & EFER_NXE) !== 0n);
    if (comes) accessGiantLeaf(memory, test.entryAt[3], result.error, rules);
  }
  if (result.kind === 'nested-fault' && result.error & NPF_GUEST_FINAL && test.nestedLeaf === 3) {
    const comes = comesToGiantLeaf(test.nested, 4, test.nxe);
    if (comes) accessGiantLeaf(memory, test.nestedAt[3], Number(result.error & 0x3fn), rules);
  }
  return { ...endOf(test, result, rules), ...nestedFlagsIn(test, memory) };
}

function endOf(
  test: NestedCase,
  result: TranslateNestedResult,
  rules: ReadonlySet<QemuRule>,
): Pick<NestedOutcome, 'end' | 'error' | 'where' | 'hit'> {
  switch (result.kind) {
    case 'ok':
      return { end: 'ok', error: 0n, where: 0, hit: result.pa === test.target };
    case 'guest-fault':
      return { end: result.kind, error: BigInt(asReported(result.error, rules)), where: 6, hit: false };
    case 'nested-fault': {
      const low = asReported(Number(result.error & 0x3fn), rules);
      const error = (result.error & ~0x3fn) | BigInt(low);
      return { end: result.kind, error, where: placeOf(test, result.gpa), hit: false };
    }
  }
}

/** NestedAnswer's `where` for a guest physical address. */
export function placeOf(test: NestedCase, gpa: bigint): number {
  if (gpa === test.gpa) return 5;
  return Math.max(0, test.entryAt.indexOf(gpa, 1));
}

/** A map of 64-bit entries by address, as the walkers of hw want their memory: words of 32 bits. */
export class WordMemory implements PhysMemory {
  private readonly words = new Map<number, number>();
  constructor(entries: ReadonlyMap<bigint, bigint>) {
    for (const [pa, entry] of entries) {
      this.words.set(Number(pa), loOf(entry));
      if (pa % 8n === 0n && !entries.has(pa + 4n)) this.words.set(Number(pa) + 4, hiOf(entry));
    }
  }
  read32(pfn: number, offset: number): number {
    return this.words.get(pfn * 4096 + offset) ?? 0;
  }
  write32(pfn: number, offset: number, value: number): void {
    this.words.set(pfn * 4096 + offset, value | 0);
  }
  read8(): number {
    throw new Error('a walk reads words');
  }
  write8(): void {
    throw new Error('a walk writes words');
  }
  word(pa: bigint): bigint {
    return toBigInt(this.words.get(Number(pa)) ?? 0, this.words.get(Number(pa) + 4) ?? 0);
  }
}

/** One line that is equal for equal outcomes. */
export function keyOf(outcome: Outcome | NestedOutcome): string {
  return Object.entries(outcome)
    .map(([name, value]) => `${name} ${String(value)}`)
    .sort((a, b) => (a < b ? -1 : 1))
    .join('; ');
}

/** The first test whose two outcomes differ. */
export function firstDifference<T extends { number: number }, O extends Outcome | NestedOutcome>(
  tests: readonly T[],
  actual: (test: T) => O,
  expected: (test: T) => O,
): { number: number; actual: O; expected: O } | undefined {
  for (const test of tests) {
    const [got, wanted] = [actual(test), expected(test)];
    if (keyOf(got) !== keyOf(wanted)) return { number: test.number, actual: got, expected: wanted };
  }
  return undefined;
}

/** For each rule, the number of tests that need it: without it alone, the prediction is not QEMU's answer. */
export function countRules<T, O extends Outcome | NestedOutcome>(
  tests: readonly T[],
  predictWith: (test: T, rules: ReadonlySet<QemuRule>) => O,
  qemu: (test: T) => O,
): Partial<Record<QemuRule, number>> {
  const all = QEMU_DIFFERENCES.map((rule) => rule.name);
  const count: Partial<Record<QemuRule, number>> = {};
  for (const test of tests) {
    const answer = keyOf(qemu(test));
    if (keyOf(predictWith(test, new Set())) === answer) continue;
    for (const rule of all) {
      const without = predictWith(test, new Set(all.filter((other) => other !== rule)));
      if (keyOf(without) !== answer) count[rule] = (count[rule] ?? 0) + 1;
    }
  }
  return count;
}

/** The counts of the table, for one set. */
export function expectedCounts(set: WalkCase['set'] | 'nested'): Partial<Record<QemuRule, number>> {
  const list = QEMU_DIFFERENCES.map((rule: QemuDifference): [string, number | undefined] => [
    rule.name,
    rule.count[set],
  ]);
  return Object.fromEntries(list.filter(([, n]) => n !== undefined));
}
