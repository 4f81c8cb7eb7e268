/**
 * Random guest code: encodings of the instruction table with anything in their operands, among random bytes, in all modes
 * and rings, with devices, holes and read-only pages around. Whatever it does, the CPU must stay itself: no exception of
 * TypeScript, no trap of WebAssembly, no run that goes on beyond its budget.
 */
import { EXIT_EXCEPTION, EXIT_HALT, EXIT_SHUTDOWN } from '../bus.ts';
import { segmentsChanged } from '../segments.ts';
import {
  CPL,
  CR0,
  CR4,
  CS,
  DR7,
  EFER,
  FCW,
  FPR,
  FSW,
  FTAGS,
  FTOP,
  GDTR_BASE,
  GDTR_LIMIT,
  HIDDEN_BASE,
  IDTR_BASE,
  IDTR_LIMIT,
  INSTRUCTIONS,
  KERNEL_GS_BASE,
  LINEAR_RIP,
  LSTAR,
  MXCSR,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENT_LIMIT,
  SEGMENT_SELECTOR,
  SEGMENTS,
  SFMASK,
  STAR,
  TR,
} from '../state.ts';
import type { Row } from '../table/row.ts';
import { INSTRUCTION_TABLE } from '../table/table.ts';
import { type BareMachine, bareMachine, enterLongMode } from './bare-machine.ts';

const CODE = 0x100000;
const CODE_BYTES = 0x3000;
const IDT = 0x120000;
const GDT = 0x121000;
const TSS = 0x122000;
const HANDLERS = 0x124000;
const DATA = 0x200000;
const DATA_BYTES = 0x8000;
const MMIO_PAGE = (DATA + 0x4000) >>> 12;
const BUDGET = 400;

class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 16), 0x85ebca6b);
    t = Math.imul(t ^ (t >>> 13), 0xc2b2ae35);
    return (t ^ (t >>> 16)) >>> 0;
  }
  below(n: number): number {
    return this.next() % n;
  }
}

function randomCode(dice: Dice, out: Uint8Array, from: number, bytes: number): void {
  let at = from;
  const put = (byte: number) => {
    if (at < from + bytes) out[at++] = byte;
  };
  while (at < from + bytes) {
    if (dice.below(12) === 0) {
      put(dice.next());
      continue;
    }
    putInstruction(dice, INSTRUCTION_TABLE[dice.below(INSTRUCTION_TABLE.length)], put);
  }
}

function putInstruction(dice: Dice, row: Row, put: (byte: number) => void): void {
  if (dice.below(5) === 0) put([0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x65, 0x2e][dice.below(8)]);
  if (row.vex) {
    put(0xc4);
    put((dice.below(8) << 5) | row.map);
    put((dice.below(32) << 3) | (dice.below(9) ? 0 : 4) | ['np', '66', 'f3', 'f2'].indexOf(row.prefix));
  } else {
    if (row.prefix.length === 2 && row.prefix !== 'np') put(Number.parseInt(row.prefix, 16));
    if (dice.below(2)) put(0x40 | dice.below(16));
    if (row.map > 0) put(0x0f);
    if (row.map === 2) put(0x38);
    if (row.map === 3) put(0x3a);
  }
  put(row.opcode);
  if (row.modrm) {
    const reg = row.digit >= 0 ? row.digit : dice.below(8);
    const rm = row.rm >= 0 ? row.rm : dice.below(8);
    const mod = row.form === 'reg' ? 3 : dice.below(row.form === 'mem' ? 3 : 4);
    put((mod << 6) | (reg << 3) | rm);
    if (mod !== 3 && rm === 4) put(dice.next());
    if (mod === 1) put(dice.next());
  }
  if (row.operands.some((t) => 'IJO'.includes(t[0])))
    for (let i = dice.below(5); i > 0; i--) put(dice.below(3) ? dice.below(64) : 255);
}

