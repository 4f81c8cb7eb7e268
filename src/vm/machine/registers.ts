/** A CPU's registers: set from what a loader asks for, and told to people. */
import type { Cpu } from '../../cpu/cpu.ts';
import { segmentsChanged, setSegmentRaw } from '../../cpu/segments.ts';
import {
  CPL,
  CR0,
  CR2,
  CR3,
  CR4,
  CS,
  EFER,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  IDTR_LIMIT,
  LDTR,
  LINEAR_RIP,
  RAX,
  RBX,
  RSI,
  RSP,
  SEGMENT_BYTES,
  SEGMENTS,
  TR,
} from '../../cpu/state.ts';
import type { BootRegisters, BootSegment } from '../boot/boot-image.ts';

/** ES, SS, DS, FS, GS. */
const DATA_SEGMENTS: readonly number[] = [0, 2, 3, 4, 5];

/** The state in which a boot protocol enters a kernel. The rest is as after reset. */
export function loadRegisters(cpu: Cpu, r: BootRegisters): void {
  const { state } = cpu;
  state.set(CR0, r.cr0 | 0);
  state.setPair(CR3, r.cr3, 0);
  state.set(CR4, r.cr4);
  state.set(EFER, r.efer);
  state.set(CPL, 0);
  state.rflags = r.rflags;
  state.setPair(GDTR_BASE, r.gdtBase, 0);
  state.set(GDTR_LIMIT, r.gdtLimit);
  state.set(IDTR_LIMIT, 0);
  loadOne(cpu, CS, r.cs);
  for (const index of DATA_SEGMENTS) loadOne(cpu, index, r.ds);
  loadOne(cpu, TR, r.tr);
  setSegmentRaw(cpu, LDTR, 0, 0, 0, 0, 0);
  state.setPair(RAX, r.rax, 0);
  state.setPair(RBX, r.rbx, 0);
  state.setPair(RSI, r.rsi, 0);
  state.setPair(RSP, r.rsp, 0);
  segmentsChanged(cpu);
  cpu.modeChanged();
  state.setPair(LINEAR_RIP, r.rip, 0);
}

function loadOne(cpu: Cpu, index: number, s: BootSegment): void {
  setSegmentRaw(cpu, index, s.selector, (s.access << 8) | (s.flags << 20), s.limit, s.base, 0);
}

const NAMES = [
  'RAX',
  'RCX',
  'RDX',
  'RBX',
  'RSP',
  'RBP',
  'RSI',
  'RDI',
  'R8',
  'R9',
  'R10',
  'R11',
  'R12',
  'R13',
  'R14',
  'R15',
];
const SEGMENT_NAMES = ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'];

/** Registers in a few lines, as a crash report shows them. */
export function describeRegisters(cpu: Cpu): string {
  const { state } = cpu;
  const lines: string[] = [];
  for (let i = 0; i < 16; i += 4)
    lines.push(
      NAMES.slice(i, i + 4)
        .map((name, n) => `${name.padEnd(3)} ${hex(state.big(GPR + 8 * (i + n)))}`)
        .join('  '),
    );
  lines.push(`RIP ${hex(state.big(LINEAR_RIP))}  RFLAGS ${word(state.rflags)}  CPL ${state.get(CPL)}`);
  lines.push(
    `CR0 ${word(state.get(CR0))}  CR2 ${hex(state.big(CR2))}  CR3 ${hex(state.big(CR3))}  CR4 ${word(state.get(CR4))}  EFER ${word(state.get(EFER))}`,
  );
  lines.push(SEGMENT_NAMES.map((name, i) => `${name} ${selector(state.get(SEGMENTS + i * SEGMENT_BYTES))}`).join('  '));
  return lines.join('\n');
}

const hex = (value: bigint): string => value.toString(16).padStart(16, '0');
const word = (value: number): string => (value >>> 0).toString(16).padStart(8, '0');
const selector = (value: number): string => (value & 0xffff).toString(16).padStart(4, '0');
