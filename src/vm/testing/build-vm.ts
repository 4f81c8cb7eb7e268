/** Small virtual machines without guest software, for tests: nested paging on a flat host, and what to ask of them. */
import { expect } from 'vitest';
import { KvmError } from '../../base/errno.ts';
import { FLAT_HVA, FlatHost } from '../../mem/flat-host.ts';
import type { MemSlot } from '../../mem/memslots.ts';
import { spteHi, spteLo } from '../../mmu/rmap.ts';
import { ShadowWalk } from '../../mmu/shadow-walk.ts';
import { SPTE_HOST_WRITABLE, SPTE_MMU_WRITABLE, SPTE_W } from '../../mmu/spte.ts';
import type { HostMemory } from '../../mem/host-memory.ts';
import type { Vcpu } from '../vcpu.ts';
import {
  type Bugs,
  CAP_DIRTY_LOG_RING,
  CAP_MANUAL_DIRTY_LOG_PROTECT2,
  type EptFeatures,
  type KernelVersion,
  type Policy,
  Vm,
} from '../vm.ts';

export const READ = 0;
export const WRITE = 1;
export const FETCH = 2;

export interface VmOptions {
  /** 4 KiB pages of slot 0, which starts at gfn 0; 0: no slot. */
  readonly pages?: number;
  /** Of the host's entries. */
  readonly level?: 1 | 2 | 3;
  readonly flags?: number;
  readonly policy?: Policy;
  readonly bugs?: Bugs;
  /** Argument of the manual-protection capability. */
  readonly manual?: number;
  readonly nxHugePages?: boolean;
  /** Shadow paging. */
  readonly shadow?: boolean;
  /** Bytes of each vCPU's dirty ring; bitmaps if absent. */
  readonly ring?: number;
  readonly tdpMmu?: boolean;
  readonly kernel?: KernelVersion;
  readonly ept?: EptFeatures;
  readonly hostLevels?: 4 | 5;
  readonly guestMaxphyaddr?: number;
  readonly vcpus?: number;
  readonly host?: HostMemory;
}

export interface BuiltVm {
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly slot: () => MemSlot;
  /** Sets the flags of slot 0. */
  readonly setFlags: (flags: number) => void;
}

/** A VM with nested paging whose slot 0 is the host's memory from its start. */
export function buildVm(options: VmOptions = {}): BuiltVm {
  const { pages = 1024, level = 2, flags = 0, policy, bugs, manual = 0, nxHugePages, vcpus = 1 } = options;
  const { tdpMmu, kernel, ept, hostLevels, guestMaxphyaddr, shadow } = options;
  const host = options.host ?? new FlatHost({ bytes: 2 ** 40, level, sparse: true });
  const vm = new Vm({
    host,
    npt: shadow !== true,
    policy,
    bugs,
    nxHugePages,
    tdpMmu,
    kernel,
    ept,
    hostLevels,
    guestMaxphyaddr,
  });
  if (manual !== 0) vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, manual);
  if (options.ring !== undefined) vm.enableCap(CAP_DIRTY_LOG_RING, options.ring);
  const setFlags = (now: number): void =>
    vm.setUserMemoryRegion({
      slot: 0,
      flags: now,
      guestPhysAddr: 0,
      memorySize: pages * 4096,
      userspaceAddr: FLAT_HVA,
    });
  if (pages > 0) setFlags(flags);
  for (let i = 0; i < vcpus; i++) vm.createVcpu();
  return { vm, vcpu: vm.vcpus[0], slot: () => vm.mmu.slots[0].byId(0)!, setFlags };
}

/** The errno with which a call is refused, 0 if it isn't. */
export function errnoOf(call: () => void): number {
  try {
    call();
  } catch (error) {
    if (error instanceof KvmError) return error.errno;
    throw error;
  }
  return 0;
}

/** Numbers of the bits set. */
export function bitsOf(bitmap: Int32Array): number[] {
  const bits: number[] = [];
  for (let i = 0; i < bitmap.length * 32; i++) if ((bitmap[i >>> 5] >>> (i & 31)) & 1) bits.push(i);
  return bits;
}

/** An entry as found by a walk: its place and its words. */
export interface FoundEntry {
  readonly sptep: number;
  readonly level: number;
  readonly lo: number;
  readonly hi: number;
}

/** The last entry on the way to an address (gpa, or gva under shadow paging) from the root in use. */
export function entryAt(vm: Vm, vcpu: Vcpu, address: number): FoundEntry {
  const walk = new ShadowWalk();
  let found: FoundEntry = { sptep: 0, level: 0, lo: 0, hi: 0 };
  for (walk.init(vcpu.mmu, address | 0, Math.floor(address / 2 ** 32)); walk.ok(); walk.next(vm.mmu)) {
    const { sptep, level } = walk;
    found = { sptep, level, lo: spteLo(vm.mmu, sptep), hi: spteHi(vm.mmu, sptep) };
  }
  return found;
}

/** Host-writable, MMU-writable and W of an entry, as '111' to '000'. */
export function triple(lo: number): string {
  return [SPTE_HOST_WRITABLE, SPTE_MMU_WRITABLE, SPTE_W].map((bit) => (lo & bit ? '1' : '0')).join('');
}

/** Shadow pages on the active list, newest first. */
export function activePages(vm: Vm): number[] {
  const pages: number[] = [];
  for (let sp = vm.mmu.pages.newest; sp !== 0; sp = vm.mmu.pages.olderOf(sp)) pages.push(sp);
  return pages;
}

/** Counts how often TLB flushes were asked for while `call` ran. */
export function flushesDuring(vm: Vm, call: () => void): number {
  const before = vm.stats.remote_tlb_flush_requests;
  call();
  return vm.stats.remote_tlb_flush_requests - before;
}

export function expectSound(vm: Vm): void {
  expect(vm.verify()).toEqual([]);
}
