/**
 * What the guest of the model-based tests may see: memory, tables and what a TLB may make of them. The oracle's rules
 * (oracle/memory-model.ts) for one machine, on plain numbers, because a step has microseconds; the driver holds a share of
 * its answers against the oracle itself.
 *
 * A translation is legal for a vCPU if the guest's tables gave it at any time since the vCPU last flushed it: that is
 * all that a TLB, a prefetch or a shadow page that is out of sync may hold. What slots and host say is never stale:
 * their changes end with a flush.
 */
import {
  FIRST_TABLE,
  HOST_PAGES,
  LAST_TABLE,
  LOW_HOST_PAGE,
  OTHER_BASE,
  PTE_A,
  PTE_D,
  PTE_NX_HI,
  PTE_P,
  PTE_PS,
  PTE_RSVD_HI,
  PTE_U,
  PTE_W,
  ROOTS,
  SLOT_PLANS,
  VAS,
  WORDS_PER_PAGE,
} from './guest-image.ts';

export const ACCESS_READ = 0;
export const ACCESS_WRITE = 1;
export const ACCESS_FETCH = 2;

/** Of a translation: valid, its rights, the leaf's D, A on all levels; or reserved bits. */
const VALID = 1;
const W = 2;
const U = 4;
const NX = 8;
const DIRTY = 16;
const ACCESSED = 32;
const RSVD = 64;
const INFO_BITS = 7;

/** A gfn that no table maps. */
const NOWHERE = 0x7ffff;

/** How an access may end. */
export const END_MEMORY = 0;
export const END_MMIO = 1;
export const END_EFAULT = 2;
export const END_FAULT = 3;

export class ModelSlot {
  readonly id: number;
  readonly pages: number;
  readonly hostPage: number;
  readonly readonly: boolean;
  baseGfn: number;
  present = true;
  logs = false;
  /** Made where MMIO entries may be left. */
  wasHole = false;

  constructor(id: number) {
    const plan = SLOT_PLANS[id];
    this.id = id;
    this.pages = plan.pages;
    this.hostPage = plan.hostPage;
    this.readonly = plan.readonly;
    this.baseGfn = plan.baseGfn;
  }
}

/** The control registers that rights depend on. */
export interface ModelControls {
  root: number;
  wp: boolean;
  smep: boolean;
  smap: boolean;
}

/**
 * Linux 6.1 brings an MMIO entry of a page that was out of sync up to the present generation of slots without a look at
 * the slots (sync_mmio_spte). So under shadow paging a guest may go on seeing MMIO where a slot has been made since the
 * entry was, until everything is zapped.
 */
const MMIO_OUTLIVES_NEW_SLOT = 'shadow';

/** One way for an access to end. */
export interface Ending {
  kind: number;
  gfn: number;
  slot: number;
  hostPage: number;
  error: number;
}

export class GuestModel {
  readonly words = new Int32Array(HOST_PAGES * WORDS_PER_PAGE);
  /** By host page: 2 write, 1 read, 0 nothing. */
  readonly rights = new Uint8Array(HOST_PAGES).fill(2);
  readonly slots: readonly ModelSlot[] = SLOT_PLANS.map((plan) => new ModelSlot(plan.id));
  readonly controls: ModelControls[];
  private readonly paging: 'tdp' | 'shadow';
  /** By vCPU and address: what the tables say, as gfn << 7 | info. */
  private readonly current: Float64Array[];
  /** By vCPU and address: what they said before, since the last flush. */
  private readonly stale: number[][][];

  /** The path of the last walk: indices of words, root first. */
  readonly path = new Int32Array(4);
  pathLength = 0;
  pathEndsInLeaf = false;

  /** Filled by `endings`: [0] is what a fresh walk gives. */
  readonly found: Ending[] = Array.from({ length: 64 }, () => ({ kind: 0, gfn: 0, slot: 0, hostPage: 0, error: 0 }));
  foundCount = 0;

  constructor(vcpus: number, paging: 'tdp' | 'shadow') {
    this.paging = paging;
    this.controls = Array.from({ length: vcpus }, () => ({ root: ROOTS[0], wp: true, smep: false, smap: false }));
    this.current = this.controls.map(() => new Float64Array(VAS.length));
    this.stale = this.controls.map(() => VAS.map(() => []));
  }

