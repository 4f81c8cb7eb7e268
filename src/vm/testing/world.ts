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
import { EFAULT, KvmError } from '../../base/errno.ts';
import { CPU_AMD } from '../../hw/cpu-model.ts';
import { ATTR_HOST_NX, ATTR_HOST_W, ATTR_NX, ATTR_U, ATTR_W } from '../../hw/rights.ts';
import type { TlbPreference } from '../../hw/adversarial-tlb.ts';
import { FLAT_HVA, FlatHost } from '../../mem/flat-host.ts';
import type { HostMemory } from '../../mem/host-memory.ts';
import { HostMm, PROT_NONE, PROT_READ, PROT_RWX } from '../../mem/host/host-mm.ts';
import { isObsolete } from '../../mmu/mmu.ts';
import { changeMmuPages } from '../../mmu/page-zap.ts';
import type { MmuNotifier } from '../../mmu/notifier.ts';
import type { Policy } from '../../mmu/policy.ts';
import { REQ_TLB_FLUSH, REQ_TLB_FLUSH_CURRENT, REQ_TLB_FLUSH_GUEST } from '../../mmu/requests.ts';
import { spteIndex } from '../../mmu/shadow-walk.ts';
import { childOf } from '../../mmu/shadow-pages.ts';
import { isLast, isShadowPresent, pfnOf, SPTE_NX_HI, SPTE_U, SPTE_W } from '../../mmu/spte.ts';
import { DirtyModel } from '../../oracle/dirty-model.ts';
import { CR0_WP, CR4_PGE, CR4_SMAP, CR4_SMEP } from '../cpu-state.ts';
import type { Vcpu } from '../vcpu.ts';
import { CAP_MANUAL_DIRTY_LOG_PROTECT2, MEM_LOG_DIRTY_PAGES, MEM_READONLY, Vm } from '../vm.ts';
import {
  CODE_GFN,
  CODE_OFFSET,
  CODE_WORD,
  DATA_GFNS,
  DATA_OFFSETS,
  dataHostPages,
  ENTRIES,
  editValue,
  entryOf,
  FIRST_TABLE,
  FIXED_ENTRIES,
  GDT_BASE,
  GPR_RAX,
  GPR_RBX,
  GPR_RCX,
  GPR_RSP,
  HOST_PAGES,
  IDT_BASE,
  KERNEL_CODE,
  LAST_TABLE,
  LOW_HOST_PAGE,
  OTHER_BASE,
  PAGE,
  PORT_DONE,
  PORT_PF,
  PORT_UD,
  PTE_A,
  PTE_D,
  ROOTS,
  SLOT_PLANS,
  STACK_TOP,
  STUB_CR0,
  STUB_CR3,
  STUB_CR4,
  STUB_INVLPG,
  STUB_READ,
  STUB_WRITE,
  TSS_BASE,
  USER_CODE,
  touchedOf,
  vaOf,
  VAS,
  WORDS_PER_PAGE,
  writeCode,
  writeData,
  writeTables,
} from './guest-image.ts';
import {
  ACCESS_FETCH,
  ACCESS_READ,
  ACCESS_WRITE,
  END_EFAULT,
  END_FAULT,
  END_MEMORY,
  END_MMIO,
  type Ending,
  GuestModel,
  isTablePage,
  type ModelSlot,
} from './guest-model.ts';
import { WatchedTlb } from './watched-tlb.ts';

export interface WorldPlan {
  readonly policy: Policy;
  readonly paging: 'tdp' | 'shadow';
  /** `touch`: no tables of its own, guest-physical accesses; nested paging only. */
  readonly guest: 'touch' | 'tables';
  /** Flat memory of 4 KiB or 2 MiB pages, or the model of Linux's memory management with THP. */
  readonly host: 'flat-4k' | 'flat-2m' | 'linux';
  readonly log: 'legacy' | 'manual' | 'initially-set';
  readonly tlb: TlbPreference;
  /** Count pages that the log misses, instead of ending there. */
  readonly mayLose: boolean;
  /**
   * The VMM edits the guest's tables behind KVM's back. What the guest sees then is its own trouble; the MMU's state has to
   * stay sound all the same (CVE-2026-46113, CVE-2026-53359, CVE-2026-23401).
   */
  readonly hostile: boolean;
}

/** Kind and three arguments. */
export type Op = readonly [kind: number, a: number, b: number, c: number];

export const OP_NAMES = [
  'access',
  'edit',
  'invlpg',
  'cr3',
  'cr0',
  'cr4',
  'log',
  'get',
  'clear',
  'slot',
  'move',
  'host',
  'vmm-write',
  'limit',
  'nx',
  'age',
  'capability',
] as const;

const VCPUS = 2;
/** Slots by how often their logs are used: those with large pages more. */
const LOGGED: readonly number[] = [1, 1, 3, 1, 0, 2, 4];
const LINUX_HVA = 0x100000000000;
const ANSWER_LO = 0x5a5a5a5a;
const ANSWER = new Uint8Array(8).fill(0x5a);
const FLUSHES = REQ_TLB_FLUSH | REQ_TLB_FLUSH_CURRENT | REQ_TLB_FLUSH_GUEST;
const CR0 = 0x80010031 | 0;
const ACCESS_NAMES = ['reads', 'writes', 'fetches'];
const TLB_ACCESS = [4, 6, 20];

/** What a run of the guest showed. */
const GOT_DONE = 0;
const GOT_PF = 1;
const GOT_UD = 2;
const GOT_EFAULT = 3;

export class World {
  readonly plan: WorldPlan;
  readonly vm: Vm;
  readonly model: GuestModel;
  /** Pages written and not logged, as far as the policy may lose them. */
  lost = 0;
  steps = 0;
  /** What the last step was, in words; only if `verbose`. */
  note = '';
  verbose = false;

