/**
 * Cases of two-dimensional paging: a guest of the guest (long mode, four levels) makes one access through its own
 * tables and AMD's nested ones, both random. See cases.mjs, whose conventions these follow.
 *
 * The guest's tables have the places of `tableOf`, as guest physical addresses, which the nested tables map to
 * themselves by 4 KiB entries; those of levels 3 to 1 are random (`tableEntries`), that of the root is in order, since
 * the guest's own code needs it. The final guest physical address lies in the second 512 GiB, where the nested tables
 * have nothing but the path of the case (`nested`).
 */
import {
  A,
  CR0_ET,
  CR0_PE,
  CR0_PG,
  CR0_WP,
  CR4_PAE,
  CR4_PKE,
  CR4_SMAP,
  CR4_SMEP,
  D,
  EFER_LMA,
  EFER_LME,
  EFER_NXE,
  GIGA_INDICES,
  HIGH_REGIONS,
  MAXPHYADDR,
  NX,
  P,
  PS,
  REGIONS,
  U,
  W,
  generator,
  tableOf,
} from './cases.mjs';

export const NESTED_SET = { name: 'nested', count: 8192, seed: 0x4e57 };

/** Physical addresses of the nested tables: of levels 4 to 1 on the way to the final address; index 0 is unused. */
export const nestedTableOf = [0n, 0x310000n, 0x311000n, 0x312000n, 0x313000n];
/** The nested page table (level 1) that maps the guest's tables. */
export const NESTED_LOW_TABLE = 0x314000n;

const GIGA = 1n << 30n;
/** Where the final guest physical addresses begin. */
const FINAL_BASE = 1n << 39n;

function flags(rng, present, right) {
  let entry = rng.bits(0xe18n | A | D) | rng.bits(0x7ffn << 52n);
  if (rng.chance(present)) entry |= P;
  if (rng.chance(right)) entry |= W;
  if (rng.chance(right)) entry |= U;
  if (rng.chance(0.06)) entry |= NX;
  if (rng.chance(0.008)) entry |= rng.oneOf(51, MAXPHYADDR);
  return entry;
}

const sizeOf = (level) => 1n << BigInt(3 + 9 * level);
const indexOf = (address, level) => (address >> BigInt(3 + 9 * level)) & 511n;

/** Entries from `top` down to a leaf at `leafLevel` that points to `frame`. */
function path(rng, top, leafLevel, frame, tables, present, right) {
  const entries = [0n, 0n, 0n, 0n, 0n];
  for (let level = top; level >= leafLevel; level--) {
    let entry = flags(rng, present, right);
    if (level > leafLevel) {
      entry |= tables[level - 1];
      if (level === 4 && rng.chance(0.006)) entry |= 1n << 8n;
      if (level === 4 && rng.chance(0.006)) entry |= PS;
    } else {
      entry |= frame | rng.bits(1n << 8n) | (level === 1 ? rng.bits(PS) : PS);
      if (level > 1 && rng.chance(0.03)) entry |= rng.oneOf(level === 2 ? 20 : 29, 13);
    }
    entries[level] = entry;
  }
  return entries;
}

function makeCase(rng, number) {
  const level = () => (rng.chance(0.12) ? 3 : rng.chance(0.3) ? 2 : 1);
  const guestLeaf = level();
  const nestedLeaf = level();

  // The final address first: both paths end at it.
  const upper = [BigInt(rng.int(512)), BigInt(rng.int(512)), BigInt(rng.int(512))];
  if (nestedLeaf === 3) upper[1] = rng.pick(GIGA_INDICES);
  const gpa = FINAL_BASE + upper[0] * GIGA + (upper[1] << 21n) + (upper[2] << 12n) + BigInt(rng.int(512)) * 8n;
  let hostFrame = rng.pick(rng.chance(0.7) ? REGIONS : HIGH_REGIONS);
  if (nestedLeaf === 1) hostFrame += BigInt(rng.int(1024)) * 0x1000n;
  if (nestedLeaf === 3) hostFrame = rng.pick([0n, 4n * GIGA]);

  let va = gpa & (sizeOf(guestLeaf) - 1n);
  for (let level = guestLeaf; level < 4; level++) va |= BigInt(rng.int(512)) << BigInt(3 + 9 * level);
  va |= BigInt(1 + rng.int(511)) << 39n;
  va = BigInt.asUintN(64, BigInt.asIntN(48, va));

  const entries = path(rng, 4, guestLeaf, gpa - (gpa % sizeOf(guestLeaf)), tableOf, 0.985, 0.88);
  const nested = path(rng, 4, nestedLeaf, hostFrame, nestedTableOf, 0.98, 0.93);
  const tableEntries = [0n, 1, 2, 3, 4].map((table) => {
    if (table === 0n) return 0n;
    return table === 4 ? tableOf[4] | P | W | U | A | D : tableOf[table] | flags(rng, 0.97, 0.97);
  });
  const pick = (p, bit) => (rng.chance(p) ? bit : 0n);
  return {
    number,
    entries,
    entryAt: [0n, 1, 2, 3, 4].map((level) => (level === 0n ? 0n : tableOf[level] + 8n * indexOf(va, level))),
    guestLeaf,
    nested,
    nestedAt: [0n, 1, 2, 3, 4].map((level) => (level === 0n ? 0n : nestedTableOf[level] + 8n * indexOf(gpa, level))),
    nestedLeaf,
    tableEntries,
    /** Where the nested entries of the guest's tables stand: the low table's index is the frame's. */
    tableEntryAt: tableOf.slice(0, 5).map((gpa, i) => (i === 0 ? 0n : NESTED_LOW_TABLE + 8n * ((gpa >> 12n) & 511n))),
    va,
    gpa,
    target: hostFrame + (gpa & (sizeOf(nestedLeaf) - 1n)),
    access: rng.pick(['r', 'r', 'w', 'w', 'x', 'x', 'i']),
    cpl3: rng.chance(0.5),
    ac: rng.chance(0.5),
    cr0: CR0_PE | CR0_ET | CR0_PG | pick(0.5, CR0_WP),
    cr3: tableOf[4],
    cr4: CR4_PAE | pick(0.25, CR4_SMEP) | pick(0.25, CR4_SMAP) | pick(0.4, CR4_PKE),
    efer: EFER_LME | EFER_LMA | pick(0.85, EFER_NXE),
    /** EFER.NXE of the host. */
    nxe: rng.chance(0.85),
    pkru: (rng.next() & rng.next() & rng.next()) >>> 0,
    id: rng.int(255) + 1,
  };
}

