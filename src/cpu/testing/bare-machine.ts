/** A CPU in 64-bit mode with flat memory, for tests and benchmarks. */
import { Cpu } from '../cpu.ts';
import {
  CPL,
  CR0,
  CR4,
  CS,
  EFER,
  layoutAt,
  LINEAR_RIP,
  RSP,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENT_LIMIT,
  SEGMENT_SELECTOR,
  SEGMENTS,
  SS,
} from '../state.ts';
import { FlatBus } from './flat-bus.ts';

export interface BareMachine {
  readonly cpu: Cpu;
  readonly bus: FlatBus;
  readonly ram: Uint8Array;
  readonly memory: WebAssembly.Memory;
}

/** `megabytes` of memory at address 0; code runs in ring `cpl`. */
export function bareMachine(megabytes = 16, cpl = 0): BareMachine {
  const layout = layoutAt(64, 256, 4 << 20);
  const host = (layout.end + 0xffff) & ~0xffff;
  const memory = new WebAssembly.Memory({ initial: (host >>> 16) + megabytes * 16 });
  const bus = new FlatBus(host, megabytes << 20);
  const cpu = new Cpu(memory, layout, bus);
  enterLongMode(cpu, cpl);
  return { cpu, bus, memory, ram: new Uint8Array(memory.buffer, host, megabytes << 20) };
}

export function enterLongMode(cpu: Cpu, cpl: number): void {
  const s = cpu.state;
  s.set(CR0, 0x80050033 | 0);
  s.set(CR4, 0x6a0);
  s.set(EFER, 0xd01);
  s.set(CPL, cpl);
  const segment = (index: number, selector: number, attributes: number) => {
    const at = SEGMENTS + index * SEGMENT_BYTES;
    s.set(at + SEGMENT_SELECTOR, selector | cpl);
    s.set(at + SEGMENT_ATTRIBUTES, attributes | (cpl << 13));
    s.set(at + SEGMENT_LIMIT, -1);
  };
  for (const data of [0, SS, 3, 4, 5]) segment(data, cpl === 3 ? 0x28 : 0x18, 0xc09300);
  segment(CS, cpl === 3 ? 0x30 : 0x10, 0xa09b00);
  cpu.modeChanged();
}

export function setRip(cpu: Cpu, address: number): void {
  cpu.state.setPair(LINEAR_RIP, address, 0);
}

export function setStack(cpu: Cpu, address: number): void {
  cpu.state.setPair(RSP, address, 0);
}
