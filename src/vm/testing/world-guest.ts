/**
 * What the guest of a world does, and the judgement of it: each access ends as the model allows, and then becomes true in
 * the model too.
 */
import { EFAULT, KvmError } from '../../base/errno.ts';
import { CR0_WP, CR4_PGE, CR4_SMAP, CR4_SMEP } from '../cpu-state.ts';
import type { Vcpu } from '../vcpu.ts';
import type { Vm } from '../vm.ts';
import {
  CODE_GFN,
  CODE_OFFSET,
  CODE_WORD,
  DATA_GFNS,
  DATA_OFFSETS,
  editValue,
  ENTRIES,
  entryOf,
  FIRST_TABLE,
  FIXED_ENTRIES,
  GPR_RAX,
  GPR_RBX,
  GPR_RCX,
  GPR_RSP,
  KERNEL_CODE,
  LAST_TABLE,
  LOW_HOST_PAGE,
  PAGE,
  PORT_DONE,
  PORT_PF,
  PORT_UD,
  PTE_A,
  PTE_D,
  ROOTS,
  STACK_TOP,
  STUB_CR0,
  STUB_CR3,
  STUB_CR4,
  STUB_INVLPG,
  STUB_READ,
  STUB_WRITE,
  touchedOf,
  USER_CODE,
  vaOf,
  VAS,
  WORDS_PER_PAGE,
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
  type GuestModel,
  isTablePage,
} from './guest-model.ts';
import type { WatchedTlb } from './watched-tlb.ts';
import type { WorldHost } from './world-host.ts';
import type { WorldLog } from './world-log.ts';
import { fail, hex, type Narrator, type WorldPlan } from './world-plan.ts';

const ANSWER_LO = 0x5a5a5a5a;
const ANSWER = new Uint8Array(8).fill(0x5a);
const ACCESS_NAMES = ['reads', 'writes', 'fetches'];
const TLB_ACCESS = [4, 6, 20];

/** What a run of the guest showed. */
const GOT_DONE = 0;
const GOT_PF = 1;
const GOT_UD = 2;
const GOT_EFAULT = 3;

/** What a world is made of. */
export interface WorldParts {
  readonly plan: WorldPlan;
  readonly vm: Vm;
  readonly model: GuestModel;
  readonly host: WorldHost;
  readonly log: WorldLog;
  readonly tlbs: readonly WatchedTlb[];
  readonly narrator: Narrator;
}

export class WorldGuest {
  private readonly plan: WorldPlan;
  private readonly vm: Vm;
  private readonly model: GuestModel;
  private readonly host: WorldHost;
  private readonly log: WorldLog;
  private readonly tlbs: readonly WatchedTlb[];
  private readonly narrator: Narrator;
  private readonly entryWords: Int32Array;
  private readonly tablePfns = new Int32Array(LAST_TABLE + 1);

  // Of the step at hand.
  private faults = 0;
  private mmioGpa = -1;
  private mmioWrite = false;
  /** Word that the step itself wrote. */
  private landed = -1;
  private readonly allowedA = new Int32Array(8);
  private allowedCount = 0;
  private allowedD = -1;

  constructor(parts: WorldParts) {
    this.plan = parts.plan;
    this.vm = parts.vm;
    this.model = parts.model;
    this.host = parts.host;
    this.log = parts.log;
    this.tlbs = parts.tlbs;
    this.narrator = parts.narrator;
    this.entryWords = Int32Array.from([...ENTRIES, ...FIXED_ENTRIES], (e) =>
      this.model.wordIndex(LOW_HOST_PAGE + e.table, 8 * e.index),
    );
  }

  beginStep(): void {
    for (const tlb of this.tlbs) tlb.lookups = 0;
    this.landed = -1;
    this.allowedCount = 0;
    this.allowedD = -1;
  }

  // ---- without tables ------------------------------------------------------------------------------------------------

