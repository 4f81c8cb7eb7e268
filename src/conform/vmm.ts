/**
 * The recorder's VMM: it backs slots with host memory, tells KVM of them, and does what the host ops of a scenario say.
 * Source: recorder/src/main.c.
 */
import { CPU_BOCHS } from '../hw/cpu-model.ts';
import { EFAULT, EINVAL, KvmError } from '../base/errno.ts';
import { type Backing, HostMm } from '../mem/host/host-mm.ts';
import { VmmError, VmmMemory } from '../mem/host/vmm-memory.ts';
import { MEM_LOG_DIRTY_PAGES, MEM_READONLY } from '../mem/memslots.ts';
import { MmuNotifier } from '../mmu/notifier.ts';
import type { Tracer } from '../trace/tracer.ts';
import {
  type Bugs,
  CAP_DIRTY_LOG_RING,
  CAP_MANUAL_DIRTY_LOG_PROTECT2,
  KERNEL_6_1,
  KERNEL_6_12,
  type Policy,
  Vm,
} from '../vm/vm.ts';
import { hex } from './entry-form.ts';
import type { Machine } from './machine.ts';
import type { OpResult, Script, SlotInfo } from './recording.ts';
import { type Op, ScenarioError, type SlotWords } from './scenario.ts';

/** What a host op shows beside its result. */
export interface HostOutput {
  res: Record<string, unknown>;
  bitmap?: OpResult['bitmap'];
  slot?: SlotInfo;
}

export type HostOp = Extract<
  Op,
  {
    kind:
      | 'slot'
      | 'log'
      | 'ro'
      | 'getlog'
      | 'clearlog'
      | 'del'
      | 'move'
      | 'dontneed'
      | 'munmap'
      | 'mprotect'
      | 'populate'
      | 'fork'
      | 'hw'
      | 'hr'
      | 'mmupages'
      | 'getmmupages'
      | 'region'
      | 'rawlog'
      | 'rawclear'
      | 'cap'
      | 'check'
      | 'ringreset'
      | 'age'
      | 'recover'
      | 'rmaps'
      | 'param';
  }
>;

/** DAMON looks at a random byte of the page; recordings have this one. So the page after it ages, too. */
const SAMPLED = 0x800;
/** Pages of a bitmap of which the raw ops know. */
const RAW_PAGES = 1 << 22;

/** What VMX has on the CPU that EPT was recorded on. */
const EPT_OF_BOCHS = { ad: true, executeOnly: true, pml: true };

/** nx_huge_pages as the kernel parses it; "auto" is off on a CPU without the bug. */
function isNxForced(value: string | undefined): boolean {
  return value === 'force' || (value !== undefined && /^([yY1]|[oO][nN])/.test(value));
}

function isNxValue(value: string): boolean {
  return value === 'force' || value === 'off' || value === 'auto' || /^([yYnN01]|[oO][nNfF])/.test(value);
}

/** A module parameter of yes or no, as the kernel parses it; undefined for what it refuses. */
function parseBool(value: string): boolean | undefined {
  if (/^([yYtT1]|[oO][nN])/.test(value)) return true;
  return /^([nNfF0]|[oO][fF])/.test(value) ? false : undefined;
}

export class Vmm {
  readonly vm: Vm;
  readonly mm: HostMm;
  readonly memory: VmmMemory;
  private readonly slotFlags = new Map<number, number>();
  private out: HostOutput = { res: {} };

