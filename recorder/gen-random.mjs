// Writes random scenarios:  node gen-random.mjs OUT_DIR FIRST_SEED COUNT [OPS]
// The same seed always gives the same scenario.
import fs from 'node:fs';
import path from 'node:path';
import { scenario } from './random-scenario.mjs';

const [dir, first, count, ops] = process.argv.slice(2);
fs.mkdirSync(dir, { recursive: true });
for (let i = 0; i < Number(count); i++) {
  const seed = Number(first) + i;
  fs.writeFileSync(path.join(dir, `random-${String(seed).padStart(4, '0')}.scn`), scenario(seed, Number(ops ?? 200)));
}
