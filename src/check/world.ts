/**
 * What the checker explores: a VM with two vCPUs and one large region, what its threads may do with it, and what must
 * hold.
 *
 * "No page is lost", as a migration sees it (the oracle's `MigrationModel` by pages): whatever user space was told of
 * is copied as the ioctl that says so returns, so a page is *behind* from a write until it is copied. While the log is on,
 * and whenever no thread is in the middle of something, each page that is behind is in the log: what would be sent
 * next. A write through a translation that is still writable while a collection is under way is no loss if the collection
 * reports the page, as it is copied after; and a fault that has set W and not yet marked the page is in the middle of
 * something. Turning the log on ends with a copy of everything, or (initially set) with a log that has everything.
 *
 * "No frame is used that is gone": an access that succeeds reaches the frame that the host has there now, and none at all
 * once a slot's deletion has returned.
 *
 * This file is changed along with the engine: each of its operations runs as a thread's.
 */
import { KvmError } from '../base/errno.ts';
import type { Bugs } from '../mmu/bugs.ts';
import type { KernelVersion } from '../mmu/kernel-version.ts';
import { RACE_SPTE, race } from '../mmu/race.ts';
import type { Policy } from '../mmu/policy.ts';
import { MEM_LOG_DIRTY_PAGES } from '../mem/memslots.ts';
import type { Vcpu } from '../vm/vcpu.ts';
import { CAP_MANUAL_DIRTY_LOG_PROTECT2, Vm } from '../vm/vm.ts';
import { FLAT_HVA } from '../mem/flat-host.ts';
import { ChangingHost, REGION_PAGES } from './changing-host.ts';
import { ChoosingTlb } from './choosing-tlb.ts';

/** What the engine is; a preset. */
export interface Engine {
  readonly policy: Policy;
  readonly kernel: KernelVersion;
  readonly tdpMmu: boolean;
  readonly eagerPageSplit?: boolean;
  readonly bugs?: Bugs;
}

/** How the world is before the threads begin. */
export interface Start {
  /** 1: KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE; 3: with KVM_DIRTY_LOG_INITIALLY_SET. */
  readonly manual?: 1 | 3;
  /** Operations that have been done, one after the other. */
  readonly before: readonly Operation[];
}

/** What a thread does in one piece; those of vCPUs name the vCPU and the page. */
export type Operation =
  | `${'read' | 'write'} ${number} ${number}`
  | 'log start'
  | 'log stop'
  | 'get'
  | 'clear'
  | 'unmap'
  | 'delete';

/** Pages that are looked at: those that any operation touches. */
export const PAGES = 4;

export class World {
  readonly vm: Vm;
  readonly host = new ChangingHost();
  readonly tlbs: ChoosingTlb[] = [];
  /** Pages of which the destination hasn't the last version. */
  readonly behind = new Uint8Array(PAGES);
  logging = false;
  readonly manual: number;
  /** The last answer of KVM_GET_DIRTY_LOG: what the next clear is for. */
  report: Int32Array | null = null;
  deleted = false;
  /** What an access did that it must not. */
  fault = '';

  constructor(engine: Engine, manual: number) {
    this.manual = manual;
    this.vm = new Vm({
      host: this.host,
      npt: true,
      ...engine,
      flushAtEntry: false,
      tlb: () => {
        const tlb = new ChoosingTlb();
        this.tlbs.push(tlb);
        return tlb;
      },
    });
  }

  perform(operation: Operation): void {
    const [name, vcpu, page] = operation.split(' ');
    if (name === 'read' || name === 'write') this.access(this.vm.vcpus[Number(vcpu)], Number(page), name === 'write');
    else if (operation === 'log start') this.logStart();
    else if (operation === 'log stop') this.logStop();
    else if (operation === 'get') this.get();
    else if (operation === 'clear') this.clear();
    else if (operation === 'unmap') this.unmap();
    else this.deleteSlot();
  }