  slotOf(gfn: number): ModelSlot | null {
    for (const slot of this.slots)
      if (slot.present && gfn >= slot.baseGfn && gfn < slot.baseGfn + slot.pages) return slot;
    return null;
  }

  wordIndex(hostPage: number, offset: number): number {
    return hostPage * WORDS_PER_PAGE + (offset >>> 2);
  }

  /** Memory changes; so may translations. */
  store(hostPage: number, offset: number, lo: number, hi: number): void {
    const at = this.wordIndex(hostPage, offset);
    this.words[at] = lo;
    this.words[at + 1] = hi;
    if (isTablePage(hostPage)) this.retranslate(true);
  }

  /** A and D appeared in an entry. Nothing becomes stale by that; call `refresh` after the last. */
  addFlags(at: number, flags: number): void {
    this.words[at] |= flags;
  }

  refresh(): void {
    this.retranslate(false);
  }

  // ---- translation -------------------------------------------------------------------------------------------------

  /** Walks the tables below `root`; leaves the path. gfn << 7 | info. */
  walk(root: number, va: number): number {
    const { words, path } = this;
    let table = root;
    let info = W | U | ACCESSED;
    this.pathLength = 0;
    this.pathEndsInLeaf = false;
    for (let level = 4; ; level--) {
      const shift = 12 + 9 * (level - 1);
      const index = level === 4 ? 0 : level === 3 ? va >>> 30 : (va >>> shift) & 511;
      const at = (LOW_HOST_PAGE + table) * WORDS_PER_PAGE + 2 * index;
      const lo = words[at];
      const hi = words[at + 1];
      path[this.pathLength++] = at;
      if (!(lo & PTE_P)) return 0;
      if (hi & PTE_RSVD_HI) return RSVD;
      if (!(lo & PTE_W)) info &= ~W;
      if (!(lo & PTE_U)) info &= ~U;
      if (!(lo & PTE_A)) info &= ~ACCESSED;
      if (hi & PTE_NX_HI) info |= NX;
      const gfn = lo >>> 12;
      if (level === 1 || (level < 4 && lo & PTE_PS)) {
        if (lo & PTE_D) info |= DIRTY;
        this.pathEndsInLeaf = true;
        const inside = (1 << (shift - 12)) - 1;
        // Bit 7 of a level-1 entry is PAT.
        return ((((gfn & ~inside) | ((va >>> 12) & inside)) << INFO_BITS) | info | VALID) >>> 0;
      }
      table = gfn;
    }
  }

  /** The tables changed: what no longer holds may be stale in every vCPU that uses them. */
  private retranslate(leaveStale: boolean): void {
    for (let v = 0; v < this.current.length; v++) {
      const current = this.current[v];
      const { root } = this.controls[v];
      for (let i = 0; i < VAS.length; i++) {
        const next = this.walk(root, VAS[i]);
        const old = current[i];
        if (next === old) continue;
        if (leaveStale && (old & (VALID | ACCESSED)) === (VALID | ACCESSED)) {
          const list = this.stale[v][i];
          if (!list.includes(old)) list.push(old);
        }
        current[i] = next;
      }
    }
  }

  /** The vCPU forgot all translations. */
  flush(v: number): void {
    const { root } = this.controls[v];
    for (let i = 0; i < VAS.length; i++) {
      this.stale[v][i].length = 0;
      this.current[v][i] = this.walk(root, VAS[i]);
    }
  }

  /** The vCPU forgot one. */
  invalidate(v: number, i: number): void {
    this.stale[v][i].length = 0;
  }

  /** The gfns that an address may lead to on a vCPU: n = 0 is the fresh one. -1 after the last. */
  targetOf(v: number, i: number, n: number): number {
    if (n === 0) {
      const current = this.current[v][i];
      return current & VALID ? current >>> INFO_BITS : NOWHERE;
    }
    const list = this.stale[v][i];
    return n <= list.length ? list[n - 1] >>> INFO_BITS : -1;
  }

  /** Did the tables, at any time since the vCPU's flush, let the user reach the address, or code run there? */
  mayHave(v: number, i: number, user: boolean, execute: boolean): boolean {
    const has = (info: number): boolean =>
      (info & VALID) !== 0 && (!user || (info & U) !== 0) && (!execute || !(info & NX));
    return has(this.current[v][i]) || this.stale[v][i].some(has);
  }

