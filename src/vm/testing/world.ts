/**
 * One virtual machine of the model-based tests and the model beside it. `step` performs one operation on both and throws
 * at the first difference:
 *
 *     what the guest read, wrote, or got as a fault    is among the endings that the model allows
 *     each page written while its slot logs            is in the log at once, and in what the ioctl reports
 *     what the ioctl reports                           has a reason
 *     guest tables                                     changed by nothing but A and D, where the walk allows it
 *     each TLB entry of a vCPU without pending flush   is what a fresh walk of the MMU's tables gives
 *     verify()                                         finds nothing
 *
 * Operations are four small numbers each, and every combination means something, so that any part of a run is a run.
 */
import { CPU_AMD } from '../../hw/cpu-model.ts';
import { changeMmuPages } from '../../mmu/page-zap.ts';
import { CAP_MANUAL_DIRTY_LOG_PROTECT2, MEM_LOG_DIRTY_PAGES, MEM_READONLY, Vm } from '../vm.ts';
import {
  DATA_GFNS,
  DATA_OFFSETS,
  dataHostPages,
  editValue,
  ENTRIES,
  entryOf,
  FIRST_TABLE,
  GDT_BASE,
  IDT_BASE,
  LAST_TABLE,
  LEAF_INDICES,
  LOW_HOST_PAGE,
  OTHER_BASE,
  PAGE,
  PTE_A,
  PTE_D,
  ROOTS,
  SLOT_PLANS,
  TSS_BASE,
  WORDS_PER_PAGE,
  writeCode,
  writeData,
  writeTables,
} from './guest-image.ts';
import { GuestModel, isTablePage, type ModelSlot } from './guest-model.ts';
import { TlbCheck } from './tlb-check.ts';
import { WatchedTlb } from './watched-tlb.ts';
import { WorldGuest } from './world-guest.ts';
import { WorldHost } from './world-host.ts';
import { WorldLog } from './world-log.ts';
import { fail, hex, Narrator, type Op, OP_NAMES, type WorldPlan } from './world-plan.ts';

const VCPUS = 2;
/** Slots by how often their logs are used: those with large pages more. */
const LOGGED: readonly number[] = [1, 1, 3, 3, 0, 2, 4];
const CR0 = 0x80010031 | 0;

export class World {
  readonly plan: WorldPlan;
  readonly vm: Vm;
  readonly narrator = new Narrator();
  steps = 0;
  private readonly model: GuestModel;
  private readonly host: WorldHost;
  private readonly log: WorldLog;
  private readonly guest: WorldGuest;
  private readonly tlbs: WatchedTlb[] = [];
  private readonly tlbCheck: TlbCheck;

  constructor(plan: WorldPlan) {
    const { tlbs, narrator } = this;
    this.plan = plan;
    const model = new GuestModel(VCPUS, plan.paging === 'shadow' ? 'shadow' : 'tdp');
    const host = new WorldHost(plan.host, model, narrator);
    const vm = new Vm({
      host: host.memory,
      npt: plan.paging !== 'shadow',
      tdpMmu: plan.paging === 'tdp-mmu',
      ept: plan.ept,
      hostLevels: plan.levels,
      guestMaxphyaddr: plan.levels === 5 ? 52 : undefined,
      policy: plan.policy,
      kernel: plan.kernel,
      cpuModel: CPU_AMD,
      tlb: () => {
        const tlb = new WatchedTlb(plan.tlb);
        tlbs.push(tlb);
        return tlb;
      },
      flushAtEntry: false,
    });
    const log = new WorldLog(plan, vm, model);
    this.model = model;
    this.host = host;
    this.vm = vm;
    this.log = log;
    this.guest = new WorldGuest({ plan, vm, model, host, log, tlbs, narrator });
    this.tlbCheck = new TlbCheck(plan, vm, model, tlbs);
    this.setUp();
  }

  /** Pages written and not logged, as far as the policy may lose them. */
  get lost(): number {
    return this.log.lost;
  }

