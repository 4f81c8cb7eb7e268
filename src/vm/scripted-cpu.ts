/**
 * The CPU of the scripted guest: an AMD CPU, or an Intel one as far as memory goes, that runs a handful of instructions, each
 * access through the TLB and the walkers of `hw/`. It knows tables only as hardware does, and leaves the guest for KVM where hardware would.
 *
 *     run -> [deliver the injected event] -> fetch -> execute -> ... -> exit
 *
 * Exceptions of the guest are delivered by the CPU itself through the guest's IDT: all of them under nested paging;
 * under shadow paging KVM intercepts #PF. An exit while an event is being delivered says which event that was.
 *
 * Order of accesses is that of QEMU 7.2's TCG, the CPU of the recordings: code page first; an access across two pages
 * touches the lower first, and a write touches both before it stores; a read-modify-write reads first.
 */
import { VMX_EXIT_EPT_MISCONFIG, VMX_EXIT_EPT_VIOLATION, VMX_EXIT_PML_FULL } from '../arch/ept.ts';
import { pagingMode } from '../arch/paging-mode.ts';
import { PFERR_GUEST_FINAL_HI } from '../arch/pferr.ts';
import type { CpuModel } from '../hw/cpu-model.ts';
import { hostView } from '../hw/cpu-model.ts';
import { NativeWalker } from '../hw/native-walker.ts';
import { NestedWalker } from '../hw/nested-walker.ts';
import { EptNestedWalker } from '../hw/ept-nested-walker.ts';
import { type EptMode, EptWalker } from '../hw/ept-walker.ts';
import { PmlBuffer } from '../hw/pml-buffer.ts';
import type { TwoDimensionalWalker } from '../hw/two-dimensional.ts';
import {
  ACCESS_FETCH,
  ACCESS_IMPLICIT,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  CTL_NX,
  CTL_WP,
  controlBits,
  WALK_NESTED,
  WALK_NONCANONICAL,
  WALK_OK,
} from '../hw/rights.ts';
import { SetAssociativeTlb, type Tlb } from '../hw/tlb.ts';
import type { PhysMemory } from '../mem/phys-memory.ts';
import type { TableArena } from '../mem/table-arena.ts';
import {
  CR0_PG,
  CR0_WP,
  CR4_PAE,
  CR4_PKE,
  CR4_SMAP,
  CR4_SMEP,
  type CpuState,
  isLongMode,
  isPaging,
  RAX,
  RBX,
  RCX,
  RSP,
} from './cpu-state.ts';
import {
  INSN_DEC_EAX,
  INSN_INVLPG,
  INSN_LOAD,
  INSN_MOV_CR,
  INSN_OUT,
  INSN_STORE,
  INSN_XCHG,
  Instruction,
} from './instructions.ts';

/** Why the guest was left. */
export const EXIT_NONE = 0;
export const EXIT_IO = 1;
/** #PF under shadow paging: `errorLo`, address. */
export const EXIT_PAGE_FAULT = 2;
/** Nested page fault: `errorLo`, `errorHi`, guest-physical address. */
export const EXIT_NESTED_FAULT = 3;
/** An instruction that KVM intercepts and emulates. */
export const EXIT_INSTRUCTION = 4;
export const EXIT_SHUTDOWN = 5;
/** Intel: `errorLo` is the exit qualification; guest-physical address. */
export const EXIT_EPT_VIOLATION = 6;
export const EXIT_EPT_MISCONFIG = 7;
export const EXIT_PML_FULL = 8;

/** Exit codes of SVM (AMD APM vol. 2, appendix C). */
const SVM_EXIT_WRITE_CR0 = 0x10;
const SVM_EXIT_CR0_SEL_WRITE = 0x65;
const SVM_EXIT_INVLPG = 0x79;

const VECTOR_UD = 6;
const VECTOR_GP = 13;
const VECTOR_PF = 14;
const RFLAGS_AC = 1 << 18;
const CR0_TS_MP = 0xa;
/** By kind of touch: every nested access is a user's. */
const TOUCH_ACCESS = [ACCESS_USER, ACCESS_USER | ACCESS_WRITE, ACCESS_USER | ACCESS_FETCH];

const EPT_EXITS: Readonly<Record<number, number>> = {
  [VMX_EXIT_EPT_VIOLATION]: EXIT_EPT_VIOLATION,
  [VMX_EXIT_EPT_MISCONFIG]: EXIT_EPT_MISCONFIG,
  [VMX_EXIT_PML_FULL]: EXIT_PML_FULL,
};

