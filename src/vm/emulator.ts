/**
 * KVM's instruction emulator, as far as the scripted guest needs it: what the MMU sees of an emulated instruction is the
 * software walk of its fetch and of each operand, accesses through the host's mapping or as MMIO, and the note that
 * guest memory was written.
 *
 * Source: Linux 6.1 x86.c x86_emulate_instruction, emulator_read_write, emulator_cmpxchg_emulated; emulate.c.
 */
import { hvaOfGfn, markPageDirty, readGuest, writeGuest } from '../mmu/guest-memory.ts';
import { guestLevels, PFERR_FETCH, PFERR_USER, PFERR_WRITE, permissionFault } from '../mmu/guest-mode.ts';
import { GuestWalk } from '../mmu/guest-walk.ts';
import { walkAddr, walkNestedGuest } from '../mmu/guest-walker.ts';
import { injectNestedFault, injectPageFault, invlpg } from '../mmu/inject.ts';
import { matchMmioGpa, matchMmioGva } from '../mmu/mmio-cache.ts';
import { type Mmu, vcpuSlot } from '../mmu/mmu.ts';
import { unprotectPage } from '../mmu/page-zap.ts';
import { mmuPteWrite } from '../mmu/pte-write.ts';
import { TP_EMULATE_INSN, TP_MMIO, TP_VCPU_MATCH_MMIO } from '../trace/tracepoints.ts';
import { setCr0, setCr3, setCr4 } from './control-registers.ts';
import { isLongMode, RAX, RBX, RCX } from './cpu-state.ts';
import {
  INSN_DEC_EAX,
  INSN_INVLPG,
  INSN_LOAD,
  INSN_MOV_CR,
  INSN_NONE,
  INSN_STORE,
  INSN_XCHG,
  Instruction,
} from './instructions.ts';
import type { Vcpu } from './vcpu.ts';

/** Because of a page fault; the address is valid. @kvm EMULTYPE_PF */
export const EMUL_PF = 1;
/** The instruction may be run again if unprotecting its target could help. @kvm EMULTYPE_ALLOW_RETRY_PF */
export const EMUL_ALLOW_RETRY = 2;
/** @kvm EMULTYPE_WRITE_PF_TO_SP */
export const EMUL_WRITE_PF_TO_SP = 4;
/** Goes on with the instruction that waited for MMIO. @kvm EMULTYPE_NO_DECODE */
export const EMUL_NO_DECODE = 8;

const MMIO_READ_UNSATISFIED = 0;
const MMIO_READ = 1;
const MMIO_WRITE = 2;
/** Of the tracepoint: protected mode with 32-bit, with 64-bit code. @kvm KVM_EMUL_INSN_F_CR0_PE, F_CS_D, F_CS_L */
const INSN_FLAGS_32 = 5;
const INSN_FLAGS_64 = 9;
const GP_VECTOR = 13;
const UD_VECTOR = 6;
/** A gfn that no guest has: what failed translations leave behind. */
export const INVALID_GFN = 0xfffffffffffff;

/** Outcomes of a memory access within an instruction. @kvm X86EMUL_CONTINUE ... */
const CONTINUE = 0;
const FAULT = 1;
const IO_NEEDED = 2;
const UNHANDLEABLE = 3;
const CMPXCHG_FAILED = 4;

/** Part of an access that is MMIO; at most 8 bytes, in one page. @kvm kvm_mmio_fragment */
interface MmioFragment {
  gpaLo: number;
  gpaHi: number;
  bytes: number;
  /** Where its bytes belong in the access. */
  offset: number;
}

export class Emulator {
  private readonly mmu: Mmu;
  private readonly vcpu: Vcpu;
  private readonly walk = new GuestWalk();
  private readonly insn = new Instruction();
  /** What the last fetch that worked found; a fetch that fails leaves it. */
  private readonly code = new Uint8Array(16);
  private fetchedLength = 0;

  /**
   * What was decoded: the instruction's address, its memory operand's, its register operand. If it waits for MMIO, it
   * goes on with these, even if user space has set other registers meanwhile; those it doesn't write then.
   */
  private ripLo = 0;
  private operandLo = 0;
  private operandHi = 0;
  private sourceLo = 0;
  private sourceHi = 0;
  private rflags = 0;
  private registersReplaced = false;

