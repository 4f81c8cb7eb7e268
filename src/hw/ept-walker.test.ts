/**
 * The walks of EPT against the oracle's model of Intel's manual: every value of an entry at each level, under every access and
 * setting; then both dimensions, one entry at a time and by lot.
 */
import { describe, expect, it } from 'vitest';
import { VMX_EXIT_EPT_MISCONFIG, VMX_EXIT_EPT_VIOLATION, VMX_EXIT_PML_FULL } from '../arch/ept.ts';
import { PAGING_32, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_NONE, PAGING_PAE, tableIndex } from '../arch/paging-mode.ts';
import { hex64, toBigInt } from '../base/u64.ts';
import { Prng } from '../base/prng.ts';
import { TABLE_PFN_BASE, TableArena } from '../mem/table-arena.ts';
import { type EptPml, translateEpt, translateNestedEpt } from '../oracle/translate-ept.ts';
import { CPU_INTEL, hostView } from './cpu-model.ts';
import { EptNestedWalker } from './ept-nested-walker.ts';
import { EPT_MISCONFIG, EPT_PML_FULL, type EptMode, EptWalker } from './ept-walker.ts';
import { PML_ENTRIES, PmlBuffer } from './pml-buffer.ts';
import {
  ATTR_D,
  ATTR_HOST_D,
  ATTR_HOST_NR,
  ATTR_HOST_NX,
  ATTR_HOST_W,
  ATTR_NX,
  ATTR_U,
  ATTR_W,
  WALK_NESTED,
  WALK_OK,
} from './rights.ts';
import { ACCESSES, type Access, controlsOf } from './testing/against-oracle.ts';
import { FlatMemory } from './testing/tables.ts';

const R = 1;
const W = 2;
const X = 4;
const IPAT = 1 << 6;
const PS = 1 << 7;
const A = 1 << 8;
const D = 1 << 9;
const OPEN = R | W | X;
const WB = 6 << 3;

/** Gpa with another index at each level. */
const GPA_LO = 0x00403123;
const FINAL = 0x30;
/** Gfn g lies in frame g + this, so that a large page can map the same. */
const HOST = 0x200;
const MODES: readonly EptMode[] = [
  { ad: true, executeOnly: true },
  { ad: true, executeOnly: false },
  { ad: false, executeOnly: true },
];

const flags = (...list: boolean[]): string => list.map((flag) => (flag ? '1' : '0')).join('');

type Words = readonly [words: Int32Array, at: number];

/** Tables of EPT for some frames, a guest's tables, and both parties over them. */
class Bench {
  readonly arena = new TableArena(32);
  readonly memory = new FlatMemory(1024);
  readonly pml = new PmlBuffer();
  readonly ept: EptWalker;
  readonly nested: EptNestedWalker;
  readonly mode: EptMode;
  readonly gbPages: boolean;
  root = 0;
  levels: 4 | 5 = 4;
  /** Entries that walks may change. */
  readonly watched: Words[] = [];
  private readonly oraclePml: EptPml = { index: 0, log: new Map() };
  readonly outcomes = new Map<string, number>();

  constructor(mode: EptMode, gbPages = true) {
    this.mode = mode;
    this.gbPages = gbPages;
    const model = { ...CPU_INTEL, pdptes: 'memory' as const, gigabytePages: gbPages };
    this.ept = new EptWalker(this.arena, hostView(model), mode, this.pml);
    this.nested = new EptNestedWalker(this.memory, model, this.ept);
    this.root = this.arena.alloc();
  }

  /** The entry of `level` for a gpa, its tables made as they are needed. */
  entry(level: number, lo: number): Words {
    const { words } = this.arena;
    let table = this.root;
    for (let l: number = this.levels; l > level; l--) {
      const at = 2 * ((table << 9) | tableIndex(l, lo, 0));
      if (words[at] === 0) {
        const child = this.arena.alloc();
        this.arena.words[at] = (child << 12) | OPEN;
        this.arena.words[at + 1] = TABLE_PFN_BASE >>> 20;
      }
      table = this.arena.words[at] >>> 12;
    }
    return [this.arena.words, 2 * ((table << 9) | tableIndex(level, lo, 0))];
  }