  private setUp(): void {
    this.setCapability(['legacy', 'manual', 'initially-set'].indexOf(this.plan.log));
    for (const slot of this.model.slots) this.setSlot(slot.id, slot.baseGfn, false);
    this.vm.setNrMmuPages(64);
    const poke = (hostPage: number, offset: number, word: number): void => this.host.poke(hostPage, offset, word);
    writeCode(poke);
    writeTables(poke);
    writeData(poke);
    for (let v = 0; v < VCPUS; v++) {
      const vcpu = this.vm.createVcpu();
      this.tlbs[v].attach(this.vm, vcpu);
      this.model.flush(v);
      if (this.plan.guest === 'touch') continue;
      vcpu.setSregs({
        cr0: CR0,
        cr3: BigInt(ROOTS[0] * PAGE),
        cr4: 0x20,
        efer: 0xd00,
        cpl: 0,
        idtBase: IDT_BASE,
        gdtBase: GDT_BASE,
        tssBase: TSS_BASE,
      });
    }
  }

  // ---- a step --------------------------------------------------------------------------------------------------------

  step(op: Op): void {
    this.steps++;
    this.guest.beginStep();
    this.perform(op);
    this.check();
  }

  private perform([kind, a, b, c]: Op): void {
    const { guest } = this;
    const isTouch = this.plan.guest === 'touch';
    switch (OP_NAMES[kind]) {
      case 'access':
        return isTouch ? guest.touch(a, b) : guest.access(a, b);
      case 'edit':
        if (isTouch) return guest.touch(a | 4, b);
        return this.plan.hostile && c & 0x400 ? this.editFromVmm(b, c) : guest.editOften(a, b, c);
      case 'invlpg':
        return isTouch ? guest.touch(a, b) : guest.invlpg(a, b);
      case 'cr3':
        return isTouch ? guest.touch(a, b) : guest.loadCr3(a, b);
      case 'cr0':
        return isTouch ? guest.touch(a, b) : guest.toggleWp(a);
      case 'cr4':
        return isTouch ? guest.touch(a, b) : guest.toggleCr4(a, b);
      case 'log':
        return this.toggleLog(b);
      case 'get':
        return this.getLog(b);
      case 'clear':
        return this.clearLog(b, c);
      case 'slot':
        return this.toggleSlot(b, c);
      case 'move':
        return this.moveSlot();
      case 'host':
        return this.host.change(a, b, c);
      case 'vmm-write':
        return this.writeFromVmm(b, c);
      case 'limit':
        return this.limitPages(b);
      case 'nx':
        return this.toggleNx();
      case 'age':
        return this.host.age(a, b);
      default:
        return this.changeCapability(b);
    }
  }

  private check(): void {
    if (this.plan.guest === 'tables' && !this.plan.hostile) this.guest.checkTables();
    const broken = this.vm.verify();
    if (broken.length !== 0) fail(broken.slice(0, 3).join('; '));
    for (let v = 0; v < VCPUS; v++) this.tlbCheck.check(v);
  }

  // ---- logs ----------------------------------------------------------------------------------------------------------

  private loggedSlot(b: number): ModelSlot {
    return this.model.slots[LOGGED[b % LOGGED.length]];
  }

  private toggleLog(b: number): void {
    const slot = this.loggedSlot(b);
    if (!slot.present) return this.narrator.say(() => 'nothing');
    this.narrator.say(() => `slot ${slot.id} ${slot.logs ? 'stops' : 'starts'} logging`);
    this.setSlot(slot.id, slot.baseGfn, !slot.logs);
  }