  /** Bytes of the access at hand. */
  private readonly data = new Uint8Array(8);
  private gfn = 0;
  private hasException = false;
  /** -1: the page fault in `walk`. */
  private exceptionVector = -1;
  /** Under direct paging the fault's address is the operand's guest-physical one, until the next decode. */
  private gpaAvailable = false;
  private gpaLo = 0;
  private gpaHi = 0;

  private lastRetryEip = 0;
  private lastRetryAddr = 0;

  readonly fragments: MmioFragment[] = [];
  fragment = 0;
  mmioNeeded = false;
  mmioIsWrite = false;
  mmioReadCompleted = false;

  constructor(mmu: Mmu, vcpu: Vcpu) {
    this.mmu = mmu;
    this.vcpu = vcpu;
  }

  /** 1: back to the guest; 0: to user space (`vcpu.exit` says why). @kvm x86_emulate_instruction */
  emulate(crLo: number, crHi: number, type: number): number {
    this.hasException = false;
    const { vcpu } = this;
    if ((type & EMUL_NO_DECODE) === 0) {
      vcpu.clearException();
      this.gpaAvailable = false;
      const fetched = this.fetch();
      this.traceInsn(fetched === CONTINUE ? this.insn.length : 0, false);
      if (fetched !== CONTINUE || this.insn.kind === INSN_NONE) return this.decodeFailed(crLo, crHi, type);
    }
    if (this.retryInstruction(crLo, crHi, type)) return 1;
    if ((type & EMUL_PF) !== 0 && vcpu.mmu.isDirect) {
      this.gpaAvailable = true;
      this.gpaLo = crLo;
      this.gpaHi = crHi;
    }

    const result = this.execute();
    if (result === UNHANDLEABLE) {
      if (this.reexecuteInstruction(crLo, crHi, type)) return 1;
      return this.failed();
    }
    if (this.hasException) {
      this.injectException();
      return 1;
    }
    if (!this.mmioNeeded) {
      this.finish(result !== CMPXCHG_FAILED);
      return 1;
    }
    vcpu.mmu.stats.mmio_exits++;
    vcpu.completeMmio = true;
    if (this.mmioIsWrite) this.finish(true);
    return 0;
  }

  /** Ends the instruction; `completed` false: it is to run again. */
  private finish(completed: boolean): void {
    const s = this.vcpu.state;
    s.ripLo = completed ? (this.ripLo + this.insn.length) | 0 : this.ripLo;
    s.rflags = this.rflags;
  }

  private traceInsn(length: number, failed: boolean): void {
    this.fetchedLength = length;
    const { trace } = this.mmu;
    if (!trace.on) return;
    const { ripLo, ripHi } = this.vcpu.state;
    const [a, b, c, d] = new Int32Array(this.code.buffer);
    const flags = isLongMode(this.vcpu.state) ? INSN_FLAGS_64 : INSN_FLAGS_32;
    trace.emit(TP_EMULATE_INSN, ripLo, ripHi, 0, length, a, b, c, d, flags, failed ? 1 : 0);
  }

  /** User space set the registers. @kvm emulate_regs_need_sync_from_vcpu */
  replaceRegisters(): void {
    this.registersReplaced = true;
  }

  private decodeFailed(crLo: number, crHi: number, type: number): number {
    if (this.reexecuteInstruction(crLo, crHi, type)) return 1;
    if (this.hasException) {
      this.injectException();
      return 1;
    }
    return this.failed();
  }

  /** @kvm handle_emulation_failure */
  private failed(): number {
    this.traceInsn(this.fetchedLength, true);
    this.vcpu.queueException(UD_VECTOR, false, 0);
    if (this.vcpu.state.cpl !== 0 || this.vcpu.mmu.isNested) return 1;
    this.vcpu.exit = { reason: 'internal', suberror: 1 };
    return 0;
  }

  /** @kvm inject_emulated_exception */
  private injectException(): void {
    if (this.exceptionVector >= 0) this.vcpu.queueException(this.exceptionVector, true, 0);
    else if (this.vcpu.mmu.isNested) injectNestedFault(this.mmu, this.vcpu.mmu, this.walk);
    else injectPageFault(this.mmu, this.vcpu.mmu, this.walk);
  }

