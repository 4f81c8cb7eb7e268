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
import { EEXIST, EINVAL, KvmError } from '../base/errno.ts';
import { slotRemoveWriteAccess, zapCollapsibleSptes } from '../mmu/dirty-log.ts';
import { flushRemoteTlbsRange, type Mmu } from '../mmu/mmu.ts';
import { changeMmuPages, zapAllFast } from '../mmu/page-zap.ts';
import { RACE_BEFORE_FLUSH, race } from '../mmu/race.ts';
import { MMIO_GEN_MASK } from '../mmu/spte.ts';
import {
  ADDRESS_SPACES,
  entriesForLevel,
  makeLpageInfo,
  MEM_LOG_DIRTY_PAGES,
  MEM_READONLY,
  MEMSLOT_INVALID,
  MemSlot,
} from '../mem/memslots.ts';

/** Arguments as in struct kvm_userspace_memory_region; sizes and addresses in bytes. */
export interface MemoryRegion {
  /** Slot number; bits 16 and up: address space. */
  readonly slot: number;
  readonly flags: number;
  readonly guestPhysAddr: number;
  /** 0 deletes the slot. */
  readonly memorySize: number;
  readonly userspaceAddr: number;
}

/** @kvm KVM_USER_MEM_SLOTS */
const USER_MEM_SLOTS = 32764;
const MAX_PAGES = 2 ** 31 - 1;
/** Highest gfn that the host could map: 48 bits of address. @kvm kvm_mmu_max_gfn */
const MAX_GFN = 2 ** 36 - 1;
/** End of user addresses (4-level host tables). */
const USER_END = 2 ** 47 - 4096;
/** @kvm KVM_MIN_ALLOC_MMU_PAGES, KVM_MEMSLOT_PAGES_TO_MMU_PAGES_RATIO */
const MIN_MMU_PAGES = 64;
const PAGES_PER_MMU_PAGE = 50;

function invalid(what: string): never {
  throw new KvmError(EINVAL, what);
}

/** @kvm __kvm_set_memory_region */
export function setMemoryRegion(mmu: Mmu, region: MemoryRegion): void {
  const asId = region.slot >>> 16;
  const id = region.slot & 0xffff;
  checkArguments(region, asId, id);
  const baseGfn = region.guestPhysAddr / 4096;
  const npages = region.memorySize / 4096;
  if (npages > MAX_PAGES) invalid(`memory size ${region.memorySize} is more than 2^31 - 1 pages`);
  const slots = mmu.slots[asId];
  const old = slots.byId(id);
  if (npages === 0) {
    if (old === null) invalid(`slot ${id} does not exist`);
    deleteSlot(mmu, old);
    return;
  }
  if (old === null) {
    checkOverlap(mmu, asId, id, baseGfn, npages);
    checkMaxGfn(baseGfn, npages);
    createSlot(mmu, new MemSlot(id, asId, baseGfn, npages, region.flags, region.userspaceAddr));
    return;
  }
  if (region.userspaceAddr !== old.userspaceAddr || npages !== old.npages || (region.flags ^ old.flags) & MEM_READONLY)
    invalid(`slot ${id}: neither host address, size nor READONLY can be changed`);
  if (baseGfn !== old.baseGfn) {
    checkOverlap(mmu, asId, id, baseGfn, npages);
    moveSlot(mmu, old, baseGfn, region.flags);
  } else if (region.flags !== old.flags) changeFlags(mmu, old, region.flags);
}

function checkArguments(region: MemoryRegion, asId: number, id: number): void {
  const { flags, guestPhysAddr, memorySize, userspaceAddr } = region;
  if (id >= USER_MEM_SLOTS) invalid(`slot ${id} is not below ${USER_MEM_SLOTS}`);
  if (flags & ~(MEM_LOG_DIRTY_PAGES | MEM_READONLY)) invalid(`flags 0x${flags.toString(16)}`);
  if (memorySize % 4096 !== 0) invalid(`memory size ${memorySize} is not a multiple of 4096`);
  if (guestPhysAddr % 4096 !== 0) invalid(`guest address ${guestPhysAddr} is not a multiple of 4096`);
  if (userspaceAddr % 4096 !== 0 || userspaceAddr < 0 || userspaceAddr + memorySize > USER_END)
    invalid(`host address ${userspaceAddr}`);
  if (asId >= ADDRESS_SPACES) invalid(`address space ${asId}`);
  if (guestPhysAddr < 0 || guestPhysAddr + memorySize > 2 ** 64) invalid(`guest address ${guestPhysAddr}`);
}

function checkOverlap(mmu: Mmu, asId: number, id: number, baseGfn: number, npages: number): void {
  if (mmu.slots[asId].overlaps(baseGfn, npages, id))
    throw new KvmError(EEXIST, `slot ${id} overlaps another one in address space ${asId}`);
}