  /** Creates, moves or changes the slot. */
  private setSlot(id: number, baseGfn: number, logs: boolean): void {
    const slot = this.model.slots[id];
    this.vm.setUserMemoryRegion({
      slot: id,
      flags: (logs ? MEM_LOG_DIRTY_PAGES : 0) | (slot.readonly ? MEM_READONLY : 0),
      guestPhysAddr: baseGfn * PAGE,
      memorySize: slot.pages * PAGE,
      userspaceAddr: this.host.hva(slot.hostPage),
    });
    if (logs && !slot.logs) {
      this.log.logs[id].enable(this.vm.mmu.manualProtect && this.vm.mmu.initiallySet);
    } else if (!logs) this.log.logs[id].disable();
    if (slot.present && slot.baseGfn !== baseGfn) this.model.zapAll();
    if (this.steps > 0 && (!slot.present || slot.baseGfn !== baseGfn)) slot.wasHole = true;
    slot.present = true;
    slot.baseGfn = baseGfn;
    slot.logs = logs;
    if (logs) this.log.noteTargets();
  }

  private getLog(b: number): void {
    const slot = this.loggedSlot(b);
    if (!slot.present || !slot.logs) return this.narrator.say(() => 'nothing');
    this.narrator.say(() => `the log of slot ${slot.id} is read`);
    const report = pagesOf(this.vm.getDirtyLog(slot.id));
    const log = this.log.logs[slot.id];
    this.log.judge(slot.id, this.vm.mmu.manualProtect ? log.peek(report) : log.collect(report));
    this.log.noteTargets();
  }

  private clearLog(b: number, c: number): void {
    const slot = this.loggedSlot(b);
    if (!slot.present || !slot.logs) return this.narrator.say(() => 'nothing');
    const words = Math.ceil(slot.pages / 64);
    const first = c & 0x400 ? 0 : (c >>> 4) % words;
    const rest = words - first;
    const count = [rest, 1, 1 + ((c >>> 2) % rest)][c % 3];
    const bitmap = new Int32Array(2 * count).fill(c & 8 ? -1 : Math.imul(c | 1, 0x9e3779b1));
    const numPages = Math.min(64 * count, slot.pages - 64 * first);
    this.narrator.say(
      () => `pages ${64 * first} to ${64 * first + numPages - 1} of slot ${slot.id} are cleared in the log`,
    );
    const before = this.log.bitmapOf(slot.id) as Int32Array;
    const log = this.log.logs[slot.id];
    this.log.judge(slot.id, log.peek(pagesOf(before)));
    const cleared = pagesOf(bitmap)
      .map((page) => page + 64 * first)
      .filter((page) => before[page >>> 5] & (1 << (page & 31)));
    this.vm.clearDirtyLog(slot.id, 64 * first, numPages, bitmap);
    log.clear(cleared);
    this.log.noteTargets();
  }

  // ---- slots and modes -----------------------------------------------------------------------------------------------

  private toggleSlot(b: number, c: number): void {
    const slot = this.model.slots[1 + (b % 3)];
    this.narrator.say(() => `slot ${slot.id} is ${slot.present ? 'deleted' : 'created'}`);
    if (!slot.present) {
      this.setSlot(slot.id, slot.baseGfn, (c & 3) === 0);
      return;
    }
    this.vm.setUserMemoryRegion({
      slot: slot.id,
      flags: 0,
      guestPhysAddr: 0,
      memorySize: 0,
      userspaceAddr: this.host.hva(slot.hostPage),
    });
    this.log.logs[slot.id].disable();
    this.model.zapAll();
    slot.present = false;
    slot.logs = false;
  }

  private moveSlot(): void {
    const slot = this.model.slots[2];
    if (!slot.present) return this.narrator.say(() => 'nothing');
    const to = slot.baseGfn === OTHER_BASE ? SLOT_PLANS[2].baseGfn : OTHER_BASE;
    this.narrator.say(() => `slot 2 moves to gfn ${to}`);
    this.setSlot(2, to, slot.logs);
  }

  private changeCapability(b: number): void {
    if (this.model.slots.some((slot) => slot.logs)) return this.narrator.say(() => 'nothing');
    this.narrator.say(() => `dirty log mode ${b % 3}`);
    this.setCapability(b % 3);
  }

