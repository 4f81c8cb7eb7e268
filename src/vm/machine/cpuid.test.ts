import { describe, expect, it } from 'vitest';
import { Cpuid, CpuModelError, parseCpuModel } from './cpuid.ts';

const cpuid = (model: string, hasPku = true): Cpuid => new Cpuid(parseCpuModel(model, hasPku), 1, 0);

describe('--cpu', () => {
  it.each([
    ['max', 'smep', true],
    ['qemu64', 'smep', false],
    ['qemu64,+smep', 'smep', true],
    ['max,-smep', 'smep', false],
    ['max,smep=off', 'smep', false],
    ['qemu64,smep', 'smep', true],
    ['max,vendor=GenuineIntel', 'smep', true],
  ])('%s: %s %s', (model, feature, on) => {
    expect(cpuid(model).has(feature)).toBe(on);
  });

  it.each([
    ['pentium', /^no CPU model "pentium"; there are max, qemu64, /],
    ['max,+avx2', /^CPU feature "avx2" is not built$/],
    ['max,vendor=Cyrix', /^no CPU vendor "Cyrix"$/],
    ['max,++', /^"\+\+" is no change of a CPU model: \+FEATURE, -FEATURE or vendor=NAME$/],
    ['', /^no CPU model ""; there are max/],
  ])('refuses %s', (model, message) => {
    expect(() => cpuid(model)).toThrow(CpuModelError);
    expect(() => cpuid(model)).toThrow(message);
  });

  it('has protection keys only if the MMU has', () => {
    expect(cpuid('max', true).has('pku')).toBe(true);
    expect(cpuid('max', false).has('pku')).toBe(false);
    expect(() => cpuid('max,+pku', false)).toThrow(
      new CpuModelError('CPU feature pku needs nested paging (--paging tdp)'),
    );
  });
});

describe('CPUID', () => {
  it('says who made the CPU', () => {
    const text = (model: string): string => {
      const [, b, c, d] = cpuid(model).answer(0, 0, 0);
      return String.fromCharCode(...[b, d, c].flatMap((w) => [w & 255, (w >> 8) & 255, (w >> 16) & 255, w >>> 24]));
    };
    expect(text('max')).toBe('AuthenticAMD');
    expect(text('max,vendor=GenuineIntel')).toBe('GenuineIntel');
  });

  it('shows a feature at its place', () => {
    const smap = (model: string): number => (cpuid(model).answer(7, 0, 0)[1] >>> 20) & 1;
    expect([smap('max'), smap('max,-smap')]).toEqual([1, 0]);
    expect(cpuid('max').answer(7, 1, 0)).toEqual([0, 0, 0, 0]);
  });

  it.each([
    ['max', 0x108],
    ['max,-bmi1', 0x100],
    ['max,-bmi2', 0x008],
    ['qemu64', 0],
    ['qemu64,+bmi2', 0x100],
    ['IvyBridge', 0],
    ['Haswell', 0x108],
    ['Opteron_G3', 0],
    ['EPYC', 0x108],
  ])('shows BMI1 and BMI2 of %s in EBX of leaf 7', (model, bits) => {
    expect(cpuid(model).answer(7, 0, 0)[1] & 0x108).toBe(bits);
  });

  it('shows OSPKE as CR4 has PKE', () => {
    expect(cpuid('max').answer(7, 0, 0)[2] & 16).toBe(0);
    expect(cpuid('max').answer(7, 0, 1 << 22)[2] & 16).toBe(16);
  });

  it('shows the APIC as long as it is on', () => {
    expect(cpuid('max').answer(1, 0, 0, true)[3] & 512).toBe(512);
    expect(cpuid('max').answer(1, 0, 0, false)[3] & 512).toBe(0);
  });

  it("is KVM to those who ask, and to nobody if the model isn't a hypervisor's", () => {
    expect(cpuid('max').answer(0x40000000, 0, 0)).toEqual([0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d]);
    expect(cpuid('max,-hypervisor').answer(0x40000000, 0, 0)).toEqual([0, 0, 0, 0]);
  });

  it('has addresses of 40 and 48 bits', () => {
    expect(cpuid('max').answer(0x80000008, 0, 0)[0]).toBe(0x3028);
  });
});