function setTables({ cpu, ram }: BareMachine, dice: Dice): void {
  const view = new DataView(ram.buffer, ram.byteOffset);
  const descriptors = [0n, 0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn, 0x00cffb000000ffffn, 0x00cff3000000ffffn];
  descriptors.push(0x00affb000000ffffn, 0x00cf9b000000ffffn, 0x0000890000000067n | (BigInt(TSS & 0xffffff) << 16n), 0n);
  descriptors.forEach((d, i) => view.setBigUint64(GDT + i * 8, d, true));
  const wide = cpu.state.longMode;
  for (let vector = 0; vector < 256; vector++) {
    const to = HANDLERS + vector * 16;
    const at = IDT + vector * (wide ? 16 : 8);
    view.setUint32(at, ((wide ? 0x10 : 0x38) << 16) | (to & 0xffff), true);
    view.setUint32(at + 4, (to & 0xffff0000) | (dice.below(9) ? 0xee00 : 0x8e01 ^ dice.below(0x8000)), true);
    if (wide) view.setBigUint64(at + 8, 0n, true);
  }
  for (let i = 0; i < 10; i++) view.setBigUint64(TSS + 4 + i * 8, BigInt(DATA + DATA_BYTES - 64 * i), true);
  const { state } = cpu;
  state.setPair(GDTR_BASE, GDT, 0);
  state.set(GDTR_LIMIT, 79);
  state.setPair(IDTR_BASE, IDT, 0);
  state.set(IDTR_LIMIT, 0xfff);
  state.setPair(HIDDEN_BASE + TR * 8, TSS, 0);
  state.set(SEGMENTS + TR * SEGMENT_BYTES + SEGMENT_SELECTOR, 0x40);
  state.set(SEGMENTS + TR * SEGMENT_BYTES + SEGMENT_ATTRIBUTES, 0x8b00);
  state.set(SEGMENTS + TR * SEGMENT_BYTES + SEGMENT_LIMIT, 103 + dice.below(64));
  state.setPair(STAR, CODE, (0x23 << 16) | 0x10);
  state.setPair(LSTAR, CODE + dice.below(CODE_BYTES), 0);
  state.setPair(SFMASK, dice.next(), 0);
  state.setPair(KERNEL_GS_BASE, DATA, 0);
}

function setMode({ cpu }: BareMachine, dice: Dice): void {
  const ring = dice.below(2) * 3;
  enterLongMode(cpu, ring);
  const { state } = cpu;
  const kind = dice.below(4);
  const code = SEGMENTS + CS * SEGMENT_BYTES;
  if (kind > 1) {
    state.set(code + SEGMENT_SELECTOR, (ring ? 0x20 : 0x38) | ring);
    state.set(code + SEGMENT_ATTRIBUTES, 0x00c09b00 | (ring << 13));
  }
  if (kind === 3) state.set(EFER, 0);
  if (kind === 3) state.set(CR0, (state.get(CR0) & 0x7fffffff) | 0);
  if (dice.below(4) === 0) state.set(CR0, state.get(CR0) | 0x40000 | (dice.below(4) << 2));
  if (dice.below(4) === 0) state.set(CR4, state.get(CR4) ^ (1 << dice.below(23)));
  state.set(MXCSR, dice.below(2) ? 0x1f80 : dice.below(0x10000));
  state.set(DR7, 0x400);
  state.set(CPL, ring);
  segmentsChanged(cpu);
}

/** Mostly addresses of data. */
function setRegisters({ cpu }: BareMachine, dice: Dice): void {
  const { state } = cpu;
  for (let i = 0; i < 16; i++) {
    const kind = dice.below(3);
    state.setPair(i * 8, kind ? DATA + dice.below(DATA_BYTES) : dice.next(), kind ? 0 : dice.next());
  }
  state.setPair(32, DATA + 0x1000 + dice.below(64), 0);
}

const HEADS = [0, 1, 0x3fff, 0x7ffe, 0x7fff];
const SIGNIFICANDS = [0n, 1n, 1n << 63n, 3n << 62n, 5n << 61n, -1n];

/** Any control, status and tags of x87; in its registers numbers of all kinds, those that are none among them. */
function setFpu({ cpu }: BareMachine, dice: Dice): void {
  const { state } = cpu;
  state.set(FCW, dice.below(0x2000));
  state.set(FSW, dice.next() & 0xc77f);
  state.set(FTOP, dice.below(8));
  state.set(FTAGS, dice.below(2) ? 255 : dice.below(256));
  for (let i = 0; i < 8; i++) {
    const at = FPR + i * 16;
    const any = (BigInt(dice.next()) << 32n) | BigInt(dice.next());
    const significand = dice.below(2) ? SIGNIFICANDS[dice.below(SIGNIFICANDS.length)] : any | (1n << 63n);
    state.setPair(at, Number(BigInt.asIntN(32, significand)), Number(BigInt.asIntN(32, significand >> 32n)));
    state.set(at + 8, (dice.below(2) << 15) | (dice.below(2) ? HEADS[dice.below(HEADS.length)] : dice.below(0x8000)));
  }
}