  touch(a: number, b: number): void {
    const v = a & 1;
    const access = ((a >>> 1) & 3) % 3;
    const gfn = DATA_GFNS[touchedOf(b)];
    const offset = DATA_OFFSETS[(a >>> 3) % DATA_OFFSETS.length];
    this.narrator.say(() => `vCPU ${v} ${ACCESS_NAMES[access]} gfn ${gfn}`);
    const vcpu = this.vm.vcpus[v];
    const ending = this.model.endingOf(gfn, access);
    // One in eight of those that must fail: exceptions are slow.
    if (ending.kind !== END_MEMORY && a & 0xe0) return this.narrator.say(() => 'nothing');
    const before = vcpu.mmu.stats.pf_taken;
    const done = touches(vcpu, gfn, access);
    if (done !== (ending.kind === END_MEMORY)) fail(`the touch was ${done ? '' : 'not '}possible`);
    if (!done) return;
    if (vcpu.mmu.stats.pf_taken !== before) this.log.noteFault(ending);
    const tlb = this.tlbs[v];
    if (!tlb.lookup(0, gfn << 12, gfn >>> 20, TLB_ACCESS[access], 2, 0)) fail('the touch left no TLB entry');
    const pfn = this.host.memory.pfnAt(this.host.hva(ending.hostPage));
    if (tlb.pfn !== pfn) fail(`gfn ${gfn} led to frame ${tlb.pfn} instead of ${pfn}`);
    if (access !== ACCESS_WRITE) {
      this.checkRead(tlb.pfn, ending.hostPage, offset);
      return;
    }
    const serial = this.host.nextValue();
    this.host.memory.phys.write32(tlb.pfn, offset, serial);
    this.host.memory.phys.write32(tlb.pfn, offset + 4, 0);
    this.model.store(ending.hostPage, offset, serial, 0);
    this.log.noteWrite(ending.slot, ending.hostPage - this.model.slots[ending.slot].hostPage);
  }

  private checkRead(pfn: number, hostPage: number, offset: number): void {
    const value = this.host.memory.phys.read32(pfn, offset);
    const expected = this.model.words[this.model.wordIndex(hostPage, offset)];
    if (value !== expected) fail(`read ${value} instead of ${expected}`);
  }

  // ---- with tables ---------------------------------------------------------------------------------------------------

  access(a: number, b: number): void {
    const v = a & 1;
    const access = ((a >>> 1) & 3) % 3;
    const user = (a & 8) !== 0;
    const i = vaOf(b);
    const offset = access === ACCESS_FETCH ? CODE_OFFSET : DATA_OFFSETS[(a >>> 4) % DATA_OFFSETS.length];
    const va = VAS[i] + offset;
    const { model } = this;
    model.endings(v, i, access, user);
    if (access === ACCESS_FETCH && model.mayMeetMmio(v, i)) {
      this.narrator.say(() => 'nothing');
      return;
    }
    this.narrator.say(
      () => `vCPU ${v} ${ACCESS_NAMES[access]} 0x${va.toString(16)} as ${user ? 'user' : 'supervisor'}`,
    );
    this.allowFlags(v, i, access, user);
    const serial = this.host.nextValue();
    const stub = (user ? USER_CODE : KERNEL_CODE) + (access === ACCESS_WRITE ? STUB_WRITE : STUB_READ);
    const got = this.run(v, access === ACCESS_FETCH ? va : stub, va, serial, 0, user);
    if (!this.plan.hostile) this.judge(v, got, access, va, offset, serial);
  }