  private readonly host: HostMemory;
  private readonly mm: HostMm | null;
  private readonly base: number;
  private readonly tlbs: WatchedTlb[] = [];
  private readonly logs: readonly DirtyModel[];
  private readonly mapped = new Uint8Array(HOST_PAGES).fill(1);
  private readonly entryWords: Int32Array;
  private readonly tablePfns = new Int32Array(LAST_TABLE + 1);
  private readonly bytes = new Uint8Array(8);
  private readonly pair = new Int32Array(this.bytes.buffer);
  private serial = 8192;

  // Of the step at hand.
  private faults = 0;
  private mmioGpa = -1;
  private mmioWrite = false;
  /** Word that the step itself wrote. */
  private landed = -1;
  private readonly allowedA = new Int32Array(8);
  private allowedCount = 0;
  private allowedD = -1;

  constructor(plan: WorldPlan) {
    this.plan = plan;
    this.mm = plan.host === 'linux' ? new HostMm() : null;
    this.host = this.mm ?? new FlatHost({ bytes: HOST_PAGES * PAGE, level: plan.host === 'flat-2m' ? 2 : 1 });
    this.base = this.mm ? LINUX_HVA : FLAT_HVA;
    if (this.mm) mapLinux(this.mm);
    this.vm = new Vm({
      host: this.host,
      npt: plan.paging === 'tdp',
      policy: plan.policy,
      cpuModel: CPU_AMD,
      tlb: () => {
        const tlb = new WatchedTlb(plan.tlb);
        this.tlbs.push(tlb);
        return tlb;
      },
      flushAtEntry: false,
    });
    this.model = new GuestModel(VCPUS, plan.paging);
    this.logs = SLOT_PLANS.map((slot) => new DirtyModel(slot.pages));
    this.setCapability(['legacy', 'manual', 'initially-set'].indexOf(plan.log));
    for (const slot of this.model.slots) this.setSlot(slot.id, slot.baseGfn, false);
    this.vm.setNrMmuPages(64);
    const poke = (hostPage: number, offset: number, word: number): void => this.poke(hostPage, offset, word);
    writeCode(poke);
    writeTables(poke);
    writeData(poke);
    this.entryWords = Int32Array.from([...ENTRIES, ...FIXED_ENTRIES], (e) =>
      this.model.wordIndex(LOW_HOST_PAGE + e.table, 8 * e.index),
    );
    for (let v = 0; v < VCPUS; v++) {
      const vcpu = this.vm.createVcpu();
      this.tlbs[v].attach(this.vm, vcpu);
      this.model.flush(v);
      if (plan.guest === 'touch') continue;
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

  private poke(hostPage: number, offset: number, word: number): void {
    this.model.words[this.model.wordIndex(hostPage, offset)] = word;
    this.pair[0] = word;
    if (this.host.writeUser(this.hva(hostPage) + offset, this.bytes, 4) !== 0) throw new Error('no memory to poke');
  }

  private hva(hostPage: number): number {
    return this.base + hostPage * PAGE;
  }

  // ---- a step ------------------------------------------------------------------------------------------------------

  step(op: Op): void {
    this.steps++;
    for (const tlb of this.tlbs) tlb.lookups = 0;
    this.landed = -1;
    this.allowedCount = 0;
    this.allowedD = -1;
    this.perform(op);
    this.check();
  }

  private perform([kind, a, b, c]: Op): void {
    const isTouch = this.plan.guest === 'touch';
    switch (OP_NAMES[kind]) {
      case 'access':
        return isTouch ? this.touch(a, b) : this.access(a, b);
      case 'edit':
        return isTouch ? this.touch(a | 4, b) : this.edit(a, b, c);
      case 'invlpg':
        return isTouch ? this.touch(a, b) : this.invlpg(a, b);
      case 'cr3':
        return isTouch ? this.touch(a, b) : this.loadCr3(a, b);
      case 'cr0':
        return isTouch ? this.touch(a, b) : this.toggleWp(a);
      case 'cr4':
        return isTouch ? this.touch(a, b) : this.toggleCr4(a, b);
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
        return this.mm === null ? this.age(a, b) : this.changeHost(this.mm, a, b, c);
      case 'vmm-write':
        return this.writeFromVmm(b, c);
      case 'limit':
        return this.limitPages(b);
      case 'nx':
        return this.toggleNx();
      case 'age':
        return this.age(a, b);
      default:
        return this.changeCapability(b);
    }
  }

  private say(text: () => string): void {
    if (this.verbose) this.note = text();
  }

  // ---- a guest without tables --------------------------------------------------------------------------------------

  private touch(a: number, b: number): void {
    const v = a & 1;
    const access = ((a >>> 1) & 3) % 3;
    const gfn = DATA_GFNS[touchedOf(b)];
    const offset = DATA_OFFSETS[(a >>> 3) % DATA_OFFSETS.length];
    this.say(() => `vCPU ${v} ${ACCESS_NAMES[access]} gfn ${gfn}`);
    const vcpu = this.vm.vcpus[v];
    const ending = this.model.endingOf(gfn, access);
    // One in eight of those that must fail: exceptions are slow.
    if (ending.kind !== END_MEMORY && a & 0xe0) return this.say(() => 'nothing');
    const before = vcpu.mmu.stats.pf_taken;
    const done = touches(vcpu, gfn, access);
    if (done !== (ending.kind === END_MEMORY)) fail(`the touch was ${done ? '' : 'not '}possible`);
    if (!done) return;
    if (vcpu.mmu.stats.pf_taken !== before) this.noteFault(ending);
    const tlb = this.tlbs[v];
    if (!tlb.lookup(0, gfn << 12, gfn >>> 20, TLB_ACCESS[access], 2, 0)) fail('the touch left no TLB entry');
    const pfn = this.host.pfnAt(this.hva(ending.hostPage));
    if (tlb.pfn !== pfn) fail(`gfn ${gfn} led to frame ${tlb.pfn} instead of ${pfn}`);
    if (access !== ACCESS_WRITE) {
      this.checkRead(tlb.pfn, ending.hostPage, offset);
      return;
    }
    const serial = this.serial++ << 1;
    this.host.phys.write32(tlb.pfn, offset, serial);
    this.host.phys.write32(tlb.pfn, offset + 4, 0);
    this.model.store(ending.hostPage, offset, serial, 0);
    this.noteWrite(ending.slot, ending.hostPage - this.model.slots[ending.slot].hostPage);
  }

  private checkRead(pfn: number, hostPage: number, offset: number): void {
    const value = this.host.phys.read32(pfn, offset);
    const expected = this.model.words[this.model.wordIndex(hostPage, offset)];
    if (value !== expected) fail(`read ${value} instead of ${expected}`);
  }

  // ---- a guest with tables -----------------------------------------------------------------------------------------

  private access(a: number, b: number): void {
    const v = a & 1;
    const access = ((a >>> 1) & 3) % 3;
    const user = (a & 8) !== 0;
    const i = vaOf(b);
    const offset = access === ACCESS_FETCH ? CODE_OFFSET : DATA_OFFSETS[(a >>> 4) % DATA_OFFSETS.length];
    const va = VAS[i] + offset;
    const { model } = this;
    model.endings(v, i, access, user);
    if (access === ACCESS_FETCH && model.mayMeetMmio(v, i)) {
      this.say(() => 'nothing');
      return;
    }
    this.say(() => `vCPU ${v} ${ACCESS_NAMES[access]} 0x${va.toString(16)} as ${user ? 'user' : 'supervisor'}`);
    this.allowFlags(v, i, access, user);
    const serial = this.serial++ << 1;
    const stub = (user ? USER_CODE : KERNEL_CODE) + (access === ACCESS_WRITE ? STUB_WRITE : STUB_READ);
    const got = this.run(v, access === ACCESS_FETCH ? va : stub, va, serial, 0, user);
    if (!this.plan.hostile) this.judge(v, got, access, va, offset, serial);
  }

  /** Is what the guest got among the endings that the model found? Then it becomes true in the model too. */
  private judge(v: number, got: number, access: number, va: number, offset: number, serial: number): void {
    const { model } = this;
    if (this.faults !== 0) for (let n = 0; n < model.foundCount; n++) this.noteFault(model.found[n]);
    if (got === GOT_PF) {
      this.noteWrite(0, CODE_GFN);
      this.judgeFault(v, va);
      return;
    }
    if (got === GOT_EFAULT) {
      if (!this.hasEnding(END_EFAULT)) fail('KVM_RUN failed with EFAULT');
      return;
    }
    if (this.mmioGpa >= 0) {
      if (this.mmioWrite !== (access === ACCESS_WRITE)) fail('MMIO of the wrong kind');
      this.judgeMmio(v, offset);
      return;
    }
    if (access === ACCESS_FETCH) this.judgeFetch(got);
    else if (got !== GOT_DONE) fail(`the access ended as ${got}`);
    else if (access === ACCESS_READ) this.judgeRead(v, offset);
    else this.judgeWrite(offset, serial);
  }

  private hasEnding(kind: number): boolean {
    for (let n = 0; n < this.model.foundCount; n++) if (this.model.found[n].kind === kind) return true;
    return false;
  }

  private judgeFault(v: number, va: number): void {
    const s = this.vm.vcpus[v].state;
    const { kind, error } = this.model.found[0];
    const code = this.actual(LOW_HOST_PAGE + CODE_GFN, s.gpr[GPR_RSP] & 0xfff);
    if (kind !== END_FAULT) fail(`#PF with code ${code}, though the tables allow the access`);
    if (code !== error) fail(`#PF with code ${code} instead of ${error}`);
    if (s.cr2Lo !== va || s.cr2Hi !== 0) fail(`CR2 is 0x${(s.cr2Lo >>> 0).toString(16)}`);
  }

  private judgeMmio(v: number, offset: number): void {
    const { model } = this;
    for (let n = 0; n < model.foundCount; n++) {
      const { kind, gfn } = model.found[n];
      // An instruction that is emulated takes memory that the host refuses for MMIO.
      const isMmio = kind === END_MMIO || (kind === END_EFAULT && this.plan.paging === 'shadow');
      if (!isMmio || gfn * PAGE + offset !== this.mmioGpa) continue;
      if (!this.mmioWrite && this.vm.vcpus[v].state.gpr[GPR_RAX] !== ANSWER_LO) fail("user space's answer got lost");
      return;
    }
    fail(`MMIO at 0x${this.mmioGpa.toString(16)}`);
  }

  private judgeFetch(got: number): void {
    const { model } = this;
    for (let n = 0; n < model.foundCount; n++) {
      const { kind, hostPage } = model.found[n];
      if (kind !== END_MEMORY) continue;
      const isCode = model.words[model.wordIndex(hostPage, CODE_OFFSET)] === CODE_WORD;
      if (got !== (isCode ? GOT_DONE : GOT_UD)) continue;
      if (got === GOT_UD) this.noteWrite(0, CODE_GFN);
      this.requireFlags(ACCESS_FETCH);
      return;
    }
    fail(`the fetch ended as ${got}`);
  }

  private judgeRead(v: number, offset: number): void {
    const { model } = this;
    const { gpr } = this.vm.vcpus[v].state;
    const seen: string[] = [];
    for (let n = 0; n < model.foundCount; n++) {
      const { kind, hostPage } = model.found[n];
      if (kind !== END_MEMORY) continue;
      const at = model.wordIndex(hostPage, offset);
      // A walk may have set A or D in what it then read.
      const ignored = isTablePage(hostPage) ? PTE_A | PTE_D : 0;
      if (((gpr[GPR_RAX] ^ model.words[at]) & ~ignored) === 0 && gpr[GPR_RAX + 1] === model.words[at + 1]) {
        this.requireFlags(ACCESS_READ);
        return;
      }
      seen.push(`${model.words[at]} in host page ${hostPage}`);
    }
    fail(`read ${gpr[GPR_RAX]} instead of ${seen.join(' or ') || 'what is no memory'}`);
  }

  private judgeWrite(offset: number, serial: number): void {
    const { model } = this;
    let landed: Ending | null = null;
    let others = 0;
    for (let n = 0; n < model.foundCount; n++) {
      const ending = model.found[n];
      if (ending.kind !== END_MEMORY || this.actual(ending.hostPage, offset) !== serial) continue;
      if (landed !== null && (landed.slot !== ending.slot || landed.hostPage !== ending.hostPage)) others++;
      landed = ending;
    }
    if (landed === null) fail('the write is nowhere where it may be');
    const rel = landed.hostPage - model.slots[landed.slot].hostPage;
    this.landed = model.wordIndex(landed.hostPage, offset);
    // Through which of two slots with the same memory it went can't be told.
    if (others === 0) this.noteWrite(landed.slot, rel);
    else
      for (let n = 0; n < model.foundCount; n++)
        if (model.found[n].hostPage === landed.hostPage) this.noteFault(model.found[n]);
    this.requireFlags(ACCESS_WRITE);
    if (isTablePage(landed.hostPage)) this.settleFlags();
    model.store(landed.hostPage, offset, serial, 0);
  }

  /** The write hit a table, perhaps an entry of its own path: the flags that the walk set there came before it. */
  private settleFlags(): void {
    this.checkTables(this.landed);
    if (!this.isOnPath(this.landed)) return;
    this.model.addFlags(this.landed, this.landed === this.allowedD ? PTE_A | PTE_D : PTE_A);
    this.model.refresh();
  }

  /** Contents of memory as the host has them. */
  private actual(hostPage: number, offset: number): number {
    return this.host.phys.read32(this.host.pfnAt(this.hva(hostPage)), offset);
  }

  private edit(a: number, b: number, c: number): void {
    const v = a & 1;
    const plan = ENTRIES[entryOf(b)];
    const [lo, hi] = editValue(plan, c);
    const va = plan.table * PAGE + 8 * plan.index;
    this.say(() => `vCPU ${v} sets entry ${plan.index} of table ${plan.table} to 0x${hex(hi)}_${hex(lo)}`);
    if (this.plan.hostile && (c & 0x400) !== 0) return this.editFromVmm(b, c);
    this.foundNothing();
    const got = this.run(v, KERNEL_CODE + STUB_WRITE, va, lo, hi, false);
    if (this.plan.hostile) return;
    if (got !== GOT_DONE || this.mmioGpa >= 0) fail(`the edit ended as ${got}`);
    this.landed = this.model.wordIndex(LOW_HOST_PAGE + plan.table, 8 * plan.index);
    if (((this.actual(LOW_HOST_PAGE + plan.table, 8 * plan.index) ^ lo) & ~(PTE_A | PTE_D)) !== 0)
      fail('the entry is not what was written');
    this.noteWrite(0, plan.table);
    this.model.store(LOW_HOST_PAGE + plan.table, 8 * plan.index, lo, hi);
    if (plan.level <= 2 && lo & 1) this.noteTarget(lo >>> 12);
  }

  private foundNothing(): void {
    this.model.foundCount = 0;
  }

  private invlpg(a: number, b: number): void {
    const v = a & 1;
    const i = vaOf(b);
    this.say(() => `vCPU ${v} invalidates 0x${VAS[i].toString(16)}`);
    this.expectDone(this.run(v, KERNEL_CODE + STUB_INVLPG, VAS[i], 0, 0, false));
    this.model.invalidate(v, i);
  }

  private loadCr3(a: number, b: number): void {
    const v = a & 1;
    const root = ROOTS[b % ROOTS.length];
    this.say(() => `vCPU ${v} loads root ${root}`);
    this.expectDone(this.run(v, KERNEL_CODE + STUB_CR3, root * PAGE, 0, 0, false));
    this.model.controls[v].root = root;
    this.model.flush(v);
  }

  private toggleWp(a: number): void {
    const v = a & 1;
    const value = this.vm.vcpus[v].state.cr0 ^ CR0_WP;
    this.say(() => `vCPU ${v} sets CR0.WP to ${value & CR0_WP ? 1 : 0}`);
    this.expectDone(this.run(v, KERNEL_CODE + STUB_CR0, value, 0, 0, false));
    this.model.controls[v].wp = (value & CR0_WP) !== 0;
  }

  private toggleCr4(a: number, b: number): void {
    const v = a & 1;
    const bit = [CR4_SMEP, CR4_SMAP, CR4_PGE][b % 3];
    const value = this.vm.vcpus[v].state.cr4 ^ bit;
    this.say(() => `vCPU ${v} loads CR4 with 0x${value.toString(16)}`);
    this.expectDone(this.run(v, KERNEL_CODE + STUB_CR4, value, 0, 0, false));
    const controls = this.model.controls[v];
    controls.smep = (value & CR4_SMEP) !== 0;
    controls.smap = (value & CR4_SMAP) !== 0;
    if (bit === CR4_PGE || (bit === CR4_SMEP && controls.smep)) this.model.flush(v);
  }

  private expectDone(got: number): void {
    if (this.plan.hostile) return;
    if (got !== GOT_DONE || this.mmioGpa >= 0) fail(`the instruction ended as ${got}`);
  }

  /** Runs the guest from `rip` to its `out`. */
  private run(v: number, rip: number, rbx: number, rcxLo: number, rcxHi: number, user: boolean): number {
    const vcpu = this.vm.vcpus[v];
    const s = vcpu.state;
    const before = vcpu.mmu.stats.pf_taken;
    s.cpl = user ? 3 : 0;
    s.rflags = 2;
    s.gpr.fill(0);
    s.gpr[GPR_RBX] = rbx;
    s.gpr[GPR_RCX] = rcxLo;
    s.gpr[GPR_RCX + 1] = rcxHi;
    s.gpr[GPR_RSP] = STACK_TOP;
    vcpu.setRip(rip, 0);
    this.mmioGpa = -1;
    const got = this.runToOut(vcpu);
    this.faults = vcpu.mmu.stats.pf_taken - before;
    if (this.faults !== 0) this.noteSystemPages();
    return got;
  }

  private runToOut(vcpu: Vcpu): number {
    for (let i = 0; i < 8; i++) {
      const result = vcpu.run(ANSWER);
      if (result < 0) return result === -EFAULT ? GOT_EFAULT : fail(`KVM_RUN failed with ${result}`);
      const { exit } = vcpu;
      if (exit.reason !== 'io' && exit.reason !== 'mmio' && this.plan.hostile) return GOT_EFAULT;
      if (exit.reason === 'mmio') {
        this.mmioGpa = exit.gpa;
        this.mmioWrite = exit.isWrite;
        continue;
      }
      if (exit.reason !== 'io') return fail(`KVM_RUN ended with ${exit.reason}`);
      vcpu.run(ANSWER, true);
      if (exit.port === PORT_DONE) return GOT_DONE;
      if (exit.port === PORT_PF) return GOT_PF;
      if (exit.port === PORT_UD || this.plan.hostile) return GOT_UD;
      return fail(`the guest got an exception at port ${exit.port}`);
    }
    return fail('KVM_RUN ended for MMIO again and again');
  }

  // ---- A and D -----------------------------------------------------------------------------------------------------

  /** Notes in which entries the access about to be made may set A, and in which D. */
  private allowFlags(v: number, i: number, access: number, user: boolean): void {
    const { model } = this;
    const translation = model.walk(model.controls[v].root, VAS[i]);
    for (let n = 0; n < model.pathLength; n++) this.allowedA[n] = model.path[n];
    this.allowedCount = model.pathLength;
    if (!model.pathEndsInLeaf || access !== ACCESS_WRITE) return;
    if (model.faultOf(translation, v, access, user) < 0) this.allowedD = model.path[model.pathLength - 1];
  }

  /** An access that nothing stale can have served went by a walk, which sets A on its path and D for a write. */
  private requireFlags(access: number): void {
    const { model } = this;
    if (!model.onlyFresh) return;
    for (let n = 0; n < this.allowedCount; n++) {
      const at = this.allowedA[n];
      const wanted = access === ACCESS_WRITE && n === this.allowedCount - 1 ? PTE_A | PTE_D : PTE_A;
      const word = this.actual((at / WORDS_PER_PAGE) | 0, (at % WORDS_PER_PAGE) * 4);
      if (at !== this.landed && (word & wanted) !== wanted) fail(`an entry of the path lacks A or D: word ${at}`);
    }
  }

  /** The guest's tables are what the model has, but for A and D where they may appear. */
  private checkTables(except = -1): void {
    const { model, entryWords, tablePfns } = this;
    const { phys } = this.host;
    for (let gfn = FIRST_TABLE; gfn <= LAST_TABLE; gfn++)
      tablePfns[gfn] = this.host.pfnAt(this.hva(LOW_HOST_PAGE + gfn));
    let refresh = false;
    for (let n = 0; n < entryWords.length; n++) {
      const at = entryWords[n];
      const gfn = ((at / WORDS_PER_PAGE) | 0) - LOW_HOST_PAGE;
      const word = phys.read32(tablePfns[gfn], (at % WORDS_PER_PAGE) * 4);
      const added = word ^ model.words[at];
      if (added === 0 || at === except) continue;
      const index = (at % WORDS_PER_PAGE) >>> 1;
      if ((added & ~(PTE_A | PTE_D)) !== 0 || (added & model.words[at]) !== 0)
        fail(`entry ${index} of table ${gfn} changed by 0x${(added >>> 0).toString(16)}`);
      if (added & PTE_D && at !== this.allowedD) fail(`entry ${index} of table ${gfn} got D`);
      if (added & PTE_A && index !== 0 && !this.isOnPath(at)) fail(`entry ${index} of table ${gfn} got A`);
      model.addFlags(at, added);
      this.noteWrite(0, gfn);
      refresh = true;
    }
    if (refresh) model.refresh();
  }

  private isOnPath(at: number): boolean {
    for (let n = 0; n < this.allowedCount; n++) if (this.allowedA[n] === at) return true;
    return false;
  }

  // ---- the dirty log -----------------------------------------------------------------------------------------------

  private bitmapOf(slot: number): Int32Array | null {
    return this.vm.mmu.slots[0].byId(slot)?.dirtyBitmap ?? null;
  }

  /** A page's memory changed by the guest's doing: it must be in the log now, not only when that is read. */
  private noteWrite(slot: number, rel: number): void {
    const log = this.logs[slot];
    if (!log.on || this.plan.hostile) return;
    log.write(rel);
    const bitmap = this.bitmapOf(slot);
    if (bitmap !== null && bitmap[rel >>> 5] & (1 << (rel & 31))) return;
    this.lose(`page ${rel} of slot ${slot} was written and is not in the log`);
  }

  private lose(what: string): void {
    if (!this.plan.mayLose) fail(`INVARIANT dirty: ${what}`);
    this.lost++;
  }

  /** A fault may have made the page writable, and so logged. */
  private noteFault(ending: Ending): void {
    if (ending.kind !== END_MEMORY) return;
    const slot = this.model.slots[ending.slot];
    this.logs[ending.slot].readFault(ending.hostPage - slot.hostPage, this.model.rights[ending.hostPage] === 2);
  }

  /** Any fault may have been for the pages that every instruction needs. */
  private noteSystemPages(): void {
    const log = this.logs[0];
    if (!log.on) return;
    log.becomeWritable(CODE_GFN);
    for (let gfn = FIRST_TABLE; gfn <= LAST_TABLE; gfn++) log.becomeWritable(gfn);
  }

  /** Shadow paging: a page that is brought up to date logs what its entries let be written. */
  private noteTarget(gfn: number): void {
    if (this.plan.paging === 'tdp') return;
    const slot = this.model.slotOf(gfn);
    if (slot !== null) this.logs[slot.id].becomeWritable(gfn - slot.baseGfn);
  }

  private noteTargets(): void {
    for (const { table, index, level } of ENTRIES) {
      const lo = this.model.words[this.model.wordIndex(LOW_HOST_PAGE + table, 8 * index)];
      if (level <= 2 && lo & 1) this.noteTarget(lo >>> 12);
    }
    if (this.logs[0].on && this.plan.guest === 'tables') this.noteSystemPages();
  }

  private loggedSlot(b: number): ModelSlot {
    return this.model.slots[LOGGED[b % LOGGED.length]];
  }

  private toggleLog(b: number): void {
    const slot = this.loggedSlot(b);
    if (!slot.present) return this.say(() => 'nothing');
    this.say(() => `slot ${slot.id} ${slot.logs ? 'stops' : 'starts'} logging`);
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
      userspaceAddr: this.hva(slot.hostPage),
    });
    if (logs && !slot.logs) {
      this.logs[id].enable(this.vm.mmu.manualProtect && this.vm.mmu.initiallySet);
    } else if (!logs) this.logs[id].disable();
    if (slot.present && slot.baseGfn !== baseGfn) this.model.zapAll();
    if (this.steps > 0 && (!slot.present || slot.baseGfn !== baseGfn)) slot.wasHole = true;
    slot.present = true;
    slot.baseGfn = baseGfn;
    slot.logs = logs;
    if (logs) this.noteTargets();
  }

