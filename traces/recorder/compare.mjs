// Two recordings of the same guest side by side: node compare.mjs A.pntrace B.pntrace
import fs from 'node:fs';
import { openTrace } from '../read.mjs';

const KINDS = ['read', 'written', 'fetched'];

/** @param {string} file */
function summary(file) {
  const { header, records, epochs } = openTrace(fs.readFileSync(file));
  const pages = [new Set(), new Set(), new Set()];
  for (const record of records) pages[record & 3].add(record >>> 2);
  let written = 0;
  let at = 0;
  for (const { vcpus } of epochs()) {
    const own = new Set();
    for (const { records: list } of vcpus) {
      at += list.length;
      for (const record of list) if ((record & 3) === 1) own.add(record >>> 2);
    }
    written += own.size;
  }
  const all = new Set([...pages[0], ...pages[1], ...pages[2]]);
  const regions = (set) => new Set([...set].map((page) => page >>> 9));
  return { header, pages, all, writtenPerEpoch: written / header.epochs, regions: regions(all), writtenRegions: regions(pages[1]) };
}

const [a, b] = process.argv.slice(2).map(summary);
const rows = [];
const row = (name, x, y) => rows.push([name, x, y]);
for (const field of ['epochs', 'insns', 'loads', 'stores', 'records']) row(field, a.header[field], b.header[field]);
for (const [i, kind] of ['r', 'w', 'x'].entries()) row(`records ${KINDS[i]}`, a.header.recordsByKind[kind], b.header.recordsByKind[kind]);
row('pages touched', a.all.size, b.all.size);
for (const [i, kind] of KINDS.entries()) row(`pages ${kind}`, a.pages[i].size, b.pages[i].size);
row('pages written an epoch', a.writtenPerEpoch, b.writtenPerEpoch);
row('2 MiB regions touched', a.regions.size, b.regions.size);
row('2 MiB regions written', a.writtenRegions.size, b.writtenRegions.size);
row('pages not zero at the start', a.header.populatedPagesAtStart, b.header.populatedPagesAtStart);
console.log(`${''.padEnd(28)} ${a.header.name.padStart(14)} ${b.header.name.padStart(14)}   ratio`);
const show = (n) => (Number.isInteger(n) ? n.toLocaleString('en-US') : n.toFixed(2)).padStart(14);
for (const [name, x, y] of rows) console.log(`${name.padEnd(28)} ${show(x)} ${show(y)}   ${(y / x).toFixed(3)}`);
for (const [i, kind] of KINDS.entries()) {
  const both = [...a.pages[i]].filter((page) => b.pages[i].has(page)).length;
  console.log(`the same pages ${kind}: ${both} (${((100 * both) / Math.max(1, a.pages[i].size)).toFixed(1)} % of ${a.header.name}'s, ${((100 * both) / Math.max(1, b.pages[i].size)).toFixed(1)} % of ${b.header.name}'s)`);
}
