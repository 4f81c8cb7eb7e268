/**
 * KVM_SET_USER_MEMORY_REGION: the checks in the kernel's order, then one of four changes.
 *
 *     create       allocate tables (and the log), swap
 *     delete       swap in a copy marked invalid, zap everything, swap it out
 *     move         the same, then the slot at its new place
 *     flags only   swap, then start or stop logging
 *
 * Each swap advances the generation. Source: Linux 6.1 kvm_main.c __kvm_set_memory_region, x86.c.
 */
import { checkU32, checkU64 } from '../base/argument.ts';
import { EEXIST, EINVAL, ENOMEM, KvmError } from '../base/errno.ts';
import {
  slotLeafClearDirty,
  slotRemoveWriteAccess,
  slotTrySplitHugePages,
  updateCpuDirtyLogging,
  zapCollapsibleSptes,
} from '../mmu/dirty-log.ts';
import { awaitNotifiers, awaitReaders, LOCK_SLOTS, lock, unlock } from '../mmu/lock.ts';
import { flushRemoteTlbsRange, type Mmu } from '../mmu/mmu.ts';
import { changeMmuPages, zapAllFast, zapSlot } from '../mmu/page-zap.ts';
import { RACE_BEFORE_FLUSH, race } from '../mmu/race.ts';
import { MMIO_GEN_MASK } from '../mmu/spte.ts';
import {
  ADDRESS_SPACES,
  allocRmap,
  makeLpageInfo,
  MEM_LOG_DIRTY_PAGES,
  MEM_READONLY,
  MEMSLOT_INVALID,
  MemSlot,
} from '../mem/memslots.ts';
import { QUIRK_SLOT_ZAP_ALL, USER_MEM_SLOTS } from './capabilities.ts';

/**
 * Arguments as in struct kvm_userspace_memory_region; sizes and addresses in bytes. Beyond 2^53 only a bigint is exact.
 */
export interface MemoryRegion<N extends number | bigint = number> {
  /** Slot number; bits 16 and up: address space. */
  readonly slot: number;
  readonly flags: number;
  readonly guestPhysAddr: N;
  /** 0 deletes the slot. */
  readonly memorySize: N;
  readonly userspaceAddr: N;
}

const MAX_PAGES = 2n ** 31n - 1n;
/** Bits of the addresses that nested tables can map: the host's own. @kvm shadow_phys_bits */
const HOST_PHYS_BITS = 40;
/** Bits of the addresses that shadow paging takes. @kvm kvm_mmu_max_gfn */
const SHADOW_PHYS_BITS = 52;
/** End of user addresses (4-level host tables). @kvm TASK_SIZE_MAX */
const USER_END = 2n ** 47n - 4096n;
/** A slot whose tables take more is refused, as by a host that lacks the memory. */
const MAX_TABLE_BYTES = 2 ** 32;
/** Of rmap and gfn_track, for one frame. */
const TABLE_BYTES_A_PAGE = 6;
/** @kvm KVM_MIN_ALLOC_MMU_PAGES, KVM_MEMSLOT_PAGES_TO_MMU_PAGES_RATIO */
const MIN_MMU_PAGES = 64;
const PAGES_PER_MMU_PAGE = 50;

function invalid(what: string): never {
  throw new KvmError(EINVAL, what);
}

/** A region whose arguments hold together. All of them are exact as numbers. */
interface CheckedRegion {
  readonly asId: number;
  readonly id: number;
  readonly flags: number;
  readonly baseGfn: number;
  readonly npages: number;
  readonly userspaceAddr: number;
}

/** @kvm __kvm_set_memory_region */
export function setMemoryRegion(mmu: Mmu, region: MemoryRegion<number | bigint>): void {
  const checked = checkArguments(region);
  lock(LOCK_SLOTS);
  changeRegion(mmu, checked);
  unlock(LOCK_SLOTS);
}

function changeRegion(mmu: Mmu, { asId, id, flags, baseGfn, npages, userspaceAddr }: CheckedRegion): void {
  const old = mmu.slots[asId].byId(id);
  if (npages === 0) {
    if (old === null) invalid(`slot ${id} does not exist`);
    deleteSlot(mmu, old);
    return;
  }
  if (old === null) {
    checkOverlap(mmu, asId, id, baseGfn, npages);
    checkMaxGfn(mmu, baseGfn, npages);
    createSlot(mmu, new MemSlot(id, asId, baseGfn, npages, flags, userspaceAddr));
    return;
  }
  if (userspaceAddr !== old.userspaceAddr || npages !== old.npages || (flags ^ old.flags) & MEM_READONLY)
    invalid(`slot ${id}: neither host address, size nor READONLY can be changed`);
  if (baseGfn !== old.baseGfn) {
    checkOverlap(mmu, asId, id, baseGfn, npages);
    moveSlot(mmu, old, baseGfn, flags);
  } else if (flags !== old.flags) changeFlags(mmu, old, flags);
}

