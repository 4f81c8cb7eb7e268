/**
 * Walkers against the oracle's model of the manuals, over all combinations of entry flags, accesses and control bits in
 * the manner of kvm-unit-tests' access.c. One level at a time takes all values while the others stay benign, with a
 * sample of combinations of all levels at the end: the walk treats levels one after the other, so what couples them
 * (combined rights, A above the fault) shows in pairs.
 */
import { describe, expect, it } from 'vitest';
import { PAGING_32, PAGING_4LEVEL, PAGING_5LEVEL, PAGING_NONE, PAGING_PAE, tableIndex } from '../arch/paging-mode.ts';
import {
  PTE_A_LO,
  PTE_D_LO,
  PTE_FRAME_LO,
  PTE_G_LO,
  PTE_NX_HI,
  PTE_P_LO,
  PTE_PK_SHIFT_HI,
  PTE_PS_LO,
  PTE_U_LO,
  PTE_W_LO,
} from '../arch/pte.ts';
import { Prng } from '../base/prng.ts';
import { TABLE_PFN_BASE } from '../mem/table-arena.ts';
import { CPU_AMD, CPU_INTEL, type CpuModel } from './cpu-model.ts';
import { ACCESSES, Bench, type Controls, controlsOf, type Dimension, subsets } from './testing/against-oracle.ts';
import { mapInArena, pathInArena } from './testing/tables.ts';

type Bits = readonly [lo: number, hi: number];

const P: Bits = [PTE_P_LO, 0];
const W: Bits = [PTE_W_LO, 0];
const U: Bits = [PTE_U_LO, 0];
const A: Bits = [PTE_A_LO, 0];
const D: Bits = [PTE_D_LO, 0];
const PS: Bits = [PTE_PS_LO, 0];
const G: Bits = [PTE_G_LO, 0];
const NX: Bits = [0, PTE_NX_HI];
const KEY: Bits = [0, 1 << PTE_PK_SHIFT_HI];
const BIT12: Bits = [1 << 12, 0];
const BIT13: Bits = [1 << 13, 0];
const BIT20: Bits = [1 << 20, 0];
const BIT21: Bits = [1 << 21, 0];
const BIT40: Bits = [0, 1 << 8];
const BIT51: Bits = [0, 1 << 19];
const BIT52: Bits = [0, 1 << 20];
/** What KVM writes into an entry that leads on, and what the other levels hold while one is varied. */
const OPEN: Bits = [PTE_P_LO | PTE_W_LO | PTE_U_LO, 0];

const or = (list: readonly Bits[]): Bits => [list.reduce((x, b) => x | b[0], 0), list.reduce((x, b) => x | b[1], 0)];
/** `base` with every subset of `flags`; and the same without P, where a subset of two flags is enough. */
const variants = (flags: readonly Bits[]): Bits[] => [
  ...subsets(flags).map((list) => or([P, ...list])),
  ...subsets([W, A]).map(or),
  or([PS, NX, BIT51]),
];

// The address, with another index at each of the lower levels, and the frame that small pages lead to.
const LO = 0x00403123;
const FINAL = 0x30;
/** Without paging the address is the guest-physical one. */
const FLAT_LO = (FINAL << 12) | 0x123;
/** Nested: gfn g lies in frame g + 0x200, so that a 2 MiB page can map the same. */
const HOST_OFFSET = 0x200;
const NESTED_GFNS = 0x34;

interface Path {
  readonly bench: Bench;
  /** Slot of the entry at each level. */
  readonly slotOf: Map<number, number>;
  /** What an entry of a level points to, in the words of an entry. */
  readonly frame: Map<number, Bits>;
  readonly mode: number;
  readonly lo: number;
  /** Nested tables: slots of the entries at levels 4, 3, 2, then of each guest frame on the way, and their first words. */
  readonly nested: { slot: number; level: number; lo: number; hi: number }[];
}

const frameWords = (pfn: number): Bits => [(pfn << 12) | 0, pfn >>> 20];

