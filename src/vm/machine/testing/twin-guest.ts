/**
 * The same random guest on two machines, one under nested paging and one under shadow paging: what the guest sees must not
 * depend on it. It runs in long mode, in rings 0 and 3, uses data, and edits the page tables that it runs on; each edit is
 * followed by a reload of CR3, since without one a TLB, and so a shadow page, may go on with what it knows.
 *
 *     frames   512..       code
 *              768..777    PML4, PDPT, two PDs, six PTs: what edits change
 *              1024..1535  data: all that the entries of the PTs lead to
 *     gva      0           4 KiB pages, by PT 0 to 2; 600000 up: 2 MiB pages or PT 3 to 5
 *              40000000    the same by the second PD
 *              80000000    all RAM by a large page of 1 GiB: ring 0's code, and the tables for the edits
 *              c0000000    the same for ring 3
 *
 * A bits are not compared: the CPU sets those above a leaf before it knows that the access will fault, KVM's walker only if
 * it won't. So nothing reads the tables either.
 */
import { Prng } from '../../../base/prng.ts';
import { EXIT_EXCEPTION } from '../../../cpu/bus.ts';
import { segmentsChanged, setSegmentRaw } from '../../../cpu/segments.ts';
import {
  CPL,
  CR0,
  CR2,
  CR3,
  CR4,
  CS,
  EFER,
  GPR,
  LINEAR_RIP,
  NO_EXCEPTION,
  PENDING_VECTOR,
  PKRU,
  RSP,
} from '../../../cpu/state.ts';
import type { PolicyName } from '../../../mmu/policy.ts';
import { resetMmuContext } from '../../../mmu/roots.ts';
import { codeImage, le32, makePc, type TestPc } from './guests.ts';

const MEGABYTES = 8;
const CODE = 512;
const PML4 = 768;
const PDPT = 769;
const PDS: readonly number[] = [770, 771];
const PTS: readonly number[] = [772, 773, 774, 775, 776, 777];
const DATA = 1024;
const DATA_FRAMES = 64;
const WINDOW = 0x80000000;
const USER_WINDOW = 0xc0000000;
/** Instructions' places in the code: so far apart. */
const STEP = 80;
const PLACES = 120;
const LONGEST_EPISODE = 200;

const P = 1;
const W = 2;
const U = 4;
const A = 0x20;
const D = 0x40;
const PS = 0x80;
const ALL = P | W | U | A | D;
const CR0_ON = 0x80050033 | 0;
const CR0_WP = 1 << 16;
const CR4_ON = 0x6b0;
const CR4_SMEP = 1 << 20;
const CR4_SMAP = 1 << 21;

/** What a machine did in an episode. */
export interface Outcome {
  readonly vector: number;
  readonly error: number;
  readonly text: string;
}

export class TwinGuest {
  readonly machines: readonly TestPc[];
  private readonly random: Prng;

  constructor(seed: number, policy: PolicyName) {
    this.random = new Prng(seed);
    const hostLevel = this.random.pick([1, 2] as const);
    const options = { megabytes: MEGABYTES, policy, hostLevel };
    const image = codeImage(0xeb, 0xfe);
    this.machines = [
      makePc(image, { ...options, paging: 'tdp', cpu: 'max,-pku' }),
      makePc(image, { ...options, paging: 'shadow' }),
    ];
    const writes = this.image();
    for (const { pc } of this.machines) {
      for (const [frame, index, entry] of writes.entries) setEntry(pc.ram, frame, index, entry);
      pc.ram.set(writes.code, CODE * 4096);
      pc.cpu.interceptExceptions = -1;
      start(pc);
    }
  }

  /** Both machines run from the same place in the same state. Throws if they come to different ends. */
  episode(): void {
    const { random } = this;
    const cpl = random.pick([0, 0, 3]);
    const place = random.int(PLACES);
    const cr0 = random.chance(0.8) ? CR0_ON : CR0_ON & ~CR0_WP;
    const cr4 = CR4_ON | (random.chance(0.2) ? CR4_SMEP : 0) | (random.chance(0.2) ? CR4_SMAP : 0);
    const [tdp, shadow] = this.machines.map(({ pc }) => {
      enter(pc, cpl, place, cr0, cr4);
      return run(pc);
    });
    if (tdp.text !== shadow.text) throw new Error(`tdp:    ${tdp.text}\nshadow: ${shadow.text}`);
  }

