import { describe, expect, it } from 'vitest';
import { EXIT_HALT } from './bus.ts';
import { CS, EFER, RAX, SEGMENT_ATTRIBUTES, SEGMENT_BYTES, SEGMENTS } from './state.ts';
import { type BareMachine, bareMachine, setRip } from './testing/bare-machine.ts';

const MEGABYTES = 4;

/** 32-bit code, in long mode or without it; all of 4 GiB is the same memory again and again. */
function machine32(efer: number): BareMachine {
  const machine = bareMachine(MEGABYTES);
  const { cpu, bus } = machine;
  const translate = bus.translate.bind(bus);
  bus.translate = (lo, hi, access, out) => translate(lo & ((MEGABYTES << 20) - 1), hi, access, out);
  cpu.state.set(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES, 0x00c09b00);
  cpu.state.set(EFER, efer);
  cpu.modeChanged();
  return machine;
}

describe('an instruction across the end of 4 GiB', () => {
  it.each([
    ['in protected mode', 0],
    ['in compatibility mode', 0xd01],
  ])('goes on at 0 (%s)', (_, efer) => {
    const { cpu, ram } = machine32(efer);
    // mov al, 0x55; hlt
    ram[ram.length - 1] = 0xb0;
    ram.set([0x55, 0xf4]);
    for (let again = 0; again < 2; again++) {
      cpu.state.set(RAX, 0);
      setRip(cpu, -1);
      expect(cpu.run(100)).toBe(EXIT_HALT);
      expect(cpu.state.get(RAX)).toBe(0x55);
    }
    setRip(cpu, -1);
    cpu.hostDebug.singleStep = true;
    cpu.state.set(RAX, 0);
    cpu.run(1);
    expect(cpu.state.get(RAX)).toBe(0x55);
  });
});