  /** Is what the guest got among the endings that the model found? Then it becomes true in the model too. */
  private judge(v: number, got: number, access: number, va: number, offset: number, serial: number): void {
    const { model } = this;
    if (this.faults !== 0) for (let n = 0; n < model.foundCount; n++) this.log.noteFault(model.found[n]);
    if (got === GOT_PF) {
      this.log.noteWrite(0, CODE_GFN);
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
    const code = this.host.word(LOW_HOST_PAGE + CODE_GFN, s.gpr[GPR_RSP] & 0xfff);
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
      if (got === GOT_UD) this.log.noteWrite(0, CODE_GFN);
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
      if (ending.kind !== END_MEMORY || this.host.word(ending.hostPage, offset) !== serial) continue;
      if (landed !== null && (landed.slot !== ending.slot || landed.hostPage !== ending.hostPage)) others++;
      landed = ending;
    }
    if (landed === null) fail('the write is nowhere where it may be');
    const rel = landed.hostPage - model.slots[landed.slot].hostPage;
    this.landed = model.wordIndex(landed.hostPage, offset);
    // Through which of two slots with the same memory it went can't be told.
    if (others === 0) this.log.noteWrite(landed.slot, rel);
    else
      for (let n = 0; n < model.foundCount; n++)
        if (model.found[n].hostPage === landed.hostPage) this.log.noteFault(model.found[n]);
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

  /** Seldom three times in a row, which makes KVM give a table up that nobody walks meanwhile. */
  editOften(a: number, b: number, c: number): void {
    this.edit(a, b, c);
    if ((a & 0xf0) !== 0xf0) return;
    this.edit(a, b, c ^ 1);
    this.edit(a, b, c);
    this.narrator.say(() => `vCPU ${a & 1} edits entry ${entryOf(b)} three times`);
  }

  private edit(a: number, b: number, c: number): void {
    const v = a & 1;
    const plan = ENTRIES[entryOf(b)];
    const [lo, hi] = editValue(plan, c);
    const va = plan.table * PAGE + 8 * plan.index;
    this.narrator.say(() => `vCPU ${v} sets entry ${plan.index} of table ${plan.table} to 0x${hex(hi)}_${hex(lo)}`);
    this.foundNothing();
    const got = this.run(v, KERNEL_CODE + STUB_WRITE, va, lo, hi, false);
    if (this.plan.hostile) return;
    if (got !== GOT_DONE || this.mmioGpa >= 0) fail(`the edit ended as ${got}`);
    this.landed = this.model.wordIndex(LOW_HOST_PAGE + plan.table, 8 * plan.index);
    if (((this.host.word(LOW_HOST_PAGE + plan.table, 8 * plan.index) ^ lo) & ~(PTE_A | PTE_D)) !== 0)
      fail('the entry is not what was written');
    this.log.noteWrite(0, plan.table);
    this.model.store(LOW_HOST_PAGE + plan.table, 8 * plan.index, lo, hi);
    if (plan.level <= 2 && lo & 1) this.log.noteTarget(lo >>> 12);
  }

  private foundNothing(): void {
    this.model.foundCount = 0;
  }

  invlpg(a: number, b: number): void {
    const v = a & 1;
    const i = vaOf(b);
    this.narrator.say(() => `vCPU ${v} invalidates 0x${VAS[i].toString(16)}`);
    this.expectDone(this.run(v, KERNEL_CODE + STUB_INVLPG, VAS[i], 0, 0, false));
    this.model.invalidate(v, i);
  }

  loadCr3(a: number, b: number): void {
    const v = a & 1;
    const root = ROOTS[b % ROOTS.length];
    this.narrator.say(() => `vCPU ${v} loads root ${root}`);
    this.expectDone(this.run(v, KERNEL_CODE + STUB_CR3, root * PAGE, 0, 0, false));
    this.model.controls[v].root = root;
    this.model.flush(v);
  }

  toggleWp(a: number): void {
    const v = a & 1;
    const value = this.vm.vcpus[v].state.cr0 ^ CR0_WP;
    this.narrator.say(() => `vCPU ${v} sets CR0.WP to ${value & CR0_WP ? 1 : 0}`);
    this.expectDone(this.run(v, KERNEL_CODE + STUB_CR0, value, 0, 0, false));
    this.model.controls[v].wp = (value & CR0_WP) !== 0;
  }

  toggleCr4(a: number, b: number): void {
    const v = a & 1;
    const bit = [CR4_SMEP, CR4_SMAP, CR4_PGE][b % 3];
    const value = this.vm.vcpus[v].state.cr4 ^ bit;
    this.narrator.say(() => `vCPU ${v} loads CR4 with 0x${value.toString(16)}`);
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
    if (this.faults !== 0) this.log.noteSystemPages();
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
      const word = this.host.word((at / WORDS_PER_PAGE) | 0, (at % WORDS_PER_PAGE) * 4);
      if (at !== this.landed && (word & wanted) !== wanted) fail(`an entry of the path lacks A or D: word ${at}`);
    }
  }

  /** The guest's tables are what the model has, but for A and D where they may appear. */
  checkTables(except = -1): void {
    const { model, entryWords, tablePfns } = this;
    const { phys } = this.host.memory;
    for (let gfn = FIRST_TABLE; gfn <= LAST_TABLE; gfn++)
      tablePfns[gfn] = this.host.memory.pfnAt(this.host.hva(LOW_HOST_PAGE + gfn));
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
      this.log.noteWrite(0, gfn);
      refresh = true;
    }
    if (refresh) model.refresh();
  }

  private isOnPath(at: number): boolean {
    for (let n = 0; n < this.allowedCount; n++) if (this.allowedA[n] === at) return true;
    return false;
  }
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