function prepare(machine: BareMachine, dice: Dice): void {
  const { cpu, bus, ram } = machine;
  const { state } = cpu;
  bus.absent.clear();
  bus.readOnly.clear();
  bus.log.length = 0;
  bus.mmioPage = dice.below(2) ? MMIO_PAGE : -1;
  setMode(machine, dice);
  setTables(machine, dice);
  randomCode(dice, ram, CODE, CODE_BYTES);
  randomCode(dice, ram, HANDLERS, 0x1000);
  for (let vector = 0; vector < 256; vector++) {
    if (dice.below(3)) ram.set(state.longMode ? [0x48, 0xcf] : [0xcf], HANDLERS + vector * 16);
  }
  for (let i = 0; i < DATA_BYTES; i++) ram[DATA + i] = dice.next();
  for (let page = 0; page < ram.length; page += 4096) cpu.code.invalidate(ram.byteOffset + page);
  if (dice.below(2)) bus.absent.add((DATA >>> 12) + 2);
  if (dice.below(2)) bus.readOnly.add((DATA >>> 12) + 1);
  setRegisters(machine, dice);
  state.rflags = 2 | (dice.next() & 0x40ed5) | (dice.below(8) ? 0 : 0x100);
  state.setPair(LINEAR_RIP, CODE + dice.below(64), 0);
  cpu.interceptExceptions = dice.below(2) ? 0 : dice.next();
  cpu.tlb.flush();
}

/** Runs one random program; what it came to, for counting. Throws when the CPU didn't stay itself. */
export function fuzzOnce(machine: BareMachine, seed: number): string {
  const dice = new Dice(seed);
  const { cpu } = machine;
  const { state } = cpu;
  prepare(machine, dice);
  let ends = '';
  for (let turn = 0; turn < 8; turn++) {
    const before = state.get(INSTRUCTIONS);
    const why = cpu.run(BUDGET);
    const retired = (state.get(INSTRUCTIONS) - before) >>> 0;
    // A run ends at the next jump; runs of records are short, and a page of them is the most.
    if (retired > BUDGET + 4096) throw new Error(`seed ${seed}: ${retired} instructions of ${BUDGET}`);
    ends = ends.includes(String(why)) ? ends : ends + String(why);
    if (why === EXIT_SHUTDOWN) break;
    if (why === EXIT_HALT || why === EXIT_EXCEPTION) state.setPair(LINEAR_RIP, CODE + dice.below(CODE_BYTES - 64), 0);
    if (dice.below(3) === 0) cpu.injectInterrupt(32 + dice.below(200));
    if (dice.below(5) === 0) cpu.injectNmi();
  }
  cpu.withdrawInterrupt();
  return ends;
}

/** `count` programs from `seed` on: how often each set of reasons to end was met. */
export function fuzz(seed: number, count: number): Map<string, number> {
  const machine = bareMachine(4);
  const ends = new Map<string, number>();
  for (let i = 0; i < count; i++) {
    const end = fuzzOnce(machine, seed + i);
    ends.set(end, (ends.get(end) ?? 0) + 1);
  }
  return ends;
}

/** How many of them find the same mode, tables and memory. */
const SHARE = 256;

/**
 * `count` single instructions, every other one of x87, on registers with anything in them: for which reasons runs ended. Throws what
 * the CPU throws; it should not.
 */
export function fuzzInstructions(seed: number, count: number): Set<number> {
  const machine = bareMachine(4);
  const { cpu, ram } = machine;
  const { state } = cpu;
  const ofX87 = INSTRUCTION_TABLE.filter((row) => row.operands.includes('F'));
  const dice = new Dice(seed);
  const ends = new Set<number>();
  for (let i = 0; i < count; i++) {
    if (i % SHARE === 0) prepare(machine, dice);
    setRegisters(machine, dice);
    setFpu(machine, dice);
    const rows = i % 2 ? ofX87 : INSTRUCTION_TABLE;
    let at = CODE;
    putInstruction(dice, rows[dice.below(rows.length)], (byte) => void (ram[at++] = byte));
    cpu.code.invalidate(ram.byteOffset + CODE);
    state.setPair(LINEAR_RIP, CODE, 0);
    ends.add(cpu.run(1));
    cpu.withdrawInterrupt();
  }
  return ends;
}

