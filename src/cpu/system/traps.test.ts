/** System calls, single steps, the flags of frames, NMIs. */
import { describe, expect, it } from 'vitest';
import { EXIT_BUDGET, EXIT_HALT } from '../bus.ts';
import { segmentsChanged } from '../segments.ts';
import {
  CS,
  CSTAR,
  DR6,
  DS,
  ES,
  FLAGS,
  FS,
  GS,
  HIDDEN_BASE,
  LSTAR,
  R11,
  RAX,
  RBX,
  RCX,
  RDX,
  SEGMENT_ATTRIBUTES,
  SEGMENT_BYTES,
  SEGMENT_SELECTOR,
  SEGMENTS,
  SFMASK,
  STAR,
} from '../state.ts';
import { type BareMachine, setRip } from '../testing/bare-machine.ts';
import { CODE, HANDLER, IDT, load, prepared, stackWord, TSS } from '../testing/prepared-machine.ts';

describe('system calls', () => {
  function called(flags: number, mask: number, ring32 = false): BareMachine {
    const machine = prepared(3);
    const { state } = machine.cpu;
    state.setPair(LSTAR, HANDLER, 0);
    state.setPair(CSTAR, HANDLER + 16, 0);
    state.setPair(STAR, 0, (0x23 << 16) | 0x10);
    state.setPair(SFMASK, mask, 0);
    state.set(FLAGS, flags);
    if (ring32) {
      state.set(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES, 0x00c0fb00);
      state.set(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_SELECTOR, 0x23);
      segmentsChanged(machine.cpu);
    }
    load(machine, '0f05 f4');
    return machine;
  }

  it('go to CSTAR from compatibility mode on AMD; on Intel they do not exist there', () => {
    const machine = called(0, 0, true);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RDX)).toBe(1);
    expect(machine.cpu.state.get(RCX)).toBe(CODE + 2);
    const intel = called(0, 0, true);
    intel.cpu.sysenterInLongMode = true;
    expect(intel.cpu.run(100)).toBe(EXIT_HALT);
    expect(intel.cpu.state.get(RDX)).toBe(6);
  });

  it('trap by the TF that SYSCALL leaves', () => {
    const masked = called(0x100, 0x100);
    expect(masked.cpu.run(100)).toBe(EXIT_HALT);
    expect(masked.cpu.state.get(RDX)).toBe(0);
    expect(masked.cpu.state.get(R11) & 0x100).toBe(0x100);
    const open = called(0x100, 0);
    expect(open.cpu.run(100)).toBe(EXIT_HALT);
    expect(open.cpu.state.get(RDX)).toBe(1);
    expect(stackWord(open, 1)).toBe(0x10n);
  });

  it('trap right after a SYSRET that sets TF', () => {
    const machine = prepared();
    const { state } = machine.cpu;
    state.setPair(STAR, 0, (0x23 << 16) | 0x10);
    state.setPair(RCX, CODE + 0x100, 0);
    state.setPair(R11, 0x102, 0);
    load(machine, '480f07');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(state.get(RDX)).toBe(1);
    expect(stackWord(machine, 0)).toBe(BigInt(CODE + 0x100));
  });

  it('SYSRET to 32-bit code', () => {
    const machine = prepared();
    const { state } = machine.cpu;
    state.setPair(STAR, 0, (0x23 << 16) | 0x10);
    state.setPair(RCX, CODE + 0x100, 0);
    state.setPair(R11, 2, 0);
    load(machine, '0f07');
    // inc ebx (a REX prefix in 64-bit mode); int 0x80
    load(machine, '43 cd80', CODE + 0x100);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(state.get(RDX)).toBe(0x80);
    expect(state.get(RBX)).toBe(1);
    expect(stackWord(machine, 1)).toBe(0x23n);
  });
});