  map(gfn: number): Words {
    const at = this.entry(1, gfn << 12);
    at[0][at[1]] = ((gfn + HOST) << 12) | OPEN | WB;
    return at;
  }

  private locate(pa: bigint): Words {
    const pfn = Number(pa >> 12n);
    const word = Number(pa & 0xfffn) >> 2;
    if (pfn >= TABLE_PFN_BASE) return [this.arena.words, ((pfn - TABLE_PFN_BASE) << 10) | word];
    return [this.memory.words, (pfn << 10) | word];
  }

  private readonly oracleMemory = {
    read: (pa: bigint, bytes: 4 | 8 = 8): bigint => {
      const [words, at] = this.locate(pa);
      return bytes === 4 ? BigInt(words[at] >>> 0) : toBigInt(words[at], words[at + 1]);
    },
    write: (pa: bigint, bytes: 4 | 8 | bigint, value?: bigint): void => {
      const [words, at] = this.locate(pa);
      const word = value ?? BigInt(bytes);
      words[at] = Number(BigInt.asIntN(32, word));
      if (bytes !== 4) words[at + 1] = Number(BigInt.asIntN(32, word >> 32n));
    },
  };

  private eptInput(): Parameters<typeof translateEpt>[0] {
    return {
      rootPa: BigInt(TABLE_PFN_BASE + this.root) << 12n,
      levels: this.levels,
      ...this.mode,
      gbPages: this.gbPages,
      maxphyaddr: 48,
      pml: this.pml.enabled ? this.oraclePml : undefined,
      ...this.oracleMemory,
    };
  }

  /** Runs one party, then the other, from the same state, and compares what each did to it. */
  private both(oracle: () => string, ours: () => string, title: () => string): void {
    const { watched, pml, oraclePml } = this;
    const index = pml.index;
    oraclePml.index = index;
    oraclePml.log.clear();
    const before = watched.map(([words, at]) => words[at]);
    const want = oracle();
    const after = watched.map(([words, at]) => words[at]);
    watched.forEach(([words, at], i) => void (words[at] = before[i]));
    const got = ours();
    const now = watched.map(([words, at]) => words[at]);
    watched.forEach(([words, at], i) => void (words[at] = before[i]));
    const logged = [...oraclePml.log].map(([at, gpa]) => gpa === toBigInt(pml.words[2 * at], pml.words[2 * at + 1]));
    const same =
      want === got &&
      after.every((word, i) => word === now[i]) &&
      oraclePml.index === pml.index &&
      !logged.includes(false);
    if (!same) {
      const entries = after.map((word, i) => `${hex64(before[i], 0)} want ${hex64(word, 0)} got ${hex64(now[i], 0)}`);
      throw new Error(
        `${title()}\n  want ${want} log ${oraclePml.index}\n  got ${got} log ${pml.index}\n${entries.join('\n')}`,
      );
    }
    pml.index = index;
    const kind = want.split(' ')[0];
    this.outcomes.set(kind, (this.outcomes.get(kind) ?? 0) + 1);
  }

