/** Files that come with the package: this module runs from `src/node/` in a checkout and from `dist/` when built. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The path of a file or folder of the package; where it would be in the root of the file system if it is missing. */
export function packageFile(...names: string[]): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const path = join(folder, ...names);
    if (existsSync(path) || dirname(folder) === folder) return path;
  }
}