/** The checks that need no slot, in the kernel's order. */
function checkArguments(region: MemoryRegion<number | bigint>): CheckedRegion {
  const slot = checkU32(region.slot, 'slot');
  const flags = checkU32(region.flags, 'flags');
  const gpa = checkU64(region.guestPhysAddr, 'guest address');
  const size = checkU64(region.memorySize, 'memory size');
  const hva = checkU64(region.userspaceAddr, 'host address');
  const asId = slot >>> 16;
  const id = slot & 0xffff;
  if (id >= USER_MEM_SLOTS) invalid(`slot ${id} is not below ${USER_MEM_SLOTS}`);
  if (flags & ~(MEM_LOG_DIRTY_PAGES | MEM_READONLY)) invalid(`flags 0x${flags.toString(16)}`);
  if (size % 4096n !== 0n) invalid(`memory size ${size} is not a multiple of 4096`);
  if (gpa % 4096n !== 0n) invalid(`guest address ${gpa} is not a multiple of 4096`);
  if (hva % 4096n !== 0n || hva + size > USER_END) invalid(`host address 0x${hva.toString(16)}`);
  if (asId >= ADDRESS_SPACES) invalid(`address space ${asId}`);
  if (gpa + size >= 1n << 64n) invalid(`guest address 0x${gpa.toString(16)}`);
  if (size >> 12n > MAX_PAGES) invalid(`memory size ${size} is more than 2^31 - 1 pages`);
  return { asId, id, flags, baseGfn: Number(gpa >> 12n), npages: Number(size >> 12n), userspaceAddr: Number(hva) };
}

function checkOverlap(mmu: Mmu, asId: number, id: number, baseGfn: number, npages: number): void {
  if (mmu.slots[asId].overlaps(baseGfn, npages, id))
    throw new KvmError(EEXIST, `slot ${id} overlaps another one in address space ${asId}`);
}

/** @kvm kvm_arch_prepare_memory_region */
function checkMaxGfn(mmu: Mmu, baseGfn: number, npages: number): void {
  const last = baseGfn + npages - 1;
  if (last > maxGfn(mmu)) invalid(`guest frame 0x${last.toString(16)} is beyond the highest`);
}

/** @kvm kvm_mmu_max_gfn */
function maxGfn(mmu: Mmu): number {
  return 2 ** ((mmu.tdp ? HOST_PHYS_BITS : SHADOW_PHYS_BITS) - 12) - 1;
}

// ---- the four changes ----------------------------------------------------------------------------------------------

function createSlot(mmu: Mmu, slot: MemSlot): void {
  allocMetadata(mmu, slot);
  prepareBitmap(mmu, slot, null);
  swapSlots(mmu, null, slot);
  if (slot.logsDirty) updateCpuDirtyLogging(mmu, true);
  mmu.nSlotPages += slot.npages;
  recalculateLimit(mmu);
}

function deleteSlot(mmu: Mmu, old: MemSlot): void {
  const gone = invalidateSlot(mmu, old);
  swapSlots(mmu, gone, null);
  if (old.logsDirty) updateCpuDirtyLogging(mmu, false);
  mmu.nSlotPages -= old.npages;
  recalculateLimit(mmu);
}

/** A move that is refused so late has zapped everything all the same. */
function moveSlot(mmu: Mmu, old: MemSlot, baseGfn: number, flags: number): void {
  const gone = invalidateSlot(mmu, old);
  if (baseGfn + old.npages - 1 > maxGfn(mmu)) {
    swapSlots(mmu, gone, old);
    checkMaxGfn(mmu, baseGfn, old.npages);
  }
  const slot = new MemSlot(old.id, old.asId, baseGfn, old.npages, flags, old.userspaceAddr);
  allocMetadata(mmu, slot);
  prepareBitmap(mmu, slot, old);
  swapSlots(mmu, gone, slot);
  if (old.logsDirty !== slot.logsDirty) updateCpuDirtyLogging(mmu, slot.logsDirty);
}

function changeFlags(mmu: Mmu, old: MemSlot, flags: number): void {
  const slot = copyOf(old, flags);
  prepareBitmap(mmu, slot, old);
  swapSlots(mmu, old, slot);
  applyLogging(mmu, old, slot);
}