  private getLog(b: number): void {
    const slot = this.loggedSlot(b);
    if (!slot.present || !slot.logs) return this.say(() => 'nothing');
    this.say(() => `the log of slot ${slot.id} is read`);
    const report = pagesOf(this.vm.getDirtyLog(slot.id));
    const log = this.logs[slot.id];
    this.judgeLog(slot.id, this.vm.mmu.manualProtect ? log.peek(report) : log.collect(report));
    this.noteTargets();
  }

  private judgeLog(id: number, verdict: { missing: number[]; unfounded: number[] }): void {
    if (this.plan.hostile) return;
    for (const page of verdict.missing) this.lose(`page ${page} of slot ${id} is missing from the log`);
    for (const page of verdict.unfounded) {
      // As first merged, the fast fault logged a large mapping's first page, whichever was written.
      const first = (this.model.slots[id].baseGfn + page) % 512 === 0;
      if (this.plan.policy.fastFaultLarge === 'guarded' || !first)
        fail(`page ${page} of slot ${id} is in the log without reason`);
    }
  }

  private clearLog(b: number, c: number): void {
    const slot = this.loggedSlot(b);
    if (!slot.present || !slot.logs) return this.say(() => 'nothing');
    const words = Math.ceil(slot.pages / 64);
    const first = (c >>> 4) % words;
    const rest = words - first;
    const count = c & 1 ? rest : 1 + ((c >>> 1) % rest);
    const bitmap = new Int32Array(2 * count).fill(c & 8 ? -1 : Math.imul(c | 1, 0x9e3779b1));
    const numPages = Math.min(64 * count, slot.pages - 64 * first);
    this.say(() => `pages ${64 * first} to ${64 * first + numPages - 1} of slot ${slot.id} are cleared in the log`);
    const before = this.bitmapOf(slot.id) as Int32Array;
    const log = this.logs[slot.id];
    this.judgeLog(slot.id, log.peek(pagesOf(before)));
    const cleared = pagesOf(bitmap)
      .map((page) => page + 64 * first)
      .filter((page) => before[page >>> 5] & (1 << (page & 31)));
    this.vm.clearDirtyLog(slot.id, 64 * first, numPages, bitmap);
    log.clear(cleared);
    this.noteTargets();
  }