  /** Compares memory, and verifies both. */
  check(): void {
    const [a, b] = this.machines.map(({ pc }) => pc);
    for (let frame = 0; frame < (MEGABYTES << 20) / 4096; frame++) {
      const mask = frame >= PML4 && frame <= PTS[5] ? ~A : -1;
      const from = frame * 4096;
      if (Buffer.compare(a.ram.subarray(from, from + 4096), b.ram.subarray(from, from + 4096)) === 0) continue;
      const left = new Int32Array(a.ram.buffer, a.ram.byteOffset + from, 1024);
      const right = new Int32Array(b.ram.buffer, b.ram.byteOffset + from, 1024);
      const at = left.findIndex((word, i) => ((word ^ right[i]) & mask) !== 0);
      if (at >= 0) throw new Error(`frame ${frame}, word ${at}: tdp ${hex(left[at])}, shadow ${hex(right[at])}`);
    }
    for (const { pc } of this.machines) {
      const complaints = pc.vm.verify();
      if (complaints.length > 0) throw new Error(`${pc.vm.mmu.tdp ? 'tdp' : 'shadow'}: ${complaints.join('; ')}`);
    }
  }

  private image(): { entries: [frame: number, index: number, entry: bigint][]; code: Uint8Array } {
    const entries: [number, number, bigint][] = [[PML4, 0, table(PDPT)]];
    entries.push([PDPT, 0, table(PDS[0])], [PDPT, 1, table(PDS[1])]);
    entries.push([PDPT, 2, BigInt(P | W | A | D | PS)], [PDPT, 3, BigInt(ALL | PS)]);
    for (const pd of PDS) for (let i = 0; i < 6; i++) entries.push([pd, i, table(PTS[i])]);
    for (const pt of PTS) for (let i = 0; i < 16; i++) entries.push([pt, i, this.leaf()]);
    const code = new Uint8Array(PLACES * STEP + 8);
    for (let place = 0; place < PLACES; place++) code.set(this.fragment(place), place * STEP);
    return { entries, code };
  }

  /** An entry of a PT. */
  private leaf(): bigint {
    const { random } = this;
    if (random.chance(0.1)) return BigInt(random.int(2)) << 1n;
    let lo = P | ((DATA + random.int(DATA_FRAMES)) * 4096);
    for (const [bit, chance] of [
      [W, 0.7],
      [U, 0.7],
      [A, 0.6],
      [D, 0.5],
      [0x100, 0.1],
    ])
      if (random.chance(chance)) lo |= bit;
    const nx = random.chance(0.3) ? 1n << 63n : 0n;
    // Beyond the CPU's 40 bits.
    const reserved = random.chance(0.03) ? 1n << 45n : 0n;
    return BigInt(lo) | nx | reserved;
  }

  /** An entry of a PD: one of the PTs, a large page of data, or nothing. */
  private upper(): bigint {
    const { random } = this;
    if (random.chance(0.1)) return 0n;
    const rights = P | (random.chance(0.8) ? W : 0) | (random.chance(0.8) ? U : 0) | (random.chance(0.5) ? A : 0);
    const nx = random.chance(0.1) ? 1n << 63n : 0n;
    if (random.chance(0.6)) return BigInt(rights | (random.pick(PTS) * 4096)) | nx;
    // Bit 13 is reserved in a large page's entry.
    const reserved = random.chance(0.05) ? 0x2000 : 0;
    return BigInt(rights | PS | (random.chance(0.5) ? D : 0) | 0x400000 | reserved) | nx;
  }

  /** Some instructions, then a jump to another place. */
  private fragment(place: number): number[] {
    const { random } = this;
    const code: number[] = [];
    while (code.length < 40) code.push(...this.instruction());
    // e9: relative to the end of the jump.
    const target = random.int(PLACES) * STEP;
    return [...code, 0xe9, ...le32(target - (place * STEP + code.length + 5))];
  }

  private instruction(): number[] {
    const { random } = this;
    const kind = random.int(100);
    // [disp32] without a base; the register is eax, ecx, edx or ebx.
    const data = (): number[] => [0x04 | (random.int(4) << 3), 0x25, ...le32(this.address())];
    if (kind < 25) return [0x8b, ...data()];
    if (kind < 50) return [0x89, ...data()];
    if (kind < 56) return [0xf0, 0x01, ...data()];
    if (kind < 60) return [0x87, ...data()];
    if (kind < 64) return [0xb8 | random.int(4), ...le32(random.next())];
    if (kind < 68) return [0x0f, 0x01, 0x3c, 0x25, ...le32(this.address())];
    if (kind < 70) return [0x0f, 0x20, 0xdf, 0x0f, 0x22, 0xdf];
    if (kind < 72) return [0xff, 0x14, 0x25, ...le32(this.address())];
    return this.edit();
  }

