/**
 * The CPU's walk through the guest's own page tables, in every paging mode. How a guest-physical frame is reached is left
 * to two methods, one for tables and one for where the access ends: BareWalker takes guest frames as they are,
 * NestedWalker (nested-walker.ts) sends each through the nested tables.
 *
 *     guest level 4      3        2        1       final
 *          |             |        |        |        |
 *      tableFrame    tableFrame   ..       ..   finalFrame       2-D: each is a walk of its own
 *          |             |        |        |        |
 *      read, check   read, check  ..    read, check rights, A and D
 *      P, rsvd, A    P, rsvd, A
 *
 * The order is what software sees when the walk stops half-way: levels above the fault have A set, the faulting entry and
 * those below don't. At the leaf A and D are set before the final frame is translated, so D may be set although the
 * nested walk then faults.
 */
import { CR3_PAE_TABLE_LO, CR3_TABLE_LO } from '../arch/control.ts';
import { isCanonical, PAGING_32, PAGING_NONE, PAGING_PAE, tableIndex } from '../arch/paging-mode.ts';
import { PFERR_FETCH_LO, PFERR_P_LO, PFERR_RSVD_LO } from '../arch/pferr.ts';
import {
  PSE36_FRAME_HIGH_LO,
  PSE36_FRAME_HIGH_SHIFT,
  PTE_A_LO,
  PTE_D_LO,
  PTE_FRAME_HI,
  PTE_NX_HI,
  PTE_P_LO,
  PTE_PS_LO,
  PTE_U_LO,
  PTE_W_LO,
} from '../arch/pte.ts';
import type { PhysMemory } from '../mem/phys-memory.ts';
import type { CpuModel } from './cpu-model.ts';
import { fillReserved, newReservedBits } from './reserved.ts';
import {
  ACCESS_ERROR_BITS,
  ACCESS_WRITE,
  ATTR_D,
  ATTR_G,
  ATTR_HOST_ALL,
  ATTR_PAGE_SHIFT_AT,
  ATTR_PK,
  ATTR_U,
  ATTR_W,
  CTL_NX,
  CTL_PGE,
  CTL_PSE,
  CTL_SMEP,
  rightsFault,
  WALK_NESTED,
  WALK_NONCANONICAL,
  WALK_OK,
} from './rights.ts';

/** `loadPdptes`: a reserved bit is set in a present entry, so the load of CR3 is refused with #GP. */
export const PDPTES_INVALID = -4;

export abstract class GuestWalker {
  /** CR3. Only the table address in it is looked at. */
  cr3Lo = 0;
  cr3Hi = 0;
  pkru = 0;

  /** After WALK_OK: the guest frame and the host frame of the accessed 4 KiB page, and the rights for the TLB. */
  gfn = 0;
  pfn = 0;
  attr = 0;
  /** After WALK_OK: the largest level (1-3) that one translation may cover: the smaller of the guest's and the host's. */
  level = 0;
  /** Guest level of the entry that the walk ended at; 0 without paging. */
  guestLevel = 0;
  /** After WALK_NESTED: the guest-physical address that could not be reached, and the exit's error code. */
  nestedGpaLo = 0;
  nestedGpaHi = 0;
  nestedErrorLo = 0;
  nestedErrorHi = 0;

  /** PAE's top-level entries, lo and hi in turn, where the CPU holds them in registers. */
  readonly pdptes = new Int32Array(8);

  /** Set by the two methods below: level and ATTR_HOST bits of the last frame. */
  protected hostLevel = 3;
  protected hostAttr = ATTR_HOST_ALL;
  protected readonly memory: PhysMemory;

  private readonly model: CpuModel;
  private readonly rsvdError: number;
  private readonly gigabyteAccessedEarly: boolean;
  private readonly pdptesInRegisters: boolean;
  private readonly pdpteAccessed: boolean;
  private readonly reserved = newReservedBits();
  private mode = PAGING_NONE;
  private controls = 0;
  private reportedBits = 0;

  constructor(memory: PhysMemory, model: CpuModel) {
    this.memory = memory;
    this.model = model;
    this.rsvdError = model.rsvdReportsPresent ? PFERR_RSVD_LO | PFERR_P_LO : PFERR_RSVD_LO;
    this.gigabyteAccessedEarly = model.gigabyteAccessedEarly;
    this.pdptesInRegisters = model.pdptes === 'registers';
    this.pdpteAccessed = model.pdptes === 'memory-accessed';
    this.setMode(PAGING_NONE, 0);
  }

  /**
   * The host frame that holds a guest table, which the walk will read and may set A or D in; `offset` is the entry's byte
   * offset. Negative: nested fault, its fields are filled in.
   */
  protected abstract tableFrame(gfn: number, offset: number): number;

  /** The host frame that the access ends at. Sets hostLevel and hostAttr. Negative: nested fault. */
  protected abstract finalFrame(gfn: number, offset: number, access: number): number;

  /** May A or D be set in the entry that was read last? False: nested fault. Only EPT without A and D asks anew. */
  protected mayUpdate(): boolean {
    return true;
  }

