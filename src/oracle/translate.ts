/**
 * What the manuals say a linear address translates to: the page walk of x86, one entry after the other, on BigInt.
 *
 * Written from the meaning of the manuals (Intel SDM volume 3, chapter 4; AMD APM volume 2, chapter 5 and section
 * 15.25) and from nothing else, so that it can judge the walkers in `hw` and `mmu`. Slow on purpose: no tables of
 * permissions, no caches, no shared code with what it judges, not even its constants.
 *
 * Where the vendors differ, `vendor` says whose rule holds; `amd` is what you get if you don't say:
 *
 * | rule                                              | amd                  | intel                           |
 * |---------------------------------------------------|----------------------|---------------------------------|
 * | bit 8 of a PML5E or PML4E                         | must be zero         | ignored                         |
 * | bit 8 of a PDPTE or PDE that points to a table    | ignored              | ignored                         |
 * | PAE, PDPTEs read while walking (nested paging)    | reserved bits fault  | not done; they are in registers |
 *
 * Equal on both: a present entry with a reserved bit faults with RSVD before any right is looked at; reserved bits of
 * an entry that is not present are not looked at; an entry not present is reported without P whatever the rights of
 * the entries above it.
 *
 * Accessed and dirty flags. The manuals fix them for an access that succeeds: A in every entry used, D in the leaf of
 * a write. For one that faults they leave open whether the entries above the one that stopped the walk get A. Here:
 * `accessedOnFault: 'upper'` (as silicon does: the entry was used to find the next one) or `'none'` (as KVM's software
 * walker does). The leaf that refuses an access is changed by neither.
 */

export interface TranslateInput {
  /** Paging mode: CR0.PG=0; 32-bit; PAE; long (four levels, or five if CR4.LA57). */
  mode: 'none' | '32' | 'pae' | 'long';
  cr0: bigint;
  cr3: bigint;
  cr4: bigint;
  efer: bigint;
  pkru: number;
  /** EFLAGS.AC. */
  ac: boolean;
  cpl3: boolean;
  /** An access of the processor itself to a system structure (GDT, TSS, ...): a supervisor access whatever the CPL. */
  implicit: boolean;
  access: 'r' | 'w' | 'x';
  /** Canonical (that is not the walker's business); only the bits that the mode translates are looked at. */
  va: bigint;
  maxphyaddr: number;
  read(pa: bigint, bytes: 4 | 8): bigint;
  write(pa: bigint, bytes: 4 | 8, value: bigint): void;
  vendor?: 'amd' | 'intel';
  /** PAE: the four PDPTE registers, checked when CR3 was written. Absent: the PDPTE is read from memory by the walk. */
  pdptes?: readonly bigint[];
  /** CPUID Page1GB; true if absent. Without it bit 7 of a PDPTE is reserved. */
  gbPages?: boolean;
  /** CPUID PSE-36; true if absent. Without it bits 21..13 of a 4 MiB PDE are reserved. */
  pse36?: boolean;
  /** See the head of this file; 'upper' if absent. */
  accessedOnFault?: 'upper' | 'none';
}

export type TranslateResult =
  | {
      ok: true;
      pa: bigint;
      /** Level of the leaf: 1, 2 (2 or 4 MiB), 3; 0 without paging. */
      level: number;
      /** R/W, U/S and not XD, each combined over all levels; without what CR0.WP, SMEP, SMAP and keys make of it. */
      writable: boolean;
      user: boolean;
      executable: boolean;
    }
  | { ok: false; error: number };

/** Page-fault error code bits (SDM 4.7, APM 8.4.2). */
export const PF_PRESENT = 1;
export const PF_WRITE = 2;
export const PF_USER = 4;
export const PF_RESERVED = 8;
export const PF_FETCH = 16;
export const PF_KEY = 32;

/** Added to a nested fault's error code: it hit the final guest physical address, or one of the guest's tables. */
export const NPF_GUEST_FINAL = 1n << 32n;
export const NPF_GUEST_PAGE = 1n << 33n;

const P = 1n << 0n;
const RW = 1n << 1n;
const US = 1n << 2n;
const A = 1n << 5n;
const D = 1n << 6n;
const PS = 1n << 7n;
const XD = 1n << 63n;

const CR0_WP = 1n << 16n;
const CR4_PSE = 1n << 4n;
const CR4_LA57 = 1n << 12n;
const CR4_SMEP = 1n << 20n;
const CR4_SMAP = 1n << 21n;
const CR4_PKE = 1n << 22n;
const EFER_NXE = 1n << 11n;

const has = (word: bigint, bit: bigint): boolean => (word & bit) !== 0n;