/** Tables for one address in a mode. The guest's lie in frames 1, 2, ..; with a second dimension see HOST_OFFSET. */
function build(dimension: Dimension, mode: number, model: CpuModel, hostNx = true): Path {
  const bench = new Bench(dimension, mode, model, hostNx);
  const slotOf = new Map<number, number>();
  const frame = new Map<number, Bits>();
  const offset = dimension === 'nested' ? HOST_OFFSET : 0;
  if (dimension === 'native') {
    bench.root = bench.arena.alloc();
    for (let level = mode, table = bench.root; level >= 1; level--) {
      const index = mode === PAGING_PAE && level === 3 ? LO >>> 30 : tableIndex(level, LO, 0);
      slotOf.set(level, bench.slot(bench.arena.words, 2 * ((table << 9) | index), 8, mode === 3 && level === 3));
      if (level > 1) table = bench.arena.alloc();
      frame.set(level, frameWords(level > 1 ? TABLE_PFN_BASE + table : FINAL));
    }
  } else {
    bench.root = 0x1000;
    for (let level = mode, gfn = 1; level >= 1; level--, gfn++) {
      const bytes = mode === PAGING_32 ? 4 : 8;
      const index = bytes === 4 ? (level === 2 ? LO >>> 22 : (LO >>> 12) & 0x3ff) : tableIndex(level, LO, 0);
      const at = ((gfn + offset) << 10) | ((index * bytes) >> 2);
      slotOf.set(level, bench.slot(bench.memory.words, at, bytes, mode === 3 && level === 3));
      frame.set(level, frameWords(level > 1 ? gfn + 1 : FINAL));
    }
  }
  const path: Path = { bench, slotOf, frame, mode, lo: mode === PAGING_NONE ? FLAT_LO : LO, nested: [] };
  if (dimension === 'nested') addNested(path);
  bench.ready();
  for (let level = mode; level >= 1; level--) put(path, level, OPEN);
  return path;
}

/** Nested tables that allow all, for gfn 0 to 0x33. Their slots come after the guest's. */
function addNested({ bench, mode, nested }: Path): void {
  const { arena } = bench;
  const root = (bench.nested.nptRoot = arena.alloc());
  const flags = PTE_P_LO | PTE_W_LO | PTE_U_LO;
  for (let gfn = 0; gfn < NESTED_GFNS; gfn++) mapInArena(arena, root, 4, gfn << 12, 0, 1, gfn + HOST_OFFSET, flags);
  const add = (sptep: number, level: number): void => {
    const at = 2 * sptep;
    nested.push({ slot: bench.slot(arena.words, at), level, lo: arena.words[at], hi: arena.words[at + 1] });
  };
  const path = pathInArena(arena, root, 4, 0, 0);
  path.slice(0, 3).forEach((sptep, i) => add(sptep, 4 - i));
  const gfns = [...Array.from({ length: mode }, (_, i) => i + 1), FINAL];
  for (const gfn of gfns) add(path[3] + gfn, 1);
}

/**
 * Writes an entry with the flags `bits`. A large leaf takes all of them and maps what they say, from frame 0. An entry
 * that leads on keeps its frame: of the bits among it only reserved ones are written. PAE's top level has no rights.
 */
function put({ bench, slotOf, frame, mode }: Path, level: number, bits: Bits): void {
  const slot = slotOf.get(level) as number;
  const top = mode === PAGING_PAE && level === 3;
  if (bits[0] & PTE_PS_LO && (level === 2 || (level === 3 && !top))) {
    bench.set(slot, bits[0], bits[1]);
    return;
  }
  const [lo, hi] = frame.get(level) as Bits;
  const flags = top && bits === OPEN ? PTE_P_LO : bits[0];
  bench.set(slot, lo | (flags & ~PTE_FRAME_LO), hi | (bits[1] & ~((1 << (bench.maxphyaddr - 32)) - 1)));
}

/** Flags worth varying in an entry of a level that is not the last. */
function upperFlags(mode: number, level: number): Bits[] {
  if (mode === PAGING_32) return [W, U, A, D, PS, BIT12, BIT13, BIT20, BIT21];
  if (mode === PAGING_PAE && level === 3) return [W, A, PS, G, BIT40, BIT52, NX];
  if (level >= 4) return [W, U, A, PS, G, NX, BIT40, BIT51, BIT52];
  return [W, U, A, D, PS, NX, BIT13, BIT12, BIT51];
}

const leafFlags = (mode: number): Bits[] =>
  mode === PAGING_32
    ? [W, U, A, D, PS, G]
    : mode === PAGING_PAE
      ? [W, U, A, D, NX, BIT51, BIT52]
      : [W, U, A, D, NX, BIT51, KEY];