/** Zeros, ones, pi, infinities, NaNs, the smallest and the largest numbers, encodings that are none. */
const SPECIAL: readonly (readonly [head: number, significand: bigint])[] = [
  [0, 0n],
  [0x8000, 0n],
  [0x3fff, 1n << 63n],
  [0xbfff, 1n << 63n],
  [0x4000, 0xc90fdaa22168c235n],
  [0x7fff, 1n << 63n],
  [0xffff, 1n << 63n],
  [0xffff, 3n << 62n],
  [0x7fff, 5n << 61n],
  [0, 1n],
  [0x8000, 1n << 63n],
  [0x7ffe, -1n],
  [0xfffe, -1n],
  [0x403e, 1n << 63n],
  [0x3fff, 1n],
];

/** Every instruction of x87 on its registers, with every two of SPECIAL in ST(0) and ST(1). How many that were. */
export function everyFpuPair(): number {
  const { cpu, ram } = bareMachine(4);
  const { state } = cpu;
  let done = 0;
  for (let code = 0; code < 8 * 64; code++) {
    ram.set([0xd8 | (code >> 6), 0xc0 | (code & 63), 0xf4], CODE);
    cpu.code.invalidate(ram.byteOffset + CODE);
    for (const first of SPECIAL) {
      for (const second of SPECIAL) {
        state.set(FCW, 0x37f);
        state.set(FSW, 0);
        state.set(FTOP, 0);
        state.set(FTAGS, 3);
        for (const [i, [head, significand]] of [first, second].entries()) {
          state.setPair(
            FPR + i * 16,
            Number(BigInt.asIntN(32, significand)),
            Number(BigInt.asIntN(32, significand >> 32n)),
          );
          state.set(FPR + i * 16 + 8, head);
        }
        state.setPair(LINEAR_RIP, CODE, 0);
        cpu.run(10);
        done++;
      }
    }
  }
  return done;
}

/** Parts of the state that a guest can see: registers, flags, everything of the system, x87. */
const SEEN: readonly (readonly [number, number])[] = [
  [0, 128],
  [LINEAR_RIP, LINEAR_RIP + 8],
  [256, 512],
  [MXCSR, MXCSR + 4],
  [640, 1232],
];

function seen({ cpu }: BareMachine): string {
  const { state } = cpu;
  const parts = SEEN.map(([from, to]) => {
    let text = '';
    for (let at = from; at < to; at += 4) text += ` ${(state.get(at) >>> 0).toString(16)}`;
    return text;
  });
  return `${state.rflags.toString(16)} ${parts.join(' |')}`;
}

function sameMemory(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/**
 * Runs random programs on two machines, on one of them in the smallest pieces there are: from jump to jump. It must make no
 * difference. How many programs came to an end in the same place.
 */
export function fuzzInPieces(seed: number, count: number): number {
  const whole = bareMachine(4);
  const pieces = bareMachine(4);
  for (let i = 0; i < count; i++) {
    for (const machine of [whole, pieces]) {
      machine.ram.fill(0);
      machine.cpu.state.setPair(INSTRUCTIONS, 0, 0);
      prepare(machine, new Dice(seed + i));
      machine.cpu.state.raise(-1);
      machine.cpu.interceptExceptions = 0;
    }
    const why = whole.cpu.run(BUDGET);
    const until = whole.cpu.state.get(INSTRUCTIONS);
    const wanted = seen(whole);
    // Of several stops without an instruction between them, at events, one must be the same: in registers, and in memory too, as a
    // fault whose delivery faults comes to the same registers again while it fills a stack.
    let stateEqual = false;
    let equal = false;
    for (let turn = 0; turn < 4 * BUDGET && !equal && pieces.cpu.state.get(INSTRUCTIONS) <= until; turn++) {
      if (pieces.cpu.run(1) > 1 && why < 2) break;
      if (pieces.cpu.state.get(INSTRUCTIONS) !== until || seen(pieces) !== wanted) continue;
      stateEqual = true;
      equal = sameMemory(whole.ram, pieces.ram);
    }
    if (!stateEqual) throw new Error(`seed ${seed + i}: the states differ\n${wanted}\n${seen(pieces)}`);
    if (!equal) throw new Error(`seed ${seed + i}: the memories differ`);
  }
  return count;
}
