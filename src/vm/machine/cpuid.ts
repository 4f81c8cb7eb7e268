/**
 * What CPUID tells the guest. A feature is here if it works, and announced if the model has it; those that depend on the
 * MMU (PKU, which Linux 6.1 has under nested paging only) are told to `cpuFeatures`.
 *
 * Models: `max` has all that is built but la57, `qemu64` is QEMU's plainest, others are in cpu-models.ts.
 *
 *     --cpu MODEL[,+feature][,-feature][,feature=on|off][,vendor=NAME]
 */
import { CPU_MODELS } from './cpu-models.ts';

export type Vendor = 'AuthenticAMD' | 'GenuineIntel';

/** Words of CPUID that hold feature bits. */
type Word = '1.edx' | '1.ecx' | '7.ebx' | '7.ecx' | 'd.eax' | '80000001.edx' | '80000001.ecx' | '80000007.edx' | 'kvm';

/** Everything that is built, by QEMU's names. */
const FEATURES: Readonly<Record<string, readonly [Word, number]>> = {
  fpu: ['1.edx', 0],
  de: ['1.edx', 2],
  pse: ['1.edx', 3],
  tsc: ['1.edx', 4],
  msr: ['1.edx', 5],
  pae: ['1.edx', 6],
  mce: ['1.edx', 7],
  cx8: ['1.edx', 8],
  apic: ['1.edx', 9],
  sep: ['1.edx', 11],
  mtrr: ['1.edx', 12],
  pge: ['1.edx', 13],
  mca: ['1.edx', 14],
  cmov: ['1.edx', 15],
  pat: ['1.edx', 16],
  pse36: ['1.edx', 17],
  clflush: ['1.edx', 19],
  mmx: ['1.edx', 23],
  fxsr: ['1.edx', 24],
  sse: ['1.edx', 25],
  sse2: ['1.edx', 26],
  pni: ['1.ecx', 0],
  pclmulqdq: ['1.ecx', 1],
  ssse3: ['1.ecx', 9],
  cx16: ['1.ecx', 13],
  pcid: ['1.ecx', 17],
  'sse4.1': ['1.ecx', 19],
  'sse4.2': ['1.ecx', 20],
  x2apic: ['1.ecx', 21],
  movbe: ['1.ecx', 22],
  popcnt: ['1.ecx', 23],
  'tsc-deadline': ['1.ecx', 24],
  aes: ['1.ecx', 25],
  xsave: ['1.ecx', 26],
  hypervisor: ['1.ecx', 31],
  fsgsbase: ['7.ebx', 0],
  tsc_adjust: ['7.ebx', 1],
  bmi1: ['7.ebx', 3],
  smep: ['7.ebx', 7],
  bmi2: ['7.ebx', 8],
  invpcid: ['7.ebx', 10],
  adx: ['7.ebx', 19],
  smap: ['7.ebx', 20],
  pcommit: ['7.ebx', 22],
  clflushopt: ['7.ebx', 23],
  clwb: ['7.ebx', 24],
  umip: ['7.ecx', 2],
  pku: ['7.ecx', 3],
  la57: ['7.ecx', 16],
  rdpid: ['7.ecx', 22],
  xsaveopt: ['d.eax', 0],
  syscall: ['80000001.edx', 11],
  nx: ['80000001.edx', 20],
  pdpe1gb: ['80000001.edx', 26],
  rdtscp: ['80000001.edx', 27],
  lm: ['80000001.edx', 29],
  lahf_lm: ['80000001.ecx', 0],
  abm: ['80000001.ecx', 5],
  invtsc: ['80000007.edx', 8],
  kvmclock: ['kvm', 3],
  'kvmclock-stable-bit': ['kvm', 24],
};

const ALL: readonly string[] = Object.keys(FEATURES);
/** Not in the first 64-bit CPUs, nor in QEMU's qemu64. */
const LATER: readonly string[] = [
  'la57',
  'pcid',
  'fsgsbase',
  'tsc_adjust',
  'smep',
  'invpcid',
  'smap',
  'umip',
  'pku',
  'pdpe1gb',
  'rdtscp',
  'popcnt',
  'movbe',
  'clflushopt',
  'clwb',
  'rdpid',
  'abm',
  'pclmulqdq',
  'ssse3',
  'sse4.1',
  'sse4.2',
  'aes',
  'xsave',
  'xsaveopt',
  'adx',
  'bmi1',
  'bmi2',
];
const MODELS: Readonly<Record<string, readonly string[]>> = {
  // Linux takes five levels if it can have them, and each of its walks would be longer: only who asks gets them.
  max: ALL.filter((name) => name !== 'la57'),
  qemu64: ALL.filter((name) => !LATER.includes(name)),
};