  /** Guest-physical; `access`: bits 0 to 2. */
  compareEpt(lo: number, hi: number, access: number): void {
    const oracle = (): string => {
      const kinds = { read: (access & 1) !== 0, write: (access & 2) !== 0, fetch: (access & 4) !== 0 };
      const result = translateEpt(this.eptInput(), toBigInt(lo, hi), kinds);
      if (result.kind === 'violation') return `violation ${result.qualification}`;
      if (result.kind !== 'ok') return result.kind;
      return `ok ${result.pa >> 12n} ${result.level} ${flags(result.r, result.w, result.x, result.dirty)}`;
    };
    const ours = (): string => {
      const { ept } = this;
      const result = ept.walk(this.root, this.levels, lo, hi, access);
      if (result === EPT_MISCONFIG) return 'misconfiguration';
      if (result === EPT_PML_FULL) return 'log full';
      if (result !== WALK_OK) return `violation ${result}`;
      const has = (bits: number): boolean => (ept.attr & bits) !== 0;
      return `ok ${ept.pfn} ${ept.level} ${flags(has(ATTR_U), has(ATTR_W), !has(ATTR_NX), has(ATTR_D))}`;
    };
    this.both(oracle, ours, () => `${hex64(lo, hi)}, access ${access}, ${JSON.stringify(this.mode)}`);
  }

  compareNested(paging: number, names: readonly string[], lo: number, access: Access, cr3: number): void {
    const controls = controlsOf(paging, names);
    const { nested } = this;
    const oracle = (): string => {
      const result = translateNestedEpt(
        {
          mode: paging === PAGING_NONE ? 'none' : paging === PAGING_32 ? '32' : paging === PAGING_PAE ? 'pae' : 'long',
          ...controls,
          cr3: BigInt(cr3),
          cpl3: access.cpl3,
          implicit: access.implicit,
          access: access.access,
          va: BigInt(lo),
          maxphyaddr: 40,
          vendor: 'intel',
          gbPages: this.gbPages,
        },
        this.eptInput(),
        this.oracleMemory,
      );
      if (result.kind === 'guest-fault') return `fault ${result.error}`;
      if (result.kind === 'violation') return `violation ${result.gpa} ${result.qualification}`;
      if (result.kind !== 'ok') return `${result.kind} ${result.gpa}`;
      const { guest, ept } = result;
      const rights = flags(guest.writable, guest.user, guest.executable, ept.r, ept.w, ept.x, ept.dirty);
      return `ok ${result.pa >> 12n} ${rights}`;
    };
    const ours = (): string => {
      nested.nptRoot = this.root;
      nested.nptLevel = this.levels;
      nested.cr3Lo = cr3;
      nested.setMode(paging, controls.bits);
      const result = nested.walk(lo, 0, access.bits);
      if (result === WALK_NESTED) {
        const gpa = toBigInt(nested.nestedGpaLo, nested.nestedGpaHi);
        if (nested.exitReason === VMX_EXIT_EPT_MISCONFIG) return `misconfiguration ${gpa}`;
        if (nested.exitReason === VMX_EXIT_PML_FULL) return `log full ${gpa}`;
        expect(nested.exitReason).toBe(VMX_EXIT_EPT_VIOLATION);
        return `violation ${gpa} ${nested.nestedErrorLo}`;
      }
      if (result !== WALK_OK) return `fault ${result}`;
      const has = (bits: number): boolean => (nested.attr & bits) !== 0;
      const host = flags(!has(ATTR_HOST_NR), has(ATTR_HOST_W), !has(ATTR_HOST_NX), has(ATTR_HOST_D));
      return `ok ${nested.pfn} ${flags(has(ATTR_W), has(ATTR_U), !has(ATTR_NX))}${host}`;
    };
    this.both(
      oracle,
      ours,
      () => `${paging} paging, ${access.name}, ${JSON.stringify(this.mode)}, [${names.join(' ')}]`,
    );
  }
}

/** A bit of the frame that the host has. */
const FRAME_BIT = 1 << 15;
/** What may stand beside rights, type and flags: nothing, address bits, reserved and ignored ones. */
const EXTRAS: readonly (readonly [number, number])[] = [
  [0, 0],
  [1 << 12, 0],
  [1 << 20, 0],
  [1 << 21, 0],
  [1 << 29, 0],
  [3 << 10, 0],
  [0, FRAME_BIT],
  [0, 1 << 16],
  [0, 1 << 19],
  [0, 0xfff << 20],
];
const ALL_ACCESSES = [1, 2, 4, 3];

