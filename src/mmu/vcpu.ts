/**
 * What the MMU keeps for each vCPU: the roots in use, the mode they were made for, the one-entry MMIO cache, pending
 * requests. Source: Linux 6.1 struct kvm_mmu, struct kvm_vcpu_arch.
 */
import type { TableArena } from '../mem/table-arena.ts';
import { VcpuStats } from '../trace/stats.ts';
import { GuestWalk } from './guest-walk.ts';
import { PageFault } from './page-fault.ts';
import { ShadowWalk } from './shadow-walk.ts';
import { TdpIter } from './tdp-mmu/tdp-iter.ts';

/** The guest's registers as far as the MMU reads them. 64-bit ones as word pairs. */
export interface GuestRegs {
  ripLo: number;
  ripHi: number;
  cr0: number;
  cr3Lo: number;
  cr3Hi: number;
  cr4: number;
  efer: number;
  pkru: number;
  /** Current privilege level, 0 or 3. */
  cpl: number;
  /** EFLAGS.AC. */
  ac: boolean;
  /** Four page-directory-pointer entries as loaded by the last mov to CR3 of a PAE guest; lo, hi each. */
  readonly pdptrs: Int32Array;
}

/** What the MMU asks of the CPU that runs the guest. */
export interface VcpuPort {
  /** The hypervisor of a nested guest is told of a nested page fault: it runs again. @kvm nested_svm_inject_npf_exit */
  leaveNestedGuest(errorCode: number): void;
  /** A #PF is to be delivered to the guest; sets CR2. */
  queuePageFault(errorCode: number, addrLo: number, addrHi: number): void;
  /** Bring `regs.pdptrs` up to memory if they may be stale. @kvm kvm_pdptr_read */
  refreshPdptrs(): void;
  /** Drop the translations of one address. @kvm flush_tlb_gva */
  flushTlbGva(lo: number, hi: number): void;
  /** Leave the guest, so that what the CPU keeps to itself of dirty pages is told. Only called where it does. */
  kick(): void;
  /** Drop the translations of the address space in use. @kvm flush_tlb_current */
  flushTlbCurrent(): void;
}

/** A root that was used: its page (0 none), and the guest CR3 that it shadows. @kvm kvm_mmu_root_info */
export interface RootInfo {
  /** SpId of the root page; 0 none; PAE_ROOT: the four entries in `paeRoot`. */
  sp: number;
  pgdLo: number;
  pgdHi: number;
}

/** Marks that the root is the vCPU's own table of four entries, behind which no shadow page stands. */
export const PAE_ROOT = -1;
/** @kvm KVM_MMU_NUM_PREV_ROOTS */
export const NUM_PREV_ROOTS = 3;
/** Tables that a cache holds after a top-up. @kvm KVM_ARCH_NR_OBJS_PER_MEMORY_CACHE */
const CACHE_CAPACITY = 40;
/** Tables that one fault may need. @kvm PT64_ROOT_MAX_LEVEL */
const CACHE_MINIMUM = 5;

function noRoot(): RootInfo {
  return { sp: 0, pgdLo: 0, pgdHi: 0 };
}

/**
 * What depends on whose tables the CPU walks: a vCPU has one for the guest and, while a nested guest runs under its
 * hypervisor's nested tables, uses another. @kvm kvm_mmu
 */
export class MmuContext {
  root = noRoot();
  prevRoots: RootInfo[] = [noRoot(), noRoot(), noRoot()];
  rootRole = 0;
  cpuRole = 0;
  cpuRoleExt = 0;
  permissions = new Uint8Array(16);
  pkruMask = 0;
  rsvdLo = new Int32Array(10);
  rsvdHi = new Int32Array(10);
}

export class MmuVcpu {
  readonly id: number;
  readonly regs: GuestRegs;
  readonly port: VcpuPort;
  readonly stats = new VcpuStats();
  requests = 0;