  // ---- slots and modes ---------------------------------------------------------------------------------------------

  private toggleSlot(b: number, c: number): void {
    const slot = this.model.slots[1 + (b % 3)];
    this.say(() => `slot ${slot.id} is ${slot.present ? 'deleted' : 'created'}`);
    if (!slot.present) {
      this.setSlot(slot.id, slot.baseGfn, (c & 3) === 0);
      return;
    }
    this.vm.setUserMemoryRegion({
      slot: slot.id,
      flags: 0,
      guestPhysAddr: 0,
      memorySize: 0,
      userspaceAddr: this.hva(slot.hostPage),
    });
    this.logs[slot.id].disable();
    this.model.zapAll();
    slot.present = false;
    slot.logs = false;
  }

  private moveSlot(): void {
    const slot = this.model.slots[2];
    if (!slot.present) return this.say(() => 'nothing');
    const to = slot.baseGfn === OTHER_BASE ? SLOT_PLANS[2].baseGfn : OTHER_BASE;
    this.say(() => `slot 2 moves to gfn ${to}`);
    this.setSlot(2, to, slot.logs);
  }

  private changeCapability(b: number): void {
    if (this.model.slots.some((slot) => slot.logs)) return this.say(() => 'nothing');
    this.say(() => `dirty log mode ${b % 3}`);
    this.setCapability(b % 3);
  }

