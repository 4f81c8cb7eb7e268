/**
 * The cases of the walker check: page-table paths with random flags, control bits and one access each, made from a
 * seed. The guest of this directory performs them under QEMU; the tests feed the same ones to our own walkers.
 *
 * A case fixes one entry per level. The tables lie at fixed places (`tableOf`); an entry stands in its table at the
 * index that the address gives. Flags are biased so that about half of the accesses get through. A leaf always points
 * at RAM of the guest that holds eight bytes with four meanings, `B0 id CD 80 00 F3 00 00`: as code `mov $id,%al; int
 * $0x80`, as data a number, as a descriptor a data segment with limit `id B0`, which LSL reads: an implicit access.
 */

export const MAXPHYADDR = 40;

/**
 * Physical address of the test table of each level; index 0 is unused. The root is the one of the highest level; the
 * four entries of PAE's root lie anywhere in its page.
 */
export const tableOf = [0n, 0x300000n, 0x301000n, 0x302000n, 0x303000n, 0x304000n];

/** One run of the guest for each. */
export const SETS = [
  { name: 'long', mode: 'long', levels: 4, entryBytes: 8, count: 16384, seed: 0x10a6 },
  { name: 'la57', mode: 'long', levels: 5, entryBytes: 8, count: 4096, seed: 0x57a1 },
  { name: 'pae', mode: 'pae', levels: 3, entryBytes: 8, count: 16384, seed: 0x9ae1 },
  { name: '32', mode: '32', levels: 2, entryBytes: 4, count: 16384, seed: 0x32b5 },
];

export const CR0_WP = 1n << 16n;
export const CR4_PSE = 1n << 4n;
export const CR4_PAE = 1n << 5n;
export const CR4_LA57 = 1n << 12n;
export const CR4_SMEP = 1n << 20n;
export const CR4_SMAP = 1n << 21n;
export const CR4_PKE = 1n << 22n;
export const EFER_LME = 1n << 8n;
export const EFER_LMA = 1n << 10n;
export const EFER_NXE = 1n << 11n;
export const CR0_PE = 1n;
export const CR0_ET = 1n << 4n;
export const CR0_PG = 1n << 31n;

export const P = 1n << 0n;
export const W = 1n << 1n;
export const U = 1n << 2n;
export const A = 1n << 5n;
export const D = 1n << 6n;
export const PS = 1n << 7n;
export const NX = 1n << 63n;

/** 4 MiB regions of guest RAM that leaves point into: between 128 MiB and 1 GiB, and above 4 GiB. */
export const REGIONS = [0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n].map((k) => 0x08000000n + k * 0x05400000n);
export const HIGH_REGIONS = [0n, 1n, 2n, 3n].map((k) => 0x108000000n + k * 0x05400000n);
/** Level-2 indices under which a 1 GiB page at 0 or 4 GiB shows RAM that nothing else uses. */
export const GIGA_INDICES = [64n, 100n, 255n, 300n, 487n];