describe('IRET to an outer level', () => {
  it('makes null selectors 0, whatever their RPL, and leaves the bases of FS and GS alone', () => {
    const machine = prepared();
    const { state } = machine.cpu;
    const selectors = () =>
      [ES, DS, FS, GS].map((index) => state.get(SEGMENTS + index * SEGMENT_BYTES + SEGMENT_SELECTOR));
    state.setPair(RAX, 3, 0);
    // MOV ES, DS, FS and GS, EAX
    load(machine, '8ec0 8ed8 8ee0 8ee8');
    expect(machine.cpu.run(4)).toBe(EXIT_BUDGET);
    expect(selectors()).toEqual([3, 3, 3, 3]);
    for (const index of [FS, GS]) state.setPair(HIDDEN_BASE + index * 8, 0x1234000, 5);
    // PUSH 2B, 180000, 2, 33, CODE + 100; IRETQ
    load(machine, '6a2b 6800001800 6a02 6a33 6800011000 48cf', CODE + 8);
    load(machine, 'cd80', CODE + 0x100);
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(state.get(RDX)).toBe(0x80);
    expect(selectors()).toEqual([0, 0, 0, 0]);
    for (const index of [FS, GS]) {
      expect([state.get(HIDDEN_BASE + index * 8), state.high(HIDDEN_BASE + index * 8)]).toEqual([0x1234000, 5]);
    }
  });
});

describe('single steps', () => {
  it('trap after each iteration of REP', () => {
    const machine = prepared();
    const { state } = machine.cpu;
    state.setPair(RCX, 3, 0);
    state.setPair(56, 0x300000, 0);
    state.set(FLAGS, 0x100);
    load(machine, 'f3aa f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(state.get(RCX)).toBe(2);
    expect(stackWord(machine, 0)).toBe(BigInt(CODE));
    expect(state.get(DR6) & (1 << 14)).not.toBe(0);
  });

  it('wait until the instruction after MOV SS', () => {
    const machine = prepared();
    const { state } = machine.cpu;
    state.setPair(RAX, 0x18, 0);
    state.set(FLAGS, 0x100);
    load(machine, '8ed0 ffc3 ffc3 f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(state.get(RBX)).toBe(1);
    expect(state.get(RDX)).toBe(1);
  });

  it('do not follow INT n, which clears TF', () => {
    const machine = prepared();
    machine.cpu.state.set(FLAGS, 0x100);
    load(machine, 'cd80');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RDX)).toBe(0x80);
    expect(stackWord(machine, 2) & 0x100n).toBe(0x100n);
  });

  it('wake a HLT', () => {
    const machine = prepared();
    machine.cpu.state.set(FLAGS, 0x100);
    load(machine, 'f4');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(machine.cpu.state.get(RDX)).toBe(1);
  });
});

describe('the flags that an event pushes', () => {
  it('have RF after a fault, not after a trap', () => {
    const machine = prepared();
    load(machine, '0f0b');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(stackWord(machine, 2) & 0x10000n).toBe(0x10000n);
    setRip(machine.cpu, CODE);
    load(machine, 'cc');
    expect(machine.cpu.run(100)).toBe(EXIT_HALT);
    expect(stackWord(machine, 2) & 0x10000n).toBe(0n);
  });
});

describe('NMIs', () => {
  it('wait for IRET, also for one that faults', () => {
    const machine = prepared();
    const { cpu } = machine;
    machine.bus.absent.add(0x301);
    // The handler of #PF ends; that of NMI goes wrong with its stack.
    load(machine, '48c7c400103000 48cf', HANDLER + 2 * 16);
    machine.ram[IDT + 14 * 16 + 4] = 1;
    new DataView(machine.ram.buffer, machine.ram.byteOffset).setBigUint64(TSS + 36, 0x190000n, true);
    load(machine, '90 90 f4');
    cpu.injectNmi();
    expect(cpu.run(2)).toBe(EXIT_BUDGET);
    cpu.injectNmi();
    expect(cpu.run(1)).toBe(EXIT_BUDGET);
    // The #PF of IRET has let the second one in: it interrupts the handler of #PF at once.
    const frame = new DataView(machine.ram.buffer, machine.ram.byteOffset + 0x18ffa8);
    expect(frame.getBigUint64(0, true)).toBe(BigInt(HANDLER + 14 * 16));
  });
});