/** Where the tables are that the CPU is to walk. */
export interface CpuRoot {
  /** Nested paging: `table` is the root of the nested tables; else of the tables that map gva. */
  readonly nested: boolean;
  table: number;
  /** 4, or 3: a table of four. */
  level: number;
}

export class ScriptedCpu {
  readonly state: CpuState;
  readonly root: CpuRoot;
  readonly tlb: Tlb;
  /** Start each run with an empty TLB, as the recording machine does. */
  flushAtEntry = true;

  /** Of the last exit. */
  errorLo = 0;
  errorHi = 0;
  addrLo = 0;
  addrHi = 0;
  port = 0;
  /** Of EXIT_INSTRUCTION: which intercept it was, by SVM's exit code. */
  interceptCode = 0;
  /** Event under delivery when the exit came: vector, or -1. */
  eventVector = -1;
  eventHasError = false;
  eventError = 0;

  private readonly memory: PhysMemory;
  /** Its own log of dirty pages. */
  readonly pml = new PmlBuffer();
  private readonly native: NativeWalker;
  private readonly nested: TwoDimensionalWalker;
  /** The same, where the second tables are EPT's. */
  private readonly ept: EptNestedWalker | null;
  private readonly insn = new Instruction();
  private readonly code = new Uint8Array(16);
  /** Frame of the last translation. */
  private pfn = 0;
  private controls = 0;
  /** Why the guest was left last. */
  exit = EXIT_NONE;
  /** An exception that an access raised and that the CPU delivers itself: vector, or -1. */
  private raised = -1;
  private raisedError = 0;

  constructor(
    state: CpuState,
    arena: TableArena,
    memory: PhysMemory,
    model: CpuModel,
    nested: boolean,
    ept: EptMode | null,
    tlb: Tlb = new SetAssociativeTlb(),
  ) {
    this.state = state;
    this.memory = memory;
    this.tlb = tlb;
    this.root = { nested, table: 0, level: 4 };
    this.native = new NativeWalker(arena, hostView(model), CTL_NX);
    this.ept =
      ept === null ? null : new EptNestedWalker(memory, model, new EptWalker(arena, hostView(model), ept, this.pml));
    this.nested = this.ept ?? new NestedWalker(memory, model, this.native);
    this.nested.flushedWith = tlb;
  }

  /**
   * Runs the guest until an exit; first delivers the event `vector` if it isn't negative. Outside long mode the instruction
   * pointer has 32 bits, whatever KVM was told.
   */
  run(vector: number, hasError: boolean, error: number): number {
    this.loadControls();
    if (!isLongMode(this.state)) this.state.ripHi = 0;
    if (this.flushAtEntry) this.tlb.flushAll();
    this.eventVector = -1;
    this.exit = EXIT_NONE;
    if (vector >= 0 && !this.deliver(vector, hasError, error)) return this.exit;
    for (;;) {
      this.raised = -1;
      this.step();
      if (this.exit !== EXIT_NONE) return this.exit;
      if (this.raised >= 0 && !this.deliver(this.raised, this.raised !== VECTOR_UD, this.raisedError)) return this.exit;
    }
  }

  /**
   * One access to a guest-physical page through TLB and nested tables, without guest tables or instructions. `kind`:
   * 0 read, 1 write, 2 fetch. False: a nested fault, told as for an exit.
   */
  touch(gfn: number, kind: number): boolean {
    const lo = gfn << 12;
    const hi = gfn >>> 20;
    const access = TOUCH_ACCESS[kind];
    if (this.tlb.lookup(0, lo, hi, access, CTL_NX, 0)) return true;
    if (this.ept !== null) return this.touchEpt(this.ept, lo, hi, access);
    const walker = this.native;
    const result = walker.walk(this.root.table, this.root.level, lo, hi, access);
    if (result !== WALK_OK) return this.leave(EXIT_NESTED_FAULT, lo, hi, result, PFERR_GUEST_FINAL_HI);
    this.tlb.insert(0, lo, hi, walker.pfn, walker.level, walker.attr);
    return true;
  }

  private touchEpt(walker: EptNestedWalker, lo: number, hi: number, access: number): boolean {
    walker.nptRoot = this.root.table;
    walker.nptLevel = this.root.level;
    const pfn = walker.translate(lo, hi, access);
    if (pfn < 0) return this.leaveNested();
    this.tlb.insert(0, lo, hi, pfn, walker.ept.level, walker.ept.attr);
    return true;
  }