export interface CpuDescription {
  readonly vendor: Vendor;
  /** Family, model and stepping as leaf 1 has them; QEMU's qemu64 if not given. */
  readonly signature?: number;
  readonly features: ReadonlySet<string>;
}

/** Why a `--cpu` was refused. */
export class CpuModelError extends Error {}

/** Reads MODEL[,...]. `hasPku`: the MMU can do protection keys. Throws CpuModelError. */
export function parseCpuModel(text: string, hasPku: boolean): CpuDescription {
  const [model, ...changes] = text.split(',').map((part) => part.trim());
  const known = CPU_MODELS.get(model);
  const base = known?.features ?? MODELS[model];
  if (base === undefined) {
    const names = [...Object.keys(MODELS), ...CPU_MODELS.keys()];
    throw new CpuModelError(`no CPU model ${quote(model)}; there are ${names.join(', ')}`);
  }
  const features = new Set(base);
  let vendor: Vendor = known?.vendor ?? 'AuthenticAMD';
  if (!hasPku) features.delete('pku');
  for (const change of changes) {
    const given = /^vendor=(.*)$/.exec(change);
    if (given !== null) {
      if (given[1] !== 'AuthenticAMD' && given[1] !== 'GenuineIntel')
        throw new CpuModelError(`no CPU vendor ${quote(given[1])}`);
      vendor = given[1];
      continue;
    }
    const [name, on] = parseChange(change);
    if (on && FEATURES[name] === undefined) throw new CpuModelError(`CPU feature ${quote(name)} is not built`);
    if (on && name === 'pku' && !hasPku) throw new CpuModelError('CPU feature pku needs nested paging (--paging tdp)');
    if (on) features.add(name);
    else features.delete(name);
  }
  return known === undefined ? { vendor, features } : { vendor, signature: known.signature, features };
}

function parseChange(change: string): [name: string, on: boolean] {
  const sign = /^([+-])([a-z0-9_.-]+)$/.exec(change);
  if (sign !== null) return [sign[2], sign[1] === '+'];
  const assigned = /^([a-z0-9_.-]+?)(?:=(on|off))?$/.exec(change);
  if (assigned !== null) return [assigned[1], assigned[2] !== 'off'];
  throw new CpuModelError(`${quote(change)} is no change of a CPU model: +FEATURE, -FEATURE or vendor=NAME`);
}

const quote = (text: string): string => JSON.stringify(text);

const KVM_SIGNATURE = 0x40000000;
/** Family 15, model 107, stepping 1: what QEMU's qemu64 says. */
const FAMILY = 0x00060fb1;
/** In EDX of leaf 1. */
const APIC = 1 << 9;
const PHYSICAL_BITS = 40;
const LINEAR_BITS = 48;
const LINEAR_BITS_LA57 = 57;
const MAX_BASIC = 0xd;
const CR4_OSXSAVE = 1 << 18;
const OSXSAVE = 1 << 27;
/** Of XSAVE's area: what FXSAVE writes and a header; PKRU, where there is one, behind that. */
const XSAVE_BYTES = 576;
const PKRU_BYTES = 8;
const PKRU_COMPONENT = 9;
const MAX_EXTENDED = 0x80000008;
const NOTHING: readonly [number, number, number, number] = [0, 0, 0, 0];

export type CpuidAnswer = readonly [eax: number, ebx: number, ecx: number, edx: number];

export class Cpuid {
  readonly description: CpuDescription;
  private readonly words: Record<Word, number>;
  private readonly cpus: number;
  private readonly apicId: number;
  /** Family, model and stepping. */
  readonly signature: number;

  constructor(description: CpuDescription, cpus: number, apicId: number) {
    this.description = description;
    this.cpus = cpus;
    this.apicId = apicId;
    this.signature = description.signature ?? FAMILY;
    this.words = {
      '1.edx': 0,
      '1.ecx': 0,
      '7.ebx': 0,
      '7.ecx': 0,
      'd.eax': 0,
      '80000001.edx': 0,
      '80000001.ecx': 0,
      '80000007.edx': 0,
      kvm: 0,
    };
    for (const name of description.features) {
      const [word, bit] = FEATURES[name];
      this.words[word] |= 1 << bit;
    }
  }

  has(feature: string): boolean {
    return this.description.features.has(feature);
  }

  /** `cr4`: OSPKE and OSXSAVE are told as CR4 has them, the size of XSAVE's area by XCR0; the APIC as IA32_APIC_BASE does. @kvm kvm_update_cpuid_runtime */
  answer(leaf: number, subleaf: number, cr4: number, apicEnabled = true, xcr0 = 1): CpuidAnswer {
    if (leaf >= KVM_SIGNATURE && leaf < KVM_SIGNATURE + 0x100)
      return this.has('hypervisor') ? this.hypervisor(leaf) : NOTHING;
    if (leaf >= 0x80000000) return this.extended(leaf);
    return this.basic(Math.min(leaf, MAX_BASIC), subleaf, cr4, apicEnabled, xcr0);
  }