  constructor(script: Script, machine: Machine, trace: Tracer, policy?: Policy, bugs?: Bugs) {
    const isNew = script.kernel.startsWith('6.12');
    this.mm = new HostMm({ kernel: isNew ? '6.12' : '6.1' });
    this.memory = new VmmMemory(this.mm);
    const kernel = isNew ? KERNEL_6_12 : KERNEL_6_1;
    const nxHugePages = isNxForced(script.params['nx_huge_pages']);
    // The kernel's default is to split.
    const eagerPageSplit = parseBool(script.params['eager_page_split'] ?? 'Y');
    const npt = script.mode !== 'C';
    const tdpMmu = script.mode === 'B';
    this.vm = new Vm({
      host: this.mm,
      npt,
      tdpMmu,
      eagerPageSplit,
      nxHugePages,
      trace,
      policy,
      bugs,
      kernel,
      hostLevels: script.hostLevels,
      ...(script.params['ept'] === '1' ? { ept: EPT_OF_BOCHS, cpuModel: CPU_BOCHS } : {}),
    });
    orGiveUp(() => {
      if (machine.manual) this.vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, machine.manual);
      if (machine.ring) this.vm.enableCap(CAP_DIRTY_LOG_RING, machine.ring);
      if (machine.mmuPages) this.vm.setNrMmuPages(machine.mmuPages);
      for (const slot of script.slots) this.addHeadSlot(slot, machine.unpopulated.includes(slot.id));
      this.loadMemory(script, machine);
    });
  }

  private addHeadSlot(slot: SlotInfo, nopop: boolean): void {
    const ret = this.addSlot(
      slot.id,
      Number(slot.gpa),
      Number(slot.size),
      slot.backing,
      slot.flags,
      nopop,
      Number(slot.hva_offset),
    );
    if (ret !== 0) throw new ScenarioError(`slot ${slot.id} was refused`);
  }

  private addSlot(
    id: number,
    gpa: number,
    bytes: number,
    backing: string,
    flags: number,
    nopop: boolean,
    hvaoff: number,
  ): number {
    const slot = this.memory.addSlot({ id, gpa, bytes, backing: backing as Backing, nopop, hvaoff });
    this.slotFlags.set(id, flags);
    const ret = this.setRegion(id, bytes);
    if (ret !== 0) slot.used = false;
    return ret;
  }

  /** KVM_SET_USER_MEMORY_REGION as the VMM's slot stands now: 0 or -errno. */
  private setRegion(id: number, memorySize: number, gpa?: bigint): number {
    const slot = this.memory.slot(id);
    const flags = this.slotFlags.get(id) ?? 0;
    const guestPhysAddr = gpa ?? slot.gpa;
    return this.errnoOf(() =>
      this.vm.setUserMemoryRegion({ slot: id, flags, guestPhysAddr, memorySize, userspaceAddr: slot.hva }),
    );
  }

  /** 0 or -errno. */
  private errnoOf(call: () => void): number {
    return this.answerOf(() => {
      call();
      return 0;
    });
  }

  private answerOf(call: () => number): number {
    try {
      return call();
    } catch (error) {
      if (error instanceof KvmError) return -error.errno;
      throw error;
    }
  }

  private loadMemory(script: Script, machine: Machine): void {
    const bytes = new Uint8Array(8);
    const view = new DataView(bytes.buffer);
    for (const [gpa, value] of script.memory) {
      view.setBigUint64(0, value, true);
      this.memory.poke(this.memory.hvaOf(Number(gpa), 8), bytes);
    }
    for (const gpa of machine.writes) this.mm.touchWrite(this.memory.hvaOf(Number(gpa), 1));
  }

  // ---- reading without touching ------------------------------------------------------------------------------------

  /** Frame that the host maps behind a guest frame of a slot in use, or 0. */
  hostPfn(gfn: number): number {
    const hva = this.memory.hvaOf(gfn * 4096, 1);
    return hva < 0 ? 0 : Math.max(0, this.mm.pfnAt(hva));
  }

  /** Guest memory as it is, 0 where the host has none. */
  peek(gpa: number, bytes: number): bigint | null {
    const pfn = this.hostPfn(Math.floor(gpa / 4096));
    if (pfn === 0) return null;
    let value = 0n;
    for (let i = bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.mm.frames.read8(pfn, (gpa % 4096) + i));
    return value;
  }

  // ---- ops ---------------------------------------------------------------------------------------------------------

  /** Performs a host op; what it shows goes to `out`. Throws a `ScenarioError` where the recorder would give up. */
  perform(op: HostOp, out: HostOutput): void {
    this.out = out;
    const ret = orGiveUp(() => this.call(op));
    if (ret === undefined) return;
    if (ret !== 0 || (op.kind !== 'populate' && op.kind !== 'hw')) out.res['ret'] = ret;
  }

  /** The result to show, undefined if the op shows another. */
  private call(op: HostOp): number | undefined {
    switch (op.kind) {
      case 'slot':
        return this.slotOp(op);
      case 'log':
        return this.setFlag(op.slot, MEM_LOG_DIRTY_PAGES, op.on, false);
      case 'ro':
        return this.setFlag(op.slot, MEM_READONLY, op.on, true);
      case 'getlog':
        return this.getLog(op.slot);
      case 'clearlog':
        return this.clearLog(op);
      case 'del':
        return this.deleteSlot(op.slot);
      case 'move':
        return this.moveSlot(op.slot, op.gpa);
      case 'dontneed':
        return this.memory.dontneed(op.slot, Number(op.offset), Number(op.length));
      case 'munmap':
        return this.memory.munmap(op.slot, Number(op.offset), Number(op.length));
      case 'mprotect':
        return this.memory.mprotect(op.slot, Number(op.offset), Number(op.length), op.prot);
      case 'populate':
        return this.memory.populate(op.slot, Number(op.offset), Number(op.length));
      case 'fork':
        return this.memory.fork();
      case 'hw':
        return this.memory.hostWrite(this.backed(op.gpa), Number(BigInt.asIntN(32, op.value)));
      case 'hr':
        return this.hostRead(this.backed(op.gpa));
      case 'mmupages':
        return this.errnoOf(() => this.vm.setNrMmuPages(op.pages));
      case 'getmmupages':
        return this.answerOf(() => this.vm.getNrMmuPages());
      case 'region':
        return this.rawRegion(op);
      case 'rawlog':
        return this.rawLog(op.slot, op.fault);
      case 'rawclear':
        return this.rawClear(op);
      case 'cap':
        return this.errnoOf(() => this.vm.enableCap(op.cap, op.argument, op.flags));
      case 'check':
        return this.vm.checkExtension(Number(op.cap));
      case 'ringreset':
        return this.answerOf(() => this.vm.resetDirtyRings());
      case 'age':
        return this.age(op.slot, Number(op.offset));
      case 'recover':
        return this.recover(Number(op.ratio));
      case 'rmaps':
        return undefined;
      case 'param':
        return this.setParameter(op.name, op.value);
    }
  }

  private slotOp(op: SlotWords): number {
    const flags = (op.readOnly ? MEM_READONLY : 0) | (op.log ? MEM_LOG_DIRTY_PAGES : 0);
    const [gpa, size, hvaoff] = [Number(op.gpa), Number(op.size), Number(op.hvaOffset)];
    const ret = this.addSlot(op.slot, gpa, size, op.backing, flags, op.nopop, hvaoff);
    const { backing, slot: id } = op;
    this.out.slot = { id, gpa: hex(gpa), size: hex(size), backing, flags, hva_offset: hex(hvaoff) };
    return ret;
  }

  private setFlag(id: number, flag: number, on: boolean, undo: boolean): number {
    const slot = this.memory.slot(id);
    const old = this.slotFlags.get(id) ?? 0;
    this.slotFlags.set(id, on ? old | flag : old & ~flag);
    const ret = this.setRegion(id, slot.bytes);
    if (ret !== 0 && undo) this.slotFlags.set(id, old);
    return ret;
  }

  private getLog(id: number): number {
    const slot = this.memory.slot(id);
    return this.errnoOf(() => {
      const bitmap = this.vm.getDirtyLog(id);
      this.out.bitmap = { slot: id, gfns: dirtyRanges(bitmap, slot.bytes / 4096) };
    });
  }

  private clearLog({ slot, first, count, mask }: Extract<Op, { kind: 'clearlog' }>): number {
    this.memory.slot(slot);
    // The recorder's bits end with `count`; KVM doesn't look at those behind.
    const pages = Number(count);
    return this.errnoOf(() => this.vm.clearDirtyLog(slot, first, pages, repeated(mask, pages)));
  }

  private rawRegion({ slot, flags, gpa, size, hva }: Extract<Op, { kind: 'region' }>): number {
    const region = { slot, flags, guestPhysAddr: gpa, memorySize: size, userspaceAddr: hva };
    return this.errnoOf(() => this.vm.setUserMemoryRegion(region));
  }

  /** A bitmap that can't be written is found out when all is done. */
  private rawLog(slot: number, fault: boolean): number {
    return this.answerOf(() => {
      const bitmap = this.vm.getDirtyLog(slot);
      if (fault) return -EFAULT;
      this.out.bitmap = { slot, gfns: dirtyRanges(bitmap, Math.min(32 * bitmap.length, RAW_PAGES)) };
      return 0;
    });
  }

  /** Of a bitmap that isn't there not even the first word can be read. */
  private rawClear({ slot, first, count, mask, fault }: Extract<Op, { kind: 'rawclear' }>): number {
    const bitmap = fault ? new Int32Array(0) : repeated(mask, count);
    return this.errnoOf(() => this.vm.clearDirtyLog(slot, first, count, bitmap));
  }

  private deleteSlot(id: number): number {
    const ret = this.setRegion(id, 0);
    if (ret === 0) this.memory.slot(id).used = false;
    return ret;
  }

  private moveSlot(id: number, gpa: bigint): number {
    const slot = this.memory.slot(id);
    const ret = this.setRegion(id, slot.bytes, gpa);
    // What KVM takes is exact as a number.
    if (ret === 0) slot.gpa = Number(gpa);
    return ret;
  }

  /** The address of 4 bytes in one slot. */
  private backed(gpa: bigint): number {
    if (this.memory.hvaOf(Number(gpa), 4) < 0) throw new ScenarioError(`no memory at 0x${gpa.toString(16)}`);
    return Number(gpa);
  }

  private hostRead(gpa: number): number | undefined {
    const value = this.memory.hostRead(gpa);
    if (value < 0) return value;
    this.out.res['value'] = hex(value);
    return undefined;
  }

  /** DAMON clears and looks; without it reclaim clears, with a flush. Frames that the host doesn't map have no age. */
  private age(id: number, offset: number): number {
    const page = this.memory.slot(id).hva + offset;
    const { notifier } = this.mm;
    if (this.mm.pfnAt(page) < 0 || !(notifier instanceof MmuNotifier)) return 0;
    if (this.vm.mmu.kernel.name === 'linux-6.1') {
      notifier.clearFlushYoung(page, page + 4096);
      return 0;
    }
    const hva = page + SAMPLED;
    notifier.clearYoung(hva, hva + 4096);
    notifier.testYoung(hva);
    return 0;
  }

  /** The worker does nothing while the mitigation is off. */
  private recover(ratio: number): number {
    if (this.vm.mmu.nxHugePages) this.vm.recoverNxHugePages(ratio);
    return 0;
  }

  private setParameter(name: string, value: string): number {
    if (name === 'eager_page_split') return this.setEagerPageSplit(value);
    if (name !== 'nx_huge_pages') return 0;
    if (!isNxValue(value)) return -EINVAL;
    this.vm.setNxHugePages(isNxForced(value));
    return 0;
  }

  private setEagerPageSplit(value: string): number {
    const on = parseBool(value);
    if (on === undefined) return -EINVAL;
    this.vm.setEagerPageSplit(on);
    return 0;
  }
}

/** A bitmap of 64 pages after another. No slot has more than RAW_PAGES. */
function repeated(mask: bigint, pages: number): Int32Array {
  const words = 2 * Math.ceil(Math.min(pages, RAW_PAGES) / 64);
  const [lo, hi] = [Number(BigInt.asIntN(32, mask)), Number(BigInt.asIntN(32, mask >> 32n))];
  return Int32Array.from({ length: words }, (_, i) => (i & 1 ? hi : lo));
}

/** What the recorder's VMM gives up on is an error of the scenario. */
function orGiveUp<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof VmmError || error instanceof KvmError) throw new ScenarioError(error.message);
    throw error;
  }
}

/** Runs of set bits, inclusive. */
function dirtyRanges(bitmap: Int32Array, pages: number): [number, number][] {
  const ranges: [number, number][] = [];
  for (let i = 0; i < pages; i++) {
    if (((bitmap[i >>> 5] >>> (i & 31)) & 1) === 0) continue;
    const last = ranges.at(-1);
    if (last && last[1] === i - 1) last[1] = i;
    else ranges.push([i, i]);
  }
  return ranges;
}