  /** 0 legacy, 1 manual protection, 2 with logs that start all ones. */
  private setCapability(mode: number): void {
    this.vm.enableCap(CAP_MANUAL_DIRTY_LOG_PROTECT2, [0, 1, 3][mode]);
  }

  /** Less than the ioctl's minimum of 64 may be set here, so that a small machine too must recycle pages. */
  private limitPages(b: number): void {
    const limit = (this.plan.paging === 'shadow' ? 40 : 18) + (b % 24);
    this.say(() => `at most ${limit} shadow pages`);
    changeMmuPages(this.vm.mmu, limit);
  }

  private toggleNx(): void {
    const on = !this.vm.mmu.nxHugePages;
    this.say(() => `nx_huge_pages ${on ? 'on' : 'off'}`);
    this.vm.setNxHugePages(on);
    this.model.zapAll();
  }

  // ---- the host ----------------------------------------------------------------------------------------------------

  private age(a: number, b: number): void {
    const notifier = this.host.notifier as MmuNotifier;
    const start = this.hva((b * 8) % HOST_PAGES);
    const end = start + [PAGE, 16 * PAGE, 512 * PAGE][a % 3];
    const how = (a >>> 2) % 3;
    this.say(() => `${['clear_flush_young', 'clear_young', 'test_young'][how]} from host page ${(b * 8) % HOST_PAGES}`);
    if (how === 0) notifier.clearFlushYoung(start, end);
    else if (how === 1) notifier.clearYoung(start, end);
    else notifier.testYoung(start);
  }