/** All settings of the control bits that matter in a mode; few: the ones that decide rights one at a time. */
function allControls(mode: number): Controls[] {
  const names = mode === PAGING_32 ? ['WP', 'SMEP', 'SMAP', 'AC', 'PSE'] : ['WP', 'NX', 'SMEP', 'SMAP', 'AC'];
  const sets = subsets(names);
  const keys = mode > PAGING_PAE ? [['PKE'], ['PKE', 'AD'], ['PKE', 'WD']] : [];
  return [...sets, ...keys.flatMap((key) => sets.map((set) => [...set, ...key]))].map((set) => controlsOf(mode, set));
}
const fewControls = (mode: number): Controls[] =>
  [[], ['WP', 'NX', 'PSE'], ['WP', 'NX', 'SMEP', 'SMAP', 'PSE'], ['SMAP', 'NX', 'PKE', 'WD'], ['WP', 'PKE', 'AD']].map(
    (set) => controlsOf(mode, set),
  );

/** Every value of the leaf under every setting of the control bits. */
function varyLeaf(path: Path, controls: readonly Controls[]): void {
  for (const bits of variants(leafFlags(path.mode))) {
    put(path, 1, bits);
    for (const control of controls) for (const access of ACCESSES) path.bench.compare(path.lo, 0, access, control);
  }
  put(path, 1, OPEN);
}

/** Every value of one upper entry, over a leaf with and without rights. */
function varyUpper(path: Path, level: number, controls: readonly Controls[], leaves: readonly Bits[]): void {
  for (const leaf of leaves) {
    put(path, 1, leaf);
    for (const bits of variants(upperFlags(path.mode, level))) {
      put(path, level, bits);
      for (const control of controls) for (const access of ACCESSES) path.bench.compare(path.lo, 0, access, control);
    }
    put(path, level, OPEN);
  }
  put(path, 1, OPEN);
}

/** Combinations of all levels, all accesses and all control bits, drawn by lot. Rare flags are rare. */
function sample(path: Path, count: number, seed: number): void {
  const random = new Prng(seed);
  const controls = allControls(path.mode);
  const pickBits = (flags: readonly Bits[]): Bits => {
    const chosen = flags.filter((f) => random.chance(f === W || f === U || f === A ? 0.7 : 0.15));
    return or(random.chance(0.04) ? chosen : [P, ...chosen]);
  };
  for (let i = 0; i < count; i++) {
    for (let level = path.mode; level > 1; level--) {
      const open = path.mode === PAGING_PAE && level === 3 && random.chance(0.9);
      put(path, level, open ? OPEN : pickBits(upperFlags(path.mode, level)));
    }
    if (path.mode > 0) put(path, 1, pickBits(leafFlags(path.mode)));
    for (let k = 0; k < 4; k++) path.bench.compare(path.lo, 0, random.pick(ACCESSES), random.pick(controls));
  }
  for (let level = path.mode; level >= 1; level--) put(path, level, OPEN);
}

/** Leaves to vary other entries over: all rights; few, with NX; no U, with A and D; none. */
const LEAVES: Bits[] = [OPEN, or([P, U, NX]), or([P, W, A, D]), P];
/** Every value of each nested entry on the way, over guest leaves with and without rights, A and D. */
function varyNested(path: Path, controls: readonly Controls[], leaves: readonly Bits[]): void {
  for (const leaf of leaves) {
    if (path.mode > 0) put(path, 1, leaf);
    for (const { slot, level, lo, hi } of path.nested) {
      const flags = level === 1 ? [W, U, A, D, NX, BIT51] : [W, U, A, PS, NX, BIT51, G, BIT13];
      for (const bits of variants(flags)) {
        if (level <= 3 && level > 1 && bits[0] & PTE_PS_LO) {
          path.bench.set(slot, (level === 2 ? HOST_OFFSET << 12 : 0) | bits[0], bits[1]);
        } else {
          path.bench.set(slot, (lo & PTE_FRAME_LO) | (bits[0] & ~PTE_FRAME_LO), hi | bits[1]);
        }
        for (const control of controls) for (const access of ACCESSES) path.bench.compare(path.lo, 0, access, control);
      }
      path.bench.set(slot, lo, hi);
    }
  }
  if (path.mode > 0) put(path, 1, OPEN);
}