/** Bits `high` down to `low`, both included, of a word, in place; nothing if high < low. */
function bits(word: bigint, high: number, low: number): bigint {
  if (high < low) return 0n;
  return word & (((1n << BigInt(high - low + 1)) - 1n) << BigInt(low));
}

/** The 9-bit or other index that `count` bits of `va` from `low` make. */
const indexOf = (va: bigint, low: number, count: number): bigint => (va >> BigInt(low)) & ((1n << BigInt(count)) - 1n);

/** One entry as the walk met it. */
interface Used {
  pa: bigint;
  bytes: 4 | 8;
  entry: bigint;
  /** PDPTEs of PAE paging have no rights and no flags. */
  plain: boolean;
}

/** A walk in progress: what it has used so far, from the root down. */
class Walk {
  readonly used: Used[] = [];
  readonly input: TranslateInput;
  constructor(input: TranslateInput) {
    this.input = input;
  }

  /** Reads the next entry down; the one above it is thereby used. */
  load(pa: bigint, bytes: 4 | 8, plain = false): bigint {
    if (this.input.accessedOnFault !== 'none' && this.used.length > 0) this.flag(this.used[this.used.length - 1], A);
    const entry = this.input.read(pa, bytes);
    this.used.push({ pa, bytes, entry, plain });
    return entry;
  }

  /** Sets flags in one used entry, by a write only if it changes. */
  flag(use: Used, flags: bigint): void {
    if (use.plain || (use.entry & flags) === flags) return;
    use.entry |= flags;
    this.input.write(use.pa, use.bytes, use.entry);
  }

  /** Ends the walk at the entry read last, which has no translation to offer or refuses it. */
  fault(reason: number): TranslateResult {
    return { ok: false, error: reason | accessBits(this.input) };
  }

  /** Ends the walk at the entry read last, a leaf, present and well formed. */
  leaf(pa: bigint, level: number): TranslateResult {
    const rights = this.used.filter((use) => !use.plain);
    const writable = rights.every((use) => has(use.entry, RW));
    const user = rights.every((use) => has(use.entry, US));
    const noExecute = nxInForce(this.input) && rights.some((use) => has(use.entry, XD));
    const last = this.used[this.used.length - 1];
    const key = this.input.mode === 'long' ? Number(indexOf(last.entry, 59, 4)) : 0;

    const byKey = refusedByKey(this.input, user, key);
    if (refusedByTables(this.input, writable, user, noExecute) || byKey) {
      return this.fault(PF_PRESENT | (byKey ? PF_KEY : 0));
    }
    for (const use of this.used) this.flag(use, A);
    if (this.input.access === 'w') this.flag(last, A | D);
    return { ok: true, pa, level, writable, user, executable: !noExecute };
  }
}

/** A user-mode access: made at CPL 3, and not by the processor for itself. */
const isUserAccess = (input: TranslateInput): boolean => input.cpl3 && !input.implicit;

/** XD exists in PAE and long mode and only if EFER.NXE says so. */
const nxInForce = (input: TranslateInput): boolean =>
  (input.mode === 'pae' || input.mode === 'long') && has(input.efer, EFER_NXE);

/** The bits of the error code that describe the access, not the tables. */
function accessBits(input: TranslateInput): number {
  let error = 0;
  if (input.access === 'w') error |= PF_WRITE;
  if (isUserAccess(input)) error |= PF_USER;
  if (input.access === 'x' && (has(input.cr4, CR4_SMEP) || nxInForce(input))) error |= PF_FETCH;
  return error;
}

/** SDM 4.6.1, APM 5.6: does R/W, U/S or XD (with WP, SMEP, SMAP) forbid the access? */
function refusedByTables(input: TranslateInput, writable: boolean, user: boolean, noExecute: boolean): boolean {
  if (isUserAccess(input)) {
    if (!user) return true;
    if (input.access === 'w') return !writable;
    if (input.access === 'x') return noExecute;
    return false;
  }
  if (input.access === 'x') {
    if (user && has(input.cr4, CR4_SMEP)) return true;
    return noExecute;
  }
  if (user && has(input.cr4, CR4_SMAP)) {
    if (input.implicit || !input.ac) return true;
  }
  if (input.access === 'w' && has(input.cr0, CR0_WP)) return !writable;
  return false;
}

/** SDM 4.6.2, APM 5.6.7: protection keys, which rule data accesses to user-mode addresses in long mode. */
function refusedByKey(input: TranslateInput, user: boolean, key: number): boolean {
  if (input.mode !== 'long' || !has(input.cr4, CR4_PKE)) return false;
  if (!user || input.access === 'x') return false;
  const accessDisable = ((input.pkru >>> (2 * key)) & 1) !== 0;
  const writeDisable = ((input.pkru >>> (2 * key + 1)) & 1) !== 0;
  if (accessDisable) return true;
  return input.access === 'w' && writeDisable && (isUserAccess(input) || has(input.cr0, CR0_WP));
}