  /** 0 legacy, 1 manual protection, 2 with logs that start all ones. */
  private setCapability(mode: number): void {
    this.vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, [0, 1, 3][mode]);
  }

  /** Less than the ioctl's minimum of 64 may be set here, so that a small machine too must recycle pages. */
  private limitPages(b: number): void {
    const limit = (this.plan.paging === 'shadow' ? 40 : 18) + (b % 24);
    this.narrator.say(() => `at most ${limit} shadow pages`);
    changeMmuPages(this.vm.mmu, limit);
  }

  private toggleNx(): void {
    const on = !this.vm.mmu.nxHugePages;
    this.narrator.say(() => `nx_huge_pages ${on ? 'on' : 'off'}`);
    this.vm.setNxHugePages(on);
    this.model.zapAll();
  }

  // ---- the VMM ------------------------------------------------------------------------------------------------------

  /** As a device of the VMM's does: past KVM, so not in the log. */
  private writeFromVmm(b: number, c: number): void {
    if (this.plan.hostile) return this.editFromVmm(b, c);
    const slot = this.model.slotOf(DATA_GFNS[b % DATA_GFNS.length]);
    if (slot === null || slot.id === 0) return this.narrator.say(() => 'nothing');
    const page = slot.hostPage + DATA_GFNS[b % DATA_GFNS.length] - slot.baseGfn;
    const offset = DATA_OFFSETS[c % DATA_OFFSETS.length];
    this.narrator.say(() => `the VMM writes host page ${page}`);
    const value = this.host.nextValue();
    const result = this.host.write(page, offset, value, 0);
    if ((result === 0) !== (this.model.rights[page] === 2)) fail(`the VMM's write ended with ${result}`);
    if (result === 0) this.model.store(page, offset, value, 0);
  }

  private editFromVmm(b: number, c: number): void {
    if ((c & 0x3000) === 0x3000) return this.misuseDataPage(b, c);
    const plan = ENTRIES[entryOf(b)];
    const [lo, hi] = editValue(plan, c);
    this.narrator.say(
      () => `the VMM sets entry ${plan.index} of table ${plan.table} to 0x${hex(hi)}_${hex(lo)}, and KVM doesn't know`,
    );
    this.host.write(LOW_HOST_PAGE + plan.table, 8 * plan.index, lo, hi);
  }

  /** The first page of a large page becomes a table too: an entry of it is written, or it is linked as one. */
  private misuseDataPage(b: number, c: number): void {
    this.narrator.say(() => `the VMM ${b & 1 ? 'writes an entry to' : 'links'} gfn 512 as a table`);
    const [lo, hi] = editValue(ENTRIES[0], c & 0xff);
    if (b & 1) return void this.host.write(0, 8 * LEAF_INDICES[(b >>> 1) % LEAF_INDICES.length], lo, hi);
    const upper = ENTRIES.filter((entry) => entry.level === 2);
    const { table, index } = upper[(b >>> 1) % upper.length];
    this.host.write(LOW_HOST_PAGE + table, 8 * index, (512 * PAGE) | 0x27, 0);
  }

  /** Compares all memory that is in use. Slow: for the end of a run. */
  checkMemory(): void {
    if (this.plan.hostile) return;
    const pages = dataHostPages();
    if (this.plan.guest === 'tables') for (let t = FIRST_TABLE; t <= LAST_TABLE; t++) pages.push(LOW_HOST_PAGE + t);
    for (const page of pages) {
      const pfn = this.host.memory.pfnAt(this.host.hva(page));
      for (let word = 0; word < WORDS_PER_PAGE; word++) {
        const actual = pfn < 0 ? 0 : this.host.memory.phys.read32(pfn, 4 * word);
        const expected = this.model.words[page * WORDS_PER_PAGE + word];
        const ignored = isTablePage(page) ? PTE_A | PTE_D : 0;
        if (((actual ^ expected) & ~ignored) !== 0)
          fail(`word ${word} of host page ${page} is ${actual} instead of ${expected}`);
      }
    }
  }
}

function pagesOf(bitmap: Int32Array): number[] {
  const pages: number[] = [];
  for (let i = 0; i < bitmap.length; i++)
    for (let left = bitmap[i]; left !== 0; left &= left - 1) pages.push(32 * i + 31 - Math.clz32(left & -left));
  return pages;
}
