/**
 * What one access of a vCPU may do in a VM: reach memory, become MMIO, fault into the guest, or stop KVM_RUN with
 * EFAULT. A sequential model: memslots, what the host lets be done to each page, guest memory as 64-bit words, and the
 * guest's own tables in it. `perform` carries the access out by the rules of today; `allowed` adds what a TLB may still
 * make of it.
 *
 *     va --(guest tables, in guest memory)--> gpa --(memslots)--> host address --(host)--> word
 *
 * What is not the CPU manual's but KVM's rule is marked so.
 *
 * | the access ends at                           | read, fetch        | write                         |
 * |----------------------------------------------|--------------------|-------------------------------|
 * | no memslot                                   | MMIO               | MMIO                          |
 * | read-only memslot                            | memory             | MMIO (KVM)                    |
 * | memslot, host page that may be written       | memory             | memory                        |
 * | memslot, host page that may only be read     | memory             | EFAULT                        |
 * | memslot, no host page                        | EFAULT             | EFAULT (read-only slot: MMIO) |
 *
 * | a guest table lies in                        | tdp                | shadow (KVM's own walk)       |
 * |----------------------------------------------|--------------------|-------------------------------|
 * | no memslot                                   | entry as if absent | entry as if absent            |
 * | read-only memslot                            | read; A, D not set | read; A, D not set            |
 * | memslot, host page that may only be read     | EFAULT             | read; #PF if A or D must be set |
 * | memslot, no host page                        | EFAULT             | entry as if absent            |
 *
 * A fetch that becomes MMIO can't be completed by KVM: it ends the run with an internal error.
 */
import { translate } from './translate.ts';
import type { TranslateInput } from './translate.ts';

/** What the host's own mapping (VMA and its rights) allows KVM to get of a page, after any fault it can resolve. */
export type HostRights = 'write' | 'read' | 'none';

export interface ModelSlot {
  id: number;
  baseGfn: bigint;
  pages: bigint;
  /** Host virtual page of the slot's first page. Slots may share host pages. */
  hostPage: bigint;
  /** KVM_MEM_READONLY. */
  readonly?: boolean;
}

/** The vCPU's registers and the access; what `translate` wants but for memory. */
export type ModelAccess = Omit<TranslateInput, 'read' | 'write' | 'accessedOnFault'> & {
  /** Stored by a write, 8 bytes; 0 if absent. `va` must be 8-byte aligned to look at values. */
  value?: bigint;
};

export type AccessOutcome =
  | { kind: 'memory'; gpa: bigint; slot: number; hostAddress: bigint; value: bigint }
  | { kind: 'mmio'; gpa: bigint; why: 'no-slot' | 'read-only-slot' }
  | { kind: 'guest-fault'; error: number }
  | { kind: 'host-fault'; gpa: bigint };

/** A translation that a TLB may hold: made by an access, and good until an invalidation that covers it. */
export interface CachedTranslation {
  page: bigint;
  hostPage: bigint;
  gfn: bigint;
  slot: number;
  /** What the entry grants: each kind of access that would have gone the same way without setting A or D. */
  grants: ReadonlySet<'r' | 'w' | 'x'>;
  /** The control state it was made in; used only under the same. */
  state: string;
}

const PAGE = 4096n;

/** Leaves the guest walk where the host can't give a table's page. */
class TableUnreachable extends Error {
  readonly gpa: bigint;
  readonly efault: boolean;
  constructor(gpa: bigint, efault: boolean) {
    super('guest table unreachable');
    this.gpa = gpa;
    this.efault = efault;
  }
}

export class MemoryModel {
  readonly paging: 'tdp' | 'shadow';
  /** Rights by host page; a page not listed may be written. */
  readonly host = new Map<bigint, HostRights>();
  /** Host memory by address of 8-byte words. */
  readonly words = new Map<bigint, bigint>();
  /** Host pages written since the caller last emptied it: by accesses, and by the A and D bits they set. */
  readonly writtenHostPages = new Set<bigint>();
  /** By vCPU. */
  readonly cached = new Map<number, CachedTranslation[]>();
  private readonly slots = new Map<number, ModelSlot>();

  constructor(paging: 'tdp' | 'shadow') {
    this.paging = paging;
  }

