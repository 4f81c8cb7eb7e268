import * as fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { VirtualClock } from './clock.ts';
import { KvmClock, MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW, tscScale } from './kvm-clock.ts';
import { Tsc } from './tsc.ts';

/** What a guest does with the factors. */
const toNs = (ticks: bigint, mul: number, shift: number): bigint =>
  ((shift >= 0 ? ticks << BigInt(shift) : ticks >> BigInt(-shift)) * BigInt(mul)) >> 32n;

describe('the scale of the counter', () => {
  it('is exact for 1 GHz', () => {
    expect(tscScale(1e6)).toEqual({ mul: 0x80000000, shift: 1 });
  });

  it('is good to a part in 2^30 for every rate', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1000, max: 10_000_000 }), (khz) => {
        const { mul, shift } = tscScale(khz);
        expect(mul).toBeGreaterThanOrEqual(2 ** 31);
        expect(mul).toBeLessThan(2 ** 32);
        const second = Number(toNs(BigInt(khz) * 1000n, mul, shift));
        expect(Math.abs(second - 1e9)).toBeLessThanOrEqual(2);
      }),
    );
  });
});

describe('kvmclock', () => {
  let clock: VirtualClock;
  let tsc: Tsc;
  let memory: DataView;
  let kvm: KvmClock;
  beforeEach(() => {
    clock = new VirtualClock();
    tsc = new Tsc(clock, 2.2e6);
    const bytes = new Uint8Array(8192);
    memory = new DataView(bytes.buffer);
    const writer = {
      writeGuest: (gpa: number, what: Uint8Array): boolean => {
        if (gpa + what.length > bytes.length) return false;
        bytes.set(what, gpa);
        return true;
      },
    };
    kvm = new KvmClock(clock, tsc, writer, 1_800_000_000);
  });
  const systemTime = (): bigint => {
    tsc.read();
    const now = BigInt.asUintN(32, BigInt(tsc.lo)) | (BigInt(tsc.hi) << 32n);
    const delta = now - memory.getBigUint64(0x1008, true);
    return memory.getBigUint64(0x1010, true) + toNs(delta, memory.getUint32(0x1018, true), memory.getInt8(0x101c));
  };

  it('gives the guest the virtual time, from then on', () => {
    clock.advanceTo(12345);
    expect(kvm.writeMsr(MSR_KVM_SYSTEM_TIME_NEW, 0x1001, 0)).toBe(true);
    expect([memory.getUint32(0x1000, true), memory.getUint8(0x101d)]).toEqual([2, 1]);
    expect(Number(systemTime())).toBe(12345);
    clock.advanceTo(5e9);
    expect(Math.abs(Number(systemTime()) - 5e9)).toBeLessThan(10);
  });

  it('is right again after the counter has been written', () => {
    kvm.writeMsr(MSR_KVM_SYSTEM_TIME_NEW, 0x1001, 0);
    clock.advanceTo(1e9);
    tsc.write(0, 0);
    kvm.update();
    expect(memory.getUint32(0x1000, true)).toBe(4);
    expect(Number(systemTime())).toBe(1e9);
  });

  it('writes nothing when it is off', () => {
    kvm.writeMsr(MSR_KVM_SYSTEM_TIME_NEW, 0x1000, 0);
    expect(memory.getUint32(0x1000, true)).toBe(0);
    expect([kvm.readMsr(MSR_KVM_SYSTEM_TIME_NEW), kvm.msrLo]).toEqual([true, 0x1000]);
  });

  it('tells the time of day at which system time was 0', () => {
    clock.advanceTo(77e9);
    expect(kvm.writeMsr(MSR_KVM_WALL_CLOCK_NEW, 0x800, 0)).toBe(true);
    expect([0x800, 0x804, 0x808].map((at) => memory.getUint32(at, true))).toEqual([2, 1_800_000_000, 0]);
  });

  it('leaves other registers alone, and survives an address that is no memory', () => {
    expect([kvm.readMsr(0x10), kvm.writeMsr(0x10, 0, 0)]).toEqual([false, false]);
    expect(kvm.writeMsr(MSR_KVM_SYSTEM_TIME_NEW, 0xfffff001 | 0, 0)).toBe(true);
  });
});
