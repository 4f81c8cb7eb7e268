import { describe, expect, it } from 'vitest';
import { EXIT_BUDGET } from '../bus.ts';
import { RCX, RDI, RDX, RSI } from '../state.ts';
import { bareMachine, setRip } from '../testing/bare-machine.ts';

describe('repeated accesses to a port', () => {
  it.each([
    ['outsb', 0x6e, RSI],
    ['insb', 0x6c, RDI],
  ])('count as an instruction each time, so that a run ends (%s)', (_, opcode, pointer) => {
    const { cpu, ram } = bareMachine();
    ram.set([0xf3, opcode, 0xf4], 0x1000);
    cpu.state.setPair(RCX, 1_000_000, 0);
    cpu.state.setPair(RDX, 0x80, 0);
    cpu.state.setPair(pointer, 0x2000, 0);
    setRip(cpu, 0x1000);
    expect(cpu.run(100)).toBe(EXIT_BUDGET);
    expect([cpu.state.get(RCX), cpu.state.get(pointer)]).toEqual([1_000_000 - 100, 0x2000 + 100]);
  });
});
