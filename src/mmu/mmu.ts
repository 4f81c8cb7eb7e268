/**
 * The state of a VM's MMU: tables, shadow pages, lists, slots, counters. No behaviour but the smallest; the functions
 * of this room take an `Mmu` first, as the kernel's take a `struct kvm`.
 *
 *     guest access ---> fault.ts ---> fast-fault.ts                 write bit back, no lock
 *                          |---> direct-fault.ts / shadow-fault.ts  find frame, level, tables
 *                          `---> set-spte.ts ---> make-spte.ts      one entry, its rmap, its dirty mark
 *     ioctl, notifier ---> dirty-log.ts, notifier.ts, zap.ts        rights taken away: return "flush needed"
 *
 * Functions that take rights away return true when some TLB may still hold them; callers flush once, at the end.
 */
import type { DirtyRings } from './dirty-rings.ts';
import type { HostMemory } from '../mem/host-memory.ts';
import { ADDRESS_SPACES, type MemSlot, Memslots } from '../mem/memslots.ts';
import { TableArena } from '../mem/table-arena.ts';
import { VmStats } from '../trace/stats.ts';
import type { Tracer } from '../trace/tracer.ts';
import { KERNEL_6_1, type KernelVersion } from './kernel-version.ts';
import { type Bugs, NO_BUGS } from './bugs.ts';
import { LINUX_6_1, type Policy } from './policy.ts';
import { PteLists } from './pte-list.ts';
import { type EptFeatures, eptFormat, type SpteFormat, X86_64_FORMAT } from './spte-format.ts';
import { REQ_TLB_FLUSH } from './requests.ts';
import { isInvalidRole, roleAddressSpace } from './role.ts';
import { ShadowPages } from './shadow-pages.ts';
import { SplitCaches } from './split-large.ts';
import type { MmuVcpu } from './vcpu.ts';

export interface MmuConfig {
  readonly host: HostMemory;
  readonly trace: Tracer;
  /** Two-dimensional paging; false: shadow paging. */
  readonly tdp: boolean;
  readonly policy?: Policy;
  /** Linux 6.1 if absent. */
  readonly kernel?: KernelVersion;
  /** What shall be as it was before somebody mended it. */
  readonly bugs?: Bugs;
  readonly nxHugePages?: boolean;
  /** Two-dimensional paging by the TDP MMU in place of the rmap-based engine. @kvm tdp_mmu_enabled */
  readonly tdpMmu?: boolean;
  /** Two-dimensional paging in EPT's format; NPT's if absent. */
  readonly ept?: EptFeatures;
  /** Levels of the host's own tables, and so of NPT's; EPT has 5 only if the guest's addresses need them. 4 if absent. */
  readonly hostLevels?: 4 | 5;
  /** Of the guest's CPU; 40 if absent. @kvm cpuid_maxphyaddr */
  readonly guestMaxphyaddr?: number;
  /** Only the TDP MMU heeds it; absent: what the policy says. @kvm eager_page_split */
  readonly eagerPageSplit?: boolean;
}

/** @kvm PML_ENTITY_NUM */
const CPU_DIRTY_LOG_SIZE = 512;
const GUEST_MAXPHYADDR = 40;
const FOUR_LEVEL_BITS = 48;

export class Mmu {
  readonly arena = new TableArena();
  readonly pages = new ShadowPages(this.arena);
  readonly lists = new PteLists();
  readonly stats = new VmStats();
  readonly slots: readonly Memslots[] = Array.from({ length: ADDRESS_SPACES }, (_, i) => new Memslots(i));
  readonly vcpus: MmuVcpu[] = [];
  readonly host: HostMemory;
  readonly trace: Tracer;
  readonly tdp: boolean;
  readonly tdpMmu: boolean;
  readonly policy: Policy;
  readonly kernel: KernelVersion;
  readonly bugs: Bugs;
  /** Of the entries that this MMU writes. */
  readonly format: SpteFormat;
  /** What is used of EPT; null: tables are NPT's, or shadow tables. */
  readonly ept: EptFeatures | null;
  /** The CPU keeps no A and D in them. @kvm kvm_ad_enabled */
  readonly adDisabled: boolean;
  /** Entries of the CPU's own log of dirty pages; 0: it has none. @kvm cpu_dirty_log_size */
  readonly cpuDirtyLogSize: number;
  /** Levels of the tables of two-dimensional paging. @kvm kvm_mmu_get_tdp_level */
  readonly tdpLevel: 4 | 5;
  /** @kvm cpuid_maxphyaddr */
  readonly guestMaxphyaddr: number;

  /** @kvm nx_huge_pages */
  nxHugePages: boolean;
  /** Splits large leaves when their log starts or is cleared. @kvm eager_page_split */
  eagerPageSplit: boolean;
  /** Pages that stand where a huge page could, oldest first. @kvm lpage_disallowed_mmu_pages, possible_nx_huge_pages */
  readonly possibleNxPages: number[] = [];
  /** @kvm disabled_quirks */
  disabledQuirks = 0;
  /** Dirty log modes. @kvm manual_dirty_log_protect */
  manualProtect = false;
  initiallySet = false;
  /** Slots that are logged. @kvm cpu_dirty_logging_count */
  cpuDirtyLoggingCount = 0;
  /** Dirty rings in place of bitmaps. */
  rings: DirtyRings | null = null;