describe.each(MODES)('a walk of EPT, %o', (mode) => {
  it.each(mode.ad && mode.executeOnly ? [1, 2, 3, 4, 5] : [1, 2, 3])(
    'does as the manual says for every entry of level %i',
    (level) => {
      const bench = new Bench(mode, mode.executeOnly);
      bench.levels = level === 5 ? 5 : 4;
      const [words, at] = bench.entry(level, GPA_LO);
      if (level > 1) bench.entry(1, GPA_LO);
      const leaf = bench.entry(1, GPA_LO);
      if (level > 1) leaf[0][leaf[1]] = (FINAL << 12) | OPEN | WB;
      for (let l: number = bench.levels; l >= 1; l--) bench.watched.push(bench.entry(l, GPA_LO));
      const [child, childHi] = level > 1 ? [words[at] & ~0xfff, words[at + 1]] : [FINAL << 12, 0];
      for (let rwx = 0; rwx < 8; rwx++)
        for (let mt = 0; mt < 8; mt++)
          for (let flags = 0; flags < 16; flags++) {
            const low = rwx | (mt << 3) | (flags & 1 ? IPAT : 0) | (flags & 2 ? PS : 0) | (flags & 4 ? A : 0);
            for (const [lo, hi] of EXTRAS) {
              const isLarge = level > 1 && level < 4 && (low & PS) !== 0;
              if ((lo | hi) !== 0 && mt !== 0 && mt !== 6) continue;
              // A table's frame stays: there is but one.
              if (level > 1 && !isLarge && (lo >>> 12 !== 0 || hi === FRAME_BIT)) continue;
              words[at] = low | (flags & 8 ? D : 0) | lo | (isLarge ? 0 : child);
              words[at + 1] = hi | (isLarge ? 0 : childHi);
              for (const access of ALL_ACCESSES) bench.compareEpt(GPA_LO, 0, access);
            }
          }
      const { outcomes } = bench;
      for (const kind of ['ok', 'violation', 'misconfiguration']) expect(outcomes.get(kind)).toBeGreaterThan(100);
    },
  );
});

describe('page-modification logging', () => {
  const bench = new Bench({ ad: true, executeOnly: true });
  bench.pml.enabled = true;
  const [words, at] = bench.entry(1, GPA_LO);
  for (let level = 4; level >= 1; level--) bench.watched.push(bench.entry(level, GPA_LO));

  it.each([511, 1, 0, 0xffff])('does as the manual says with the index at %i', (index) => {
    for (let rwx = 0; rwx < 8; rwx++)
      for (let flags = 0; flags < 4; flags++) {
        words[at] = (FINAL << 12) | rwx | WB | (flags & 1 ? A : 0) | (flags & 2 ? D : 0);
        bench.pml.index = index;
        for (const access of ALL_ACCESSES) bench.compareEpt(GPA_LO, 0, access);
      }
    expect(bench.outcomes.get('ok')).toBeGreaterThan(10);
  });

  it('fills from the end, says when it is full, and is drained from the latest on', () => {
    const pml = new PmlBuffer();
    const drained: number[] = [];
    for (let i = 0; i < PML_ENTRIES; i++) {
      expect(pml.isFull).toBe(false);
      pml.push((i << 12) | 0xabc, 7);
    }
    expect([pml.isFull, pml.index]).toEqual([true, 0xffff]);
    pml.drain((lo, hi) => void drained.push(lo >>> 12, lo & 0xfff, hi));
    expect(drained.length).toBe(3 * PML_ENTRIES);
    expect(drained.slice(0, 6)).toEqual([511, 0, 7, 510, 0, 7]);
    expect([pml.isFull, pml.index]).toEqual([false, 511]);
    pml.drain(() => expect.unreachable());
  });
});