  /** Control bits that hold while the guest runs; under shadow paging partly KVM's own. @kvm svm_set_cr0, svm_set_cr4 */
  private loadControls(): void {
    const s = this.state;
    const rflags = s.ac ? RFLAGS_AC : 0;
    if (this.root.nested) {
      this.controls = controlBits(s.cr0, s.cr4, s.efer, rflags);
      this.nested.setMode(pagingMode(s.cr0, s.cr4, s.efer), this.controls);
      this.nested.cr3Lo = s.cr3Lo;
      this.nested.cr3Hi = s.cr3Hi;
      this.nested.pkru = s.pkru;
      this.nested.nptRoot = this.root.table;
      this.nested.nptLevel = this.root.level;
      return;
    }
    const cr4 = isPaging(s) ? s.cr4 : s.cr4 & ~(CR4_SMEP | CR4_SMAP | CR4_PKE);
    this.controls = controlBits(s.cr0, cr4 | CR4_PAE, s.efer, rflags) | CTL_WP | CTL_NX;
    this.native.setControls(this.controls);
    this.native.pkru = s.pkru;
  }

  // ---- memory ------------------------------------------------------------------------------------------------------

  /** Translates one address; `pfn` is set. False: an exit, or an exception raised. */
  private translate(lo: number, hi: number, access: number): boolean {
    const { tlb, state } = this;
    if (tlb.lookup(0, lo, hi, access, this.controls, state.pkru)) {
      this.pfn = tlb.pfn;
      return true;
    }
    if (this.root.nested) return this.walkNested(lo, hi, access);
    const result = this.native.walk(this.root.table, this.root.level, lo, hi, access);
    if (result === WALK_OK) {
      this.pfn = this.native.pfn;
      tlb.insert(0, lo, hi, this.pfn, this.native.level, this.native.attr);
      return true;
    }
    if (result === WALK_NONCANONICAL) return this.raise(VECTOR_GP, 0);
    return this.leave(EXIT_PAGE_FAULT, lo, hi, result, 0);
  }

  private walkNested(lo: number, hi: number, access: number): boolean {
    const walker = this.nested;
    const result = walker.walk(lo, hi, access);
    if (result === WALK_OK) {
      this.pfn = walker.pfn;
      this.tlb.insert(0, lo, hi, walker.pfn, walker.level, walker.attr);
      return true;
    }
    if (result === WALK_NESTED) return this.leaveNested();
    if (result === WALK_NONCANONICAL) return this.raise(VECTOR_GP, 0);
    this.state.cr2Lo = lo;
    this.state.cr2Hi = hi;
    return this.raise(VECTOR_PF, result);
  }

  private leaveNested(): false {
    const { nestedGpaLo, nestedGpaHi, nestedErrorLo, nestedErrorHi } = this.nested;
    const exit = this.ept === null ? EXIT_NESTED_FAULT : EPT_EXITS[this.ept.exitReason];
    return this.leave(exit, nestedGpaLo, nestedGpaHi, nestedErrorLo, nestedErrorHi);
  }

  private leave(exit: number, lo: number, hi: number, errorLo: number, errorHi: number): false {
    this.exit = exit;
    this.addrLo = lo;
    this.addrHi = hi;
    this.errorLo = errorLo;
    this.errorHi = errorHi;
    return false;
  }

  private raise(vector: number, error: number): false {
    this.raised = vector;
    this.raisedError = error;
    return false;
  }

  private userBit(): number {
    return this.state.cpl === 3 ? ACCESS_USER : 0;
  }

  /** Frames of the operand's first and last byte; value of the last load. */
  private firstPfn = 0;
  private lastPfn = 0;
  private valueLo = 0;
  private valueHi = 0;

  /** Translates the operand at rbx, the lower page first if it lies across two. */
  private translateOperand(bytes: number, access: number): boolean {
    const lo = this.state.gpr[2 * RBX];
    const hi = this.operandHi();
    if (!this.translate(lo, hi, access | this.userBit())) return false;
    this.firstPfn = this.pfn;
    if ((lo & 0xfff) + bytes > 4096) {
      const carry = lo >>> 12 === 0xfffff && isLongMode(this.state) ? 1 : 0;
      if (!this.translate((lo & ~0xfff) + 0x1000, hi + carry, access | this.userBit())) return false;
    }
    this.lastPfn = this.pfn;
    return true;
  }