  private changeHost(mm: HostMm, a: number, b: number, c: number): void {
    const what = a % 6;
    if (what === 5) {
      this.say(() => 'the VMM forks');
      mm.fork();
      return;
    }
    const first = this.pickHostPage(b);
    const end = first < LOW_HOST_PAGE ? LOW_HOST_PAGE : HOST_PAGES;
    const count = Math.min([1, 2, 16, 512][c & 3], end - first);
    const hva = this.hva(first);
    const { model, mapped } = this;
    this.say(
      () =>
        `${['dontneed', 'munmap', 'mmap', 'mprotect', 'mprotect'][what]} ${(c >>> 2) % 3} of host pages ${first} to ${first + count - 1}`,
    );
    if (what === 0) mm.madviseDontneed(hva, count * PAGE);
    else if (what === 1) mm.munmap(hva, count * PAGE);
    else if (what >= 3) mm.mprotect(hva, count * PAGE, [PROT_NONE, PROT_READ, PROT_RWX][(c >>> 2) % 3]);
    for (let page = first; page < first + count; page++) {
      if (what <= 1) model.words.fill(0, page * WORDS_PER_PAGE, (page + 1) * WORDS_PER_PAGE);
      if (what === 1) mapped[page] = model.rights[page] = 0;
      else if (what === 2 && !mapped[page]) {
        mm.mmapRegion({ base: this.hva(page), length: PAGE, backing: first < LOW_HOST_PAGE ? 'thp' : '4k' });
        mapped[page] = 1;
        model.rights[page] = 2;
      } else if (what >= 3) {
        if (!mapped[page]) break;
        model.rights[page] = (c >>> 2) % 3;
      }
    }
  }