/** @kvm kvm_mmu_slot_apply_flags */
function applyLogging(mmu: Mmu, old: MemSlot, slot: MemSlot): void {
  if (old.logsDirty !== slot.logsDirty) updateCpuDirtyLogging(mmu, slot.logsDirty);
  if (slot.isReadonly || old.logsDirty === slot.logsDirty) return;
  if (!slot.logsDirty) {
    zapCollapsibleSptes(mmu, slot);
    return;
  }
  if (mmu.manualProtect && mmu.initiallySet) return;
  slotTrySplitHugePages(mmu, slot);
  const logsByCpu = mmu.cpuDirtyLogSize !== 0;
  if (logsByCpu) slotLeafClearDirty(mmu, slot);
  const changed = slotRemoveWriteAccess(mmu, slot, logsByCpu ? 2 : 1);
  // Where large entries are dropped, that has flushed. The TDP MMU does so for each of them, but not for small ones.
  if (mmu.policy.onProtect === 'zap' && !mmu.tdpMmu) return;
  race(RACE_BEFORE_FLUSH);
  if (changed || !mmu.bugs.flushIfChanged) flushRemoteTlbsRange(mmu, slot.baseGfn, slot.npages);
}

/** Faults on the slot retry from now on, and nothing maps it any more. @kvm kvm_invalidate_memslot */
function invalidateSlot(mmu: Mmu, old: MemSlot): MemSlot {
  const gone = copyOf(old, old.flags | MEMSLOT_INVALID);
  swapSlots(mmu, old, gone);
  if (mmu.disabledQuirks & QUIRK_SLOT_ZAP_ALL) zapSlot(mmu, old);
  else zapAllFast(mmu);
  return gone;
}

/** The same slot with other flags; tables and log are shared. */
function copyOf(old: MemSlot, flags: number): MemSlot {
  const slot = new MemSlot(old.id, old.asId, old.baseGfn, old.npages, flags, old.userspaceAddr);
  slot.rmap = old.rmap;
  slot.rmapUsed = old.rmapUsed;
  slot.lpageInfo = old.lpageInfo;
  slot.gfnTrack = old.gfnTrack;
  slot.dirtyBitmap = old.dirtyBitmap;
  slot.dirtySink = old.dirtySink;
  return slot;
}

/** Throws ENOMEM if there is no memory for it. @kvm kvm_alloc_memslot_metadata */
function allocMetadata(mmu: Mmu, slot: MemSlot): void {
  if (slot.npages * TABLE_BYTES_A_PAGE > MAX_TABLE_BYTES)
    throw new KvmError(ENOMEM, `tables for ${slot.npages} pages of slot ${slot.id}`);
  try {
    allocTables(mmu, slot);
  } catch (error) {
    if (error instanceof RangeError) throw new KvmError(ENOMEM, `tables for slot ${slot.id}: ${error.message}`);
    throw error;
  }
}

/** The TDP MMU needs no reverse map before the first root of a nested guest. @kvm kvm_memslots_have_rmaps */
function allocTables(mmu: Mmu, slot: MemSlot): void {
  const { baseGfn, npages } = slot;
  if (!mmu.tdpMmu || mmu.shadowRootAllocated) allocRmap(slot);
  slot.lpageInfo = makeLpageInfo(baseGfn, npages, slot.userspaceAddr);
  slot.gfnTrack = new Uint16Array(npages);
}

/** Off: none. On before too: kept, across a move as well. Newly on: clear, or all ones. @kvm kvm_prepare_memory_region */
function prepareBitmap(mmu: Mmu, slot: MemSlot, old: MemSlot | null): void {
  slot.dirtySink = slot.logsDirty ? mmu.rings : null;
  if (!slot.logsDirty || mmu.rings !== null) slot.dirtyBitmap = null;
  else if (old?.dirtyBitmap) slot.dirtyBitmap = old.dirtyBitmap;
  else {
    slot.dirtyBitmap = new Int32Array(2 * Math.ceil(slot.npages / 64));
    if (mmu.manualProtect && mmu.initiallySet) fillBits(slot.dirtyBitmap, slot.npages);
  }
}

function fillBits(bitmap: Int32Array, count: number): void {
  bitmap.fill(-1, 0, count >>> 5);
  if (count & 31) bitmap[count >>> 5] = (1 << (count & 31)) - 1;
}

/** @kvm kvm_swap_active_memslots, kvm_mmu_invalidate_mmio_sptes */
function swapSlots(mmu: Mmu, old: MemSlot | null, next: MemSlot | null): void {
  const asId = (next ?? old)!.asId;
  const slots = mmu.slots[asId];
  awaitNotifiers();
  slots.replace(old, next);
  awaitReaders();
  slots.generation += ADDRESS_SPACES;
  // MMIO entries hold 19 bits of it: when they come round, all could be taken for new.
  if ((slots.generation & MMIO_GEN_MASK & ~(ADDRESS_SPACES - 1)) === 0) zapAllFast(mmu);
}

/** @kvm kvm_arch_commit_memory_region */
function recalculateLimit(mmu: Mmu): void {
  if (mmu.nRequestedPages !== 0) return;
  changeMmuPages(mmu, Math.max(MIN_MMU_PAGES, Math.floor(mmu.nSlotPages / PAGES_PER_MMU_PAGE)));
}