/** Walks the guest's own tables for one access, sets A and D through `write`, and tells the outcome. */
export function translate(input: TranslateInput): TranslateResult {
  switch (input.mode) {
    case 'none':
      return { ok: true, pa: bits(input.va, 31, 0), level: 0, writable: true, user: true, executable: true };
    case '32':
      return translate32(input);
    case 'pae':
      return translatePae(input);
    case 'long':
      return translateLong(input);
  }
}

/** SDM 4.3, APM 5.2.1-5.2.2. */
function translate32(input: TranslateInput): TranslateResult {
  const { va } = input;
  const walk = new Walk(input);

  const pde = walk.load(bits(input.cr3, 31, 12) + 4n * indexOf(va, 22, 10), 4);
  if (!has(pde, P)) return walk.fault(0);
  if (has(pde, PS) && has(input.cr4, CR4_PSE)) {
    // Bits 20..13 hold address bits 39..32, as many of them as there are; bit 21 and the rest are reserved.
    const addressBits = input.pse36 === false ? 32 : Math.min(40, Math.max(32, input.maxphyaddr));
    if (bits(pde, 21, addressBits - 19) !== 0n) return walk.fault(PF_PRESENT | PF_RESERVED);
    const high = indexOf(pde, 13, addressBits - 32) << 32n;
    return walk.leaf(high + bits(pde, 31, 22) + bits(va, 21, 0), 2);
  }

  const pte = walk.load(bits(pde, 31, 12) + 4n * indexOf(va, 12, 10), 4);
  if (!has(pte, P)) return walk.fault(0);
  return walk.leaf(bits(pte, 31, 12) + bits(va, 11, 0), 1);
}

/** SDM 4.4, APM 5.2.3-5.2.4; PDPTEs at walk time: APM 15.25.10. */
function translatePae(input: TranslateInput): TranslateResult {
  const { va, maxphyaddr } = input;
  const walk = new Walk(input);
  const reservedHigh = (entry: bigint): bigint =>
    bits(entry, 62, maxphyaddr) | (has(input.efer, EFER_NXE) ? 0n : entry & XD);

  let pdpte: bigint;
  if (input.pdptes) {
    pdpte = input.pdptes[Number(indexOf(va, 30, 2))] ?? 0n;
    if (!has(pdpte, P)) return walk.fault(0);
  } else {
    pdpte = walk.load(bits(input.cr3, 31, 5) + 8n * indexOf(va, 30, 2), 8, true);
    if (!has(pdpte, P)) return walk.fault(0);
    const reserved = bits(pdpte, 2, 1) | bits(pdpte, 8, 5) | bits(pdpte, 63, maxphyaddr);
    if (reserved !== 0n) return walk.fault(PF_PRESENT | PF_RESERVED);
  }

  const pde = walk.load(bits(pdpte, maxphyaddr - 1, 12) + 8n * indexOf(va, 21, 9), 8);
  if (!has(pde, P)) return walk.fault(0);
  if (reservedHigh(pde) !== 0n) return walk.fault(PF_PRESENT | PF_RESERVED);
  if (has(pde, PS)) {
    if (bits(pde, 20, 13) !== 0n) return walk.fault(PF_PRESENT | PF_RESERVED);
    return walk.leaf(bits(pde, maxphyaddr - 1, 21) + bits(va, 20, 0), 2);
  }

  const pte = walk.load(bits(pde, maxphyaddr - 1, 12) + 8n * indexOf(va, 12, 9), 8);
  if (!has(pte, P)) return walk.fault(0);
  if (reservedHigh(pte) !== 0n) return walk.fault(PF_PRESENT | PF_RESERVED);
  return walk.leaf(bits(pte, maxphyaddr - 1, 12) + bits(va, 11, 0), 1);
}

/** SDM 4.5, APM 5.3: four levels, or five with CR4.LA57. */
function translateLong(input: TranslateInput): TranslateResult {
  const { va, maxphyaddr } = input;
  const walk = new Walk(input);
  const amd = input.vendor !== 'intel';
  const gbPages = input.gbPages !== false;

  let table = bits(input.cr3, maxphyaddr - 1, 12);
  for (let level = has(input.cr4, CR4_LA57) ? 5 : 4; ; level--) {
    const shift = 12 + 9 * (level - 1);
    const entry = walk.load(table + 8n * indexOf(va, shift, 9), 8);
    if (!has(entry, P)) return walk.fault(0);

    let reserved = bits(entry, 51, maxphyaddr);
    if (!has(input.efer, EFER_NXE)) reserved |= entry & XD;
    if (level >= 4) reserved |= entry & PS;
    if (level >= 4 && amd) reserved |= bits(entry, 8, 8);
    if (level === 3 && !gbPages) reserved |= entry & PS;
    const leaf = level === 1 || (level <= 3 && has(entry, PS));
    // Bit 12 of a large leaf is its PAT bit; the address bits below its size are reserved.
    if (leaf && level > 1) reserved |= bits(entry, shift - 1, 13);
    if (reserved !== 0n) return walk.fault(PF_PRESENT | PF_RESERVED);

    if (leaf) return walk.leaf(bits(entry, maxphyaddr - 1, shift) + bits(va, shift - 1, 0), level);
    table = bits(entry, maxphyaddr - 1, 12);
  }
}