  /** Any but those of slot 0. Near pages that the guest uses, mostly. */
  private pickHostPage(b: number): number {
    const gfn = DATA_GFNS[b % DATA_GFNS.length];
    const slot = SLOT_PLANS.find((s) => s.id !== 0 && gfn >= s.baseGfn && gfn < s.baseGfn + s.pages);
    if (slot === undefined) return (b * 512) % LOW_HOST_PAGE;
    return slot.hostPage + gfn - slot.baseGfn;
  }

  /** As a device of the VMM's does: past KVM, so not in the log. */
  private writeFromVmm(b: number, c: number): void {
    if (this.plan.hostile) return this.editFromVmm(b, c);
    const slot = this.model.slotOf(DATA_GFNS[b % DATA_GFNS.length]);
    if (slot === null || slot.id === 0) return this.say(() => 'nothing');
    const page = slot.hostPage + DATA_GFNS[b % DATA_GFNS.length] - slot.baseGfn;
    const offset = DATA_OFFSETS[c % DATA_OFFSETS.length];
    this.say(() => `the VMM writes host page ${page}`);
    const serial = this.serial++ << 1;
    this.pair[0] = serial;
    this.pair[1] = 0;
    const result = this.host.writeUser(this.hva(page) + offset, this.bytes, 8);
    if ((result === 0) !== (this.model.rights[page] === 2)) fail(`the VMM's write ended with ${result}`);
    if (result === 0) this.model.store(page, offset, serial, 0);
  }

  private editFromVmm(b: number, c: number): void {
    const plan = ENTRIES[entryOf(b)];
    const [lo, hi] = editValue(plan, c);
    this.say(
      () => `the VMM sets entry ${plan.index} of table ${plan.table} to 0x${hex(hi)}_${hex(lo)}, and KVM doesn't know`,
    );
    this.pair[0] = lo;
    this.pair[1] = hi;
    this.host.writeUser(this.hva(LOW_HOST_PAGE + plan.table) + 8 * plan.index, this.bytes, 8);
  }

  // ---- checks after each step --------------------------------------------------------------------------------------

  private check(): void {
    if (this.plan.guest === 'tables' && !this.plan.hostile) this.checkTables();
    const broken = this.vm.verify();
    if (broken.length !== 0) fail(broken.slice(0, 3).join('; '));
    for (let v = 0; v < VCPUS; v++) this.checkTlb(v);
  }

  /** INVARIANT tlb: what a vCPU may use without another flush is in the tables (reference, I3). */
  private checkTlb(v: number): void {
    const { mmu } = this.vm.vcpus[v];
    if (mmu.requests & FLUSHES || mmu.root.sp <= 0 || isObsolete(this.vm.mmu, mmu.root.sp)) return;
    this.tlbVcpu = v;
    this.tlbs[v].forEach(this.checkEntry);
  }