  /** Frames in all slots. @kvm nr_memslot_pages */
  nSlotPages = 0;
  nUsedPages = 0;
  nMaxPages = 0;
  /** For splitting under the lock. */
  readonly splitCaches = new SplitCaches();
  /** What user space asked for; 0: automatic. */
  nRequestedPages = 0;
  validGen = 0;
  /** Valid pages that mirror guest tables; gate of everything that looks for one. */
  indirectShadowPages = 0;
  shadowRootAllocated = false;

  /** Roots of the TDP MMU, newest first, invalid ones included. @kvm tdp_mmu_roots */
  readonly tdpRoots: number[] = [];
  /** Pages linked below them. @kvm tdp_mmu_pages */
  nTdpPages = 0;
  /** Walks under way that nothing may be freed under, and the pages that wait for their end. */
  rcuReaders = 0;
  readonly rcuPending: number[] = [];

  invalidateInProgress = 0;
  invalidateSeq = 0;
  invalidateRangeStart = 0;
  invalidateRangeEnd = 0;

  /** Set by the last `prepareZapPage`: it zapped other pages too, so that a walk of the list must start anew. */
  zapUnstable = false;
  /** An entry as `makeSpte` left it. */
  spteLo = 0;
  spteHi = 0;
  /** Scratch: frames of a prefetched run. */
  readonly prefetchPfns = new Int32Array(8);
  /** Scratch for copies out of guest memory. */
  readonly bytes = new Uint8Array(64);
  readonly words = new Int32Array(this.bytes.buffer);

  constructor(config: MmuConfig) {
    this.host = config.host;
    this.trace = config.trace;
    this.tdp = config.tdp;
    this.tdpMmu = config.tdp && config.tdpMmu === true;
    this.policy = config.policy ?? LINUX_6_1;
    this.kernel = config.kernel ?? KERNEL_6_1;
    this.bugs = config.bugs ?? NO_BUGS;
    this.eagerPageSplit = config.eagerPageSplit ?? this.policy.onProtect === 'eager';
    this.nxHugePages = config.nxHugePages ?? false;
    const ept = config.tdp ? config.ept : undefined;
    this.ept = ept ?? null;
    this.format = ept === undefined ? X86_64_FORMAT : eptFormat(ept, this.kernel.suppressVe);
    this.adDisabled = this.format.accessedLo === 0;
    this.cpuDirtyLogSize = ept !== undefined && ept.pml && ept.ad ? CPU_DIRTY_LOG_SIZE : 0;
    this.guestMaxphyaddr = config.guestMaxphyaddr ?? GUEST_MAXPHYADDR;
    const fourSuffice = ept !== undefined && this.guestMaxphyaddr <= FOUR_LEVEL_BITS;
    this.tdpLevel = fourSuffice ? 4 : (config.hostLevels ?? 4);
  }
}

/** Zapped, or of an older generation; pages of the TDP MMU have none. @kvm is_obsolete_sp */
export function isObsolete(mmu: Mmu, sp: number): boolean {
  const { pages } = mmu;
  return isInvalidRole(pages.role[sp]) || (pages.tdp[sp] === 0 && pages.validGen[sp] !== mmu.validGen);
}

/** Slot of a gfn in the address space of a shadow page's role. @kvm kvm_memslots_for_spte_role, __gfn_to_memslot */
export function slotForRole(mmu: Mmu, role: number, gfn: number): MemSlot {
  const slot = mmu.slots[roleAddressSpace(role)].find(gfn);
  if (slot === null) throw new Error(`INVARIANT rmap: an entry maps gfn ${gfn.toString(16)}, which is in no slot`);
  return slot;
}

/** Slot that a vCPU sees at gfn. SMM is not built: always address space 0. @kvm kvm_vcpu_gfn_to_memslot */
export function vcpuSlot(mmu: Mmu, _vcpu: MmuVcpu, gfn: number): MemSlot | null {
  return mmu.slots[0].find(gfn);
}

/** @kvm kvm_make_all_cpus_request */
export function requestAll(mmu: Mmu, request: number): void {
  for (const vcpu of mmu.vcpus) vcpu.requests |= request;
  if (mmu.cpuDirtyLogSize !== 0) kickAll(mmu);
}

/** Every vCPU leaves the guest; what its CPU has logged of dirty pages comes into the log with that. @kvm kvm_vcpu_kick */
export function kickAll(mmu: Mmu): void {
  for (const vcpu of mmu.vcpus) vcpu.port.kick();
}

/**
 * Asks every vCPU to flush its TLB before it runs guest code again. The vCPUs of one thread never run while this is
 * called, so that no interrupt is needed and `remote_tlb_flush` stays. @kvm kvm_flush_remote_tlbs
 */
export function flushRemoteTlbs(mmu: Mmu): void {
  mmu.stats.remote_tlb_flush_requests++;
  requestAll(mmu, REQ_TLB_FLUSH);
}

/** A ranged flush: x86 without Hyper-V has none, so everything goes. @kvm kvm_flush_remote_tlbs_with_address */
export function flushRemoteTlbsRange(mmu: Mmu, _startGfn: number, _pages: number): void {
  flushRemoteTlbs(mmu);
}
