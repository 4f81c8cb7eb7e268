import { describe, expect, it } from 'vitest';
import { CPU_MODELS } from './cpu-models.ts';
import { Cpuid, CpuModelError, parseCpuModel } from './cpuid.ts';

const describeModel = (model: string): Cpuid => new Cpuid(parseCpuModel(model, true), 1, 0);

describe('a CPU by its name in QEMU', () => {
  it.each([...CPU_MODELS.keys()])('%s has no features but built ones, and is 64 bits wide', (model) => {
    const cpu = describeModel(model);
    // One that isn't built would be refused here.
    for (const feature of cpu.description.features) parseCpuModel(`max,+${feature}`, true);
    expect(cpu.has('lm')).toBe(true);
  });

  // biome-ignore format: a table
  it.each([
    ['Opteron_G1',      'AuthenticAMD', 0x00f61, 'cx16',  false],
    ['IvyBridge',       'GenuineIntel', 0x306a9, 'smep',  true],
    ['IvyBridge,-smep', 'GenuineIntel', 0x306a9, 'smep',  false],
    ['IvyBridge',       'GenuineIntel', 0x306a9, 'smap',  false],
    ['EPYC-Milan',      'AuthenticAMD', 0xa00f11, 'pcid', true],
    ['Penryn,vendor=AuthenticAMD', 'AuthenticAMD', 0x10673, 'lahf_lm', true],
  ])('%s: %s, %s, %s %s', (model, vendor, signature, feature, on) => {
    const cpu = describeModel(model);
    expect([cpu.description.vendor, cpu.answer(1, 0, 0)[0], cpu.has(feature)]).toEqual([vendor, signature, on]);
  });

  it('is named when another is asked for', () => {
    expect(() => parseCpuModel('Cyrix', true)).toThrow(CpuModelError);
    expect(() => parseCpuModel('Cyrix', true)).toThrow(/there are max, qemu64, kvm64, Conroe/);
  });
});
