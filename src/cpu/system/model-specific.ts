/** Model-specific registers: those that the CPU owns; the bus has the others. */
import { toBigInt } from '../../base/u64.ts';
import type { Cpu } from '../cpu.ts';
import { segmentsChanged } from '../segments.ts';
import {
  CSTAR,
  EFER,
  FS,
  GS,
  HIDDEN_BASE,
  KERNEL_GS_BASE,
  LSTAR,
  PAT,
  RAX,
  RCX,
  RDX,
  SFMASK,
  STAR,
  SYSENTER_CS,
  SYSENTER_EIP,
  SYSENTER_ESP,
  TSC_AUX,
  TSC_OFFSET,
} from '../state.ts';
import { writeEfer } from './control-registers.ts';
import { generalProtection, type HelperFunction, high, LEAVE, low, NEXT } from './outcome.ts';
import { supervisor } from './privilege.ts';

/** MSRs that are plain 64-bit words of the state; those marked must be canonical addresses. */
const PLAIN_MSRS = new Map<number, [offset: number, canonical: boolean]>([
  [0xc0000081, [STAR, false]],
  [0xc0000082, [LSTAR, true]],
  [0xc0000083, [CSTAR, true]],
  [0xc0000084, [SFMASK, false]],
  [0xc0000100, [HIDDEN_BASE + FS * 8, true]],
  [0xc0000101, [HIDDEN_BASE + GS * 8, true]],
  [0xc0000102, [KERNEL_GS_BASE, true]],
  [0xc0000103, [TSC_AUX, false]],
  [0x174, [SYSENTER_CS, false]],
  [0x175, [SYSENTER_ESP, true]],
  [0x176, [SYSENTER_EIP, true]],
  [0x277, [PAT, false]],
]);
const MSR_EFER = 0xc0000080;
const MSR_TSC = 0x10;
const MSR_TSC_AUX = 0xc0000103;

const rdmsr = supervisor((cpu, record) => {
  const { state } = cpu;
  const index = state.get(RCX) >>> 0;
  const plain = PLAIN_MSRS.get(index);
  let value: bigint | null;
  if (plain) value = state.big(plain[0]);
  else if (index === MSR_EFER) value = BigInt(state.get(EFER) >>> 0);
  else if (index === MSR_TSC) value = timeStamp(cpu, record);
  else value = cpu.bus.readMsr(index);
  if (value === null) return generalProtection(cpu);
  setEdxEax(cpu, value);
  return NEXT;
});

export function setEdxEax(cpu: Cpu, value: bigint): void {
  cpu.state.setPair(RAX, low(value), 0);
  cpu.state.setPair(RDX, high(value), 0);
}

function timeStamp(cpu: Cpu, record: number): bigint {
  return BigInt.asUintN(64, BigInt(cpu.ticksAt(cpu.now(record))) + cpu.state.big(TSC_OFFSET));
}

const wrmsr = supervisor((cpu, record) => {
  const { state } = cpu;
  const index = state.get(RCX) >>> 0;
  const lo = state.get(RAX);
  const hi = state.get(RDX);
  const plain = PLAIN_MSRS.get(index);
  if (plain) {
    if (plain[1] && !cpu.memory.mayBeCanonical(hi)) return generalProtection(cpu);
    if (index === MSR_TSC_AUX && hi !== 0) return generalProtection(cpu);
    if (index === 0x277 && !isPat(lo, hi)) return generalProtection(cpu);
    state.setPair(plain[0], lo, hi);
    if (index === 0xc0000100 || index === 0xc0000101) segmentsChanged(cpu);
    return NEXT;
  }
  if (index === MSR_EFER) return writeEfer(cpu, lo, hi);
  if (index === MSR_TSC) {
    state.setBig(TSC_OFFSET, toBigInt(lo, hi) - BigInt(cpu.ticksAt(cpu.now(record))));
    cpu.bus.writeMsr(index, toBigInt(lo, hi));
    return NEXT;
  }
  return cpu.bus.writeMsr(index, toBigInt(lo, hi)) ? LEAVE : generalProtection(cpu);
});

/** Each of the eight bytes names a memory type: 0, 1, 4, 5, 6 or 7. */
function isPat(lo: number, hi: number): boolean {
  for (const word of [lo, hi]) {
    for (let shift = 0; shift < 32; shift += 8) {
      const type = (word >>> shift) & 255;
      if (type > 7 || type === 2 || type === 3) return false;
    }
  }
  return true;
}

export const MODEL_SPECIFIC: Record<string, HelperFunction> = { rdmsr, wrmsr };