  /** Paging mode and CTL_ bits; to be called when CR0, CR4, EFER or EFLAGS.AC change. Cheap unless mode or NX changes. */
  setMode(mode: number, controls: number): void {
    if (mode !== this.mode || (controls ^ this.controls) & CTL_NX) {
      fillReserved(this.reserved, mode, (controls & CTL_NX) !== 0, this.model);
    }
    this.mode = mode;
    this.controls = controls;
    const fetchReported = (controls & CTL_NX && mode >= PAGING_PAE) || controls & CTL_SMEP;
    this.reportedBits = fetchReported ? ACCESS_ERROR_BITS : ACCESS_ERROR_BITS & ~PFERR_FETCH_LO;
  }

  /**
   * Reads PAE's top-level entries into the registers, as a load of CR3 does on CPUs that keep them. WALK_OK,
   * PDPTES_INVALID or WALK_NESTED; the registers change only on WALK_OK.
   */
  loadPdptes(): number {
    const offset = this.cr3Lo & CR3_PAE_TABLE_LO & 0xfff;
    const pfn = this.tableFrame(this.cr3Lo >>> 12, offset);
    if (pfn < 0) return WALK_NESTED;
    const { pdpteLo, pdpteHi } = this.reserved;
    for (let i = 0; i < 8; i += 2) {
      const lo = this.memory.read32(pfn, offset + 4 * i);
      const hi = this.memory.read32(pfn, offset + 4 * i + 4);
      if (lo & PTE_P_LO && (lo & pdpteLo) | (hi & pdpteHi)) return PDPTES_INVALID;
    }
    for (let i = 0; i < 8; i++) this.pdptes[i] = this.memory.read32(pfn, offset + 4 * i);
    return WALK_OK;
  }

  /** Translates an address: WALK_OK, WALK_NESTED, WALK_NONCANONICAL, or the error code of the guest's #PF. */
  walk(lo: number, hi: number, access: number): number {
    switch (this.mode) {
      case PAGING_NONE:
        this.guestLevel = 0;
        return this.finish(lo >>> 12, ATTR_W | ATTR_U | ATTR_D, 3, 0, lo, access);
      case PAGING_32:
        return this.walk32(lo, access);
      case PAGING_PAE:
        return this.walkPae(lo, access);
      default: {
        if (!isCanonical(this.mode, hi)) return WALK_NONCANONICAL;
        const root = (this.cr3Lo >>> 12) + (this.cr3Hi & PTE_FRAME_HI) * 0x100000;
        return this.walk64(root, this.mode, lo, hi, access);
      }
    }
  }

  private walk32(lo: number, access: number): number {
    const memory = this.memory;
    const dirOffset = (lo >>> 20) & 0xffc;
    let pfn = this.tableFrame((this.cr3Lo & CR3_TABLE_LO) >>> 12, dirOffset);
    if (pfn < 0) return WALK_NESTED;
    this.guestLevel = 2;
    const dir = memory.read32(pfn, dirOffset);
    if (!(dir & PTE_P_LO)) return this.fault(0, access);
    if (dir & PTE_PS_LO && this.controls & CTL_PSE) {
      if (dir & this.reserved.large2Lo) return this.fault(this.rsvdError, access);
      const high = (dir & PSE36_FRAME_HIGH_LO) >>> PSE36_FRAME_HIGH_SHIFT;
      const gfn = ((dir >>> 22) << 10) + high * 0x100000 + ((lo >>> 12) & 0x3ff);
      return this.leaf(pfn, dirOffset, dir, 0, dir, 0, gfn, 2, lo, access);
    }
    if (!(dir & PTE_A_LO)) {
      if (!this.mayUpdate()) return WALK_NESTED;
      memory.write32(pfn, dirOffset, dir | PTE_A_LO);
    }
    const offset = (lo >>> 10) & 0xffc;
    pfn = this.tableFrame(dir >>> 12, offset);
    if (pfn < 0) return WALK_NESTED;
    this.guestLevel = 1;
    const entry = memory.read32(pfn, offset);
    if (!(entry & PTE_P_LO)) return this.fault(0, access);
    return this.leaf(pfn, offset, entry, 0, dir & entry, 0, entry >>> 12, 1, lo, access);
  }

  private walkPae(lo: number, access: number): number {
    this.guestLevel = 3;
    const slot = lo >>> 30;
    if (this.pdptesInRegisters) {
      const entryLo = this.pdptes[2 * slot];
      if (!(entryLo & PTE_P_LO)) return this.fault(0, access);
      return this.walk64(frameOf(entryLo, this.pdptes[2 * slot + 1]), 2, lo, 0, access);
    }
    const offset = (this.cr3Lo & CR3_PAE_TABLE_LO & 0xfff) + 8 * slot;
    const pfn = this.tableFrame(this.cr3Lo >>> 12, offset);
    if (pfn < 0) return WALK_NESTED;
    const entryLo = this.memory.read32(pfn, offset);
    const entryHi = this.memory.read32(pfn, offset + 4);
    if (!(entryLo & PTE_P_LO)) return this.fault(0, access);
    if ((entryLo & this.reserved.pdpteLo) | (entryHi & this.reserved.pdpteHi)) {
      return this.fault(this.rsvdError, access);
    }
    if (this.pdpteAccessed && !(entryLo & PTE_A_LO)) this.memory.write32(pfn, offset, entryLo | PTE_A_LO);
    return this.walk64(frameOf(entryLo, entryHi), 2, lo, 0, access);
  }

