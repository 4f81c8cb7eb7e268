import { describe, expect, it } from 'vitest';
import { EXIT_EXCEPTION, EXIT_HALT } from '../bus.ts';
import { LINEAR_RIP, MXCSR, XMM } from '../state.ts';
import { bareMachine } from '../testing/bare-machine.ts';

/** DPPD of XMM2 with itself: vector or -1, and the flags of MXCSR. */
function dppd(lanes: readonly bigint[], mxcsr: number): number[] {
  const { cpu, ram } = bareMachine();
  cpu.interceptExceptions = -1;
  ram.set([0x66, 0x0f, 0x3a, 0x41, 0xd2, 0x7f, 0xf4], 0x1000);
  const view = new DataView(cpu.state.bytes.buffer, cpu.layout.state + XMM + 2 * 16);
  for (const [i, bits] of lanes.entries()) view.setBigUint64(i * 8, bits, true);
  cpu.state.set(MXCSR, mxcsr);
  cpu.state.setPair(LINEAR_RIP, 0x1000, 0);
  const exit = cpu.run(10);
  expect([EXIT_EXCEPTION, EXIT_HALT]).toContain(exit);
  return [exit === EXIT_EXCEPTION ? cpu.intercepted.vector : -1, cpu.state.get(MXCSR) & 0x3f];
}

const TINY = 0x15700000_00000000n; // 2^-680: its square is smaller than any number
const ONE = 0x3ff00000_00000000n;
const DENORMAL = 1n;
const ALL_MASKED = 0x1f80;
const UP = 2 << 13;
const [DE, UE, PE] = [2, 0x10, 0x20];

describe('a dot product', () => {
  it('keeps the flags of its products if their sum is an exception beforehand', () => {
    // Rounded up, the square is the smallest denormal, which the sum is not to take.
    expect(dppd([0n, TINY], (ALL_MASKED & ~(DE << 7)) | UP)).toEqual([19, DE | UE | PE]);
    expect(dppd([0n, TINY], ALL_MASKED | UP)).toEqual([-1, DE | UE | PE]);
  });

  it('has no flags of products after an exception beforehand in one of them', () => {
    expect(dppd([DENORMAL, TINY], ALL_MASKED & ~(DE << 7))).toEqual([19, DE]);
  });

  it('adds nothing after an exception in a product', () => {
    expect(dppd([TINY, TINY], (ALL_MASKED & ~(UE << 7)) | UP)).toEqual([19, UE]); // exact with another exponent
    expect(dppd([ONE, ONE], ALL_MASKED)).toEqual([-1, 0]);
  });
});
