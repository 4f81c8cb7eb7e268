import { describe, expect, it } from 'vitest';
import { EXIT_HALT } from '../bus.ts';
import { FPR, FSW, FTAGS, FTOP, LINEAR_RIP } from '../state.ts';
import { bareMachine } from '../testing/bare-machine.ts';

type Number80 = readonly [head: number, significand: bigint];

const PLUS_0: Number80 = [0, 0n];
const MINUS_0: Number80 = [0x8000, 0n];
const ONE: Number80 = [0x3fff, 1n << 63n];
const DENORMAL: Number80 = [0, 1n];
const PI: Number80 = [0x4000, 0xc90fdaa22168c235n];
const NAN: Number80 = [0xffff, 3n << 62n];
const [PE, UE, IE, SF, C0, C1, C2, C3] = [0x20, 0x10, 1, 0x40, 0x100, 0x200, 0x400, 0x4000];

/** D9 and `code`, with these registers from ST(0) on: ST(0) and the status behind it. */
function d9(code: number, registers: readonly Number80[], status = 0): [...Number80, status: number] {
  const { cpu, ram } = bareMachine();
  const { state } = cpu;
  ram.set([0xd9, code, 0xf4], 0x1000);
  for (const [i, [head, significand]] of registers.entries()) {
    state.view.setBigUint64(cpu.layout.state + FPR + i * 16, significand, true);
    state.set(FPR + i * 16 + 8, head);
  }
  state.set(FTAGS, (1 << registers.length) - 1);
  state.set(FSW, status);
  state.setPair(LINEAR_RIP, 0x1000, 0);
  expect(cpu.run(10)).toBe(EXIT_HALT);
  const at = cpu.layout.state + FPR + state.get(FTOP) * 16;
  return [state.view.getUint16(at + 8, true), state.view.getBigUint64(at, true), state.get(FSW)];
}

const [F2XM1, FYL2X, FPTAN, FPATAN, FSIN] = [0xf0, 0xf1, 0xf2, 0xf3, 0xfe];

describe("x87's transcendental functions", () => {
  it('have an angle for every point, the origin too', () => {
    expect(d9(FPATAN, [PLUS_0, PLUS_0])).toEqual([...PLUS_0, 0]);
    expect(d9(FPATAN, [PLUS_0, MINUS_0])).toEqual([...MINUS_0, 0]);
    expect(d9(FPATAN, [MINUS_0, PLUS_0])).toEqual([...PI, PE | C1]);
    expect(d9(FPATAN, [MINUS_0, MINUS_0])).toEqual([PI[0] | 0x8000, PI[1], PE | C1]);
  });

  it('call a result inexact that is not', () => {
    expect(d9(F2XM1, [ONE])).toEqual([...ONE, PE]);
    expect(d9(FYL2X, [ONE, ONE])).toEqual([...PLUS_0, 0]);
    // log2(2^-16445) * 2^-16445, a denormal number
    expect(d9(FYL2X, [DENORMAL, DENORMAL])).toEqual([0x8000, 16445n, PE | UE | 2]);
  });

  it('leave C0 and C3 alone, and say in C1 whether the result was rounded up', () => {
    expect(d9(FSIN, [PLUS_0], C0 | C1 | C2 | C3)).toEqual([...PLUS_0, C0 | C3]);
    expect(d9(FSIN, [[0x403e, 1n << 63n]], C0 | C1 | C3)).toEqual([0x403e, 1n << 63n, C0 | C2 | C3]);
  });

  it('give NaNs for a stack fault, whatever the operand is', () => {
    expect(d9(FSIN, [], C2)).toEqual([...NAN, IE | SF]);
    const full = Array.from({ length: 8 }, (): Number80 => [0x403f, 1n << 63n]);
    expect(d9(FPTAN, full)).toEqual([...NAN, IE | SF | C1]);
  });
});
