/**
 * CPUs by QEMU's names, as far as their features are built: each is an older one and what came with it. Family, model and stepping
 * are theirs too, in the form of CPUID leaf 1.
 */
import type { Vendor } from './cpuid.ts';

export interface CpuModel {
  readonly vendor: Vendor;
  readonly signature: number;
  readonly features: readonly string[];
}

/** What every x86-64 has, and what KVM gives to each model: its clock, x2APIC, and the word that this is no real machine. */
const COMMON =
  'fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx lm ' +
  'x2apic hypervisor kvmclock kvmclock-stable-bit';

// biome-ignore format: a table
const ROWS: readonly (readonly [name: string, vendor: Vendor, signature: number, base: string, adds: string])[] = [
  ['kvm64',          'GenuineIntel', 0x00f61, '',            'cx16 pni'],
  ['Conroe',         'GenuineIntel', 0x006f3, '',            'lahf_lm pni ssse3'],
  ['Penryn',         'GenuineIntel', 0x10673, 'Conroe',      'cx16 sse4.1'],
  ['Nehalem',        'GenuineIntel', 0x106a3, 'Penryn',      'popcnt sse4.2'],
  ['Westmere',       'GenuineIntel', 0x206c1, 'Nehalem',     'aes pclmulqdq'],
  ['SandyBridge',    'GenuineIntel', 0x206a1, 'Westmere',    'tsc-deadline rdtscp'],
  ['IvyBridge',      'GenuineIntel', 0x306a9, 'SandyBridge', 'fsgsbase smep'],
  ['Haswell',        'GenuineIntel', 0x306c4, 'IvyBridge',   'movbe pcid invpcid abm bmi1 bmi2'],
  ['Broadwell',      'GenuineIntel', 0x306d2, 'Haswell',     'smap adx'],
  ['Skylake-Client', 'GenuineIntel', 0x506e3, 'Broadwell',   ''],
  ['Skylake-Server', 'GenuineIntel', 0x50654, 'Broadwell',   'clwb pku pdpe1gb'],
  ['Icelake-Server', 'GenuineIntel', 0x606a0, 'Skylake-Server', 'clflushopt umip rdpid'],
  ['Opteron_G1',     'AuthenticAMD', 0x00f61, '',            'pni'],
  ['Opteron_G2',     'AuthenticAMD', 0x00f61, 'Opteron_G1',  'cx16 lahf_lm'],
  ['Opteron_G3',     'AuthenticAMD', 0x100f23, 'Opteron_G2', 'popcnt abm'],
  ['EPYC',           'AuthenticAMD', 0x800f12, 'Opteron_G3', 'ssse3 sse4.1 sse4.2 aes pclmulqdq adx movbe fsgsbase smep smap clflushopt pdpe1gb rdtscp bmi1 bmi2'],
  ['EPYC-Rome',      'AuthenticAMD', 0x830f10, 'EPYC',       'clwb umip rdpid'],
  ['EPYC-Milan',     'AuthenticAMD', 0xa00f11, 'EPYC-Rome',  'pcid invpcid pku'],
];

const words = (text: string): string[] => text.split(' ').filter((word) => word !== '');

function featuresOf(name: string): string[] {
  const row = ROWS.find(([of]) => of === name);
  return row === undefined ? words(COMMON) : [...featuresOf(row[3]), ...words(row[4])];
}

export const CPU_MODELS: ReadonlyMap<string, CpuModel> = new Map(
  ROWS.map(([name, vendor, signature]) => [name, { vendor, signature, features: featuresOf(name) }]),
);