/** The nested tables of AMD: host paging structures of long mode, rooted at nCR3. */
export interface NestedTables {
  rootPa: bigint;
  /** Host physical memory: the nested tables themselves, and the guest's tables once their address is translated. */
  read(pa: bigint, bytes: 4 | 8): bigint;
  write(pa: bigint, bytes: 4 | 8, value: bigint): void;
  /** The host's. */
  maxphyaddr: number;
  /** EFER.NXE of the host; true if absent. */
  nxe?: boolean;
  /** 4 if absent. */
  levels?: 4 | 5;
  gbPages?: boolean;
  accessedOnFault?: 'upper' | 'none';
}

export interface TranslateNestedInput {
  /** The guest's access; `read` and `write`, if there, aren't used: guest memory lies behind the nested tables. */
  guest: Omit<TranslateInput, 'read' | 'write'> & Partial<Pick<TranslateInput, 'read' | 'write'>>;
  npt: NestedTables;
}

export type TranslateNestedResult =
  | {
      kind: 'ok';
      /** Host physical. */
      pa: bigint;
      gpa: bigint;
      guest: Extract<TranslateResult, { ok: true }>;
      nested: Extract<TranslateResult, { ok: true }>;
    }
  /** #PF into the guest. */
  | { kind: 'guest-fault'; error: number }
  /** #NPF: EXITINFO2 and EXITINFO1. */
  | { kind: 'nested-fault'; gpa: bigint; error: bigint };

/** Carries a nested fault out of the middle of the guest's walk. */
class NestedStop extends Error {
  readonly gpa: bigint;
  readonly error: bigint;
  constructor(gpa: bigint, error: bigint) {
    super('nested page fault');
    this.gpa = gpa;
    this.error = error;
  }
}

/**
 * APM 15.25: each guest physical address, that of a table as that of the data, goes through the nested tables as a
 * user access. A table access is a data write there, even if only read (so the nested leaf of a guest table gets D,
 * and a guest table in read-only memory can't be walked); the final access is what it is. Guest rights come first:
 * the final address is translated only if the guest's tables grant the access, and then guest A and D are already set.
 * PAE: the PDPTEs are read by the walk (15.25.10), unless the caller insists on registers.
 */
export function translateNested({ guest, npt }: TranslateNestedInput): TranslateNestedResult {
  const nested = (gpa: bigint, access: 'r' | 'w' | 'x', where: bigint): Extract<TranslateResult, { ok: true }> => {
    const result = translate({
      mode: 'long',
      cr0: CR0_WP,
      cr3: npt.rootPa,
      cr4: npt.levels === 5 ? CR4_LA57 : 0n,
      efer: npt.nxe === false ? 0n : EFER_NXE,
      pkru: 0,
      ac: false,
      cpl3: true,
      implicit: false,
      access,
      va: gpa,
      maxphyaddr: npt.maxphyaddr,
      read: (pa, bytes) => npt.read(pa, bytes),
      write: (pa, bytes, value) => npt.write(pa, bytes, value),
      vendor: 'amd',
      ...(npt.gbPages === undefined ? {} : { gbPages: npt.gbPages }),
      ...(npt.accessedOnFault === undefined ? {} : { accessedOnFault: npt.accessedOnFault }),
    });
    if (!result.ok) throw new NestedStop(gpa, BigInt(result.error) | where);
    return result;
  };
  try {
    const first = translate({
      ...guest,
      read: (gpa, bytes) => npt.read(nested(gpa, 'w', NPF_GUEST_PAGE).pa, bytes),
      write: (gpa, bytes, value) => npt.write(nested(gpa, 'w', NPF_GUEST_PAGE).pa, bytes, value),
    });
    if (!first.ok) return { kind: 'guest-fault', error: first.error };
    const second = nested(first.pa, guest.access, NPF_GUEST_FINAL);
    return { kind: 'ok', pa: second.pa, gpa: first.pa, guest: first, nested: second };
  } catch (stop) {
    if (stop instanceof NestedStop) return { kind: 'nested-fault', gpa: stop.gpa, error: stop.error };
    throw stop;
  }
}
