/**
 * One access, translated twice over the same tables: by a walker and by the oracle's model of the manuals. They have to
 * agree on the outcome, the error code, the physical address, the rights and on A and D in every entry of the path.
 *
 * A `Bench` owns memory, tables and both parties. A test changes entries through its `slots` and calls `compare`; that
 * restores the slots afterwards, so that each case starts from what the test wrote.
 */
import {
  CR0_PG,
  CR0_WP,
  CR4_LA57,
  CR4_PAE,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMAP,
  CR4_SMEP,
  EFER_LMA,
  EFER_LME,
  EFER_NX,
  RFLAGS_AC,
} from '../../arch/control.ts';
import { PAGING_5LEVEL, PAGING_NONE, PAGING_PAE } from '../../arch/paging-mode.ts';
import { PTE_A_LO } from '../../arch/pte.ts';
import { hex64 } from '../../base/u64.ts';
import { TABLE_PFN_BASE, TableArena } from '../../mem/table-arena.ts';
import { translate, translateNested, type TranslateInput, type TranslateNestedInput } from '../../oracle/translate.ts';
import type { CpuModel } from '../cpu-model.ts';
import { hostView } from '../cpu-model.ts';
import { BareWalker } from '../guest-walker.ts';
import { NativeWalker } from '../native-walker.ts';
import { NestedWalker } from '../nested-walker.ts';
import {
  ACCESS_FETCH,
  ACCESS_IMPLICIT,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  ATTR_NX,
  ATTR_U,
  ATTR_W,
  controlBits,
  CTL_NX,
  WALK_NESTED,
  WALK_OK,
} from '../rights.ts';
import { FlatMemory } from './tables.ts';

/** An access in both languages. */
export interface Access {
  readonly name: string;
  readonly bits: number;
  readonly access: 'r' | 'w' | 'x';
  readonly cpl3: boolean;
  readonly implicit: boolean;
}

/** Read, write, fetch as supervisor and as user; reads and writes of the CPU itself, at either level. */
export const ACCESSES: readonly Access[] = [
  { name: 'r', bits: ACCESS_READ, access: 'r', cpl3: false, implicit: false },
  { name: 'w', bits: ACCESS_WRITE, access: 'w', cpl3: false, implicit: false },
  { name: 'x', bits: ACCESS_FETCH, access: 'x', cpl3: false, implicit: false },
  { name: 'user r', bits: ACCESS_USER, access: 'r', cpl3: true, implicit: false },
  { name: 'user w', bits: ACCESS_USER | ACCESS_WRITE, access: 'w', cpl3: true, implicit: false },
  { name: 'user x', bits: ACCESS_USER | ACCESS_FETCH, access: 'x', cpl3: true, implicit: false },
  { name: 'implicit r', bits: ACCESS_IMPLICIT, access: 'r', cpl3: true, implicit: true },
  { name: 'implicit w', bits: ACCESS_IMPLICIT | ACCESS_WRITE, access: 'w', cpl3: true, implicit: true },
];

/** Control registers in both languages. */
export interface Controls {
  readonly name: string;
  readonly bits: number;
  readonly cr0: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly ac: boolean;
  readonly pkru: number;
}

/** Names of control bits to registers, for a mode. PKRU is for key 1: `AD`, `WD`. */
export function controlsOf(mode: number, names: readonly string[]): Controls {
  const has = (name: string): boolean => names.includes(name);
  const cr0 = (mode === PAGING_NONE ? 0 : CR0_PG) | (has('WP') ? CR0_WP : 0);
  const cr4 =
    (mode >= PAGING_PAE ? CR4_PAE : 0) |
    (mode === PAGING_5LEVEL ? CR4_LA57 : 0) |
    (has('SMEP') ? CR4_SMEP : 0) |
    (has('SMAP') ? CR4_SMAP : 0) |
    (has('PKE') ? CR4_PKE : 0) |
    (has('PSE') ? CR4_PSE : 0) |
    CR4_PGE;
  const efer = (mode > PAGING_PAE ? EFER_LME | EFER_LMA : 0) | (has('NX') ? EFER_NX : 0);
  return {
    name: names.join(' '),
    bits: controlBits(cr0, cr4, efer, has('AC') ? RFLAGS_AC : 0),
    cr0: BigInt(cr0 >>> 0),
    cr4: BigInt(cr4),
    efer: BigInt(efer),
    ac: has('AC'),
    pkru: (has('AD') ? 4 : 0) | (has('WD') ? 8 : 0),
  };
}

