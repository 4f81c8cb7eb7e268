/** `compare-main HARNESS [COUNT [SEED [NAME,... [BITS]]]]`: prints what differs, by instruction. BITS: of the code, 64,32 or 16. */
import { compare } from './compare.ts';
import type { Bits } from './encode.ts';

const [harness, count = '20000', seed = '1', names = '', bits = '64,32'] = process.argv.slice(2);
const modes = bits.split(',').map((word) => Number(word) as Bits);
const wanted = names.split(',');
const outcome = compare(harness, Number(seed), Number(count), names ? (row) => wanted.includes(row.name) : undefined, modes);
const byName = new Map<string, string[]>();
for (const m of outcome.mismatches) {
  const key = `${m.bits} ${m.row.name} ${m.row.operands.join()}`;
  byName.set(key, [...(byName.get(key) ?? []), `${m.code}: ${m.what}`]);
}
for (const [key, list] of byName) console.log(`${key}: ${list.length}\n    ${list.slice(0, 2).join('\n    ')}`);
console.log(`${outcome.compared} compared, ${outcome.forms} forms, ${outcome.mismatches.length} mismatches`);
process.exitCode = outcome.mismatches.length > 0 ? 1 : 0;