  /** Reads the operand into (valueLo, valueHi). */
  private load(bytes: number): boolean {
    if (!this.translateOperand(bytes, ACCESS_READ)) return false;
    const offset = this.state.gpr[2 * RBX] & 0xfff;
    this.valueLo = 0;
    this.valueHi = 0;
    for (let i = bytes - 1; i >= 0; i--) {
      const at = offset + i;
      const byte = at < 4096 ? this.memory.read8(this.firstPfn, at) : this.memory.read8(this.lastPfn, at - 4096);
      if (i >= 4) this.valueHi = (this.valueHi << 8) | byte;
      else this.valueLo = (this.valueLo << 8) | byte;
    }
    return true;
  }

  private store(bytes: number, valueLo: number, valueHi: number): boolean {
    if (!this.translateOperand(bytes, ACCESS_WRITE)) return false;
    const offset = this.state.gpr[2 * RBX] & 0xfff;
    for (let i = 0; i < bytes; i++) {
      const byte = ((i < 4 ? valueLo : valueHi) >>> ((i & 3) * 8)) & 0xff;
      const at = offset + i;
      if (at < 4096) this.memory.write8(this.firstPfn, at, byte);
      else this.memory.write8(this.lastPfn, at - 4096, byte);
    }
    return true;
  }

  private operandHi(): number {
    return isLongMode(this.state) ? this.state.gpr[2 * RBX + 1] : 0;
  }

  // ---- instructions ------------------------------------------------------------------------------------------------

  private step(): void {
    const s = this.state;
    if (!this.translate(s.ripLo, s.ripHi, ACCESS_FETCH | this.userBit())) return;
    const offset = s.ripLo & 0xfff;
    for (let i = 0; i < 15; i++) this.code[i] = offset + i < 4096 ? this.memory.read8(this.pfn, offset + i) : 0;
    const insn = this.insn;
    insn.decode(this.code, isLongMode(s));
    switch (insn.kind) {
      case INSN_LOAD:
        if (this.load(insn.bytes)) this.setRax(insn.bytes);
        else return;
        break;
      case INSN_STORE:
        if (!this.store(insn.bytes, s.gpr[2 * RCX], s.gpr[2 * RCX + 1])) return;
        break;
      case INSN_XCHG:
        if (!this.exchange(insn.bytes)) return;
        break;
      case INSN_DEC_EAX:
        s.gpr[2 * RAX] = (s.gpr[2 * RAX] - 1) | 0;
        break;
      case INSN_OUT:
        this.port = insn.operand;
        this.exit = EXIT_IO;
        return;
      case INSN_MOV_CR:
        if (!this.moveToCr(insn.operand)) return;
        break;
      case INSN_INVLPG:
        if (!this.root.nested) {
          this.intercept(SVM_EXIT_INVLPG);
          return;
        }
        this.tlb.flushGva(0, 0, s.gpr[2 * RBX], this.operandHi());
        break;
      default:
        this.raise(VECTOR_UD, 0);
        return;
    }
    s.ripLo = (s.ripLo + insn.length) | 0;
  }

  /** A read into eax clears the high half, into al keeps all else. */
  private setRax(bytes: number): void {
    const { gpr } = this.state;
    if (bytes === 1) gpr[2 * RAX] = (gpr[2 * RAX] & ~0xff) | this.valueLo;
    else {
      gpr[2 * RAX] = this.valueLo;
      gpr[2 * RAX + 1] = bytes === 8 ? this.valueHi : 0;
    }
  }

  private exchange(bytes: number): boolean {
    const { gpr } = this.state;
    if (!this.load(bytes)) return false;
    const { valueLo, valueHi } = this;
    if (!this.store(bytes, gpr[2 * RCX], gpr[2 * RCX + 1])) return false;
    gpr[2 * RCX] = valueLo;
    gpr[2 * RCX + 1] = bytes === 8 ? valueHi : 0;
    return true;
  }

  /**
   * KVM intercepts CR4 always, CR3 under shadow paging, CR0 if the value that the CPU has isn't the guest's (shadow
   * paging needs PG and WP), else if more than TS and MP changes ("selective"). @kvm svm_set_cr0
   */
  private moveToCr(cr: number): boolean {
    const s = this.state;
    const lo = s.gpr[2 * RBX];
    const differs = !this.root.nested && (s.cr0 & (CR0_PG | CR0_WP)) !== (CR0_PG | CR0_WP);
    const cr0Intercepted = differs || ((lo ^ s.cr0) & ~CR0_TS_MP) !== 0;
    if (cr === 4 || (cr === 3 && !this.root.nested) || (cr === 0 && cr0Intercepted)) {
      this.intercept(cr === 0 && !differs ? SVM_EXIT_CR0_SEL_WRITE : SVM_EXIT_WRITE_CR0 + cr);
      return false;
    }
    if (cr === 0) s.cr0 = lo;
    else {
      s.cr3Lo = lo;
      s.cr3Hi = this.operandHi();
      this.nested.cr3Lo = s.cr3Lo;
      this.nested.cr3Hi = s.cr3Hi;
      this.tlb.flushNonGlobal(0);
    }
    return true;
  }

