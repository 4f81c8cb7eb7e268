/** The recorder's own judge, `recorder/compare.mjs`, over pairs of texts; each run is a process of its own. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const COMPARE = fileURLToPath(new URL('../../../recorder/compare.mjs', import.meta.url));

export interface Pair {
  readonly want: string;
  readonly got: string;
}

/** What the judge says about each pair: its lines, '' for an identical pair. One answer for each list of flags. */
export function judge(pairs: readonly Pair[], ...flagLists: readonly (readonly string[])[]): string[][] {
  const folder = mkdtempSync(join(tmpdir(), 'penumbra-judge-'));
  try {
    for (const side of ['want', 'got'] as const) {
      mkdirSync(join(folder, side));
      pairs.forEach((pair, i) => writeFileSync(join(folder, side, fileName(i)), pair[side]));
    }
    return flagLists.map((flags) => answers(folder, flags, pairs.length));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function fileName(index: number): string {
  return `${String(index).padStart(5, '0')}.json`;
}

function answers(folder: string, flags: readonly string[], count: number): string[] {
  const args = [COMPARE, join(folder, 'want'), join(folder, 'got'), ...flags, '--show=1000000'];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', maxBuffer: 1 << 28 });
  if (!stdout.includes(`"files":${count},`)) throw new Error(`compare.mjs failed: ${stderr}`);
  const parts = stdout.split(/^(\d{5})\.json: /m).slice(1);
  const byName = new Map<string, string>();
  for (let i = 0; i < parts.length; i += 2)
    byName.set(parts[i] ?? '', (parts[i + 1] ?? '').replace(/^\{"files".*\n/m, ''));
  return Array.from({ length: count }, (_, i) => (byName.get(fileName(i).slice(0, 5)) ?? '').replace(/\n$/, ''));
}
