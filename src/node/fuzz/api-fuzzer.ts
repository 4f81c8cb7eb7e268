/**
 * Calls from bytes: a string of bytes is decoded to calls of the VM's API and of the host's system calls, with whatever
 * arguments it says. Each succeeds or is a KvmError (system calls: a negative errno), and all invariants hold after it.
 */
import { KvmError } from '../../base/errno.ts';
import { parseMachine } from '../../conform/machine.ts';
import { strip } from '../../conform/recording.ts';
import { ScriptRun } from '../../conform/run.ts';
import { ScenarioError } from '../../conform/scenario.ts';
import type { Backing } from '../../mem/host/host-mm.ts';
import type { Vcpu } from '../../vm/vcpu.ts';
import type { Vm } from '../../vm/vm.ts';
import { givenStarts } from './given-starts.ts';
import type { Fuzzer } from './harness.ts';
import { check } from './scenarios-fuzzer.ts';

const CALLS = 40;
const BYTES = 1000;
/** Beyond this many pages in slots a look at all of them takes too long. */
const MAX_VERIFIED_PAGES = 1 << 17;

export function apiFuzzer(): Fuzzer {
  const starts = givenStarts(0);
  return {
    name: 'api',
    run(prng) {
      const start = prng.pick(starts);
      const run = new ScriptRun(strip(start.recording), parseMachine(start.settings));
      const bytes = new Bytes(Uint8Array.from({ length: BYTES }, () => prng.int(256)));
      let refused = 0;
      for (let i = 0; i < CALLS && bytes.left > 0; i++) {
        if (!allowed(() => callFrom(run, bytes))) refused++;
        if (slotPages(run.vmm.vm) < MAX_VERIFIED_PAGES) check(run, prng.chance(0.2));
      }
      return `${5 * Math.floor(refused / 5)} or more refused`;
    },
  };
}

/** False for a call that was refused as it should be. */
function allowed(call: () => void): boolean {
  try {
    call();
    return true;
  } catch (error) {
    if (error instanceof KvmError && Number.isInteger(error.errno) && error.errno > 0) return false;
    if (error instanceof ScenarioError) return false;
    throw error;
  }
}

function slotPages(vm: Vm): number {
  return vm.mmu.slots.reduce((sum, set) => sum + set.slots.reduce((pages, slot) => pages + slot.npages, 0), 0);
}

/** Bytes, read as values of all kinds; zeros behind the end. */
class Bytes {
  private readonly bytes: Uint8Array;
  private at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  get left(): number {
    return Math.max(0, this.bytes.length - this.at);
  }

  byte(): number {
    return this.bytes[this.at++] ?? 0;
  }

  below(n: number): number {
    return (this.byte() * 256 + this.byte()) % n;
  }

  /** A number of up to 64 bits, the low ones often zero. */
  wide(): bigint {
    let value = 0n;
    for (let n = 1 + this.below(8); n > 0; n--) value = (value << 8n) | BigInt(this.byte());
    return BigInt.asUintN(64, value << BigInt(this.byte() & 63));
  }

  /** What a caller may hand over: small, wide, fraction, negative, not a number. */
  any(): number {
    switch (this.byte() & 15) {
      case 0:
        return Number(this.wide());
      case 1:
        return -this.below(5000);
      case 2:
        return this.below(5000) + 0.5;
      case 3:
        return [Number.NaN, Infinity, -Infinity, 2 ** 32, 2 ** 53, 2 ** 64, -(2 ** 63)][this.below(7)];
      default:
        return this.below(2000);
    }
  }