/** Intel's rules for what the sample draws; PAE's top level is read by the walk, as the other party here does it. */
const CPU_OTHER: CpuModel = { ...CPU_INTEL, pdptes: 'memory', maxphyaddr: 36, gigabytePages: false };

const expectAll = (path: Path, least: number): void => {
  const { ok, fault, nested } = path.bench.outcomes;
  expect(path.bench.cases).toBeGreaterThanOrEqual(least);
  expect(ok + fault + nested).toBe(path.bench.cases);
  // A mode's cases would prove little if nearly all ended alike.
  expect(ok).toBeGreaterThan(least / 100);
  expect(fault + nested).toBeGreaterThan(least / 100);
};

describe.each([
  ['native', 'PAE', PAGING_PAE, 30_000, 100_000],
  ['native', '4-level', PAGING_4LEVEL, 130_000, 190_000],
  ['native', '5-level', PAGING_5LEVEL, 5_000, 40_000],
  ['bare', '32-bit', PAGING_32, 17_000, 80_000],
  ['bare', 'PAE', PAGING_PAE, 30_000, 100_000],
  ['bare', '4-level', PAGING_4LEVEL, 130_000, 190_000],
  ['bare', '5-level', PAGING_5LEVEL, 5_000, 40_000],
] as const)('a walk of %s %s tables', (dimension, _name, mode, leafCases, upperCases) => {
  it('does as the manual says for every leaf under all control bits', () => {
    const path = build(dimension, mode, CPU_AMD);
    // Five levels differ from four at the top only.
    varyLeaf(path, mode === PAGING_5LEVEL ? fewControls(mode) : allControls(mode));
    expectAll(path, leafCases);
  });

  it('does so for every entry above', () => {
    const path = build(dimension, mode, CPU_AMD);
    for (let level = mode; level > (mode === PAGING_5LEVEL ? 4 : 1); level--) {
      varyUpper(path, level, fewControls(mode), LEAVES.slice(0, level > 3 ? 2 : 4));
    }
    expectAll(path, upperCases);
  });

  it('does so for combinations of all levels, on a CPU of another make too', () => {
    for (const model of [CPU_AMD, CPU_OTHER]) {
      const path = build(dimension, mode, model);
      sample(path, 5000, mode);
      expectAll(path, 20_000);
    }
  });
});

describe.each([
  ['no', PAGING_NONE],
  ['32-bit', PAGING_32],
  ['PAE', PAGING_PAE],
  ['4-level', PAGING_4LEVEL],
  ['5-level', PAGING_5LEVEL],
] as const)('a nested walk of a guest with %s paging', (_name, mode) => {
  it('does as the manual says over nested tables that allow all', () => {
    const path = build('nested', mode, CPU_AMD);
    const few = fewControls(mode);
    if (mode !== PAGING_NONE) {
      varyLeaf(path, few);
      for (let level = mode; level > 1; level--) varyUpper(path, level, few.slice(1, 2), [OPEN]);
    }
    sample(path, 2000, 100 + mode);
    expect(path.bench.outcomes.ok).toBeGreaterThan(1000);
  });

  it('does so for every nested entry', () => {
    const path = build('nested', mode, CPU_AMD);
    varyNested(path, fewControls(mode).slice(1, 2), LEAVES.slice(0, mode === PAGING_NONE ? 1 : 3));
    expect(path.bench.outcomes.ok).toBeGreaterThan(300);
    expect(path.bench.outcomes.nested).toBeGreaterThan(3000);
  });

  it('does so on a host without NX', () => {
    const path = build('nested', mode, CPU_AMD, false);
    varyNested(path, fewControls(mode).slice(1, 2), [OPEN]);
    expect(path.bench.outcomes.ok).toBeGreaterThan(100);
    expect(path.bench.outcomes.nested).toBeGreaterThan(1000);
  });
});

describe.each(['bare', 'nested'] as const)('a %s walk of a PAE guest whose top level is in registers', (dimension) => {
  it('does as the manual says', () => {
    const path = build(dimension, PAGING_PAE, CPU_INTEL);
    varyLeaf(path, fewControls(PAGING_PAE));
    varyUpper(path, 2, fewControls(PAGING_PAE), LEAVES.slice(0, 2));
    put(path, 3, [PTE_W_LO, 0]);
    varyLeaf(path, fewControls(PAGING_PAE));
    expectAll(path, 20_000);
  });
});
