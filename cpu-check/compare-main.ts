/** `compare-main HARNESS [COUNT [SEED [NAME,...]]]`: prints what differs, by instruction. */
import { compare } from './compare.ts';

const [harness, count = '20000', seed = '1', names = ''] = process.argv.slice(2);
const wanted = names.split(',');
const outcome = compare(harness, Number(seed), Number(count), names ? (row) => wanted.includes(row.name) : undefined);
const byName = new Map<string, string[]>();
for (const m of outcome.mismatches) {
  const key = `${m.narrow ? '32 ' : ''}${m.row.name} ${m.row.operands.join()}`;
  byName.set(key, [...(byName.get(key) ?? []), `${m.code}: ${m.what}`]);
}
for (const [key, list] of byName) console.log(`${key}: ${list.length}\n    ${list.slice(0, 2).join('\n    ')}`);
console.log(`${outcome.compared} compared, ${outcome.forms} forms, ${outcome.mismatches.length} mismatches`);
process.exitCode = outcome.mismatches.length > 0 ? 1 : 0;