  /** An address that the tables may map; sometimes at a page's end. */
  private address(): number {
    const { random } = this;
    const page = random.pick([0, 0x40000000]) + random.int(6) * 0x200000 + random.int(16) * 4096;
    return page + (random.chance(0.1) ? 4094 : random.int(1000) * 4);
  }

  /** A store to a table through the window, in one piece or in two, then a reload of CR3. */
  private edit(): number[] {
    const { random } = this;
    const isUpper = random.chance(0.25);
    const frame = isUpper ? random.pick(PDS) : random.pick(PTS);
    const entry = isUpper ? this.upper() : this.leaf();
    const at = random.pick([WINDOW, WINDOW, USER_WINDOW]) + frame * 4096 + random.int(isUpper ? 6 : 16) * 8;
    const words = [Number(entry & 0xffffffffn), Number(entry >> 32n)];
    // mov esi, at; mov rdi, entry; mov [rsi], rdi (or its halves); mov rdi, cr3; mov cr3, rdi
    const store = random.chance(0.7) ? [0x48, 0x89, 0x3e] : [0x89, 0x3e, 0x48, 0xc1, 0xef, 0x20, 0x89, 0x7e, 0x04];
    return [
      0xbe,
      ...le32(at),
      0x48,
      0xbf,
      ...le32(words[0]),
      ...le32(words[1]),
      ...store,
      0x0f,
      0x20,
      0xdf,
      0x0f,
      0x22,
      0xdf,
    ];
  }
}

function table(frame: number): bigint {
  return BigInt(frame * 4096 + (P | W | U | A));
}

function setEntry(ram: Uint8Array, frame: number, index: number, entry: bigint): void {
  new DataView(ram.buffer, ram.byteOffset).setBigUint64(frame * 4096 + index * 8, entry, true);
}

type AnyPc = TestPc['pc'];

function start({ cpu, unit, vm }: AnyPc): void {
  const { state } = cpu;
  state.set(CR0, CR0_ON);
  state.setPair(CR3, PML4 * 4096, 0);
  state.set(CR4, CR4_ON);
  state.set(EFER, 0xd01);
  Object.assign(unit.regs, { cr0: CR0_ON, cr3Lo: PML4 * 4096, cr3Hi: 0, cr4: CR4_ON, efer: 0xd01 });
  resetMmuContext(vm.mmu, unit.vcpu);
}

/** Ring, place and control bits of an episode; registers stay as they are. */
function enter(pc: AnyPc, cpl: number, place: number, cr0: number, cr4: number): void {
  const { cpu } = pc;
  const { state } = cpu;
  pc.end = null;
  state.set(PENDING_VECTOR, NO_EXCEPTION);
  // As the instructions would: checks and what the MMU must forget, then the CPU's own.
  if (state.get(CR0) !== cr0) {
    pc.cpus[0].controlWrite(0, cr0, 0);
    state.set(CR0, cr0);
  }
  if (state.get(CR4) !== cr4) {
    pc.cpus[0].controlWrite(4, cr4, 0);
    state.set(CR4, cr4);
  }
  // An edit in ring 3 could not be followed by a reload of CR3.
  pc.cpus[0].controlWrite(3, state.get(CR3), 0);
  cpu.tlb.flush();
  for (const index of [0, 2, 3, 4, 5]) setSegmentRaw(cpu, index, 0x18 | cpl, 0xc09300 | (cpl << 13), -1, 0, 0);
  setSegmentRaw(cpu, CS, 0x10 | cpl, 0xa09b00 | (cpl << 13), -1, 0, 0);
  state.set(CPL, cpl);
  state.set(PKRU, 0);
  state.rflags = 2;
  // Calls push somewhere among the data.
  state.setPair(RSP, 0x40000800, 0);
  segmentsChanged(cpu);
  cpu.modeChanged();
  state.setPair(LINEAR_RIP, (cpl === 3 ? USER_WINDOW : WINDOW) + CODE * 4096 + place * STEP, 0);
}

function run(pc: AnyPc): Outcome {
  const { cpu, unit } = pc;
  const { state } = cpu;
  if (unit.vcpu.requests !== 0) unit.serveRequests();
  const before = cpu.retired;
  const exit = cpu.run(LONGEST_EPISODE);
  unit.tellWritten();
  const { vector, error } = exit === EXIT_EXCEPTION ? cpu.intercepted : { vector: -1, error: 0 };
  const registers = Array.from({ length: 8 }, (_, i) => state.big(GPR + 8 * i).toString(16));
  const text = `exit ${exit}, vector ${vector}, error ${hex(error)}, cr2 ${state.big(CR2).toString(16)}, rip ${state.big(LINEAR_RIP).toString(16)}, ${cpu.retired - before} instructions, ${registers.join(' ')}`;
  return { vector, error, text };
}

const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;