  private raiseGp(): number {
    this.hasException = true;
    this.exceptionVector = GP_VECTOR;
    return FAULT;
  }

  // ---- fetch and retry ---------------------------------------------------------------------------------------------

  /** Reads up to 15 bytes at rip, to the page's end. @kvm __do_insn_fetch_bytes, kvm_fetch_guest_virt */
  private fetch(): number {
    const { mmu, vcpu } = this;
    const { ripLo, ripHi } = vcpu.state;
    const offset = ripLo & 0xfff;
    const count = Math.min(15, 4096 - offset);
    if (!this.gvaToGpa(ripLo, ripHi, this.userBit() | PFERR_FETCH)) return FAULT;
    if (!readGuest(mmu, vcpu.mmu, this.gfn, offset, count)) return IO_NEEDED;
    this.code.set(mmu.bytes.subarray(0, count));
    this.insn.decode(this.code, isLongMode(vcpu.state));
    this.decodeOperands();
    return CONTINUE;
  }

  private decodeOperands(): void {
    const s = this.vcpu.state;
    this.ripLo = s.ripLo;
    this.rflags = s.rflags;
    this.operandLo = s.gpr[2 * RBX];
    this.operandHi = isLongMode(s) ? s.gpr[2 * RBX + 1] : 0;
    this.sourceLo = s.gpr[2 * RCX];
    this.sourceHi = s.gpr[2 * RCX + 1];
    this.registersReplaced = false;
  }

  private userBit(): number {
    return this.vcpu.state.cpl === 3 ? PFERR_USER : 0;
  }

  /** Translates by the guest's tables: sets `gfn`; false with the page fault noted. @kvm gva_to_gpa */
  private gvaToGpa(lo: number, hi: number, access: number): boolean {
    const { isNested } = this.vcpu.mmu;
    if (!isNested && guestLevels(this.vcpu.mmu) === 0) {
      this.gfn = (lo >>> 12) + hi * 0x100000;
      return true;
    }
    const walk = isNested ? walkNestedGuest : walkAddr;
    if (walk(this.mmu, this.vcpu.mmu, this.walk, lo, hi, access)) {
      this.gfn = this.walk.gfn;
      return true;
    }
    this.hasException = true;
    this.exceptionVector = -1;
    return false;
  }

  /** The gfn of an address, or INVALID_GFN; no exception follows from it. @kvm kvm_mmu_gva_to_gpa_read, _write */
  gfnFor(lo: number, hi: number, access: number): number {
    const had = this.hasException;
    const gfn = this.gvaToGpa(lo, hi, this.userBit() | access) ? this.gfn : INVALID_GFN;
    this.hasException = had;
    return gfn;
  }

  /** The gpa's frame that the guest's tables give for a gva, whatever its rights; INVALID_GFN if none. @kvm kvm_mmu_gva_to_gpa_system */
  gfnForSystem(lo: number, hi: number): number {
    const had = this.hasException;
    const gfn = this.gvaToGpa(lo, hi, 0) ? this.gfn : INVALID_GFN;
    this.hasException = had;
    return gfn;
  }

  /**
   * Not a page-table write, and not tried just before: unprotect what it touches and let the guest try.
   * @kvm retry_instruction
   */
  private retryInstruction(crLo: number, crHi: number, type: number): boolean {
    const [lastEip, lastAddr] = [this.lastRetryEip, this.lastRetryAddr];
    this.lastRetryEip = 0;
    this.lastRetryAddr = 0;
    if ((type & EMUL_ALLOW_RETRY) === 0) return false;
    if (this.insn.kind === INSN_STORE || this.insn.kind === INSN_XCHG) return false;
    const { ripLo } = this.vcpu.state;
    if (ripLo === lastEip && crLo === lastAddr) return false;
    this.lastRetryEip = ripLo;
    this.lastRetryAddr = crLo;
    unprotectPage(this.mmu, this.targetGfn(crLo, crHi));
    return true;
  }

  private targetGfn(crLo: number, crHi: number): number {
    return this.vcpu.mmu.isDirect ? (crLo >>> 12) + crHi * 0x100000 : this.gfnFor(crLo, crHi, PFERR_WRITE);
  }

