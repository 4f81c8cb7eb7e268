/** FNSTENV, FLDENV, FNSAVE, FRSTOR. Pointers to the last instruction aren't kept. */
import type { Cpu } from '../cpu.ts';
import { FCW, FTAGS } from '../state.ts';
import { high, loadPart, low, sizeOf, storePart } from '../system/outcome.ts';
import {
  peekAt,
  putRaw,
  rawAt,
  refreshSummary,
  reset,
  setControlWord,
  setStatusWord,
  slot,
  statusWord,
} from './registers.ts';

/** Two bits for each physical register: 0 valid, 1 zero, 2 special, 3 empty. */
function fullTags(cpu: Cpu): number {
  let tags = 0;
  for (let i = 0; i < 8; i++) {
    const physical = slot(cpu, i);
    const a = peekAt(cpu, i);
    const kind = !((cpu.state.get(FTAGS) >>> physical) & 1)
      ? 3
      : a.kind === 0
        ? 1
        : a.kind === 1 && !a.denormal
          ? 0
          : 2;
    tags |= kind << (physical * 2);
  }
  return tags;
}

const fieldBytes = (cpu: Cpu, record: number): number => (sizeOf(cpu, record) === 2 ? 2 : 4);

export function storeEnvironment(cpu: Cpu, record: number): boolean {
  const bytes = fieldBytes(cpu, record);
  const fill = bytes === 4 ? 0xffff0000 : 0;
  const words = [cpu.state.get(FCW) | fill, statusWord(cpu) | fill, fullTags(cpu) | fill, 0, 0, 0, fill];
  for (let i = 0; i < 7; i++) if (!storePart(cpu, record, i * bytes, bytes, words[i])) return false;
  cpu.state.set(FCW, cpu.state.get(FCW) | 0x3f);
  refreshSummary(cpu);
  return true;
}

export function loadEnvironment(cpu: Cpu, record: number): boolean {
  const bytes = fieldBytes(cpu, record);
  const words: number[] = [];
  // What isn't kept is read as well.
  for (let i = 0; i < 7; i++) {
    if (!loadPart(cpu, record, i * bytes, bytes)) return false;
    words.push(cpu.memory.lo & 0xffff);
  }
  const { state } = cpu;
  setControlWord(cpu, words[0]);
  setStatusWord(cpu, words[1]);
  let tags = 0;
  for (let i = 0; i < 8; i++) if (((words[2] >>> (i * 2)) & 3) !== 3) tags |= 1 << i;
  state.set(FTAGS, tags);
  refreshSummary(cpu);
  return true;
}

export function saveAll(cpu: Cpu, record: number): boolean {
  const start = 7 * fieldBytes(cpu, record);
  for (let i = 7; i >= 0; i--) {
    const [significand, head] = rawAt(cpu, i);
    if (!storePart(cpu, record, start + i * 10 + 8, 2, head)) return false;
    if (!storePart(cpu, record, start + i * 10, 8, low(significand), high(significand))) return false;
  }
  if (!storeEnvironment(cpu, record)) return false;
  reset(cpu);
  return true;
}

export function restoreAll(cpu: Cpu, record: number): boolean {
  const start = 7 * fieldBytes(cpu, record);
  const registers: [bigint, number][] = [];
  for (let i = 0; i < 8; i++) {
    if (!loadPart(cpu, record, start + i * 10, 8)) return false;
    const significand = (BigInt(cpu.memory.hi >>> 0) << 32n) | BigInt(cpu.memory.lo >>> 0);
    if (!loadPart(cpu, record, start + i * 10 + 8, 2)) return false;
    registers.push([significand, cpu.memory.lo]);
  }
  if (!loadEnvironment(cpu, record)) return false;
  const tags = cpu.state.get(FTAGS);
  for (let i = 0; i < 8; i++) putRaw(cpu, i, ...registers[i]);
  cpu.state.set(FTAGS, tags);
  return true;
}