/** A guest whose tables lie in gfn 1, 2, ..; its leaf leads to FINAL. */
function guestOf(bench: Bench, paging: number): { lo: number; slots: Words[]; frames: number[]; ept: Words[] } {
  const slots: Words[] = [];
  const frames: number[] = [];
  for (let level = paging, gfn = 1; level >= 1; level--, gfn++) {
    const index =
      paging === PAGING_32 ? (level === 2 ? GPA_LO >>> 22 : (GPA_LO >>> 12) & 1023) : tableIndex(level, GPA_LO, 0);
    slots.push([bench.memory.words, ((gfn + HOST) << 10) | (paging === PAGING_32 ? index : 2 * index)]);
    frames.push(level > 1 ? gfn + 1 : FINAL);
  }
  const gfns = [...slots.map((_, i) => i + 1), FINAL];
  const ept = gfns.map((gfn) => bench.map(gfn));
  bench.watched.push(...slots, ...ept, ...[4, 3, 2].map((level) => bench.entry(level, 0)));
  return { lo: paging === PAGING_NONE ? FINAL << 12 : GPA_LO, slots, frames, ept };
}

describe.each([
  ['no', PAGING_NONE],
  ['32-bit', PAGING_32],
  ['PAE', PAGING_PAE],
  ['4-level', PAGING_4LEVEL],
  ['5-level', PAGING_5LEVEL],
] as const)('a walk of EPT below a guest with %s paging', (_name, paging) => {
  it.each(MODES)('does as the manual says, %o', (mode) => {
    const bench = new Bench(mode);
    const guest = guestOf(bench, paging);
    const random = new Prng(paging + (mode.ad ? 10 : 20));
    const isPlain = (i: number): boolean => paging === PAGING_PAE && i === 0;
    const put = (i: number, flags: number): void => {
      const [words, at] = guest.slots[i];
      words[at] = (guest.frames[i] << 12) | (isPlain(i) ? flags & 1 : flags);
    };
    const reset = (): void => {
      guest.slots.forEach((_, i) => put(i, 0x7));
      guest.ept.forEach(([words, at]) => void (words[at] = (words[at] & ~0xfff) | OPEN | WB));
    };
    const compareAll = (): void => {
      for (const access of ACCESSES) bench.compareNested(paging, ['WP', 'NX'], guest.lo, access, 0x1000);
    };
    reset();
    // Each nested leaf on its own, over guest entries that do and don't want A and D.
    for (const [words, at] of guest.ept)
      for (let rwx = 0; rwx < 8; rwx++)
        for (const flags of [0, A, A | D]) {
          words[at] = (words[at] & ~0xfff) | rwx | WB | flags;
          for (const leaf of [0x7, 0x67]) {
            if (paging > 0) put(paging - 1, leaf);
            compareAll();
          }
          reset();
        }
    // And all together, by lot; with logging where it can be.
    for (let i = 0; i < 600; i++) {
      bench.pml.enabled = mode.ad && random.chance(0.5);
      bench.pml.index = random.pick([511, 300, 1, 0, 0xffff]);
      guest.slots.forEach((_, s) =>
        put(s, random.chance(0.03) ? 0 : 1 | (random.int(256) & 0x66) | (random.chance(0.8) ? 6 : 0)),
      );
      for (const [words, at] of guest.ept) {
        const rwx = random.chance(0.8) ? OPEN : random.int(8);
        const mt = random.chance(0.05) ? random.int(8) << 3 : WB;
        words[at] = (words[at] & ~0xfff) | rwx | mt | (random.int(4) << 8);
      }
      for (let k = 0; k < 3; k++) {
        const names = random.pick([['WP', 'NX'], [], ['NX', 'SMEP'], ['WP', 'SMAP']]);
        bench.compareNested(paging, names, guest.lo, random.pick(ACCESSES), 0x1000);
      }
    }
    for (const kind of ['ok', 'violation', 'misconfiguration']) expect(bench.outcomes.get(kind)).toBeGreaterThan(50);
    expect(bench.outcomes.get('log') ?? 0).toBeGreaterThanOrEqual(mode.ad ? 10 : 0);
  });
});