  private intercept(code: number): void {
    this.interceptCode = code;
    this.exit = EXIT_INSTRUCTION;
  }

  // ---- events ------------------------------------------------------------------------------------------------------

  /** Delivers an exception through the guest's IDT. False: an exit came, with the event noted. */
  private deliver(vector: number, hasError: boolean, error: number): boolean {
    this.raised = -1;
    if (
      isLongMode(this.state) ? this.deliverLong(vector, hasError, error) : this.deliverLegacy(vector, hasError, error)
    )
      return true;
    if (this.exit === EXIT_NONE) this.exit = EXIT_SHUTDOWN;
    this.eventVector = vector;
    this.eventHasError = hasError;
    this.eventError = error;
    return false;
  }

  private deliverLong(vector: number, hasError: boolean, error: number): boolean {
    const s = this.state;
    const gate = s.idtBase + 16 * vector;
    if (!this.readSystem(gate) || !this.readSystem(s.gdtBase + 8)) return false;
    const fromUser = s.cpl === 3;
    if (fromUser && !this.readSystem(s.tssBase + 4)) return false;
    const top = (fromUser ? this.peek(s.tssBase + 4) : s.gpr[2 * RSP]) & ~0xf;
    const frame = [fromUser ? 0x23 : 0x10, s.gpr[2 * RSP], s.rflags, fromUser ? 0x1b : 0x08, s.ripLo];
    if (hasError) frame.push(error);
    if (!this.push(top, frame, 8)) return false;
    this.enterHandler(this.gateOffset(gate), top - 8 * frame.length);
    return true;
  }

  private deliverLegacy(vector: number, hasError: boolean, error: number): boolean {
    const s = this.state;
    const gate = s.idtBase + 8 * vector;
    if (!this.readSystem(gate) || !this.readSystem(s.gdtBase + 8)) return false;
    const fromUser = s.cpl === 3;
    if (fromUser && !this.readSystem(s.tssBase + 4)) return false;
    const top = fromUser ? this.peek(s.tssBase + 4) : s.gpr[2 * RSP];
    const frame = fromUser ? [0x23, s.gpr[2 * RSP]] : [];
    frame.push(s.rflags, fromUser ? 0x1b : 0x08, s.ripLo);
    if (hasError) frame.push(error);
    if (!this.push(top, frame, 4)) return false;
    this.enterHandler(this.gateOffset(gate), top - 4 * frame.length);
    return true;
  }

  private enterHandler(rip: number, rsp: number): void {
    const s = this.state;
    s.ripLo = rip;
    s.ripHi = 0;
    s.gpr[2 * RSP] = rsp;
    s.gpr[2 * RSP + 1] = 0;
    s.cpl = 0;
    this.eventVector = -1;
  }

  private gateOffset(gate: number): number {
    const low = this.peek(gate) & 0xffff;
    return low | (this.peek(gate + 4) & ~0xffff);
  }

  /** An access of the CPU's own to a descriptor table, as supervisor. */
  private readSystem(address: number): boolean {
    return this.translate(address, 0, ACCESS_READ | ACCESS_IMPLICIT);
  }

  /** Reads four bytes of a page that was just translated. */
  private peek(address: number): number {
    if (!this.readSystem(address)) throw new Error('a descriptor table vanished while it was read');
    return this.memory.read32(this.pfn, address & 0xfff);
  }

  /** Pushes words of 4 or 8 bytes below `top`. */
  private push(top: number, words: readonly number[], bytes: number): boolean {
    let at = top;
    for (const word of words) {
      at -= bytes;
      if (!this.translate(at, 0, ACCESS_WRITE | ACCESS_IMPLICIT)) return false;
      this.memory.write32(this.pfn, at & 0xfff, word);
      if (bytes === 8) this.memory.write32(this.pfn, (at & 0xfff) + 4, 0);
    }
    return true;
  }
}