  private access(vcpu: Vcpu, page: number, write: boolean): void {
    try {
      vcpu.touchPage(page, write ? 1 : 0);
    } catch (error) {
      if (!(error instanceof KvmError)) throw error;
      if (this.vm.mmu.slots[0].find(page) !== null)
        this.fault = `page ${page}: an access fails though its slot is there: ${error.message}`;
      return;
    }
    const { pfn } = this.tlbs[vcpu.id];
    const now = this.host.pfnAt(FLAT_HVA + 4096 * page);
    if (pfn !== now) this.fault = `page ${page}: an access reached frame ${pfn}, which is gone; ${now} is there now`;
    else if (this.deleted) this.fault = `page ${page}: an access reached memory of a deleted slot`;
    if (write) this.behind[page] = 1;
  }

  setRegion(flags: number, bytes = 4096 * REGION_PAGES): void {
    this.vm.setUserMemoryRegion({ slot: 0, flags, guestPhysAddr: 0, memorySize: bytes, userspaceAddr: FLAT_HVA });
  }

  private logStart(): void {
    if (this.logging) return;
    this.setRegion(MEM_LOG_DIRTY_PAGES);
    this.logging = true;
    // All is copied now, or all is in the log.
    this.behind.fill(this.manual === 3 ? 1 : 0);
  }

  private logStop(): void {
    this.logging = false;
    this.setRegion(0);
    this.behind.fill(0);
  }

  private get(): void {
    const report = this.vm.getDirtyLog(0);
    if (this.manual === 0) this.send(report);
    else this.report = report;
  }

  private clear(): void {
    const { report } = this;
    if (report === null) return;
    this.vm.clearDirtyLog(0, 0, REGION_PAGES, report);
    this.report = null;
    this.send(report);
  }

  /** Pages of a report are copied. */
  private send(report: Int32Array): void {
    for (let page = 0; page < PAGES; page++) if ((report[page >>> 5] >>> (page & 31)) & 1) this.behind[page] = 0;
  }

  /** The host replaces the region's frames. */
  private unmap(): void {
    const { notifier } = this.host;
    const end = FLAT_HVA + 4096 * REGION_PAGES;
    notifier!.invalidateRangeStart(FLAT_HVA, end);
    race(RACE_SPTE);
    this.host.epoch++;
    race(RACE_SPTE);
    notifier!.invalidateRangeEnd(FLAT_HVA, end);
  }

  private deleteSlot(): void {
    this.setRegion(0, 0);
    this.deleted = true;
    this.logging = false;
    this.behind.fill(0);
  }

  /** Pages that are lost, if no thread is in the middle of something. */
  lost(): number[] {
    const bitmap = this.vm.mmu.slots[0].find(0)?.dirtyBitmap ?? null;
    if (!this.logging || bitmap === null) return [];
    return [0, 1, 2, 3].filter((page) => this.behind[page] !== 0 && ((bitmap[page >>> 5] >>> (page & 31)) & 1) === 0);
  }
}

/**
 * Tables that are kept in stock are all alike. Taken from the arena as they are needed, their numbers don't depend on which
 * vCPU needs them, so that more states are the same.
 */
function takeTablesAsNeeded({ vm }: World, vcpu: Vcpu): void {
  vcpu.mmu.topUp = () => {};
  vcpu.mmu.takeTable = () => vm.mmu.arena.alloc();
}

/** A world at its start. */
export function createWorld(engine: Engine, start: Start): World {
  const world = new World(engine, start.manual ?? 0);
  const { vm } = world;
  if (start.manual !== undefined) vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, start.manual);
  world.setRegion(0);
  for (let id = 0; id < 2; id++) takeTablesAsNeeded(world, vm.createVcpu());
  for (const operation of start.before) world.perform(operation);
  return world;
}

/** Starts an operation; the changed copy gives a generator. */
export function perform(world: World, operation: Operation): void {
  world.perform(operation);
}