  private tlbVcpu = 0;
  private readonly checkEntry = (lo: number, hi: number, pfn: number, level: number, attr: number): void => {
    const v = this.tlbVcpu;
    const root = this.vm.vcpus[v].mmu.root.sp;
    if (this.plan.paging === 'shadow' || this.plan.guest === 'touch') {
      if (this.grants(root, lo, hi, pfn, attr)) return;
      if (!this.grants(root, lo, hi, pfn, (attr & ATTR_W) | ATTR_NX) || !this.areRightsLegal(v, lo, level, attr))
        fail(`INVARIANT tlb: vCPU ${v} holds 0x${(lo >>> 0).toString(16)}`);
      return;
    }
    const needed = (attr & ATTR_HOST_W ? ATTR_W : 0) | (attr & ATTR_HOST_NX ? ATTR_NX : 0);
    if (lo >>> 18 === 0) {
      const gfn = lo === USER_CODE ? CODE_GFN : lo >>> 12;
      if (!this.grants(root, gfn << 12, 0, pfn, needed)) fail(`INVARIANT tlb: vCPU ${v} holds page ${gfn}`);
      return;
    }
    if (this.plan.hostile) return;
    const end = lo + PAGE * 512 ** (level - 1);
    for (let i = 0; i < VAS.length; i++) {
      const va = VAS[i];
      if (va < lo || va >= end) continue;
      if (!this.isNestedLegal(v, i, root, pfn + ((va - lo) >>> 12), needed))
        fail(`INVARIANT tlb: vCPU ${v} holds 0x${va.toString(16)}`);
    }
  };

  /**
   * A supervisor's write while CR0.WP is clear takes U, and with SMEP execution, from the entry without a flush. A TLB
   * may go on with what the guest's own tables grant.
   */
  private areRightsLegal(v: number, lo: number, level: number, attr: number): boolean {
    if (this.plan.hostile) return true;
    const end = lo + PAGE * 512 ** (level - 1);
    const isLegal = (va: number, i: number): boolean =>
      va >= lo && va < end && this.model.mayHave(v, i, (attr & ATTR_U) !== 0, (attr & ATTR_NX) === 0);
    return VAS.some(isLegal);
  }

  /** Some gfn that the guest's tables gave leads to the frame. */
  private isNestedLegal(v: number, i: number, root: number, pfn: number, attr: number): boolean {
    const { model } = this;
    for (let n = 0; ; n++) {
      const gfn = model.targetOf(v, i, n);
      if (gfn < 0) return false;
      if (this.grants(root, gfn << 12, gfn >>> 20, pfn, attr)) return true;
    }
  }

  /** Do the MMU's tables lead from the address to the frame, with at least these rights? */
  private grants(root: number, lo: number, hi: number, pfn: number, attr: number): boolean {
    const { words } = this.vm.mmu.arena;
    let table = root;
    for (let level = 4; ; level--) {
      const at = (table << 10) | (2 * spteIndex(lo, hi, level));
      const entryLo = words[at];
      const entryHi = words[at + 1];
      if (!isShadowPresent(entryLo)) return false;
      if (!isLast(entryLo, level)) {
        table = childOf(entryLo, entryHi);
        continue;
      }
      const inside = (1 << (9 * (level - 1))) - 1;
      if ((pfnOf(entryLo, entryHi) & ~inside) + ((lo >>> 12) & inside) !== pfn) return false;
      if (attr & ATTR_W && !(entryLo & SPTE_W)) return false;
      if (attr & ATTR_U && !(entryLo & SPTE_U)) return false;
      return (attr & ATTR_NX) !== 0 || !(entryHi & SPTE_NX_HI);
    }
  }

  /** Compares all memory that is in use. Slow: for the end of a run. */
  checkMemory(): void {
    if (this.plan.hostile) return;
    const pages = dataHostPages();
    if (this.plan.guest === 'tables') for (let t = FIRST_TABLE; t <= LAST_TABLE; t++) pages.push(LOW_HOST_PAGE + t);
    for (const page of pages) {
      const pfn = this.host.pfnAt(this.hva(page));
      for (let word = 0; word < WORDS_PER_PAGE; word++) {
        const actual = pfn < 0 ? 0 : this.host.phys.read32(pfn, 4 * word);
        const expected = this.model.words[page * WORDS_PER_PAGE + word];
        const ignored = isTablePage(page) ? PTE_A | PTE_D : 0;
        if (((actual ^ expected) & ~ignored) !== 0)
          fail(`word ${word} of host page ${page} is ${actual} instead of ${expected}`);
      }
    }
  }
}

function fail(what: string): never {
  throw new Error(what);
}

/** False: there is no memory, or none of that kind. */
function touches(vcpu: Vcpu, gfn: number, access: number): boolean {
  try {
    vcpu.touchPage(gfn, access);
    return true;
  } catch (error) {
    if (error instanceof KvmError && error.errno === EFAULT) return false;
    throw error;
  }
}

function hex(word: number): string {
  return (word >>> 0).toString(16);
}

function pagesOf(bitmap: Int32Array): number[] {
  const pages: number[] = [];
  for (let i = 0; i < bitmap.length; i++)
    for (let left = bitmap[i]; left !== 0; left &= left - 1) pages.push(32 * i + 31 - Math.clz32(left & -left));
  return pages;
}

/** Slots 1 and 3 with huge pages, the others without. */
function mapLinux(mm: HostMm): void {
  const map = (page: number, pages: number, backing: 'thp' | '4k'): void => {
    mm.mmapRegion({ base: LINUX_HVA + page * PAGE, length: pages * PAGE, backing });
  };
  map(0, LOW_HOST_PAGE, 'thp');
  map(LOW_HOST_PAGE, HOST_PAGES - LOW_HOST_PAGE, '4k');
}
