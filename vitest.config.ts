import { configDefaults, defineConfig } from 'vitest/config';

const long = process.env['PENUMBRA_LONG'] === '1';

/** One changed call, for scripts/mutations.mjs. */
interface Mutant {
  readonly file: string;
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
}
const mutant = process.env['PENUMBRA_MUTANT'] ? (JSON.parse(process.env['PENUMBRA_MUTANT']) as Mutant) : null;

export default defineConfig({
  plugins: mutant
    ? [
        {
          name: 'mutant',
          enforce: 'pre',
          transform: (code, id) =>
            id.endsWith(mutant.file)
              ? code.slice(0, mutant.start) + mutant.replacement + code.slice(mutant.end)
              : undefined,
        },
      ]
    : [],
  test: {
    include: ['src/**/*.test.ts'],
    exclude: [...configDefaults.exclude, ...(long ? [] : ['**/*.long.test.ts'])],
    pool: 'threads',
    maxWorkers: 2,
    // Property tests on a busy machine take seconds; a test that hangs still ends.
    testTimeout: long ? 3_600_000 : 60_000,
  },
});