  /** @kvm reexecute_instruction */
  private reexecuteInstruction(crLo: number, crHi: number, type: number): boolean {
    if ((type & EMUL_ALLOW_RETRY) === 0) return false;
    const { mmu, vcpu } = this;
    const gfn = this.targetGfn(crLo, crHi);
    if (gfn === INVALID_GFN) return true;
    if (!this.isBacked(gfn)) return false;
    if (vcpu.mmu.isDirect) {
      if (mmu.indirectShadowPages !== 0) unprotectPage(mmu, gfn);
      return true;
    }
    unprotectPage(mmu, gfn);
    return (type & EMUL_WRITE_PF_TO_SP) === 0;
  }

  /** A frame can be had for writing. @kvm gfn_to_pfn */
  private isBacked(gfn: number): boolean {
    const slot = vcpuSlot(this.mmu, this.vcpu.mmu, gfn);
    const hva = hvaOfGfn(slot, gfn);
    if (hva < 0 || slot?.isReadonly) return false;
    const fast = this.mmu.host.gupFast(hva);
    const pfn = fast >= 0 ? fast : this.mmu.host.gupSlow(hva, true);
    if (pfn < 0) return false;
    this.mmu.host.markAccessed(pfn);
    return true;
  }

  // ---- execution ---------------------------------------------------------------------------------------------------

  private execute(): number {
    const { insn, vcpu } = this;
    const s = vcpu.state;
    switch (insn.kind) {
      case INSN_LOAD: {
        const result = this.readOperand();
        if (result === CONTINUE && !this.registersReplaced) this.setRax();
        return result;
      }
      case INSN_STORE:
        this.setData(this.sourceLo, this.sourceHi);
        return this.access(true);
      case INSN_XCHG:
        return this.exchange();
      case INSN_INVLPG:
        invlpg(this.mmu, vcpu.mmu, this.operandLo, this.operandHi);
        return CONTINUE;
      case INSN_MOV_CR:
        return this.moveToCr();
      case INSN_DEC_EAX:
        s.gpr[2 * RAX] = (s.gpr[2 * RAX] - 1) | 0;
        return CONTINUE;
      default:
        return UNHANDLEABLE;
    }
  }

  private setData(lo: number, hi: number): void {
    for (let i = 0; i < 8; i++) this.data[i] = (i < 4 ? lo : hi) >>> ((i & 3) * 8);
  }
  private dataLo(): number {
    const d = this.data;
    return d[0] | (d[1] << 8) | (d[2] << 16) | (d[3] << 24);
  }
  private dataHi(): number {
    const d = this.data;
    return d[4] | (d[5] << 8) | (d[6] << 16) | (d[7] << 24);
  }

  private setRax(): void {
    const { gpr } = this.vcpu.state;
    const { bytes } = this.insn;
    if (bytes === 1) gpr[2 * RAX] = (gpr[2 * RAX] & ~0xff) | this.data[0];
    else {
      gpr[2 * RAX] = this.dataLo();
      gpr[2 * RAX + 1] = bytes === 8 ? this.dataHi() : 0;
    }
  }

  /** Reads, then writes back by compare-and-exchange. @kvm em_xchg, segmented_cmpxchg */
  private exchange(): number {
    const { bytes } = this.insn;
    const result = this.readOperand();
    if (result !== CONTINUE) {
      // The operand is written too, so a fault on reading it is a write's.
      if (result === FAULT && this.exceptionVector < 0) this.walk.errorCode |= PFERR_WRITE;
      return result;
    }
    const [oldLo, oldHi] = [this.dataLo(), this.dataHi()];
    this.setData(this.sourceLo, this.sourceHi);
    const written = this.compareExchange(bytes, oldLo, oldHi);
    if (written !== CONTINUE || this.registersReplaced) return written;
    const { gpr } = this.vcpu.state;
    gpr[2 * RCX] = oldLo;
    gpr[2 * RCX + 1] = bytes === 8 ? oldHi : 0;
    return CONTINUE;
  }