  /** Creates, moves or changes a slot. That ioctl leaves no TLB entry behind that contradicts it. */
  setSlot(slot: ModelSlot): void {
    this.deleteSlot(slot.id);
    this.slots.set(slot.id, { ...slot });
  }

  deleteSlot(id: number): void {
    this.slots.delete(id);
    for (const [vcpu, list] of this.cached) {
      this.cached.set(
        vcpu,
        list.filter((entry) => entry.slot !== id),
      );
    }
  }

  slotOf(gfn: bigint): ModelSlot | undefined {
    for (const slot of this.slots.values()) {
      if (gfn >= slot.baseGfn && gfn < slot.baseGfn + slot.pages) return slot;
    }
    return undefined;
  }

  /** The host takes rights of a page away or gives them; its notifier leaves no TLB entry behind that goes beyond. */
  setHost(hostPage: bigint, rights: HostRights): void {
    this.host.set(hostPage, rights);
    for (const [vcpu, list] of this.cached) {
      const kept = list.filter((entry) => entry.hostPage !== hostPage || rights === 'write');
      this.cached.set(vcpu, kept);
    }
  }

  hostRights(hostPage: bigint): HostRights {
    return this.host.get(hostPage) ?? 'write';
  }

  /** Host address of a guest physical one, whatever its rights; undefined without a slot. */
  hostAddress(gpa: bigint): bigint | undefined {
    const slot = this.slotOf(gpa / PAGE);
    return slot && (slot.hostPage + gpa / PAGE - slot.baseGfn) * PAGE + (gpa % PAGE);
  }

  /** Guest memory as user space sees it: no rights asked. */
  peek(gpa: bigint): bigint {
    const at = this.hostAddress(gpa);
    return at === undefined ? 0n : (this.words.get(at - (at % 8n)) ?? 0n);
  }

  poke(gpa: bigint, value: bigint): void {
    const at = this.hostAddress(gpa);
    if (at !== undefined) this.storeHost(at, value);
  }

  private storeHost(address: bigint, value: bigint): void {
    this.words.set(address - (address % 8n), BigInt.asUintN(64, value));
    this.writtenHostPages.add(address / PAGE);
  }

  private readTable(gpa: bigint, bytes: 4 | 8): bigint {
    const slot = this.slotOf(gpa / PAGE);
    if (!slot) throw new TableUnreachable(gpa, false);
    const at = this.hostAddress(gpa) as bigint;
    const rights = this.hostRights(at / PAGE);
    const tdpNeedsWrite = this.paging === 'tdp' && !slot.readonly;
    if (rights === 'none') throw new TableUnreachable(gpa, this.paging === 'tdp');
    if (rights === 'read' && tdpNeedsWrite) throw new TableUnreachable(gpa, true);
    const word = this.words.get(at - (at % 8n)) ?? 0n;
    return bytes === 8 ? word : (word >> (8n * (at % 8n))) & 0xffffffffn;
  }

  private writeTable(gpa: bigint, bytes: 4 | 8, value: bigint): void {
    const slot = this.slotOf(gpa / PAGE);
    if (!slot || slot.readonly) return;
    const at = this.hostAddress(gpa) as bigint;
    if (this.hostRights(at / PAGE) !== 'write') throw new TableUnreachable(gpa, false);
    if (bytes === 8) return this.storeHost(at, value);
    const shift = 8n * (at % 8n);
    const word = this.words.get(at - (at % 8n)) ?? 0n;
    this.storeHost(at, (word & ~(0xffffffffn << shift)) | (value << shift));
  }

  /** Carries the access out by the tables, slots and rights of this moment, and lets the vCPU's TLB keep it. */
  perform(vcpu: number, access: ModelAccess): AccessOutcome {
    const outcome = this.look(access);
    if (outcome.kind !== 'memory') return outcome;
    if (access.access === 'w') this.storeHost(outcome.hostAddress, access.value ?? 0n);
    const grants = new Set<'r' | 'w' | 'x'>();
    for (const kind of ['r', 'w', 'x'] as const) {
      const other = this.tryOut({ ...access, access: kind });
      if (!other.changed && other.outcome.kind === 'memory') grants.add(kind);
    }
    const list = this.cached.get(vcpu) ?? [];
    list.push({
      page: access.va / PAGE,
      hostPage: outcome.hostAddress / PAGE,
      gfn: outcome.gpa / PAGE,
      slot: outcome.slot,
      grants,
      state: stateOf(access),
    });
    this.cached.set(vcpu, list);
    return outcome;
  }

