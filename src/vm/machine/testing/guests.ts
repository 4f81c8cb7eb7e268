/** Guests for tests: the tiny one, and a few instructions of 32-bit code in a multiboot image. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { POLICIES, type PolicyName } from '../../../mmu/policy.ts';
import { Tracer } from '../../../trace/tracer.ts';
import { buildElf } from '../../boot/testing/images.ts';
import { bootPc } from '../boot.ts';
import { parseCpuModel } from '../cpuid.ts';
import { type PagingName, Pc } from '../pc.ts';

export const TINY = readFileSync(fileURLToPath(new URL('../../../../guests/tiny/tiny.elf', import.meta.url)));
export const TINY_OUTPUT = 'hello from long mode\nfaults 0043 checksum 6eff835a ok\n';

/** Where the code begins: behind the multiboot header. */
export const CODE_GPA = 0x100010;

/** A multiboot kernel of these bytes. It starts in flat 32-bit mode, without paging. */
export function codeImage(...code: (number | readonly number[])[]): Uint8Array {
  return buildElf({
    multiboot: true,
    entry: CODE_GPA,
    memoryBytes: 0x10000,
    change: (view) => code.flat().forEach((byte, i) => view.setUint8(0x210 + i, byte)),
  });
}

/** Little-endian bytes of a 32-bit value. */
export function le32(value: number): number[] {
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
}

export interface TestPc {
  readonly pc: Pc;
  readonly trace: Tracer;
  readonly console: { text: string };
}

export function makePc(
  kernel: Uint8Array,
  options: {
    paging?: PagingName;
    policy?: PolicyName;
    cpu?: string;
    megabytes?: number;
    hostLevel?: 1 | 2;
    ringBytes?: number;
    pml?: boolean;
    cpus?: number;
    quantum?: number;
    seed?: number;
    countsAccesses?: boolean;
  } = {},
): TestPc {
  const { paging = 'tdp', policy = 'lazy', cpu = 'max', megabytes = 16, hostLevel } = options;
  const output = { text: '' };
  const trace = new Tracer();
  const pc = new Pc({
    ramBytes: megabytes << 20,
    cpu: parseCpuModel(cpu, paging !== 'shadow'),
    paging,
    policy: POLICIES[policy],
    epochS: 1_700_000_000,
    console: {
      writeByte: (byte) => {
        output.text += String.fromCharCode(byte);
      },
    },
    hostLevel,
    ringBytes: options.ringBytes,
    pml: options.pml,
    cpus: options.cpus,
    quantum: options.quantum,
    seed: options.seed,
    countsAccesses: options.countsAccesses,
    trace,
  });
  bootPc(pc, { kernel, cmdline: '' });
  return { pc, trace, console: output };
}

/** Runs it to its end, or for so many instructions. */
export function runToEnd(pc: Pc, instructions = 20_000_000): void {
  while (pc.end === null && !pc.isIdle && pc.instructions < instructions) pc.run(100_000);
}