  /**
   * May an access meet an MMIO entry, be it out of date? Such an entry faults before its rights are looked at, and KVM's
   * emulator gives a fetch up that it can't complete.
   */
  mayMeetMmio(v: number, i: number): boolean {
    for (let n = 0; ; n++) {
      const gfn = this.targetOf(v, i, n);
      if (gfn < 0) return false;
      if (gfn === NOWHERE) continue;
      if (this.mayBeMmio(gfn)) return true;
    }
  }

  private mayBeMmio(gfn: number): boolean {
    const slot = this.slotOf(gfn);
    return slot === null || (slot.wasHole && this.paging === MMIO_OUTLIVES_NEW_SLOT);
  }

  // ---- accesses ----------------------------------------------------------------------------------------------------

  /** Fills `found` with all ways in which an access may legally end. */
  endings(v: number, i: number, access: number, user: boolean): void {
    this.foundCount = 0;
    const current = this.current[v][i];
    const error = this.faultOf(current, v, access, user);
    if (error >= 0) this.add(END_FAULT, 0, error);
    else this.end(current >>> INFO_BITS, access);
    for (const item of this.stale[v][i]) {
      if (this.faultOf(item, v, access, user) >= 0) continue;
      const gfn = item >>> INFO_BITS;
      if (access !== ACCESS_WRITE || item & DIRTY) this.end(gfn, access);
      // What a vCPU remembers of MMIO it remembers without D.
      else if (this.mayBeMmio(gfn)) this.add(END_MMIO, gfn, 0);
    }
  }

  /** The ways in which an access to a guest-physical page may end: one. */
  endingOf(gfn: number, access: number): Ending {
    this.foundCount = 0;
    this.end(gfn, access);
    return this.found[0];
  }

  /** Must A and D be set after an access that only a fresh walk can have served? */
  get onlyFresh(): boolean {
    return this.foundCount === 1;
  }

  private add(kind: number, gfn: number, error: number): Ending {
    const ending = this.found[this.foundCount++];
    ending.kind = kind;
    ending.gfn = gfn;
    ending.error = error;
    ending.slot = -1;
    ending.hostPage = -1;
    return ending;
  }

  private end(gfn: number, access: number): void {
    const slot = this.slotOf(gfn);
    if (slot === null || (access === ACCESS_WRITE && slot.readonly)) {
      this.add(END_MMIO, gfn, 0);
      return;
    }
    const hostPage = slot.hostPage + gfn - slot.baseGfn;
    const needed = access === ACCESS_WRITE ? 2 : 1;
    const ending = this.add(this.rights[hostPage] >= needed ? END_MEMORY : END_EFAULT, gfn, 0);
    ending.slot = slot.id;
    ending.hostPage = hostPage;
    if (slot.wasHole && this.paging === MMIO_OUTLIVES_NEW_SLOT) this.add(END_MMIO, gfn, 0);
  }

  /** Everything was zapped. */
  zapAll(): void {
    for (const slot of this.slots) slot.wasHole = false;
  }

  /** The #PF's error code, or -1. EFER.NXE is on, protection keys are off, EFLAGS.AC is clear. */
  faultOf(translation: number, v: number, access: number, user: boolean): number {
    const asked = (access === ACCESS_WRITE ? 2 : access === ACCESS_FETCH ? 16 : 0) | (user ? 4 : 0);
    if (translation & RSVD) return asked | 9;
    if (!(translation & VALID)) return asked;
    return this.denies(translation, this.controls[v], access, user) ? asked | 1 : -1;
  }

  private denies(info: number, controls: ModelControls, access: number, user: boolean): boolean {
    if (user) {
      if (!(info & U)) return true;
      if (access === ACCESS_WRITE) return !(info & W);
      return access === ACCESS_FETCH && (info & NX) !== 0;
    }
    if (access === ACCESS_FETCH) return (info & NX) !== 0 || ((info & U) !== 0 && controls.smep);
    if (info & U && controls.smap) return true;
    return access === ACCESS_WRITE && controls.wp && !(info & W);
  }

  currentOf(v: number, i: number): number {
    return this.current[v][i];
  }
}

export function isTablePage(hostPage: number): boolean {
  return hostPage >= LOW_HOST_PAGE + FIRST_TABLE && hostPage <= LOW_HOST_PAGE + LAST_TABLE;
}
export { OTHER_BASE };