/** @kvm kvm_arch_prepare_memory_region */
function checkMaxGfn(baseGfn: number, npages: number): void {
  if (baseGfn + npages - 1 > MAX_GFN) invalid(`guest frame ${baseGfn + npages - 1} is beyond the host's`);
}

// ---- the four changes ----------------------------------------------------------------------------------------------

function createSlot(mmu: Mmu, slot: MemSlot): void {
  allocMetadata(slot);
  prepareBitmap(mmu, slot, null);
  swapSlots(mmu, null, slot);
  mmu.nSlotPages += slot.npages;
  recalculateLimit(mmu);
}

function deleteSlot(mmu: Mmu, old: MemSlot): void {
  const gone = invalidateSlot(mmu, old);
  swapSlots(mmu, gone, null);
  mmu.nSlotPages -= old.npages;
  recalculateLimit(mmu);
}

/** A move that the host can't map has zapped everything all the same. */
function moveSlot(mmu: Mmu, old: MemSlot, baseGfn: number, flags: number): void {
  const gone = invalidateSlot(mmu, old);
  if (baseGfn + old.npages - 1 > MAX_GFN) {
    swapSlots(mmu, gone, old);
    checkMaxGfn(baseGfn, old.npages);
  }
  const slot = new MemSlot(old.id, old.asId, baseGfn, old.npages, flags, old.userspaceAddr);
  allocMetadata(slot);
  prepareBitmap(mmu, slot, old);
  swapSlots(mmu, gone, slot);
}

function changeFlags(mmu: Mmu, old: MemSlot, flags: number): void {
  const slot = copyOf(old, flags);
  prepareBitmap(mmu, slot, old);
  swapSlots(mmu, old, slot);
  applyLogging(mmu, old, slot);
}

/** @kvm kvm_mmu_slot_apply_flags */
function applyLogging(mmu: Mmu, old: MemSlot, slot: MemSlot): void {
  if (slot.isReadonly || old.logsDirty === slot.logsDirty) return;
  if (!slot.logsDirty) {
    zapCollapsibleSptes(mmu, slot);
    return;
  }
  if (mmu.manualProtect && mmu.initiallySet) return;
  slotRemoveWriteAccess(mmu, slot, 1);
  race(RACE_BEFORE_FLUSH);
  flushRemoteTlbsRange(mmu, slot.baseGfn, slot.npages);
}

/** Faults on the slot retry from now on, and nothing maps it any more. @kvm kvm_invalidate_memslot */
function invalidateSlot(mmu: Mmu, old: MemSlot): MemSlot {
  const gone = copyOf(old, old.flags | MEMSLOT_INVALID);
  swapSlots(mmu, old, gone);
  zapAllFast(mmu);
  return gone;
}

/** The same slot with other flags; tables and log are shared. */
function copyOf(old: MemSlot, flags: number): MemSlot {
  const slot = new MemSlot(old.id, old.asId, old.baseGfn, old.npages, flags, old.userspaceAddr);
  slot.rmap = old.rmap;
  slot.lpageInfo = old.lpageInfo;
  slot.gfnTrack = old.gfnTrack;
  slot.dirtyBitmap = old.dirtyBitmap;
  return slot;
}

/** @kvm kvm_alloc_memslot_metadata */
function allocMetadata(slot: MemSlot): void {
  const { baseGfn, npages } = slot;
  slot.rmap = [1, 2, 3].map((level) => new Int32Array(entriesForLevel(baseGfn, npages, level)));
  slot.lpageInfo = makeLpageInfo(baseGfn, npages, slot.userspaceAddr);
  slot.gfnTrack = new Uint16Array(npages);
}

/** Off: none. On before too: kept, across a move as well. Newly on: clear, or all ones. @kvm kvm_prepare_memory_region */
function prepareBitmap(mmu: Mmu, slot: MemSlot, old: MemSlot | null): void {
  if (!slot.logsDirty) slot.dirtyBitmap = null;
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
  slots.replace(old, next);
  slots.generation += ADDRESS_SPACES;
  // MMIO entries hold 19 bits of it: when they come round, all could be taken for new.
  if ((slots.generation & MMIO_GEN_MASK & ~(ADDRESS_SPACES - 1)) === 0) zapAllFast(mmu);
}

/** @kvm kvm_arch_commit_memory_region */
function recalculateLimit(mmu: Mmu): void {
  if (mmu.nRequestedPages !== 0) return;
  changeMmuPages(mmu, Math.max(MIN_MMU_PAGES, Math.floor(mmu.nSlotPages / PAGES_PER_MMU_PAGE)));
}
