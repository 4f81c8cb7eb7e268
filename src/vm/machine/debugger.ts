/**
 * What a debugger does to a machine that stands still: breakpoints, single steps, memory by linear address. The guest sees nothing of
 * it but the bytes that are written. The counterpart of KVM_SET_GUEST_DEBUG, and of what QEMU does beside it.
 *
 *     resume --> machine runs --> Pc.stopped: a breakpoint, a watched access, a step --> the owner tells whoever debugs
 *
 * All CPUs stop together, and go on together unless some are held.
 */
import type { HostBreakpoint } from '../../cpu/breakpoints.ts';
import { LINEAR_RIP } from '../../cpu/state.ts';
import { debugWalk } from './debug-walk.ts';
import type { Pc } from './pc.ts';
import type { PcCpu } from './pc-cpu.ts';

const PAGE = 4096;
const MASK_64 = (1n << 64n) - 1n;
/** Of watched data. */
export const MAX_WATCH_BYTES = 65536;

export type BreakpointKind = HostBreakpoint['on'];

interface Wanted {
  readonly on: BreakpointKind;
  readonly address: bigint;
  readonly bytes: number;
  /** A piece for each page. */
  readonly parts: readonly HostBreakpoint[];
}

export class Debugger {
  readonly pc: Pc;
  private readonly ram: DataView;
  private wanted: Wanted[] = [];

  constructor(pc: Pc) {
    this.pc = pc;
    this.ram = new DataView(pc.ram.buffer, pc.ram.byteOffset, pc.ram.byteLength);
  }

  // ---- breakpoints -------------------------------------------------------------------------------------------------

  /** Of linear memory, whichever tables the guest is on. `bytes`: of data. Again is as good as once. */
  insert(on: BreakpointKind, address: bigint, bytes: number): void {
    if (bytes < 1 || bytes > MAX_WATCH_BYTES) throw new RangeError(`${bytes} bytes of watched data`);
    if (this.find(on, address, bytes) >= 0) return;
    this.wanted.push({ on, address, bytes, parts: partsOf(on, address, on === 'code' ? 1 : bytes) });
    this.apply();
  }

  /** False if there is none such. */
  remove(on: BreakpointKind, address: bigint, bytes: number): boolean {
    const at = this.find(on, address, bytes);
    if (at < 0) return false;
    this.wanted.splice(at, 1);
    this.apply();
    return true;
  }

  removeAll(): void {
    this.wanted = [];
    this.apply();
  }

  /** What of the wanted was hit, after a stop for watched data. */
  hitOf({ cpu }: PcCpu): { readonly on: BreakpointKind; readonly address: bigint } | null {
    const { hostLo, hostHi } = cpu.breakpoints;
    const hit = this.wanted.find(
      ({ on, parts }) => on !== 'code' && parts.some((p) => p.lo === hostLo && p.hi === hostHi),
    );
    return hit ?? null;
  }

  private find(on: BreakpointKind, address: bigint, bytes: number): number {
    return this.wanted.findIndex((w) => w.on === on && w.address === address && w.bytes === bytes);
  }

  private apply(): void {
    const parts = this.wanted.flatMap((w) => w.parts);
    for (const { cpu } of this.pc.cpus) {
      cpu.breakpoints.setHost(parts);
      cpu.debugChanged();
    }
  }

  // ---- running -----------------------------------------------------------------------------------------------------

  /**
   * Lets the machine run: `steps` is a CPU that does one instruction, `goesOn` whether another CPU may run meanwhile. Who runs the
   * machine goes on with it then.
   */
  resume(steps: PcCpu | null, goesOn: (cpu: PcCpu) => boolean): void {
    const { pc } = this;
    const { stopped, turns } = pc;
    for (const one of pc.cpus) {
      one.isHeld = one !== steps && !goesOn(one);
      one.cpu.hostDebug.singleStep = one === steps;
    }
    // Whoever stands at a breakpoint that was told of, or is to step, begins with the instruction that it is at.
    const passes = steps ?? (stopped?.cause === 'code' ? stopped.cpu : null);
    if (passes !== null) {
      const { state, hostDebug } = passes.cpu;
      hostDebug.pass(state.get(LINEAR_RIP), state.high(LINEAR_RIP));
    }
    pc.stopped = null;
    if (turns.active.isHeld) turns.end();
    if (steps !== null && (turns.active !== steps || turns.left <= 0)) turns.next(steps.index);
  }

  /** The machine stands still: nothing is asked of the CPUs any more but the breakpoints. */
  halt(): void {
    for (const one of this.pc.cpus) {
      one.isHeld = false;
      one.cpu.hostDebug.singleStep = false;
    }
  }

  // ---- memory ------------------------------------------------------------------------------------------------------

  /** As many of the bytes as are in memory, from the first on. Devices are not asked. */
  read(cpu: PcCpu, address: bigint, bytes: number): Uint8Array {
    const found = new Uint8Array(bytes);
    let done = 0;
    while (done < bytes) {
      const count = Math.min(bytes - done, pageRest(address + BigInt(done)));
      const source = this.pc.dma.readable(this.gpaOf(cpu, address + BigInt(done)), count);
      if (source === null) break;
      found.set(source, done);
      done += count;
    }
    return found.subarray(0, done);
  }

  /** All of it or nothing; rights of the guest's tables are not asked for. To the dirty log it is a write. */
  write(cpu: PcCpu, address: bigint, data: Uint8Array): boolean {
    const { dma } = this.pc;
    const pieces: { readonly gpa: number; readonly from: number; readonly count: number }[] = [];
    for (let from = 0; from < data.length; ) {
      const count = Math.min(data.length - from, pageRest(address + BigInt(from)));
      const gpa = this.gpaOf(cpu, address + BigInt(from));
      if (!dma.isWritable(gpa, count)) return false;
      pieces.push({ gpa, from, count });
      from += count;
    }
    for (const { gpa, from, count } of pieces) dma.writable(gpa, count)?.set(data.subarray(from, from + count));
    return true;
  }

  /** -1 if there is none. */
  private gpaOf({ cpu }: PcCpu, address: bigint): number {
    const [lo, hi] = words(address);
    return debugWalk(cpu.state, this.ram, lo, hi);
  }
}

function partsOf(on: BreakpointKind, address: bigint, bytes: number): HostBreakpoint[] {
  const parts: HostBreakpoint[] = [];
  for (let done = 0; done < bytes; ) {
    const at = address + BigInt(done);
    const count = Math.min(bytes - done, pageRest(at));
    const [lo, hi] = words(at);
    parts.push({ on, lo, hi, bytes: count });
    done += count;
  }
  return parts;
}

const pageRest = (address: bigint): number => PAGE - Number(address & 4095n);

function words(address: bigint): [lo: number, hi: number] {
  const value = address & MASK_64;
  return [Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n))];
}