/** Every subset of `names`, smallest first. */
export function subsets<T>(names: readonly T[]): T[][] {
  return Array.from({ length: 1 << names.length }, (_, set) => names.filter((_name, bit) => set & (1 << bit)));
}

/** An entry of the path: where its words are. */
export interface Slot {
  readonly words: Int32Array;
  readonly at: number;
  readonly bytes: 4 | 8;
  /** A PAE top-level entry: no A. */
  readonly plain: boolean;
}

const MODE_NAMES: Record<number, TranslateInput['mode']> = { 0: 'none', 2: '32', 3: 'pae', 4: 'long', 5: 'long' };
const OUTCOME_WORDS = 6;

/** Which walker is compared: through the arena, through guest tables alone, or through both. */
export type Dimension = 'native' | 'bare' | 'nested';

export class Bench {
  readonly memory = new FlatMemory(1024);
  readonly arena = new TableArena(32);
  readonly native: NativeWalker;
  readonly bare: BareWalker;
  readonly nested: NestedWalker;
  readonly mode: number;
  /** Of the tables whose entries cases change. */
  readonly maxphyaddr: number;
  /** The entries that cases change or walks may: root first, then those of the nested tables. */
  slots: Slot[] = [];
  /** Native: the root table. Else: the guest's CR3. */
  root = 0;
  cases = 0;
  /** Cases that ended in each way, to see that a test reaches all of them. */
  readonly outcomes = { ok: 0, fault: 0, nested: 0 };

  private readonly dimension: Dimension;
  private readonly registers: boolean;
  private readonly input: TranslateInput;
  private readonly nestedInput: TranslateNestedInput;
  /** Outcome of the oracle, then ours: kind, error lo, hi or pfn, gpa lo, hi, rights. */
  private readonly want = new Float64Array(OUTCOME_WORDS);
  private readonly got = new Float64Array(OUTCOME_WORDS);
  /** Guest entries that the oracle has read in this case: indices of slots. */
  private readonly readSlots: number[] = [];
  private before = new Int32Array(0);
  private after = new Int32Array(0);

  constructor(dimension: Dimension, mode: number, model: CpuModel, hostNx = true) {
    this.dimension = dimension;
    this.registers = mode === PAGING_PAE && dimension !== 'native' && model.pdptes === 'registers';
    this.mode = mode;
    const host = hostView(model);
    this.native = new NativeWalker(this.arena, host);
    this.bare = new BareWalker(this.memory, model);
    this.nested = new NestedWalker(this.memory, model, new NativeWalker(this.arena, host, hostNx ? CTL_NX : 0));
    const maxphyaddr = dimension === 'native' ? host.maxphyaddr : model.maxphyaddr;
    this.maxphyaddr = maxphyaddr;
    this.input = {
      mode: MODE_NAMES[mode],
      cr0: 0n,
      cr3: 0n,
      cr4: 0n,
      efer: 0n,
      pkru: 0,
      ac: false,
      cpl3: false,
      implicit: false,
      access: 'r',
      va: 0n,
      maxphyaddr,
      vendor: model.upperGlobalReserved ? 'amd' : 'intel',
      gbPages: model.gigabytePages,
      read: (pa, bytes) => this.read(pa, bytes),
      write: (pa, bytes, value) => this.write(pa, bytes, value),
    };
    this.nestedInput = {
      guest: this.input,
      npt: {
        rootPa: 0n,
        maxphyaddr: host.maxphyaddr,
        nxe: hostNx,
        gbPages: model.gigabytePages,
        read: (pa, bytes) => this.read(pa, bytes),
        write: (pa, bytes, value) => this.write(pa, bytes, value),
      },
    };
  }

