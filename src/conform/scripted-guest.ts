/**
 * The recorder's guest: what it does for each guest op, and how its VMM ends the op. All of the guest's software is one
 * page of stubs and exception handlers (recorder/src/guest.c); each op is one instruction and an `out`.
 * Source: recorder/src/main.c guest_op.
 */
import { EINTR, KvmError } from '../base/errno.ts';
import type { Vcpu } from '../vm/vcpu.ts';
import { hex } from './entry-form.ts';
import { applyEdits, GuestTables, isCodeAt } from './guest-tables.ts';
import type { Machine } from './machine.ts';
import type { MmioExit, OpResult, Script } from './recording.ts';
import { type Op, ScenarioError } from './scenario.ts';
import type { Vmm } from './vmm.ts';

/** The noise page: where each stub and exception handler stands (recorder/src/guest.c). */
const STUBS = { xchg: 4, invlpg: 5, cr3: 6, cr4: 7, cr0: 8, nop: 11 };
/** By width in bytes. */
const READ_STUBS = { 4: 0, 8: 2, 1: 9 } as const;
const WRITE_STUBS = { 4: 1, 8: 3, 1: 10 } as const;
const NOISE_KERNEL = 0x1000;
const NOISE_USER = 0x2000;
const STACK_TOP = 0x1ff0;
const TSS_BASE = 0x1200;
const GDT_BASE = 0x1280;
const IDT_BASE = 0x1400;
/** Where the hypervisor goes on after a nested page fault, and its control block. */
const NPF_HANDLER = 0x1150;
const VMCB = 0x8000;
const EFER_SVME = 1 << 12;
/** Ports that end an op: done, then by exception. */
const PORTS = new Map([
  [0x10, 'done'],
  [0x11, 'pf'],
  [0x12, 'gp'],
  [0x13, 'df'],
  [0x14, 'ud'],
  [0x16, 'npf'],
]);
const MAX_RUNS = 32;
const MMIO_ANSWER = 0xa5;

const CR0 = 0x10031;
const PAGING = {
  none: { cr0: CR0, cr4: 0, efer: 0 },
  '32': { cr0: CR0 | (1 << 31), cr4: 0x10, efer: 0 },
  pae: { cr0: CR0 | (1 << 31), cr4: 0x20, efer: 0x800 },
  long: { cr0: CR0 | (1 << 31), cr4: 0x20, efer: 0xd00 },
} as const;

/** What a guest op shows. */
export interface GuestOutput {
  ring?: OpResult['ring'];
  res: Record<string, unknown>;
  mmio: MmioExit[];
  args?: Record<string, string>;
}

export type GuestOp = Extract<
  Op,
  {
    kind:
      | 'r'
      | 'w'
      | 'xchg'
      | 'x'
      | 'nop'
      | 'wpte'
      | 'invlpg'
      | 'cr3'
      | 'l2'
      | 'l1'
      | 'cr4'
      | 'cr0'
      | 'vcpu'
      | 'translate'
      | 'immediate'
      | 'prefault'
      | 'ringget';
  }
>;

export class ScriptedGuest {
  private readonly script: Script;
  private readonly vmm: Vmm;
  private readonly tables: GuestTables;
  /** For each vCPU: is it at CPL 3? */
  private readonly users: boolean[];
  private current = 0;
  private out: GuestOutput = { res: {}, mmio: [] };

  constructor(script: Script, machine: Machine, vmm: Vmm) {
    this.script = script;
    this.vmm = vmm;
    this.tables = new GuestTables(script.paging, (gpa, bytes) => vmm.peek(gpa, bytes));
    this.users = Array.from({ length: machine.vcpus }, () => false);
    for (let i = 0; i < machine.vcpus; i++) this.setupVcpu(vmm.vm.createVcpu(), machine.nested);
  }

  private setupVcpu(vcpu: Vcpu, isNested: boolean): void {
    const { paging, roots } = this.script;
    const mode = PAGING[paging];
    const efer = isNested && paging === 'long' ? mode.efer | EFER_SVME : mode.efer;
    const cr3 = paging === 'none' ? 0n : BigInt(roots['0'] ?? 0);
    vcpu.setSregs({ ...mode, efer, cr3, cpl: 0, idtBase: IDT_BASE, gdtBase: GDT_BASE, tssBase: TSS_BASE });
  }

  /** The vCPU that ops are for. */
  get vcpu(): Vcpu {
    return this.vmm.vm.vcpus[this.current];
  }