  /** The root in use. */
  root = noRoot();
  /** Roots used before, most recent first. */
  prevRoots: RootInfo[] = [noRoot(), noRoot(), noRoot()];
  /** How the tables in use are made (a role word); 0: not initialised. */
  rootRole = 0;
  /** The guest's own mode: a role word, and its extension. */
  cpuRole = 0;
  cpuRoleExt = 0;
  /** Table whose first four entries are the PAE roots; hardware's CR3 points at it. 0 where it isn't needed. */
  paeRootTable = 0;
  /** SpIds in `paeRootTable`, 0 for an absent one. @kvm pae_root */
  readonly paeRoots = new Int32Array(4);

  /** Permission faults by (error code >> 1) and rights: a bit for each rights combination. @kvm permissions */
  permissions = new Uint8Array(16);
  pkruMask = 0;
  /** Reserved bits of guest entries: [large][level - 1], five levels each. @kvm guest_rsvd_check */
  rsvdLo = new Int32Array(10);
  rsvdHi = new Int32Array(10);

  /** A nested guest runs, and the fields above are about its tables; `idle` has those about the guest's. */
  isNested = false;
  /** The other ones: about a nested guest's tables while none runs. @kvm root_mmu, guest_mmu */
  readonly idle = new MmuContext();
  /** The nested guest's own paging mode, which KVM needs only to emulate its instructions. @kvm nested_mmu */
  readonly own = new MmuContext();
  /** A walk of the nested guest's own tables is under way, and the fields are about those. */
  walksOwn = false;
  /** Where each of them is, by the hypervisor's nested tables. */
  readonly translation = new GuestWalk();
  /** The nested guest's root, which its hypervisor has set: nCR3. */
  nestedCr3Lo = 0;
  nestedCr3Hi = 0;

  /** One-entry cache of the last MMIO access. Page of the gva (0: none) as word pair. */
  mmioGvaLo = 0;
  mmioGvaHi = 0;
  mmioGfn = 0;
  mmioAccess = 0;
  mmioGen = -1;

  /** The walk of KVM's tables and that of the guest's which the fault at hand makes. */
  readonly walk = new ShadowWalk();
  readonly tdpIter = new TdpIter();
  readonly guestWalk = new GuestWalk();
  readonly fault = new PageFault();

  /** Tables taken from the arena before the lock is taken. @kvm mmu_shadow_page_cache */
  private readonly tables = new Int32Array(CACHE_CAPACITY);
  private tableCount = 0;

  constructor(id: number, regs: GuestRegs, port: VcpuPort) {
    this.id = id;
    this.regs = regs;
    this.port = port;
  }

  /** The guest's own root, or the one that a nested guest's hypervisor gave it. @kvm kvm_mmu_get_guest_pgd */
  get pgdLo(): number {
    return this.isNested && !this.walksOwn ? this.nestedCr3Lo : this.regs.cr3Lo;
  }
  get pgdHi(): number {
    return this.isNested && !this.walksOwn ? this.nestedCr3Hi : this.regs.cr3Hi;
  }

  get isDirect(): boolean {
    return (this.rootRole & 0x80) !== 0;
  }

  /** Fills the cache if it couldn't serve one fault. @kvm mmu_topup_memory_caches */
  topUp(arena: TableArena): void {
    if (this.tableCount >= CACHE_MINIMUM) return;
    while (this.tableCount < CACHE_CAPACITY) this.tables[this.tableCount++] = arena.alloc();
  }

  /** A zeroed table out of the cache. @kvm kvm_mmu_memory_cache_alloc */
  takeTable(): number {
    if (this.tableCount === 0) throw new Error('INVARIANT cache: a table was needed that was not topped up');
    return this.tables[--this.tableCount];
  }

  /** Gives the cache back, as a vCPU does that goes away. @kvm mmu_free_memory_caches */
  releaseTables(arena: TableArena): void {
    while (this.tableCount > 0) arena.free(this.tables[--this.tableCount]);
  }

  /** Tables in the cache. */
  get cachedTables(): number {
    return this.tableCount;
  }
}
