/** `target.xml`: which registers there are, and how GDB shows them. */
import { type Feature, REGISTERS } from './registers.ts';

const VECTORS: readonly (readonly [id: string, type: string, count: number])[] = [
  ['v4f', 'ieee_single', 4],
  ['v2d', 'ieee_double', 2],
  ['v16i8', 'int8', 16],
  ['v8i16', 'int16', 8],
  ['v4i32', 'int32', 4],
  ['v2i64', 'int64', 2],
];
const UNION: readonly (readonly [name: string, type: string])[] = [
  ['v4_float', 'v4f'],
  ['v2_double', 'v2d'],
  ['v16_int8', 'v16i8'],
  ['v8_int16', 'v8i16'],
  ['v4_int32', 'v4i32'],
  ['v2_int64', 'v2i64'],
  ['uint128', 'uint128'],
];

type Flags = readonly (readonly [name: string, bit: number])[];

// biome-ignore format: tables
const EFLAGS: Flags = [
  ['CF', 0], ['', 1], ['PF', 2], ['AF', 4], ['ZF', 6], ['SF', 7], ['TF', 8], ['IF', 9], ['DF', 10], ['OF', 11],
  ['NT', 14], ['RF', 16], ['VM', 17], ['AC', 18], ['VIF', 19], ['VIP', 20], ['ID', 21],
];
// biome-ignore format: tables
const MXCSR_FLAGS: Flags = [
  ['IE', 0], ['DE', 1], ['ZE', 2], ['OE', 3], ['UE', 4], ['PE', 5], ['DAZ', 6],
  ['IM', 7], ['DM', 8], ['ZM', 9], ['OM', 10], ['UM', 11], ['PM', 12], ['FZ', 15],
];
// biome-ignore format: tables
const CR0_FLAGS: Flags = [
  ['PE', 0], ['MP', 1], ['EM', 2], ['TS', 3], ['ET', 4], ['NE', 5], ['WP', 16], ['AM', 18], ['NW', 29], ['CD', 30], ['PG', 31],
];
// biome-ignore format: tables
const CR4_FLAGS: Flags = [
  ['VME', 0], ['PVI', 1], ['TSD', 2], ['DE', 3], ['PSE', 4], ['PAE', 5], ['MCE', 6], ['PGE', 7], ['PCE', 8], ['OSFXSR', 9],
  ['OSXMMEXCPT', 10], ['UMIP', 11], ['LA57', 12], ['FSGSBASE', 16], ['PCIDE', 17], ['OSXSAVE', 18], ['SMEP', 20], ['SMAP', 21],
  ['PKE', 22],
];
const EFER_FLAGS: Flags = [
  ['SCE', 0],
  ['LME', 8],
  ['LMA', 10],
  ['NXE', 11],
];

const TYPES: Readonly<Record<Feature, () => string>> = {
  'org.gnu.gdb.i386.core': () => flags('i386_eflags', 4, EFLAGS),
  'org.gnu.gdb.i386.sse': () =>
    `${VECTORS.map(([id, type, count]) => `<vector id="${id}" type="${type}" count="${count}"/>`).join('')}<union id="vec128">${UNION.map(
      ([name, type]) => `<field name="${name}" type="${type}"/>`,
    ).join('')}</union>${flags('i386_mxcsr', 4, MXCSR_FLAGS)}`,
  'org.gnu.gdb.i386.segments': () => '',
  'penumbra.system': () => flags('cr0', 8, CR0_FLAGS) + flags('cr4', 8, CR4_FLAGS) + flags('efer', 8, EFER_FLAGS),
};

function flags(id: string, bytes: number, fields: Flags): string {
  const rows = fields.map(([name, bit]) => `<field name="${name}" start="${bit}" end="${bit}"/>`);
  return `<flags id="${id}" size="${bytes}">${rows.join('')}</flags>`;
}

function feature(name: Feature): string {
  const rows = REGISTERS.map(({ name, bits, type, feature }, n) => ({ name, bits, type, feature, n }))
    .filter((r) => r.feature === name)
    .map((r) => `<reg name="${r.name}" bitsize="${r.bits}" type="${r.type}" regnum="${r.n}"/>`);
  return `<feature name="${name}">${TYPES[name]()}${rows.join('\n')}</feature>`;
}

const FEATURES = [...new Set(REGISTERS.map((r) => r.feature))];

export const TARGET_XML = `<?xml version="1.0"?>
<!DOCTYPE target SYSTEM "gdb-target.dtd">
<target version="1.0"><architecture>i386:x86-64</architecture>
${FEATURES.map(feature).join('\n')}
</target>
`;