  /** Performs a guest op; what it shows goes to `out`. */
  perform(op: GuestOp, out: GuestOutput): void {
    this.out = out;
    switch (op.kind) {
      case 'r':
        return this.run(this.stub(READ_STUBS[op.bytes], op.user), op.va, 0n, op.user, true);
      case 'w':
        return this.run(this.stub(WRITE_STUBS[op.bytes], op.user), op.va, op.value, op.user);
      case 'xchg':
        return this.run(this.stub(STUBS.xchg, op.user), op.va, op.value, op.user);
      case 'x':
        return this.execute(op.va, op.user);
      case 'nop':
        return this.run(this.stub(STUBS.nop, op.user), 0n, 0n, op.user);
      case 'wpte':
        return this.writePte(op);
      case 'invlpg':
        return this.run(this.stub(STUBS.invlpg, false), op.va, 0n, false);
      case 'cr3':
        return this.loadCr3(op.root);
      case 'cr4':
        return this.run(this.stub(STUBS.cr4, false), op.value, 0n, false);
      case 'cr0':
        return this.run(this.stub(STUBS.cr0, false), op.value, 0n, false);
      case 'l2':
        return this.setNested(BigInt(this.script.roots[String(op.root)] ?? op.root));
      case 'l1':
        return this.setNested(null);
      case 'vcpu':
        if (op.vcpu >= this.users.length) throw new ScenarioError(`no vcpu ${op.vcpu}`);
        this.current = op.vcpu;
        return;
      case 'translate':
        return this.translate(op.va);
      case 'immediate':
        this.out.res['ret'] = this.vcpu.run(undefined, true);
        return;
      case 'prefault':
        return this.preFault(op);
      case 'ringget':
        return this.takeFromRing(Number(op.most));
    }
  }

  private preFault({ gpa, size, flags }: Extract<Op, { kind: 'prefault' }>): void {
    let [ret, left] = [0, { gpa, bytes: size }];
    try {
      left = this.vcpu.preFaultMemory(gpa, size, Number(flags));
    } catch (error) {
      if (!(error instanceof KvmError)) throw error;
      ret = -error.errno;
    }
    Object.assign(this.out.res, { ret, gpa: `0x${left.gpa.toString(16)}`, size: `0x${left.bytes.toString(16)}` });
  }

  private takeFromRing(most: number): void {
    const { dirtyRing } = this.vcpu;
    if (dirtyRing === null) throw new ScenarioError('no ring');
    const taken: [number, number][] = [];
    this.out.ring = taken;
    this.out.res['ret'] = dirtyRing.harvest((slot, offset) => void taken.push([slot, offset]), most);
  }

  /** The rights that KVM tells are always these. */
  private translate(va: bigint): void {
    const gpa = this.vcpu.translate(va);
    const none = 2n ** 64n - 1n;
    const answer = { gpa: `0x${(gpa ?? none).toString(16)}`, valid: gpa === null ? '0x0' : '0x1' };
    Object.assign(this.out.res, { ret: 0, ...answer, writable: '0x1', user: '0x0' });
  }

  private stub(index: number, user: boolean): bigint {
    return BigInt((user ? NOISE_USER : NOISE_KERNEL) + 16 * index);
  }

  private loadCr3(root: bigint): void {
    const address = BigInt(this.script.roots[String(root)] ?? root);
    this.out.args = { value: `0x${address.toString(16)}` };
    this.run(this.stub(STUBS.cr3, false), address, 0n, false);
  }

  private setNested(nestedCr3: bigint | null): void {
    const { cr0, cr3Lo, cr3Hi, cr4, efer } = this.vcpu.state;
    const registers = { cr0, cr3: toU64(cr3Lo, cr3Hi), cr4, efer, idtBase: IDT_BASE, gdtBase: GDT_BASE };
    const block = { vmcb: VMCB, rip: NPF_HANDLER, rsp: STACK_TOP };
    this.out.res['ret'] = 0;
    try {
      this.vcpu.setNestedState(nestedCr3 === null ? null : { nestedCr3, ...registers, ...block });
    } catch (error) {
      if (!(error instanceof KvmError)) throw error;
      this.out.res['ret'] = -error.errno;
    }
  }

  private execute(va: bigint, user: boolean): void {
    if (
      isCodeAt(
        this.vmm.vm,
        this.vcpu,
        this.tables,
        va,
        (gpa) => this.vmm.memory.hvaOf(gpa, 2) >= 0,
        (gpa) => this.vmm.peek(gpa, 2),
      )
    )
      this.run(va, 0n, 0n, user);
    else this.out.res['exit'] = 'nocode';
  }

  private writePte(op: Extract<Op, { kind: 'wpte' }>): void {
    const root = this.script.roots[String(op.root)];
    const { entryBytes } = this.tables;
    const at = root === undefined ? null : this.tables.entryGpa(Number(root), op.va, op.level);
    if (at === null || this.vmm.memory.hvaOf(at, entryBytes) < 0) {
      this.out.res['exit'] = 'nopte';
      return;
    }
    const old = this.vmm.peek(at, entryBytes) ?? 0n;
    const value = applyEdits(old, op.edits, (va) => this.tables.entryOf(Number(root), va, op.level));
    this.out.args = { pte: hex(at), old: `0x${old.toString(16)}`, value: `0x${value.toString(16)}` };
    const low = BigInt.asUintN(32, value);
    if (this.script.paging === 'long') {
      this.run(this.stub(WRITE_STUBS[8], op.user), BigInt(at), value, op.user);
      return;
    }
    if (entryBytes === 4 || low !== BigInt.asUintN(32, old) || value === old)
      this.run(this.stub(WRITE_STUBS[4], op.user), BigInt(at), low, op.user);
    if (entryBytes === 8 && value >> 32n !== old >> 32n)
      this.run(this.stub(WRITE_STUBS[4], op.user), BigInt(at + 4), value >> 32n, op.user);
  }