  /**
   * One atomic write through the host's mapping; where that can't be, a plain one. Fails if memory holds another value
   * than was read, as it does if a stale MMIO entry answered the read. @kvm emulator_cmpxchg_emulated
   */
  private compareExchange(bytes: number, oldLo: number, oldHi: number): number {
    const { mmu, vcpu } = this;
    const lo = this.operandLo;
    const offset = lo & 0xfff;
    const gfn = this.gfnFor(lo, this.operandHi, PFERR_WRITE);
    const slot = gfn === INVALID_GFN ? null : vcpuSlot(mmu, vcpu.mmu, gfn);
    const hva = hvaOfGfn(slot, gfn);
    if (hva < 0 || slot?.isReadonly || offset + bytes > 4096) return this.access(true);
    // The host faults as for a write, and the page counts as dirty, even if the values differ.
    if (mmu.host.writeUser(hva + offset, mmu.bytes, 0) !== 0) return UNHANDLEABLE;
    if (!mmu.bugs.exchangeNotLogged) markPageDirty(slot, gfn);
    mmu.host.readUser(hva + offset, mmu.bytes, bytes);
    if (mmu.words[0] !== oldLo || (bytes === 8 && mmu.words[1] !== oldHi)) return CMPXCHG_FAILED;
    mmu.bytes.set(this.data);
    mmu.host.writeUser(hva + offset, mmu.bytes, bytes);
    mmuPteWrite(mmu, vcpu.mmu, gfn, offset, bytes);
    return CONTINUE;
  }

  /** @kvm em_cr_write */
  private moveToCr(): number {
    const { mmu, vcpu } = this;
    const set = this.insn.operand === 0 ? setCr0 : this.insn.operand === 3 ? setCr3 : setCr4;
    return set(mmu, vcpu.mmu, vcpu.state, this.operandLo, this.operandHi) ? CONTINUE : this.raiseGp();
  }

  // ---- memory operands ---------------------------------------------------------------------------------------------

  /** @kvm emulator_read_write(read_emultor) */
  private readOperand(): number {
    if (this.mmioReadCompleted) {
      this.mmioReadCompleted = false;
      const { gpaLo, gpaHi } = this.fragments[0];
      this.traceMmio(MMIO_READ, this.insn.bytes, gpaLo, gpaHi, true);
      return CONTINUE;
    }
    return this.access(false);
  }

  /** The operand at rbx, in one part or, across pages, two. */
  private access(write: boolean): number {
    const lo = this.operandLo;
    const hi = this.operandHi;
    const { bytes } = this.insn;
    this.fragments.length = 0;
    const first = Math.min(bytes, 4096 - (lo & 0xfff));
    let result = this.accessPage(lo, hi, 0, first, write);
    if (result === CONTINUE && first < bytes) {
      const nextLo = (lo + first) | 0;
      const nextHi = nextLo === 0 && isLongMode(this.vcpu.state) ? (hi + 1) | 0 : hi;
      result = this.accessPage(nextLo, nextHi, first, bytes - first, write);
    }
    if (result !== CONTINUE || this.fragments.length === 0) return result;
    this.mmioNeeded = true;
    this.fragment = 0;
    this.mmioIsWrite = write;
    this.exitForFragment();
    if (write) return CONTINUE;
    const { gpaLo, gpaHi } = this.fragments[0];
    // The length is what is left of the operand: the part after the last page border.
    this.traceMmio(MMIO_READ_UNSATISFIED, bytes - (first < bytes ? first : 0), gpaLo, gpaHi, false);
    return IO_NEEDED;
  }

  /** @kvm emulator_read_write_onepage */
  private accessPage(lo: number, hi: number, at: number, bytes: number, write: boolean): number {
    const offset = lo & 0xfff;
    let mmio: boolean;
    if (this.gpaAvailable && offset === (this.gpaLo & 0xfff)) {
      this.gfn = (this.gpaLo >>> 12) + this.gpaHi * 0x100000;
      mmio = this.isMmioGpa(lo, hi, write);
    } else {
      const matched = this.mmioGvaToGpa(lo, hi, write);
      if (matched < 0) return FAULT;
      mmio = matched === 1;
    }
    if (!mmio && this.accessMemory(offset, at, bytes, write)) return CONTINUE;
    const gpaLo = (this.gfn << 12) | offset;
    const gpaHi = (this.gfn / 0x100000) | 0;
    if (write) this.traceMmio(MMIO_WRITE, bytes, gpaLo, gpaHi, true, at);
    this.fragments.push({ gpaLo, gpaHi, bytes, offset: at });
    return CONTINUE;
  }