export function makeNestedCases() {
  const rng = generator(NESTED_SET.seed);
  return Array.from({ length: NESTED_SET.count }, (_, number) => makeCase(rng, number));
}

const HEADER_BYTES = 16;
const CASE_BYTES = 160;
export const NESTED_MAGIC = 0x5453454e; // "NEST"

/** The table as the guest reads it (struct nested_case in guest/nested.c). */
export function encodeNestedCases(cases) {
  const bytes = new Uint8Array(HEADER_BYTES + CASE_BYTES * cases.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, NESTED_MAGIC, true);
  view.setUint32(4, cases.length, true);
  view.setUint32(8, 4, true);
  view.setUint32(12, 8, true);
  cases.forEach((test, i) => {
    const at = HEADER_BYTES + CASE_BYTES * i;
    for (let level = 1; level <= 4; level++) {
      view.setBigUint64(at + 8 * (level - 1), test.entries[level], true);
      view.setBigUint64(at + 32 + 8 * (level - 1), test.nested[level], true);
      if (level < 4) view.setBigUint64(at + 64 + 8 * (level - 1), test.tableEntries[level], true);
    }
    view.setBigUint64(at + 88, test.va, true);
    view.setBigUint64(at + 96, test.gpa, true);
    view.setBigUint64(at + 104, test.target, true);
    view.setUint32(at + 112, Number(test.cr0), true);
    view.setUint32(at + 116, Number(test.cr4), true);
    view.setUint32(at + 120, Number(test.efer), true);
    view.setUint32(at + 124, test.pkru, true);
    view.setUint32(at + 128, 'rwxi'.indexOf(test.access), true);
    view.setUint32(at + 132, test.cpl3 ? 1 : 0, true);
    view.setUint32(at + 136, test.ac ? 1 : 0, true);
    view.setUint32(at + 140, test.id, true);
    view.setUint32(at + 144, test.nxe ? 1 : 0, true);
  });
  return bytes;
}

export const NESTED_RESULT_BYTES = 6;

/**
 * One answer of the guest, 48 bits little endian: 0..1 the end (0 done, 1 #PF, 2 nested fault, 3 other), 2..7 the
 * low six bits of the error code, 8 and 9 its bits 32 and 33, 10 other bits of it, 11..13 the faulting address (0
 * another, 1..4 the guest's entry of that level, 5 the final address, 6 the access's own (CR2)), 14 the access
 * reached the target, 15 the entries are unchanged but for A and D, then A and D of: 16..23 guest levels 1 to 4,
 * 24..31 nested levels 1 to 4 of the final address, 32..37 the nested entries of the guest's tables of levels 1 to
 * 3.
 */
export function decodeNestedResult(bytes, number) {
  const at = NESTED_RESULT_BYTES * number;
  const low = bytes[at] | (bytes[at + 1] << 8);
  const pairs = (byte) => [0, byte & 3, (byte >> 2) & 3, (byte >> 4) & 3, (byte >> 6) & 3];
  return {
    end: low & 3,
    error: (low >> 2) & 0x3f,
    final: ((low >> 8) & 1) !== 0,
    table: ((low >> 9) & 1) !== 0,
    odd: ((low >> 10) & 1) !== 0,
    where: (low >> 11) & 7,
    hit: ((low >> 14) & 1) !== 0,
    intact: ((low >> 15) & 1) !== 0,
    flags: pairs(bytes[at + 2]),
    nestedFlags: pairs(bytes[at + 3]),
    tableFlags: pairs(bytes[at + 4]).slice(0, 4),
  };
}
