/**
 * The guest's page tables as the recorder's VMM reads them: without faults, as they are. Source: recorder/src/guest.c,
 * main.c.
 */
import { hiOf, loOf, toNumber } from '../base/u64.ts';
import { ShadowWalk } from '../mmu/shadow-walk.ts';
import type { Vcpu } from '../vm/vcpu.ts';
import type { Vm } from '../vm/vm.ts';
import type { RecordingHead } from './recording.ts';
import type { PteEdit } from './scenario.ts';

const FRAME = 0x000ffffffffff000n;
const PRESENT = 1n;
const LARGE = 0x80n;
/** `out 0x10, al`. */
const OUT_DONE = 0x10e6n;

/** Reads guest memory; null where the host has none. */
type Peek = (gpa: number, bytes: number) => bigint | null;

export class GuestTables {
  readonly entryBytes: number;
  readonly levels: number;
  private readonly paging: RecordingHead['paging'];
  private readonly indexBits: number;
  private readonly peek: Peek;

  constructor(paging: RecordingHead['paging'], peek: Peek) {
    this.paging = paging;
    this.entryBytes = paging === '32' ? 4 : 8;
    this.indexBits = paging === '32' ? 10 : 9;
    this.levels = paging === 'long' ? 4 : paging === 'pae' ? 3 : 2;
    this.peek = peek;
  }

  private read(gpa: number): bigint {
    return this.peek(gpa, this.entryBytes) ?? 0n;
  }

  private entryAt(table: number, va: bigint, level: number): number {
    const mask = this.paging === 'pae' && level === 3 ? 3n : (1n << BigInt(this.indexBits)) - 1n;
    return table + this.entryBytes * Number((va >> BigInt(12 + this.indexBits * (level - 1))) & mask);
  }

  /** Where the entry for `va` at `level` stands, below `root`; null if the tables don't reach that far. */
  entryGpa(root: number, va: bigint, level: number): number | null {
    let table = root;
    for (let l = this.levels; table !== 0 && l > level; l--) {
      const entry = this.read(this.entryAt(table, va, l));
      if (!(entry & PRESENT) || (l <= 3 && l > 1 && entry & LARGE)) return null;
      table = Number(entry & FRAME);
    }
    return table === 0 ? null : this.entryAt(table, va, level);
  }

  /** That entry's value, 0 if there is none. */
  entryOf(root: number, va: bigint, level: number): bigint {
    const at = this.entryGpa(root, va, level);
    return at === null || at === 0 ? 0n : this.read(at);
  }

  /** Guest-physical address of `va`, whatever the rights; null where nothing is mapped. */
  translate(cr3: bigint, va: bigint): bigint | null {
    if (this.paging === 'none') return va;
    let table = Number(cr3 & (this.paging === 'pae' ? 0xffffffe0n : FRAME));
    for (let level = this.levels; level > 0; level--) {
      const entry = this.read(this.entryAt(table, va, level));
      if (!(entry & PRESENT)) return null;
      const isLarge = level <= 3 && (entry & LARGE) !== 0n && !(this.paging === 'pae' && level === 3);
      if (level === 1 || isLarge) {
        const mask = (1n << BigInt(12 + this.indexBits * (level - 1))) - 1n;
        return (entry & FRAME & ~mask) | (va & mask);
      }
      table = Number(entry & FRAME);
    }
    return null;
  }
}

/** Applies a guest entry's edits in order. `copy` finds another address's entry at the same level. */
export function applyEdits(old: bigint, edits: readonly PteEdit[], copy: (va: bigint) => bigint): bigint {
  let value = old;
  for (const edit of edits) {
    if (edit.kind === 'set') value = edit.value;
    else if (edit.kind === 'copy') value = copy(edit.va);
    else if (edit.kind === 'frame') value = (value & ~FRAME) | edit.gpa;
    else if (edit.kind === 'add') value |= edit.bits;
    else value &= ~edit.bits;
  }
  return BigInt.asUintN(64, value);
}

/**
 * Would the CPU find an `out` at `va`, both by the guest's tables and (shadow paging) by KVM's, which may be stale?
 */
export function isCodeAt(
  vm: Vm,
  vcpu: Vcpu,
  tables: GuestTables,
  va: bigint,
  inSlot: (gpa: number) => boolean,
  peek: (gpa: number) => bigint | null,
): boolean {
  const cr3 = BigInt(toNumber(vcpu.state.cr3Lo, vcpu.state.cr3Hi));
  let gpa = tables.translate(cr3, va);
  const { isNested, nestedCr3Lo, nestedCr3Hi } = vcpu.mmu;
  if (gpa !== null && isNested) gpa = tables.translate(BigInt(toNumber(nestedCr3Lo, nestedCr3Hi)), gpa);
  if (gpa !== null && inSlot(Number(gpa)) && peek(Number(gpa)) !== OUT_DONE) return false;
  if (vm.mmu.tdp) return true;
  const shadow = shadowTranslate(vm, vcpu, va);
  if (shadow === null) return true;
  return shadow.pfn < 2 ** 29 && readAt(vm, shadow.pfn, shadow.offset) === OUT_DONE;
}

function readAt(vm: Vm, pfn: number, offset: number): bigint {
  const { phys } = vm.mmu.host;
  return BigInt(phys.read8(pfn, offset) | (phys.read8(pfn, offset + 1) << 8));
}

/** Host address of `va` by KVM's tables, taking any entry with P set for a mapping; null where there is none. */
function shadowTranslate(vm: Vm, vcpu: Vcpu, va: bigint): { pfn: number; offset: number } | null {
  const walk = new ShadowWalk();
  const { words } = vm.mmu.arena;
  for (walk.init(vcpu.mmu, loOf(va), hiOf(va)); walk.ok(); ) {
    const lo = words[walk.sptep << 1];
    const hi = words[(walk.sptep << 1) + 1];
    if (!(lo & 1)) return null;
    if (walk.level === 1 || lo & 0x80) {
      const pages = 2 ** (9 * (walk.level - 1));
      const frame = (lo >>> 12) + (hi & 0xfffff) * 0x100000;
      const page = Number((va >> 12n) % BigInt(pages));
      return { pfn: frame - (frame % pages) + page, offset: Number(va & 0xfffn) };
    }
    walk.step(lo, hi);
  }
  return null;
}