  /** The outcome now, and whether the walk would have changed memory; nothing is changed. */
  private tryOut(access: ModelAccess): { outcome: AccessOutcome; changed: boolean } {
    const words = new Map(this.words);
    const written = new Set(this.writtenHostPages);
    this.writtenHostPages.clear();
    const outcome = this.look(access);
    const changed = this.writtenHostPages.size > 0;
    this.words.clear();
    for (const [at, value] of words) this.words.set(at, value);
    this.writtenHostPages.clear();
    for (const page of written) this.writtenHostPages.add(page);
    return { outcome, changed };
  }

  /** Today's outcome, with A and D set, but without the access itself. */
  private look(access: ModelAccess): AccessOutcome {
    let result: ReturnType<typeof translate>;
    try {
      result = translate({
        ...access,
        read: (gpa, bytes) => this.readTable(gpa, bytes),
        write: (gpa, bytes, value) => this.writeTable(gpa, bytes, value),
        // KVM's own walk writes no flags unless the access is granted.
        accessedOnFault: this.paging === 'tdp' ? 'upper' : 'none',
      });
    } catch (stop) {
      if (!(stop instanceof TableUnreachable)) throw stop;
      if (stop.efault) return { kind: 'host-fault', gpa: stop.gpa - (stop.gpa % PAGE) };
      return { kind: 'guest-fault', error: absentError(access) };
    }
    if (!result.ok) return { kind: 'guest-fault', error: result.error };
    return this.end(result.pa, access.access);
  }

  /** What becomes of an access to a guest physical address; see the first table above. */
  end(gpa: bigint, access: 'r' | 'w' | 'x'): AccessOutcome {
    const slot = this.slotOf(gpa / PAGE);
    if (!slot) return { kind: 'mmio', gpa, why: 'no-slot' };
    if (access === 'w' && slot.readonly) return { kind: 'mmio', gpa, why: 'read-only-slot' };
    const hostAddress = this.hostAddress(gpa) as bigint;
    const rights = this.hostRights(hostAddress / PAGE);
    if (rights === 'none' || (rights === 'read' && access === 'w')) return { kind: 'host-fault', gpa };
    const value = this.words.get(hostAddress - (hostAddress % 8n)) ?? 0n;
    return { kind: 'memory', gpa, slot: slot.id, hostAddress, value };
  }

  /**
   * All host pages that the access may legally reach on this vCPU, now or through a translation that its TLB may have
   * kept, and how else it may legally end (a fault, MMIO). A and D are not set.
   */
  allowed(vcpu: number, access: ModelAccess): { hostPages: Set<bigint>; other: AccessOutcome | undefined } {
    const now = this.tryOut(access).outcome;
    const hostPages = new Set<bigint>();
    if (now.kind === 'memory') hostPages.add(now.hostAddress / PAGE);
    for (const entry of this.cached.get(vcpu) ?? []) {
      if (entry.page !== access.va / PAGE || entry.state !== stateOf(access)) continue;
      if (entry.grants.has(access.access)) hostPages.add(entry.hostPage);
    }
    return { hostPages, other: now.kind === 'memory' ? undefined : now };
  }

  /** INVLPG, or a flush of one address by KVM. */
  invalidatePage(vcpu: number, va: bigint): void {
    const list = this.cached.get(vcpu) ?? [];
    this.cached.set(
      vcpu,
      list.filter((entry) => entry.page !== va / PAGE),
    );
  }

  /** A load of CR3 or control registers, a flush by KVM; without a number, on all vCPUs. */
  invalidate(vcpu?: number): void {
    if (vcpu === undefined) this.cached.clear();
    else this.cached.delete(vcpu);
  }
}

/** What a cached translation's grants depend on. */
function stateOf(access: ModelAccess): string {
  const user = access.cpl3 && !access.implicit;
  return [access.mode, access.cr0, access.cr4, access.efer, access.pkru, access.ac, user, access.implicit].join();
}

/** The error code of an absent entry, for this access. */
function absentError(access: ModelAccess): number {
  const result = translate({ ...access, pdptes: [0n, 0n, 0n, 0n], read: () => 0n, write: () => undefined });
  return result.ok ? 0 : result.error;
}