  /** Tables of 8-byte entries from `level` down. `table` is the guest frame of the first one. */
  private walk64(table: number, top: number, lo: number, hi: number, access: number): number {
    const memory = this.memory;
    const reserved = this.reserved;
    let low = PTE_W_LO | PTE_U_LO;
    let nx = 0;
    for (let gfn = table, level = top; ; level--) {
      const offset = tableIndex(level, lo, hi) << 3;
      const pfn = this.tableFrame(gfn, offset);
      if (pfn < 0) return WALK_NESTED;
      this.guestLevel = level;
      const entryLo = memory.read32(pfn, offset);
      const entryHi = memory.read32(pfn, offset + 4);
      if (!(entryLo & PTE_P_LO)) return this.fault(0, access);
      if (entryHi & reserved.hi) return this.fault(this.rsvdError, access);
      low &= entryLo;
      nx |= entryHi & PTE_NX_HI;
      gfn = frameOf(entryLo, entryHi);
      if (level === 1) return this.leaf(pfn, offset, entryLo, entryHi, low, nx, gfn, 1, lo, access);
      if (level > 3) {
        if (entryLo & reserved.upperLo) return this.fault(this.rsvdError, access);
      } else if (entryLo & PTE_PS_LO) {
        if (entryLo & (level === 2 ? reserved.large2Lo : reserved.large3Lo)) return this.fault(this.rsvdError, access);
        const inside = level === 2 ? 511 : 0x3ffff;
        const page = gfn - (gfn & inside) + ((lo >>> 12) & inside);
        return this.leaf(pfn, offset, entryLo, entryHi, low, nx, page, level, lo, access);
      }
      if (!(entryLo & PTE_A_LO)) {
        if (!this.mayUpdate()) return WALK_NESTED;
        memory.write32(pfn, offset, entryLo | PTE_A_LO);
      }
    }
  }

  private leaf(
    pfn: number,
    offset: number,
    entryLo: number,
    entryHi: number,
    low: number,
    nx: number,
    gfn: number,
    level: number,
    lo: number,
    access: number,
  ): number {
    let entry = entryLo;
    if (level === 3 && this.gigabyteAccessedEarly && !(entry & PTE_A_LO)) {
      this.memory.write32(pfn, offset, (entry |= PTE_A_LO));
    }
    const global = this.controls & CTL_PGE ? entry & ATTR_G : 0;
    const attr = (low & (ATTR_W | ATTR_U)) | nx | (entryHi & ATTR_PK) | global;
    const denied = rightsFault(attr, access, this.controls, this.pkru);
    if (denied !== WALK_OK) return this.fault(denied, access);
    const set = access & ACCESS_WRITE ? PTE_A_LO | PTE_D_LO : PTE_A_LO;
    if ((entry & set) !== set) {
      if (!this.mayUpdate()) return WALK_NESTED;
      this.memory.write32(pfn, offset, (entry |= set));
    }
    return this.finish(gfn, attr | (entry & ATTR_D), level, this.pageShift(level), lo, access);
  }

  /** 4 MiB pages are cached as two of 2 MiB. */
  private pageShift(level: number): number {
    return level === 2 && this.mode === PAGING_32 ? 22 : 3 + 9 * level;
  }

  /** `pageShift` 0: there is no guest page, so the nested page takes its place. */
  private finish(gfn: number, attr: number, level: number, pageShift: number, lo: number, access: number): number {
    const pfn = this.finalFrame(gfn, lo & 0xfff, access);
    if (pfn < 0) return WALK_NESTED;
    this.gfn = gfn;
    this.pfn = pfn;
    this.level = level < this.hostLevel ? level : this.hostLevel;
    this.attr = attr | this.hostAttr | ((pageShift || 3 + 9 * this.hostLevel) << ATTR_PAGE_SHIFT_AT);
    return WALK_OK;
  }

  private fault(bits: number, access: number): number {
    return bits | (access & this.reportedBits);
  }
}

/** An int as long as it fits: the sum is slow. */
function frameOf(entryLo: number, entryHi: number): number {
  const high = entryHi & PTE_FRAME_HI;
  return high < 0x400 ? (high << 20) | (entryLo >>> 12) : high * 0x100000 + (entryLo >>> 12);
}

/** A CPU without a second dimension: guest frames are host frames. */
export class BareWalker extends GuestWalker {
  protected override tableFrame(gfn: number): number {
    return gfn;
  }

  protected override finalFrame(gfn: number): number {
    return gfn;
  }
}
