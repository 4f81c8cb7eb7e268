/**
 * A bare machine with tables: a GDT, an IDT whose handlers tell their vector (MOV EDX, vector; HLT), a TSS and a stack.
 * Selectors: 10 code, 18 data, 20 user code of 32 bits, 28 user data, 30 user code of 64 bits, 38 code of 32 bits.
 */
import {
  GDTR_BASE,
  GDTR_LIMIT,
  HIDDEN_BASE,
  IDTR_BASE,
  IDTR_LIMIT,
  RSP,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENT_LIMIT,
  SEGMENTS,
  TR,
} from '../state.ts';
import { type BareMachine, bareMachine, setRip, setStack } from './bare-machine.ts';

export const CODE = 0x100000;
export const HANDLER = 0x110000;
export const IDT = 0x120000;
export const GDT = 0x121000;
export const TSS = 0x122000;
export const STACK = 0x200000;

/** Instructions in hex, run until HLT. */
export function load({ cpu, ram }: BareMachine, hex: string, at = CODE): void {
  cpu.code.invalidate(ram.byteOffset + at);
  ram.set(Buffer.from(hex.replaceAll(' ', ''), 'hex'), at);
}

export function prepared(cpl = 0): BareMachine {
  const machine = bareMachine(16, cpl);
  const { cpu, ram } = machine;
  const view = new DataView(ram.buffer, ram.byteOffset);
  const descriptors = [0n, 0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn, 0x00cffb000000ffffn, 0x00cff3000000ffffn];
  descriptors.push(0x00affb000000ffffn, 0x00cf9b000000ffffn);
  descriptors.forEach((d, i) => view.setBigUint64(GDT + i * 8, d, true));
  for (let vector = 0; vector < 256; vector++) {
    const to = HANDLER + vector * 16;
    view.setUint32(IDT + vector * 16, (0x10 << 16) | (to & 0xffff), true);
    view.setUint32(IDT + vector * 16 + 4, (to & 0xffff0000) | 0xee00, true);
    ram.set([0xba, vector, 0, 0, 0, 0xf4], to);
  }
  view.setBigUint64(TSS + 4, BigInt(STACK), true);
  const { state } = cpu;
  state.setPair(GDTR_BASE, GDT, 0);
  state.set(GDTR_LIMIT, 0xff);
  state.setPair(IDTR_BASE, IDT, 0);
  state.set(IDTR_LIMIT, 0xfff);
  state.setPair(HIDDEN_BASE + TR * 8, TSS, 0);
  state.set(SEGMENTS + TR * SEGMENT_BYTES + SEGMENT_ATTRIBUTES, 0x8b00);
  state.set(SEGMENTS + TR * SEGMENT_BYTES + SEGMENT_LIMIT, 103);
  setRip(cpu, CODE);
  setStack(cpu, STACK - 0x1000);
  return machine;
}

export const stackWord = ({ cpu, ram }: BareMachine, i: number): bigint =>
  new DataView(ram.buffer, ram.byteOffset).getBigUint64(cpu.state.get(RSP) + i * 8, true);