  /** Runs the guest at `rip` until an `out`, a fault or an error. */
  private run(rip: bigint, rbx: bigint, rcx: bigint, user: boolean, showValue = false): void {
    const { vcpu } = this;
    const { state } = vcpu;
    const { res } = this.out;
    this.setUser(user, false);
    state.gpr.fill(0);
    setPair(state.gpr, 3, rbx);
    setPair(state.gpr, 1, rcx);
    setPair(state.gpr, 4, BigInt(STACK_TOP));
    state.rflags = 2 | (user ? 0x3000 : 0);
    vcpu.setRip(Number(BigInt.asIntN(32, rip)), Number(BigInt.asIntN(32, rip >> 32n)));
    const answer = new Uint8Array(8).fill(MMIO_ANSWER);
    let exit: string | undefined;
    for (let i = 0; i < MAX_RUNS && exit === undefined; i++) {
      const ret = vcpu.run(answer);
      if (ret === -EINTR) throw new ScenarioError('the guest never comes out of KVM');
      if (ret < 0) {
        Object.assign(res, { exit: 'error', errno: -ret });
        return;
      }
      const { exit: why } = vcpu;
      if (why.reason === 'io') exit = PORTS.get(why.port) ?? 'exception';
      else if (why.reason === 'shutdown') exit = 'shutdown';
      else if (why.reason === 'internal') {
        Object.assign(res, { exit: 'internal', suberror: hex(why.suberror) });
        return;
      } else if (why.reason === 'dirty ring full') {
        res['exit'] = 'ringfull';
        return;
      } else this.recordMmio(why.isWrite, why.gpa, why.data);
    }
    this.finish(exit, user, showValue);
  }

  private recordMmio(isWrite: boolean, gpa: number, data: Uint8Array): void {
    let value = 0n;
    for (let i = data.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(isWrite ? data[i] : MMIO_ANSWER);
    const dir = isWrite ? 'write' : 'read';
    this.out.mmio.push({ dir, gpa: hex(gpa), len: data.length, data: `0x${value.toString(16)}` });
  }

  private finish(exit: string | undefined, user: boolean, showValue: boolean): void {
    const { vcpu } = this;
    const { state } = vcpu;
    const { res } = this.out;
    const rip = state.ripLo >>> 0;
    const isIo = vcpu.exit.reason === 'io';
    if (isIo) vcpu.run(undefined, true);
    res['exit'] = exit ?? 'loop';
    if (showValue && exit === 'done') res['value'] = `0x${pairOf(state.gpr, 0).toString(16)}`;
    if (exit === undefined || exit === 'done') return;
    if (exit === 'pf' || exit === 'gp' || exit === 'df') {
      res['cr2'] = `0x${toU64(state.cr2Lo, state.cr2Hi).toString(16)}`;
      res['err'] = `0x${this.errorOnStack().toString(16)}`;
    }
    if (exit === 'npf') {
      res['info1'] = `0x${(this.vmm.peek(VMCB + 0x78, 8) ?? 0n).toString(16)}`;
      res['info2'] = `0x${(this.vmm.peek(VMCB + 0x80, 8) ?? 0n).toString(16)}`;
    }
    res['rip'] = hex(rip);
    this.setUser(user, true);
  }

  /** The error code that the guest's handler finds on its stack, as the VMM reads it. */
  private errorOnStack(): bigint {
    const bytes = this.script.paging === 'long' ? 8 : 4;
    const buffer = new Uint8Array(8);
    const hva = this.vmm.memory.hvaOf(this.vcpu.state.gpr[8] >>> 0, 8);
    if (hva >= 0) this.vmm.mm.readUser(hva, buffer, bytes);
    return new DataView(buffer.buffer).getBigUint64(0, true);
  }

  private setUser(user: boolean, force: boolean): void {
    if (this.users[this.current] === user && !force) return;
    this.vcpu.setSregs({ cpl: user ? 3 : 0 });
    this.users[this.current] = user;
  }
}

function toU64(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}
function pairOf(words: Int32Array, register: number): bigint {
  return toU64(words[2 * register], words[2 * register + 1]);
}
function setPair(words: Int32Array, register: number, value: bigint): void {
  words[2 * register] = Number(BigInt.asIntN(32, value));
  words[2 * register + 1] = Number(BigInt.asIntN(32, value >> 32n));
}
