/** KVM's statistics of a run, as `kvm_stat` lists them: what isn't zero, by name. */
import type { MachineStats } from '../machine.ts';

export function machineTable(stats: MachineStats, seconds: number): string {
  const mips = stats.instructions / 1e6 / seconds;
  const lines = [
    `${(stats.instructions / 1e6).toFixed(1)} million instructions in ${seconds.toFixed(2)} s, ${mips.toFixed(0)} MIPS`,
  ];
  const add = (where: string, counters: object): void => {
    for (const [name, value] of Object.entries(counters) as [string, number][])
      if (value !== 0) lines.push(`${where.padEnd(8)}${name.padEnd(30)}${String(value).padStart(12)}`);
  };
  add('vm', stats.vm);
  for (const [id, vcpu] of stats.vcpus.entries()) add(`vcpu${id}`, vcpu);
  return `${lines.join('\n')}\n`;
}
