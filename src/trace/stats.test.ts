import { describe, expect, it } from 'vitest';
import { VCPU_STAT_NAMES, VcpuStats, VM_STAT_NAMES, VmStats } from './stats.ts';

// biome-ignore format: a table
describe.each([
  ['a VM',   new VmStats(),   VM_STAT_NAMES],
  ['a vCPU', new VcpuStats(), VCPU_STAT_NAMES],
] as const)('the statistics of %s', (_of, stats, names) => {
  it('are the fields with the names that are told, in that order', () => {
    expect(Object.keys(stats)).toEqual([...names]);
  });

  it('start at 0', () => {
    expect(Object.values(stats).every((value) => value === 0)).toBe(true);
  });
});
