import { describe, expect, it } from 'vitest';
import { Msrs } from './msrs.ts';

describe('MSRs', () => {
  it.each([
    // number   written               taken
    [0x2ff, 0xc06n, true],
    [0x2ff, 0xc02n, false], // no such memory type
    [0x2ff, 0x1c06n, false], // reserved bit
    [0x250, 0x0606060606060606n, true],
    [0x250, 0x0606060606060603n, false],
    [0x200, 0xc0000006n, true],
    [0x200, 0xc0000106n, false],
    [0x201, 0xffc0000800n, true],
    [0x201, 0x1_ffff_c000_0800n, false], // beyond 40 bits
    [0xfe, 0n, false], // read-only
    [0x1a0, 1n, true],
    [0x12345, 0n, false],
  ])('%s takes %s: %s', (msr, value, taken) => {
    const msrs = new Msrs();
    const before = msrs.read(msr);
    expect(msrs.write(msr, value)).toBe(taken);
    expect(msrs.read(msr)).toBe(taken ? value : before);
  });

  it('answers zero where KVM does, and forgets what is written', () => {
    const msrs = new Msrs();
    expect(msrs.write(0xc0010015, 5n)).toBe(true);
    expect(msrs.read(0xc0010015)).toBe(0n);
  });

  it('has eight variable ranges, fixed ones, and write combining', () => {
    expect(new Msrs().read(0xfe)).toBe(0x508n);
  });
});