/** mulberry32. */
export function generator(seed) {
  let state = seed >>> 0;
  const next = () => {
    const a = (state = (state + 0x6d2b79f5) >>> 0);
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  const int = (n) => Math.floor((next() / 4294967296) * n);
  return {
    next,
    int,
    chance: (p) => next() < p * 4294967296,
    pick: (list) => list[int(list.length)],
    /** A random selection of the bits in `mask`. */
    bits: (mask) => ((BigInt(next()) << 32n) | BigInt(next())) & mask,
    /** One of the bits `high` to `low`. */
    oneOf: (high, low) => 1n << BigInt(low + int(high - low + 1)),
  };
}

/** Flags that every entry has, whatever its level. */
function plainFlags(rng) {
  let entry = rng.bits(0xe18n | A | D); // PWT, PCD, available to software
  if (rng.chance(0.96)) entry |= P;
  if (rng.chance(0.75)) entry |= W;
  if (rng.chance(0.75)) entry |= U;
  return entry;
}

const indexShift = (set, level) => (set.mode === '32' ? 2 + 10 * level : 3 + 9 * level);

function longPath(set, rng) {
  const entries = [0n, 0n, 0n, 0n, 0n, 0n];
  const leafLevel = rng.chance(0.12) ? 3 : rng.chance(0.25) ? 2 : 1;
  const index = [0n, BigInt(rng.int(512)), BigInt(rng.int(512)), BigInt(rng.int(512)), BigInt(rng.int(512)), 0n];
  if (set.levels === 5) index[5] = BigInt(1 + rng.int(511));
  else index[4] = BigInt(1 + rng.int(511)); // index 0 of the root is the guest's own
  if (leafLevel === 3) index[2] = rng.pick(GIGA_INDICES);

  let frame = 0n;
  for (let level = set.levels; level >= leafLevel; level--) {
    let entry = plainFlags(rng) | rng.bits(0x7ffn << 52n);
    if (rng.chance(0.08)) entry |= NX;
    if (level > leafLevel) {
      entry |= tableOf[level - 1];
      if (level <= 3) entry |= rng.bits(1n << 8n);
      if (level >= 4 && rng.chance(0.02)) entry |= 1n << 8n; // reserved by AMD only
      if (level >= 4 && rng.chance(0.015)) entry |= PS;
    } else {
      frame = leafFrame(rng, level);
      entry |= frame | rng.bits(1n << 8n); // G
      entry |= level === 1 ? rng.bits(PS) : PS | rng.bits(1n << 12n); // PAT
      if (level > 1 && rng.chance(0.05)) entry |= rng.oneOf(level === 2 ? 20 : 29, 13);
    }
    if (rng.chance(0.02)) entry |= rng.oneOf(51, MAXPHYADDR);
    entries[level] = entry;
  }
  return { entries, index, leafLevel, frame };
}

function leafFrame(rng, level) {
  if (level === 3) return rng.pick([0n, 0x100000000n]);
  const region = rng.pick(rng.chance(0.7) ? REGIONS : HIGH_REGIONS);
  if (level === 2) return region + rng.pick([0n, 0x200000n]);
  return region + BigInt(rng.int(1024)) * 0x1000n;
}

function paePath(set, rng) {
  const entries = [0n, 0n, 0n, 0n, 0n, 0n];
  const leafLevel = rng.chance(0.35) ? 2 : 1;
  const index = [0n, BigInt(rng.int(512)), BigInt(rng.int(512)), BigInt(1 + rng.int(3)), 0n, 0n];

  let pdpte = tableOf[2] | rng.bits(0xe18n);
  if (rng.chance(0.96)) pdpte |= P;
  if (rng.chance(0.03)) pdpte |= rng.pick([W, U, A, D, PS, 1n << 8n]);
  if (rng.chance(0.03)) pdpte |= rng.oneOf(63, MAXPHYADDR);
  entries[3] = pdpte;

  let frame = 0n;
  for (let level = 2; level >= leafLevel; level--) {
    let entry = plainFlags(rng) | rng.bits(1n << 8n);
    if (rng.chance(0.1)) entry |= NX;
    if (level > leafLevel) {
      entry |= tableOf[level - 1];
    } else {
      frame = leafFrame(rng, level);
      entry |= frame | (level === 1 ? rng.bits(PS) : PS | rng.bits(1n << 12n));
      if (level > 1 && rng.chance(0.05)) entry |= rng.oneOf(20, 13);
    }
    if (rng.chance(0.04)) entry |= rng.oneOf(62, MAXPHYADDR);
    entries[level] = entry;
  }
  return { entries, index, leafLevel, frame };
}

function path32(set, rng, pse) {
  const entries = [0n, 0n, 0n, 0n, 0n, 0n];
  const ps = rng.chance(0.4);
  const leafLevel = ps && pse ? 2 : 1;
  const index = [0n, BigInt(rng.int(1024)), BigInt(2 + rng.int(1022)), 0n, 0n, 0n];
  let frame = 0n;

  let pde = plainFlags(rng) | rng.bits(1n << 8n) | (ps ? PS : 0n);
  if (leafLevel === 2) {
    frame = rng.pick(rng.chance(0.7) ? REGIONS : HIGH_REGIONS);
    pde |= (frame & 0xffc00000n) | ((frame >> 32n) << 13n) | rng.bits(1n << 12n);
    if (rng.chance(0.08)) pde |= 1n << 21n;
  } else {
    pde |= tableOf[1];
    frame = rng.pick(REGIONS) + BigInt(rng.int(1024)) * 0x1000n;
    entries[1] = plainFlags(rng) | frame | rng.bits(0x180n);
  }
  entries[2] = pde;
  return { entries, index, leafLevel, frame };
}

/** A case of the set. */
function makeCase(set, rng, number) {
  const pse = rng.chance(0.7);
  const path =
    set.mode === 'long' ? longPath(set, rng) : set.mode === 'pae' ? paePath(set, rng) : path32(set, rng, pse);

  let va = BigInt(rng.int(512)) * 8n;
  for (let level = 1; level <= set.levels; level++) va |= path.index[level] << BigInt(indexShift(set, level));
  if (set.mode === 'long') va = BigInt.asUintN(64, BigInt.asIntN(12 + 9 * set.levels, va));
  const sizeShift = set.mode === '32' && path.leafLevel === 2 ? 22 : 3 + 9 * path.leafLevel;
  const target = path.frame + (va & ((1n << BigInt(sizeShift)) - 1n));

  const root = tableOf[set.levels] + (set.mode === 'pae' ? 32n * BigInt(rng.int(128)) : 0n);
  const entryAt = path.index.map((index, level) => {
    return (level === set.levels ? root : tableOf[level]) + index * BigInt(set.entryBytes);
  });

  const cr4Always = (set.mode === '32' ? 0n : CR4_PAE) | (set.levels === 5 ? CR4_LA57 : 0n);
  const pick = (p, bit) => (rng.chance(p) ? bit : 0n);
  return {
    number,
    set: set.name,
    mode: set.mode,
    levels: set.levels,
    entryBytes: set.entryBytes,
    entries: path.entries,
    entryAt,
    leafLevel: path.leafLevel,
    va,
    target,
    access: rng.pick(['r', 'r', 'w', 'w', 'x', 'x', 'i']),
    cpl3: rng.chance(0.5),
    ac: rng.chance(0.5),
    cr0: CR0_PE | CR0_ET | CR0_PG | pick(0.5, CR0_WP),
    cr3: root | rng.bits(0x18n), // PWT, PCD
    cr4: cr4Always | (pse ? CR4_PSE : 0n) | pick(0.4, CR4_SMEP) | pick(0.4, CR4_SMAP) | pick(0.6, CR4_PKE),
    efer: pick(0.8, EFER_NXE) | (set.mode === 'long' ? EFER_LME | EFER_LMA : 0n),
    // Each bit of PKRU is set with probability 1/4.
    pkru: (rng.next() & rng.next()) >>> 0,
    id: rng.int(255) + 1,
  };
}

/** All cases of one set. */
export function makeCases(set) {
  const rng = generator(set.seed);
  return Array.from({ length: set.count }, (_, number) => makeCase(set, rng, number));
}

export const HEADER_BYTES = 16;
export const CASE_BYTES = 96;
export const MAGIC = 0x4b4c4157; // "WALK"

/** The table as the guest reads it (struct header and struct test_case in guest/main.c). */
export function encodeCases(set, cases) {
  const bytes = new Uint8Array(HEADER_BYTES + CASE_BYTES * cases.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, cases.length, true);
  view.setUint32(8, set.levels, true);
  view.setUint32(12, set.entryBytes, true);
  cases.forEach((test, i) => {
    const at = HEADER_BYTES + CASE_BYTES * i;
    for (let level = 1; level <= 5; level++) view.setBigUint64(at + 8 * (level - 1), test.entries[level], true);
    view.setBigUint64(at + 40, test.va, true);
    view.setBigUint64(at + 48, test.target, true);
    view.setUint32(at + 56, Number(test.cr0), true);
    view.setUint32(at + 60, Number(test.cr4), true);
    view.setUint32(at + 64, Number(test.efer), true);
    view.setUint32(at + 68, test.pkru, true);
    view.setUint32(at + 72, 'rwxi'.indexOf(test.access), true);
    view.setUint32(at + 76, test.cpl3 ? 1 : 0, true);
    view.setUint32(at + 80, test.ac ? 1 : 0, true);
    view.setUint32(at + 84, test.id, true);
    view.setUint32(at + 88, Number(test.cr3), true);
  });
  return bytes;
}

/** Bytes of one answer. */
export const RESULT_BYTES = 3;

/**
 * One answer of the guest, 24 bits little endian:
 * 0 fault, 1..6 the low six bits of the error code, 7 CR2 was the address, 8..17 A and D of levels 1 to 5 (A first),
 * 18 the access reached the target, 19 the entries are unchanged but for A and D, 20 other error-code bits were set.
 */
export function decodeResult(bytes, number) {
  const at = RESULT_BYTES * number;
  const word = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16);
  return {
    fault: (word & 1) !== 0,
    error: (word >> 1) & 0x3f,
    cr2: ((word >> 7) & 1) !== 0,
    flags: [0, 1, 2, 3, 4, 5].map((level) => (level === 0 ? 0 : (word >> (6 + 2 * level)) & 3)),
    hit: ((word >> 18) & 1) !== 0,
    intact: ((word >> 19) & 1) !== 0,
    odd: ((word >> 20) & 1) !== 0,
  };
}