  private accessMemory(offset: number, at: number, bytes: number, write: boolean): boolean {
    const { mmu, vcpu } = this;
    if (!write) {
      if (!readGuest(mmu, vcpu.mmu, this.gfn, offset, bytes)) return false;
      this.data.set(mmu.bytes.subarray(0, bytes), at);
      return true;
    }
    mmu.bytes.set(this.data.subarray(at, at + bytes));
    if (!writeGuest(mmu, vcpu.mmu, this.gfn, offset, bytes)) return false;
    mmuPteWrite(mmu, vcpu.mmu, this.gfn, offset, bytes);
    return true;
  }

  /** @kvm vcpu_is_mmio_gpa */
  private isMmioGpa(lo: number, hi: number, write: boolean): boolean {
    if (!matchMmioGpa(this.mmu, this.vcpu.mmu, this.gfn)) return false;
    this.traceMatch(lo, hi, write, true);
    return true;
  }

  /** 1: MMIO, 0: maybe memory, -1: a page fault. Sets `gfn`. @kvm vcpu_mmio_gva_to_gpa */
  private mmioGvaToGpa(lo: number, hi: number, write: boolean): number {
    const { mmu, vcpu } = this;
    const access = this.userBit() | (write ? PFERR_WRITE : 0);
    if (
      matchMmioGva(mmu, vcpu.mmu, lo, hi) &&
      (guestLevels(vcpu.mmu) === 0 || permissionFault(vcpu.mmu, vcpu.mmu.mmioAccess, 0, access) === 0)
    ) {
      this.gfn = vcpu.mmu.mmioGfn;
      this.traceMatch(lo, hi, write, false);
      return 1;
    }
    if (!this.gvaToGpa(lo, hi, access)) return -1;
    return this.isMmioGpa(lo, hi, write) ? 1 : 0;
  }

  private traceMatch(lo: number, hi: number, write: boolean, gpaMatch: boolean): void {
    const { trace } = this.mmu;
    if (!trace.on) return;
    const gpaLo = (this.gfn << 12) | (lo & 0xfff);
    trace.emit(TP_VCPU_MATCH_MMIO, lo, hi, gpaLo, (this.gfn / 0x100000) | 0, write ? 1 : 0, gpaMatch ? 1 : 0);
  }

  private traceMmio(type: number, bytes: number, gpaLo: number, gpaHi: number, hasValue: boolean, at = 0): void {
    const { trace } = this.mmu;
    if (!trace.on) return;
    const value = new Uint8Array(8);
    if (hasValue) value.set(this.data.subarray(at, at + bytes));
    const words = new Int32Array(value.buffer);
    trace.emit(TP_MMIO, type, bytes, gpaLo, gpaHi, words[0], words[1]);
  }

  // ---- MMIO in user space ------------------------------------------------------------------------------------------

  private exitForFragment(): void {
    const { gpaLo, gpaHi, bytes, offset } = this.fragments[this.fragment];
    this.vcpu.exit = {
      reason: 'mmio',
      isWrite: this.mmioIsWrite,
      gpa: gpaHi * 4294967296 + (gpaLo >>> 0),
      data: this.mmioIsWrite ? this.data.slice(offset, offset + bytes) : new Uint8Array(bytes),
    };
  }

  /** User space has answered the last exit, with `answer` to a read. As `emulate`. @kvm complete_emulated_mmio */
  completeMmio(answer: Uint8Array): number {
    const done = this.fragments[this.fragment];
    if (!this.mmioIsWrite) this.data.set(answer.subarray(0, done.bytes), done.offset);
    this.fragment++;
    if (this.fragment < this.fragments.length) {
      this.exitForFragment();
      this.vcpu.completeMmio = true;
      return 0;
    }
    this.mmioNeeded = false;
    if (this.mmioIsWrite) return 1;
    this.mmioReadCompleted = true;
    return this.emulate(0, 0, EMUL_NO_DECODE);
  }
}