  /** To be called when the slots and the root are in place. */
  ready(): void {
    this.before = new Int32Array(this.slots.length);
    this.after = new Int32Array(this.slots.length);
    const pa = (pfn: number): bigint => BigInt(pfn) << 12n;
    const native = this.dimension === 'native';
    // PAE's CR3 has 32 bits, so there the oracle sees the arena's root at the bottom of memory; see locate.
    const rootPfn = this.mode === PAGING_PAE ? this.root : TABLE_PFN_BASE + this.root;
    this.input.cr3 = native ? pa(rootPfn) : BigInt(this.root);
    this.nestedInput.npt.rootPa = pa(TABLE_PFN_BASE + this.nested.nptRoot);
    this.bare.cr3Lo = this.nested.cr3Lo = this.root;
  }

  slot(words: Int32Array, at: number, bytes: 4 | 8 = 8, plain = false): number {
    return this.slots.push({ words, at, bytes, plain }) - 1;
  }

  set(slot: number, lo: number, hi: number): void {
    const { words, at, bytes } = this.slots[slot];
    words[at] = lo;
    if (bytes === 8) words[at + 1] = hi;
  }

  /** PAE with its top level in registers: loads CR3 in both parties. The result is the walker's. */
  loadPdptes(controls: Controls): number {
    const walker = this.dimension === 'bare' ? this.bare : this.nested;
    walker.setMode(this.mode, controls.bits);
    const { words } = this.memory;
    const { at } = this.slots[0];
    const first = at & ~7;
    this.input.pdptes = [0, 2, 4, 6].map(
      (i) => (BigInt(words[first + i + 1] >>> 0) << 32n) | BigInt(words[first + i] >>> 0),
    );
    return walker.loadPdptes();
  }

  /** Translates `va` both ways. Throws a description of the case if they differ. */
  compare(lo: number, hi: number, access: Access, controls: Controls): void {
    this.cases++;
    if (this.registers) this.loadPdptes(controls);
    const { slots, before, after, want, got } = this;
    for (let i = 0; i < slots.length; i++) before[i] = slots[i].words[slots[i].at];
    this.oracle(lo, hi, access, controls);
    for (let i = 0; i < slots.length; i++) {
      const { words, at } = slots[i];
      after[i] = words[at];
      words[at] = before[i];
    }
    this.walker(lo, hi, access, controls);
    let same = true;
    for (let i = 0; i < OUTCOME_WORDS; i++) if (want[i] !== got[i]) same = false;
    for (let i = 0; i < slots.length; i++) if (slots[i].words[slots[i].at] !== after[i]) same = false;
    if (!same) throw new Error(this.describe(lo, hi, access, controls));
    for (let i = 0; i < slots.length; i++) slots[i].words[slots[i].at] = before[i];
    if (want[0] === WALK_OK) this.outcomes.ok++;
    else if (want[0] === WALK_NESTED) this.outcomes.nested++;
    else this.outcomes.fault++;
  }

  private oracle(lo: number, hi: number, access: Access, controls: Controls): void {
    const { input, want } = this;
    want.fill(0);
    this.readSlots.length = 0;
    input.cr0 = controls.cr0;
    input.cr4 = controls.cr4;
    input.efer = controls.efer;
    input.ac = controls.ac;
    input.pkru = controls.pkru;
    input.access = access.access;
    input.cpl3 = access.cpl3;
    input.implicit = access.implicit;
    input.va = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
    if (this.dimension !== 'nested') {
      const result = translate(input);
      if (!result.ok) want[0] = result.error;
      else this.expectOk(result.pa, result.writable, result.user, result.executable);
      return;
    }
    const result = translateNested(this.nestedInput);
    if (result.kind === 'guest-fault') {
      want[0] = result.error;
    } else if (result.kind === 'ok') {
      this.expectOk(result.pa, result.guest.writable, result.guest.user, result.guest.executable);
    } else {
      want[0] = WALK_NESTED;
      want[1] = Number(result.error & 0xffffffffn);
      want[2] = Number(result.error >> 32n);
      want[3] = Number(result.gpa);
      // The model sets A when the walk is over; a CPU has set it by then in every entry that led on.
      if (result.error >> 33n) for (const i of this.readSlots) this.slots[i].words[this.slots[i].at] |= PTE_A_LO;
    }
  }