  private basic(leaf: number, subleaf: number, cr4: number, apicEnabled: boolean, xcr0: number): CpuidAnswer {
    const { words, cpus, apicId } = this;
    switch (leaf) {
      case 0: {
        const [b, d, c] = vendorWords(this.description.vendor);
        return [MAX_BASIC, b, c, d];
      }
      case 1:
        // CLFLUSH takes 64 bytes.
        return [
          this.signature,
          (8 << 8) | (cpus << 16) | (apicId << 24),
          words['1.ecx'] | (cr4 & CR4_OSXSAVE ? OSXSAVE : 0),
          (words['1.edx'] & ~(apicEnabled ? 0 : APIC)) | (cpus > 1 ? 1 << 28 : 0),
        ];
      case 7: {
        if (subleaf !== 0) return NOTHING;
        const osPke = cr4 & (1 << 22) ? 1 << 4 : 0;
        return [0, words['7.ebx'], words['7.ecx'] | osPke, 0];
      }
      case 0xb:
        return this.topology(subleaf);
      case 0xd:
        return this.xsaveArea(subleaf, xcr0);
      default:
        return NOTHING;
    }
  }

  private xsaveArea(subleaf: number, xcr0: number): CpuidAnswer {
    if (!this.has('xsave')) return NOTHING;
    const keys = this.has('pku') ? 1 << PKRU_COMPONENT : 0;
    const bytes = (components: number): number => XSAVE_BYTES + (components & (1 << PKRU_COMPONENT) ? PKRU_BYTES : 0);
    if (subleaf === 0) return [3 | keys, bytes(xcr0), bytes(keys), 0];
    if (subleaf === 1) return [this.words['d.eax'], 0, 0, 0];
    return subleaf === PKRU_COMPONENT && keys !== 0 ? [PKRU_BYTES, XSAVE_BYTES, 0, 0] : NOTHING;
  }

  private topology(subleaf: number): CpuidAnswer {
    if (!this.has('x2apic')) return NOTHING;
    if (subleaf === 0) return [0, 1, 0x100, this.apicId];
    if (subleaf === 1) return [Math.ceil(Math.log2(this.cpus)), this.cpus, 0x201, this.apicId];
    return [0, 0, subleaf, this.apicId];
  }

  private extended(leaf: number): CpuidAnswer {
    const { words } = this;
    switch (leaf) {
      case 0x80000000: {
        const [b, d, c] = vendorWords(this.description.vendor);
        return [MAX_EXTENDED | 0, b, c, d];
      }
      case 0x80000001: {
        // AMD repeats the bits of leaf 1 that its first CPUs had.
        const repeated = this.description.vendor === 'AuthenticAMD' ? words['1.edx'] & 0x0183f3ff : 0;
        return [this.signature, 0, words['80000001.ecx'], words['80000001.edx'] | repeated];
      }
      case 0x80000002:
        return nameWords(0);
      case 0x80000003:
        return nameWords(16);
      case 0x80000004:
        return nameWords(32);
      case 0x80000007:
        return [0, 0, 0, words['80000007.edx']];
      case 0x80000008:
        return [PHYSICAL_BITS | ((this.has('la57') ? LINEAR_BITS_LA57 : LINEAR_BITS) << 8), 0, this.cpus - 1, 0];
      default:
        return NOTHING;
    }
  }

  private hypervisor(leaf: number): CpuidAnswer {
    if (leaf === KVM_SIGNATURE) return [KVM_SIGNATURE | 1, 0x4b4d564b, 0x564b4d56, 0x4d];
    // NOP_IO_DELAY: port 0x80 needs no waiting.
    if (leaf === KVM_SIGNATURE + 1) return [this.words.kvm | (1 << 1), 0, 0, 0];
    return NOTHING;
  }
}

/** In the order of EBX, EDX, ECX. */
function vendorWords(vendor: Vendor): [number, number, number] {
  const word = (at: number): number =>
    vendor.charCodeAt(at) |
    (vendor.charCodeAt(at + 1) << 8) |
    (vendor.charCodeAt(at + 2) << 16) |
    (vendor.charCodeAt(at + 3) << 24);
  return [word(0), word(4), word(8)];
}

const NAME = 'Penumbra virtual CPU'.padEnd(48, '\0');

function nameWords(at: number): CpuidAnswer {
  const word = (i: number): number =>
    NAME.charCodeAt(i) |
    (NAME.charCodeAt(i + 1) << 8) |
    (NAME.charCodeAt(i + 2) << 16) |
    (NAME.charCodeAt(i + 3) << 24);
  return [word(at), word(at + 4), word(at + 8), word(at + 12)];
}
