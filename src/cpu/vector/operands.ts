/** Operands of vector instructions that are functions of TypeScript: 16 bytes each. */
import type { Cpu } from '../cpu.ts';
import { R_OPERAND } from '../record.ts';
import { XMM } from '../state.ts';
import {
  generalProtection,
  type HelperFunction,
  FAULT,
  isMemory,
  linear,
  loadOperand,
  NEXT,
} from '../system/outcome.ts';

export const first = new DataView(new ArrayBuffer(16));
export const second = new DataView(new ArrayBuffer(16));
export const result = new DataView(new ArrayBuffer(16));
export const firstBytes = new Uint8Array(first.buffer);
export const secondBytes = new Uint8Array(second.buffer);
export const resultBytes = new Uint8Array(result.buffer);

const registerAt = (cpu: Cpu, record: number, i: number): number =>
  cpu.layout.state + XMM + cpu.state.bytes[record + R_OPERAND + i];

/** Fills `first` and `second`; false after a fault. `bytes` of the second, which must be aligned if it is whole and `aligned`. */
export function readOperands(cpu: Cpu, record: number, bytes = 16, aligned = true): boolean {
  const { state, memory } = cpu;
  const a = registerAt(cpu, record, 0);
  firstBytes.set(state.bytes.subarray(a, a + 16));
  if (!isMemory(cpu, record)) {
    const b = registerAt(cpu, record, 1);
    secondBytes.set(state.bytes.subarray(b, b + 16));
    return true;
  }
  if (bytes === 16 && aligned && linear(cpu, record) & 15n) {
    generalProtection(cpu);
    return false;
  }
  for (let at = 0; at < bytes; at += 8) {
    if (!loadOperand(cpu, record, at, Math.min(bytes - at, 8))) return false;
    second.setInt32(at, memory.lo, true);
    if (bytes - at >= 8) second.setInt32(at + 4, memory.hi, true);
  }
  return true;
}

/** Writes the low bytes of `result` to operand 0. */
export function writeResult(cpu: Cpu, record: number, bytes = 16): void {
  const at = registerAt(cpu, record, 0);
  cpu.state.bytes.set(resultBytes.subarray(0, bytes), at);
}

/** An instruction that makes `result` of `first`, `second` and its immediate, whose address it is given. */
export const vectorFunction = (f: (immediate: number) => void, immediateAt = 0): HelperFunction => {
  return (cpu, record) => {
    if (!readOperands(cpu, record)) return FAULT;
    f(immediateAt === 0 ? 0 : cpu.state.bytes[record + immediateAt]);
    writeResult(cpu, record);
    return NEXT;
  };
};