  anyWide(): number | bigint {
    const kind = this.byte() & 7;
    if (kind === 0) return this.any();
    return kind === 1 ? -this.wide() : this.wide();
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

type Call = (run: ScriptRun, b: Bytes) => void;

const CALLS_BY_BYTE: readonly Call[] = [
  guestOp,
  guestOp,
  guestOp,
  touch,
  touch,
  region,
  region,
  changeKnownSlot,
  changeKnownSlot,
  ({ vmm }, b) => void vmm.vm.getDirtyLog(slotNumber(vmm.vm, b)),
  clearLog,
  ({ vmm }, b) =>
    vmm.vm.enableCap(b.pick([168, 168, 220, b.any()]), b.byte() & 1 ? b.below(4) : b.anyWide(), flagsOf(b)),
  ({ vmm }, b) => vmm.vm.setNrMmuPages(b.byte() & 1 ? 64 + b.below(64) : b.anyWide()),
  ({ vmm }) => void vmm.vm.getNrMmuPages(),
  ({ vmm }, b) => void vmm.vm.checkExtension(b.any()),
  ({ vmm }, b) => vmm.vm.setNxHugePages((b.byte() & 1) === 1),
  systemCall,
  systemCall,
  systemCall,
  access,
  access,
  ({ vmm }, b) => void anyVcpu(vmm.vm, b).translate(b.wide()),
  ({ vmm }, b) => expectResult(anyVcpu(vmm.vm, b).run(undefined, true)),
  runAnywhere,
];

function callFrom(run: ScriptRun, b: Bytes): void {
  CALLS_BY_BYTE[b.below(CALLS_BY_BYTE.length)](run, b);
}

function anyVcpu(vm: Vm, b: Bytes): Vcpu {
  return b.pick(vm.vcpus);
}

function flagsOf(b: Bytes): number {
  return b.byte() & 7 ? 0 : b.any();
}

/** 0 or a negative errno. */
function expectResult(result: number): void {
  if (!Number.isInteger(result) || result > 0 || result < -4095) throw new Error(`an answer of ${result}`);
}

// ---- the guest -----------------------------------------------------------------------------------------------------

/** The scripted guest reads, writes, jumps. */
function guestOp(run: ScriptRun, b: Bytes): void {
  const name = b.pick(['r', 'w', 'r8', 'w8', 'r64', 'w64', 'xchg', 'x', 'nop', 'invlpg']);
  const user = b.byte() & 1 ? ' user' : '';
  run.perform(0, `${name} ${anyAddress(run.vmm.vm, b)} ${b.below(1000)}${user}`);
}

function anyAddress(vm: Vm, b: Bytes): string {
  if ((b.byte() & 15) === 0) return `0x${b.wide().toString(16)}`;
  const { slots } = vm.mmu.slots[0];
  const slot = slots.length > 0 ? b.pick(slots) : { baseGfn: 0, npages: 16 };
  return `0x${((slot.baseGfn + b.below(slot.npages + 2)) * 4096 + b.below(4096)).toString(16)}`;
}

function touch({ vmm }: ScriptRun, b: Bytes): void {
  const gfn = b.byte() & 7 ? Math.floor(Number(anyAddress(vmm.vm, b)) / 4096) : b.any();
  anyVcpu(vmm.vm, b).touchPage(gfn, b.byte() & 7 ? b.below(3) : b.any());
}

/** Enters the guest at any address. */
function runAnywhere({ vmm }: ScriptRun, b: Bytes): void {
  const vcpu = anyVcpu(vmm.vm, b);
  const rip = BigInt(anyAddress(vmm.vm, b));
  vcpu.setRip(Number(BigInt.asIntN(32, rip)), Number(BigInt.asIntN(32, rip >> 32n)));
  expectResult(vcpu.run());
}

// ---- memory slots --------------------------------------------------------------------------------------------------

function slotNumber(vm: Vm, b: Bytes): number {
  const known = vm.mmu.slots[0].slots;
  return known.length > 0 && b.byte() & 3 ? b.pick(known).id : b.pick([40, 41, 0x10001, 32763, 32764, b.any()]);
}

function region({ vmm }: ScriptRun, b: Bytes): void {
  const small = (b.byte() & 3) !== 0;
  vmm.vm.setUserMemoryRegion({
    slot: b.byte() & 1 ? 40 + b.below(4) : slotNumber(vmm.vm, b),
    flags: b.byte() & 7 ? b.below(4) : b.any(),
    guestPhysAddr: small ? 4096 * (0x8000 + b.below(4096)) : b.anyWide(),
    memorySize: small ? 4096 * b.below(2048) : b.anyWide(),
    userspaceAddr: b.byte() & 3 ? 0x100000000000 + 0x100000000 * b.below(4) + 4096 * b.below(16) : b.anyWide(),
  });
}

/** Deletes, moves, resizes or changes the flags of a slot that is there. */
function changeKnownSlot({ vmm }: ScriptRun, b: Bytes): void {
  const set = vmm.vm.mmu.slots[b.byte() & 15 ? 0 : 1];
  if (set.slots.length === 0) return;
  const { id, asId, flags, baseGfn, npages, userspaceAddr } = b.pick(set.slots);
  const what = b.below(8);
  vmm.vm.setUserMemoryRegion({
    slot: (asId << 16) | id,
    flags: what < 4 ? flags ^ 1 : what === 4 ? flags ^ 2 : flags,
    guestPhysAddr: 4096 * (what === 5 ? baseGfn + b.below(64) - 32 : baseGfn),
    memorySize: what === 6 ? 0 : 4096 * npages,
    userspaceAddr: what === 7 ? b.anyWide() : userspaceAddr,
  });
}

function clearLog({ vmm }: ScriptRun, b: Bytes): void {
  const bitmap = Int32Array.from({ length: b.below(70) }, () => b.byte() * 0x01010101);
  const first = b.byte() & 3 ? 64 * b.below(8) : b.anyWide();
  vmm.vm.clearDirtyLog(slotNumber(vmm.vm, b), first, b.byte() & 3 ? 64 * b.below(17) : b.any(), bitmap);
}

// ---- the host ------------------------------------------------------------------------------------------------------

function hostAddress({ vmm }: ScriptRun, b: Bytes): number {
  if ((b.byte() & 15) === 0) return b.any() * (b.byte() & 1 ? 1 : 4096);
  const used = vmm.memory.used();
  const base = used.length > 0 ? b.pick(used).base : 0x100000000000;
  return base + 4096 * b.below(1100) + (b.byte() & 7 ? 0 : b.below(4096));
}

function lengthOf(b: Bytes): number {
  if ((b.byte() & 15) === 0) return b.any();
  return (b.byte() & 1 ? 4096 : 2 ** 21) * (1 + b.below(4));
}

function systemCall(run: ScriptRun, b: Bytes): void {
  const { mm } = run.vmm;
  const start = hostAddress(run, b);
  const length = lengthOf(b);
  switch (b.below(6)) {
    case 0:
      return expectResult(mm.munmap(start, length));
    case 1:
      return expectResult(mm.mprotect(start, length, b.byte() & 15 ? b.below(8) : b.any()));
    case 2:
      return expectResult(mm.madviseDontneed(start, length));
    case 3:
      // Not MADV_NOHUGEPAGE: huge pages that are there stay, where the invariants expect none.
      return expectResult(mm.madviseHugepage(start, length, true));
    case 4:
      return expectResult(mm.mmapRegion({ base: start, length, backing: b.pick<Backing>(['4k', 'thp', '2m', '1g']) }));
    default:
      return expectResult(mm.fork());
  }
}

function access(run: ScriptRun, b: Bytes): void {
  const { mm } = run.vmm;
  const hva = hostAddress(run, b);
  const bytes = new Uint8Array(1 + b.below(16));
  // An access of these must not cross a page.
  const count = Math.min(bytes.length, 4096 - (Math.abs(hva) % 4096));
  switch (b.below(5)) {
    case 0:
      return expectResult(mm.readUser(hva, bytes, count));
    case 1:
      return expectResult(mm.writeUser(hva, bytes, count));
    case 2:
      return expectResult(mm.readUserAtomic(hva, bytes, count));
    case 3:
      return expectResult(mm.pinnedAccess(hva, bytes, (b.byte() & 1) === 1));
    default:
      return expectResult(Math.min(0, mm.touchWrite(hva)));
  }
}
