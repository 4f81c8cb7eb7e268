/**
 * A bare machine in 32-bit protected mode without paging: tables, a task that runs and one that waits, and handlers that tell their
 * vector (MOV EDX, vector; HLT).
 *
 * Selectors: 08 code, 10 data, 1b code and 23 data of ring 3, 28 this task, 30 another, 38 data of 4 KiB at DATA, 40 data that is
 * read-only, 48 a call gate to GATE with two parameters, 50 a task gate to 30, 58 data that grows downwards to 1000, 60 16-bit code.
 */
import { segmentsChanged, setSegmentRaw } from '../segments.ts';
import { CPL, CR0, CR4, CS, EFER, GDTR_BASE, GDTR_LIMIT, IDTR_BASE, IDTR_LIMIT, RDX, TR } from '../state.ts';
import { type BareMachine, bareMachine, setRip, setStack } from './bare-machine.ts';
import { CODE, GDT, HANDLER, IDT, load, STACK, TSS } from './prepared-machine.ts';

export const DATA = 0x300000;
export const GATE = 0x130000;
export const OTHER_TASK = 0x140000;
export const OTHER_TSS = 0x123000;
export const OTHER_STACK = 0x210000;
/** Of the other task, and of the inner ring. */
const INNER_STACK = 0x220000;

export const words = ({ ram }: BareMachine) => new DataView(ram.buffer, ram.byteOffset);

export function protectedMachine(cpl = 0): BareMachine {
  const machine = bareMachine(16, 0);
  const { cpu } = machine;
  const view = words(machine);
  const task = (base: number, type: bigint) =>
    (BigInt(base & 0xffffff) << 16n) | (BigInt(base >>> 24) << 56n) | (type << 40n) | 0x67n;
  const descriptors = [
    0n,
    0x00cf9b000000ffffn,
    0x00cf93000000ffffn,
    0x00cffb000000ffffn,
    0x00cff3000000ffffn,
    task(TSS, 0x8bn),
    task(OTHER_TSS, 0x89n),
    0x0040933000000fffn,
    0x00cf91000000ffffn,
    0x0000ec0200080000n | gateOffset(GATE),
    0x0000e50000300000n,
    0x0040970000000fffn,
    0x00009b000000ffffn,
  ];
  descriptors.forEach((d, i) => view.setBigUint64(GDT + i * 8, d, true));
  for (let vector = 0; vector < 256; vector++) {
    const to = HANDLER + vector * 16;
    view.setBigUint64(IDT + vector * 8, 0x0000ee0000080000n | gateOffset(to), true);
    load(machine, `ba${vector.toString(16).padStart(2, '0')}000000 f4`, to);
  }
  view.setUint32(TSS + 4, INNER_STACK, true);
  view.setUint32(TSS + 8, 0x10, true);
  const { state } = cpu;
  state.set(CR0, 0x11);
  state.set(CR4, 0);
  state.set(EFER, 0);
  state.setPair(GDTR_BASE, GDT, 0);
  state.set(GDTR_LIMIT, descriptors.length * 8 - 1);
  state.setPair(IDTR_BASE, IDT, 0);
  state.set(IDTR_LIMIT, 0x7ff);
  setSegmentRaw(cpu, TR, 0x28, 0x8b00, 0x67, TSS, 0);
  for (const index of [0, 2, 3, 4, 5]) {
    setSegmentRaw(cpu, index, cpl === 3 ? 0x23 : 0x10, 0xc09300 | (cpl << 13), -1, 0, 0);
  }
  setSegmentRaw(cpu, CS, cpl === 3 ? 0x1b : 0x08, 0xc09b00 | (cpl << 13), -1, 0, 0);
  state.set(CPL, cpl);
  segmentsChanged(cpu);
  setRip(cpu, CODE);
  setStack(cpu, STACK - 0x1000);
  state.setPair(RDX, -1, 0);
  return machine;
}

const gateOffset = (to: number): bigint => (BigInt(to >>> 16) << 48n) | BigInt(to & 0xffff);

/** Fills the task that waits: flat segments of ring 0, `code` at OTHER_TASK. */
export function otherTask(machine: BareMachine, code: string, change: (view: DataView) => void = () => {}): void {
  const view = words(machine);
  view.setUint32(OTHER_TSS + 0x20, OTHER_TASK, true);
  view.setUint32(OTHER_TSS + 0x24, 2, true);
  view.setUint32(OTHER_TSS + 0x38, OTHER_STACK, true);
  for (const at of [0x48, 0x50, 0x54, 0x58, 0x5c]) view.setUint32(OTHER_TSS + at, 0x10, true);
  view.setUint32(OTHER_TSS + 0x4c, 0x08, true);
  change(view);
  load(machine, code, OTHER_TASK);
}