  private expectOk(pa: bigint, writable: boolean, user: boolean, executable: boolean): void {
    this.want[0] = WALK_OK;
    this.want[1] = Number(pa >> 12n);
    this.want[5] = (writable ? 1 : 0) | (user ? 2 : 0) | (executable ? 4 : 0);
  }

  private walker(lo: number, hi: number, access: Access, controls: Controls): void {
    const { got } = this;
    got.fill(0);
    if (this.dimension === 'native') {
      this.native.setControls(controls.bits);
      this.native.pkru = controls.pkru;
      got[0] = this.native.walk(this.root, this.mode, lo, hi, access.bits);
      if (got[0] === WALK_OK) this.gotOk(this.native.pfn, this.native.attr);
      return;
    }
    const walker = this.dimension === 'bare' ? this.bare : this.nested;
    walker.setMode(this.mode, controls.bits);
    walker.pkru = controls.pkru;
    got[0] = walker.walk(lo, hi, access.bits);
    if (got[0] === WALK_OK) this.gotOk(walker.pfn, walker.attr);
    if (got[0] === WALK_NESTED) {
      got[1] = walker.nestedErrorLo;
      got[2] = walker.nestedErrorHi;
      got[3] = (walker.nestedGpaHi >>> 0) * 2 ** 32 + (walker.nestedGpaLo >>> 0);
    }
  }

  private gotOk(pfn: number, attr: number): void {
    this.got[1] = pfn;
    this.got[5] = (attr & ATTR_W ? 1 : 0) | (attr & ATTR_U ? 2 : 0) | (attr & ATTR_NX ? 0 : 4);
  }

  private locate(pa: bigint): [Int32Array, number] {
    const pfn = Number(pa >> 12n);
    const word = Number(pa & 0xfffn) >> 2;
    if (pfn >= TABLE_PFN_BASE) return [this.arena.words, ((pfn - TABLE_PFN_BASE) << 10) | word];
    return [this.dimension === 'native' ? this.arena.words : this.memory.words, (pfn << 10) | word];
  }

  private read(pa: bigint, bytes: 4 | 8): bigint {
    const [words, at] = this.locate(pa);
    if (words === this.memory.words) {
      const slot = this.slots.findIndex((s) => s.words === words && s.at === at);
      if (slot >= 0 && !this.slots[slot].plain) this.readSlots.push(slot);
    }
    const lo = BigInt(words[at] >>> 0);
    return bytes === 4 ? lo : lo | (BigInt(words[at + 1] >>> 0) << 32n);
  }

  private write(pa: bigint, bytes: 4 | 8, value: bigint): void {
    const [words, at] = this.locate(pa);
    words[at] = Number(BigInt.asIntN(32, value));
    if (bytes === 8) words[at + 1] = Number(BigInt.asIntN(32, value >> 32n));
  }

  private describe(lo: number, hi: number, access: Access, controls: Controls): string {
    const outcome = (o: Float64Array): string =>
      o[0] === WALK_OK
        ? `pfn ${o[1].toString(16)} rights ${o[5]}`
        : o[0] === WALK_NESTED
          ? `nested ${hex64(o[1], o[2])} at ${o[3].toString(16)}`
          : `fault ${o[0].toString(16)}`;
    const entries = this.slots.map((s, i) => {
      const high = s.bytes === 8 ? s.words[s.at + 1] : 0;
      const words = [this.before[i], this.after[i], s.words[s.at]].map((low) => hex64(low, high));
      return `  entry ${i}: ${words[0]}, then want ${words[1]}, got ${words[2]}`;
    });
    return [
      `${this.dimension} walk in mode ${this.mode} of ${hex64(lo, hi)}, ${access.name}, [${controls.name}]`,
      `  want ${outcome(this.want)}, got ${outcome(this.got)}`,
      ...entries,
    ].join('\n');
  }
}
